"""The Debian packages that the tools need, and whether the machine has them.

`python -m sparsetune_tools.needs` lists what is missing; `--install` installs it when it may.
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
# Without these some tests are skipped.
OPTIONAL = {"qemu-xtensa": "qemu-user"}
# (compiler, file that it must find) -> the Debian package that has it.
LIBRARIES = {
    ("gcc", "libc.so"): "libc6-dev",
    ("arm-none-eabi-gcc", "libc.a"): "libnewlib-arm-none-eabi",
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
    packages = [COMMANDS[name] for name in wanted if not shutil.which(name)]
    packages += [package for (compiler, file), package in LIBRARIES.items()
                 if compiler in wanted and not finds(compiler, file)]
    return packages


def missing_optional() -> list[str]:
    """Debian packages without which some tests are skipped."""
    return [package for name, package in OPTIONAL.items() if not shutil.which(name)]


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


def require_optional(command: str) -> None:
    if not shutil.which(command):
        raise Missing(f"this needs {command}; run: {apt_line([OPTIONAL[command]])}")


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


def main() -> None:
    packages, optional = missing() + missing_python(), missing_optional()
    if packages + optional and "--install" in sys.argv[1:] and may_install():
        install(packages + optional)
        packages, optional = missing() + missing_python(), missing_optional()
    if packages:
        raise ToolError(f"packages are missing; run: {apt_line(packages)}")
    if optional:
        say(f"some tests will be skipped; for them run: {apt_line(optional)}")
    say("all Debian packages are there")


if __name__ == "__main__":
    run_main(main)
