"""The log of a run under way: a line of JSON for all that the board says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import SparsetuneError


class StepLog:
    """On a full disk the log ends behind its last whole line, and the run goes on."""

    def __init__(self, path: Path) -> None:
        """Create the log, over an old one. Raises SparsetuneError."""
        self.is_open = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Nothing is held back: the log is worth most when something goes wrong next.
            self._file = open(path, "wb", buffering=0)
        except OSError as error:
            raise SparsetuneError(
                f"cannot write the log {path} ({error.strerror}): choose another with --log"
            ) from None

    def write(self, record: dict[str, Any]) -> bool:
        """Whether it took the record, or has told before that it takes no more."""
        if not self.is_open:
            return True
        self.is_open = self._append((json.dumps(record) + "\n").encode())
        return self.is_open

    def close(self) -> None:
        self._file.close()

    def _append(self, line: bytes) -> bool:
        """All of the line or nothing."""
        written = 0
        try:
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError:
            if written:
                self._file.truncate(self._file.tell() - written)
            return False
        return True
