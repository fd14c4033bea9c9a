"""Tools that a test needs and a machine may lack: then it is skipped. Where the machine could have
them and something failed, the test fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from sparsetune_tools.shell import Missing

Tool = TypeVar("Tool")


def set_up(make: Callable[[], Tool]) -> Tool:
    try:
        return make()
    except Missing as error:
        pytest.skip(f"SKIP: {error}")
