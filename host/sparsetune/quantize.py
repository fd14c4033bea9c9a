"""The subcommand quantize: float .tflite and samples in, int8 .tflite and what it costs out."""

from __future__ import annotations

import argparse
import io
from typing import Any

import numpy as np

from .compare import Judgement, LayerError, judge, layer_errors
from .data import Dataset
from .files import FLATBUFFER, check_outputs, read_file, refuse_other, write_output
from .float_samples import few, load_samples, shaped
from .quantizer import RANGE_SAMPLES, float_model, load_library, quantize_model
from .stored import Stored
from .tflite import parse_tflite

JUDGED_SAMPLES, LAYER_SAMPLES = 500, 20
BETTER = 0.1  # than guessing, of what is left, should the float model be
WORST = 5  # layers that are named


def quantize(args: argparse.Namespace) -> None:
    """Makes the int8 model, says what it costs, writes it."""
    output = args.output or args.model.with_name(args.model.stem + "_int8.tflite")
    check_outputs({"output": output, "model": args.model, "samples": args.samples})
    refuse_other(output, FLATBUFFER)  # before the calibration, and not behind it
    data, name = read_file(args.model), str(args.model)
    load_library()
    real = float_model(data, name)
    train, test = load_samples(args.samples, tuple(args.range) if args.range else None)
    for part in (train, test):
        shaped(part.x, real.graph)
    print(f"calibrating with {min(len(train), RANGE_SAMPLES)} samples", flush=True)
    small = Stored.of(quantize_model(real, train.x))
    for line in report(real, small, test):
        print(line)
    parse_tflite(small.data, f"the int8 model of {name}")  # refuses what sparsetune cannot run
    write_output(output, small.data)
    print(f"{output}: {len(small.data):,} bytes (float {len(data):,})")
    if args.data_out:
        write_output(args.data_out, int8_samples(small, train, test))
        print(f"{args.data_out}: {len(train)} int8 samples to train on, {len(test)} held out")


def report(real: Stored, small: Stored, held_out: Dataset) -> list[str]:
    """What was lost, where it is worst, and how to make samples for the int8 model."""
    x = small.graph.tensor(small.graph.input)
    result = judge(real, small, held_out.part(slice(JUDGED_SAMPLES)))
    lines = _summary(result) + _doubt(result, held_out, real.graph.tensor(real.graph.output).size)
    lines.append("signal to error at the outputs of the worst layers, and what each loses:")
    errors = layer_errors(real, small, few(held_out.x, LAYER_SAMPLES))
    lines += [_layer_line(layer) for layer in errors[:WORST]]
    lines.append(
        f"input: scale {x.scale:.9g}, zero point {x.zero_point}: "
        "int8 = round(real / scale) + zero point, clipped to -128..127"
    )
    return lines


def _layer_line(layer: LayerError) -> str:
    shape = "x".join(str(n) for n in layer.shape)
    place = f"{layer.operator:>3} {layer.kind:<18} {shape:<16}"
    return f"{place} {layer.decibels:5.1f} dB ({layer.lost:+.1f} dB lost)"


def _summary(result: Judgement) -> list[str]:
    lines = []
    held_out = f"{result.samples} held-out samples"
    if result.accuracies is not None:
        before, after = result.accuracies
        lines.append(f"accuracy on {held_out} (LiteRT): {before:.1%} float, {after:.1%} int8")
    if result.agreement is not None:
        lines.append(f"the same largest output on {result.agreement:.1%} of {held_out}")
    lines.append(f"error of the outputs {result.error:.2%} of their size (RMS)")
    return lines


def _doubt(result: Judgement, data: Dataset, classes: int) -> list[str]:
    """A float model that guesses was hardly made for samples in these units."""
    if result.accuracies is None or result.accuracies[0] > 1 / classes + BETTER * (1 - 1 / classes):
        return []
    return [
        f"warning: the float model is right on {result.accuracies[0]:.1%} of the samples, which go "
        f"from {data.x.min():.4g} to {data.x.max():.4g}: does it take them so? (--range)"
    ]


def int8_samples(small: Stored, train: Dataset, test: Dataset) -> bytes:
    """An .npz of the samples as the int8 model takes them, for `sparsetune tune`."""
    arrays: dict[str, Any] = {}
    for name, data in (("train", train), ("test", test)):
        arrays[f"x_{name}"] = small.stored_input(shaped(data.x, small.graph))
        if data.y is not None:
            arrays[f"y_{name}"] = data.y
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()
