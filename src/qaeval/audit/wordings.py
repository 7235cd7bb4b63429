"""Other forms of a rubric that mean the same: another order, other letters, other words.

A judge's letters should not depend on them (STATS E5; Sclar et al. 2024, arXiv 2310.11324, measure up to 76 points of
accuracy between formats of one prompt).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from qaeval.chat.protocol import Message
from qaeval.evals.rubric import Rubric, grade_schema, prompt_text
from qaeval.run.grade import Instructions

AS_USED: Final = ""
"""Setting of every run."""
LEVELS, EXAMPLES, RENAMED, TRANSLATED = (
    "levels reversed",
    "examples reversed",
    "letters renamed",
    "translated",
)
LETTERS: Final = "LPTVX"
"""Letters in place of a scale's: in alphabetical order, and ``an`` fits L and X as it does A and E."""

_BEFORE_ARTICLE: Final = (".", ":", ";", "!", "?", '"', "“", "(")
_AFTER_ARTICLE: Final = re.compile(r" [a-zäöü]")
_SYNONYMS: Final = (
    ("source text", "reference text"), ("Judge", "Assess"), ("is supported by", "is backed by"), ("supported", "backed"),
    ("contradicts", "conflicts with"), ("complete", "whole"), ("wrong", "incorrect"), ("missing", "absent"), ("invents", "makes up"),
    ("states", "says"), ("Grade", "Rate"), ("rubric", "marking scheme"), ("Ausgangstext", "Quelltext"), ("falsch", "unrichtig"),
    ("fehlt", "ist nicht vorhanden"),
)  # fmt: skip


def _begins_sentence(before: str) -> bool:
    """Whether what follows a text begins a sentence, a line or an item of a list."""
    stripped = before.rstrip()
    return (
        not before
        or stripped.endswith(_BEFORE_ARTICLE)
        or "\n" in before[len(stripped) :]
        or before.endswith(("- ", "* "))
    )


def with_other_letters(rubric: Rubric) -> Rubric:
    """Return a rubric with other letters, L for A and so on, in scale, rules and reasons.

    An A at the beginning of a sentence before a small letter is an article, and stays.
    """
    new = dict(zip(rubric.letters, LETTERS, strict=False))
    if len(rubric.letters) > len(LETTERS):
        return rubric
    pattern = re.compile(rf"(?<![\w°'’/-])(?:{'|'.join(rubric.letters)})(?![\w'’+#/-])")

    def text(value: str) -> str:
        def letter(match: re.Match[str]) -> str:
            is_article = (
                match[0] == "A"
                and _begins_sentence(value[: match.start()])
                and _AFTER_ARTICLE.match(value[match.end() :])
            )
            return match[0] if is_article else new[match[0]]

        return pattern.sub(letter, value)

    def renamed(value: Any, key: str = "") -> Any:  # noqa: ANN401 - a JSON value
        if isinstance(value, dict) and key not in {"facts", "when"}:
            return {name: renamed(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [renamed(part, key) for part in value]
        if key == "letter":
            return new[value]
        # what is graded in an example, and identifiers, have no letters of the scale
        keep = {
            "name",
            "chunk",
            "question",
            "answer",
            "rejected",
            "flaw",
            "flags",
            "facts",
            "answers",
            "labels_from",
        }
        return text(value) if isinstance(value, str) and key not in keep else value

    return Rubric.model_validate(renamed(rubric.model_dump(mode="json")))


def _synonyms(text: str) -> str:
    for old, other in _SYNONYMS:
        text = re.sub(rf"(?<!\w){old}(?!\w)", other, text)
    return text


def _numbered(text: str) -> str:
    """Number the points of each section, and write headings in capitals."""
    lines, number = [], 0
    for line in text.split("\n"):
        if line.startswith("- "):
            number += 1
            line = f"{number}. {line[2:]}"  # noqa: PLW2901
        else:
            number = 0
        lines.append(line.upper() if line.startswith("## ") else line)
    return "\n".join(lines)


def _spaced(text: str) -> str:
    """Put each point into a paragraph of its own."""
    return re.sub(r"\n- ", "\n\n* ", text)


def _reordered(text: str) -> str:
    """Put the criteria after everything else but the examples."""
    parts = re.split(r"(?m)^(?=## )", text)
    criteria = [part for part in parts if part.startswith("## Criteria")]
    rest = [part for part in parts if part not in criteria]
    examples = next((at for at, part in enumerate(rest) if part.startswith("## Worked examples")), len(rest))
    return "".join([*rest[:examples], *criteria, *rest[examples:]])


WORDINGS: Final[Mapping[str, Callable[[str], str]]] = {
    "synonyms": _synonyms,
    "numbered lists": _numbered,
    "other white space": _spaced,
    "criteria after rules": _reordered,
}
"""Wordings of the prompt besides its own, which is the fifth."""


def is_changed(setting: str, used: Instructions) -> bool:
    """Whether a setting changes the prompt at all: the prompt of a judge of facts has no letters."""
    return instructions_for(setting, used).system != used.system


def instructions_for(setting: str, used: Instructions, translated: Rubric | None = None) -> Instructions:
    """Return the instructions of a judge in a setting; of a cascade, both forms are changed.

    Args:
        setting: `AS_USED`, one of the other forms, or a name of `WORDINGS`.
        used: Those of a run.
        translated: The rubric in another language, for `TRANSLATED`.
    """
    reasoned = None if used.reasoned is None else _form(setting, used.reasoned, translated)
    return replace(_form(setting, used, translated), reasoned=reasoned)


def _form(setting: str, used: Instructions, translated: Rubric | None) -> Instructions:
    rubric, mode = used.rubric, used.mode
    if setting == LEVELS:
        # a copy is not checked: the levels are out of order in the prompt alone
        turned = rubric.model_copy(update={"scale": rubric.scale[::-1]})
        text = prompt_text(turned, mode=mode).replace("Scale, best first", "Scale, worst first")
        return replace(used, system=Message("system", text))
    if setting == EXAMPLES:
        text = prompt_text(rubric.model_copy(update={"examples": rubric.examples[::-1]}), mode=mode)
        return replace(used, system=Message("system", text))
    if setting == RENAMED:
        return _of(with_other_letters(rubric), used)
    if setting == TRANSLATED and translated is not None:
        return _of(translated, used)
    if setting in WORDINGS:
        return replace(used, system=Message("system", WORDINGS[setting](used.system.content)))
    return used


def _of(rubric: Rubric, used: Instructions) -> Instructions:
    system = Message("system", prompt_text(rubric, mode=used.mode))
    return replace(used, rubric=rubric, system=system, schema=grade_schema(rubric, mode=used.mode))
