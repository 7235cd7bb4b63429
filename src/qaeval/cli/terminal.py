"""Untrusted text on a terminal."""

import re
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters and direction overrides, which a terminal executes; tabs and line ends are kept."""


def printable(text: str) -> str:
    """Replace every control character."""
    return _CONTROL.sub("\ufffd", text)
