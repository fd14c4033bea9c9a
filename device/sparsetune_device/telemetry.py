"""Telemetry: what a training run says about itself, one line of text at a time.

There are two kinds of line, and nothing else:

    loss:0.5321,acc:0.8125,ms:41.0       one a step; serial plotters draw it as it is
    #epoch|correct=80|n=1|total=100      an event; one token, so that plotters ignore it

Every figure is formatted with integer arithmetic, so that the board (single-precision
floats) and CPython (double) print the same bytes. An event's fields are sorted by name,
because MicroPython does not keep the order of keyword arguments.
"""

# A figure beyond its cap prints as the cap: a plot with a flat top still reads, a line
# that grows an exponent or ten more digits does not.
LOSS_CAP = 99999999  # 9999.9999, in units of 1/10000
ACC_CAP = 10000  # 1.0000
MS_CAP = 99999999  # 9999999.9, in units of 1/10 ms

HEX_BYTES = 64  # that one event tells as hexadecimal; of more bytes several events tell

_FORBIDDEN = " ,:;|=#%\t\r\n"
_HEX = "0123456789ABCDEF"


def _tenthousandths(q16):
    """Return |q16| / 65536 in units of 1/10000, rounded half up. In two parts, so that the board
    needs no integers beyond a machine word: those are objects."""
    q16 = abs(q16)
    return (q16 >> 16) * 10000 + (((q16 & 65535) * 10000 + 32768) >> 16)


def step_line(loss_q16, acc_q16, us):
    """Format one training step, without a line end.

    loss_q16: int, loss in units of 1/65536; four decimals, saturates at +-9999.9999.
    acc_q16:  int, accuracy in units of 1/65536; four decimals, clamped to 0..1. None where
              there is no right and wrong: the line has no acc then.
    us:       int, duration in microseconds; milliseconds with one decimal, clamped to
              0..9999999.9.
    All three are rounded half away from zero. Returns a str.
    """
    # One formatting for the whole line: this runs in every step.
    loss = min(_tenthousandths(loss_q16), LOSS_CAP)
    sign = "-" if loss_q16 < 0 and loss else ""  # no negative zero: it would say nothing
    ms = min((max(0, us) + 50) // 100, MS_CAP)
    ends = ms // 10, ms % 10
    if acc_q16 is None:
        return "loss:%s%d.%04d,ms:%d.%d" % ((sign, loss // 10000, loss % 10000) + ends)
    acc = min(_tenthousandths(max(0, acc_q16)), ACC_CAP)
    return "loss:%s%d.%04d,acc:%d.%04d,ms:%d.%d" % (
        (sign, loss // 10000, loss % 10000, acc // 10000, acc % 10000) + ends
    )


def _escape(text):
    """Write `text` as printable ASCII without the characters that plotters split on."""
    out = []
    for byte in text.encode("utf-8"):
        char = chr(byte)
        if byte <= 32 or byte >= 127 or char in _FORBIDDEN:
            char = "%" + _HEX[byte >> 4] + _HEX[byte & 15]
        out.append(char)
    # A text made of digits would come back as a number: hide its first character.
    if _is_int(text):
        out[0] = "%" + _HEX[ord(text[0]) >> 4] + _HEX[ord(text[0]) & 15]
    return "".join(out)


def _is_digits(text):
    """True for one or more of 0-9 (str.isdigit accepts other scripts' digits too)."""
    for char in text:
        if not "0" <= char <= "9":
            return False
    return text != ""


def _is_int(text):
    """True when `text` is a decimal integer with an optional minus sign."""
    first = 1 if text.startswith("-") else 0
    return _is_digits(text[first:])


def event_line(kind, **fields):
    """Format an event, without a line end: `#kind|name=value|...`.

    kind and the names of the fields: identifiers. Values: int, bool (as 0 or 1) or str.
    Raises TypeError for a float: send an integer in a smaller unit instead.
    """
    parts = ["#" + kind]
    for name in sorted(fields):
        parts.append(name + "=" + _value_text(fields[name]))
    return "|".join(parts)


def hex_events(kind, data, **fields):
    """Yield the events, formatted, that tell `data` (bytes or a memoryview of them) in field `hex`:
    `x`, then its next HEX_BYTES bytes as hexadecimal. Beside a plan that fills the heap there is no
    piece of it for a long line."""
    for at in range(0, len(data), HEX_BYTES):
        yield event_line(kind, hex="x" + bytes(data[at : at + HEX_BYTES]).hex(), **fields)


def _value_text(value):
    """Write one field's value."""
    if isinstance(value, str):
        return _escape(value)
    if isinstance(value, (int, bool)):  # MicroPython's bool is no int
        return str(int(value))
    raise TypeError("telemetry fields are int or str")


def parse(line):
    """Read one line of telemetry.

    Returns ("step", {"loss": float, "acc": float, "ms": float}) for a step line,
    (kind, fields) for an event (decimal integers become int, all else str), and None for
    anything else: chatter, a damaged line, a prompt.
    """
    line = line.strip()
    if line.startswith("#"):
        return _parse_event(line[1:])
    return _parse_step(line)


def _parse_step(line):
    fields = {}
    for part in line.split(","):
        label, colon, text = part.partition(":")
        number = _parse_decimal(text)
        if not colon or number is None or label in fields:
            return None
        fields[label] = number
    if "loss" in fields and "ms" in fields:
        return "step", fields
    return None


def _parse_decimal(text):
    """Read [-]digits.digits as a float; None for anything else (nan, 1e5, text)."""
    whole, point, part = text.partition(".")
    if not point or not _is_int(whole) or not _is_digits(part):
        return None
    return float(text)


def _parse_event(body):
    parts = body.split("|")
    kind = parts[0]
    if not _is_name(kind):
        return None
    fields = {}
    for part in parts[1:]:
        name, equals, text = part.partition("=")
        value = _parse_value(text)
        if not equals or not _is_name(name) or value is None:
            return None
        fields[name] = value
    return kind, fields


def _is_name(text):
    """True when `text` is an ASCII identifier."""
    for char in text:
        if not ("a" <= char <= "z" or "A" <= char <= "Z" or "0" <= char <= "9" or char == "_"):
            return False
    return text != ""


def _parse_value(text):
    """Undo _value_text; None when `text` cannot have come from it."""
    if _is_int(text):
        return int(text)
    data = bytearray()
    i = 0
    while i < len(text):
        char = text[i]
        if char == "%":
            high = _HEX.find(text[i + 1 : i + 2] or "?")
            low = _HEX.find(text[i + 2 : i + 3] or "?")
            if high < 0 or low < 0:
                return None
            data.append(high << 4 | low)
            i += 3
        elif ord(char) <= 32 or ord(char) >= 127:
            return None
        else:
            data.append(ord(char))
            i += 1
    try:
        return bytes(data).decode("utf-8")
    except UnicodeError:
        return None
