"""When a bar is missed: a busy machine must not end a build, a regression must.

A figure is measured in several rounds. Where their median is within the bar nothing more is done; where it is above, rounds are
added up to a fixed number, and the bar is missed when every one of them lies above it. Of a figure that is exactly as good as its
bar half of the rounds lie above: all of five once in 32 times. What is printed is the median, with the range of the rounds.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_LAST_GOOD: Final = Path(__file__).with_name("last_good.json")
SLIDE: Final = 1.25
"""Of the last good median: a figure above it has become worse, also where it is within its own bar."""

ROUNDS: Final = 5
"""Rounds that must all lie above a bar that is missed."""


def is_settled(values: Sequence[float], most: float, *, least: int = 3, rounds: int = ROUNDS) -> bool:
    """Whether no further round is needed.

    Args:
        values: Of the rounds so far.
        most: The bar.
        least: Rounds in any case.
        rounds: Rounds at most.
    """
    return len(values) >= rounds or (len(values) >= least and statistics.median(values) <= most)


def is_missed(values: Sequence[float], most: float) -> bool:
    """Whether every round lies above the bar."""
    return min(values) > most


def words(values: Sequence[float], most: float) -> str:
    """Say the median with its bar, and the range of the rounds where there were several."""
    middle = statistics.median(values)
    verdict = f"≤ {most:g}" if middle <= most else f"NOT ≤ {most:g}"
    if len(values) == 1:
        return f"{middle:.2f} ({verdict})"
    doubt = ", but not in every round" if middle > most and not is_missed(values, most) else ""
    return f"{middle:.2f} ({verdict}{doubt}; {min(values):.2f} to {max(values):.2f} in {len(values)})"


class Bars:
    """Bars that were missed."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def check(self, what: str, value: float, most: float) -> str:
        """Return a figure that was measured once, with its bar."""
        return self.measure(what, lambda: value, most, least=1, rounds=1)

    def measure(
        self, what: str, once: Callable[[], float], most: float, *, least: int = 3, rounds: int = ROUNDS
    ) -> str:
        """Measure until it is settled; return the figure with its bar.

        Args:
            what: Its name in the list of what was missed.
            once: One round.
            most: The bar.
            least: Rounds in any case.
            rounds: Rounds at most.
        """
        values = [once()]
        while not is_settled(values, most, least=least, rounds=rounds):
            values.append(once())
        if is_missed(values, most):
            each = f" in {len(values)} rounds of {len(values)}" if len(values) > 1 else ""
            self.missed.append(f"{what}: {statistics.median(values):.3f}, the bar is {most:g}{each}")
        return words(values, most)


def last_good() -> dict[str, float]:
    """Return the medians that are kept, by the name of their figure."""
    return json.loads(_LAST_GOOD.read_text()) if _LAST_GOOD.exists() else {}


def keep(medians: Mapping[str, float]) -> None:
    """Keep medians as the last good ones, beside those of other figures."""
    rounded = {name: round(value, 2) for name, value in medians.items()}
    _LAST_GOOD.write_text(json.dumps(last_good() | rounded, indent=1, sort_keys=True) + "\n")
