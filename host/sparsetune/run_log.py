"""Finished runs, a line of JSON each: what was done once is not done again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from .errors import SparsetuneError

Record = dict[str, Any]


def key_of(settings: Any) -> str:
    """A name for all that decides about a run's numbers. settings: of JSON's types."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class RunLog:
    """The file at `path`. A line that was cut short counts for nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        except (OSError, ValueError) as error:
            raise SparsetuneError(f"cannot read {path} ({error}): name another") from None
        for line in lines:
            record = _read(line)
            if record:
                self.records[record["key"]] = record

    def get(self, key: str) -> Record | None:
        return self.records.get(key)

    def add(self, record: Record) -> None:
        """In one piece, behind all others. Raises SparsetuneError."""
        line = json.dumps(record, sort_keys=True) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, (b"" if _ends_a_line(file) else b"\n") + line.encode())
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise SparsetuneError(f"cannot write {self.path} ({error.strerror})") from None
        self.records[record["key"]] = record


def _ends_a_line(file: int) -> bool:
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"


def _read(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None
