"""The Debian packages that the tools need, and whether the machine has them.

`python -m sparsetune_tools.needs` lists what is missing; `--install` installs it when it may, and
`--install-optional` what else there is for modules of other boards and for their tests.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable

from .shell import Missing, ToolError, run_main, say

# What to look for -> the Debian package that has it.
COMMANDS = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "xz": "xz-utils",
    "make": "make",
    "cmake": "cmake",
    "gcc": "gcc",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "node": "nodejs",
    "npm": "npm",
}
# Without these some native modules are not built and some tests are skipped.
OPTIONAL = {
    "qemu-xtensa": "qemu-user",
    "qemu-arm": "qemu-user",
    "qemu-riscv32": "qemu-user",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-system-riscv32": "qemu-system-misc",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
}
# (compiler, file that it must find) -> the Debian package that has it.
LIBRARIES = {
    ("gcc", "libc.so"): "libc6-dev",
    ("arm-none-eabi-gcc", "libc.a"): "libnewlib-arm-none-eabi",
    ("riscv64-unknown-elf-gcc", "picolibc.specs"): "picolibc-riscv64-unknown-elf",
}


def finds(compiler: str, file: str) -> bool:
    """Whether a compiler, itself installed, finds a library file of its target."""
    if not shutil.which(compiler):
        return False
    answer = subprocess.run([compiler, f"-print-file-name={file}"],
                            capture_output=True, text=True, check=False)
    # A file that is not found comes back as its bare name.
    return os.path.isabs(answer.stdout.strip())


def missing(commands: Iterable[str] = tuple(COMMANDS)) -> list[str]:
    """Debian packages to install so that these commands, and their libraries, are there."""
    wanted = tuple(commands)
    known = {**COMMANDS, **OPTIONAL}
    packages = list(dict.fromkeys(known[name] for name in wanted if not shutil.which(name)))
    packages += [package for (compiler, file), package in LIBRARIES.items()
                 if compiler in wanted and not finds(compiler, file)]
    return packages


def missing_python() -> list[str]:
    """Debian packages that this Python needs to make a venv and to compile an extension."""
    packages = []
    if importlib.util.find_spec("ensurepip") is None:
        packages.append("python3-venv")
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        packages.append("python3-dev")
    return packages


def update_line() -> str:
    """A fresh machine has no package lists."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get update -qq"


def apt_line(packages: Iterable[str]) -> str:
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install -y --no-install-recommends {' '.join(packages)}"


def require(*commands: str) -> None:
    """Stop with the exact apt line when a command is missing."""
    packages = missing(commands)
    if packages:
        raise Missing(f"this needs packages that are not installed; run: {apt_line(packages)}")


def may_install() -> bool:
    """Whether apt may be used without asking anyone anything."""
    if not shutil.which("apt-get"):
        return False
    if os.geteuid() == 0:
        return True
    asked = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False) \
        if shutil.which("sudo") else None
    return asked is not None and asked.returncode == 0


def install(packages: list[str]) -> None:
    say("installing " + " ".join(packages))
    subprocess.run(update_line().split(), check=False)
    subprocess.run(apt_line(packages).split(), check=False)


def required() -> list[str]:
    return missing() + missing_python()


def optional() -> list[str]:
    return missing(OPTIONAL)


def main() -> None:
    looks = {"--install": required, "--install-optional": optional}
    packages = [name for word, look in looks.items() if word in sys.argv[1:] for name in look()]
    if packages and may_install():
        install(packages)
    if required():
        raise ToolError(f"packages are missing; run: {apt_line(required())}")
    if optional():
        say("some native modules are not built and some tests skipped; for them run: "
            f"{apt_line(optional())}")
    say("all Debian packages are there")


if __name__ == "__main__":
    run_main(main)
