"""How valid are corrected rates and differences? Simulates judges with known errors and prints Markdown tables.

Run ``python benchmarks/correction.py --reps 800``. A run has five chunks for each labelled one. The chunk's own rate of
usable items is drawn from a beta distribution with the given mean and intraclass correlation (ICC), and so are the
judge's rates of error in the chunk; two candidates share the chunk's difficulty. The judge calls 95 % of the usable
items usable, finds the given share of the others (recall), and favours the second candidate by the given number of
points. Labels are drawn at random by chunk, in strata (chunks by the sign of the judge's difference; items by its
letter) with equal numbers in each, or with probabilities by the judge's uncertainty, half of them uniform. Seven
factors of three values meet in 81 settings, a 3^(7-3) fraction; ``--whole`` runs all 2,187 and prints those outside
the limits, ``--part 2/4`` a quarter of them. Nothing here is read from or written to a file.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from qaeval.stats.correction import corrected_difference, corrected_rate
from qaeval.stats.labelling import draw_chunks, inclusion_probabilities

Array = NDArray[Any]
Rng = np.random.Generator
Design = Literal["random", "strata", "uncertainty"]

LABELLED = (20, 50, 200)
RECALLS = (0.1, 0.5, 0.95)
FAVOURS = (0.0, 0.1, 0.3)
RATES = (0.5, 0.8, 0.98)
SIZES = ((1, 1), (3, 3), (1, 6))
ICCS = (0.0, 0.3, 0.6)
DESIGNS: tuple[Design, ...] = ("random", "strata", "uncertainty")
CHUNKS_PER_LABELLED = 5
SPECIFICITY = 0.95
LOSS = 0.1
ALPHA = 0.05
GRID = special.expit(np.linspace(-40, 40, 6001))
ENOUGH_FAILURES = 10
LOW, HIGH = 0.93, 0.98
STORY_CHUNKS, STORY_LABELLED, STORY_ITEMS = 19, 10, 3
STORY_DRAWS = 2000


@dataclass(frozen=True)
class Setting:
    """One row of the tables."""

    labelled: int
    recall: float
    favour: float
    rate: float
    sizes: tuple[int, int]
    icc: float
    design: Design
    loss: float = 0.0
    chunks: int = 0

    @property
    def n_chunks(self) -> int:
        """Chunks of the run."""
        return self.chunks or CHUNKS_PER_LABELLED * self.labelled


@dataclass(frozen=True)
class Validity:
    """Means over the runs of one setting."""

    covers: float
    labels: float
    uncorrected: float
    width: float
    used: float
    above: float
    below: float
    error: float
    failures: float
    correlation: float


def settings() -> list[Setting]:
    """The 81 settings: four factors in full, three by sums modulo 3, so that any three values meet."""
    return [
        setting((a, b, c, d, (a + b + c) % 3, (a + 2 * b + d) % 3, (a + c + 2 * d) % 3))
        for a, b, c, d in product(range(3), repeat=4)
    ]


def all_settings() -> list[Setting]:
    """The 2,187 settings: every combination of the seven factors."""
    return [setting(levels) for levels in product(range(3), repeat=7)]


def setting(levels: Sequence[int]) -> Setting:
    """The setting with these levels of labelled, recall, favour, rate, sizes, ICC and design."""
    a, b, c, d, sizes, icc, design = levels
    return Setting(
        LABELLED[a],
        RECALLS[b],
        FAVOURS[c],
        RATES[d],
        SIZES[sizes],
        ICCS[icc],
        DESIGNS[design],
        LOSS * ((a + b + c + d) % 2),
    )


def main() -> None:
    """Simulate every setting and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=800, help="simulated runs of each setting")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="all 2,187 settings, without the other tables")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="every Nth setting, from the Kth")
    parser.add_argument("--only", choices=("difference", "rate"), help="one of the two estimates")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    start = time.perf_counter()
    part, n_parts = (int(number) for number in options.part.split("/"))
    numbered = list(enumerate(all_settings() if options.whole else settings()))[part - 1 :: n_parts]
    for title, simulate in (("difference", difference_run), ("rate", rate_run)):
        if options.only not in {None, title}:
            continue
        work = partial(simulated_cell, simulate, options.reps, options.seed)
        with ProcessPoolExecutor(options.jobs) as pool:
            results = dict(pool.map(work, numbered, chunksize=4))
        # with few runs a coverage is outside the limits by chance: the whole grid allows two standard errors
        slack = 2 * (LOW * (1 - LOW) / options.reps) ** 0.5 if options.whole else 0.0
        print_validity(title, results, slack, only_outside=options.whole)
        if options.whole:
            print_levels(results)
    if not options.whole:
        print_widths(options.reps, options.seed)
        print_story(STORY_DRAWS, np.random.default_rng([options.seed, 1000]))
    print(f"\n{options.reps} runs of each setting; {time.perf_counter() - start:.0f} s.")


def simulated_cell(
    simulate: Callable[[Setting, Rng], tuple[float, ...]], reps: int, seed: int, numbered: tuple[int, Setting]
) -> tuple[Setting, Validity]:
    """A setting and its means; its draws depend on nothing but the seed and its number."""
    number, s = numbered
    return s, simulated(s, simulate, reps=reps, rng=np.random.default_rng([seed, number]))


def simulated(
    s: Setting, simulate: Callable[[Setting, Rng], tuple[float, ...]], *, reps: int, rng: Rng
) -> Validity:
    """Mean of `reps` runs of a setting."""
    return Validity(*np.nanmean(np.array([simulate(s, rng) for _ in range(reps)]), axis=0).tolist())


def difference_run(s: Setting, rng: Rng) -> tuple[float, ...]:
    """Draw a run of two candidates, label some of its chunks and correct the difference."""
    sizes = rng.integers(s.sizes[0], s.sizes[1] + 1, s.n_chunks)
    difficulty = rng.random(s.n_chunks)
    usable, judged = [], []
    for rate, penalty in ((s.rate, s.favour), (s.rate - s.loss, 0.0)):
        of_label = rng.binomial(sizes, chunk_rates(difficulty, rate, s.icc))
        usable.append(of_label)
        judged.append(judge(of_label, sizes - of_label, s, penalty / rate, rng))
    d, h = (usable[1] - usable[0]) / sizes, (judged[1] - judged[0]) / sizes
    uncertain = np.abs(h) + 2 * sum(x / sizes * (1 - x / sizes) for x in judged)
    probabilities, drawn = label_chunks(s, np.sign(h), uncertain, rng)
    labelled = np.where(drawn, d, np.nan)
    out = corrected_difference(h, labelled, sizes=sizes, inclusion=probabilities)
    failures = float(2 * sizes[drawn].sum() - usable[0][drawn].sum() - usable[1][drawn].sum())
    correlation = 0.0 if np.isnan(out.correlation) else out.correlation
    return outcome(out, -s.loss, covers_naively(h, sizes, -s.loss), failures, correlation)


def rate_run(s: Setting, rng: Rng) -> tuple[float, ...]:
    """Draw a run of one candidate, label some of its items and correct the rate."""
    sizes = rng.integers(s.sizes[0], s.sizes[1] + 1, s.n_chunks)
    chunks = np.repeat(np.arange(s.n_chunks), sizes)
    good = rng.random(len(chunks)) < chunk_rates(rng.random(s.n_chunks), s.rate, s.icc)[chunks]
    label = np.where(good, 0, rng.integers(1, 3, len(chunks)))
    kept = SPECIFICITY * max(0.0, 1 - s.favour / s.rate)
    p_usable = np.where(
        good, spread(kept, s.icc, s, rng)[chunks], 1 - spread(s.recall, s.icc, s, rng)[chunks]
    )
    letters = np.where(rng.random(len(chunks)) < p_usable, 0, rng.integers(1, 3, len(chunks)))
    share = np.bincount(chunks, letters > 0, s.n_chunks) / sizes
    if s.design == "strata":
        n = min(len(chunks), round(s.labelled * float(np.mean(s.sizes))))
        probabilities, drawn = equal_strata(letters, n, rng)
    else:
        by_chunk, picked = label_chunks(s, share, share + 2 * share * (1 - share), rng)
        probabilities, drawn = by_chunk[chunks], picked[chunks]
    out = corrected_rate(letters, np.where(drawn, label, np.nan), chunks, n_levels=3, inclusion=probabilities)
    naive = covers_naively(1 - share, sizes, s.rate)
    return outcome(out, s.rate, naive, float((label[drawn] > 0).sum()), 0.0)


def outcome(out: Any, truth: float, naive: bool, failures: float, correlation: float) -> tuple[float, ...]:
    """What is counted of one run, in the order of `Validity`."""
    e, labels = out.estimate, out.labels
    if not e.has_interval:
        return (np.nan,) * 9 + (correlation,)
    slack = 1e-12
    return (
        float(e.low - slack <= truth <= e.high + slack),
        float(labels.low - slack <= truth <= labels.high + slack),
        float(naive),
        (e.high - e.low) / (labels.high - labels.low),
        float(out.basis == "corrected"),
        float(e.low > truth + slack),
        float(e.high < truth - slack),
        e.value - truth,
        failures,
        correlation,
    )


def judge(good: Array, bad: Array, s: Setting, penalty: float, rng: Rng) -> Array:
    """Items of each chunk that the judge calls usable."""
    kept = rng.binomial(good, spread(SPECIFICITY * max(0.0, 1 - penalty), s.icc, s, rng))
    missed = rng.binomial(bad, 1 - spread(s.recall, s.icc, s, rng))
    return np.asarray(kept + missed)


def chunk_rates(u: Array, mean: float, icc: float) -> Array:
    """Quantiles `u` of the distribution of a chunk's rate."""
    if icc == 0:
        return np.full(u.shape, mean)
    scale = (1 - icc) / icc
    quantiles: Array = np.interp(u, special.betainc(mean * scale, (1 - mean) * scale, GRID), GRID)
    return quantiles


def spread(mean: float, icc: float, s: Setting, rng: Rng) -> Array:
    """A rate of error of the judge in each chunk."""
    if icc == 0 or not 0 < mean < 1:
        return np.full(s.n_chunks, mean)
    scale = (1 - icc) / icc
    return rng.beta(mean * scale, (1 - mean) * scale, s.n_chunks)


def label_chunks(s: Setting, strata: Array, uncertain: Array, rng: Rng) -> tuple[Array, Array]:
    """Probability of each chunk to be labelled, and which are."""
    if s.design == "strata":
        return equal_strata(strata, s.labelled, rng)
    if s.design == "random":
        return np.ones(s.n_chunks), rng.permutation(s.n_chunks) < s.labelled
    probabilities = inclusion_probabilities(uncertain, s.labelled)
    return probabilities, draw_chunks(probabilities, rng)


def equal_strata(strata: Array, n: int, rng: Rng) -> tuple[Array, Array]:
    """Equal numbers from each stratum, all of it where it is smaller."""
    probabilities, drawn = np.zeros(len(strata)), np.zeros(len(strata), dtype=bool)
    groups = sorted((np.flatnonzero(strata == value) for value in np.unique(strata)), key=len)
    for number, group in enumerate(groups):
        m = min(len(group), n // (len(groups) - number))
        n -= m
        drawn[rng.choice(group, m, replace=False)] = True
        probabilities[group] = m / len(group)
    return probabilities, drawn


def covers_naively(values: Array, sizes: Array, truth: float) -> bool:
    """Whether the t interval of the judge's own value holds the truth."""
    w = sizes / sizes.mean()
    value = float((w * values).mean())
    half = (
        float(stats.t.ppf(1 - ALPHA / 2, len(w) - 1))
        * float((w * (values - value)).std(ddof=1))
        / len(w) ** 0.5
    )
    return abs(value - truth) <= half


def print_validity(title: str, results: dict[Setting, Validity], slack: float, *, only_outside: bool) -> None:
    """Print one row for each setting, or for those outside the limits, and a summary."""
    cells = list(results.values())
    print(f"### Corrected {title}\n")
    print(
        "| labelled | recall | favour | rate | items | ICC | drawn | covers | labels | judge | width | used |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for s, v in results.items():
        if only_outside and v.covers >= LOW - slack:
            continue
        items = f"{s.sizes[0]}" if s.sizes[0] == s.sizes[1] else f"{s.sizes[0]}-{s.sizes[1]}"
        print(
            f"| {s.labelled} | {s.recall} | {s.favour} | {s.rate} | {items} | {s.icc} | {s.design} "
            f"| {v.covers:.3f} | {v.labels:.3f} | {v.uncorrected:.3f} | {v.width:.2f} | {v.used:.2f} |"
        )
    wide = [v for v in cells if is_high(v)]
    print(
        f"\n- lowest coverage: {min(v.covers for v in cells):.3f} (labels alone {min(v.labels for v in cells):.3f}, "
        f"judge {min(v.uncorrected for v in cells):.3f}); below {LOW - slack:.3f}: {sum(v.covers < LOW - slack for v in cells)} of {len(cells)}"
        f"\n- coverage above .98 where 10 labelled failures or more are expected: {len(wide)} of "
        f"{sum(v.failures >= ENOUGH_FAILURES for v in cells)}, of which the labels alone cover more than .98 in "
        f"{sum(v.labels > HIGH for v in wide)}"
        f"\n- largest mean width over that of the labels alone: {max(v.width for v in cells):.3f}"
        f"\n- largest mean error: {max(abs(v.error) for v in cells):.3f}"
        f"\n- interval wholly above, wholly below the truth, at most: {max(v.above for v in cells):.3f}, "
        f"{max(v.below for v in cells):.3f}\n"
    )


def is_high(v: Validity) -> bool:
    """Whether it covers too often, though there are failures enough to know better."""
    return v.failures >= ENOUGH_FAILURES and v.covers > HIGH


def print_levels(results: dict[Setting, Validity]) -> None:
    """Print the mean coverage over all settings with each level of each factor."""
    print("| factor | level | covers | labels | judge | above .98 |\n|---|---|---|---|---|---|")
    for factor in ("labelled", "recall", "favour", "rate", "sizes", "icc", "design"):
        for level in dict.fromkeys(getattr(s, factor) for s in results):
            cells = [v for s, v in results.items() if getattr(s, factor) == level]
            enough = [v for v in cells if v.failures >= ENOUGH_FAILURES]
            means = (
                np.mean([getattr(v, name) for v in cells]) for name in ("covers", "labels", "uncorrected")
            )
            shown = " | ".join(f"{mean:.3f}" for mean in means)
            print(f"| {factor} | {level} | {shown} | {sum(is_high(v) for v in enough)} of {len(enough)} |")
    print()


def print_widths(reps: int, seed: int) -> None:
    """Print how much narrower the difference becomes at a correlation of about .7 and .9, with four unlabelled for each labelled chunk."""
    print("### Width by correlation\n")
    print("| labelled | correlation | covers | width | used |")
    print("|---|---|---|---|---|")
    for number, (n, target) in enumerate(product((20, 30, 50, 100, 200), (0.7, 0.9))):
        rng = np.random.default_rng([seed, 2000 + number])
        v = simulated(Setting(n, target, 0.0, 0.6, (6, 6), 0.0, "random"), correlated_run, reps=reps, rng=rng)
        print(f"| {n} | {v.correlation:.2f} | {v.covers:.3f} | {v.width:.3f} | {v.used:.2f} |")
    print()


def correlated_run(s: Setting, rng: Rng) -> tuple[float, ...]:
    """A run whose judge's difference is that of the labels plus the error that gives the correlation `recall`."""
    sizes = np.full(s.n_chunks, s.sizes[0])
    d = (rng.binomial(sizes, s.rate) - rng.binomial(sizes, s.rate)) / sizes
    sd = (2 * s.rate * (1 - s.rate) / s.sizes[0]) ** 0.5
    h = np.clip(d + sd * (1 / s.recall**2 - 1) ** 0.5 * rng.standard_normal(s.n_chunks), -1, 1)
    drawn = rng.permutation(s.n_chunks) < s.labelled
    out = corrected_difference(h, np.where(drawn, d, np.nan))
    return outcome(out, 0.0, covers_naively(h, sizes, 0.0), 0.0, out.correlation)


def print_story(reps: int, rng: Rng) -> None:
    """Print the replica of the run whose winner was the judge's error: 10 of 19 chunks labelled, 3 candidates."""
    print("### A judge that favours one of three candidates by 30 points, 10 of 19 chunks labelled\n")
    print("| truth | pair | judge | corrected | covers | decides for a | for b | used |")
    print("|---|---|---|---|---|---|---|---|")
    for truth in (0.0, 5 / 57):
        rows: dict[str, list[tuple[float, ...]]] = {"favoured": [], "other": []}
        for _ in range(reps):
            usable = story_labels(round(truth * STORY_CHUNKS * STORY_ITEMS), rng)
            judged = story_judge(usable, rng)
            drawn = rng.permutation(STORY_CHUNKS) < STORY_LABELLED
            for pair, (a, b) in (("favoured", (0, 1)), ("other", (0, 2))):
                d, h = (usable[b] - usable[a]) / STORY_ITEMS, (judged[b] - judged[a]) / STORY_ITEMS
                out = corrected_difference(h, np.where(drawn, d, np.nan))
                e, of_run = out.estimate, float(d.mean())
                rows[pair].append(
                    (
                        h.mean(),
                        e.value,
                        e.low <= of_run <= e.high,
                        e.high < 0,
                        e.low > 0,
                        out.basis == "corrected",
                    )
                )
        for pair, values in rows.items():
            m = np.mean(np.array(values, dtype=float), axis=0)
            of_pair = truth if pair == "favoured" else 0.0
            print(
                f"| {of_pair:+.3f} | {pair} | {m[0]:+.3f} | {m[1]:+.3f} | {m[2]:.3f} | {m[3]:.3f} | {m[4]:.3f} | {m[5]:.2f} |"
            )


def story_labels(ahead: int, rng: Rng) -> Array:
    """Usable items of three candidates in each chunk; over the run the second has `ahead` more than the others."""
    while True:
        rates = rng.beta(2.0, 1.2, STORY_CHUNKS)
        usable = rng.binomial(STORY_ITEMS, np.stack([rates, rates, rates]))
        if usable[1].sum() - usable[0].sum() == ahead and usable[2].sum() == usable[0].sum():
            return np.asarray(usable)


def story_judge(usable: Array, rng: Rng) -> Array:
    """Items of each candidate that the judge calls usable: nearly all of the second's, and 30 points fewer of the others'."""
    missed, kept = np.array([[0.5], [0.97], [0.5]]), np.array([[0.79], [0.99], [0.79]])
    return np.asarray(
        rng.binomial(usable, np.broadcast_to(kept, usable.shape))
        + rng.binomial(STORY_ITEMS - usable, np.broadcast_to(missed, usable.shape))
    )


if __name__ == "__main__":
    main()
