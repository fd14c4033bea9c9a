# ruff: noqa: F821 (MicroPython's makemanifest.py defines the functions)
# Python modules that are part of the firmware. For MicroPython's usual drivers and network modules
# add include("$(PORT_DIR)/boards/manifest.py"), which wants the submodule micropython-lib.
freeze("$(PORT_DIR)/modules", ("_boot.py", "flashbdev.py", "inisetup.py", "espnow.py"))
include("$(MPY_DIR)/extmod/asyncio")
package("sparsetune_device", base_path="$(BOARD_DIR)/../../device")
