"""Random small int8 models, written as .tflite files, for tests that sweep over shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import reference as ref
from ai_edge_litert import schema_py_generated as schema
from sparsetune_tools import tflite_writer
from sparsetune_tools.tflite_writer import ModelWriter, Quantisation

Array = npt.NDArray[Any]
NONE, RELU, RELU_N1_TO_1, RELU6 = 0, 1, 2, 3
SPREAD = 50.0  # standard deviation of outputs, in steps, where no scale is asked for

# Of the operators' versions the writer knows the usual; these models need some more.
tflite_writer.OPERATOR_VERSIONS.update(
    FULLY_CONNECTED=5, PAD=2, TRANSPOSE=2, CONCATENATION=2, SPLIT=2, STRIDED_SLICE=2, SLICE=2,
    LOGISTIC=2, TANH=2, RELU=2, RELU6=2, HARD_SWISH=1, LEAKY_RELU=2, QUANTIZE=2, RELU_N1_TO_1=1,
    MAX_POOL_2D=2, SUB=2, MUL=2, MEAN=2, PADV2=2, SPLIT_V=2, RESIZE_BILINEAR=3,
    RESIZE_NEAREST_NEIGHBOR=3, FLOOR=1, PRELU=1, ABS=1, MAXIMUM=1, MINIMUM=1, REDUCE_MAX=1,
    RELU_0_TO_1=1, LOG_SOFTMAX=1, ELU=1, SQUARED_DIFFERENCE=1, NEG=1,
)


def quantisation(scale: Any, zero: int = 0, axis: int = 0) -> Quantisation:
    return Quantisation(np.atleast_1d(np.asarray(scale, np.float32)), zero, axis)


class Net:
    """A model that grows operator by operator. `at` is the newest tensor; every method that adds
    an operator takes its input from there and returns the index of its output.

    Weights are uniform in [-127, 127], with scales that differ from channel to channel by up to
    `unevenness`. Output scales are such that values spread over the int8 range, or as asked.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        zero: int = 0,
        seed: int = 0,
        unevenness: float = 4.0,
        scale: float = 0.02,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.unevenness = unevenness
        self.writer = ModelWriter("random test model")
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.q: dict[int, Quantisation] = {}
        self.source = self.at = self._activation(shape, quantisation(scale, zero))
        self.operators = 0

    def conv(self, channels: int, kernel: Any = 1, **window: Any) -> int:
        """window: stride, dilation, same, groups; and see _weighted."""
        groups = window.pop("groups", 1)
        shape = (channels, *ref.pair(kernel), self.shapes[self.at][3] // groups)
        return self._convolution("CONV_2D", schema.Conv2DOptionsT(), shape, 0, window)

    def depthwise(self, multiplier: int = 1, kernel: Any = 3, **window: Any) -> int:
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = multiplier
        shape = (1, *ref.pair(kernel), self.shapes[self.at][3] * multiplier)
        return self._convolution("DEPTHWISE_CONV_2D", options, shape, 3, window)

    def dense(self, outputs: int, per_channel: bool = False, **rest: Any) -> int:
        shape = self.shapes[self.at]
        rows = int(np.prod(shape)) // shape[-1]
        options = schema.FullyConnectedOptionsT()
        options.keepNumDims = len(shape) > 2
        out = (*shape[:-1], outputs) if len(shape) > 2 else (rows, outputs)
        axis = 0 if per_channel else None
        return self._weighted("FULLY_CONNECTED", options, (outputs, shape[-1]), axis, out, rest)

    def pool(self, kernel: Any, stride: Any = 1, same: bool = False, activation: int = NONE,
        kind: str = "AVERAGE") -> int:
        shape = self.shapes[self.at]
        window = ref.window_of(shape[1:3], kernel, stride, 1, same)
        options = schema.Pool2DOptionsT()
        options.filterHeight, options.filterWidth = ref.pair(kernel)
        options.strideH, options.strideW = ref.pair(stride)
        options.padding, options.fusedActivationFunction = int(not same), activation
        out = (1, *window.out, shape[3])
        return self._operator(f"{kind}_POOL_2D", [self.at], out, self.q[self.at], options)

    def resize(
        self, kind: str, size: tuple[int, int], align: bool = False, half: bool = False
    ) -> int:
        """kind: BILINEAR or NEAREST_NEIGHBOR. size: rows and columns of the output."""
        name = "ResizeBilinear" if kind == "BILINEAR" else "ResizeNearestNeighbor"
        options = getattr(schema, f"{name}OptionsT")()
        options.alignCorners, options.halfPixelCenters = align, half
        constant = self.writer.add_constant(f"size{self.operators}", np.array(size, np.int32))
        shape = (1, *size, self.shapes[self.at][3])
        return self._operator(
            f"RESIZE_{kind}", [self.at, constant], shape, self.q[self.at], options
        )

    def add(self, other: int, activation: int = NONE, zero: int = 0, scale: float = 0.0) -> int:
        options = schema.AddOptionsT()
        options.fusedActivationFunction = activation
        options.potScaleInt16 = False
        scales = [float(self.q[t].scale[0]) for t in (self.at, other)]
        q = quantisation(scale or np.hypot(*scales), zero)
        return self._operator("ADD", [self.at, other], self.shapes[self.at], q, options)

    def binary(self, kind: str, other: int, zero: int = 0, **rest: Any) -> int:
        """ADD, SUB or MUL of the newest tensor and another, broadcast as in NumPy. rest: scale,
        activation, swapped (the other one first)."""
        options = getattr(schema, f"{kind.capitalize()}OptionsT")()
        options.fusedActivationFunction = rest.get("activation", NONE)
        if kind != "MUL":
            options.potScaleInt16 = False
        inputs = [other, self.at] if rest.get("swapped") else [self.at, other]
        scales = [float(self.q[t].scale[0]) for t in inputs]
        usual = scales[0] * scales[1] * 60 if kind == "MUL" else np.hypot(*scales)
        q = quantisation(rest.get("scale") or usual, zero)
        shape = np.broadcast_shapes(*(self.shapes[t] for t in inputs))
        return self._operator(kind, inputs, shape, q, options)

    def constant(self, shape: tuple[int, ...], zero: int = 0, scale: float = 0.02) -> int:
        """An int8 constant of random values, for `binary`."""
        q, values = quantisation(scale, zero), self.rng.integers(-128, 128, shape, np.int8)
        index = int(self.writer.add_constant(f"c{self.operators}", values, q))
        self.shapes[index], self.q[index] = shape, q
        return index

    def mean(
        self, axes: tuple[int, ...], keep: bool, zero: int | None = None, kind: str = "MEAN"
    ) -> int:
        """zero: None for the input's scale and zero point, else one of its own. kind: MEAN or
        REDUCE_MAX."""
        options = schema.ReducerOptionsT()
        options.keepDims = keep
        constant = self.writer.add_constant(f"axes{self.operators}", np.array(axes, np.int32))
        shape = np.zeros(self.shapes[self.at], np.int8).max(axis=axes, keepdims=keep).shape
        q = self.q[self.at]
        if zero is not None:
            q = quantisation(q.scale * 0.6, zero)
        return self._operator(kind, [self.at, constant], shape, q, options)

    def pad(self, amounts: Any, value: int | None = None) -> int:
        """amounts: (before, behind) of each axis, filled with the zero point, or with `value`."""
        constant = self.writer.add_constant(f"pads{self.operators}", np.array(amounts, np.int32))
        shape = tuple(
            n + sum(ends) for n, ends in zip(self.shapes[self.at], amounts, strict=True)
        )
        inputs, options = [self.at, constant], schema.PadOptionsT()
        if value is None:
            return self._operator("PAD", inputs, shape, self.q[self.at], options)
        fill = np.array([value], np.int8)
        inputs.append(self.writer.add_constant(f"fill{self.operators}", fill, self.q[self.at]))
        return self._operator("PADV2", inputs, shape, self.q[self.at], schema.PadV2OptionsT())

    def transpose(self, order: tuple[int, ...]) -> int:
        constant = self.writer.add_constant(f"order{self.operators}", np.array(order, np.int32))
        shape = tuple(self.shapes[self.at][axis] for axis in order)
        inputs, options = [self.at, constant], schema.TransposeOptionsT()
        return self._operator("TRANSPOSE", inputs, shape, self.q[self.at], options)

    def concat(self, others: list[int], axis: int) -> int:
        """Behind the newest tensor; all have its scale and zero point."""
        options = schema.ConcatenationOptionsT()
        options.axis, options.fusedActivationFunction = axis, NONE
        inputs = [self.at, *others]
        shape = list(self.shapes[self.at])
        shape[axis] = sum(self.shapes[t][axis] for t in inputs)
        return self._operator("CONCATENATION", inputs, tuple(shape), self.q[self.at], options)

    def split(self, parts: int, axis: int) -> list[int]:
        """Equal parts; returns their tensors."""
        constant = self.writer.add_constant(f"axis{self.operators}", np.array(axis, np.int32))
        options = schema.SplitOptionsT()
        options.numSplits = parts
        shape = list(self.shapes[self.at])
        shape[axis] //= parts
        q = self.q[self.at]
        outputs = [self._activation(tuple(shape), q) for _ in range(parts)]
        self.writer.add_operator("SPLIT", [constant, self.at], outputs, options)
        self.operators += 1
        self.at = outputs[-1]
        return outputs

    def split_v(self, sizes: list[int], axis: int) -> list[int]:
        """Parts of these sizes; returns their tensors."""
        constants = [
            self.writer.add_constant(f"sizes{self.operators}", np.array(sizes, np.int32)),
            self.writer.add_constant(f"axis{self.operators}", np.array(axis, np.int32)),
        ]
        options = schema.SplitVOptionsT()
        options.numSplits = len(sizes)
        q, whole = self.q[self.at], list(self.shapes[self.at])
        shapes = [tuple(n if i == axis else m for i, m in enumerate(whole)) for n in sizes]
        outputs = [self._activation(shape, q) for shape in shapes]
        self.writer.add_operator("SPLIT_V", [self.at, *constants], outputs, options)
        self.operators += 1
        self.at = outputs[-1]
        return outputs

    def strided_slice(self, begin: Any, end: Any, strides: Any, masks: Any = (0, 0, 0)) -> int:
        """masks: of begin, end and shrunk axes. Shapes are those of NumPy."""
        constants = [
            self.writer.add_constant(f"slice{self.operators}_{i}", np.array(v, np.int32))
            for i, v in enumerate((begin, end, strides))
        ]
        options = schema.StridedSliceOptionsT()
        options.beginMask, options.endMask, options.shrinkAxisMask = masks
        spans = [
            slice(None if masks[0] >> i & 1 else b, None if masks[1] >> i & 1 else e, s)
            for i, (b, e, s) in enumerate(zip(begin, end, strides, strict=True))
        ]
        index = tuple(
            b if masks[2] >> i & 1 else s for i, (b, s) in enumerate(zip(begin, spans, strict=True))
        )
        shape = np.zeros(self.shapes[self.at], np.int8)[index].shape
        inputs = [self.at, *constants]
        return self._operator("STRIDED_SLICE", inputs, shape, self.q[self.at], options)

    def slice(self, begin: Any, size: Any) -> int:
        constants = [
            self.writer.add_constant(f"slice{self.operators}_{i}", np.array(v, np.int32))
            for i, v in enumerate((begin, size))
        ]
        whole = self.shapes[self.at]
        shape = tuple(
            n - b if s < 0 else s for n, b, s in zip(whole, begin, size, strict=True)
        )
        inputs = [self.at, *constants]
        return self._operator("SLICE", inputs, shape, self.q[self.at], schema.SliceOptionsT())

    def reshape(self, shape: tuple[int, ...]) -> int:
        options = schema.ReshapeOptionsT()
        options.newShape = list(shape)
        constant = self.writer.add_constant(f"shape{self.operators}", np.array(shape, np.int32))
        return self._operator("RESHAPE", [self.at, constant], shape, self.q[self.at], options)

    def unary(
        self, kind: str, zero: int = 0, scale: float = 0.0, options: Any = None
    ) -> int:
        """RELU, TANH and the like; LOGISTIC and TANH have an output of their own."""
        own = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}
        q = quantisation(*own.get(kind, (scale or self.q[self.at].scale[0], zero)))
        return self._operator(kind, [self.at], self.shapes[self.at], q, options)

    def leaky_relu(self, alpha: float, zero: int = 0, scale: float = 0.0) -> int:
        options = schema.LeakyReluOptionsT()
        options.alpha = alpha
        return self.unary("LEAKY_RELU", zero, scale, options)

    def flatten(self) -> int:
        return self.reshape((1, int(np.prod(self.shapes[self.at]))))

    def softmax(self, beta: float = 1.0) -> int:
        options = schema.SoftmaxOptionsT()
        options.beta = beta
        q = quantisation(1 / 256, -128)
        return self._operator("SOFTMAX", [self.at], self.shapes[self.at], q, options)

    def to_bytes(self) -> bytes:
        return self.writer.to_bytes(self.source, self.at)

    def sample(self) -> Array:
        """A random input."""
        return self.rng.integers(-128, 128, self.shapes[self.source], np.int8)

    # ------------------------------------------------------------------------------------------

    def _activation(self, shape: tuple[int, ...], q: Quantisation) -> int:
        index = self.writer.add_activation(f"t{len(self.shapes)}", shape, q)
        self.shapes[index], self.q[index] = shape, q
        return index

    def _operator(
        self, kind: str, inputs: list[int], shape: tuple[int, ...], q: Quantisation, options: Any
    ) -> int:
        output = self._activation(shape, q)
        self.writer.add_operator(kind, inputs, output, options)
        self.operators += 1
        self.at = output
        return output

    def _convolution(
        self, kind: str, options: Any, shape: tuple[int, ...], axis: int, window: dict[str, Any]
    ) -> int:
        stride, dilation = window.pop("stride", 1), window.pop("dilation", 1)
        same = window.pop("same", True)
        options.strideH, options.strideW = ref.pair(stride)
        options.dilationHFactor, options.dilationWFactor = ref.pair(dilation)
        options.padding = int(not same)
        w = ref.window_of(self.shapes[self.at][1:3], shape[1:3], stride, dilation, same)
        out = (1, *w.out, shape[axis])
        return self._weighted(kind, options, shape, axis, out, window)

    def _weighted(
        self,
        kind: str,
        options: Any,
        shape: tuple[int, ...],
        axis: int | None,
        out: tuple[int, ...],
        rest: dict[str, Any],
    ) -> int:
        """rest: activation, zero and scale of the output, bias (whether, or its values),
        weights (values) and their scales."""
        options.fusedActivationFunction = rest.get("activation", NONE)
        x = self.q[self.at]
        channels = shape[axis or 0]
        weights = rest.get("weights", self.rng.integers(-127, 128, shape)).astype(np.int8)
        exponents = self.rng.uniform(0, 1, channels if axis is not None else 1)
        scales = rest.get("scales", 0.002 * self.unevenness**exponents)
        scales = quantisation(scales, 0, axis or 0)
        addends = weights.size / channels
        sums = 74 * 73 * np.sqrt(addends * (1 + (x.zero / 74) ** 2))  # spread of int32 sums
        inputs = [self.at, self.writer.add_constant(f"w{self.operators}", weights, scales)]
        bias = rest.get("bias", True)
        if bias is not False:
            if bias is True:
                bias = self.rng.normal(0, sums / 2, channels).astype(np.int32)
            q = quantisation(x.scale * scales.scale, 0, 0)
            inputs.append(self.writer.add_constant(f"b{self.operators}", bias, q))
        scale = rest.get("scale") or float(x.scale[0] * scales.scale.mean() * sums / SPREAD)
        return self._operator(kind, inputs, out, quantisation(scale, rest.get("zero", 0)), options)


def wide_front() -> Net:
    """Expand, depthwise, project, as in MobileNetV2; then a head."""
    net = Net((1, 16, 16, 4), seed=3)
    for channels in (32, 32):
        net.conv(channels, 1, activation=RELU, zero=-128)
        net.depthwise(1, 3, activation=RELU, zero=-128)
        net.conv(4, 1)
    net.pool((16, 16))
    net.flatten()
    net.dense(3)
    net.softmax()
    return net
