"""An emulator as a process that ends with its `with` block."""

from __future__ import annotations

import subprocess
from types import TracebackType
from typing import Any, Generic, TypeVar

Text = TypeVar("Text", str, bytes)  # what its pipes carry
Self = TypeVar("Self", bound="CoreProcess[Any]")


class CoreProcess(Generic[Text]):
    """process: running, its input and output are pipes."""

    process: subprocess.Popen[Text]

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
