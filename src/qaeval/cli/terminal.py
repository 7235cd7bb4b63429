"""Text of others on a terminal."""

import re
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys instead of printing it; tabs and line ends are left."""


def printable(text: str) -> str:
    """Put a mark in the place of every control character."""
    return _CONTROL.sub("\ufffd", text)
