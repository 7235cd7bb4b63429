"""How often the regression gate errs, what it finds, and what looking after each chunk saves and costs.

Run ``python benchmarks/gate.py --reps 10000``; it prints Markdown tables. Chunks differ in difficulty by a normal effect on the
logit of their rate, which baseline and run share in part. "At once" is the gate as `qaeval gate` decides it; "sequential" is
``--sequential``: the grading stops where all rules pass, or one is proven to be worse. Intervals and bets are the gate's own code;
that the verdicts made of them here are the gate's is a test. Nothing here is read from or written to a file.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from qaeval.gate.estimates import Counts, PairedRates, permutation_p_value
from qaeval.gate.policy import default_margins
from qaeval.stats.sequential import Bets, BettingTest

Array = NDArray[Any]

ALPHA = 0.05
USABLE_MARGIN, OTHER_MARGIN = 0.05, 0.03
GRADED = 0.98
"""Share of the items with a letter, where there are 3 rules: a change of their usable rate is smaller by as much of all items."""
HERMITE = np.polynomial.hermite_e.hermegauss(80)


@dataclass(frozen=True)
class Setting:
    """Who is drawn from."""

    name: str
    chunks: int
    rate: float
    """Of usable items in the baseline."""
    sizes: tuple[int, ...] = (3,)
    """Items of the chunks, in turns."""
    spread: float = 1.2
    """Of the chunks, on the logit scale."""
    shared: float = 0.5
    """Correlation of the chunks' effects in baseline and run."""
    rules: int = 1
    """1: usable items. 3: usable items, a flag on a part of the others, graded items."""
    margins: tuple[float, float] = (USABLE_MARGIN, OTHER_MARGIN)
    """Of usable items and of the other rules."""


SETTINGS = (
    *(Setting("3 items", chunks, 0.8) for chunks in (100, 200, 300, 600)),
    Setting("3 items, A rate 93 %", 200, 0.93),
    Setting("3 items, A rate 50 %", 200, 0.5),
    Setting("3 items, chunks alike", 200, 0.8, spread=0.0),
    Setting("3 items, chunks very different", 200, 0.8, spread=2.5),
    Setting("1 item", 200, 0.8, sizes=(1,)),
    Setting("1 to 5 items", 200, 0.8, sizes=(1, 2, 3, 4, 5)),
    Setting("3 items, 3 rules", 200, 0.8, rules=3),
    Setting("3 items, 3 rules", 300, 0.8, rules=3),
)

Side = tuple[Array, Array]
"""Items that count as hits and items that count, by gate and chunk, shape (reps, chunks) each."""
Drawn = list[tuple[Side, Side, float, float]]
"""By rule: baseline, run, margin, and 1 where higher is better, else -1."""


@cache
def intercept(rate: float, spread: float) -> float:
    """Find the logit at which the mean over chunks is the rate."""
    points, weights = HERMITE
    weights = weights / weights.sum()

    def over(logit: float) -> float:
        return float(weights @ special.expit(logit + spread * points)) - rate

    return float(optimize.brentq(over, -30, 30))


def draw(setting: Setting, change: float, reps: int, rng: np.random.Generator) -> Drawn:
    """Draw gates whose run has `change` more usable items than its baseline."""
    shape = (reps, setting.chunks)
    sizes = np.resize(setting.sizes, setting.chunks)
    common = rng.standard_normal(shape)
    sides = []
    for rate in (setting.rate, setting.rate + change):
        effects = np.sqrt(setting.shared) * common + np.sqrt(1 - setting.shared) * rng.standard_normal(shape)
        p = special.expit(intercept(rate, setting.spread) + setting.spread * effects)
        if setting.rules == 1:
            sides.append({"usable": (rng.binomial(sizes, p), np.broadcast_to(sizes, shape))})
            continue
        graded = rng.binomial(sizes, GRADED, shape)
        usable = rng.binomial(graded, p)
        flagged = rng.binomial(graded - usable, 0.25)
        asked = np.broadcast_to(sizes, shape)
        sides.append({"usable": (usable, asked), "flag": (flagged, graded), "graded": (graded, asked)})
    usable_margin, other = setting.margins
    about = {"usable": (usable_margin, 1.0), "flag": (other, -1.0), "graded": (other, 1.0)}
    return [(sides[0][name], sides[1][name], *about[name]) for name in sides[0]]


@dataclass(frozen=True)
class Outcomes:
    """What became of the gates, shape (reps,) each."""

    passes: Array
    regressions: Array
    saved: Array
    """Share of the chunks that need not be graded."""


def at_once(drawn: Drawn) -> Outcomes:
    """Decide each gate by all its chunks, as `qaeval.gate.rules` does: the smallest p-value by Holm's first step."""
    reps, n_chunks = drawn[0][0][0].shape
    passes, regressions = np.ones(reps, dtype=bool), np.zeros(reps, dtype=bool)
    names = tuple(map(str, range(n_chunks)))
    for baseline, run, margin, sign in drawn:
        for gate in range(reps):
            before, now = (Counts(names, hits[gate], totals[gate]) for hits, totals in (baseline, run))
            interval = PairedRates.of(before, now, higher_is_better=sign > 0)
            estimate, strict = interval(1 - 2 * ALPHA), interval(1 - 2 * ALPHA / len(drawn))
            keeps_margin = estimate.low > -margin if sign > 0 else estimate.high < margin
            worse = strict.high < 0 if sign > 0 else strict.low > 0
            passes[gate] &= keeps_margin
            if worse and not keeps_margin:
                regressions[gate] |= permutation_p_value(before, now, below=sign > 0) <= ALPHA / len(drawn)
    return Outcomes(passes & ~regressions, regressions, np.zeros(reps))


def one_by_one(drawn: Drawn, cross: "Cross | None" = None) -> Outcomes:
    """Look at all gates after each chunk, as `qaeval.gate.sequential` does, or with another way to look."""
    shown = cross or crossing
    reps, n_chunks = drawn[0][0][0].shape
    never = n_chunks + 1
    all_passed, first_worse = np.zeros(reps, dtype=int), np.full(reps, never)
    for baseline, run, margin, sign in drawn:
        values, weights = differences(baseline, run)
        margin_kept = shown(sign * values, weights, -margin, ALPHA)
        worse = shown(-sign * values, weights, 0.0, ALPHA / len(drawn))
        all_passed = np.maximum(all_passed, margin_kept)
        first_worse = np.minimum(first_worse, np.where(worse < margin_kept, worse, never))
    passes = (all_passed <= n_chunks) & (all_passed <= first_worse)
    regressions = (first_worse <= n_chunks) & ~passes
    looked_at = np.minimum(np.minimum(all_passed, first_worse), n_chunks)
    return Outcomes(passes, regressions, 1 - looked_at / n_chunks)


def differences(baseline: Side, run: Side) -> tuple[Array, Array]:
    """Return each chunk's difference, and its weight: by its items, next to nothing where none counts."""
    rates = [hits / np.maximum(totals, 1) for hits, totals in (baseline, run)]
    asked = run[1].max(axis=0)
    weights = np.where((baseline[1] > 0) & (run[1] > 0), asked / asked.mean(), 1e-9)
    return rates[1] - rates[0], weights


def crossing(values: Array, weights: Array, null: float, alpha: float, bets: Bets | None = None) -> Array:
    """Return after how many chunks the mean is shown to be above the null; one more than there are where it never is."""
    reps, n_chunks = values.shape
    betting = BettingTest(
        np.full(reps, null), alpha=alpha, n_values=n_chunks, max_weight=float(weights.max()), bets=bets
    )
    n_needed = np.full(reps, n_chunks + 1)
    for place in range(n_chunks):
        betting.update(values[:, place], weights[:, place])
        n_needed[(n_needed > n_chunks) & betting.is_above] = place + 1
    return n_needed


Cross = Callable[[Array, Array, float, float], Array]
"""Of values and weights by gate and chunk, a null and an error rate: after how many chunks the mean is shown to be above the null."""

# ------------------------------------------------------------------------- other looks, for comparison


def growth_bets(betting: BettingTest) -> Array:
    """Bet what would have made the capital grow fastest so far: aGRAPA of Waudby-Smith and Ramdas."""
    gain = betting.mean - betting.nulls if betting.n else np.zeros_like(betting.nulls)
    return np.asarray(gain / (betting.variance + gain**2))


def mixture_bets(betting: BettingTest) -> Array:
    """Bet less and less, for looks without end: the predictable plug-in of Waudby-Smith and Ramdas."""
    return np.asarray(
        np.sqrt(2 * betting.target / (betting.variance * (betting.n + 1) * np.log(betting.n + 2)))
    )


def constant_bets(betting: BettingTest) -> Array:
    """Bet the same all the time, best for the last chunk."""
    return np.asarray(np.sqrt(2 * betting.target / (betting.variance * betting.n_values)))


def of_the_pool(values: Array, _weights: Array, null: float, alpha: float) -> Array:
    """As `crossing`, without replacement: whether the mean of the run's own chunks is above the null, not that of all chunks."""
    reps, n_chunks = values.shape
    betting = BettingTest(np.full(reps, null), alpha=alpha, n_values=n_chunks)
    n_needed, total = np.full(reps, n_chunks + 1), np.zeros(reps)
    for place in range(n_chunks):
        betting.nulls = np.clip((n_chunks * null - total) / (n_chunks - place), -1.0, 1.0)
        betting.update(values[:, place])
        total = total + values[:, place]
        certain = total - (n_chunks - place - 1) > n_chunks * null
        n_needed[(n_needed > n_chunks) & (betting.is_above | certain)] = place + 1
    return n_needed


def mixture_rho(v: float, *, alpha: float) -> float:
    r"""Return the prior precision for which the normal mixture is narrowest at variance `v`.

    :math:`\rho = v / (2 \log(1/\alpha) + \log(1 + 2 \log(1/\alpha)))`. Source: Howard et al. 2021, section 3.5.
    """
    twice = 2 * log(1 / alpha)
    return v / (twice + log(1 + twice))


def normal_mixture(values: Array, _weights: Array, null: float, alpha: float) -> Array:
    """As `crossing`, by the normal mixture with the spread seen so far, from the 10th chunk; narrowest at the last one."""
    n, mean, variance = _moments(values)
    rho = mixture_rho(1.0, alpha=2 * alpha) * values.shape[1] * variance
    spread = n * variance
    log_capital = (n * (mean - null)) ** 2 / (2 * (spread + rho)) + np.log(rho / (spread + rho)) / 2
    return _first((mean > null) & (log_capital >= np.log(1 / (2 * alpha))))


def peeking(values: Array, _weights: Array, null: float, alpha: float) -> Array:
    """As `crossing`, by Student's t as if each look was the only one, from the 10th chunk."""
    n, mean, variance = _moments(values)
    return _first((mean - null) / np.sqrt(variance / n) > special.stdtrit(np.maximum(n - 1, 1), 1 - alpha))


def _moments(values: Array) -> tuple[Array, Array, Array]:
    n = np.arange(1, values.shape[1] + 1)
    mean = values.cumsum(axis=1) / n
    return n, mean, np.maximum((values**2).cumsum(axis=1) - n * mean**2, 1e-9) / np.maximum(n - 1, 1)


def _first(is_shown: Array) -> Array:
    is_shown[:, :9] = False
    return np.where(is_shown.any(axis=1), is_shown.argmax(axis=1) + 1, is_shown.shape[1] + 1)


LOOKS: dict[str, Cross] = {
    "bets of the gate": crossing,
    "constant bets for the last chunk": partial(crossing, bets=constant_bets),
    "bets for the fastest growth (aGRAPA)": partial(crossing, bets=growth_bets),
    "bets without a last chunk (predictable mixture)": partial(crossing, bets=mixture_bets),
    "normal mixture": normal_mixture,
    "bets without replacement": of_the_pool,
    "Student's t": peeking,
}

# ------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class GateRates:
    """Shares of the gates of one setting."""

    false_regression: float
    """Nothing changed."""
    passes: float
    """Nothing changed."""
    false_pass: float
    """A true loss of the margin."""
    finds: float
    """A true loss of 10 points."""
    saved_worse: tuple[float, float]
    """Mean and median share of the grading, a true loss of 10 points."""
    saved_better: tuple[float, float]
    """The same of a true gain."""
    saved_equal: float


def simulate(setting: Setting, decide: Callable[[Drawn], Outcomes], *, reps: int, seed: int) -> GateRates:
    """Draw gates of four kinds and decide them."""
    gain = min(0.1, (1 - setting.rate) * 0.75)
    same, lost, worse, better = (
        decide(draw(setting, change, reps, np.random.default_rng([seed, number])))
        for number, change in enumerate((0.0, -setting.margins[0], -0.1, gain))
    )
    return GateRates(
        false_regression=float(same.regressions.mean()),
        passes=float(same.passes.mean()),
        false_pass=float(lost.passes.mean()),
        finds=float(worse.regressions.mean()),
        saved_worse=(float(worse.saved.mean()), float(np.median(worse.saved))),
        saved_better=(float(better.saved.mean()), float(np.median(better.saved))),
        saved_equal=float(same.saved.mean()),
    )


def print_errors(results: dict[Setting, tuple[GateRates, GateRates]]) -> None:
    """Print what both ways of gating get wrong and right."""
    print("| chunks of | chunks | false regression | | false pass | | 10 points found | | equals pass | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print("| | | at once | seq. | at once | seq. | at once | seq. | at once | seq. |")
    for setting, (once, looked) in results.items():
        pairs = ("false_regression", "false_pass", "finds", "passes")
        cells = " | ".join(f"{getattr(rates, name):.3f}" for name in pairs for rates in (once, looked))
        print(f"| {setting.name} | {setting.chunks} | {cells} |")


def print_saved(results: dict[Setting, tuple[GateRates, GateRates]]) -> None:
    """Print what looking after each chunk saves."""
    print(
        "\n| chunks of | chunks | sd | 10 points worse: mean | median | 10 points better: mean | median | equal: mean |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for setting, (_, looked) in results.items():
        cells = " | ".join(
            f"{100 * share:.0f} %"
            for share in (*looked.saved_worse, *looked.saved_better, looked.saved_equal)
        )
        baseline, run, *_ = draw(setting, 0.0, 1000, np.random.default_rng(0))[0]
        sd = differences(baseline, run)[0].std()
        print(f"| {setting.name} | {setting.chunks} | {sd:.2f} | {cells} |")
    print(
        "\nsd: standard deviation over chunks of the difference of usable rates if nothing changed. For an A rate of 93 %\n"
        "the gain is 5 points."
    )


def print_bets(*, reps: int, seed: int) -> None:
    """Print what other ways to look would do."""
    print(
        "\n| method | chunks | false pass | 10 points found | equals pass | saved, 10 points worse | better |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, cross in LOOKS.items():
        for setting in (Setting("", 200, 0.8), Setting("", 60, 0.97)):
            looked = partial(one_by_one, cross=cross)
            simulated = simulate(setting, looked, reps=reps, seed=seed)
            rates = f"{simulated.false_pass:.3f} | {simulated.finds:.3f} | {simulated.passes:.3f}"
            saved = f"{100 * simulated.saved_worse[0]:.0f} % | {100 * simulated.saved_better[0]:.0f} %"
            print(f"| {name} | {setting.chunks}, A rate {100 * setting.rate:.0f} % | {rates} | {saved} |")
    print("\nFor an A rate of 97 % the gain is 2 points.")


def print_whole_chunks(*, reps: int, seed: int) -> None:
    """Print how often a run passes that truly loses the margin in whole chunks, as a server that is down loses them, and nothing else."""
    print("\n| chunks of | chunks | margin | false pass | |\n|---|---|---|---|---|\n| | | | at once | seq. |")
    three, mixed = (3,), (1, 2, 3, 4, 5)
    for sizes, chunks, margin in (
        (three, 60, 0.05),
        (mixed, 60, 0.05),
        (three, 100, 0.03),
        (mixed, 100, 0.03),
        (three, 200, 0.03),
    ):
        totals = np.broadcast_to(np.resize(sizes, chunks), (reps, chunks))
        is_lost = np.random.default_rng([seed, chunks]).random((reps, chunks)) < margin
        drawn: Drawn = [((totals, totals), (np.where(is_lost, 0, totals), totals), margin, 1.0)]
        rates = " | ".join(f"{decide(drawn).passes.mean():.3f}" for decide in (at_once, one_by_one))
        name = "3 items" if sizes == three else "1 to 5 items"
        print(f"| {name} | {chunks} | {100 * margin:g} points | {rates} |")


def print_default(*, reps: int, seed: int) -> None:
    """Print what the default policy decides, whose margins follow the number of chunks; the loss that is found is 1.5 margins."""
    print(
        "\n| chunks | items | A rate | margins | false regression | equal passes | false pass | loss found |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for chunks, items in ((20, 3), (20, 1), (78, 3), (78, 1), (200, 3), (410, 3)):
        margins = default_margins(chunks, items)
        for rate in (0.5, 0.8, 0.93):
            setting = Setting("", chunks, rate, sizes=(items,), rules=3, margins=margins)
            losses = (0.0, -margins[0] / GRADED, -min(1.5 * margins[0] / GRADED, rate - 0.01))
            equal, lost, worse = (
                at_once(draw(setting, loss, reps, np.random.default_rng([seed, number])))
                for number, loss in enumerate(losses)
            )
            shares = (equal.regressions, equal.passes, lost.passes, worse.regressions)
            cells = " | ".join(f"{share.mean():.3f}" for share in shares)
            points = " and ".join(f"{100 * margin:.0f}" for margin in margins)
            print(f"| {chunks} | {items} | {100 * rate:.0f} % | {points} | {cells} |")


def main() -> None:
    """Simulate every setting and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=10_000, help="simulated gates of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--default", action="store_true", help="the default policy alone")
    options = parser.parse_args()
    start = time.perf_counter()
    if options.default:
        print_default(reps=options.reps, seed=options.seed)
        return
    results = {
        setting: (
            simulate(setting, at_once, reps=options.reps, seed=options.seed),
            simulate(setting, one_by_one, reps=options.reps, seed=options.seed),
        )
        for setting in SETTINGS
    }
    print_errors(results)
    print_saved(results)
    print_bets(reps=options.reps, seed=options.seed)
    print_whole_chunks(reps=options.reps, seed=options.seed)
    print_default(reps=options.reps, seed=options.seed)
    error = 2 * np.sqrt(ALPHA * (1 - ALPHA) / options.reps)
    print(
        f"\n{options.reps:,} gates of each kind; two standard errors of a rate of 5 %: {error:.4f}. "
        f"{time.perf_counter() - start:.0f} s."
    )


if __name__ == "__main__":
    main()
