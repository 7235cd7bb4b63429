"""What every view of a report is made of: sections of sentences and tables, all cells already text."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from qaeval.report import numbers
from qaeval.report.measure import Measure


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; the first cell of each row names the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    kind: Literal["numbers", "text", "confusion", "crossed"] = "numbers"
    """``numbers`` are set flush right; ``confusion`` has its agreement on the diagonal and its sums at the ends; ``crossed``
    is the same without sums."""
    words: frozenset[int] = frozenset()
    """Columns of a table of numbers that hold words."""

    def is_text(self, column: int) -> bool:
        """Whether a column holds words."""
        return column == 0 or self.kind == "text" or column in self.words

    def is_diagonal(self, row: int, column: int) -> bool:
        """Whether a cell counts agreement."""
        sums = self.kind == "confusion" and row == len(self.rows) - 1
        return self.kind in {"confusion", "crossed"} and column == row + 1 and not sums


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report, with a name that a link can point to."""

    anchor: str
    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    parts: tuple["Section", ...] = ()


@dataclass
class Notes:
    """Collects the reasons that stand under a table, each once, with the places to which it belongs."""

    places: dict[str, list[str]] = field(default_factory=dict)

    def rate(self, measure: Measure, place: str) -> str:
        """Print a rate and note its reason."""
        return self._noted(numbers.rate(measure), measure, place)

    def coefficient(self, measure: Measure, place: str) -> str:
        """Print a coefficient and note its reason."""
        return self._noted(numbers.coefficient(measure), measure, place)

    def difference(self, measure: Measure, place: str) -> str:
        """Print a difference and note its reason."""
        return self._noted(numbers.difference(measure), measure, place)

    def cost(self, measure: Measure, unit: str, place: str) -> str:
        """Print a cost and note its reason."""
        return self._noted(numbers.cost(measure, unit), measure, place)

    def _noted(self, text: str, measure: Measure, place: str) -> str:
        if measure.value is None:
            return f"{text}: {measure.reason}"
        if measure.reason:
            self.places.setdefault(measure.reason.replace("clusters", "chunks"), []).append(place)
        return text

    def lines(self) -> tuple[str, ...]:
        """Return the notes, each with its places."""
        return tuple(
            f"{reason[:1].upper()}{reason[1:]}: {_listed(places)}." for reason, places in self.places.items()
        )


def _listed(places: Iterable[str], n: int = 6) -> str:
    names = list(dict.fromkeys(places))
    return ", ".join(names) if len(names) <= n else f"{', '.join(names[:n])} and {len(names) - n} more"
