"""Microseconds on MicroPython and CPython."""

import time

if hasattr(time, "ticks_us"):
    now_us = time.ticks_us

    def since_us(start):
        return time.ticks_diff(time.ticks_us(), start)

else:

    def now_us():
        return time.perf_counter_ns() // 1000

    def since_us(start):
        return now_us() - start
