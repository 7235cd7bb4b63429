"""How valid are the default intervals and tests? Simulates clustered grades and prints Markdown tables.

Run ``python benchmarks/validity.py --reps 2000`` for chunks of three items, and ``--part rates``, ``kappa`` and
``documents`` for the wide grid: chunks of 1 to 6 items and rare failures that come in whole chunks, judges from
nearly constant to nearly perfect, documents whose chunks are alike. The chunk's own rate of A is drawn from a beta
distribution with the given mean and intraclass correlation (ICC); two candidates share the chunk's
difficulty. Nothing here is read from or written to a file.
"""

import argparse
import time
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from qaeval.stats.coefficients import kappa
from qaeval.stats.estimate import Estimate
from qaeval.stats.intervals import clustered_rate
from qaeval.stats.margins import non_inferiority
from qaeval.stats.paired import agreeing_with_test, paired_difference, sign_flip_test
from qaeval.stats.planning import Pilot, plan, simulated_power
from qaeval.stats.reliability import kappa_interval

Array = NDArray[Any]

ITEMS = 3
CHUNKS = (20, 60, 200)
RATES = (0.5, 0.8, 0.93, 0.99)
ICCS = (0.0, 0.2, 0.5)
LOSS = 0.05
ALPHA = 0.05
GRID = special.expit(np.linspace(-40, 40, 6001))


@dataclass(frozen=True)
class Setting:
    """One row of the tables."""

    chunks: int
    rate: float
    icc: float


@dataclass(frozen=True)
class Validity:
    """Results of one setting; coverages and rates are shares of the runs."""

    equal: float
    worse: float
    false_alarm: float
    plain_worse: float
    false_pass: float
    plain_false_pass: float
    difference: float
    planned: float
    reached: float


def main() -> None:
    """Simulate every setting and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=2000, help="simulated runs of each setting")
    parser.add_argument("--seed", type=int, default=1)
    wide = {"rates": print_rates, "kappa": print_kappa, "documents": print_documents}
    parser.add_argument("--part", choices=("equal", *wide), default="equal", help="what is drawn")
    options = parser.parse_args()
    start = time.perf_counter()
    if options.part in wide:
        wide[options.part](reps=options.reps, seed=options.seed)
        print(f"\n{options.reps} runs of each setting; {time.perf_counter() - start:.0f} s.")
        return
    results = {
        setting: simulate(setting, reps=options.reps, rng=np.random.default_rng([options.seed, number]))
        for number, setting in enumerate(Setting(*values) for values in product(CHUNKS, RATES, ICCS))
    }
    print_validity(results)
    print_power(results)
    print_summary(results, options.reps, time.perf_counter() - start)


def simulate(setting: Setting, *, reps: int, rng: np.random.Generator) -> Validity:
    """Draw `reps` runs of a setting and see how often intervals and tests are right."""
    p = setting.rate
    a, b = grades(setting, p, p, reps, rng)
    base, worse = grades(setting, p, p - LOSS, reps, rng)
    difference, planned = detectable(setting, rng)
    # a share near 0.8 is known less well than one near 0.05
    better, weaker = grades(setting, p, p - difference, 3 * reps, rng)
    return Validity(
        equal=coverage(differences(a, b), 0),
        worse=coverage(differences(base, worse), -LOSS),
        plain_worse=coverage(differences(base, worse, span=None), -LOSS),
        false_alarm=alarms(a, b),
        false_pass=passes(base, worse),
        plain_false_pass=passes(base, worse, span=None),
        difference=difference,
        planned=planned,
        reached=alarms(better, weaker),
    )


def differences(a: Array, b: Array, span: float | None = 1.0) -> list[Estimate]:
    """Paired difference of each run."""
    return [paired_difference(x / ITEMS, y / ITEMS, span=span) for x, y in zip(a, b, strict=True)]


def coverage(estimates: list[Estimate], truth: float) -> float:
    """Share of the intervals that hold the true value."""
    return float(np.mean([e.low - 1e-12 <= truth <= e.high + 1e-12 for e in estimates]))


def alarms(a: Array, b: Array) -> float:
    """Share of the runs in which the sign-flip test finds a difference at 5 %."""
    return float(np.mean([sign_flip_test((y - x) / ITEMS) <= ALPHA for x, y in zip(a, b, strict=True)]))


def passes(a: Array, b: Array, span: float | None = 1.0) -> float:
    """Share of the runs in which a candidate that loses exactly the margin passes for non-inferior."""
    runs = zip(a, b, strict=True)
    return float(
        np.mean([non_inferiority(x / ITEMS, y / ITEMS, margin=LOSS, span=span).is_shown for x, y in runs])
    )


def chunk_rates(u: Array, mean: float, icc: float) -> Array:
    """Quantiles `u` of the distribution of a chunk's rate."""
    if icc == 0:
        return np.full(u.shape, mean)
    scale = (1 - icc) / icc
    quantiles: Array = np.interp(u, special.betainc(mean * scale, (1 - mean) * scale, GRID), GRID)
    return quantiles


def grades(
    setting: Setting, rate_a: float, rate_b: float, reps: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Number of A among the items of each chunk for two candidates, shape (reps, chunks) each."""
    u = rng.random((reps, setting.chunks))
    a, b = (rng.binomial(ITEMS, chunk_rates(u, rate, setting.icc)) for rate in (rate_a, rate_b))
    return a, b


def detectable(setting: Setting, rng: np.random.Generator) -> tuple[float, float]:
    """Loss that a pilot of two equal candidates says is found with 80 %, and the power that is planned for it.

    The pilot of equal candidates has to guess how a loss spreads over the chunks; the power comes from a second
    pilot, whose candidates differ by that loss. Where so few chunks find no loss, the whole rate but a point is lost.
    """
    size = Setting(chunks=40_000, rate=setting.rate, icc=setting.icc)
    equal = Pilot.of(*(run[0] for run in grades(size, setting.rate, setting.rate, 1, rng)), ITEMS)
    promised = plan(equal, LOSS, n_chunks=setting.chunks).detectable
    difference = float(np.fmin(promised, setting.rate - 0.01))
    pilot = Pilot.of(
        *(run[0] for run in grades(size, setting.rate, setting.rate - difference, 1, rng)), ITEMS
    )
    return difference, simulated_power(pilot, setting.chunks, difference)


def print_validity(results: dict[Setting, Validity]) -> None:
    """Print coverage of rates and differences, and the error rates of the tests."""
    print("| chunks | A rate | ICC | equal | 5 pp worse | plain t | alarms | passes | plain t |")
    print("|---|---|---|---|---|---|---|---|---|")
    for s, v in results.items():
        print(
            f"| {s.chunks} | {s.rate} | {s.icc} | {v.equal:.3f} | {v.worse:.3f} "
            f"| {v.plain_worse:.3f} | {v.false_alarm:.3f} | {v.false_pass:.3f} | {v.plain_false_pass:.3f} |"
        )
    print(
        "\nequal, 5 pp worse, plain t: coverage of the 95 % interval of\n"
        "the paired difference, the last one with plain Student's t. alarms: the sign-flip test at 5 % for equal\n"
        "candidates. passes, plain t: a candidate that loses exactly the margin of 5 points is found non-inferior at\n"
        "5 %, the last one with plain Student's t.\n"
    )


def print_power(results: dict[Setting, Validity]) -> None:
    """Print the power that is planned and reached."""
    print("| chunks | A rate | ICC | difference | planned | reached |")
    print("|---|---|---|---|---|---|")
    for s, v in results.items():
        print(f"| {s.chunks} | {s.rate} | {s.icc} | {v.difference:.3f} | {v.planned:.2f} | {v.reached:.2f} |")
    print(
        "\ndifference: the loss that a pilot of two equal candidates is planned to find with 80 %. planned: the power\n"
        "for that loss, from a pilot that shows it. reached: share of the runs in which the sign-flip test, which\n"
        "decides the verdict, finds it.\n"
    )


def print_summary(results: dict[Setting, Validity], reps: int, seconds: float) -> None:
    """Print the worst case of each column."""
    cells = list(results.values())
    for name in ("equal", "worse", "plain_worse"):
        print(f"- lowest coverage, {name}: {np.nanmin([getattr(v, name) for v in cells]):.3f}")
    for name in ("false_alarm", "false_pass", "plain_false_pass"):
        print(f"- highest rate, {name}: {max(getattr(v, name) for v in cells):.3f}")
    print(
        f"- largest gap between planned and reached power: {max(abs(v.planned - v.reached) for v in cells):.3f}"
    )
    error = 2 * np.sqrt(0.05 * 0.95 / reps)
    print(
        f"\n{reps} runs of each setting (two standard errors: {error:.3f}), {3 * reps} for the power reached; {seconds:.0f} s."
    )


# ------------------------------------------------------------------------- the wide grid

SIZES = np.arange(1, 7)
WIDE = (
    *(Setting(*values) for values in product((20, 60, 200), (0.5, 0.8, 0.93, 0.98, 0.995), (0.0, 0.3, 0.6))),
    Setting(400, 0.99, 0.3),
)
"""Rates below 0.5 mirror those above it: successes and failures change places."""
CHUNKS_OF_A_DOCUMENT = 5
FALSE_ALARM = 0.02
RECALLS = (0.1, 0.5, 0.9, 0.99)
LETTER_SHARES = ((0.5, 0.3, 0.2), (0.8, 0.12, 0.08))


def print_rates(*, reps: int, seed: int) -> None:
    """Print coverage of rates and differences, errors of limit rules and alarms, for chunks of 1 to 6 items."""
    print(
        "| chunks | rate | ICC | rate covered | logit | Wilson | limit passes | equal | 5 pp worse | alarms |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for number, setting in enumerate(WIDE):
        cells = wide_cells(setting, reps, np.random.default_rng([seed, number]))
        print(f"| {setting.chunks} | {setting.rate} | {setting.icc} | {' | '.join(cells)} |", flush=True)
    print_whole_chunks(reps=reps, seed=seed)


def print_whole_chunks(*, reps: int, seed: int) -> None:
    """Print coverage of a rate, and errors of a limit rule, where a share of the chunks succeeds or fails whole."""
    print("\n| chunks | rate | whole chunks | rate covered | logit | Wilson | limit passes | by logit |")
    print("|---|---|---|---|---|---|---|---|")
    grid = ((20, 0.98, 0.6), (60, 0.98, 0.6), (200, 0.98, 0.6), (400, 0.99, 0.3), (400, 0.99, 1.0))
    for number, (chunks, rate, whole) in enumerate(grid):
        rng = np.random.default_rng([seed, 300 + number])
        covered: tuple[list[bool], list[bool], list[bool]] = ([], [], [])
        limits: tuple[list[Estimate], list[Estimate]] = ([], [])
        for _ in range(reps):
            sizes = rng.choice(SIZES, chunks)
            all_or_none = sizes * (rng.random(chunks) < rate)
            hits = np.where(rng.random(chunks) < whole, all_or_none, rng.binomial(sizes, rate))
            for method, runs in zip(("gaffke", "logit", "wilson"), covered, strict=True):
                runs.append(is_inside(clustered_rate(hits, sizes, method=method), rate))
            for method, bounds in zip(("gaffke", "logit"), limits, strict=True):
                bounds.append(clustered_rate(hits, sizes, method=method, level=1 - 2 * ALPHA))
        errors = [
            max(np.mean([e.low > rate for e in bounds]), np.mean([e.high < rate for e in bounds]))
            for bounds in limits
        ]
        cells = [*(shares_of(runs) for runs in covered), *(f"{error:.3f}" for error in errors)]
        print(f"| {chunks} | {rate} | {whole} | {' | '.join(cells)} |", flush=True)


def print_kappa(*, reps: int, seed: int) -> None:
    """Print coverage of kappa for judges from nearly constant to nearly perfect."""
    print("| chunks | A, B, C | recall | ICC | kappa | quadratic | warned |\n|---|---|---|---|---|---|---|")
    grid = product((20, 60, 200), LETTER_SHARES, RECALLS, (0.0, 0.6))
    for number, (chunks, shares, recall, icc) in enumerate(grid):
        rng = np.random.default_rng([seed, 100 + number])
        cells = kappa_cells(chunks, np.array(shares), recall, icc, reps, rng)
        name = ", ".join(f"{share:g}" for share in shares)
        print(f"| {chunks} | {name} | {recall} | {icc} | {' | '.join(cells)} |", flush=True)


def print_documents(*, reps: int, seed: int) -> None:
    """Print what is covered where the chunks of a document are alike."""
    print(
        "| chunks | rate | ICC of documents | rate by chunk | by document | difference by chunk | by document |"
    )
    print("|---|---|---|---|---|---|---|")
    for number, (chunks, rate, icc) in enumerate(product((100, 300), (0.8, 0.95), (0.05, 0.2))):
        cells = document_cells(chunks, rate, icc, reps, np.random.default_rng([seed, 200 + number]))
        print(f"| {chunks} | {rate} | {icc} | {' | '.join(cells)} |", flush=True)


def shares_of(estimates: list[bool]) -> str:
    """Print a share of runs."""
    return f"{np.mean(estimates):.3f}" if estimates else "-"


def wide_cells(setting: Setting, reps: int, rng: np.random.Generator) -> list[str]:
    """Coverage of a rate, errors of a limit rule, coverage and alarms of a difference, for chunks of 1 to 6 items."""
    p, shape = setting.rate, (reps, setting.chunks)
    sizes, u = rng.choice(SIZES, shape), rng.random(shape)
    better = chunk_rates(u, p, setting.icc)
    a, b = rng.binomial(sizes, better), rng.binomial(sizes, better)
    worse = rng.binomial(sizes, chunk_rates(u, p - LOSS, setting.icc))
    covered = [
        [is_inside(clustered_rate(hits, n, method=method), p) for hits, n in zip(a, sizes, strict=True)]
        for method in ("gaffke", "logit", "wilson")
    ]
    limits = [clustered_rate(hits, n, level=1 - 2 * ALPHA) for hits, n in zip(a, sizes, strict=True)]
    passes_falsely = max(np.mean([e.low > p for e in limits]), np.mean([e.high < p for e in limits]))
    equal = [weighted_difference(*run) for run in zip(a, b, sizes, strict=True)]
    lower = [weighted_difference(*run) for run in zip(a, worse, sizes, strict=True)]
    return [
        *(shares_of(method) for method in covered),
        f"{passes_falsely:.3f}",
        shares_of([is_inside(estimate, 0.0) for estimate, _ in equal]),
        shares_of([is_inside(estimate, -LOSS) for estimate, _ in lower]),
        shares_of([p_value <= ALPHA for _, p_value in equal]),
    ]


def weighted_difference(a: Array, b: Array, sizes: Array) -> tuple[Estimate, float]:
    """Difference of the rates of two candidates, b minus a, as `qaeval compare` makes it, and its p-value."""
    net, p_value = b - a, sign_flip_test(b - a)
    difference = net.sum() / sizes.sum()
    values = difference + (net - difference * sizes) / sizes.mean()
    span = max(1.0, float(np.abs(values).max()))
    return agreeing_with_test(paired_difference(np.zeros_like(values), values, span=span), p_value), p_value


def is_inside(estimate: Estimate, truth: float) -> bool:
    """Whether the interval holds the true value."""
    return estimate.low - 1e-9 <= truth <= estimate.high + 1e-9


def kappa_cells(
    chunks: int, shares: Array, recall: float, icc: float, reps: int, rng: np.random.Generator
) -> list[str]:
    """Coverage of kappa where it carries no warning, for a judge that finds lower letters with this recall, else gives A."""
    wrong = np.array([[1 - FALSE_ALARM, 0.7 * FALSE_ALARM, 0.3 * FALSE_ALARM], [1, 0, 0], [1, 0, 0]])
    moves = np.where(np.arange(3)[:, None] == 0, wrong, (1 - recall) * wrong + recall * np.eye(3))
    truths = [float(kappa(np.diag(shares) @ moves, weights=weights)) for weights in (None, "quadratic")]
    covered: tuple[list[bool], list[bool]] = ([], [])
    for _ in range(reps):
        clusters = np.repeat(np.arange(chunks), rng.choice(SIZES, chunks))
        rates = np.tile(shares, (chunks, 1))
        if icc:
            gamma = rng.gamma(shares * (1 - icc) / icc, size=(chunks, 3)) + 1e-300
            rates = gamma / gamma.sum(axis=1, keepdims=True)
        draws = rng.random((2, len(clusters), 1))
        reference = (draws[0] > rates.cumsum(axis=1)[clusters, :2]).sum(axis=1)
        judge = (draws[1] > moves.cumsum(axis=1)[reference, :2]).sum(axis=1)
        for weights, truth, runs in zip((None, "quadratic"), truths, covered, strict=True):
            estimate = kappa_interval(reference, judge, clusters, n_levels=3, weights=weights)
            if estimate.reason is None:
                runs.append(is_inside(estimate, truth))
    # of a handful of runs without a warning the share says nothing
    enough = [runs if len(runs) >= reps / 20 else [] for runs in covered]
    return [*(shares_of(runs) for runs in enough), f"{1 - len(covered[0]) / reps:.2f}"]


def document_cells(chunks: int, rate: float, icc: float, reps: int, rng: np.random.Generator) -> list[str]:
    """Coverage where the chunks of a document are alike, for each candidate by itself; ICC of a chunk's items 0.2 beyond that."""
    documents, covered = chunks // CHUNKS_OF_A_DOCUMENT, ([], [], [], [])
    for _ in range(reps):
        of_documents = chunk_rates(rng.random((2, documents)), rate, icc).clip(1e-6, 1 - 1e-6)
        rates = of_documents.repeat(CHUNKS_OF_A_DOCUMENT, axis=1)
        sizes = rng.choice(SIZES, chunks)
        a, b = rng.binomial(sizes, rng.beta(4 * rates, 4 * (1 - rates)))
        whole = [x.reshape(documents, -1).sum(axis=1) for x in (a, b, sizes)]
        for runs, estimate, truth in zip(
            covered,
            (
                clustered_rate(a, sizes),
                clustered_rate(whole[0], whole[2]),
                weighted_difference(a, b, sizes)[0],
                weighted_difference(*whole)[0],
            ),
            (rate, rate, 0.0, 0.0),
            strict=True,
        ):
            runs.append(is_inside(estimate, truth))
    return [shares_of(runs) for runs in covered]


if __name__ == "__main__":
    main()
