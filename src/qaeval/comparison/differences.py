"""Differences between candidates, paired by chunk, and their ranks."""

from collections.abc import Sequence
from itertools import combinations
from math import isnan, nan, sqrt
from typing import Final

import numpy as np
import pandas as pd
from scipy.special import ndtri

from qaeval.analysis.letters import row_weights
from qaeval.comparison.model import ALPHA, Difference, LabelledDifference, Outcome, Rank, outcome_of
from qaeval.report.measure import Measure
from qaeval.report.numbers import difference as shown
from qaeval.report.numbers import level, p_value, plural, points, size, two_digits_up
from qaeval.stats.estimate import MIN_CLUSTERS, Estimate
from qaeval.stats.margins import equivalence
from qaeval.stats.paired import (
    agreeing_with_test,
    holm,
    paired_difference,
    sign_flip_test,
    weighted_difference,
    weighted_pivot,
)
from qaeval.stats.power import chunks_needed
from qaeval.stats.ranking import bradley_terry_bootstrap

_LARGEST_TABLE: Final = 6
"""Items of a chunk; with more the table of chunks by usable items is left out."""

_SEED: Final = 20_240_229
"""Of the sign patterns, drawn only where the test cannot be exact."""


def compare_candidates(
    table: pd.DataFrame,
    *,
    candidates: Sequence[str],
    best: str,
    margin: float,
    pairs: Sequence[tuple[str, str]] | None = None,
    is_judge_blind: bool = False,
) -> tuple[Difference, ...]:
    """Compare every pair of candidates by the usable rate in each chunk.

    The difference is that of the rates over all items. Where chunks have different numbers of items (questions about them) it
    is a ratio, whose interval and equivalence test take the linearised values of the chunks (Cochran 1977, section 6.3), and
    whose sign-flip test swaps the candidates' items of a chunk. Where two candidates have different numbers of items in a chunk
    (imported ones) each rate is linearised by itself, and the test flips the signs of the linearised values. The test decides who is
    better, and an end of the interval that contradicts it moves to 0 (`agreeing_with_test`).

    Where samples were drawn with different probabilities, each counts by its weight: the interval is that of
    `weighted_difference`, and the sign-flip test swaps the weighted items of a chunk.

    Args:
        table: The table of letters.
        candidates: Names, in the order of the report.
        best: The letter of a usable item.
        margin: Smallest difference that matters, in (0, 1). Where larger ones are neither shown nor ruled out, there
            is not enough data.
        pairs: The pairs to compare; default: all.
        is_judge_blind: Whether the judge tells nothing apart: more chunks would then decide nothing.
    """
    return compare_sums(
        _sums_by_chunk(table, best),
        candidates=candidates,
        margin=margin,
        is_weighted="weight" in table,
        pairs=pairs,
        is_judge_blind=is_judge_blind,
    )


def compare_sums(
    sums: pd.DataFrame,
    *,
    candidates: Sequence[str],
    margin: float,
    is_weighted: bool,
    pairs: Sequence[tuple[str, str]] | None = None,
    is_judge_blind: bool = False,
) -> tuple[Difference, ...]:
    """Compare every pair of candidates from their sums by chunk, which are all that `compare_candidates` takes from the letters.

    Args:
        sums: A row for each chunk; for each candidate (second level of the columns) its items (`n`), the usable ones (`hit`), and both
            by weight (`weight`, `counted`); NaN where it has none in the chunk.
        candidates: As in `compare_candidates`.
        margin: As in `compare_candidates`.
        is_weighted: Whether samples weigh differently.
        pairs: As in `compare_candidates`.
        is_judge_blind: As in `compare_candidates`.
    """
    pairs = list(combinations(candidates, 2)) if pairs is None else pairs
    if not pairs:
        return ()
    counts, owed = sums["counted"], sums["weight"].fillna(0)
    sizes = owed.to_numpy(float).sum(axis=1)
    means = counts / owed
    columns = {name: means[name].to_numpy(float) for name in candidates}
    size_of = int(np.nanmax(sums["n"].to_numpy(float)))
    uneven = {
        (a, b): _linearised_ratios(counts[[a, b]].fillna(0).to_numpy(), owed[[a, b]].to_numpy())
        for a, b in pairs
        if not owed[a].equals(owed[b])
    }
    # whole numbers of items, so that the test is exact, where samples weigh the same and both candidates have the
    # same number in a chunk
    p_values = [
        _p(np.zeros_like(uneven[a, b]), uneven[a, b])
        if (a, b) in uneven
        else _p(counts[a].to_numpy(float), counts[b].to_numpy(float))
        for a, b in pairs
    ]
    adjusted = holm(p_values)
    return tuple(
        _difference(
            a,
            b,
            columns[a],
            columns[b],
            estimates=_estimates(
                columns[b] - columns[a],
                sizes,
                uneven.get((a, b)),
                is_weighted=is_weighted,
                margin=margin,
            ),
            p=p,
            p_holm=float(p_holm),
            n_pairs=len(pairs),
            margin=margin,
            is_judge_blind=is_judge_blind,
        ).model_copy(update={"chunks": _crossed(sums["hit"][a], sums["hit"][b], size_of)})
        for (a, b), p, p_holm in zip(pairs, p_values, adjusted, strict=True)
    )


def _sums_by_chunk(table: pd.DataFrame, best: str) -> pd.DataFrame:
    """Sum by chunk and candidate the items (`n`), the usable ones (`hit`), and both by weight (`weight`, `counted`); NaN for none."""
    rows = table[["cluster", "candidate"]].assign(
        n=1.0, hit=(table["letter"] == best).astype(float), weight=row_weights(table)
    )
    rows["counted"] = rows["hit"] * rows["weight"]
    return rows.pivot_table(
        ["n", "hit", "weight", "counted"], "cluster", "candidate", aggfunc="sum", sort=False
    )


def _estimates(
    d: np.ndarray, sizes: np.ndarray, uneven: np.ndarray | None, *, is_weighted: bool, margin: float
) -> tuple[Estimate, float]:
    """Return the difference with its interval, and the p-value of the hypothesis that it is not within the margin.

    Args:
        d: Difference of the candidates' rates in each chunk, shape (n_chunks,); NaN where neither has items.
        sizes: Items of each chunk, by weight.
        uneven: Linearised values of the chunks, where the candidates have different numbers of items in one.
        is_weighted: Whether the samples of the run weigh differently.
        margin: Smallest difference that matters.
    """
    shared = ~np.isnan(d)
    if uneven is None and not shared.all():
        d, sizes = d[shared], sizes[shared]
    if is_weighted and uneven is None:
        pivot = weighted_pivot(d, sizes)
        within = max(pivot.tails(-margin)[0], pivot.tails(margin)[1]) if len(d) >= MIN_CLUSTERS else nan
        return weighted_difference(d, sizes), within
    values = _linearised(d, sizes / sizes.mean()) if uneven is None else uneven
    nothing, span = np.zeros_like(values), max(1.0, float(np.abs(values).max()))
    within = equivalence(nothing, values, low=-margin, high=margin, span=span).p_value
    return paired_difference(nothing, values, span=span), within


def _linearised(d: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return values whose mean is the difference of the rates and whose spread is its error; ``d`` where all chunks weigh the same."""
    difference = float((weights * d).mean())
    return np.asarray(difference + weights * (d - difference))


def _linearised_ratios(hits: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Return values whose mean is the difference of two rates, second minus first; arrays of shape (n_chunks, 2)."""
    shared = totals.any(axis=1)
    hits, totals = hits[shared], totals[shared]
    rates = hits.sum(axis=0) / totals.sum(axis=0)
    residuals = (hits - rates * totals) / totals.mean(axis=0)
    return np.asarray(rates[1] - rates[0] + residuals[:, 1] - residuals[:, 0])


def _within_one(measure: Measure) -> Measure:
    """Cut an interval to what a difference of rates can be."""
    if measure.low is None or measure.high is None:
        return measure
    return measure.model_copy(update={"low": max(-1.0, measure.low), "high": min(1.0, measure.high)})


def rank_candidates(table: pd.DataFrame, *, candidates: Sequence[str], best: str) -> tuple[Rank, ...]:
    """Rank three candidates or more by who has more usable items in how many chunks; a tie is half a win."""
    if len(candidates) < 3:
        return ()
    sums, names = _sums_by_chunk(table, best), list(candidates)
    rates = (sums["counted"] / sums["weight"])[names].to_numpy(float)
    ahead = np.sign(np.round(rates[:, :, None] - rates[:, None, :], 9))
    wins = np.nan_to_num((ahead + 1) / 2)  # a candidate without items in a chunk did not play there
    wins[:, np.arange(len(candidates)), np.arange(len(candidates))] = 0.0
    # a chunk counts once, whatever its items, and for all chunks that it stands for
    weight, n = (np.nansum(sums[name].to_numpy(float), axis=1) for name in ("weight", "n"))
    wins *= (weight / n)[:, np.newaxis, np.newaxis]
    ranked = bradley_terry_bootstrap(wins, rng=np.random.default_rng(_SEED))
    ranks = [
        Rank(
            candidate=name,
            rank=ranked.rank or None,
            rank_low=ranked.rank_low or None,
            rank_high=ranked.rank_high or None,
            strength=Measure.of(ranked.strength),
        )
        for name, ranked in zip(candidates, ranked, strict=True)
    ]
    return tuple(sorted(ranks, key=lambda rank: rank.rank or len(ranks)))


def _crossed(
    of_a: "pd.Series[float]", of_b: "pd.Series[float]", max_items: int
) -> tuple[tuple[int, ...], ...]:
    """Count chunks by the usable items of both; nothing where the table would be too large to read."""
    if max_items > _LARGEST_TABLE:
        return ()
    table = np.zeros((max_items + 1, max_items + 1), dtype=int)
    shared = of_a.notna() & of_b.notna()
    for row, column in zip(of_a[shared].astype(int), of_b[shared].astype(int), strict=True):
        table[row, column] += 1
    return tuple(map(tuple, table.tolist()))


def _p(mean_a: np.ndarray, mean_b: np.ndarray) -> float:
    d = _shared_differences(mean_a, mean_b)
    return sign_flip_test(d, rng=np.random.default_rng(_SEED)) if len(d) else 1.0


def _shared_differences(mean_a: np.ndarray, mean_b: np.ndarray) -> np.ndarray:
    """Return the differences of the chunks in which both candidates have items; none for runs that share no chunk."""
    d = mean_b - mean_a
    return np.asarray(d[~np.isnan(d)])


def _difference(
    a: str,
    b: str,
    mean_a: np.ndarray,
    mean_b: np.ndarray,
    *,
    estimates: tuple[Estimate, float],
    p: float,
    p_holm: float,
    n_pairs: int,
    margin: float,
    is_judge_blind: bool,
) -> Difference:
    estimate, within = estimates
    measure = _within_one(Measure.of(agreeing_with_test(estimate, p)))
    d = np.round(_shared_differences(mean_a, mean_b), 9)
    outcome = outcome_of(measure, p_holm, margin=margin)
    is_open = outcome == "not enough data" and not is_judge_blind
    n_more = more_chunks(measure, margin, n_pairs) if is_open else None
    return Difference(
        a=a,
        b=b,
        difference=measure,
        p=p,
        p_holm=p_holm,
        p_equivalent=None if isnan(within) else within,
        n_chunks_b_better=int((d > 0).sum()),
        n_chunks_equal=int((d == 0).sum()),
        n_chunks_a_better=int((d < 0).sum()),
        outcome=outcome,
        n_more_chunks=n_more,
        sentence=judged_sentence(a, b, measure, outcome, p=p, p_holm=p_holm, n_pairs=n_pairs, n_more=n_more),
    )


def more_chunks(measure: Measure, margin: float, n_pairs: int) -> int:
    """Estimate how many chunks more would decide if the difference stays as it is, with a power of 80 %.

    A difference is decided when it is told from 0, or from the margin: whichever is farther away. The spread is read
    off the interval, which has a width even where all chunks agree.
    """
    seen, low, high = abs(measure.value or 0.0), measure.low or 0.0, measure.high or 0.0
    spread = (high - low) / 2 * sqrt(measure.n_clusters) / float(ndtri(1 - ALPHA / 2))
    needed = chunks_needed(spread, max(seen, margin - seen), alpha=ALPHA / n_pairs)
    return max(1, needed - measure.n_clusters)


def judged_sentence(
    a: str,
    b: str,
    measure: Measure,
    outcome: Outcome,
    *,
    p: float,
    p_holm: float,
    n_pairs: int,
    n_more: int | None,
) -> str:
    """Say what the judge's letters show of a pair; arguments are those of `Difference`, `n_pairs` is the size of the family."""
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
    seen = f"{b} − {a} is {shown(measure)}{_alone(p)} ({test}, {measure.n_clusters} chunks)"
    if n_more is not None:
        return (
            f"{a} and {b}: not enough data; {seen}. About {plural(two_digits_up(n_more), 'more chunk', 'more chunks')} would decide if "
            f"the difference stays as it is; so far only one above {limit} is ruled out."
        )
    if outcome == "not enough data":
        return f"{a} and {b}: not enough data; {seen}. So far only a difference above {limit} is ruled out."
    return f"{a} and {b}: no difference shown; {seen}. A difference above {limit} either way is ruled out at the {level(measure)} level."


def _alone(p: float | None) -> str:
    """Explain an interval without 0 beside an outcome that shows no better candidate; empty where there is nothing to explain."""
    if p is None or p > ALPHA:
        return ""
    return " (shown for this pair alone, but not after correction for the number of pairs)"


def by_doubted_judge(differences: Sequence[Difference], *, is_refuted: bool) -> tuple[Difference, ...]:
    """Say of differences that they are by the judge's letters alone, where labels refute the judge or it tells nothing apart."""
    judge = "a judge that labels refute" if is_refuted else "a judge that tells nothing apart"
    return tuple(
        pair
        if pair.deciding
        else pair.model_copy(update={"sentence": f"By the letters of {judge}: {pair.sentence}"})
        for pair in differences
    )


def labelled_sentence(pair: Difference, estimate: LabelledDifference, *, n_pairs: int) -> str:
    """Say what labels show of a pair, then what the judge's letters alone say and how far the judge favours a candidate."""
    measure, a, b = estimate.difference, pair.a, pair.b
    n_all = pair.difference.n_clusters
    test = p_value(1.0 if estimate.p_holm is None else estimate.p_holm)
    if n_pairs > 1:
        test += f" after correction for {n_pairs} pairs"
    of = (
        f"all {plural(n_all, 'chunk')}"
        if estimate.n_chunks == n_all
        else f"{estimate.n_chunks} of {plural(n_all, 'chunk')}"
    )
    source, seen = f"By {estimate.rater}'s labels of {of}", f"{shown(measure)}{_alone(estimate.p)}"
    if estimate.outcome in {"a is better", "b is better"}:
        better, worse = (b, a) if estimate.outcome == "b is better" else (a, b)
        result = f"{better} is better than {worse}: {size(measure.value or 0)} more usable items, {_ends(measure)} ({test})"
    elif estimate.outcome == "no difference shown":
        limit = size(max(abs(measure.low or 0), abs(measure.high or 0)))
        result = f"{a} and {b} show no difference: {b} − {a} is {seen} ({test}), and one above {limit} is ruled out"
    else:
        result = f"{a} and {b} are not told apart: {b} − {a} is {seen} ({test})"
        more = estimate.n_more_chunks
        if more is not None and more <= n_all - estimate.n_chunks:
            chunks = plural(two_digits_up(more), "more chunk", "more chunks")
            result += f"; labels of about {chunks} would decide if the difference stays as it is"
        elif more is not None:
            result += "; more labelled chunks than the run has would decide if the difference stays as it is"
    favoured, error = (b if (estimate.error.value or 0) > 0 else a), estimate.error
    favour = ""
    if error.value == 0:
        favour = "; on the labelled chunks the judge favours neither"
    elif error.value and estimate.p_error is not None:
        limits = f"{_ends(error, signed=True)} ({p_value(estimate.p_error)})"
        favour = (
            f"; on the labelled chunks the judge favours {favoured} by {size(error.value)}, {limits}"
            if estimate.p_error <= ALPHA
            else f"; on the labelled chunks the judge is not shown to favour a candidate: {size(error.value)} towards {favoured}, {limits}"
        )
    return f"{source}, {result}. By the judge's letters alone, {b} − {a} is {shown(pair.difference)}{favour}."


def _ends(measure: Measure, *, signed: bool = False) -> str:
    """Print the interval of a difference as sizes; signed: as sizes in the direction of the value, of which one can be below 0."""
    low, high = measure.low or 0, measure.high or 0
    if signed:
        low, high = (low, high) if (measure.value or 0) > 0 else (-high, -low)
        return f"{level(measure)} interval {points(low)} to {points(high)}"
    low, high = sorted((abs(low), abs(high)))
    return f"{level(measure)} interval {size(low, unit='')} to {size(high, unit='')}"
