"""Light augmentation: what a run asks for, as the kernel takes it (ulab_kernels/augment.h).

A text such as "flip,shift=4,gain=20,offset=10,erase=16x8", with + for a comma where one means
something else:
    flip        mirrored from left to right in every second step
    shift=N     moved by up to N places along both axes; shift=5x0: along the first alone
    gain=P      times a factor between 1 - P % and 1 + P %, around the real 0
    offset=N    plus or minus up to N steps of the input's quantisation
    erase=N     a patch of NxN, with its centre anywhere, becomes the real 0; erase=5x10: of 5 x 10

Maps [height, width, channels] take all of it; [length, values], such as sound, is a map of one
channel; a vector takes gain and offset. An autoencoder learns to give back what it was shown, so
the augmented sample.
"""

import struct

AXES = {"flip": 0, "shift": 2, "gain": 1, "offset": 1, "erase": 2}  # numbers that each is said with
SHAPE_AT, ZERO_AT = 28 * 4, 40 * 4  # in the header of the image: words 28 to 31, 40


def parse_augment(text):
    """{name: numbers of each axis}. Raises ValueError for what is no augmentation."""
    asked = {}
    for part in text.replace("+", ",").split(","):
        name, equals, value = part.partition("=")
        if name not in AXES:
            raise ValueError("no augmentation %s: choose %s" % (name, ", ".join(sorted(AXES))))
        if name in asked or bool(equals) != bool(AXES[name]):
            raise ValueError("augment %s: write each once, as in flip,shift=4,gain=20" % part)
        asked[name] = _numbers(name, value)
    return asked


def _numbers(name, value):
    """Of each axis; one number says it of both."""
    numbers = [int(n) for n in value.split("x") if _is_number(n)]
    if len(numbers) != len(value.split("x")) * bool(AXES[name]) or len(numbers) > AXES[name]:
        form = "N or NxN" if AXES[name] == 2 else "N"
        raise ValueError("augment %s=%s: give whole numbers, %s=%s" % (name, value, name, form))
    return numbers * (2 if AXES[name] > len(numbers) else 1)


def _is_number(text):
    return 0 < len(text) < 6 and all("0" <= c <= "9" for c in text)


def open_augment(text, data):
    """Parameters for kernels.augment() of the samples that an image takes. data: the image. Raises
    ValueError for what such samples do not allow."""
    asked = parse_augment(text)
    height, width, channels = _sides(data)
    shift, erase = asked.get("shift", (0, 0)), asked.get("erase", (0, 0))
    gain, offset = asked.get("gain", (0,))[0], asked.get("offset", (0,))[0]
    if width == 1 and height == 1 and ("flip" in asked or any(shift) or any(erase)):
        raise ValueError("the model takes vectors: augment them by gain and offset alone")
    if "flip" in asked and width == 1:
        raise ValueError("augment flip: the samples are one place wide")
    if shift[0] >= height or shift[1] >= width:
        raise ValueError("augment shift=%dx%d: samples of %d x %d move by less than that"
                         % (shift[0], shift[1], height, width))
    if erase[0] > height or erase[1] > width:
        raise ValueError("augment erase=%dx%d: the samples are %d x %d"
                         % (erase[0], erase[1], height, width))
    if gain > 100 or offset > 255:
        raise ValueError("augment: gain goes up to 100 (percent), offset up to 255")
    zero = struct.unpack_from("<i", data, ZERO_AT)[0]
    return struct.pack("<11i", height, width, channels, zero, "flip" in asked, shift[0], shift[1],
                       (gain * 16384 + 50) // 100, offset, erase[0], erase[1])


def _sides(data):
    """(height, width, channels) of a sample."""
    sides = [n for n in struct.unpack_from("<4I", data, SHAPE_AT) if n][1:]
    if len(sides) == 2:
        return sides[0], sides[1], 1
    return sides if len(sides) == 3 else (1, 1, sides[0] if sides else 1)
