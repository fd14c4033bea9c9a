"""Figures of the main job's bars: runs the tests that hold them, with what they print.

Times and memory of the emulated Pico are emulated (cycle model without flash cache misses).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1] / "tests"
FILES = ("test_golden.py", "test_training.py")

if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-s", *(str(TESTS / name) for name in FILES)]))
