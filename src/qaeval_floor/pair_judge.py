"""The lexical judge of preference pairs: letters of ``dpo_pair_abc`` from words, steps and features, with a reason that names them.

It is no language model. It sees whether the chosen answer is about the card's situation, has steps, keeps to the card's features, ends
with a check and says so where a wish is impossible; whether the rejected answer is an answer at all, and another one; and whether the
prompt is a person's. Whether a claim is true or a preference subtle it cannot see.
"""

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

from qaeval.text.units import content_words, sentences
from qaeval_floor.opinion import Opinion
from qaeval_floor.topic_card import Card, from_text

_STEP: Final = re.compile(r"(?:^|\n|(?<=[.!?:]) )\s*(?:step\s*)?\d{1,2}[.):]\s+\S", re.IGNORECASE)
_FIRST_PERSON: Final = re.compile(r"\b(?:I|I['’](?:m|ve|d|ll)|my|me|mine|we|our|ours|us)\b", re.IGNORECASE)
_QUOTED: Final = re.compile(r"`([^`\n]{2,60})`|(?<![\w`-])(--[a-z][a-z0-9-]+)")
_CHECKING: Final = re.compile(
    r"\b(?:verif\w+|confirm\w*|check(?:s|ed)? (?:that|whether|if)|make sure|measur\w+|compar\w+|test\w*|it worked|done when)\b",
    re.IGNORECASE,
)
_CANNOT: Final = re.compile(
    r"\b(?:cannot|can(?:['’]t| not)|won['’]t|impossible|infeasible|unrealistic|unachievable|out of reach|no way|insufficient|exceeds?"
    r"|not (?:be )?(?:possible|feasible|realistic|achievable|enough)|(?:will|does|do|would|could) not (?:fit|work|be|add up|suffice|reach)"
    r"|(?:doesn|don|wouldn|couldn|isn|aren)['’]t (?:fit|work|possible|feasible|enough|add up)|falls? short|far too)\b",
    re.IGNORECASE,
)
_ENDS: Final = (".", "!", "?", ":", ")", "`", '"', "”", "…", "*")

_SHORT, _SHORT_SHARE = 25, 0.25
"""A rejected answer below so many words, or so small a share of the chosen one's, is too short to teach anything."""
_ABSURD: Final = 0.2
"""Below this share of its content words in card, prompt or chosen answer, a rejected answer is about something else."""
_ALIKE: Final = 0.85
_OFF: Final = 0.1
"""Below this share of the situation's words an answer without the card's features is about something else."""
_SILENT, _SILENT_COPY = 0.05, 0.15
"""Share of the words that only the situation has, below which an answer says nothing of it; the second where the features are copied."""
_COPIED: Final = 0.5
_VERBATIM: Final = 0.7
"""Share of the situation's runs of five words that a prompt may repeat."""
_CHECKED: Final = 0.3
_OWN: Final = 0.8
"""A sentence with this share of its words in the feature list is the card's, not the answer's own."""
_RUN: Final = 5
_LEAST_FEATURES: Final = 2
_UNUSABLE: Final = 2


@dataclass(frozen=True, slots=True)
class _Pair:
    card: Card
    prompt: str
    chosen: str
    rejected: str


def judge_pair(source: str, prompt: str, chosen: str, rejected: str) -> Opinion:
    """Grade a preference pair against the topic card that it was written from.

    Args:
        source: the card as text.
        prompt: what the persona asks.
        chosen: the answer that is to be preferred.
        rejected: the other one.

    Raises:
        ValueError: the card is blank, so that nothing can be checked.
    """
    if not source.strip():
        raise ValueError("the source is blank: a pair cannot be checked against no card")
    pair = _Pair(from_text(source), prompt, chosen, rejected)
    if empty := [name for name in ("prompt", "chosen", "rejected") if not getattr(pair, name).strip()]:
        return Opinion("C", hallucination=False, reason=f"empty: {', '.join(empty)}")
    if promise := _granted(pair):
        return Opinion("C", hallucination=True, reason=promise)
    if unusable := list(_unusable(pair)):
        return Opinion("C", hallucination=False, reason="; ".join(unusable))
    of_answers, of_prompt = list(_answer_faults(pair)), list(_prompt_faults(pair))
    if not of_answers and not of_prompt:
        reason = "the chosen answer takes up the situation in steps and ends with a check; the rejected one is a shorter answer to the same"
        return Opinion("A", hallucination=False, reason=reason)
    letter = "C" if len(of_answers) >= _UNUSABLE else "B"
    return Opinion(letter, hallucination=False, reason="; ".join([*of_answers, *of_prompt]))


def _granted(pair: _Pair) -> str:
    """An impossible wish that the chosen answer does not call impossible in a sentence of its own."""
    if pair.card.type != "impossible":
        return ""
    listed = set(content_words(pair.card.named))
    for one in sentences(pair.chosen):
        own = set(content_words(one))
        if _CANNOT.search(one) and len(own & listed) < _OWN * len(own):
            return ""
    return "the scenario is impossible, and the chosen answer does not say that it cannot be done"


def _unusable(pair: _Pair) -> Iterator[str]:
    lengths = len(pair.chosen.split()), len(pair.rejected.split())
    merits = _merits(pair.chosen, pair.card), _merits(pair.rejected, pair.card)
    if merits[0] < merits[1] or (merits[0] == merits[1] and lengths[0] <= lengths[1]):
        yield f"the chosen answer is not the more complete one ({lengths[0]} words and {len(_named(pair.chosen, pair.card))} features, rejected {lengths[1]} and {len(_named(pair.rejected, pair.card))})"
    if lengths[1] < max(_SHORT, _SHORT_SHARE * lengths[0]) and lengths[1] < lengths[0]:
        yield f"the rejected answer is too short to teach anything ({lengths[1]} words)"
    elif not pair.rejected.rstrip().endswith(_ENDS):
        yield f"the rejected answer is cut off: {pair.rejected.rstrip()[-40:]!r}"
    known = set(
        content_words(
            f"{pair.card.situation} {pair.card.named} {pair.card.mistake} {pair.prompt} {pair.chosen}"
        )
    )
    if _share(set(content_words(pair.rejected)), known) < _ABSURD:
        yield "the rejected answer has nothing to do with the situation"
    situation, chosen = set(content_words(pair.card.situation)), set(content_words(pair.chosen))
    if _share(situation, chosen) < _OFF and len(_named(pair.chosen, pair.card)) < min(
        _LEAST_FEATURES, len(pair.card.features) or 1
    ):
        yield f"the chosen answer is about something else than the situation ({', '.join(sorted(chosen - situation)[:4])})"
    rejected = set(content_words(pair.rejected))
    if chosen and len(chosen & rejected) >= _ALIKE * len(chosen | rejected):
        yield f"both answers say nearly the same ({len(chosen & rejected)} of {len(chosen | rejected)} words)"


def _answer_faults(pair: _Pair) -> Iterator[str]:
    card, chosen = pair.card, pair.chosen
    if len(_STEP.findall(chosen)) < _LEAST_FEATURES:
        yield "the chosen answer has no numbered steps"
    told = set(content_words(card.situation)) - set(content_words(card.named))
    copied = _share(_runs(chosen), _runs(card.named))
    said = _share(told, set(content_words(chosen)))
    if card.features and told and said < (_SILENT_COPY if copied >= _COPIED else _SILENT):
        yield "the chosen answer lists features and says nothing of the situation" + (
            f" ({copied:.0%} of it is copied)" if copied >= _COPIED else ""
        )
    if not _ends_with_check(chosen, card):
        yield "the chosen answer does not end with how to see that it worked"
    text = f"{card.situation}\n{card.named}\n{card.mistake}\n{card.check}".casefold()
    for name, part in (("chosen", chosen), ("rejected", pair.rejected)):
        named = [quoted or flag for quoted, flag in _QUOTED.findall(part)]
        foreign = [
            one
            for one in named
            if one.casefold() not in text
            and not any(feature.name.casefold() in one.casefold() for feature in card.features)
        ]
        if foreign and card.features:
            yield f"the {name} answer names {foreign[0]!r}, which is not on the card"
            break
    if banned := card.bans(f"{chosen}\n{pair.rejected}"):
        yield f"an answer mentions {banned!r}, which the card forbids"


def _prompt_faults(pair: _Pair) -> Iterator[str]:
    if not _FIRST_PERSON.search(pair.prompt):
        yield "the prompt is mechanical: nobody speaks in the first person"
    elif (runs := _runs(pair.card.situation)) and _share(runs, _runs(pair.prompt)) > _VERBATIM:
        yield "the prompt is mechanical: it copies the situation"


def _merits(answer: str, card: Card) -> int:
    """Features named, and a point each for steps and for a check at the end."""
    return (
        len(_named(answer, card))
        + (len(_STEP.findall(answer)) >= _LEAST_FEATURES)
        + _ends_with_check(answer, card)
    )


def _named(answer: str, card: Card) -> list[str]:
    return [feature.name for feature in card.features if feature.name.casefold() in answer.casefold()]


def _ends_with_check(answer: str, card: Card) -> bool:
    """Whether the last sentences, those that are copied from the feature list aside, say what to look at."""
    said, listed = sentences(answer), set(content_words(card.named))
    own = [one for one in said[-max(2, len(said) // 4) :] if _share(set(content_words(one)), listed) < _OWN]
    wanted = set(content_words(card.check))
    if wanted and _share(wanted, set(content_words(" ".join(own)))) >= _CHECKED:
        return True
    return any(_CHECKING.search(one) for one in own[-2:])


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1)}


def _share(part: AbstractSet[Any], whole: AbstractSet[Any]) -> float:
    return len(part & whole) / len(part) if part else 1.0
