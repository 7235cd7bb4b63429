"""The scale of the letters in a table: which cells are letters, which are missing, and whether the letters have an order.

An order is never guessed from the alphabet: it is given, or that of numbers, of qaeval's own letters A, B and C, or of a few words
whose meaning leaves no doubt.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

ScaleOrder: TypeAlias = Literal["given", "numbers", "letters", "words", "none"]
"""Where the order of a scale is from; none: the letters have no order."""

OWN_LETTERS: Final = ("A", "B", "C")
"""The scale of qaeval's rubrics, best first."""
_WORDS: Final = (
    ("pass", "fail"),
    ("passed", "failed"),
    ("yes", "no"),
    ("true", "false"),
    ("good", "bad"),
    ("correct", "incorrect"),
    ("ja", "nein"),
    ("wahr", "falsch"),
)
"""Words with an order, best first."""
_MISSING: Final = frozenset({"", "n/a", "#n/a", "na", "nan", "null", "<na>"})
"""Cells without a letter, in lower case: what spreadsheets, pandas and databases write."""
_NUMBER: Final = re.compile(r"[-+\u2212]?\d+(?:[.,]\d+)?")


@dataclass(frozen=True)
class Scale:
    """The letters of a table."""

    letters: tuple[str, ...]
    """Best first where they have an order."""
    order: ScaleOrder
    spellings: Mapping[str, str]
    """The letter of each cell's text; a missing letter is an empty string."""

    @property
    def merged(self) -> dict[str, str]:
        """Letter by another spelling of it, in case or as the same number."""
        return {text: letter for text, letter in sorted(self.spellings.items()) if letter and letter != text}

    @property
    def is_ordered(self) -> bool:
        """Whether better and worse have a meaning."""
        return self.order != "none"


def read_scale(cells: Iterable[str], given: Sequence[str] = ()) -> Scale:
    """Return the scale of the cells of all raters.

    Args:
        cells: Texts, stripped; repeated ones count.
        given: Letters, best first; text that is not on it stays as it is.
    """
    counts = Counter(cells)
    known = set(given)
    present = Counter(
        {text: n for text, n in counts.items() if text in known or text.lower() not in _MISSING}
    )
    spellings = {text: "" for text in counts if text not in present}
    groups: dict[object, list[str]] = {}
    is_numeric = bool(present) and all(map(_NUMBER.fullmatch, (*present, *given)))
    for text in (*given, *present):
        spelt = groups.setdefault(_value(text) if is_numeric else text.casefold(), [])
        if text not in spelt:
            spelt.append(text)
    letters = []
    for texts in groups.values():
        # two letters of a given scale may differ by case alone
        of_scale = [text for text in texts if text in known]
        chosen = of_scale or [min(texts, key=lambda text: (-text.isupper(), -present[text], text))]
        spellings |= {text: text if text in chosen else chosen[0] for text in texts}
        letters += chosen
    ordered, order = _ordered(letters, given, is_numeric=is_numeric)
    return Scale(letters=ordered, order=order, spellings=spellings)


def _ordered(
    letters: Sequence[str], given: Sequence[str], *, is_numeric: bool
) -> tuple[tuple[str, ...], ScaleOrder]:
    if given:
        return tuple(given), "given"
    if is_numeric:
        return tuple(sorted(letters, key=_value, reverse=True)), "numbers"
    if set(letters) <= set(OWN_LETTERS):
        return tuple(sorted(letters)), "letters"
    spelt = {letter.casefold(): letter for letter in letters}
    for words in _WORDS:
        if spelt.keys() <= set(words):
            return tuple(spelt.get(word, word) for word in words), "words"
    return tuple(sorted(letters)), "none"


def _value(number: str) -> float:
    return float(number.replace(",", ".").replace("\u2212", "-"))
