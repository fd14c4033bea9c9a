"""The files that `sparsetune tune` leaves. Where the trained model cannot be written, what was
learnt is kept all the same."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .commands import export_bytes
from .errors import SparsetuneError
from .files import FLATBUFFER, OUT, check_outputs, read_file, refuse_other, write_output
from .image import Image, parse_image, refuse_no_image
from .transfer import save_aside


@dataclass(frozen=True)
class Files:
    """Of a run. image: of its own, as the one beside the model is `build`'s. head: the model with
    its new head, which is trained and judged then; None where it has none."""

    output: Path
    image: Path
    head: Path | None


def checked_files(args: argparse.Namespace) -> Files:
    """Refuses them before hours of training, and not behind them."""
    output = args.output or OUT / (args.model.stem + "_trained.tflite")
    image = output.with_suffix(".img")
    head = output.with_name(f"{args.model.stem}_{args.classes}_classes.tflite")
    inputs = {"trained": output, "model": args.model, "samples": args.samples}
    check_outputs({"output": image, **inputs})
    refuse_other(output, read_file(args.model))
    refuse_no_image(image)
    if args.classes:
        refuse_other(head, FLATBUFFER)
    return Files(output, image, head if args.classes else None)


def write_trained(
    args: argparse.Namespace, files: Files, image: Image, checkpoint: bytes
) -> bytes:
    """The trained model, which is written. Raises SparsetuneError, which says where what was learnt
    is, when it cannot be."""
    try:
        trained = export_bytes(args.model, image, checkpoint)
        write_output(files.output, trained)
    except (SparsetuneError, OSError) as error:
        raise SparsetuneError(f"{error}; {_kept(args, files, checkpoint)}") from error
    return trained


def _kept(args: argparse.Namespace, files: Files, checkpoint: bytes) -> str:
    """Saves the checkpoint where there is room for it; returns what to do with it."""
    for folder in (files.output.parent, OUT, Path(tempfile.gettempdir())):
        try:
            path = save_aside(checkpoint, folder, "trained")
        except (SparsetuneError, OSError):
            continue
        return (
            f"what was learnt is in {path}: `sparsetune export {args.model} {path} --image "
            f"{files.image} -o FILE` makes a model of it"
        )
    return "nor what was learnt anywhere else" if args.twin else on_the_board(args, files)


def what_is_left(args: argparse.Namespace, files: Files, checkpoint: bytes | None) -> str:
    """What a broken-off run leaves, and how to go on. checkpoint: None where a board keeps it, or
    nothing was learnt."""
    if checkpoint is not None:
        write_trained(args, files, parse_image(files.image.read_bytes()), checkpoint)
        return f"what was learnt until now: {files.output} (`tune` it to go on)"
    return "nothing was learnt yet" if args.twin else on_the_board(args, files)


def on_the_board(args: argparse.Namespace, files: Files) -> str:
    return (
        "what was learnt is on the board: `sparsetune train --resume` goes on; `sparsetune pull`, "
        f"then `sparsetune export {args.model} trained.ckpt --image {files.image}` fetches it"
    )
