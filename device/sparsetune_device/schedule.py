"""Learning-rate schedules in integers, so that board and CPython get the same rates.

A rate is (mantissa, exponent): mantissa * 2^exponent with mantissa in [2^15, 2^16), or (0, 0).
"""

# (1 + cos(pi i / 32)) / 2 in units of 1/32768, i = 0..32.
_HALF_COSINE = (
    (32768, 32689, 32453, 32063, 31521, 30833, 30007, 29049, 27969)
    + (26778, 25486, 24107, 22654, 21140, 19580, 17990, 16384)
    + (14778, 13188, 11628, 10114, 8661, 7282, 5990, 4799)
    + (3719, 2761, 1935, 1247, 705, 315, 79, 0)
)


def parse_rate(text, name="learning rate"):
    """(mantissa, exponent) of a decimal number such as "0.05" (up to 9 decimals), which stands for
    what the name says."""
    whole, _, decimals = str(text).strip().partition(".")
    digits = whole + decimals
    if not digits or len(decimals) > 9 or not all(c in "0123456789" for c in digits):
        raise ValueError("%s %s is not a decimal number such as 0.05" % (name, text))
    numerator, denominator = int(digits), 10 ** len(decimals)
    if numerator == 0:
        return 0, 0
    exponent = 0
    while numerator // denominator >= 1 << 16:
        denominator, exponent = denominator * 2, exponent + 1
    while numerator // denominator < 1 << 15:
        numerator, exponent = numerator * 2, exponent - 1
    return numerator // denominator, exponent


def rate_text(rate):
    """A rate as decimal text, to four digits: of more than that it is not made."""
    mantissa, exponent = rate
    doubled = 2 * 10**9 * mantissa
    doubled = doubled << exponent if exponent > 0 else doubled >> -exponent
    billionths, unit = (doubled + 1) // 2, 1
    while billionths // unit >= 10000:
        unit *= 10
    billionths = (billionths + unit // 2) // unit * unit
    return ("%d.%09d" % (billionths // 10**9, billionths % 10**9)).rstrip("0").rstrip(".")


def scaled(rate, factor):
    """rate * factor / 32768, 0 <= factor <= 32768."""
    mantissa, exponent = _times(rate[0], factor), rate[1] - 7
    if mantissa < 1 << 16:
        mantissa, exponent = rate[0] * factor, rate[1] - 15
    if mantissa == 0:
        return 0, 0
    while mantissa >= 1 << 16:
        mantissa, exponent = mantissa >> 1, exponent + 1
    while mantissa < 1 << 15:
        mantissa, exponent = mantissa << 1, exponent - 1
    return mantissa, exponent


def _times(a, b):
    """a * b // 256 of numbers of 16 bits. In two parts: integers beyond a machine word are objects
    on the board, and this runs in every step."""
    return (a >> 8) * b + ((a & 255) * b >> 8)


def _constant(done, total):
    return 32768


def _linear(done, total):
    return 32768 * (total - done) // total


def _cosine(done, total):
    position = done * 32
    i = position // total
    weight = position - i * total
    return (_HALF_COSINE[i] * (total - weight) + _HALF_COSINE[i + 1] * weight) // total


def _step(done, total):
    """A tenth from a half on, a hundredth from three quarters on (ResNets, 1512.03385, 4.2)."""
    return 32768 if 2 * done < total else 3277 if 4 * done < 3 * total else 328


SCHEDULES = {"constant": _constant, "linear": _linear, "cosine": _cosine, "step": _step}


class Schedule:
    """rate(step) over a run of `steps`; the first `warmup` steps rise linearly."""

    def __init__(self, kind, base, steps, warmup=0):
        if kind not in SCHEDULES:
            raise ValueError("no schedule %s: choose %s" % (kind, ", ".join(sorted(SCHEDULES))))
        self.shape = SCHEDULES[kind]
        self.base = base
        self.steps = steps
        self.warmup = warmup

    def rate(self, step):
        if step < self.warmup:
            return scaled(self.base, 32768 * (step + 1) // (self.warmup + 1))
        return scaled(self.base, self.shape(step - self.warmup, max(1, self.steps - self.warmup)))
