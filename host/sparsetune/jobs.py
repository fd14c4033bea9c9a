"""Runs in processes of their own, as many at a time as there are cores, with progress shown."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .errors import SparsetuneError

Found = Callable[["Job", dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """label: what is shown. command: of a program that tells `{"steps": N}` and at the end
    `{"result": ...}` or `{"error": ...}`. steps: in all. env: variables beside our own."""

    key: str
    label: str
    command: tuple[str, ...]
    steps: int
    env: tuple[tuple[str, str], ...] = ()


def run_jobs(jobs: Sequence[Job], workers: int, found: Found) -> None:
    """Runs them all; found(job, result) is called as each ends, one at a time. Raises
    SparsetuneError for the first that fails, and ends the others."""
    if jobs:
        with _Pool(jobs, found) as pool:
            pool.run(workers)


class _Pool:
    def __init__(self, jobs: Sequence[Job], found: Found) -> None:
        self.jobs = jobs
        self.found = found
        self.lock = threading.Lock()
        self.processes: list[subprocess.Popen[str]] = []
        self.steps: dict[str, int] = {}  # of what runs or is done
        self.is_over = False
        self.began = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        is_shown = sys.stdout.isatty()
        self.progress = Progress(
            *columns, TextColumn("{task.fields[left]}"), transient=True, disable=not is_shown
        )
        self.bar = self.progress.add_task("runs", total=len(jobs), left="")

    def __enter__(self) -> _Pool:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.progress.stop()

    def end(self) -> None:
        """No process of ours is left behind."""
        with self.lock:
            self.is_over = True
            for process in self.processes:
                with contextlib.suppress(OSError):
                    process.kill()

    def run(self, workers: int) -> None:
        with ThreadPoolExecutor(workers) as threads:
            left = {threads.submit(self._do, job) for job in self.jobs}
            try:
                while left:
                    done, left = wait(left, timeout=1, return_when=FIRST_COMPLETED)
                    self._show(len(self.jobs) - len(left))
                    for future in done:
                        future.result()
            except BaseException:
                self.end()  # before the threads are waited for
                raise

    def _do(self, job: Job) -> None:
        process = self._started(job)
        if process is None:
            return
        result, error = None, ""
        assert process.stdout
        for line in process.stdout:
            told = _parse(line)
            self.steps[job.key] = told.get("steps", self.steps[job.key])
            result, error = told.get("result", result), told.get("error", error)
        code = process.wait()
        with self.lock:
            if self.is_over:
                return
            if error or result is None:
                why = error or f"its process ended with {code}"
                raise SparsetuneError(f"the run {job.label} failed: {why}")
            self.steps[job.key] = job.steps
            self.found(job, result)
        if self.progress.disable:
            print(f"{job.label}: done after {_hours(time.monotonic() - self.began)}", flush=True)

    def _started(self, job: Job) -> subprocess.Popen[str] | None:
        with self.lock:
            if self.is_over:
                return None
            self.steps[job.key] = 0
            # In a session of its own: Ctrl-C is ours to hear, and we end it then.
            process = subprocess.Popen(
                job.command, stdout=subprocess.PIPE, text=True, start_new_session=True,
                env={**os.environ, **dict(job.env)},
            )  # fmt: skip
            self.processes.append(process)
            return process

    def _show(self, done: int) -> None:
        running = [job.label for job in self.jobs if 0 < self.steps.get(job.key, 0) < job.steps]
        share = sum(self.steps.values()) / max(1, sum(job.steps for job in self.jobs))
        spent = time.monotonic() - self.began
        left = f"{_hours(spent * (1 - share) / share)} left" if share > 0.001 else ""
        self.progress.update(
            self.bar, completed=done, left=left, description=", ".join(running) or "runs"
        )


def _hours(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _parse(line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}  # chatter
    return told if isinstance(told, dict) else {}
