"""`make demo`: the main job from end to end on an emulated Pico.

A small model that reads digits was trained on upright, well lit images. The camera is turned and
the light changes; the board adapts the model to what it sees now.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .emulated_pico import EmulatedPico
from .firmware import Firmware
from .shell import BUILD, ROOT, ToolError, run_main, say

MODEL = ROOT / "host" / "sparsetune" / "models" / "digits_int8.tflite"
OUT = ROOT / "out" / "demo"


def make_samples(path: Path, seed: int) -> None:
    """The digits as the turned camera sees them: to adapt with, and held out."""
    import numpy as np
    from sparsetune.digits import changed_sets

    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **changed_sets(seed))


def command(port: str, samples: Path, seed: int) -> list[str]:
    outputs = ["-o", str(OUT / "digits_trained.tflite"), "--plot", str(OUT / "loss.png")]
    return [
        *(str(Path(sys.executable).with_name("sparsetune")), "tune", str(MODEL), str(samples)),
        *("--port", port, "--seed", str(seed), "--log", str(OUT / "loss.jsonl")),
        *outputs,
    ]


def main() -> None:
    seed = sys.argv[1] if len(sys.argv) > 1 else "1"
    if not seed.isdecimal():
        raise ToolError(f"the demo takes a seed, a number from 0 on, not {seed}")
    samples = BUILD / "demo" / "digits_changed.npz"
    say("digits: the camera is turned by 40 degrees and the light has changed")
    make_samples(samples, int(seed))
    OUT.mkdir(parents=True, exist_ok=True)
    say("starting the emulated Pico (rp2040js)")
    with EmulatedPico(firmware=Firmware("sparsetune").folder / "firmware.bin") as pico:
        say(f"emulated Pico on {pico.port}")
        if subprocess.call(command(pico.port, samples, int(seed))):
            raise ToolError("the demo failed: see the message above")


if __name__ == "__main__":
    run_main(main)
