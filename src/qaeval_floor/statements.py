"""Rules from an English statement to questions; each rule asks only where its form is safe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal

from qaeval_floor import lexicon
from qaeval_floor.english import Clause, decapitalise, short_enough
from qaeval_floor.lexicon import CLAUSE_WORDS, DETERMINERS, PREPOSITIONS

RawQuestion = tuple[str, Literal["factual", "conceptual", "comparison"], float]
"""Text, type and quality of a question, not yet capitalised or ended with a question mark."""

# (?<!\s): a run of white space is read once, not once from each of its characters
_CAUSE = re.compile(
    r"(?:,|(?<!\s))\s+(?:(?:mainly |simply |partly |only )?because|so that|in order to|due to)\s+|,\s+since(?! \d)\s+"
)
_CONDITION = re.compile(
    r"(?:,|(?<!\s))\s+(?:only\s+)?(?:if|when|whenever|once|as soon as|after|before|unless|until)\s+"
)
_NEGATIVE_CONDITION = re.compile(r",?\s+(?:except|unless)\s+")
_MEANS = re.compile(r"(?<!\s)\s+by\s+\w+ing\b")
_TIME = re.compile(
    r"\s(?:in (?:January|February|March|April|May|June|July|August|September|October|November|December)|"
    r"within (?:\d+|two|three|four|five|six|ten|one) (?:minutes?|hours?|(?:working |business )?days?|weeks?|months?)|"
    r"in (?:the year )?1[5-9]\d\d|in 20\d\d|on (?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?|at \d\d?:\d\d|"
    r"between \d\d?:\d\d|on \d\d? (?:January|February|March|April|May|June|July|August|September|October|November|December)|"
    r"(?:on|at) the (?:first|last) (?:day|working day)|at the end of (?:the|each|every) |at (?:midnight|noon|startup|night))\b"
)
_NO_SUBJECT = re.compile(
    r"^(?:\w+ed|not|necessary|possible|needed|in|on|there|so|doubt|any|none|true|false)\b"
)
CONSEQUENCE = re.compile(r"(?:,|;) (?:and )?(?:so|therefore|which is why)(?! that\b),? (.+)$")
_EVERY = re.compile(
    r"(?<!\s)\s+(?:every|once (?:a|per|every)|twice (?:a|per))\s+(?:\d+|two|three|few|other|second|minute|hour|day|week|month|year|night|time)\b"
)
_COUNT = re.compile(
    r"^(?:up to |at least |at most |about |around |exactly |only |roughly )?"
    r"(?:\d[\d,.]*|two|three|four|five|six|seven|eight|nine|ten|twelve) ((?:[a-z-]+ )?[a-z-]+s)\b(?! (?:of|per|long)\b)"
)
_DURATION = re.compile(
    r"^(?:up to |at least |at most |about |around |for |exactly |only |roughly |between \w+ and )*"
    r"(?:\d[\d,.]*(?:(?: to |-|–)\d+)?|two|three|four|five|six|ten|a|an|one) (?:second|minute|hour|day|week|month|year|millisecond)s?\b"
)
_LASTING = re.compile(
    r"^(?:(\w+ed|kept|held|valid|available) )?for (?:up to |at least |at most |about |exactly |only )?"
    r"(?:\d[\d.,]*|two|three|four|five|six|seven|ten|twelve|one) (?:second|minute|hour|day|week|month|year)s?\b"
)
_HEAT = re.compile(r"^(\w+ed|kept|held|grown) (?:between|at|below|above|from) [^.;]{0,25}?\d ?(?:°|degrees)")
_PARTICIPLE = re.compile(
    r"^((?:(?:\w+ly|not|also|always|never) )?(?:\w+ed|\w+en|kept|made|built|set|run|sent|held|read|put|found|lost|bound|shown|known|cut|paid|sold|stored|drawn)) (.+)$"
)
_PLACE = re.compile(
    r"^(?:stored|saved|kept|located|found|written|logged|recorded|shown|listed|placed|held|available|defined|installed|documented) (?:in|on|under|at|inside|near)\b"
)
_IMPERATIVE_STOP = re.compile(r"[:;]")


def conditional(sentence: str) -> Iterator[RawQuestion]:
    """``If X, Y.`` asks what happens; ``To X, do Y.`` asks how."""
    match = re.match(r"^(If|When|Whenever|Once|As soon as|To) ([^,:;]{4,110}), (.+)", sentence)
    if match is None or re.search(r"\b(?:it|they|this|these|them|he|she|such)\b", match.group(2)):
        return
    word, condition = match.group(1), match.group(2)
    if _NO_SUBJECT.match(condition) or re.match(r"\w+ing ", condition):
        return
    if word == "To":
        first = condition.split()[0]
        if first in lexicon.IMPERATIVES:
            yield f"How can you {condition}", "conceptual", 2.0
        return
    result = match.group(3)
    if result.startswith(("and ", "or ", "when ", "if ")):
        return
    yield f"What happens {decapitalise(word, frozenset())} {condition}", "conceptual", 2.2


def imperative(sentence: str) -> Iterator[RawQuestion]:
    """An instruction asks what to do, and when, and for what."""
    match = re.match(r"^(Do not|Don't|Never|Always)?\s*(\w+) (.+)", sentence.rstrip(" .!"))
    if match is None or match.group(2).casefold() not in lexicon.IMPERATIVES or not sentence[0].isupper():
        return
    limit, verb, rest = match.group(1), match.group(2).casefold(), match.group(3)
    following = rest.split()[0].strip("`\"'").casefold()
    determined = following in DETERMINERS or rest[0] in '`"“' or following in {"half", "only", "up"}
    if not determined and not limit and not (verb in {"use", "keep"} and " " in rest):
        return
    if following in {"it", "them", "this", "that", "these"} or _IMPERATIVE_STOP.search(rest):
        return
    negative = limit in {"Do not", "Don't", "Never"}
    cause = _CAUSE.search(rest)
    if cause and short_enough(rest[: cause.start()]):
        yield (
            f"Why should you {'not ' if negative else ''}{verb} {rest[: cause.start()]}",
            "conceptual",
            2.5,
        )
    if negative:
        if verb not in lexicon.INTRANSITIVE:
            yield f"What should you {'never' if limit == 'Never' else 'not'} {verb}", "factual", 1.2
        return
    purpose = re.search(r" to (\w+) ([^,;:]{3,80})$", rest)
    if verb == "use" and purpose and purpose.group(1) in lexicon.IMPERATIVES:
        yield f"What should you use to {purpose.group(1)} {purpose.group(2)}", "factual", 2.2
        return
    when = re.search(r" (?:before|after|when|if|once|until|unless) ", rest)
    if when and short_enough(rest[: when.start()]):
        yield f"When should you {verb} {rest[: when.start()]}", "factual", 2.0


def _why(clause: Clause) -> Iterator[RawQuestion]:
    cause = _CAUSE.search(" " + clause.rest)
    head = (" " + clause.rest)[: cause.start()].strip(" ,") if cause else ""
    if cause and short_enough(head):
        yield clause.ask("why", head), "conceptual", 3.0


def _when(clause: Clause) -> Iterator[RawQuestion]:
    rest = " " + clause.rest
    match = _CONDITION.search(rest)
    if match is None or _CAUSE.search(rest[: match.start()]):
        return
    head = rest[: match.start()].strip(" ,")
    if not short_enough(head) or head.endswith(
        ("even", "not", "and", "or", "shortly", "immediately", "especially", "as")
    ):
        return
    exception = _NEGATIVE_CONDITION.match(match.group())
    opening = (
        "under what circumstances"
        if exception or match.group().strip(" ,") in {"if", "only if"}
        else ("until when" if "until" in match.group() else "when")
    )
    if exception and "not" not in clause.verb.split() and not head.startswith("not "):
        return
    why = exception is not None or match.group().split()[-1] in {"if", "unless"}
    yield clause.ask(opening, head.removesuffix(" only")), "conceptual" if why else "factual", 1.9


def _at_time(clause: Clause) -> Iterator[RawQuestion]:
    rest = " " + clause.rest
    time = _TIME.search(rest)
    head = rest[: time.start()].strip() if time else ""
    if time and short_enough(head) and not re.search(r"[,;]| (?:and|or) ", rest[: time.start()]):
        yield clause.ask("when", head), "factual", 2.4


def _how(clause: Clause) -> Iterator[RawQuestion]:
    rest = " " + clause.rest
    every, means = _EVERY.search(rest), _MEANS.search(rest)
    if every and short_enough(rest[: every.start()]) and "," not in rest[: every.start()]:
        yield clause.ask("how often", rest[: every.start()].strip(" ,")), "factual", 2.8
    if means and clause.aux not in {"may", "might", "must"} and short_enough(rest[: means.start()]):
        head = rest[: means.start()].strip(" ,")
        if "," not in head and not head.startswith("not "):
            yield clause.ask("how", head), "conceptual", 2.3


def _quantity(clause: Clause) -> Iterator[RawQuestion]:
    verb = clause.verb.split()[-1] if clause.verb else ""
    counted = _COUNT.match(clause.rest)
    lasting = _LASTING.match(clause.rest)
    heat = _HEAT.match(clause.rest)
    if lasting and verb not in {"is", "wait", "have"}:
        yield clause.ask("how long", lasting.group(1) or ""), "factual", 2.6
    elif heat and not clause.verb and clause.aux in lexicon.BE:
        yield clause.ask("at what temperature", heat.group(1)), "factual", 2.6
    elif verb in {"take", "last", "wait"} and _DURATION.match(clause.rest):
        yield clause.ask("how long"), "factual", 2.8
    elif verb == "cost" and re.match(r"^(?:about |around )?(?:[€$£]|\d)", clause.rest):
        yield clause.ask("how much"), "factual", 2.8
    elif (
        verb
        and counted
        and counted.group(1).split()[-1] not in lexicon.UNIT_NOUNS
        and "not" not in clause.verb
    ):
        yield clause.ask(f"how many {counted.group(1)}"), "factual", 2.7


def _what_is(clause: Clause) -> Iterator[RawQuestion]:
    if clause.verb or clause.aux not in lexicon.BE:
        return
    first = clause.rest.split()[0].strip("`\"'“").casefold()
    pair = " ".join(clause.rest.casefold().replace(",", "").split()[:2])
    participle = _PARTICIPLE.match(clause.rest)
    purpose = pair in {"used to", "used for", "meant to", "meant for", "designed for", "intended for"}
    if _PLACE.match(clause.rest):
        yield clause.ask("where", clause.rest.split()[0]), "factual", 2.5
    elif purpose:
        yield clause.ask("what", f"{pair.split()[0]} for"), "conceptual", 2.4
    elif pair.replace(" ", "-") in lexicon.STRANDED:
        yield clause.ask("what", pair), "factual", 2.3
    elif first in {"a", "an", "the", "one"} or first[:1].isdigit() or clause.rest[0] in '`“"$€':
        lower_bound = 2.9 if first in {"a", "an"} else 2.5
        yield clause.ask("who" if clause.subject == "you" else "what"), "factual", lower_bound
    elif participle and re.search(r"^(?:with|using|through|via)\b", participle.group(2)):
        yield clause.ask("how", participle.group(1)), "conceptual", 1.8
    elif (
        participle is None
        and first not in PREPOSITIONS | CLAUSE_WORDS | {"not", "never"}
        and not first.endswith("ing")
    ):
        yield f"what characterises {clause.subject}", "factual", 0.9


def _what_does(clause: Clause) -> Iterator[RawQuestion]:
    words = clause.verb.split()
    if not words or not clause.rest or "not" in words or words[0] in {"been", "be"} or "be" in words:
        return
    verb = words[-1]
    first = clause.rest.split()[0].strip("`\"'“").casefold()
    if verb == "take" and first in {"effect", "place", "part", "care", "over"}:
        return
    stranded = lexicon.GOVERNED_PREPOSITION.get(verb)
    if stranded == first:
        yield clause.ask("what", stranded), "factual", 2.2
    elif clause.aux in {"must", "should", "can"} and clause.subject != "you":
        yield (
            " ".join(part for part in ("what", clause.aux, clause.subject, "do", clause.adjunct) if part),
            "factual",
            1.8,
        )
    elif verb in lexicon.VERBS | {"have"} and verb not in lexicon.INTRANSITIVE:
        objects = (
            first in DETERMINERS
            or first[:1].isdigit()
            or (first not in PREPOSITIONS | CLAUSE_WORDS | {"to"} and not first.endswith("ly"))
        )
        if objects and clause.aux in {"do", "does", "will"}:
            effect = verb in lexicon.EFFECTS
            yield clause.ask("what"), "conceptual" if effect else "factual", 2.0 if effect else 2.1


def _required(clause: Clause) -> Iterator[RawQuestion]:
    if (
        clause.aux in {"must", "should"}
        and clause.verb.startswith(("be ", "not be "))
        and clause.subject != "you"
    ):
        yield (
            f"what is required of {clause.subject}"
            if clause.aux == "must"
            else f"what is recommended for {clause.subject}",
            "factual",
            1.6,
        )


RULES: tuple[Callable[[Clause], Iterator[RawQuestion]], ...] = (
    _why, _when, _at_time, _how, _quantity, _what_is, _what_does, _required,
)  # fmt: skip
