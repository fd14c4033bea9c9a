# The training engine that runs on the board (MicroPython) and, as the host twin, on CPython.
__version__ = "0.1.0"
