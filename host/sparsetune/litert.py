"""Runs .tflite models with LiteRT: the judge of every accuracy that sparsetune prints.

Only this file runs LiteRT. It uses the reference kernels, because those are the arithmetic that
the board reproduces bit for bit; LiteRT's default (XNNPACK) differs by up to two steps. Where only
statistics are wanted, `fast` takes LiteRT's optimised kernels instead.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparsetune.cores import in_parts
from sparsetune.errors import SparsetuneError
from sparsetune.tflite import repair_quantisation

Model: TypeAlias = "str | os.PathLike[str] | bytes | bytearray"
Array: TypeAlias = "npt.NDArray[Any]"

_PACKAGES = ("ai_edge_litert", "tflite_runtime")


class LiteRTError(SparsetuneError):
    """LiteRT is missing, refuses the model, or the samples do not fit it (one-line message)."""


def predict(model: Model, x: Array, fast: bool = False) -> Array:
    """Raw outputs of `model` for samples `x`, one by one, in the model's own output dtype.

    x: [N, ...] in the model's input dtype (int8 for int8 models); each sample must hold as many
    values as the model's input. Returns [N, ...output shape without the batch axis]. Raises
    LiteRTError. All cores work on it, each with an interpreter of one thread.
    """
    parts = in_parts(len(x), lambda part: _predict(model, x[part.start : part.stop], fast))
    return np.concatenate(parts)


def _predict(model: Model, x: Array, fast: bool) -> Array:
    interpreter = open_interpreter(model, fast=fast)
    source, sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    x = _fed(x, source)
    outputs = np.empty((len(x), *sink["shape"][1:]), sink["dtype"])
    for i, sample in enumerate(x):
        interpreter.set_tensor(source["index"], sample.reshape(source["shape"]))
        _invoke(interpreter)
        outputs[i] = interpreter.get_tensor(sink["index"])[0]
    return outputs


def activations(
    model: Model, x: Array, tensors: list[int], fast: bool = False
) -> Iterator[list[Array]]:
    """For each sample the values of some tensors (their indices in the file), as stored.

    x: as for predict. Raises LiteRTError.
    """
    interpreter = open_interpreter(model, preserve=True, fast=fast)
    source = interpreter.get_input_details()[0]
    x = _fed(x, source)
    for sample in x:
        interpreter.set_tensor(source["index"], sample.reshape(source["shape"]))
        _invoke(interpreter)
        yield [interpreter.get_tensor(index) for index in tensors]


def litert_accuracy(model: Model, x: Array, y: Array) -> float:
    """Share (0..1) of samples `x` [N, ...] whose largest output is the label `y` [N]."""
    if len(x) != len(y) or len(y) == 0:
        raise LiteRTError(f"{len(x)} samples but {len(y)} labels: pass one label for each sample")
    scores = predict(model, x).reshape(len(y), -1)
    return float(np.mean(scores.argmax(axis=1) == y))


def open_interpreter(model: Model, preserve: bool = False, fast: bool = False) -> Any:
    """A LiteRT interpreter with reference kernels, one thread, tensors allocated. preserve: keep
    the values between the operators, too. fast: optimised kernels, good for statistics."""
    data = model if isinstance(model, (bytes, bytearray)) else _existing(model).read_bytes()
    try:
        return _open(bytes(data), preserve, fast)
    except LiteRTError as error:
        if "quantized_dimension" not in str(error):
            raise
        return _open(repair_quantisation(bytes(data)), preserve, fast)


def _open(data: bytes, preserve: bool, fast: bool) -> Any:
    runtime = _runtime()
    kernels = runtime.OpResolverType
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells what `preserve` costs
            interpreter = runtime.Interpreter(
                model_content=data,
                num_threads=1,
                experimental_preserve_all_tensors=preserve,
                experimental_op_resolver_type=(
                    kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES if fast else kernels.BUILTIN_REF
                ),
            )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise LiteRTError(f"LiteRT refuses the model: {_one_line(error)}") from error
    return interpreter


def _runtime() -> Any:
    why = "is not installed"
    for package in _PACKAGES:
        try:
            return importlib.import_module(package + ".interpreter")
        except ImportError as error:
            if _is_interrupt(error):
                raise KeyboardInterrupt from error
            if not (isinstance(error, ModuleNotFoundError) and error.name == package):
                why = f"cannot be loaded ({_one_line(error)})"
    raise LiteRTError(f"LiteRT {why}: pip install ai-edge-litert")


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is at the bottom of it: modules in C make an ImportError of that."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _invoke(interpreter: Any) -> None:
    try:
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise LiteRTError(f"LiteRT cannot run the model: {_one_line(error)}") from error


def _existing(path: str | os.PathLike[str]) -> Path:
    found = Path(path)
    if not found.is_file():
        raise LiteRTError(f"{found}: no such model file")
    return found


def _fed(x: Array, source: dict[str, Any]) -> Array:
    """The samples as the file's input takes them: sparsetune holds uint8 as int8, 128 less."""
    if x.dtype == np.int8 and source["dtype"] == np.uint8:
        x = (x.astype(np.int16) + 128).astype(np.uint8)
    wanted = tuple(int(n) for n in source["shape"])
    if x.dtype != source["dtype"]:
        kind = np.dtype(source["dtype"]).name
        raise LiteRTError(f"samples are {x.dtype}, but the model's input is {kind}: convert them")
    if x[:1].size not in (0, int(np.prod(wanted))):
        raise LiteRTError(f"a sample is {x.shape[1:]}, but the model's input is {wanted[1:]}")
    return x


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
