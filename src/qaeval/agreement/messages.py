"""What agreement means, in words: what follows from the counts and intervals, and nothing more."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from qaeval.agreement.model import AgreementOutcome, Coefficients, RaterAgreement
from qaeval.report.facts import RubricFacts
from qaeval.report.numbers import coefficient, decimal, percent, plural, rate
from qaeval.stats.estimate import MIN_CLUSTERS

_RARE: Final = 10
"""From fewer items of a letter nothing is said of how well it is found."""
_UNLIKE: Final = 0.4
"""Below this largest possible kappa the two raters' rates of letters differ more than anything else."""


def standing(coefficients: Coefficients, baseline: float) -> AgreementOutcome:
    """Say what the labels show: nothing (few chunks), no more than chance, no more than one letter, or both."""
    kappa, observed = coefficients.kappa, coefficients.observed
    if coefficients.n_chunks < MIN_CLUSTERS:
        return "too few chunks"
    if kappa.low is None or kappa.low <= 0:
        return "chance"
    return "majority" if observed.low is None or observed.low <= baseline else "beats both"


def sentences(rater: RaterAgreement, *, judge: str, rubric: RubricFacts) -> tuple[str, ...]:
    """Describe the judge against one rater, plain counts first."""
    if rater.coefficients is None:
        nothing = (
            f"None of {rater.rater}'s labels belongs to an item that {judge} graded; nothing can be said."
        )
        return (nothing, _who(rater), *_left_out(rater))
    return (
        _misses(rater.rater, rater.coefficients, rubric),
        _overall(rater, rater.coefficients, judge),
        *_doubts(rater, rater.coefficients, judge, rubric),
        _who(rater),
        *_left_out(rater),
    )


def _who(rater: RaterAgreement) -> str:
    kinds = {
        "human": ", a person",
        "model": ": a hosted model's labels, not people's",
        "mixed": ": partly a person's, partly a model's",
        "unknown": "",
    }
    return f"{plural(rater.n_labels, 'label')} by {rater.rater}{kinds[rater.rater_kind]}."


def _misses(rater: str, coefficients: Coefficients, rubric: RubricFacts) -> str:
    table = np.array(coefficients.confusion)
    lower = "/".join(rubric.letters[1:]) if len(rubric.letters) > 3 else " or ".join(rubric.letters[1:])
    n_lower, n_passed = int(table[1:].sum()), int(table[1:, 0].sum())
    n_best, n_held = int(table[0].sum()), int(table[0, 1:].sum())
    if not n_lower:
        return f"{rater} graded all {plural(n_best, 'item')} {rubric.best}: the labels cannot show whether the judge finds faults."
    first = f"Of the {plural(n_lower, 'item')} that {rater} graded {lower}, this judge gives {_a(rubric.best)} to {n_passed}."
    if not n_best:
        return first
    return f"{first} Of the {plural(n_best, 'item')} that {rater} graded {rubric.best}, it gives a lower letter to {n_held}."


def _a(letter: str) -> str:
    return f"an {letter}" if letter in "AEFHILMNORSX" else f"a {letter}"


def _overall(rater: RaterAgreement, numbers: Coefficients, judge: str) -> str:
    same = sum(row[index] for index, row in enumerate(numbers.confusion))
    return (
        f"{judge} gives the same letter to {same:,} of {plural(numbers.n, 'item')} ({rate(numbers.observed)}); always "
        f"answering {rater.majority_letter} would match {percent(rater.majority_baseline)}. "
        f"Cohen's kappa is {coefficient(numbers.kappa)}, linearly weighted {coefficient(numbers.kappa_linear)}."
    )


def _doubts(rater: RaterAgreement, numbers: Coefficients, judge: str, rubric: RubricFacts) -> list[str]:
    doubts = []
    if (letter := _only_letter(numbers, rubric)) is not None:
        doubts.append(f"{judge} gives every one of these items the letter {letter}: it tells nothing apart.")
    if numbers.kappa.value is None:
        doubts.append(f"Kappa is undefined: {numbers.kappa.reason}.")
    elif rater.standing == "too few chunks":
        doubts.append(f"Labels from {plural(numbers.n_chunks, 'chunk')} are too few for an interval.")
    elif rater.standing == "chance":
        reaches = "The interval of kappa reaches 0" if numbers.kappa.has_interval else "Kappa has no interval"
        doubts.append(f"{reaches}: {judge} is not shown to agree more than chance would.")
    elif rater.standing == "majority":
        doubts.append(
            f"{judge} is not shown to agree more often than always answering {rater.majority_letter} would."
        )
    if numbers.kappa_max is not None and numbers.kappa_max < _UNLIKE:
        doubts.append(
            f"The two use the letters at such different rates that kappa could not exceed {decimal(numbers.kappa_max)}."
        )
    return [*doubts, *_rare(rater.rater, numbers, judge, rubric)]


def _rare(rater: str, numbers: Coefficients, judge: str, rubric: RubricFacts) -> list[str]:
    """Say for which letters the rater has too few items to say anything of the judge."""
    counts = [sum(row) for row in numbers.confusion]
    rare = [
        f"{letter} to {'none' if n == 0 else n} of these items"
        for letter, n in zip(rubric.letters, counts, strict=True)
        if n < _RARE
    ]
    if not rare or numbers.n < _RARE:
        return []
    return [f"{rater} gave {' and '.join(rare)}: too few to say how well {judge} finds them."]


def _only_letter(numbers: Coefficients, rubric: RubricFacts) -> str | None:
    """Return the letter that the judge gave to everything, or None when it used several."""
    used = [
        letter
        for letter, counts in zip(rubric.letters, zip(*numbers.confusion, strict=True), strict=True)
        if any(counts)
    ]
    return used[0] if len(used) == 1 else None


def _left_out(rater: RaterAgreement) -> list[str]:
    parts = []
    if rater.n_tuning_excluded:
        parts.append(f"{rater.n_tuning_excluded:,} on which the judge was tuned")
    if rater.n_ungraded:
        parts.append(f"{rater.n_ungraded:,} of items without a letter")
    if rater.n_other_rubric:
        parts.append(f"{rater.n_other_rubric:,} given under another rubric")
    if rater.n_not_in_run:
        parts.append(f"{rater.n_not_in_run:,} of items that are not in this run")
    return [f"Labels left out: {', '.join(parts)}."] if parts else []


def ceiling(a: str, b: str, numbers: Coefficients, judged: Sequence[RaterAgreement]) -> str:
    """Describe how far two raters agree, which no judge can be asked to exceed."""
    sentence = (
        f"{a} and {b} give the same letter to {rate(numbers.observed)} of the {plural(numbers.n, 'item')} that both "
        f"labelled (kappa {coefficient(numbers.kappa)}): the ceiling for any judge."
    )
    kappa = numbers.kappa.value
    judge_kappas = {
        rater.rater: rater.coefficients.kappa.value for rater in judged if rater.coefficients is not None
    }
    above = [name for name in (a, b) if kappa is not None and (judge_kappas.get(name) or -1.0) > kappa]
    if not above:
        return sentence
    return (
        f"{sentence} They agree less with each other than the judge does with {' and with '.join(above)}: the rubric, or the "
        f"labels, leave too much open to tell how good a judge is."
    )
