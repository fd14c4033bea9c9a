# ruff: noqa: F821 (MicroPython's makemanifest.py defines the functions)
# Python modules that are part of the firmware.
include("manifest_stock.py")
package("sparsetune_device", base_path="$(BOARD_DIR)/../../device")
