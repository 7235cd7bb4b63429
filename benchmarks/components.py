"""Do the intervals of variance components cover? Plants noise of a candidate and of a judge, and counts.

Run ``python benchmarks/components.py --reps 500``. Each chunk has three items. The rate of usable replies of a
chunk is drawn from a beta distribution with the given mean and correlation, the rate of each of its items from
a beta distribution around it, so that the candidate writes a usable pair in one reply and not in another. The
judge takes a text for the contrary of what it is with a fixed probability, anew in each pass. So the truth is
known in closed form. Nothing here is read from or written to a file.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qaeval.stats.components import SOURCES, VarianceComponents, variance_components
from qaeval.stats.estimate import Estimate

Array = NDArray[Any]

ITEMS = 3
CHUNKS = (20, 60, 200)
RATES = (0.6, 0.85, 0.95)
JUDGE_ERRORS = (0.02, 0.1)
ICC = 0.2
ITEM_ICC = 0.25
"""Correlation of two replies to one item, given the chunk's rate."""

NAMES = (*SOURCES, "total", *(f"{source} share" for source in SOURCES))


@dataclass(frozen=True)
class Setting:
    """A planted candidate and judge."""

    chunks: int
    rate: float
    judge_error: float
    replies: int = 3
    passes: int = 3

    @property
    def truth(self) -> dict[str, float]:
        """Variance of each source, and its share."""
        contrast = (1 - 2 * self.judge_error) ** 2
        spread = self.rate * (1 - self.rate)
        parts = {
            "judge": self.judge_error * (1 - self.judge_error),
            "reply": contrast * spread * (1 - ICC) * (1 - ITEM_ICC),
            "item": contrast * spread * (1 - ICC) * ITEM_ICC,
            "chunk": contrast * spread * ICC,
        }
        total = sum(parts.values())
        shares = {f"{source} share": variance / total for source, variance in parts.items()}
        return {**parts, "total": total, **shares}


def draw(setting: Setting, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Draw letters, and the chunk, item and reply of each: every pass on the first reply, one on the others."""
    shape = (setting.chunks, ITEMS)
    chunk_rate = beta(np.full(setting.chunks, setting.rate), ICC, rng)
    item_rate = beta(np.repeat(chunk_rate[:, None], ITEMS, axis=1), ITEM_ICC, rng)
    good = rng.random((*shape, setting.replies)) < item_rate[..., None]
    reply = np.r_[np.zeros(setting.passes, dtype=int), np.arange(1, setting.replies)]
    letters = good[..., reply] ^ (rng.random((*shape, len(reply))) < setting.judge_error)
    chunk, item, which = np.indices(letters.shape)
    return (
        letters.astype(float).ravel(),
        chunk.ravel(),
        (chunk * ITEMS + item).ravel(),
        reply[which].ravel(),
    )


def beta(mean: Array, icc: float, rng: np.random.Generator) -> Array:
    """Draw rates with the given means, of which the correlation of two draws is `icc`."""
    size = 1 / icc - 1
    mean = np.clip(mean, 1e-9, 1 - 1e-9)
    return rng.beta(mean * size, (1 - mean) * size)


def estimates(result: VarianceComponents) -> Iterator[tuple[str, Estimate]]:
    """Name the variances and shares of a result."""
    for source in SOURCES:
        component = getattr(result, source)
        yield source, component.variance
        yield f"{source} share", component.share
    yield "total", result.total


def coverage(setting: Setting, reps: int, seed: int) -> dict[str, float]:
    """Return the share of intervals that hold the truth, by name."""
    rng, truth = np.random.default_rng(seed), setting.truth
    covered = dict.fromkeys(truth, 0)
    for _ in range(reps):
        for name, estimate in estimates(variance_components(*draw(setting, rng))):
            covered[name] += estimate.low <= truth[name] <= estimate.high
    return {name: n / reps for name, n in covered.items()}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=20)
    arguments = parser.parse_args()
    start, lowest = time.perf_counter(), dict.fromkeys(NAMES, 1.0)
    print(f"| chunks | A rate | judge error | {' | '.join(NAMES)} |")
    print("|---" * (3 + len(NAMES)) + "|")
    for chunks, rate, error in product(CHUNKS, RATES, JUDGE_ERRORS):
        covered = coverage(Setting(chunks, rate, error), arguments.reps, arguments.seed)
        lowest = {name: min(share, covered[name]) for name, share in lowest.items()}
        print(f"| {chunks} | {rate} | {error} | {' | '.join(f'{covered[name]:.3f}' for name in NAMES)} |")
    print()
    for name, share in lowest.items():
        print(f"- lowest coverage, {name}: {share:.3f}")
    print(
        f"\n{arguments.reps} runs of each setting, seed {arguments.seed}; {time.perf_counter() - start:.0f} s."
    )


if __name__ == "__main__":
    main()
