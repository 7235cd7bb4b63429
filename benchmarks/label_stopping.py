"""How often does a stop of labelling err, and how many labels does it save? Simulates runs and prints Markdown tables.

Run ``python benchmarks/label_stopping.py``. Two candidates share the difficulty of a chunk; the usable rate of a chunk has a
beta distribution with the given intraclass correlation (ICC). The second candidate is better by the gap. The judge is worthless
(what it says does not depend on the label), fair or very good, and may count a share of the first candidate's usable items as not
usable, so that it favours the second. Chunks are labelled in random order until `decide_by_labels` decides. Nothing here is read
from or written to a file.

``pool``: bets after every chunk; the truth is the difference of all labels of the run. ``future``: planned looks; the truth is the
gap. With ``--part 2/4`` every fourth cell is run, from the second.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from qaeval.stats.stopping import PoolBets, decide_by_labels

Array = NDArray[Any]
Rng = np.random.Generator

CHUNKS = (20, 60, 200)
GAPS = (0.0, 0.05, 0.1, 0.16)
JUDGES = {"worthless": (0.7, 0.7), "fair": (0.95, 0.5), "very good": (0.98, 0.03)}
"""Share of the usable items, and of the others, that the judge calls usable."""
FAVOURS = (0.0, 0.3)
SIZES = ((1, 1), (3, 3), (1, 6))
ICCS = (0.0, 0.3, 0.6)
RATE = 0.75
ALPHA = 0.05
QUANTILES = special.expit(np.linspace(-40, 40, 6001))


@dataclass(frozen=True)
class Cell:
    """One setting."""

    chunks: int
    gap: float
    judge: str
    favour: float
    sizes: tuple[int, int]
    icc: float


@dataclass(frozen=True)
class Errors:
    """Shares of the runs of a cell."""

    wrong_best: float
    """A candidate is called best that is not."""
    wrong_equal: float
    """Candidates are called equal that differ by the margin or more."""
    misses: float
    """The true difference is outside a 95 % one-sided bound at any look, the more frequent side; NaN where not counted."""
    best: float
    """A candidate is called best before all chunks are labelled."""
    equal: float
    """Candidates are called equal before all chunks are labelled."""
    labelled: float
    """Mean share of the chunks that are labelled at the end."""


def cells() -> list[Cell]:
    """All 648 settings."""
    return [Cell(*levels) for levels in product(CHUNKS, GAPS, JUDGES, FAVOURS, SIZES, ICCS)]


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--estimand", choices=("pool", "future"), default="pool")
    parser.add_argument("--reps", type=int, default=2000, help="simulated runs of each cell")
    parser.add_argument("--margin", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", default="1/1", metavar="K/N", help="every Nth cell, from the Kth")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    start = time.perf_counter()
    part, n_parts = (int(number) for number in options.part.split("/"))
    numbered = list(enumerate(cells()))[part - 1 :: n_parts]
    simulate = simulated_pool if options.estimand == "pool" else simulated_future
    work = partial(simulate, reps=options.reps, margin=options.margin, seed=options.seed)
    with ProcessPoolExecutor(options.jobs) as pool:
        results = dict(pool.map(work, numbered))
    print_errors(results)
    if options.estimand == "pool":
        print_several(options.reps, np.random.default_rng([options.seed, 10_000]))
    print(f"\n{len(results)} cells of {options.reps} runs each; {time.perf_counter() - start:.0f} s.")


def draw(cell: Cell, n_candidates: int, reps: int, rng: Rng) -> tuple[Array, Array, Array]:
    """Judge's and labels' usable rates, shape (candidates, reps, chunks), and items of each chunk, shape (reps, chunks)."""
    shape = (reps, cell.chunks)
    sizes = rng.integers(cell.sizes[0], cell.sizes[1] + 1, shape)
    difficulty = rng.random(shape)
    kept, missed = JUDGES[cell.judge]
    usable, judged = [], []
    for candidate in range(n_candidates):
        better = candidate == 1
        y = rng.binomial(sizes, chunk_rates(difficulty, RATE + cell.gap * better, cell.icc))
        seen = kept if better else max(0.0, kept - cell.favour)
        usable.append(y / sizes)
        judged.append((rng.binomial(y, seen) + rng.binomial(sizes - y, missed)) / sizes)
    return np.array(judged), np.array(usable), sizes


def chunk_rates(u: Array, mean: float, icc: float) -> Array:
    """Quantiles `u` of the distribution of a chunk's rate."""
    if icc == 0:
        return np.full(u.shape, mean)
    scale = (1 - icc) / icc
    cdf = special.betainc(mean * scale, (1 - mean) * scale, QUANTILES)
    return np.asarray(np.interp(u, cdf, QUANTILES))


def first_times(h: Array, d: Array, w: Array, nulls: Array, levels: Sequence[float]) -> Array:
    """Labelled chunks at which each null is excluded from below, its level's error rate, shape (reps, nulls); infinite: never.

    The chunk that leaves nothing to label counts as never: nothing is left to stop.
    """
    n_chunks = h.shape[-1]
    bets, targets = PoolBets(h, w, nulls), -np.log(np.asarray(levels))
    times = np.full((len(h), nulls.shape[-1]), np.inf)
    for chunk in range(n_chunks - 1):
        bets.update(d[:, chunk])
        times[(bets.log_peak >= targets) & np.isinf(times)] = chunk + 1
    return times


def simulated_pool(numbered: tuple[int, Cell], *, reps: int, margin: float, seed: int) -> tuple[Cell, Errors]:
    """Runs of two candidates whose chunks are labelled until the bets decide."""
    number, cell = numbered
    judged, usable, sizes = draw(cell, 2, reps, np.random.default_rng([seed, number]))
    h, d, w = judged[1] - judged[0], usable[1] - usable[0], sizes / sizes.mean(axis=1, keepdims=True)
    truth = (w * d).mean(axis=1)
    up, down = (
        first_times(
            sign * h,
            sign * d,
            w,
            np.stack([np.zeros(reps), np.full(reps, -margin), sign * truth], axis=1),
            (ALPHA / 2, ALPHA, ALPHA),
        )
        for sign in (1, -1)
    )
    equal, b_best, a_best = np.maximum(up[:, 1], down[:, 1]), up[:, 0], down[:, 0]
    stop = np.minimum(equal, np.minimum(a_best, b_best))
    is_equal = np.isfinite(stop) & (equal == stop)
    is_b, is_a = (np.isfinite(stop) & ~is_equal & (time == stop) for time in (b_best, a_best))
    return cell, Errors(
        wrong_best=float(((is_b & (truth <= 1e-9)) | (is_a & (truth >= -1e-9))).mean()),
        wrong_equal=float((is_equal & (np.abs(truth) >= margin - 1e-9)).mean()),
        misses=float(max(np.isfinite(up[:, 2]).mean(), np.isfinite(down[:, 2]).mean())),
        best=float((is_a | is_b).mean()),
        equal=float(is_equal.mean()),
        labelled=float(np.minimum(stop / cell.chunks, 1).mean()),
    )


def simulated_future(
    numbered: tuple[int, Cell], *, reps: int, margin: float, seed: int
) -> tuple[Cell, Errors]:
    """Runs of two candidates whose chunks are labelled until a planned look decides."""
    number, cell = numbered
    judged, usable, sizes = draw(cell, 2, reps, np.random.default_rng([seed, number]))
    outcomes = []
    for run in range(reps):
        # with all labels at hand the decision is that of the first look that decides
        decision = decide_by_labels(
            judged[:, run],
            usable[:, run],
            np.arange(cell.chunks),
            margin=margin,
            alpha=ALPHA,
            sizes=sizes[run],
            estimand="future",
        )
        n = decision.pairs[0].difference.n_clusters
        outcomes.append(
            (decision.outcome == "best", decision.leaders == (0,), decision.outcome == "equal", n)
        )
    best, is_a, equal, n_labelled = np.array(outcomes).T
    early = n_labelled < cell.chunks
    return cell, Errors(
        wrong_best=float(best.mean() if cell.gap == 0 else is_a.mean()),
        wrong_equal=float(equal.mean()) if cell.gap >= margin - 1e-9 else 0.0,
        misses=float("nan"),
        best=float((best * early).mean()),
        equal=float((equal * early).mean()),
        labelled=float(n_labelled.mean() / cell.chunks),
    )


def print_errors(results: dict[Cell, Errors]) -> None:
    """Print one row for chunks, gap and judge: the largest error over sizes, ICC and favour, and the means of the rest."""
    print("| chunks | gap | judge | wrong best | wrong equal | misses | best | equal | labelled |")
    print("|---|---|---|---|---|---|---|---|---|")
    for chunks, gap, judge in product(CHUNKS, GAPS, JUDGES):
        rows = [e for c, e in results.items() if (c.chunks, c.gap, c.judge) == (chunks, gap, judge)]
        if rows:
            print(
                f"| {chunks} | {gap} | {judge} | {max(e.wrong_best for e in rows):.3f} "
                f"| {max(e.wrong_equal for e in rows):.3f} | {number(max(e.misses for e in rows))} "
                f"| {np.mean([e.best for e in rows]):.2f} | {np.mean([e.equal for e in rows]):.2f} "
                f"| {np.mean([e.labelled for e in rows]):.2f} |"
            )
    for name in ("wrong_best", "wrong_equal", "misses"):
        cell = max(results, key=lambda c: getattr(results[c], name))
        print(f"- largest {name}: {number(getattr(results[cell], name))} in {cell}")


def number(value: float) -> str:
    """Three digits, or a dash for NaN."""
    return "-" if np.isnan(value) else f"{value:.3f}"


def print_several(reps: int, rng: Rng) -> None:
    """Print the errors with three candidates, of which the second and the third are level or all three."""
    print("\n| chunks | candidates level | wrong best | labelled |\n|---|---|---|---|")
    for chunks, gap in product((20, 60), (0.0, 0.2)):
        cell = Cell(chunks, gap, "fair", 0.0, (3, 3), 0.3)
        judged, usable, sizes = draw(cell, 3, reps, rng)
        if gap:
            # exact copies in another order of chunks: level in the pool
            order = rng.permuted(np.tile(np.arange(chunks), (reps, 1)), axis=1)
            for x in (judged, usable):
                x[2] = np.take_along_axis(x[1], order, axis=1)
        w = sizes / sizes.mean(axis=1, keepdims=True)
        truth = (w * usable).mean(axis=2)
        best = np.full((3, reps), -np.inf)
        nulls = np.zeros((reps, 1))
        for a in range(3):
            for b in range(3):
                if a != b:
                    times = first_times(judged[a] - judged[b], usable[a] - usable[b], w, nulls, (ALPHA / 3,))
                    best[a] = np.maximum(best[a], times[:, 0])
        stop = best.min(axis=0)
        others = np.array([np.delete(truth, a, axis=0).max(axis=0) for a in range(3)])
        wrong = (np.isfinite(best) & (truth <= others + 1e-9)).any(axis=0)
        print(
            f"| {chunks} | {'two' if gap else 'all, but for chance'} | {wrong.mean():.3f} "
            f"| {np.minimum(stop / chunks, 1).mean():.2f} |"
        )


if __name__ == "__main__":
    main()
