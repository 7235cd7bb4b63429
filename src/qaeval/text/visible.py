"""Untrusted text for a reader: characters that a terminal executes, or that change what is seen, become visible."""

import re
from typing import Final

UNSEEN: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff"
    r"\U000e0000-\U000e007f]"
)
"""Control characters, marks of direction, tags, and halves of characters; tabs and
line feeds are kept."""


def visible(text: str) -> str:
    r"""Return untrusted text with a symbol for each control character and the code of each invisible one.

    ``\r\n`` becomes a line feed.
    """
    return UNSEEN.sub(_symbol, text.replace("\r\n", "\n"))


def _symbol(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures of Unicode
    return f"[U+{code:04X}]"
