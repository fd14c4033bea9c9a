# ruff: noqa: F821 (MicroPython's makemanifest.py defines the functions)
# What every rp2 board freezes, as far as Debian's source has it (no onewire, dht, neopixel).
freeze("$(PORT_DIR)/modules")
