"""Check a published claim about agreement against its own letter counts."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from math import isnan
from typing import Final

from qaeval.errors import UsageError
from qaeval.stats.published import PublishedCheck, check_published

_COUNTS: Final = re.compile(r"\d+(?:,\d+)+:\d+(?:,\d+)+")
_NUMBER: Final = re.compile(r"-?\d+(?:\.(\d+))?")


def check_claim(table: str, *, agreement: str | None = None, kappa: str | None = None) -> PublishedCheck:
    """Check published letter counts, and the agreement and kappa claimed for them.

    Args:
        table: Letter counts of reference and judge, ``111,50,10:167,3,1``.
        agreement: Agreement in percent as printed; its digits are its precision: ``65.0`` is not ``65``.
        kappa: Kappa as printed.

    Raises:
        UsageError: the counts or a number have another form, or the counts do not match.
    """
    reference, judge = _counts(table)
    try:
        return check_published(
            reference,
            judge,
            agreement_percent=_value(agreement, "--agreement"),
            agreement_decimals=_decimals(agreement),
            kappa=_value(kappa, "--kappa"),
            kappa_decimals=_decimals(kappa),
        )
    except ValueError as error:
        raise UsageError(f"--table {table}: {error}") from error


def claim_json(check: PublishedCheck) -> str:
    """Return a check as JSON; NaN becomes null."""
    values = {
        key: None if isinstance(value, float) and isnan(value) else value
        for key, value in asdict(check).items()
    }
    return json.dumps({**values, "is_possible": check.is_possible})


def _counts(table: str) -> tuple[Sequence[int], Sequence[int]]:
    text = table.replace(" ", "")
    if not _COUNTS.fullmatch(text):
        raise UsageError(
            f"--table: expected the letter counts of both raters, 111,50,10:167,3,1; got {table!r}"
        )
    reference, judge = ([int(n) for n in side.split(",")] for side in text.split(":"))
    return reference, judge


def _value(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    if not _NUMBER.fullmatch(text.strip()):
        raise UsageError(f"{option}: expected the number as it was printed, with its digits; got {text!r}")
    return float(text)


def _decimals(text: str | None) -> int:
    match = _NUMBER.fullmatch((text or "").strip())
    return len(match[1] or "") if match else 0
