"""A small float network in NumPy with forward and backward: enough to train the demo's model.

It exists so that the demo's model can be trained again with NumPy alone. Tensors are NHWC
float32, weights have TFLite's shapes (convolution [out, kh, kw, in], depthwise [1, kh, kw, c],
dense [out, in]) and "same" padding is TFLite's. A layer remembers its last input; call
`backward` right after `forward` of the same batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


class Layer:
    """Base: `weights` and `bias` where the layer has them, gradients after `backward`."""

    weights: Array
    bias: Array
    weights_gradient: Array
    bias_gradient: Array
    trainable = False
    relu = False

    def forward(self, x: Array) -> Array:
        """Output for a batch `x`."""
        raise NotImplementedError

    def backward(self, gradient: Array) -> Array:
        """Gradient of the input from that of the output; fills the parameters' gradients."""
        raise NotImplementedError

    def _activate(self, y: Array) -> Array:
        self._passed = y > 0
        return np.maximum(y, 0) if self.relu else y

    def _gate(self, gradient: Array) -> Array:
        return gradient * self._passed if self.relu else gradient


class Conv(Layer):
    """Convolution k x k, "same" padding, equal strides."""

    trainable = True

    def __init__(
        self, rng: np.random.Generator, cin: int, cout: int, k: int, stride: int, relu: bool = True
    ) -> None:
        self.stride, self.relu = stride, relu
        self.weights = _he(rng, (cout, k, k, cin), k * k * cin)
        self.bias = np.zeros(cout, np.float32)

    def forward(self, x: Array) -> Array:
        self.taps = Taps(x, self.weights.shape[1], self.stride)
        y: Array = np.zeros((*self.taps.output_shape, len(self.weights)), self.weights.dtype)
        for i, j in self.taps:
            y += self.taps.view(i, j) @ self.weights[:, i, j].T
        return self._activate(y + self.bias)

    def backward(self, gradient: Array) -> Array:
        g = self._gate(gradient)
        flat = g.reshape(-1, g.shape[-1])
        self.bias_gradient = flat.sum(axis=0)
        self.weights_gradient = np.empty_like(self.weights)
        for i, j in self.taps:
            seen = self.taps.view(i, j).reshape(len(flat), -1)
            self.weights_gradient[:, i, j] = flat.T @ seen
            self.taps.add_gradient(i, j, g @ self.weights[:, i, j])
        return self.taps.gradient()


class Depthwise(Layer):
    """Depthwise convolution k x k with multiplier 1, "same" padding, equal strides."""

    trainable = True

    def __init__(
        self, rng: np.random.Generator, channels: int, k: int, stride: int, relu: bool = True
    ) -> None:
        self.stride, self.relu = stride, relu
        self.weights = _he(rng, (1, k, k, channels), k * k)
        self.bias = np.zeros(channels, np.float32)

    def forward(self, x: Array) -> Array:
        self.taps = Taps(x, self.weights.shape[1], self.stride)
        y: Array = np.zeros((*self.taps.output_shape, x.shape[-1]), self.weights.dtype)
        for i, j in self.taps:
            y += self.taps.view(i, j) * self.weights[0, i, j]
        return self._activate(y + self.bias)

    def backward(self, gradient: Array) -> Array:
        g = self._gate(gradient)
        self.bias_gradient = g.sum(axis=(0, 1, 2))
        self.weights_gradient = np.empty_like(self.weights)
        for i, j in self.taps:
            self.weights_gradient[0, i, j] = (g * self.taps.view(i, j)).sum(axis=(0, 1, 2))
            self.taps.add_gradient(i, j, g * self.weights[0, i, j])
        return self.taps.gradient()


class Dense(Layer):
    """Fully connected layer without activation: [N, cin] -> [N, cout]."""

    trainable = True

    def __init__(self, rng: np.random.Generator, cin: int, cout: int) -> None:
        self.weights = _he(rng, (cout, cin), cin)
        self.bias = np.zeros(cout, np.float32)

    def forward(self, x: Array) -> Array:
        self.x = x
        return x @ self.weights.T + self.bias

    def backward(self, gradient: Array) -> Array:
        self.bias_gradient = gradient.sum(axis=0)
        self.weights_gradient = gradient.T @ self.x
        return gradient @ self.weights


class AveragePool(Layer):
    """Mean over windows of `size` x `size` that do not overlap."""

    def __init__(self, size: int) -> None:
        self.size = size

    def forward(self, x: Array) -> Array:
        n, h, w, c = x.shape
        split = x.reshape(n, h // self.size, self.size, w // self.size, self.size, c)
        return split.mean(axis=(2, 4))

    def backward(self, gradient: Array) -> Array:
        spread = gradient.repeat(self.size, axis=1).repeat(self.size, axis=2)
        return spread / np.float32(self.size**2)


class Reshape(Layer):
    """[N, h, w, c] -> [N, h * w * c]."""

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, gradient: Array) -> Array:
        return gradient.reshape(self.shape)


class Residual(Layer):
    """relu(x + branch(x)): the branch keeps shape and channels, and ends without activation."""

    relu = True

    def __init__(self, branch: Sequence[Layer]) -> None:
        self.branch = list(branch)

    def forward(self, x: Array) -> Array:
        y = x
        for layer in self.branch:
            y = layer.forward(y)
        return self._activate(x + y)

    def backward(self, gradient: Array) -> Array:
        g = through = self._gate(gradient)
        for layer in reversed(self.branch):
            through = layer.backward(through)
        return g + through


class Taps:
    """The k * k shifted views of a padded input: a convolution is a sum over them.

    Going tap by tap keeps every product a plain matrix product, with no im2col copy.
    """

    def __init__(self, x: Array, k: int, stride: int) -> None:
        self.k, self.stride, self.shape = k, stride, x.shape
        n, h, w, _ = x.shape
        self.output_shape = (n, -(-h // stride), -(-w // stride))
        self.before = [same_padding(size, k, stride) for size in (h, w)]
        self.padded = np.pad(x, ((0, 0), *self.before, (0, 0)))
        self.padded_gradient = np.zeros_like(self.padded)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((i, j) for i in range(self.k) for j in range(self.k))

    def view(self, i: int, j: int) -> Array:
        """What tap (i, j) sees: [N, oh, ow, cin]."""
        return self.padded[self._window(i, j)]

    def add_gradient(self, i: int, j: int, gradient: Array) -> None:
        """Add what flows back through tap (i, j)."""
        self.padded_gradient[self._window(i, j)] += gradient

    def gradient(self) -> Array:
        """Sum over the taps, without the padding: the gradient of the input."""
        (top, _), (left, _) = self.before
        return self.padded_gradient[:, top : top + self.shape[1], left : left + self.shape[2]]

    def _window(self, i: int, j: int) -> tuple[slice, slice, slice]:
        _, oh, ow = self.output_shape
        rows = slice(i, i + (oh - 1) * self.stride + 1, self.stride)
        columns = slice(j, j + (ow - 1) * self.stride + 1, self.stride)
        return slice(None), rows, columns


class Network:
    """Layers one after the other, ending in logits."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def forward(self, x: Array) -> Array:
        """Logits [N, classes] for images [N, h, w, c]."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, gradient: Array) -> None:
        """Fill every layer's parameter gradients from the gradient of the logits."""
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient)

    def trainable(self) -> list[Layer]:
        """The layers that have weights, in order of the forward pass."""
        flat = [inner for layer in self.layers for inner in _flatten(layer)]
        return [layer for layer in flat if layer.trainable]

    def accuracy(self, x: Array, y: npt.NDArray[np.uint8]) -> float:
        """Share (0..1) of images whose largest logit is the label."""
        return float(np.mean(self.forward(x).argmax(axis=1) == y))


class Adam:
    """Adam with the usual constants over the weights and biases of `layers`."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers, self.count = list(layers), 0
        self.moments = [np.zeros((2, p.size), np.float32) for p, _ in self._pairs(gradients=False)]

    def step(self, rate: float) -> None:
        """Apply the gradients of the last backward pass."""
        self.count += 1
        for (parameter, gradient), moment in zip(self._pairs(), self.moments, strict=True):
            g = gradient.ravel()
            moment[0] += 0.1 * (g - moment[0])
            moment[1] += 0.001 * (g * g - moment[1])
            mean, square = moment[0] / (1 - 0.9**self.count), moment[1] / (1 - 0.999**self.count)
            parameter -= (rate * mean / (np.sqrt(square) + 1e-8)).reshape(parameter.shape)

    def _pairs(self, gradients: bool = True) -> Iterator[tuple[Array, Array]]:
        for layer in self.layers:
            yield layer.weights, layer.weights_gradient if gradients else layer.weights
            yield layer.bias, layer.bias_gradient if gradients else layer.bias


def softmax_gradient(
    logits: Array, y: npt.NDArray[np.uint8], smoothing: float = 0.0
) -> tuple[float, Array]:
    """Mean cross-entropy of a batch and its gradient with respect to the logits.

    With `smoothing`, that share of the target is spread evenly over the classes.
    """
    count, classes = logits.shape
    target = np.full_like(logits, smoothing / classes)
    target[np.arange(count), y] += 1 - smoothing
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = float(-(target * log_p).sum() / count)
    return loss, (np.exp(log_p) - target) / np.float32(count)


def same_padding(size: int, k: int, stride: int) -> tuple[int, int]:
    """TFLite's "same" padding of one axis: (before, after)."""
    total = max((-(-size // stride) - 1) * stride + k - size, 0)
    return total // 2, total - total // 2


def _flatten(layer: Layer) -> list[Layer]:
    return layer.branch if isinstance(layer, Residual) else [layer]


def _he(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> Array:
    return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
