"""The emulated Pico's own boot ROM: its functions against Python, run on the emulated core."""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from sparsetune_tools.emulated_pico import SOURCES, ensure_bootrom, ensure_packages, node_command

Call = tuple[str, object, Sequence[int]]
Caller = Callable[[Sequence[Call]], list[list[int]]]

FADD, FSUB, FMUL, FDIV, FSQRT = 0x00, 0x04, 0x08, 0x0C, 0x18
TO_INT, TO_FIX, TO_UINT, FROM_INT, FROM_FIX = 0x1C, 0x20, 0x24, 0x2C, 0x30
COS, SIN, TAN, EXP, LN, COMPARE, ATAN2 = 0x3C, 0x40, 0x44, 0x4C, 0x50, 0x54, 0x58
FROM_INT64, TO_INT64, WIDEN = 0x5C, 0x6C, 0x7C


@pytest.fixture(scope="module")
def rom() -> Path:
    ensure_packages()
    return ensure_bootrom()


@pytest.fixture
def call(rom: Path) -> Caller:
    def run(calls: Sequence[Call]) -> list[list[int]]:
        lines = "\n".join(json.dumps([table, key, list(args) + [0] * (4 - len(args))])
                          for table, key, args in calls)
        done = subprocess.run([node_command(), str(SOURCES / "rom_call.mjs"), str(rom)],
                              input=lines, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]
    return run


def single(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def double(value: float) -> tuple[int, int]:
    low, high = struct.unpack("<II", struct.pack("<d", value))
    return low, high


def as_double(registers: Sequence[int]) -> float:
    return float(struct.unpack("<d", struct.pack("<II", *registers[:2]))[0])


def as_single(registers: Sequence[int]) -> float:
    return float(struct.unpack("<f", struct.pack("<I", registers[0]))[0])


def some_floats(count: int) -> list[float]:
    chance = random.Random(7)
    return [float(np.float32(chance.uniform(-2, 2) * 2.0 ** chance.randint(-20, 20)))
            for _ in range(count)]


def test_size_and_magic(rom: Path) -> None:
    data = rom.read_bytes()
    assert len(data) <= 16 * 1024
    assert data[0x10:0x13] == b"Mu\x01"


def test_bit_functions(call: Caller) -> None:
    chance = random.Random(1)
    values = [0, 1, 2, 0x80000000, 0xFFFFFFFF] + [chance.getrandbits(chance.randint(1, 32))
                                                 for _ in range(60)]
    expected = {
        "P3": lambda x: bin(x).count("1"),
        "R3": lambda x: int(f"{x:032b}"[::-1], 2),
        "L3": lambda x: 32 - x.bit_length(),
        "T3": lambda x: (x & -x).bit_length() - 1 if x else 32,
    }
    for name, python in expected.items():
        got = call([("function", name, [x]) for x in values])
        assert [registers[0] for registers in got] == [python(x) for x in values], name


def test_unknown_function_is_null(call: Caller) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        call([("function", "ZZ", [0])])


@pytest.mark.parametrize("offset, operation", [
    (FADD, np.add), (FSUB, np.subtract), (FMUL, np.multiply), (FDIV, np.divide)])
def test_arithmetic_is_ieee(call: Caller, offset: int, operation: Callable[..., float]) -> None:
    pairs = list(zip(some_floats(150), some_floats(300)[150:], strict=True))
    singles = call([("float", offset, [single(a), single(b)]) for a, b in pairs])
    doubles = call([("double", offset, [*double(a), *double(b)]) for a, b in pairs])
    for (a, b), f, d in zip(pairs, singles, doubles, strict=True):
        assert f[0] == single(float(operation(np.float32(a), np.float32(b)))), (a, b)
        assert as_double(d) == operation(a, b), (a, b)


def test_square_root_is_correctly_rounded(call: Caller) -> None:
    values = [abs(x) for x in some_floats(150)] + [1.0, 2.0, 4.0, 0.0, 3.9999999]
    singles = call([("float", FSQRT, [single(x)]) for x in values])
    doubles = call([("double", FSQRT, double(x)) for x in values])
    for x, f, d in zip(values, singles, doubles, strict=True):
        assert f[0] == single(float(np.sqrt(np.float32(x)))), x
        assert as_double(d) == math.sqrt(x), x


@pytest.mark.parametrize("offset, function, low, high", [
    (SIN, math.sin, -100, 100), (COS, math.cos, -100, 100), (TAN, math.tan, -1.5, 1.5),
    (EXP, math.exp, -80, 80), (LN, math.log, 1e-6, 1e6)])
def test_elementary_functions(call: Caller, offset: int, function: Callable[[float], float],
                              low: float, high: float) -> None:
    chance = random.Random(3)
    values = [float(np.float32(chance.uniform(low, high))) for _ in range(40)]
    singles = call([("float", offset, [single(x)]) for x in values])
    doubles = call([("double", offset, double(x)) for x in values])
    for x, f, d in zip(values, singles, doubles, strict=True):
        assert as_single(f) == pytest.approx(function(x), rel=1.3e-7, abs=1e-30), x
        assert as_double(d) == pytest.approx(function(x), rel=1e-13, abs=1e-14), x


def test_arctangent(call: Caller) -> None:
    pairs = list(zip(some_floats(40), some_floats(80)[40:], strict=True))
    pairs += [(0.0, -1.0), (-1.0, 0.0)]
    for (y, x), d in zip(pairs, call([("double", ATAN2, [*double(y), *double(x)])
                                      for y, x in pairs]), strict=True):
        assert as_double(d) == pytest.approx(math.atan2(y, x), rel=1e-13), (y, x)


def clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


def test_conversions_round_down_and_saturate(call: Caller) -> None:
    values = some_floats(80) + [0.0, -0.5, 0.5, -1.0, 3e9, -3e9, 5e9, 1e30, -1e30, 2.0**31]
    to_int = call([("float", TO_INT, [single(x)]) for x in values])
    to_uint = call([("float", TO_UINT, [single(x)]) for x in values])
    to_fix = call([("float", TO_FIX, [single(x), 8]) for x in values])
    to_int64 = call([("double", TO_INT64, double(x)) for x in values])
    for x, i, u, f in zip(values, to_int, to_uint, to_fix, strict=True):
        x = float(np.float32(x))
        assert i[0] == clamp(math.floor(x), -2**31, 2**31 - 1) % 2**32, x
        assert u[0] == clamp(math.floor(x), 0, 2**32 - 1), x
        assert f[0] == clamp(math.floor(x * 256), -2**31, 2**31 - 1) % 2**32, x
    for x, q in zip(values, to_int64, strict=True):
        assert q[0] + 2**32 * q[1] == clamp(math.floor(x), -2**63, 2**63 - 1) % 2**64, x


def test_conversions_to_float(call: Caller) -> None:
    values = [0, 1, -1, 123456789, -2**31, 2**31 - 1]
    for x, f in zip(values, call([("float", FROM_INT, [x]) for x in values]), strict=True):
        assert f[0] == single(float(np.float32(x)))
    for x, f in zip(values, call([("double", FROM_FIX, [x, 12]) for x in values]), strict=True):
        assert as_double(f) == x / 4096
    wide = [5, -2**63, 2**62 + 12345]
    for x, f in zip(wide, call([("double", FROM_INT64, [x & 0xFFFFFFFF, x >> 32])
                                for x in wide]), strict=True):
        assert as_double(f) == float(x)
    assert as_double(call([("float", WIDEN, [single(0.1)])])[0]) == float(np.float32(0.1))


def test_compare(call: Caller) -> None:
    pairs = [(1.0, 2.0), (2.0, 1.0), (-1.0, -1.0), (-0.0, 0.0), (-5.0, 3.0)]
    for (a, b), f in zip(pairs, call([("float", COMPARE, [single(a), single(b)])
                                      for a, b in pairs]), strict=True):
        assert f[0] == ((a > b) - (a < b)) % 2**32
