"""Format numbers as text, for all views.

Examples: a rate ``63.3 % [52.1, 73.2]``, a difference ``+10.0 points [−1.5, +21.4]``, a coefficient
``0.43 [0.20, 0.66]``. A missing value reads ``undefined``, with its reason beside it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import ceil, floor, log10
from typing import Final

from qaeval.report.measure import Measure

UNDEFINED: Final = "undefined"
NOT_COUNTED: Final = "not counted"
NOT_MEASURED: Final = "not measured"
MINUS: Final = "\u2212"
_SMALLEST_P: Final = 0.001
_MINUTE: Final = 60
_HOUR: Final = 3600
_SHORT: Final = 10
_MAX_AGE_IN_HOURS: Final = 48


def percent(share: float | None) -> str:
    """Print a share: ``63.3 %``; ``0.0 %`` is none and ``100.0 %`` all, so that 1 of 3,000 is ``< 0.1 %``, and 2,999 are ``> 99.9 %``."""
    if share is None:
        return UNDEFINED
    text = _fixed(100 * share, 1)
    if share > 0 and float(text.replace(MINUS, "-")) == 0:
        return "< 0.1 %"
    return "> 99.9 %" if share < 1 and text == "100.0" else f"{text} %"


def whole_percent(share: float | None) -> str:
    """Print a share in whole percent: ``63 %``; what would read as none or all and is neither has a digit more, ``99.7 %``."""
    if share is None:
        return UNDEFINED
    text = f"{100 * share:.0f}"
    return percent(share) if text in {"0", "100"} and share not in {0, 1} else f"{text} %"


def whole_interval(measure: Measure) -> str:
    """Print the interval of a rate in whole percent: ``52 to 73``; empty without one.

    An end that would reach the other end of the scale by rounding has a digit more: ``99.7 to 100``.
    """
    if measure.low is None or measure.high is None:
        return ""
    low, high = f"{100 * measure.low:.0f}", f"{100 * measure.high:.0f}"
    if low == "100" and measure.low < 1:
        low = f"{floor(1000 * measure.low) / 10:.1f}"
    if high == "0" and measure.high > 0:
        high = f"{ceil(1000 * measure.high) / 10:.1f}"
    return f"{low} to {high}"


def rate(measure: Measure) -> str:
    """Print a rate with its interval: ``63.3 % [52.1, 73.2]``."""
    return f"{percent(measure.value)}{rate_interval(measure)}"


def rate_interval(measure: Measure) -> str:
    """Print the interval of a rate, with a leading space: `` [52.1, 73.2]``; empty without an interval."""
    if measure.low is None or measure.high is None:
        return ""
    return f" [{_fixed(100 * measure.low, 1)}, {_fixed(100 * measure.high, 1)}]"


def points(share: float | None) -> str:
    """Print a difference of rates in points, with its sign: ``+10.0``."""
    return UNDEFINED if share is None else _fixed(100 * share, 1, sign=True)


def difference(measure: Measure) -> str:
    """Print a difference of rates with its interval: ``+10.0 points [−1.5, +21.4]``."""
    if measure.value is None:
        return UNDEFINED
    text = f"{points(measure.value)} points"
    if measure.low is None or measure.high is None:
        return text
    return f"{text} [{points(measure.low)}, {points(measure.high)}]"


def size(share: float, unit: str = " points") -> str:
    """Print the size of a difference, without its sign: ``10.0 points``."""
    return f"{_fixed(abs(100 * share), 1)}{unit}"


def level(measure: Measure) -> str:
    """Print the level of an interval: ``95 %``."""
    return f"{100 * measure.level:g} %"


def coefficient(measure: Measure) -> str:
    """Print a coefficient with its interval: ``0.43 [0.20, 0.66]``."""
    text = decimal(measure.value)
    if measure.low is None or measure.high is None:
        return text
    return f"{text} [{_fixed(measure.low, 2)}, {_fixed(measure.high, 2)}]"


def decimal(value: float | None, digits: int = 2) -> str:
    """Print a number with fixed digits: ``0.43``."""
    return UNDEFINED if value is None else _fixed(value, digits)


def p_value(p: float) -> str:
    """Print a p-value: ``p = 0.034``, ``p < 0.001``."""
    return f"p < {_SMALLEST_P}" if p < _SMALLEST_P else f"p = {p:.3f}"


def count(n: int | None) -> str:
    """Print a count: ``1,234``; None means not counted."""
    return NOT_COUNTED if n is None else f"{n:,}"


def seconds(value: float | None) -> str:
    """Print a duration: ``0.012 s``, ``4.2 s``, ``73 s`` as ``1 min 13 s``, ``2 h 05 min``."""
    if value is None:
        return NOT_MEASURED
    if value < 1:
        return f"{value:.3f} s"
    if value < _SHORT:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"


def cost(measure: Measure, unit: str) -> str:
    """Print a cost: ``USD 0.42 [0.40, 0.45]``, energy: ``12 Wh``, CO2: ``4 g``, machine time: ``4 min 12 s [4 min 00 s, 4 min 31 s]``."""
    if measure.value is None:
        return UNDEFINED
    in_time = unit == "seconds"
    value, *ends = (
        "" if end is None else seconds(end) if in_time else money(end)
        for end in (measure.value, measure.low, measure.high)
    )
    interval = f" [{', '.join(ends)}]" if all(ends) else ""
    if in_time:
        return f"{value}{interval}"
    return f"{value} {unit}{interval}" if unit in {"Wh", "g"} else f"{unit} {value}{interval}"


def money(value: float | None) -> str:
    """Print an amount: ``0.42``, ``12,345.00``; small amounts with two significant digits, ``0.0042``."""
    if value is None:
        return UNDEFINED
    digits = 2 if value >= 0.1 or value == 0 else 1 - floor(log10(value))
    return f"{value:,.{digits}f}"


def per_second(value: float | None) -> str:
    """Print a speed: ``12.3 /s``."""
    return NOT_MEASURED if value is None else f"{value:,.1f} /s"


def plural(n: int, noun: str, nouns: str = "") -> str:
    """Print a count with its noun: ``1 item``, ``41 items``."""
    return f"{n:,} {noun if n == 1 else nouns or noun + 's'}"


def age(hours: float) -> str:
    """Print an age: ``under 1 hour``, ``17 hours``, from two days on ``5 days``."""
    if hours < 1:
        return "under 1 hour"
    return plural(int(hours), "hour") if hours < _MAX_AGE_IN_HOURS else plural(int(hours / 24), "day")


def two_digits_up(n: int) -> int:
    """Round up to two significant digits, ``1,234`` to ``1,300``: planned numbers of chunks are no more precise."""
    unit = int(10 ** max(0, len(str(n)) - 2))
    return -(-n // unit) * unit


def listed(names: Sequence[str], word: str = "and") -> str:
    """List names: ``a``, ``a and b``, ``a, b and c``; empty for none."""
    *head, last = names or [""]
    return f"{', '.join(head)} {word} {last}" if head else last


def in_words(identifier: str) -> str:
    """Print the name of a check, flag or failure in words: ``stock_phrase`` as ``stock phrase``, ``invalid_json`` as ``invalid JSON``."""
    return identifier.replace("_", " ").replace("json", "JSON")


def moment(utc: str) -> str:
    """Print a time in ISO 8601 for reading: ``2026-01-05 10:20 UTC``; other text stays unchanged."""
    try:
        time = datetime.fromisoformat(utc)
    except ValueError:
        return utc
    return f"{time:%Y-%m-%d %H:%M}" + (" UTC" if time.utcoffset() == timedelta(0) else "")


def _fixed(value: float, digits: int, *, sign: bool = False) -> str:
    """Print fixed digits with a typographic minus; a value that rounds to 0 has no sign."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    if value < 0:
        return MINUS + text
    return f"+{text}" if sign else text
