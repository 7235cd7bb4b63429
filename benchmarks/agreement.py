"""The full agreement table of a million letters, with intervals by cluster bootstrap: time and memory.

    .venv/bin/python benchmarks/agreement.py

Two raters, three items of a chunk, a judge that errs by chunk. Ten coefficients of one confusion table are resampled
together 2,000 times, first from few kinds of chunks (three items, three letters), then from chunks of many sizes.
"""

import argparse
import resource
import time
from functools import partial

import numpy as np

from qaeval.stats.coefficients import (
    balanced_accuracy,
    brennan_prediger,
    gwet_ac,
    kappa,
    scott_pi,
    weighted_agreement,
)
from qaeval.stats.reliability import cluster_tables
from qaeval.stats.resampling import cluster_bootstrap_all

COEFFICIENTS = {
    "agreement": weighted_agreement,
    "kappa": kappa,
    "kappa_linear": partial(kappa, weights="linear"),
    "kappa_quadratic": partial(kappa, weights="quadratic"),
    "scott_pi": scott_pi,
    "brennan_prediger": brennan_prediger,
    "gwet_ac1": gwet_ac,
    "gwet_ac2_linear": partial(gwet_ac, weights="linear"),
    "gwet_ac2_quadratic": partial(gwet_ac, weights="quadratic"),
    "balanced_accuracy": balanced_accuracy,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=1_000_000)
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    n = options.letters
    print(
        "| chunks | letters | kinds of chunks | tables | bootstrap | largest memory |\n|---|---|---|---|---|---|"
    )
    for name, clusters in {
        "3 items": np.arange(n) // 3,
        "1 to 60 items": np.repeat(np.arange(n), rng.integers(1, 61, n))[:n],
    }.items():
        truth = rng.choice(3, n, p=[0.6, 0.3, 0.1])
        wrong = rng.random(n) < rng.beta(2, 6, clusters.max() + 1)[clusters]
        judged = np.where(wrong, rng.integers(0, 3, n), truth)
        start = time.perf_counter()
        tables = cluster_tables(truth, judged, clusters, n_levels=3)
        counted = time.perf_counter()
        estimates = cluster_bootstrap_all(COEFFICIENTS, tables, rng=rng, n=n, n_resamples=options.resamples)
        done = time.perf_counter()
        kinds = len(np.unique(tables.reshape(len(tables), -1), axis=0))
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"| {len(tables):,} of {name} | {n:,} | {kinds:,} | {counted - start:.2f} s | {done - counted:.2f} s | "
            f"{largest:.2f} GiB |"
        )
    last = estimates["kappa"]
    print(
        f"\n{len(estimates)} coefficients, {options.resamples:,} resamples each; kappa of the last {last.value:.4f} "
        f"[{last.low:.4f}, {last.high:.4f}]"
    )


if __name__ == "__main__":
    main()
