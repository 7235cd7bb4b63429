"""The lexical judge: letters from words, numbers, names and negation, with a reason that names what it found.

It is no language model and does not read the rubric's prose. It knows the scale A/B/C of ``qa_pair_abc`` and looks for
what can be seen without understanding: whether the source supports each sentence of the answer, whether a number or a
name was invented, whether a negation was lost, whether the answer has the form that the question asks for, and whether
the pair can stand alone.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from qaeval.text.units import content_words, sentences
from qaeval_floor.faults import CONTRAST, FLAWS, STOCK, Fault, Kind, LexicalGrade, faults, question_faults

WEIGHTS: Final[Mapping[Kind, float]] = MappingProxyType(
    {
        "invented": 2,
        "unsupported": 2,
        "negation": 2,
        "unanswerable": 2,
        "unrelated": 2,
        "uncompared": 2,
        "unfinished": 2,
        "partly": 1,
        "no reason": 1,
        "no number": 1,
        "no date": 1,
        "example": 1,
        "leans on text": 1,
        "vague": 1,
        "cut topic": 1,
        "pronoun": 1,
        "reference": 1,
        "speculation": 1,
    }
)
"""From a sum of 1 a pair is B, from 2 it is C: a fault that makes a pair unusable weighs 2, a minor one 1.

The rubric suggests these; ``tools/tune_lexical.py`` finds no others that agree better with the tuning half of the labels.
"""

_REFUSAL: Final = re.compile(
    r"\b(?:text|passage|source) does not (?:say|state|mention|compare)|\bText (?:sagt|nennt|vergleicht)\b.*\bnicht",
    re.IGNORECASE,
)
_HALLUCINATION: Final[frozenset[Kind]] = frozenset({"invented", "unsupported"})
_MINOR, _UNUSABLE = 1, 2


def judge(
    source: str, question: str, answer: str, *, weights: Mapping[Kind, float] = WEIGHTS
) -> LexicalGrade:
    """Grade a question/answer pair against its source.

    Raises:
        ValueError: the source is blank, so that nothing can be checked.
    """
    if not source.strip():
        raise ValueError("the source is blank: an answer cannot be checked against nothing")
    if not answer.strip() or not question.strip():
        return LexicalGrade(
            "C", hallucination=False, reason="the question or the answer is empty", flaw="format"
        )
    if _REFUSAL.search(answer):
        return _refusal(source, question, weights)
    return _grade(faults(source, question, answer), weights)


def _grade(present: list[Fault], weights: Mapping[Kind, float]) -> LexicalGrade:
    # several faults of one kind are one fault: a long answer is not worse than a short one
    total = sum(weights[kind] for kind in {fault.kind for fault in present})
    named = [fault for fault in present if weights[fault.kind] > 0]
    if total < _MINOR:
        return LexicalGrade(
            "A",
            hallucination=False,
            reason="every sentence of the answer stands in the source and answers the question",
        )
    unusable = total >= _UNUSABLE
    return LexicalGrade(
        "C" if unusable else "B",
        hallucination=unusable and any(fault.kind in _HALLUCINATION for fault in named),
        reason="; ".join(fault.text for fault in named),
        flaw=FLAWS[max(named, key=lambda fault: weights[fault.kind]).kind],
    )


def _refusal(source: str, question: str, weights: Mapping[Kind, float]) -> LexicalGrade:
    question_words = set(content_words(STOCK.sub(" ", question)))
    compared = [
        sentence
        for sentence in sentences(source)
        if CONTRAST.search(sentence) and question_words & set(content_words(sentence))
    ]
    if compared:
        return LexicalGrade(
            "C",
            hallucination=False,
            reason=f"the answer finds no comparison, but the source has one: {compared[0][:80]!r}",
            flaw="omission",
        )
    grade = _grade(list(question_faults(question)), weights)
    return LexicalGrade(
        grade.letter, hallucination=False, reason=f"an honest refusal; {grade.reason}", flaw=grade.flaw
    )
