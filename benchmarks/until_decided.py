"""How often does a run until decided err, and what does it save? Simulates comparisons and prints Markdown tables.

Run ``nice -n 5 python benchmarks/until_decided.py``. Two candidates write three items for each of 1,932 chunks; the usable rate of a
chunk has a beta distribution with the given intraclass correlation (ICC), and the candidates share its difficulty in part. Bets, batches
and looks are the product's own. "Side by side" has servers that stay up; "in turns" has one GPU that serves two candidates and the judge
one after the other: its share of GPU time is calculated from the start of a server and the work on a chunk. With ``--corrected``
labels of some chunks correct a judge that favours the second candidate, and errors are about the labels' difference. Nothing here is
read from or written to a file.
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from qaeval.records import Session
from qaeval.run.batches import FIRST, FIRST_IN_TURNS, next_batch
from qaeval.stats import sequential
from qaeval.stats.sequential import BettingTest, corrected_looks, deadline_bets, decision_bets

Array = NDArray[Any]
Rng = np.random.Generator

GAPS = (0.16, 0.10, 0.05, 0.02, 0.0)
GOALS = {0.16: (90, 75), 0.10: (85, None), 0.05: (70, 55), 0.02: (60, None), 0.0: (65, 38)}
"""Percent of the chunks, and of GPU time in turns, that should be saved."""
CHUNKS, ITEMS, RATE, MARGIN, ALPHA = 1932, 3, 0.75, 0.05, 0.05
QUANTILES = special.expit(np.linspace(-40, 40, 6001))
START_S, WORK_S, N_SERVERS = 60.0, 1.8, 3
"""Start of a server; work of all servers on a chunk (58 minutes for 1,932 on one L4, docs/performance.md)."""


@dataclass(frozen=True)
class Setting:
    """How chunks differ."""

    icc: float
    shared: float
    """Correlation of the chunk's difficulty for both candidates."""


SETTINGS = (Setting(0.3, 1.0), Setting(0.3, 0.5), Setting(0.6, 0.5))


def chunk_rates(u: Array, mean: float, icc: float) -> Array:
    """Quantiles `u` of the distribution of a chunk's rate."""
    scale = (1 - icc) / icc
    cdf = special.betainc(mean * scale, (1 - mean) * scale, QUANTILES)
    return np.asarray(np.interp(u, cdf, QUANTILES))


def draw(setting: Setting, gap: float, reps: int, chunks: int, rng: Rng) -> tuple[Array, Array]:
    """Usable items of both candidates, shape (reps, chunks) each."""
    common = rng.standard_normal((reps, chunks))
    counts = []
    for rate in (RATE, RATE + gap):
        own = np.sqrt(setting.shared) * common + np.sqrt(1 - setting.shared) * rng.standard_normal(
            common.shape
        )
        counts.append(rng.binomial(ITEMS, chunk_rates(special.ndtr(own), rate, setting.icc)))
    return counts[0], counts[1]


def first_times(d: Array, gap: float, bets: sequential.Bets) -> tuple[Array, Array, Array, Array]:
    """Chunks after which b is better, a is better, both are equal, and a bound excludes the gap; infinite: never; shape (reps,)."""
    reps, chunks = d.shape
    nulls = np.array([[0.0, -MARGIN, gap], [0.0, -MARGIN, -gap]])
    test = BettingTest(np.tile(nulls[:, None], (1, reps, 1)), alpha=ALPHA / 2, n_values=chunks, bets=bets)
    times = np.full((2, reps, 3), np.inf)
    targets = -np.log([ALPHA / 2, ALPHA, ALPHA / 2])
    for chunk in range(chunks):
        test.update(np.stack([d[:, chunk], -d[:, chunk]])[..., None])
        times[(test.log_peak >= targets) & np.isinf(times)] = chunk + 1
    return times[0, :, 0], times[1, :, 0], times[:, :, 1].max(axis=0), times[:, :, 2].min(axis=0)


def looks(chunks: int, *, in_turns: bool) -> Array:
    """Chunks at the end of each batch."""
    first = FIRST_IN_TURNS if in_turns else FIRST
    ends = [chunks if chunks < 1.5 * first else first]
    while ends[-1] < chunks:
        session = Session(
            stage="generate",
            model="all",
            started="",
            seconds=WORK_S * ends[-1],
            load_s=START_S * N_SERVERS * len(ends) if in_turns else 0.0,
            n_tasks=1,
            qaeval_version="",
        )
        ends.append(ends[-1] + next_batch(ends[-1], chunks, [session], len(ends)))
    return np.array(ends)


def gpu_share_saved(stops: Array, ends: Array) -> float:
    """Median share of GPU time that is saved in turns: work and starts of servers against one batch of all chunks."""
    n_batches = np.searchsorted(ends, stops) + 1
    used = WORK_S * stops + START_S * N_SERVERS * n_batches
    return float(np.median(1 - used / (WORK_S * ends[-1] + START_S * N_SERVERS)))


@dataclass(frozen=True)
class Outcome:
    """Shares of the runs of a cell."""

    wrong_best: float
    wrong_equal: float
    misses: float
    decided: float
    saved: float
    """Median share of the chunks, a batch ending where servers stay up."""
    saved_in_turns: float
    gpu: float
    n: int
    """Median of the chunks after which bets decide, wherever a batch ends."""


def simulate(
    setting: Setting, gap: float, reps: int, rng: Rng, bets: sequential.Bets = decision_bets
) -> Outcome:
    """Runs of two candidates by the judge's letters."""
    a, b = draw(setting, gap, reps, CHUNKS, rng)
    b_better, a_better, equal, missed = first_times((b - a) / ITEMS, gap, bets)
    stop = np.minimum(equal, np.minimum(a_better, b_better))

    def ended(ends: Array) -> tuple[Array, Array, Array]:
        """Chunks at the end of each run, and whether one is called best, wrongly, or both equal."""
        at = ends[np.minimum(np.searchsorted(ends, stop), len(ends) - 1)]
        # what was shown by the look counts: better comes before equal
        best = (b_better <= at) | (a_better <= at)
        wrong = (a_better <= at) | ((b_better <= at) & (gap == 0))
        return at, wrong, (equal <= at) & ~best

    at, wrong, is_equal = ended(looks(CHUNKS, in_turns=False))
    ends = looks(CHUNKS, in_turns=True)
    turns, wrong_turns, equal_turns = ended(ends)
    return Outcome(
        wrong_best=float(max(wrong.mean(), wrong_turns.mean())),
        wrong_equal=float(max(is_equal.mean(), equal_turns.mean())) if gap >= MARGIN else 0.0,
        misses=float(np.isfinite(missed).mean()),
        decided=float(np.isfinite(stop).mean()),
        saved=float(np.median(1 - at / CHUNKS)),
        saved_in_turns=float(np.median(1 - turns / CHUNKS)),
        gpu=gpu_share_saved(turns, ends),
        n=int(np.median(np.minimum(stop, CHUNKS))),
    )


def print_saved(reps: int, seed: int) -> None:
    """Print errors and savings by the judge's letters."""
    print(
        "| ICC, shared | sd | gap | wrong best | wrong equal | misses | decided | median n | chunks saved | in turns | GPU in turns |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for setting in SETTINGS:
        for number, gap in enumerate(GAPS):
            rng = np.random.default_rng([seed, SETTINGS.index(setting), number])
            a, b = draw(setting, gap, 200, CHUNKS, np.random.default_rng(seed))
            o = simulate(setting, gap, reps, rng)
            chunks, gpu = GOALS[gap]
            print(
                f"| {setting.icc}, {setting.shared} | {((b - a) / ITEMS).std():.2f} | {100 * gap:.0f} | {o.wrong_best:.3f} "
                f"| {o.wrong_equal:.3f} | {o.misses:.3f} | {o.decided:.2f} | {o.n:,} | {against(o.saved, chunks)} "
                f"| {100 * o.saved_in_turns:.0f} % | {against(o.gpu, gpu)} |",
                flush=True,
            )


def against(share: float, goal: int | None) -> str:
    """Print a share and its goal."""
    text = f"{100 * share:.0f} %"
    return text if goal is None else f"{text} ({'goal' if 100 * share >= goal else 'misses'} {goal})"


def print_bets(reps: int, seed: int) -> None:
    """Print the median number of chunks under other bets."""
    print(
        "\n| bets | "
        + " | ".join(f"{100 * gap:.0f} points" for gap in GAPS)
        + " |\n|---|"
        + "---|" * len(GAPS)
    )
    for name, bets in (("of the product", decision_bets), ("of the sequential gate", deadline_bets)):
        row = [simulate(SETTINGS[1], gap, reps, np.random.default_rng([seed, 7]), bets).n for gap in GAPS]
        print(f"| {name} | " + " | ".join(f"{n:,}" for n in row) + " |", flush=True)


def print_corrected(reps: int, seed: int, *, chunks: int, share: float, favour: float) -> None:
    """Print the errors where labels correct a judge that favours the second candidate."""
    print(
        f"\n| {chunks:,} chunks, {100 * share:.0f} % labelled, judge favours the second by {100 * favour:.0f} points: gap of the labels "
        "| wrong best | wrong equal | decided | chunks saved |\n|---|---|---|---|---|"
    )
    ends = looks(chunks, in_turns=False)
    for number, gap in enumerate(GAPS):
        rng = np.random.default_rng([seed, 99, number])
        a, b = draw(SETTINGS[0], gap, reps, chunks, rng)
        # the judge takes usable items of the first for unusable, and some unusable ones of both for usable
        kept = 0.95 - favour / RATE, 0.95
        h = [
            rng.binomial(y, keep) + rng.binomial(ITEMS - y, 0.2) for y, keep in zip((a, b), kept, strict=True)
        ]
        is_labelled = rng.random(chunks) < share
        y = np.where(is_labelled, (b - a) / ITEMS, np.nan)
        shown = corrected_looks(
            (h[1] - h[0]) / ITEMS,
            y,
            looks=ends.tolist(),
            n_values=chunks,
            margin=MARGIN,
            alpha=ALPHA,
            # a coarse grid is fast, and the smallest capital over fewer divisions errs no less often
            step=MARGIN,
        )
        better = np.array([look.p_value <= ALPHA for look in shown])
        is_b = np.array([look.low > 0 for look in shown])
        equal = np.array([look.p_equivalent <= ALPHA for look in shown]) & ~better
        decided = better | equal
        stop = np.where(decided.any(axis=0), decided.argmax(axis=0), len(ends) - 1)
        at = (stop, np.arange(reps))
        wrong = better[at] & (~is_b[at] | (gap == 0))
        wrong_equal = equal[at].mean() if gap >= MARGIN else 0.0
        print(
            f"| {100 * gap:.0f} | {wrong.mean():.3f} | {wrong_equal:.3f} | {decided.any(axis=0).mean():.2f} "
            f"| {100 * np.median(1 - ends[stop] / chunks):.0f} % |",
            flush=True,
        )


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=2000, help="simulated runs of each cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corrected", action="store_true", help="runs with labels alone")
    parser.add_argument("--chunks", type=int, default=600, help="chunks of runs with labels")
    options = parser.parse_args()
    start = time.perf_counter()
    if options.corrected:
        for share, favour in ((0.3, 0.08), (1.0, 0.08)):
            print_corrected(options.reps, options.seed, chunks=options.chunks, share=share, favour=favour)
    else:
        print_saved(options.reps, options.seed)
        print_bets(options.reps, options.seed)
    print(f"\n{options.reps:,} runs a cell; {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
