"""Sentences about agreement, from counts and intervals."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from qaeval.agreement.model import NO_ORDER, AgreementOutcome, AgreementReport, Coefficients, RaterAgreement
from qaeval.agreement.rater_quality import SKIMMING
from qaeval.report.facts import RubricFacts
from qaeval.report.measure import Measure
from qaeval.report.numbers import coefficient, decimal, listed, percent, plural, rate, seconds
from qaeval.stats.estimate import MIN_CLUSTERS

_RARE: Final = 10
"""With fewer items of a letter, the interval of its recall is too wide to be useful (0.5 ± 0.3 at 10 items)."""
_LOW_KAPPA_MAX: Final = 0.4
"""Below this maximum, even the best possible kappa under the given letter rates would be called poor or fair."""
WEIGHTED: Final = (
    "The items were drawn with unequal probabilities: rates and coefficients weight each item by the inverse of its probability and "
    "are estimates for all items of the run."
)


def standing(coefficients: Coefficients, lift: Measure) -> AgreementOutcome:
    """Classify agreement: too few chunks, not shown to beat chance, not shown to beat the most frequent letter, or both beaten.

    Args:
        coefficients: Coefficients of rater and judge.
        lift: Agreement of the judge minus that of always giving the rater's most frequent letter.
    """
    kappa = coefficients.kappa
    if coefficients.n_chunks < MIN_CLUSTERS:
        return "too few chunks"
    if kappa.low is None or kappa.low <= 0:
        return "chance"
    return "majority" if lift.low is None or lift.low <= 0 else "beats both"


def verdict_line(report: AgreementReport) -> str:
    """Return what the labels show in one sentence: of the judge by the rater with the most items, else of two raters."""
    if not report.agreement:
        return _raters_line(report)
    rater = max(report.agreement, key=lambda each: each.coefficients.n if each.coefficients else 0)
    judge, numbers = report.judge, rater.coefficients
    if numbers is None:
        return f"{judge} is not measured: no label belongs to an item that it graded."
    texts: dict[AgreementOutcome, str] = {
        "too few chunks": f"Too few labels to measure {judge} ({plural(numbers.n_chunks, 'chunk')} of at least {MIN_CLUSTERS})",
        "chance": f"{judge} is not shown to agree with {rater.rater} beyond chance",
        "majority": f"{judge} is not shown to agree with {rater.rater} more often than always answering {rater.majority_letter}",
        "beats both": f"{judge} agrees with {rater.rater} more often than chance and than always answering {rater.majority_letter}",
    }
    others = len(report.agreement) - 1
    of = f" (of {others + 1} raters, the one with the most items)" if others else ""
    return (
        f"{texts[rater.standing]}: the same letter for {rate(numbers.observed)} of {plural(numbers.n, 'item')}, kappa "
        f"{coefficient(numbers.kappa)}{of}."
    )


def _raters_line(report: AgreementReport) -> str:
    if not report.raters:
        return "No two raters have an item in common: no agreement can be measured."
    pair = min(report.raters, key=lambda each: each.coefficients.observed.value or 0.0)
    numbers = pair.coefficients
    return (
        f"{pair.a} and {pair.b} give the same letter to {rate(numbers.observed)} of {plural(numbers.n, 'item')}, kappa "
        f"{coefficient(numbers.kappa)}{', the lowest of all pairs' if len(report.raters) > 1 else ''}; no judge is among the raters."
    )


def sentences(rater: RaterAgreement, *, judge: str, rubric: RubricFacts) -> tuple[str, ...]:
    """Describe the judge against one rater, plain counts first."""
    about = (_rater(rater), *_settled(rater), *_excluded(rater), *quality_sentences(rater, best=rubric.best))
    if rater.coefficients is None:
        return (_unmeasured(rater, judge), *about)
    return (
        *((_misses(rater.rater, rater.coefficients, rubric),) if _is_ordered(rater.coefficients) else ()),
        _overall(rater, rater.coefficients, judge),
        *_doubts(rater, rater.coefficients, judge, rubric),
        *about,
    )


def _unmeasured(rater: RaterAgreement, judge: str) -> str:
    if rater.n_labels and rater.n_tuning_excluded == rater.n_labels:
        every = "The label" if rater.n_labels == 1 else f"All {rater.n_labels:,} labels"
        return (
            f"{every} by {rater.rater} {'is' if rater.n_labels == 1 else 'are'} of chunks that were used to tune {judge}: no agreement "
            f"can be measured."
        )
    return f"No label by {rater.rater} is of an item that {judge} graded: no agreement can be measured."


def _is_ordered(coefficients: Coefficients) -> bool:
    return coefficients.kappa_linear.reason != NO_ORDER


def _rater(rater: RaterAgreement) -> str:
    kinds = {
        "human": ", a person",
        "model": " (a hosted model, not a person)",
        "mixed": " (partly a person, partly a model)",
        "unknown": "",
    }
    return f"{plural(rater.n_labels, 'label')} by {rater.rater}{kinds[rater.rater_kind]}."


def _misses(rater: str, coefficients: Coefficients, rubric: RubricFacts) -> str:
    table = np.array(coefficients.confusion)
    lower = "/".join(rubric.letters[1:]) if len(rubric.letters) > 3 else " or ".join(rubric.letters[1:])
    n_lower, n_passed = int(table[1:].sum()), int(table[1:, 0].sum())
    n_best, n_held = int(table[0].sum()), int(table[0, 1:].sum())
    if not n_lower:
        return f"{rater} graded all {plural(n_best, 'item')} {rubric.best}: the labels cannot show whether the judge detects faults."
    first = f"Of the {plural(n_lower, 'item')} that {rater} graded {lower}, this judge gives {_a(rubric.best)} to {n_passed}."
    if not n_best:
        return first
    return f"{first} Of the {plural(n_best, 'item')} that {rater} graded {rubric.best}, it gives a lower letter to {n_held}."


def counts_against(rater: RaterAgreement) -> str:
    """Return the plain counts; empty where they say nothing against the judge, which gave no item below the best letter that letter.

    Args:
        rater: With coefficients.
    """
    numbers = rater.coefficients
    if numbers is not None and _is_ordered(numbers):
        lower = numbers.confusion[1:]
        if any(map(sum, lower)) and not any(row[0] for row in lower):
            return ""
    return rater.sentences[0]


def shortfall(rater: RaterAgreement, judge: str = "it") -> str:
    """Say what is not shown of a judge by a rater's labels, without a full stop.

    Args:
        rater: By whose labels the judge does not beat both chance and the most frequent letter.
        judge: Subject of the clause.
    """
    if rater.standing == "too few chunks":
        return "the labels come from too few chunks for an interval"
    observed = rater.coefficients.observed.value if rater.coefficients else None
    if rater.standing != "majority" or observed is None or rater.majority_baseline is None:
        return f"{judge} is not shown to agree more than chance would"
    always, constant = f"always answering {rater.majority_letter} would", percent(rater.majority_baseline)
    if observed < rater.majority_baseline:
        return f"{judge} agrees with {percent(observed)} of the labels; {always} agree with {constant}"
    return f"{judge} is not shown to agree more often ({percent(observed)}) than {always} ({constant})"


def _a(letter: str) -> str:
    return f"an {letter}" if letter in "AEFHILMNORSX" else f"a {letter}"


def _overall(rater: RaterAgreement, numbers: Coefficients, judge: str) -> str:
    same = sum(row[index] for index, row in enumerate(numbers.confusion))
    weighted = f", linearly weighted {coefficient(numbers.kappa_linear)}" if _is_ordered(numbers) else ""
    return (
        f"{judge} gives the same letter to {same:,} of {plural(numbers.n, 'item')} ({rate(numbers.observed)}); always "
        f"answering {rater.majority_letter} would match {percent(rater.majority_baseline)}. "
        f"Cohen's kappa is {coefficient(numbers.kappa)}{weighted}.{f' {WEIGHTED}' if rater.is_weighted else ''}"
    )


def _doubts(rater: RaterAgreement, numbers: Coefficients, judge: str, rubric: RubricFacts) -> list[str]:
    doubts = []
    if (letter := _only_letter(numbers, rubric)) is not None:
        doubts.append(f"{judge} gives all of these items the letter {letter}: it does not discriminate.")
    if numbers.kappa.value is None:
        doubts.append(f"Kappa is undefined: {numbers.kappa.reason}.")
    elif rater.standing == "too few chunks":
        doubts.append(f"Labels from {plural(numbers.n_chunks, 'chunk')} are too few for an interval.")
    elif rater.standing == "chance":
        cause = "its lower limit is not above 0" if numbers.kappa.has_interval else "it has no interval"
        doubts.append(f"Kappa does not show agreement of {judge} beyond chance: {cause}.")
    elif rater.standing == "majority":
        doubts.append(
            f"{judge} is not shown to agree more often than a constant answer of {rater.majority_letter}."
        )
    if numbers.kappa_max is not None and numbers.kappa_max < _LOW_KAPPA_MAX:
        doubts.append(
            f"The letter rates of the two differ so much that kappa cannot exceed {decimal(numbers.kappa_max)}."
        )
    return [*doubts, *_rare(rater.rater, numbers, judge, rubric)]


def _rare(rater: str, numbers: Coefficients, judge: str, rubric: RubricFacts) -> list[str]:
    """Name the letters with too few items to measure the judge on them."""
    counts = [sum(row) for row in numbers.confusion]
    rare = [
        f"{letter} to {'none' if n == 0 else n}"
        for letter, n in zip(rubric.letters, counts, strict=True)
        if n < _RARE
    ]
    if not rare or numbers.n < _RARE:
        return []
    return [
        f"{rater} gave {' and '.join(rare)} of these items: too few to measure how well {judge} detects them."
    ]


def _only_letter(numbers: Coefficients, rubric: RubricFacts) -> str | None:
    """Return the letter that the judge gave to all items; None if it used several."""
    used = [
        letter
        for letter, counts in zip(rubric.letters, zip(*numbers.confusion, strict=True), strict=True)
        if any(counts)
    ]
    return used[0] if len(used) == 1 else None


def _excluded(rater: RaterAgreement) -> list[str]:
    parts = []
    if rater.n_tuning_excluded:
        parts.append(f"{rater.n_tuning_excluded:,} used to tune the judge")
    if rater.n_ungraded:
        parts.append(f"{rater.n_ungraded:,} of ungraded items")
    if rater.n_other_rubric:
        parts.append(f"{rater.n_other_rubric:,} of another rubric")
    if rater.n_not_in_run:
        parts.append(f"{rater.n_not_in_run:,} of items outside this run")
    return [f"Excluded labels: {', '.join(parts)}."] if parts else []


def _settled(rater: RaterAgreement) -> list[str]:
    if not rater.n_settled:
        return []
    return [
        f"{plural(rater.n_settled, 'letter is', 'letters are')} those that {listed(rater.settled_by)} settled where two raters differed."
    ]


def quality_sentences(rater: RaterAgreement, *, best: str) -> list[str]:
    """Describe how a rater worked: time, drift, repeats, labels that were too fast."""
    quality = rater.quality
    if quality is None:
        return []
    sentences = []
    if quality.median_seconds is not None:
        text = f"Median time of a label: {seconds(quality.median_seconds)}"
        if quality.seconds_first is not None and quality.seconds_last is not None:
            text += (
                f"; first third {seconds(quality.seconds_first)}, last third {seconds(quality.seconds_last)}"
            )
        sentences.append(f"{text}.")
    if quality.best_first is not None and quality.best_last is not None:
        sentences.append(
            f"{rater.rater} gave {best} to {percent(quality.best_first)} of the first half of the items and to "
            f"{percent(quality.best_last)} of the second."
        )
    if quality.n_repeats:
        sentences.append(
            f"Labelled twice, {quality.n_repeats_same} of {plural(quality.n_repeats, 'item')} got the same letter."
        )
    if quality.n_readable:
        sentences.append(
            f"{quality.n_too_fast} of {plural(quality.n_readable, 'label')} came faster than the text can be read "
            f"(at {SKIMMING} words a minute)."
        )
    return sentences


CEILING_CHUNKS: Final = 30
"""Chunks from which the agreement of two raters is called the ceiling for a judge."""


def between_raters(
    a: str, b: str, numbers: Coefficients, judged: Sequence[RaterAgreement], *, independent: bool
) -> str:
    """Describe the agreement of two raters; it is the ceiling for any judge where it is known well enough.

    Args:
        a: First rater.
        b: Second rater.
        numbers: Their agreement.
        judged: Agreement of the judge with the same raters.
        independent: Whether their errors are their own; two models can share errors.
    """
    sentence = (
        f"{a} and {b} give the same letter to {rate(numbers.observed)} of the {plural(numbers.n, 'item')} that both "
        f"labelled (kappa {coefficient(numbers.kappa)})"
    )
    if not independent:
        sentence += ". Both are models, which can share errors: this is no ceiling for a judge."
    elif numbers.n_chunks < CEILING_CHUNKS:
        sentence += (
            f", on {plural(numbers.n_chunks, 'chunk')}: a ceiling for judges is known from {CEILING_CHUNKS}."
        )
    elif numbers.kappa.low is None:
        sentence += ", without an interval: no ceiling for judges is known."
    else:
        sentence += ": the ceiling for any judge."
    kappas = {rater.rater: rater.coefficients.kappa for rater in judged if rater.coefficients is not None}
    of_judge = {name: kappas[name] for name in (a, b) if name in kappas}
    kappa = numbers.kappa
    above = [name for name, other in of_judge.items() if _is_above(other.value, kappa.value)]
    if not above:
        return sentence
    less = f"{sentence} They agree less with each other than the judge does with {' and with '.join(above)}"
    if not any(_is_above(of_judge[name].low, kappa.high) for name in above):
        return f"{less}; that may be chance."
    return f"{less}: the rubric or the labels are too ambiguous to rate a judge."


def _is_above(kappa: float | None, other: float | None) -> bool:
    return kappa is not None and other is not None and kappa > other
