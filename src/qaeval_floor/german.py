"""German statements to questions: the finite verb goes before the subject, the rest stays where it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from qaeval_floor.lexicon import (
    GERMAN_ADVERBS,
    GERMAN_ARTICLES,
    GERMAN_FINITE,
    GERMAN_MODALS,
    GERMAN_SEPARABLE,
    GERMAN_SINGULAR,
    GERMAN_STOP,
    GERMAN_TRANSITIVE,
)

RawQuestion = tuple[str, Literal["factual", "conceptual", "comparison"], float]
"""Text, type and quality of a question, not yet capitalised or ended with a question mark."""

_CONTRAST = re.compile(r"[,;] (?:während|wohingegen|aber|dagegen|jedoch|hingegen) (.+)$")
_CONTRAST_INSIDE = re.compile(r"[,;] (.+?) \w+ (?:dagegen|hingegen|jedoch) ")
_THAN = re.compile(r" (?:[a-zäöüß]+er|mehr|weniger|besser) als ((?:[^,;]+ )?[A-ZÄÖÜ][^,;]*)$")
_CONDITION = re.compile(r"^(Wenn|Falls|Sobald) ([^,]{5,110}), (.+)$")
_TAIL = re.compile(r",(?: (?:nur|erst|außer))? (weil|da|damit|wenn|sobald|falls|nachdem|bevor) ")
_TIME = re.compile(r"^(?:spätestens|frühestens|innerhalb|binnen|erst nach|nach \d|am \d|um \d|ab dem \d|im (?:Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember|Jahr)) ?")  # fmt: skip
_EVERY = re.compile(r"^(?:alle \d|alle (?:zwei|drei|vier|fünf|sechs|zehn) |täglich|wöchentlich|monatlich|jährlich|stündlich|(?:ein|zwei|drei)mal )")  # fmt: skip
_COUNT = re.compile(
    r"^(?:etwa |rund |bis zu |höchstens |mindestens |maximal |nur |genau )?"
    r"(?:\d[\d.,]*|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|zwölf) ([A-ZÄÖÜ][a-zäöüß]{2,})\b"
)
_SPAN = re.compile(r"^eine? (?:Jahr|Tag|Monat|Woche|Stunde|Minute|Sekunde)\b")
_PRONOUN = re.compile(r"\b(?:er|sie|es|dies|diese|dieser|dieses|ihn|ihm|ihr)\b")
_OBJECT_ARTICLES = frozenset(
    {"den", "die", "das", "einen", "eine", "ein", "alle", "nur", ",", "keine", "keinen"}
)
_MAX_SUBJECT_WORDS = 5
_MAX_TOPIC = 60
_QUESTION = {"weil": "Warum", "da": "Warum", "damit": "Wozu"}


class Clause(NamedTuple):
    """A main clause that opens with its subject; ``rest`` begins with a comma where one follows the verb."""

    subject: str
    verb: str
    rest: str

    @property
    def first(self) -> str:
        """The first word after the verb."""
        return self.rest.split()[0]

    @property
    def prefix(self) -> str:
        """The separated prefix at the end of the clause, with a blank before it; mostly empty."""
        last = self.rest.split()[-1]
        return f" {last}" if last in GERMAN_SEPARABLE and "," not in self.rest else ""


def ask(sentence: str) -> Iterator[RawQuestion]:
    """Questions on a German sentence: text, type and quality of each."""
    body = re.sub(r"(?<!\s)\s+\([^()]*\)", "", sentence).rstrip(" .!?:;…")
    condition = _CONDITION.match(body)
    if condition and not _PRONOUN.search(condition.group(2)):
        yield f"Was passiert, {condition.group(1).lower()} {condition.group(2)}", "conceptual", 2.2
    whole = parse(body)
    if whole is not None:
        yield from _contrast(whole.subject, body)
    for segment in re.split(r"; |: (?=[A-ZÄÖÜ])", body):
        parsed = parse(segment)
        if parsed is not None:
            for rule in RULES:
                yield from rule(parsed)


def parse(body: str) -> Clause | None:
    """Subject, finite verb and rest of a main clause that opens with its subject, where all three are plain."""
    tokens = body.split()
    first = tokens[0].casefold() if tokens else ""
    if not tokens or (first in GERMAN_STOP | GERMAN_ADVERBS and first not in GERMAN_ARTICLES):
        return None
    if first.startswith(("ihr", "sein", "unser", "dies", "solch")) or first.endswith(
        ("weise", "mäßig", "lich", "dings")
    ):
        return None
    for index in range(1, min(len(tokens) - 1, _MAX_SUBJECT_WORDS + 1)):
        word, comma = tokens[index].rstrip(","), tokens[index].endswith(",")
        if word in GERMAN_FINITE or _is_third_person(tokens, index):
            subject = " ".join(tokens[:index])
            adjective = index > 1 and _before_noun(first)
            several = adjective and first.endswith("e") and first not in GERMAN_ARTICLES
            if not tokens[index - 1].strip("`„“")[:1].isupper() or (several and word in GERMAN_SINGULAR):
                return None  # no noun, or an object that opens the sentence
            lowered = subject[0].lower() + subject[1:] if first in GERMAN_ARTICLES or adjective else subject
            return Clause(lowered, word, " ".join([*([","] if comma else []), *tokens[index + 1 :]]))
        if tokens[index][-1] in ",;:":
            return None
    return None


def topic(sentence: str) -> str:
    """The subject or else the longest noun of a sentence, in quotation marks, so that its case does not matter."""
    parsed = parse(sentence)
    if parsed is not None:
        return f"„{_without_article(parsed.subject)}“"
    tokens = [token.strip("`*\"'.,;:!?()„“”[]{}<>|") for token in sentence.split()[:60]]
    nouns = [token for token in tokens[1:] if token[:1].isupper()]
    others = [token for token in tokens if token.casefold() not in GERMAN_STOP]
    plain = [token for token in nouns or others if re.fullmatch(r"[\w.-]{2,40}", token)]
    longest = max(plain or others, key=len, default="")
    return f"„{longest}“" if 0 < len(longest) <= _MAX_TOPIC else ""


def _why_or_when(clause: Clause) -> Iterator[RawQuestion]:
    tail = _TAIL.search(clause.rest)
    if tail and "," not in clause.rest[: tail.start()] and "außer" not in tail.group():
        head = clause.rest[: tail.start()].removesuffix(" nur").removesuffix(" erst")
        opening = _QUESTION.get(tail.group(1), "Wann")
        kind: Literal["factual", "conceptual"] = "factual" if opening == "Wann" else "conceptual"
        yield f"{opening} {clause.verb} {clause.subject} {head}", kind, 2.0 if opening == "Wann" else 2.8


def _what_is(clause: Clause) -> Iterator[RawQuestion]:
    named = clause.first in {"ein", "eine", "der", "die", "das"} and not _SPAN.match(clause.rest)
    if named and clause.verb in {"ist", "sind", "war", "waren"}:
        yield f"Was {clause.verb} {clause.subject}", "factual", 2.8


def _quantity(clause: Clause) -> Iterator[RawQuestion]:
    counted = _COUNT.match(clause.rest)
    if clause.verb == "beträgt":
        yield f"Wie hoch ist {clause.subject}", "factual", 2.7
    elif clause.verb in {"kostet", "kosten"} and clause.first[:1].isdigit():
        yield f"Wie viel {clause.verb} {clause.subject}", "factual", 2.7
    elif clause.verb in {"dauert", "dauern"} and re.match(
        r"(?:etwa |rund |höchstens |mindestens )?\d", clause.rest
    ):
        yield f"Wie lange {clause.verb} {clause.subject}", "factual", 2.7
    elif counted and clause.verb not in GERMAN_MODALS | {"ist", "sind", "wird", "werden", "liegt", "liegen"}:
        yield f"Wie viele {counted.group(1)} {clause.verb} {clause.subject}{clause.prefix}", "factual", 2.6


def _time(clause: Clause) -> Iterator[RawQuestion]:
    opening = "Wann" if _TIME.match(clause.rest) else "Wie oft" if _EVERY.match(clause.rest) else ""
    if not opening or "," in clause.rest:
        return
    end = " ".join(clause.rest.split()[-2:]) if clause.rest.endswith((" werden", " sein")) else ""
    passive = clause.verb in {"wird", "werden", "wurde", "wurden"}
    end = clause.rest.split()[-1] if passive else end or clause.prefix.strip()
    if end or clause.verb not in GERMAN_MODALS:
        yield f"{opening} {clause.verb} {clause.subject} {end}", "factual", 2.5


def _what_does(clause: Clause) -> Iterator[RawQuestion]:
    if clause.verb in GERMAN_MODALS and not clause.rest.endswith(("werden", "sein")):
        negation = " nicht" if "nicht" in clause.rest.split() else ""
        yield f"Was {clause.verb} {clause.subject}{negation} tun", "factual", 1.7
    objects = clause.first in _OBJECT_ARTICLES
    if clause.verb in GERMAN_TRANSITIVE and (
        objects or clause.first[:1].isupper() or clause.first[:1].isdigit()
    ):
        effect = clause.verb.startswith(
            ("verhinder", "schütz", "erlaub", "bewirk", "verursach", "regel", "steuer")
        )
        yield f"Was {clause.verb} {clause.subject}", "conceptual" if effect else "factual", 2.1
    if (
        clause.verb in {"hängt", "hängen"}
        and clause.rest.startswith(("von ", "vom "))
        and clause.rest.endswith(" ab")
    ):
        yield f"Wovon {clause.verb} {clause.subject} ab", "conceptual", 2.5


RULES: tuple[Callable[[Clause], Iterator[RawQuestion]], ...] = (
    _why_or_when,
    _what_is,
    _quantity,
    _time,
    _what_does,
)


def _contrast(subject: str, body: str) -> Iterator[RawQuestion]:
    match = _CONTRAST.search(body) or _CONTRAST_INSIDE.search(body) or _THAN.search(body)
    tokens = match.group(1).split() if match else []
    noun = next((index for index, token in enumerate(tokens[:4]) if token[:1].isupper()), -1)
    if noun < 0 or not all(_before_noun(token) for token in tokens[:noun]):
        return
    partner = " ".join(tokens[: noun + 1]).rstrip(",")
    if partner.casefold() != subject.casefold():
        yield f"Worin unterscheiden sich {subject} und {partner}", "comparison", 2.6


def _before_noun(token: str) -> bool:
    adjective = token.islower() and token.endswith(("e", "er", "es", "en")) and token not in GERMAN_STOP
    return token in GERMAN_ARTICLES or adjective


def _is_third_person(tokens: list[str], index: int) -> bool:
    """A lower-case word in -t right after a noun: no adjective stands there, and adverbs in -t are few."""
    word = tokens[index].rstrip(",")
    shape = word.isalpha() and word.islower() and word.endswith("t") and len(word) > 3
    return (
        shape
        and word not in GERMAN_ADVERBS | GERMAN_STOP
        and (index == 1 or _before_noun(tokens[0].casefold()))
    )


def _without_article(subject: str) -> str:
    first, _, rest = subject.partition(" ")
    return rest if first.casefold() in GERMAN_ARTICLES and rest else subject
