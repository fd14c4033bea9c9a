"""The CPython build of the kernels (the host twin runs on it); all else is in pyproject.toml."""

import glob
import os

from setuptools import Extension, setup

kernels = sorted(glob.glob("ulab_kernels/*.c"))
CFLAGS = os.environ.get("SPARSETUNE_CFLAGS", "-O3 -fwrapv -std=c99 -Wall -fvisibility=hidden")
# What boards with stock MicroPython are sent, where `make natmods` has built it.
MODULES = "build/modules"
modules = ["sparsetune.modules"] if glob.glob(f"{MODULES}/*.mpy") else []
sources = [path for path in kernels if not path.endswith(("bind_micropython.c", "bind_core1.c"))]

setup(
    packages=[
        "sparsetune",
        "sparsetune.boards",
        *modules,
        "sparsetune.operators",
        "sparsetune.search",
        "sparsetune_device",
        "sparsetune_tools",
    ],
    package_dir={
        "sparsetune": "host/sparsetune",
        "sparsetune.boards": "boards",
        "sparsetune.modules": MODULES,
        "sparsetune_device": "device/sparsetune_device",
        "sparsetune_tools": "tools/sparsetune_tools",
    },
    ext_modules=[
        Extension(
            "sparsetune_kernels",
            sources=sources,
            depends=sorted(glob.glob("ulab_kernels/*.h")),
            define_macros=[("ST_SIMD", "1")],  # ulab_kernels/simd.h: in no other build
            extra_compile_args=CFLAGS.split(),
        )
    ],
)
