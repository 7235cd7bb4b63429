"""A benchmark regression fails the build; noise does not."""

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("bars", Path(__file__).parents[1] / "benchmarks" / "bars.py")
assert _SPEC
assert _SPEC.loader
bars = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(bars)


@pytest.mark.parametrize(
    ("rounds", "n_measured", "is_missed"),
    [
        ([1.4, 1.5, 1.6], 3, False),
        ([2.1, 1.9, 1.8], 3, False),
        ([2.037, 1.99, 2.05, 2.1, 2.2], 5, False),
        ([2.3, 1.9, 2.2, 1.8, 1.9], 5, False),
        ([2.1, 2.2, 2.3, 2.1, 2.05], 5, True),
        ([2.0, 2.0, 2.0], 3, False),
    ],
    ids=["all within", "median within", "one of five", "settles late", "all above", "on the bar"],
)
def test_bar_is_missed_only_when_every_round_exceeds_it(
    rounds: list[float], n_measured: int, is_missed: bool
) -> None:
    checks, measurements = bars.Bars(), iter(rounds)
    checks.measure("ratio", lambda: next(measurements), 2.0)
    assert len(rounds) - len(list(measurements)) == n_measured
    assert bool(checks.missed) is is_missed


def test_one_round_below_the_bar_suffices_with_least() -> None:
    checks, measurements = bars.Bars(), iter([1.3, 1.02, 9.9])
    checks.measure("of the ideal", lambda: next(measurements), 1.05, least=1, rounds=3)
    assert not checks.missed


def test_words_show_the_median_and_the_range_of_rounds() -> None:
    assert bars.words([1.5], 2.0) == "1.50 (≤ 2)"
    assert bars.words([2.1, 1.9, 1.8], 2.0) == "1.90 (≤ 2; 1.80 to 2.10 in 3)"
    assert bars.words([2.1, 1.9, 2.3], 2.0) == "2.10 (NOT ≤ 2, but not in every round; 1.90 to 2.30 in 3)"
    assert bars.words([2.1, 2.2, 2.3], 2.0) == "2.20 (NOT ≤ 2; 2.10 to 2.30 in 3)"


def test_single_value_above_its_bar_is_missed() -> None:
    checks = bars.Bars()
    assert checks.check("memory", 1.31, 1.3) == "1.31 (NOT ≤ 1.3)"
    (message,) = checks.missed
    assert message.startswith("memory: 1.310")
