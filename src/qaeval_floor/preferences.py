"""Preference pairs from topic cards without a model: two templates that are filled with what the card says.

Both ignore the asked-for lengths, what a card wants unmentioned and whether its scenario is possible. There is no judge of such pairs: rules
on words and steps did not agree with readers more often than always answering C would, as the run in
``tests/data/dpo_pairs_templates`` shows.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_LEAD_REJECTED: Final = 3
"""Features that the rejected answer of ``lead_pair`` reads out."""


@dataclass(frozen=True, slots=True)
class Card:
    """What the templates use of a topic card; what a card lacks is empty.

    Attributes:
        situation: the scenario, in sentences about the persona.
        persona: who asks, without an article.
        features: name and description of what an answer may use.
        mistake: a weaker approach, as a sentence.
        check: how to see that it worked, as a sentence.
    """

    situation: str
    persona: str = ""
    features: tuple[tuple[str, str], ...] = ()
    mistake: str = ""
    check: str = ""

    @property
    def lines(self) -> list[str]:
        """The features as ``name: description``, or the situation where there are none."""
        return [f"{name}: {about}" for name, about in self.features] or [self.situation]


def lead_pair(inputs: Mapping[str, str]) -> Mapping[str, str]:
    """Read the card out: its situation, its features with numbers, and the first of them without.

    Raises:
        ValueError: the card has no situation.
    """
    card = read_card(inputs["given"])
    return {
        "prompt": f"{card.situation} What should be done?",
        "chosen": _numbered(card.lines),
        "rejected": " ".join(card.lines[:_LEAD_REJECTED]),
    }


def salient_pair(inputs: Mapping[str, str]) -> Mapping[str, str]:
    """Let the persona ask, answer with all features, a warning and the check, and reject the card's weaker approach.

    Raises:
        ValueError: the card has no situation.
    """
    card = read_card(inputs["given"])
    article = "an" if re.match("[aeio]", card.persona, re.IGNORECASE) else "a"
    person = f"I am {article} {card.persona}." if card.persona else ""
    warning = f"The following falls short: {card.mistake}" if card.mistake else ""
    check = f"This is how you see that it worked: {card.check}" if card.check else ""
    return {
        "prompt": _joined(person, card.situation, "What should I do, and in which order?"),
        "chosen": "\n\n".join(filter(None, [_numbered(card.lines), warning, check])),
        "rejected": _joined(card.mistake or card.situation, "For a first version that is usually enough."),
    }


def read_card(text: str) -> Card:
    """Read a card from the JSON of its fields.

    Raises:
        ValueError: it is not a JSON object, or says nothing of a situation.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("the card is no JSON") from error
    situation = _line(fields.get("situation")) if isinstance(fields, dict) else ""
    if not situation:
        raise ValueError("the card has no situation: there is nothing to write a pair about")
    features = fields.get("features")
    entries = [entry for entry in features if isinstance(entry, dict)] if isinstance(features, list) else []
    return Card(
        situation,
        persona=_line(fields.get("persona")),
        features=tuple(
            (name, _line(entry.get("about"))) for entry in entries if (name := _line(entry.get("name")))
        ),
        mistake=_line(fields.get("mistake")),
        check=_line(fields.get("check")),
    )


def _line(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _numbered(lines: list[str]) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)
