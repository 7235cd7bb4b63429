"""Check a published claim about agreement against its own letter counts."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from math import isnan
from typing import Final

import numpy as np

from qaeval.errors import UsageError
from qaeval.stats.published import PublishedCheck, check_published, grim_counts

_NUMBER: Final = re.compile(r"(?P<sign>[-\u2212]?)(?P<whole>\d*)(?:[.,](?P<fraction>\d*))?\s*(?P<percent>%?)")
_COUNTS: Final = re.compile(r"\d+(?:,\d+)+")
_TABLE: Final = (
    "the letter counts of both raters, reference first (111,50,10:167,3,1), shares of --items (65.0,29.2,5.8:…), or the whole table by rows "
    "of the reference (17,13/0,9)"
)


@dataclass(frozen=True)
class _Printed:
    """A number as it was printed."""

    value: float
    decimals: int
    """Digits after the point; its precision is half a unit of the last one."""
    is_percent: bool

    @classmethod
    def parse(cls, text: str, option: str) -> "_Printed":
        """Read .74, 0.87, 87 %, 0,74.

        Raises:
            UsageError: it is no number.
        """
        match = _NUMBER.fullmatch(text.strip())
        if match is None or not (match["whole"] or match["fraction"]):
            raise UsageError(
                f"{option}: expected a number as it was printed (.74, 0.87, 87 %, 0,74), got {text!r}"
            )
        fraction = match["fraction"] or ""
        value = float(f"{match['whole'] or 0}.{fraction or 0}")
        return cls(-value if match["sign"] else value, len(fraction), bool(match["percent"]))

    def as_percent(self) -> "_Printed":
        """Convert a share to percent: a number of at most 1 with a fraction and without a percent sign."""
        if self.is_percent or not self.decimals or self.value > 1:
            return self
        return _Printed(round(100 * self.value, 10), self.decimals - 2, is_percent=True)


def check_claim(
    table: str, *, agreement: str | None = None, kappa: str | None = None, items: int | None = None
) -> PublishedCheck:
    """Check published letter counts, and the agreement and kappa claimed for them.

    Args:
        table: Letter counts of reference and judge, ``111,50,10:167,3,1``; with `items` also shares in percent,
            ``65.0;29.2;5.8:97.7;1.8;.6``; or the whole table by rows of the reference, ``17,13/0,9``.
        agreement: Agreement as printed, in percent or as a share below 1; its digits are its precision: ``65.0`` is not ``65``.
        kappa: Kappa as printed.
        items: Number of items; the counts have to sum to it.

    Raises:
        UsageError: the counts or a number have another form, or the counts do not match.
    """
    confusion = _confusion(table) if "/" in table else None
    if confusion is not None:
        reference, judge = confusion.sum(axis=1).tolist(), confusion.sum(axis=0).tolist()
    else:
        reference, judge = _counts(table, items)
    if items is not None and sum(reference) != items:
        raise UsageError(
            f"--table {table}: the counts sum to {sum(reference):,}, not to the {items:,} of --items"
        )
    percent = None if agreement is None else _Printed.parse(agreement, "--agreement").as_percent()
    printed = None if kappa is None else _Printed.parse(kappa, "--kappa")
    if printed is not None and printed.is_percent:
        raise UsageError(f"--kappa: expected a number of -1 to 1, got {kappa!r}")
    try:
        return check_published(
            reference,
            judge,
            agreement_percent=None if percent is None else percent.value,
            agreement_decimals=0 if percent is None else percent.decimals,
            kappa=None if printed is None else printed.value,
            kappa_decimals=0 if printed is None else printed.decimals,
            confusion=confusion,
        )
    except ValueError as error:
        raise UsageError(f"--table {table}: {error}") from error


def claim_json(check: PublishedCheck) -> str:
    """Return a check as JSON; NaN becomes null."""
    return json.dumps({**_without_nan(asdict(check)), "is_possible": check.is_possible})


def _without_nan(values: dict[str, object]) -> dict[str, object]:
    return {
        key: _without_nan(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and isnan(value)
        else value
        for key, value in values.items()
    }


def _confusion(table: str) -> np.ndarray:
    rows = [row.strip() for row in table.replace(" ", "").split("/")]
    cells = [row.split(",") for row in rows]
    if not all(map(_COUNTS.fullmatch, rows)) or {len(row) for row in cells} != {len(rows)}:
        raise UsageError(f"--table: expected {_TABLE}; got {table!r}")
    return np.array([[int(cell) for cell in row] for row in cells])


def _counts(table: str, items: int | None) -> tuple[Sequence[int], Sequence[int]]:
    sides = [side.strip() for side in table.split(":")]
    if len(sides) != 2:
        raise UsageError(f"--table: expected {_TABLE}; got {table!r}")
    if all(_COUNTS.fullmatch(side.replace(" ", "")) for side in sides):
        reference, judge = ([int(n) for n in side.split(",")] for side in sides)
        if items is None or {sum(reference), sum(judge)} == {items}:
            return reference, judge
    if items is None:
        raise UsageError(f"--table: expected {_TABLE}; got {table!r}")
    return _from_shares(sides[0], items), _from_shares(sides[1], items)


def _from_shares(side: str, items: int) -> Sequence[int]:
    """Return the whole numbers of items that the printed shares of a rater round from.

    Raises:
        UsageError: there are none, or several.
    """
    parts = side.split(";") if ";" in side else side.split(",")
    shares = [_Printed.parse(part, "--table") for part in parts]
    if sum(share.value for share in shares) < 2:  # shares of 1, not percentages
        shares = [share.as_percent() for share in shares]
    try:
        ranges = [grim_counts(share.value, items, decimals=share.decimals) for share in shares]
    except ValueError as error:
        raise UsageError(f"--table {side}: {error}") from error
    fitting = list(islice(_sums(ranges, items), 2))
    if len(fitting) != 1:
        problem = "no whole numbers" if not fitting else "several whole numbers"
        raise UsageError(f"--table {side}: {problem} of {items:,} items give these shares; give the counts")
    return fitting[0]


def _sums(ranges: Sequence[range], total: int) -> Iterator[tuple[int, ...]]:
    """Yield one number of each range, with this sum."""
    if not ranges:
        if total == 0:
            yield ()
        return
    if not all(ranges) or not sum(r[0] for r in ranges) <= total <= sum(r[-1] for r in ranges):
        return
    for n in ranges[0]:
        for others in _sums(ranges[1:], total - n):
            yield (n, *others)
