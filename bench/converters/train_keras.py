"""Trains small networks as Keras users build them, for rates.py: python train_keras.py SHARED OUT

For each, OUT/NAME.tflite (float) and OUT/NAME.npz: samples to calibrate (x), to adapt with and to
judge, of another speaker, or of digits turned by 35 degrees. Other seeds, other initialisations.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

layers = tf.keras.layers
shared, out = Path(sys.argv[1]), Path(sys.argv[2])


def block(layer):
    return [layer, layers.BatchNormalization(), layers.ReLU()]


def separable(channels):
    return block(layers.SeparableConv2D(channels, 3, padding="same"))


def conv(channels, stride):
    return block(layers.Conv2D(channels, 3, strides=stride, padding="same"))


def end(*hidden):
    dense = [layers.Dense(n, activation="relu") for n in hidden]
    return [layers.GlobalAveragePooling2D(), *dense, layers.Dense(10, activation="softmax")]


def spectrograms():
    """Spoken digits, log spectrograms [N, 25, 16, 1]: three speakers to learn, the fourth to
    adapt to."""
    file = np.load(shared / "data/fsdd_dev_4speakers.npz")
    pcm, off = file["pcm"], file["off"]
    x = np.zeros((len(file["y"]), 25, 16, 1), np.float32)
    for i in range(len(x)):
        sound = pcm[off[i] : off[i + 1]][:6400].astype(np.float32) / 32768
        frames = np.pad(sound, (0, 6400 - len(sound))).reshape(25, 256) * np.hanning(256)
        power = np.abs(np.fft.rfft(frames))[:, :128].reshape(25, 16, 8).mean(-1)
        x[i, :, :, 0] = np.log(power + 1e-3)
    known = file["speaker"] != 3
    x = (x - x[known].mean()) / x[known].std()
    return (x[known], file["y"][known]), (x[~known], file["y"][~known])


def turned_digits():
    file = np.load(shared / "data/mnist_dev.npz")
    x, y = file["x_train"][:8700], file["y_train"][:8700]
    at = np.indices((28, 28)).reshape(2, -1) - 13.5
    turn = np.radians(35)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    row, column = np.rint(rotation @ at + 13.5).astype(int).clip(0, 27)
    turned = x[8000:, row, column].reshape(-1, 28, 28)
    x = np.concatenate([x[:8000], turned])[..., None].astype(np.float32) / 255
    return (x[:8000], y[:8000]), (x[8000:], y[8000:])


def write(name, net, sets, epochs, seed):
    (x, y), (other_x, other_y) = sets
    tf.keras.utils.set_random_seed(seed)
    model = tf.keras.Sequential([layers.Input(x.shape[1:]), *net()])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=epochs, batch_size=32, verbose=0)
    data = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    (out / f"{name}.tflite").write_bytes(data)
    order = np.random.default_rng(0).permutation(len(other_x))
    x_new, y_new, cut = other_x[order], other_y[order], len(order) * 2 // 3
    few = np.random.default_rng(1).permutation(len(x))[:200]
    parts = {"x_train": x_new[:cut], "y_train": y_new[:cut]}
    parts |= {"x_test": x_new[cut:], "y_test": y_new[cut:]}
    np.savez(out / f"{name}.npz", x=x[few], **parts)


def speech_net():
    pool = layers.MaxPool2D
    front = [*block(layers.Conv2D(12, 3, padding="same", use_bias=False)), pool(2)]
    return [*front, *separable(24), pool(2), *separable(32), *end(32)]


def digit_net():
    return [*conv(8, 2), *conv(16, 2), *conv(32, 1), *end()]


speech, digits = spectrograms(), turned_digits()
for seed in (11, 12, 13):
    write(f"speech{seed}", speech_net, speech, 15, seed)
    write(f"turned{seed}", digit_net, digits, 5, seed)
