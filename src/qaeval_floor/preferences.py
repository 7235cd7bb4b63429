"""Preference pairs from topic cards without a model: two candidates that arrange what the card says.

``lead_pair`` is the floor: the card read out. ``salient_pair`` speaks in the persona's voice, orders the features by what they share
with the situation, and chooses among whole sentences until the parts have the asked-for lengths. Neither knows anything that the
card does not say. The judge of such pairs is in `qaeval_floor.pair_judge`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import combinations, product
from typing import Final

from qaeval.text.lexicon import word_set
from qaeval.text.units import content_words, named_terms
from qaeval_floor import pair_phrases as say
from qaeval_floor.pair_judge import judge_pair
from qaeval_floor.reckoning import Reckoning, reckoned
from qaeval_floor.topic_card import Card, Feature, from_json

__all__ = ["judge_pair", "lead_pair", "salient_pair"]

_PROMPT, _CHOSEN, _REJECTED = (80, 120), (250, 300), (140, 160)
"""Least and most words of each part."""
_LEAD_REJECTED: Final = 3
_FEW: Final = 8
"""Sentences or features up to which all selections are tried; of more, the first ones."""
_LONG_OPENING: Final = 40
_REASON_WEIGHT: Final = 1.5
_RELATED: Final = 2
"""Content words that a feature and a sentence of the situation must share for the one to be a reason for the other."""

_IDENTIFIER: Final = re.compile(
    r"^--?\w|[_/=@:.]|\w -\w|^[a-z]+[A-Z][a-z]|^[A-Z]\w*(?:-[A-Z]\w*)+$|[a-z][A-Z]\w+[a-z][A-Z]\w+[a-z]$"
    r"|^(?:apt|apt-mark|curl|docker|git|gzip|hf|kubectl|nvidia-ctk|nvidia-smi|pip|systemctl|torchrun)\b"
)
_THING: Final = re.compile(r"^(?:\S+ )+[a-z]+$")
_MASS: Final = re.compile(r"(?:ing|tion|ness|data|ism|s|off|all)$")
_VERBS: Final = word_set(
    "adds allows answers applies assigns averages balances bounds builds calls caps catches changes checks chooses collects combines "
    "compares compiles computes concatenates connects constrains controls converts copies counts creates decides defines describes "
    "disables discards divides does enables ends estimates evicts excludes executes exposes fills finds formats freezes gives groups "
    "guarantees has holds increases is joins keeps lets limits lists listens loads locks logs looks lowers makes marks masks matches "
    "measures merges moves must names opens orders packs passes picks pins places prevents prints processes protects provides puts "
    "quantises quantizes raises reads recomputes records reduces registers rejects removes reorders repeats replaces reports requests "
    "requires resamples restarts restricts returns runs samples saves scales searches selects sends serves sets shards shares shows "
    "sorts splits spreads stands starts states stops stores sums switches takes tells tests tracks trains turns updates uses verifies "
    "waits warns watches wraps writes"
)
_POINTING: Final = re.compile(r"\b(?:it|its|they|them|these|those|since then|then|such)\b", re.IGNORECASE)
_FIRST: Final = re.compile(r"\b(?:it|there) (?:first|before)\b|\bfirst test\b")
_NO_WAY_OUT: Final = re.compile(
    r"\b(?:cannot|nevertheless|drastically|decide|only when|(?:many|several) times|large multiple)\b"
)
_RUN: Final = re.compile(
    r"^(?:apt|apt-mark|curl|docker|git|hf|kubectl|nvidia-ctk|nvidia-smi|pip|systemctl|torchrun)\b"
)
_ADVICE: Final = re.compile(r"^(?:suggesting|recommending|listing|proposing|offering|giving) ")
_ASIDE: Final = re.compile(
    r",? (?:and (?:hoping|trusting|waiting|judging|leaving|reporting|being|looking|naming|giving)|in the hope|as though|without|because|so that|until|whenever)\b.*"
)


def lead_pair(inputs: Mapping[str, str]) -> Mapping[str, str]:
    """Read the card out: its situation, its features with numbers, and the first of them without.

    Lengths, what the card forbids and whether the scenario is possible are not looked at.

    Raises:
        ValueError: the card has no situation.
    """
    card = from_json(inputs["given"])
    listed = [f"{feature.name}: {feature.about}" for feature in card.features] or [card.situation]
    return {
        "prompt": f"{card.situation} What should be done?",
        "chosen": "\n".join(f"{place}. {line}" for place, line in enumerate(listed, 1)),
        "rejected": " ".join(listed[:_LEAD_REJECTED]),
    }


def salient_pair(inputs: Mapping[str, str]) -> Mapping[str, str]:
    """Arrange the card as the pair that is asked for, as far as that goes without understanding it.

    Raises:
        ValueError: the card has no situation.
    """
    card = from_json(inputs["given"])
    reckoning = reckoned(card) if card.type == "impossible" else None
    return {
        "prompt": _fitting(_prompts(card), _PROMPT),
        "chosen": _fitting(_chosen(card, reckoning), _CHOSEN),
        "rejected": _fitting(_rejected(card), _REJECTED),
    }


def _prompts(card: Card) -> Iterator[str]:
    """Whole sentences of the situation, fewer if there are too many, and a request."""
    told = card.told("I")
    person = _person(card.persona)
    ask = _pick(say.ASKS, card, "ask")
    also = [_one(say.ALSO, card, "also"), *say.ALSO]
    for length in range(len(told), 0, -1):
        for some in combinations(told, length) if len(told) <= _FEW else [told[:length]]:
            for n in range(3):
                yield _joined(person, *some, ask, *dict.fromkeys(also[:n]))
    yield _joined(person, ask)


def _chosen(card: Card, reckoning: Reckoning | None) -> Iterator[str]:
    """Openings, steps and closings in falling order of what they hold."""
    told = card.told("you")
    opening = _opening(card, told)
    ranked = _ranked(card)
    reasons = {} if reckoning else _reasons(ranked, [one for one in told if one != opening], card)
    order = _pick(say.ORDER, card, "order")
    head = (
        [_joined(opening, *reckoning.verdict), _joined(*reckoning.way_out, order)]
        if reckoning
        else [_joined(opening, order)]
    )
    mistake = _gerund(card.mistake)
    warning = (
        _phrased(say.WARY, _ADVICE.sub("", mistake), card)
        if reckoning
        else _phrased(say.AVOID, mistake, card)
    )
    check = _one(say.CLOSING, card, "closing").format(_first_lower(card.check, card)) if card.check else ""
    extra = _one(say.PATIENCE, card, "patience")
    sizes = product(range(len(ranked), 2, -1), range(len(reasons), -1, -1), (True, False))
    for n, n_reasons, more in sorted(
        sizes, key=lambda size: (size[0] + _REASON_WEIGHT * size[1], size[2]), reverse=True
    ):
        kept = dict(list(reasons.items())[:n_reasons])
        steps = _numbered(ranked[:n], kept, card)
        yield _paragraphs(*head, steps, _joined(warning, extra if more else ""), check)
    yield _paragraphs(*head, _numbered(ranked, {}, card), warning, check)


def _rejected(card: Card) -> Iterator[str]:
    """A sound answer of less: fewer features, what they do without when and why, and the weaker approach as a start."""
    told = card.told("you")
    ranked = _ranked(card)
    plain = _pick(say.PLAIN, card, "plain")
    if card.type == "impossible":
        soft = _one(say.SMALLER, card, "smaller")
    else:
        soft = _phrased(say.ENOUGH, _softened(_gerund(card.mistake)), card)
    endings = [_one(say.ADJUST, card, "adjust"), _one(say.ENOUGH_SAID, card, "said")]
    first = _opening(card, told)
    openings = [*dict.fromkeys([first, *(one for one in told if not _POINTING.search(one)), ""])]
    for brief, n, opening, ending in product((True, False), (4, 3, 5, 2), openings[:_FEW], (2, 1)):
        for some in combinations(ranked[:_FEW], n):
            named = [_mention(feature, card, brief=brief) for feature in some]
            yield _paragraphs(_joined(opening, plain), _joined(*named), _joined(soft, *endings[:ending]))
    named = [_mention(feature, card, brief=False) for feature in ranked]
    yield _joined(*told, plain, *named, soft, *endings)


def _opening(card: Card, told: Sequence[str]) -> str:
    """Return the sentence of the situation that can stand first: of the persona, without a pronoun for what came before."""
    subject = set(content_words(f"{card.title} {card.check}"))

    def value(one: str) -> tuple[bool, bool, int]:
        own = re.search(r"\byour?\b", one, re.IGNORECASE) is not None and len(one.split()) <= _LONG_OPENING
        return one == told[0] or not _POINTING.search(one), own, len(subject & set(content_words(one)))

    return max(told, key=value, default="")


def _ranked(card: Card) -> list[Feature]:
    """Order the features: first what says so of itself, then by the share of their own words that the rest of the card has.

    Of an impossible wish what leads out of it comes first, in the card's order. What must not be mentioned is left out.
    """
    features = [one for one in card.features if not card.bans(_said(one))]
    rest = set(content_words(f"{card.situation} {card.title} {card.check} {card.mistake}"))
    words = {feature: set(content_words(_said(feature))) for feature in features}
    often = Counter(word for own in words.values() for word in own)

    def value(feature: Feature) -> tuple[bool, float]:
        if card.type == "impossible":
            return not _NO_WAY_OUT.search(feature.about), 0.0
        shared = sum(1 / often[word] for word in words[feature] & rest)
        return _FIRST.search(feature.about) is not None, shared / (
            sum(1 / often[word] for word in words[feature]) or 1.0
        )

    return sorted(features, key=value, reverse=True)


def _reasons(ranked: Sequence[Feature], told: Sequence[str], card: Card) -> dict[str, str]:
    """Find for each sentence of the situation the feature that it is a reason for, the closest first."""
    shared = sorted(
        (
            (len(set(content_words(_said(feature))) & set(content_words(one))), -place, feature, one)
            for place, feature in enumerate(ranked)
            for one in told
            if not re.search(r"\bbecause\b|;|^Since then\b", one)
        ),
        key=lambda entry: entry[:2],
        reverse=True,
    )
    found: dict[str, str] = {}
    used: set[str] = set()
    for n, _, feature, one in shared:
        if n >= _RELATED and feature.name not in found and one not in used:
            start = say.MATTERS[(_number(card, "matters") + len(found)) % len(say.MATTERS)]
            found[feature.name] = f"{start} {_first_lower(re.sub(r'^(?:Then|But|And|So),? ', '', one), card)}"
            used.add(one)
    return found


def _numbered(features: Sequence[Feature], reasons: Mapping[str, str], card: Card) -> str:
    return "\n".join(
        f"{place}. {_joined(_step(feature, card), reasons.get(feature.name, ''))}"
        for place, feature in enumerate(features, 1)
    )


def _step(feature: Feature, card: Card) -> str:
    """Name a feature and say what its card says of it, as a sentence."""
    name = _name(feature)
    start = "Run " if _RUN.match(feature.name) else "Use " if feature.name.startswith("--") else ""
    return _closed(f"{start}{name if start else _capital(name)}: {_clause(feature.about, card)}")


def _mention(feature: Feature, card: Card, *, brief: bool) -> str:
    """Say what a feature does in running text; brief: without the part after the semicolon."""
    about = feature.about.partition(";")[0] if brief else feature.about
    name = _name(feature)
    first, _, rest = about.partition(" ")
    if first.casefold() not in _VERBS:
        return _closed(f"{_capital(name)}: {_first_lower(about, card)}")
    if _THING.match(name) and not _MASS.search(name):
        name = f"the {name}"
    return _closed(f"{_capital(name)} {first.casefold()} {rest}")


def _clause(about: str, card: Card) -> str:
    first, _, rest = about.partition(" ")
    return f"it {first.casefold()} {rest}" if first.casefold() in _VERBS else _first_lower(about, card)


def _name(feature: Feature) -> str:
    return f"`{feature.name}`" if _IDENTIFIER.search(feature.name) else feature.name


def _said(feature: Feature) -> str:
    return f"{feature.name} {feature.about}"


def _person(persona: str) -> str:
    if not persona:
        return ""
    article = (
        "the"
        if persona.startswith(("sole ", "only "))
        else "an"
        if re.match(r"[aeioAEIOU](?!ne)", persona)
        else "a"
    )
    return f"I am {article} {persona}."


def _gerund(mistake: str) -> str:
    """Return "starting the server" where the card says "Starting the server."; empty where it says it in another form."""
    return mistake[0].lower() + mistake[1:].rstrip(".") if re.match(r"[A-Z][a-z]+ing\b", mistake) else ""


def _softened(mistake: str) -> str:
    """Leave out of a weaker approach what makes it a caricature: hopes, reasons and omissions."""
    kept = _ASIDE.sub("", mistake)
    return kept if kept == mistake else re.sub(r", (?=\w+ing\b)", " and ", kept)


def _phrased(phrases: Sequence[str], content: str, card: Card) -> str:
    return _one(phrases, card, phrases[0]).format(content) if content else ""


def _first_lower(text: str, card: Card) -> str:
    """Let a sentence continue another one: its first letter small, unless it begins with a name."""
    first, _, rest = text.partition(" ")
    names = _names("\n\n".join([card.situation, *(feature.about for feature in card.features)]))
    plain = re.fullmatch(r"[A-Z][a-z]*(?:-[a-z]+)*[,:]?", first) and first not in names and first != "I"
    return text[0].lower() + text[1:] if plain and not re.match(r"[A-Z][a-z]", rest) else text


@lru_cache(maxsize=16)
def _names(text: str) -> frozenset[str]:
    return frozenset(named_terms(text))


def _pick(phrases: Mapping[str, Sequence[str]], card: Card, salt: str) -> str:
    return _one(phrases.get(card.type, phrases["howto"]), card, salt)


def _one(phrases: Sequence[str], card: Card, salt: str) -> str:
    return phrases[_number(card, salt) % len(phrases)]


def _number(card: Card, salt: str) -> int:
    return int.from_bytes(
        sha256(f"{salt}\0{card.title or card.situation}".encode(errors="replace")).digest()[:4], "big"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _closed(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence.rstrip(' :')}."


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _fitting(texts: Iterable[str], band: tuple[int, int]) -> str:
    """Return the first text whose number of words is within a band, or else the nearest to it."""
    least, most = band
    nearest, distance = "", -1
    for text in texts:
        n = len(text.split())
        off = max(least - n, n - most, 0)
        if not off:
            return text
        if text and (distance < 0 or off < distance):
            nearest, distance = text, off
    return nearest
