"""Answers from a given context without a model: two candidates that quote, and the lexical judge of their answers."""

import re
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from math import fsum, log
from typing import Any, Final

from qaeval.checks.answers import refuses
from qaeval.text.units import content_words, is_german, numbers, sentences
from qaeval_floor.faults import FLAWS, STOCK, LexicalGrade, faults

REFUSE_BELOW: Final = 0.35
"""Weighted share of the question's words that one place of the passage must hold for the candidate to answer."""
ANSWERABLE: Final = 0.65
"""Share of the question's words that the whole text must hold for the judge to take the question as answerable."""
_ASKS_NUMBER: Final = re.compile(
    r"\b(?:how (?:much|many|long|large|fast)|(?:by|with|at) (?:what|which) (?:factor|rate|share)|wie (?:viele?|lange|hoch|groß))\b",
    re.IGNORECASE,
)
_ASKS_AMOUNT: Final = re.compile(
    r"\b(?:how (?:much|many|long|large|fast)|wie (?:viele?|lange|hoch|groß))\b", re.IGNORECASE
)
_CONTEXT_WEIGHT: Final = 0.3
"""Weight of words that only the sentence before has: a pronoun may stand for them."""
_NUMBER_BONUS: Final = 0.1
"""Decides between sentences that hold the question alike where it asks for an amount."""
_OFF_TOPIC: Final = 0.3
"""An answer with less than this share of the question's words is about something else."""

_DEPARTMENTS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    (
        "legal",
        re.compile(
            r"\b(?:licen[cs]e\w*|gdpr|dsgvo|law|article|artikel|personal data|recht\w*|gesetz\w*)\b",
            re.IGNORECASE,
        ),
    ),
    (
        "finance",
        re.compile(r"\b(?:cost\w*|pric\w*|dollar\w*|euro\w*|bill\w*|kosten|preis\w*)\b", re.IGNORECASE),
    ),
    (
        "data",
        re.compile(
            r"\b(?:data ?set\w*|label\w*|training data|duplicat\w*|chunk\w*|kappa|judge\w*|daten\w*)\b",
            re.IGNORECASE,
        ),
    ),
    (
        "platform",
        re.compile(r"\b(?:kubernetes|pod\w*|deployment\w*|probe\w*|node\w*|cluster\w*)\b", re.IGNORECASE),
    ),
)
_CATEGORIES: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    (
        "comparison",
        re.compile(
            r"\b(?:compar\w*|differ\w*|than|versus|instead|vergleich\w*|unterschied\w*)\b", re.IGNORECASE
        ),
    ),
    ("problem", re.compile(r"\b(?:fail\w*|error\w*|wrong|broken|slow|crash\w*|fehler\w*)\b", re.IGNORECASE)),
    (
        "how-to",
        re.compile(r"^\s*(?:how (?:do|can|should|to)|wie (?:kann|soll|richte|stelle))\b", re.IGNORECASE),
    ),
    (
        "fact",
        re.compile(
            r"^\s*(?:what|which|who|when|how (?:much|many|long|large)|was|welche\w*|wer|wann|wie viel\w*)\b",
            re.IGNORECASE,
        ),
    ),
)


def lead_answer(inputs: Mapping[str, str]) -> Mapping[str, Any]:
    """Answer with the first sentence that shares a word with the question; never refuse."""
    source, question = inputs["chunk"], inputs["question"]
    question_words = set(content_words(question))
    candidates = sentences(source) or [source]
    return {
        "answer": next(
            (sentence for sentence in candidates if question_words & set(content_words(sentence))),
            candidates[0],
        ),
        "ticket": {"priority": "normal", "category": "other", "department": "operations"},
    }


def salient_answer(inputs: Mapping[str, str]) -> Mapping[str, Any]:
    """Answer with the sentence that holds most of the question, rare words counted more; refuse where none holds enough."""
    source, question = inputs["chunk"], inputs["question"]
    share, sentence = best_sentence(source, question)
    if share >= REFUSE_BELOW:
        answer = sentence
    elif is_german(question):
        answer = "Dazu sagt der Abschnitt nichts."
    else:
        answer = "The passage does not say that."
    return {"answer": answer, "ticket": _ticket(question)}


def _ticket(question: str) -> dict[str, str]:
    return {
        "priority": "high"
        if re.search(r"\b(?:fail|crash|lost|urgent|breach)\w*", question, re.IGNORECASE)
        else "normal",
        "category": next((name for name, pattern in _CATEGORIES if pattern.search(question)), "other"),
        "department": next(
            (name for name, pattern in _DEPARTMENTS if pattern.search(question)), "operations"
        ),
    }


def best_sentence(source: str, question: str) -> tuple[float, str]:
    """Find the sentence that holds most of a question.

    Returns:
        The weighted share of the question's words that the sentence and the one before it hold, and the sentence.
    """
    candidates = sentences(source) or [source]
    weights = _weights(candidates, question)
    # fsum: the order of a set of words differs from process to process, and a rounded sum with it
    total = fsum(weights.values()) or 1.0
    asks_number = _ASKS_AMOUNT.search(question)
    best = (0.0, 0.0, candidates[0])
    for previous, sentence in pairwise(["", *candidates]):
        words, words_before = set(content_words(sentence)), set(content_words(previous))
        share = fsum(weight for word, weight in weights.items() if word in words) / total
        context_share = (
            fsum(weight for word, weight in weights.items() if word in words | words_before) / total
        )
        value = share + _CONTEXT_WEIGHT * (context_share - share)
        value += _NUMBER_BONUS if asks_number and numbers(sentence) else 0.0
        best = max(best, (value, context_share, sentence), key=lambda entry: entry[0])
    return best[1], best[2]


def _weights(candidates: list[str], question: str) -> dict[str, float]:
    """Weigh each word of the question by its rarity among the sentences; a word of no sentence weighs like a word of one."""
    counts = Counter(word for sentence in candidates for word in set(content_words(sentence)))
    return {
        word: log((len(candidates) + 1) / (max(1, counts[word]) + 0.5))
        for word in set(content_words(STOCK.sub(" ", question)))
    }


def judge_answer(source: str, question: str, answer: str) -> LexicalGrade:
    """Grade an answer from a given context.

    Raises:
        ValueError: the source is blank, so that nothing can be checked.
    """
    if not source.strip():
        raise ValueError("the source is blank: an answer cannot be checked against nothing")
    question_words = set(content_words(STOCK.sub(" ", question)))
    missing = question_words - set(content_words(source))
    is_answerable = len(missing) <= (1 - ANSWERABLE) * len(question_words)
    if refuses(answer):
        return _refusal(is_answerable=is_answerable)
    answer_faults = [fault for fault in faults(source, question, answer) if fault.kind in _OF_ANSWERS]
    if invented := [fault for fault in answer_faults if fault.kind in {"invented", "unsupported"}]:
        reason = "; ".join(fault.text for fault in invented)
        return LexicalGrade("C", hallucination=True, reason=reason, flaw="unsupported")
    shared = question_words & set(content_words(answer))
    reason = flaw = ""
    if not is_answerable:
        reason = (
            f"the text does not speak of {', '.join(sorted(missing)[:4])}, and the answer does not say so"
        )
        flaw = "off-question"
    elif question_words and len(shared) / len(question_words) < _OFF_TOPIC:
        reason, flaw = "the answer is about something else than the question", "off-question"
    elif _ASKS_NUMBER.search(question) and not numbers(answer):
        reason, flaw = "the question asks for a number, the answer gives none", "omission"
    elif missed := [fault for fault in answer_faults if fault.kind in _UNUSABLE]:
        reason, flaw = missed[0].text, FLAWS[missed[0].kind]
    if reason:
        return LexicalGrade("C", hallucination=False, reason=reason, flaw=flaw)
    if answer_faults:
        letter = "B" if len(answer_faults) == 1 else "C"
        reason = "; ".join(fault.text for fault in answer_faults)
        flaw = FLAWS[answer_faults[0].kind]
        return LexicalGrade(letter, hallucination=False, reason=reason, flaw=flaw)
    reason = "the answer stands in the text and has the words of the question"
    return LexicalGrade("A", hallucination=False, reason=reason)


def _refusal(*, is_answerable: bool) -> LexicalGrade:
    if is_answerable:
        reason = "the answer declines, but the text speaks of what is asked"
        return LexicalGrade("C", hallucination=False, reason=reason, flaw="refusal")
    reason = "an honest refusal: the text hardly speaks of what is asked"
    return LexicalGrade("A", hallucination=False, reason=reason)


_UNUSABLE: Final = frozenset({"no reason", "no date", "uncompared"})
"""Faults by which an answer misses what was asked."""
_OF_ANSWERS: Final = frozenset(
    {
        "invented",
        "unsupported",
        "partly",
        "negation",
        "no reason",
        "no number",
        "no date",
        "uncompared",
        "unfinished",
        "speculation",
    }
)
"""Faults of an answer alone: the question is given, and what it leaves out is not the answer's fault."""
