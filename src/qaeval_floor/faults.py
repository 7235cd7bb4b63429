"""What can be found wrong with a question/answer pair without understanding it: support, form of the question, references.

Each function looks for one kind of fault and returns a `Fault` for every one that it finds. How much a kind weighs
is decided by the judges, in `qaeval_floor.lexical` and `qaeval_floor.answers`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from types import MappingProxyType
from typing import Final, Literal

from qaeval.text.units import content_words, named_terms, numbers, sentences, units, words
from qaeval_floor.lexicon import NEGATIONS

Kind = Literal[
    "invented",
    "unsupported",
    "partly",
    "negation",
    "unanswerable",
    "unrelated",
    "uncompared",
    "no reason",
    "no number",
    "no date",
    "unfinished",
    "example",
    "leans on text",
    "vague",
    "cut topic",
    "pronoun",
    "reference",
    "speculation",
]

FLAWS: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        "invented": "unsupported",
        "unsupported": "unsupported",
        "partly": "unsupported",
        "speculation": "unsupported",
        "negation": "wrong",
        "unanswerable": "off-question",
        "unrelated": "off-question",
        "uncompared": "omission",
        "no reason": "omission",
        "no number": "omission",
        "no date": "omission",
        "unfinished": "format",
        "example": "wording",
        "leans on text": "question",
        "vague": "question",
        "cut topic": "question",
        "pronoun": "wording",
        "reference": "wording",
    }
)
"""The flaw of the shipped rubrics to which a kind of fault belongs."""

SUPPORTED: Final = 0.8
"""A sentence with at least this share of its content words in one place of the source is supported."""
INVENTED: Final = 0.5
"""Below this share it is invented; between the two it is partly supported."""
ANSWERABLE: Final = 0.5
"""Share of the question's content words that the source must hold."""

STOCK: Final = re.compile(
    r"\b(?:(?:the|this) (?:text|passage|chunk|document) (?:say|says|state|states|describe|describes|compare|compares)"
    r"|(?:based on|according to|in) the (?:text|passage)|der Text|laut Text)\b",
    re.IGNORECASE,
)
CONTRAST: Final = re.compile(
    r"\b(?:than|whereas|while|unlike|instead|rather|versus|compared|contrast|differ\w*|but|however"
    r"|während|sondern|anders|dagegen)\b",
    re.IGNORECASE,
)
_SPECULATION: Final = re.compile(
    r"\b(?:probably|presumably|perhaps|maybe|might|vermutlich|vielleicht)\b", re.IGNORECASE
)
_COMPARING: Final = re.compile(
    r"\bcompar\w*|\bdiffer\w*|\bversus\b|\bunlike\b|\bVergleich\b|\bunterscheide\w*", re.IGNORECASE
)
_DIFFER: Final = re.compile(r"\bdiffer\w*|\bunterscheide\w*", re.IGNORECASE)
"""How two things differ is also said by describing both."""
_SIDES: Final = re.compile(
    r"\s(?:compared with|compared to|compare with|compare to|versus|and|from|im Vergleich zu|und|von)\s"
)
_REASON: Final = re.compile(
    r"\b(?:because|since|as|so|due|therefore|thus|to|for|which|weil|da|denn|damit|um|deshalb)\b|:",
    re.IGNORECASE,
)
_DATE: Final = re.compile(
    r"\d|\b(?:when|if|after|before|while|until|once|as soon|during|wenn|nach|vor|bis|sobald|während)\b",
    re.IGNORECASE,
)
_VAGUE: Final = re.compile(
    r"(?:What is true of|What characteri[sz]es|How are .* related|What about|Tell me about|What else|Was gilt für"
    r"|Was kennzeichnet|Wie hängen .* zusammen)\b",
    re.IGNORECASE,
)
_EXAMPLE: Final = re.compile(r"(?:Consider|Take|Suppose|Imagine|Assume|Nehmen wir|Angenommen)\b")
_UNFINISHED: Final = re.compile(r"(?:\b(?:is|are|the|of|and|or|with|to|ist|sind|der|die|das|und)|[:,;=(-])$")
_PRONOUN: Final = re.compile(r"\b(?:it|they|them|he|she|es|sie|dafür|damit|davon)\b", re.IGNORECASE)
_REFERENCE: Final = re.compile(
    r"\b(?:this|these|those|both|its|their|following|previous|below|above|dies\w*|beide\w*|ihr\w*)\b",
    re.IGNORECASE,
)
_ELSEWHERE: Final = re.compile(
    r"\b(?:such an?|the same|that (?:day|case|time)|all other|of this kind|solch\w*|de[rmns]selben)\b",
    re.IGNORECASE,
)
_MUCH_LONGER: Final = 1.6
"""A place of more than so many times the words of a sentence may hold a clause of its own that is negated."""
_EARLY: Final = 8
"""Words at the beginning of an answer among which a pronoun has no noun of its own yet."""


@dataclass(frozen=True, slots=True)
class LexicalGrade:
    """The letter of a lexical judge, with what led to it."""

    letter: str
    hallucination: bool
    """Whether something is stated as fact that nothing supports."""
    reason: str
    flaw: str = ""
    """The rubric's class of the gravest fault; empty for an A."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a pair or an answer."""

    kind: Kind
    text: str
    """For a reader; names the words in question."""


def faults(source: str, question: str, answer: str) -> list[Fault]:
    """Everything that is found wrong with a pair, the gravest kinds first.

    Args:
        source: The text that the pair was written from, not blank.
        question: The question, not blank.
        answer: The answer, not blank, that is not an honest refusal.
    """
    return [
        *_invented(source, answer),
        *_support(source, answer),
        *_negated(source, answer),
        *_answered(source, question, answer),
        *_form(answer),
        *question_faults(question),
        *_topic(source, question),
        *_references(source, question, answer),
    ]


def question_faults(question: str) -> Iterator[Fault]:
    """Say what keeps a question from standing alone, whatever its answer."""
    if STOCK.search(question):
        yield Fault("leans on text", "the question refers to the text instead of standing alone")
    if vague := _VAGUE.match(question):
        yield Fault("vague", f"the question is vague: {vague.group()!r}")


def _invented(source: str, answer: str) -> Iterator[Fault]:
    source_numbers = set(numbers(source))
    present = {word.casefold() for word in named_terms(source)} | set(words(source))
    for number in numbers(answer):
        if number not in source_numbers:
            yield Fault("invented", f"number {number!r} does not stand in the source")
    for name in named_terms(answer):
        if not {name.casefold(), *words(name)} & present:
            yield Fault("invented", f"name {name!r} does not stand in the source")


def _support(source: str, answer: str) -> Iterator[Fault]:
    single = sentences(source) or [source]
    # an answer may join two neighbouring sentences, or a list with what leads to it
    places = [*single, *(f"{first} {second}" for first, second in pairwise(single)), *_lists(source)]
    for sentence in sentences(answer):
        share, _ = _best(sentence, places)
        if share < INVENTED:
            yield Fault("unsupported", f"the source does not support {sentence[:80]!r}")
        elif share < SUPPORTED:
            yield Fault("partly", f"the source supports only part of {sentence[:80]!r}")


def _lists(source: str) -> Iterator[str]:
    lead = ""
    for is_list, members in groupby(units(source), key=lambda unit: unit.kind in {"item", "row"}):
        texts = [unit.text for unit in members]
        if is_list:
            yield " ".join([lead, *texts])
        lead = texts[-1]


def _negated(source: str, answer: str) -> Iterator[Fault]:
    single = sentences(source) or [source]
    for sentence in sentences(answer):
        share, place = _best(sentence, single)
        # a short excerpt may leave a negated clause out without turning it round
        alike = len(words(place)) <= _MUCH_LONGER * len(words(sentence))
        if share >= SUPPORTED and alike and _negations(sentence) != _negations(place):
            yield Fault("negation", f"a negation differs from the source: {place[:80]!r}")


def _negations(sentence: str) -> int:
    return sum(word in NEGATIONS or word.endswith("n't") for word in words(sentence)) % 2


def _best(sentence: str, places: Sequence[str]) -> tuple[float, str]:
    words_needed = set(content_words(sentence))
    if not words_needed:
        return 1.0, sentence
    shares = [
        (len(words_needed & set(content_words(place))) / len(words_needed), -len(place), place)
        for place in places
    ]
    share, _, place = max(shares, default=(0.0, 0, ""))
    return share, place


def _answered(source: str, question: str, answer: str) -> Iterator[Fault]:
    bare = STOCK.sub(" ", question)
    question_words = set(content_words(bare))
    shared = question_words & set(content_words(source))
    if question_words and len(shared) / len(question_words) < ANSWERABLE:
        yield Fault("unanswerable", "the question asks for something that the source does not speak of")
    elif question_words and not question_words & set(content_words(answer)):
        yield Fault("unrelated", "the answer shares no word with the question")
    if _COMPARING.search(bare):
        yield from _compared(bare, answer)
    if re.match(r"(?:why|warum|wieso)\b", question, re.IGNORECASE) and not _REASON.search(answer):
        yield Fault("no reason", "the question asks why, the answer gives no reason")
    if re.match(r"(?:how (?:much|many)|wie viele?)\b", question, re.IGNORECASE) and not numbers(answer):
        yield Fault("no number", "the question asks for a number, the answer gives none")
    if re.match(r"(?:when|wann)\b", question, re.IGNORECASE) and not _DATE.search(answer):
        yield Fault("no date", "the question asks when, the answer gives no time and no condition")


def _compared(question: str, answer: str) -> Iterator[Fault]:
    answer_words = set(content_words(answer))
    sides = [side for side in _SIDES.split(question) if content_words(side)]
    absent = [side for side in sides if not set(content_words(side)) & answer_words]
    if absent:
        yield Fault("uncompared", f"the question asks for a comparison, the answer leaves out {absent[0]!r}")
    elif not CONTRAST.search(answer) and not _DIFFER.search(question):
        yield Fault("uncompared", "the question asks for a comparison, the answer compares nothing")


def _form(answer: str) -> Iterator[Fault]:
    if _UNFINISHED.search(answer.rstrip()):
        yield Fault("unfinished", "the answer breaks off")
    if example := _EXAMPLE.match(answer):
        yield Fault("example", f"the answer sets up an example: {example.group()!r}")
    if _SPECULATION.search(answer):
        yield Fault("speculation", "the answer speculates")
    if STOCK.search(answer):
        yield Fault("leans on text", "the answer refers to the text instead of standing alone")


def _topic(source: str, question: str) -> Iterator[Fault]:
    for word in re.findall(r"“(\w+)”|„(\w+)“", question):
        name = "".join(word)
        if name.islower() or re.search(rf"\w-{re.escape(name)}\b", source):
            yield Fault("cut topic", f"the question cuts {name!r} out of its phrase")
            break


def _references(source: str, question: str, answer: str) -> Iterator[Fault]:
    if pronoun := _dangling(source, question, answer):
        yield Fault("pronoun", f"{pronoun!r} refers to nothing in the pair")
    for part in (STOCK.sub(" ", question), answer):
        early = _REFERENCE.search(part)
        if early and len(content_words(part[: early.start()])) > 1:
            early = None  # what it points to may stand before it
        if outside := early or _ELSEWHERE.search(part):
            yield Fault("reference", f"{outside.group()!r} points to something outside of the pair")
            return


def _dangling(source: str, question: str, answer: str) -> str:
    """Return a pronoun at the beginning of the answer whose noun is neither before it nor in the question."""
    pronoun = _PRONOUN.search(" ".join(answer.split()[:_EARLY]))
    if not pronoun:
        return ""
    before = answer[: pronoun.start()]
    if before and not re.match(
        r"(?:in|with|within|to|on|at|where|if|for|when|artikel \d+ verlangt)\b", before, re.IGNORECASE
    ):
        return ""
    single = sentences(source)
    for earlier, sentence in pairwise(single):
        if answer.startswith(sentence[:40]):
            opening = content_words(" ".join(earlier.split()[:6]))[:3]
            return "" if set(opening) & set(content_words(question)) and not before else pronoun.group()
    return pronoun.group() if not before else ""
