# ruff: noqa: F821 (MicroPython's makemanifest.py defines the functions)
# Python modules that are part of the firmware.
freeze("$(PORT_DIR)/modules", ("rp2.py", "_boot_fat.py"))
freeze("$(BOARD_DIR)/modules")  # our own _boot.py
package("sparsetune_device", base_path="$(BOARD_DIR)/../../device")
