"""Do corrected intervals cover? A few settings of `benchmarks/correction.py`, with few runs and a fixed seed."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_SPEC = importlib.util.spec_from_file_location(
    "benchmark_of_correction", Path(__file__).parents[2] / "benchmarks" / "correction.py"
)
assert _SPEC
assert _SPEC.loader
benchmark = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = benchmark  # its dataclasses look themselves up
_SPEC.loader.exec_module(benchmark)

RUNS = 200
LOWEST = 0.93 - 3 * (0.93 * 0.07 / RUNS) ** 0.5
SETTINGS = [
    benchmark.Setting(20, 0.5, 0.3, 0.8, (3, 3), 0.3, "random"),
    benchmark.Setting(20, 0.95, 0.1, 0.5, (1, 6), 0.6, "strata", loss=0.1),
    benchmark.Setting(50, 0.95, 0.3, 0.8, (1, 6), 0.0, "uncertainty", loss=0.1),
    benchmark.Setting(50, 0.95, 0.0, 0.98, (3, 3), 0.6, "random"),
]


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("simulate", [benchmark.difference_run, benchmark.rate_run])
def test_corrected_intervals_cover_where_the_judges_own_do_not(setting: Any, simulate: Any) -> None:
    result = benchmark.simulated(setting, simulate, reps=RUNS, rng=np.random.default_rng(1))
    assert result.covers >= LOWEST
    assert result.uncorrected < 0.9 or setting.favour == 0
    assert result.width <= 1.05


@pytest.mark.slow
def test_a_rate_with_fewer_than_one_labelled_failure_is_covered() -> None:
    # with Wilson's ends alone 92.8 % of 10,000 runs
    setting = benchmark.Setting(50, 0.1, 0.3, 0.98, (1, 1), 0.0, "strata")
    result = benchmark.simulated(setting, benchmark.rate_run, reps=600, rng=np.random.default_rng(1))
    assert result.covers > 0.96
    assert result.labels > 0.96


@pytest.mark.slow
def test_a_judge_that_favours_a_candidate_by_30_points_does_not_decide() -> None:
    rng = np.random.default_rng(2)
    judged, values, decided = [], [], 0
    for _ in range(RUNS):
        usable = benchmark.story_labels(0, rng)
        graded = benchmark.story_judge(usable, rng)
        d, h = (usable[1] - usable[0]) / 3, (graded[1] - graded[0]) / 3
        drawn = rng.permutation(len(d)) < 10
        out = benchmark.corrected_difference(h, np.where(drawn, d, np.nan))
        judged.append(h.mean())
        values.append(out.estimate.value)
        decided += out.estimate.low > 0 or out.estimate.high < 0
    assert np.mean(judged) == pytest.approx(0.3, abs=0.03)
    assert abs(np.mean(values)) < 0.03
    assert decided <= 0.05 * RUNS + 3 * (0.05 * 0.95 * RUNS) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "recall", "icc"), [(0.98, 0.5, 0.6), (0.98, 0.5, 0.3), (0.8, 0.1, 0.6)])
def test_rare_losses_in_a_large_stratum_are_covered(rate: float, recall: float, icc: float) -> None:
    """Labels in equal strata, most of the loss in the stratum in which the judge sees none: 80, 82 and 92 % without the guard."""
    setting = benchmark.Setting(50, recall, 0.1, rate, (1, 1), icc, "strata", 0.1)
    result = benchmark.simulated(setting, benchmark.difference_run, reps=300, rng=np.random.default_rng(7))
    assert result.covers > 0.93 - 2 * (0.95 * 0.05 / 300) ** 0.5
    assert result.width <= 1.0
