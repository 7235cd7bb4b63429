"""The largest number that settings, rows and reports hold, and numbers of users that are checked against it before any work."""

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

from qaeval.errors import UsageError

MAX_NUMBER: Final = 2**63 - 1
"""Rows and settings are read back with 64 bits."""


SeedT = TypeVar("SeedT", bound=int | None)


def checked_seed(seed: SeedT) -> SeedT:
    """Return a seed of a draw; None: that of the registry.

    Raises:
        UsageError: it is negative or too large.
    """
    if seed is not None and not 0 <= seed <= MAX_NUMBER:
        raise UsageError(f"seed: expected a whole number from 0 to {MAX_NUMBER}, got {seed}")
    return seed


def number_problems(data: object, key: str = "") -> Iterator[str]:
    """Find the numbers of a file that are too large, infinite or no number."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from number_problems(value, f"{key}.{name}".lstrip("."))
    elif isinstance(data, list | tuple):
        for value in data:
            yield from number_problems(value, key)
    elif isinstance(data, int | float) and not abs(data) <= MAX_NUMBER:
        yield f"{key}: expected a number of at most {MAX_NUMBER}, got {str(data)[:40]}"
