"""Candidates against each other, paired by chunk."""

from collections.abc import Sequence
from itertools import combinations
from typing import Final

import numpy as np
import pandas as pd

from qaeval.report.document import Difference, Outcome
from qaeval.report.measure import Measure
from qaeval.report.numbers import difference as shown
from qaeval.report.numbers import level, p_value, size
from qaeval.stats.paired import chunk_differences, holm, paired_difference, sign_flip_test

ALPHA: Final = 0.05
"""Error rate of the family of comparisons."""

_SEED: Final = 20_240_229
"""Of the sign patterns, drawn only where the test cannot be exact."""


def compare_candidates(
    table: pd.DataFrame, *, candidates: Sequence[str], best: str
) -> tuple[Difference, ...]:
    """Compare every pair of candidates by the usable rate in each chunk; every chunk has one vote."""
    usable = table.assign(usable=(table["letter"] == best).astype(float))
    means = usable.pivot_table("usable", "cluster", "candidate", aggfunc="mean", sort=False)
    pairs = list(combinations(candidates, 2))
    if not pairs:
        return ()
    columns = {name: means[name].to_numpy(float) for name in candidates}
    p_values = [_p(columns[a], columns[b]) for a, b in pairs]
    adjusted = holm(p_values)
    return tuple(
        _difference(a, b, columns[a], columns[b], p=p, p_holm=float(p_holm), n_pairs=len(pairs))
        for (a, b), p, p_holm in zip(pairs, p_values, adjusted, strict=True)
    )


def _p(mean_a: np.ndarray, mean_b: np.ndarray) -> float:
    d, _ = chunk_differences(mean_a, mean_b)
    return sign_flip_test(d, rng=np.random.default_rng(_SEED))


def _difference(
    a: str, b: str, mean_a: np.ndarray, mean_b: np.ndarray, *, p: float, p_holm: float, n_pairs: int
) -> Difference:
    measure = Measure.of(paired_difference(mean_a, mean_b))
    d, _ = chunk_differences(mean_a, mean_b)
    d = np.round(d, 9)
    outcome = _outcome(measure, p_holm, n_pairs)
    return Difference(
        a=a,
        b=b,
        difference=measure,
        p=p,
        p_holm=p_holm,
        n_chunks_b_better=int((d > 0).sum()),
        n_chunks_equal=int((d == 0).sum()),
        n_chunks_a_better=int((d < 0).sum()),
        outcome=outcome,
        sentence=_sentence(a, b, measure, outcome, p_holm=p_holm, n_pairs=n_pairs),
    )


def _outcome(measure: Measure, p_holm: float, n_pairs: int) -> Outcome:
    """Decide in words: the interval excludes 0 and, in a family of pairs, the adjusted test agrees."""
    if measure.low is None or measure.high is None:
        return "too few chunks"
    shown_apart = measure.low > 0 or measure.high < 0
    if not shown_apart or (n_pairs > 1 and p_holm > ALPHA):
        return "no difference shown"
    return "b is better" if measure.low > 0 else "a is better"


def _sentence(a: str, b: str, measure: Measure, outcome: Outcome, *, p_holm: float, n_pairs: int) -> str:
    if measure.low is None or measure.high is None:
        seen = "no difference was seen" if not measure.value else f"{b} − {a} was {shown(measure)}"
        return f"{a} and {b}: too few chunks for an interval ({measure.n_clusters}); {seen}, which proves nothing."
    test = p_value(p_holm) + (f" after correction for {n_pairs} pairs" if n_pairs > 1 else "")
    if outcome in {"a is better", "b is better"}:
        better, worse = (b, a) if outcome == "b is better" else (a, b)
        return (
            f"{better} is better than {worse}: {size(measure.value or 0)} more usable items, {_ends(measure)} "
            f"({test}, {measure.n_clusters} chunks)."
        )
    limit = size(max(abs(measure.low), abs(measure.high)))
    why = ""
    if measure.low > 0 or measure.high < 0:
        why = " (its interval leaves out 0, but not after correction for the number of pairs)"
    elif p_holm <= ALPHA:
        why = " (the test alone would show one, the interval does not)"
    return (
        f"{a} and {b}: no difference shown; {b} − {a} is {shown(measure)}{why} ({test}, {measure.n_clusters} chunks). "
        f"A difference above {limit} either way is ruled out at the {level(measure)} level."
    )


def _ends(measure: Measure) -> str:
    low, high = sorted((abs(measure.low or 0), abs(measure.high or 0)))
    return f"{level(measure)} interval {size(low, unit='')} to {size(high, unit='')}"
