"""What a store in flash goes through: erases and lifetime. Run: python bench/store.py [STEPS]

MobileNetV1-0.25@128 with 1001 classes on photos (labels made up), planned for 196 KB of a Pico, on
the twin with the Pico's store of 128 KB. A sector is good for 100,000 erases.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from float_tasks import _clothes
from shared_tasks import shared_folder
from sparsetune.boardspec import load_spec
from sparsetune.data import Dataset, sample_file
from sparsetune.image import parse_image
from sparsetune.room import Room
from sparsetune.search.asked import plan_within
from sparsetune.tflite import read_tflite
from sparsetune.twin import Twin
from sparsetune_device.telemetry import parse

MODEL = "models/coral/mobilenet_v1_0.25_128_quant.tflite"
RAM, SAMPLES, ENDURANCE = 196 * 1024, 64, 100_000


def main(steps: int) -> None:
    folder = shared_folder()
    if folder is None:
        print("SKIP: there is no ../shared")
        return
    graph, spec = read_tflite(folder / MODEL), load_spec("pico")
    room = Room(spec, RAM, SAMPLES, spec.store_bytes)
    plan = plan_within(graph, room)
    for layer in plan.layers:
        if layer.reach:
            turns = f"{layer.channels} channels a step, {layer.reach} in turn"
            print(f"operator {layer.operator}: {turns}")
    pixels = _clothes(folder, "train", SAMPLES, 128)
    x = (pixels.astype(np.int16) - 128).astype(np.int8)
    image = parse_image(room.compile(graph, plan, "0.001").image)
    for hold in (1, 8, 32):
        lines: list[str] = []
        with Twin(image.data, sample_file(Dataset(x, np.arange(SAMPLES) % 10), image.task)) as twin:
            twin.train(lines.append, steps=steps, hold=hold)
        told = next(e[1] for line in lines if (e := parse(line)) and e[0] == "store")
        sectors = spec.store_bytes // 4096
        a_step = int(told["erases"]) / steps
        print(
            f"hold {hold:>2}: {told['columns']} columns written in {steps} steps, "
            f"{told['erases']} erases, at most {told['most']} of one sector; "
            f"worn out after {ENDURANCE * sectors / a_step / 1e6:.1f} million steps"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
