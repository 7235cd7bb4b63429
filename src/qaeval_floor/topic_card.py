"""A topic card as the embedded models read it, and its sentences in another voice: "The engineer wants" to "I want"."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from qaeval.text.lexicon import word_set
from qaeval.text.units import sentences

Person: TypeAlias = Literal["I", "you"]

_SCENARIO: Final = re.compile(r"^Scenario \(([^()\n]*)\):[ \t]*(.*)$", re.MULTILINE)
_FEATURE: Final = re.compile(r"^- (.+?):[ \t]+(.*)$", re.MULTILINE)
_LINE: Final = {
    "persona": re.compile(r"^Persona:[ \t]*(.*)$", re.MULTILINE),
    "mistake": re.compile(r"^A weaker approach:[ \t]*(.*)$", re.MULTILINE),
    "check": re.compile(r"^How to see that it worked:[ \t]*(.*)$", re.MULTILINE),
    "forbidden": re.compile(r"^Must not be mentioned:[ \t]*(.*)$", re.MULTILINE),
}
_BANNED: Final[Mapping[str, re.Pattern[str]]] = {
    "money": re.compile(
        r"[$€£]\s?\d|\d\s?(?:dollars?|euros?|cents?|USD|EUR)\b|\b(?:USD|EUR)\s?\d", re.IGNORECASE
    ),
    "durations": re.compile(
        r"\b(?:\d[\d.,]*|one|two|three|four|five|six|seven|eight|nine|ten|several|few|couple of)[\s-]?"
        r"(?:second|minute|hour|day|week|month|year)s?\b|\bovernight\b",
        re.IGNORECASE,
    ),
    "hardware": re.compile(
        r"\d\s?(?:[GT]i?B|TFLOPS?|GHz|v?CPUs?|cores|GPUs?)\b|\b(?:[AH][12]00|L40?S?|T4|V100|[345]090|A10G?)\b",
        re.IGNORECASE,
    ),
}

_RELATIVE: Final = re.compile(
    r"\b(?:that|which|who|whom|whose|where|because|since|while|when|until|so that)\b", re.IGNORECASE
)
_ADVERB: Final = re.compile(r"(?:\w+ly|still|also|now|already|often|never|then)$")
_AGREED: Final = {"has": "have", "does": "do", "goes": "go"}
_FORMS: Final[Mapping[Person, Mapping[str, str]]] = {
    "I": {"is": "am", **_AGREED},
    "you": {"is": "are", "was": "were", **_AGREED},
}
_MY: Final[Mapping[Person, str]] = {"I": "my", "you": "your"}
_OUR: Final[Mapping[Person, str]] = {"I": "our", "you": "your"}
_FINITE: Final = word_set(
    "is was has had does did can could may might must shall should will would ran found held built wrote began kept lost got set "
    "put took gave made saw went sent left read chose spent bought taught thought"
)
_WANTING: Final = word_set(
    "wants needs has is expects hopes plans asks suspects works uses fears knows doubts runs keeps"
)
_THEN: Final = re.compile(rf"((?:,\s+)?\b(?:and|but)\s+|,\s+)({'|'.join(sorted(_WANTING))})\b")


@dataclass(frozen=True, slots=True)
class Feature:
    """A setting, method or tool that an answer may name."""

    name: str
    about: str


@dataclass(frozen=True, slots=True)
class Card:
    """What an embedded model reads of a topic card; what a card lacks is empty."""

    situation: str
    type: str = ""
    persona: str = ""
    title: str = ""
    features: tuple[Feature, ...] = ()
    mistake: str = ""
    check: str = ""
    forbidden: tuple[str, ...] = ()
    facts: Mapping[str, Any] | None = None

    @property
    def named(self) -> str:
        """Names and descriptions of the features as one text."""
        return "\n".join(f"{feature.name}: {feature.about}" for feature in self.features)

    def bans(self, text: str) -> str:
        """Return the first thing in a text that the card wants unmentioned; empty where there is none."""
        for kind in self.forbidden:
            pattern = _BANNED.get(kind)
            if pattern is not None and (found := pattern.search(text)):
                return found.group().strip()
        return ""

    def told(self, person: Person) -> list[str]:
        """Return the sentences of the situation that may be mentioned, in the voice of the persona or addressed to it."""
        role, organisation = _role(self.persona), _organisation(self.persona)
        return [
            voiced(one, person, role, organisation) for one in sentences(self.situation) if not self.bans(one)
        ]


def from_json(text: str) -> Card:
    """Read a card from the JSON of its fields.

    Raises:
        ValueError: it is not a JSON object, or says nothing of a situation.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("the card is no JSON") from error
    situation = given.get("situation") if isinstance(given, dict) else None
    if not isinstance(situation, str) or not situation.strip():
        raise ValueError("the card has no situation: there is nothing to write a pair about")
    plain = {name: _plain(given.get(name)) for name in ("type", "persona", "title", "mistake", "check")}
    features = given.get("features")
    forbidden = given.get("forbidden")
    facts = given.get("scenario_facts")
    return Card(
        situation=_plain(situation),
        **plain,
        features=tuple(
            Feature(_plain(one.get("name")), _plain(one.get("about")))
            for one in (features if isinstance(features, list) else ())
            if isinstance(one, dict) and _plain(one.get("name"))
        ),
        forbidden=tuple(map(str, forbidden)) if isinstance(forbidden, list) else (),
        facts=facts if isinstance(facts, dict) else None,
    )


def from_text(text: str) -> Card:
    """Read a card from the text that candidates and judge see; a text of another shape is a situation without the rest."""
    scenario = _SCENARIO.search(text)
    line = {
        name: found.group(1).strip() if (found := pattern.search(text)) else ""
        for name, pattern in _LINE.items()
    }
    return Card(
        situation=scenario.group(2) if scenario else text,
        type=scenario.group(1) if scenario else "",
        persona=line["persona"],
        features=tuple(Feature(name, about) for name, about in _FEATURE.findall(text)) if scenario else (),
        mistake=line["mistake"],
        check=line["check"],
        forbidden=tuple(part.strip() for part in line["forbidden"].split(",") if part.strip()),
    )


def voiced(sentence: str, person: Person, role: str, organisation: str) -> str:
    """Put a sentence about ``the engineer`` and ``the hospital`` into the first or second person.

    Args:
        sentence: One sentence in the third person.
        person: Who speaks or is spoken to.
        role: Pattern of what the sentence calls the persona (``engineer``); empty: nobody.
        organisation: The same of where it works.
    """
    if organisation:
        sentence = re.sub(
            rf"\b([Tt])he (?=(?:{organisation})\b(?!-))", lambda found: _cased(_OUR[person], found), sentence
        )
    if not role:
        return sentence
    sentence = re.sub(rf"\b([Tt])he (?:{role})['’]s ", lambda found: _cased(_MY[person], found), sentence)
    before, *rest = re.split(rf"\b([Tt]he (?:{role}))\b(?!-)", sentence)
    for name, part in zip(rest[::2], rest[1::2], strict=True):
        subject, clause = _clause(part, person)
        opens = not before.strip()
        if opens and subject == "me":  # "The engineer, who ..." has no plain first person
            before += name + part
        else:
            before += (subject.capitalize() if opens else subject) + clause
    return before


def _clause(rest: str, person: Person) -> tuple[str, str]:
    """Return the pronoun for the role, and what follows it with its verbs agreeing."""
    words = re.match(r"(\s+)(?:([\w-]+)(\s+))?([\w-]+)", rest)
    adverb = words.group(2) if words and words.group(2) else ""
    place = 4 if adverb and _ADVERB.match(adverb) else (2 if adverb else 4)
    verb = words.group(place) if words else ""
    if not (words and (verb in _FINITE or re.fullmatch(r"[a-z-]{2,}(?:ed|s)", verb))):
        return ("me" if person == "I" else "you"), rest
    rest = rest[: words.start(place)] + _agreeing(verb, person) + rest[words.end(place) :]
    end = found.start() if (found := _RELATIVE.search(rest)) else len(rest)
    own = _THEN.sub(lambda found: found.group(1) + _agreeing(found.group(2), person), rest[:end])
    return person, own + rest[end:]


def _agreeing(verb: str, person: Person) -> str:
    forms = _FORMS[person]
    if verb in forms or verb in _FINITE or not verb.endswith("s") or verb.endswith(("ss", "us")):
        return forms.get(verb, verb)
    if verb.endswith("ies"):
        return verb[:-3] + "y"
    return verb[:-2] if verb.endswith(("sses", "shes", "ches", "xes", "zzes", "oes")) else verb[:-1]


def _cased(word: str, found: "re.Match[str]") -> str:
    return (word.capitalize() if found.group(1) == "T" else word) + " "


def _role(persona: str) -> str:
    """Return a pattern of what the situation may call the persona: "machine-learning lead at a law firm" is the lead."""
    name = re.split(r" (?:at|of|for|in|with) ", persona)[0].strip(" .,")
    return _either(name, name.rpartition(" ")[2]) if name else ""


def _organisation(persona: str) -> str:
    place = re.split(r" (?:at|of|for|in|with) ", persona, maxsplit=1)[1:]
    name = re.sub(r"^(?:an?|the)\s+", "", place[0]).strip(" .,") if place else ""
    return _either(name, name.rpartition(" ")[2], "company") if name else ""


def _either(*names: str) -> str:
    return "|".join(re.escape(name) for name in names if name)


def _plain(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""
