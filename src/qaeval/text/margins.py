"""Margins as people write them: ``5 points``, ``5pp``, ``5%`` or ``0.05``."""

import re
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator

_WRITTEN: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?(points?|pp|%)?")
_POINTS: Final = 100
_MAX_EXCERPT: Final = 40
_EXAMPLES: Final = "5 points, 5pp, 5% or 0.05"


def parse_margin(value: object) -> float:
    """Read a difference of two shares: a number between 0 and 1, or a text with or without a unit.

    Args:
        value: A number or a text.

    Raises:
        ValueError: It is neither, or not between 0 and 1, both excluded.
    """
    got = repr(value)[:_MAX_EXCERPT]
    number, unit = value, None
    if isinstance(value, str) and (match := _WRITTEN.fullmatch(value.strip())):
        number, unit = float(match[1]), match[2]
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"expected a margin like {_EXAMPLES}, got {got}")  # noqa: TRY004 - pydantic takes ValueError
    share = number / _POINTS if unit else float(number)
    if 0 < share < 1:
        return share
    hint = f". Did you mean {number:g} points?" if not unit and 1 <= share < _POINTS else ""
    raise ValueError(f"expected a margin between 0 and 1, like {_EXAMPLES}, got {got}{hint}")


Margin: TypeAlias = Annotated[float, BeforeValidator(parse_margin, json_schema_input_type=float | str)]
"""A margin in a model: read as by `parse_margin`."""
