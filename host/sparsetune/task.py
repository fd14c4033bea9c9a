"""What a model learns: the loss, the outputs it looks at, and what a sample's target is."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import SparsetuneError
from .graph import Graph

LOSSES = ("softmax", "bce", "mse", "autoencoder")  # in the order of their numbers in the image
MAX_CLASSES = 4095  # ulab_kernels/softmax.h
MAX_OUTPUTS = 65535  # ulab_kernels/run_losses.c


@dataclass(frozen=True)
class Task:
    """loss: one of LOSSES. outputs: classes, or values of a target. scale, zero_point: of the
    output, in whose numbers a target of `mse` is stored."""

    loss: str
    outputs: int
    scale: float
    zero_point: int

    @property
    def has_classes(self) -> bool:
        """Whether a target is a class number; else it is a vector, or the sample itself."""
        return self.loss == "softmax"

    @property
    def target_bytes(self) -> int:
        """Bytes of a sample's target in the sample file."""
        if self.loss == "autoencoder":
            return 0
        return self.outputs if not self.has_classes else (1 if self.outputs <= 256 else 2)

    @property
    def counts_right(self) -> bool:
        """Whether an answer is right or wrong, so that there is an accuracy."""
        return self.loss in ("softmax", "bce")


def task_of(graph: Graph) -> Task:
    """The task of a model with its loss (graph.loss_name). Raises SparsetuneError when the model
    cannot be trained with it."""
    y = graph.tensor(graph.logits)
    task = Task(graph.loss_name, y.size, y.scale, y.zero_point)
    if task.loss not in LOSSES:
        raise SparsetuneError(f"there is no loss {task.loss}: choose {', '.join(LOSSES)}")
    if task.has_classes and not 2 <= task.outputs <= MAX_CLASSES:
        raise SparsetuneError(
            f"the model's output has {task.outputs} values: the softmax loss needs the scores of "
            f"2 to {MAX_CLASSES} classes; for other outputs there is --loss mse or bce"
        )
    if task.outputs > MAX_OUTPUTS:
        raise SparsetuneError(f"the model has {task.outputs} outputs: at most {MAX_OUTPUTS}")
    if task.loss == "autoencoder" and graph.tensor(graph.input).size != y.size:
        raise SparsetuneError(
            f"an autoencoder's output is as large as its input; this model has {y.size} values "
            f"for {graph.tensor(graph.input).size}: use --loss mse"
        )
    return task
