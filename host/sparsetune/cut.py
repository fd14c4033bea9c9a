"""Where what does not learn ends: the last place at which a single tensor, made in front of it, is
all that the rest needs of a sample. It is the same in every step, so that it need not be made
again. For models (front.py), and for programs, whose strips and masks a model does not show.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .program import Buffer, Flag, Op, Program, Slot

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Uses(Generic[T]):
    """The tensors that each operator makes and reads. given: the sample, which none makes. wanted:
    what is read behind the last one."""

    makes: Sequence[frozenset[T]]
    reads: Sequence[frozenset[T]]
    given: T
    wanted: frozenset[T] = frozenset()

    def crossing(self, at: int) -> set[T]:
        """What the sample and the first `at` operators hand to the others."""
        made = {self.given}.union(*self.makes[:at])
        return made & self.wanted.union(*self.reads[at:])

    def last_single(self, most: int, may_be: Callable[[int], bool] = lambda at: True) -> int:
        """The last place among the first `most` operators that a single tensor crosses, and not the
        sample; 0 where there is none."""
        for at in filter(may_be, range(most, 0, -1)):
            handed = self.crossing(at)
            if len(handed) == 1 and self.given not in handed:
                return at
        return 0


@dataclass(frozen=True)
class Cut:
    """From operator `at` on, a program needs what stands in `buffer` then, and the sample's
    target."""

    at: int
    buffer: Buffer


def cut_of(program: Program) -> Cut | None:
    """Where the frozen front of a program that learns ends; None where there is no such place, as
    where the target is the sample. Never within a strip, of whose maps there are rows alone."""
    if program.input is None or len(program.ops) == program.forward:
        return None
    named = [frozenset(op.buffers) - {program.target} for op in program.ops]
    uses = Uses(named, named, program.input)
    at = uses.last_single(
        next(i for i, op in enumerate(program.ops) if _learns(op)),
        lambda at: not program.ops[at].flags & Flag.IN_STRIP,
    )
    return Cut(at, uses.crossing(at).pop()) if at else None


def _learns(op: Op) -> bool:
    """Whether it reads what is learnt, or is there for learning alone."""
    return bool(op.flags & Flag.TRAINING_ONLY) or any(isinstance(w, Slot) for w in op.words)
