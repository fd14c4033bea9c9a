"""A small CNN in ONNX to a float .tflite. Run by convert.py: python from_onnx.py OUTPUT"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

rng = np.random.default_rng(0)
weights = []


def weight(name, *shape):
    values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
    weights.append(numpy_helper.from_array(values, name))
    return name


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs, [output], **attributes)


SAME = {"pads": [1, 1, 1, 1]}
nodes = [
    node("Conv", ["x", weight("w0", 16, 3, 3, 3)], "a", strides=[2, 2], **SAME),
    node("Relu", ["a"], "b"),
    node("Conv", ["b", weight("w1", 16, 1, 3, 3)], "c", group=16, **SAME),
    node("Relu", ["c"], "d"),
    node("Conv", ["d", weight("w2", 16, 16, 1, 1)], "e"),
    node("Add", ["e", "b"], "f"),
    node("MaxPool", ["f"], "g", kernel_shape=[2, 2], strides=[2, 2]),
    node("GlobalAveragePool", ["g"], "p"),
    node("Flatten", ["p"], "q"),
    node("Gemm", ["q", weight("w3", 5, 16)], "y", transB=1),
]
ends = [
    helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    for name, shape in (("x", [1, 3, 32, 32]), ("y", [1, 5]))
]
graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
model.ir_version = 8
with tempfile.TemporaryDirectory() as folder:
    onnx.save(model, f"{folder}/small.onnx")
    # onnx2tf looks for pictures to compare outputs on, and would fetch them.
    pictures = rng.random((20, 128, 128, 3)).astype(np.float32)
    np.save(f"{folder}/calibration_image_sample_data_20x128x128x3_float32.npy", pictures)
    onnx2tf = Path(sys.executable).with_name("onnx2tf")
    subprocess.run([onnx2tf, "-i", "small.onnx", "-o", "out", "-n"], cwd=folder, check=True)
    shutil.copy(f"{folder}/out/small_float32.tflite", sys.argv[1])
