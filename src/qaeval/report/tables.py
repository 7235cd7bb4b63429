"""Sections of sentences and tables, the content of every view; all cells are text."""

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
    """``numbers`` are right-aligned; ``confusion`` has agreement on the diagonal and totals at the ends; ``crossed`` has
    no totals."""
    words: frozenset[int] = frozenset()
    """Text columns of a table of numbers."""

    def is_text(self, column: int) -> bool:
        """Whether a column holds text."""
        return column == 0 or self.kind == "text" or column in self.words

    def is_diagonal(self, row: int, column: int) -> bool:
        """Whether a cell counts agreement."""
        is_total = self.kind == "confusion" and row == len(self.rows) - 1
        return self.kind in {"confusion", "crossed"} and column == row + 1 and not is_total


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a document; `anchor` is the target of links."""

    anchor: str
    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    parts: tuple["Section", ...] = ()


@dataclass
class Notes:
    """Notes under a table: each reason once, with the values to which it belongs."""

    names_by_reason: dict[str, list[str]] = field(default_factory=dict)

    def rate(self, measure: Measure, name: str) -> str:
        """Print a rate and note its reason."""
        return self._noted(numbers.rate(measure), measure, name)

    def coefficient(self, measure: Measure, name: str) -> str:
        """Print a coefficient and note its reason."""
        return self._noted(numbers.coefficient(measure), measure, name)

    def difference(self, measure: Measure, name: str) -> str:
        """Print a difference and note its reason."""
        return self._noted(numbers.difference(measure), measure, name)

    def cost(self, measure: Measure, unit: str, name: str) -> str:
        """Print a cost and note its reason."""
        return self._noted(numbers.cost(measure, unit), measure, name)

    def _noted(self, text: str, measure: Measure, name: str) -> str:
        if measure.value is None:
            return f"{text}: {measure.reason}"
        if measure.reason:
            # the clusters of every report are chunks; the statistics do not know that
            self.names_by_reason.setdefault(measure.reason.replace("cluster", "chunk"), []).append(name)
        return text

    def lines(self) -> tuple[str, ...]:
        """Return the notes."""
        return tuple(
            f"{reason[:1].upper()}{reason[1:]}: {_listed(names)}."
            for reason, names in self.names_by_reason.items()
        )


def _listed(names: Iterable[str], n: int = 6) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique) if len(unique) <= n else f"{', '.join(unique[:n])} and {len(unique) - n} more"
