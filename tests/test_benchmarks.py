"""The rule by which a benchmark ends a build: noise does not, a regression does."""

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
def test_a_bar_of_2_is_missed_when_every_round_lies_above_it(
    rounds: list[float], n_measured: int, is_missed: bool
) -> None:
    found, left = bars.Bars(), iter(rounds)
    found.measure("ratio", lambda: next(left), 2.0)
    assert len(rounds) - len(list(left)) == n_measured
    assert bool(found.missed) is is_missed


def test_one_round_is_enough_where_noise_only_adds() -> None:
    found, left = bars.Bars(), iter([1.3, 1.02, 9.9])
    found.measure("of the ideal", lambda: next(left), 1.05, least=1, rounds=3)
    assert not found.missed


def test_what_is_printed_is_the_median_with_its_rounds() -> None:
    assert bars.words([1.5], 2.0) == "1.50 (≤ 2)"
    assert bars.words([2.1, 1.9, 1.8], 2.0) == "1.90 (≤ 2; 1.80 to 2.10 in 3)"
    assert bars.words([2.1, 1.9, 2.3], 2.0) == "2.10 (NOT ≤ 2, but not in every round; 1.90 to 2.30 in 3)"
    assert bars.words([2.1, 2.2, 2.3], 2.0) == "2.20 (NOT ≤ 2; 2.10 to 2.30 in 3)"


def test_what_was_measured_once_is_held_to_its_bar() -> None:
    found = bars.Bars()
    assert found.check("memory", 1.31, 1.3) == "1.31 (NOT ≤ 1.3)"
    (missed,) = found.missed
    assert missed.startswith("memory: 1.310")
