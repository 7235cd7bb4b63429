"""Variance components and a judge's agreement with itself: by hand, by brute force, by the analysis of variance."""

from dataclasses import astuple
from itertools import combinations

import numpy as np
import pytest
from benchmarks.components import Setting, coverage, draw
from pytest import approx  # noqa: PT013

from qaeval.stats import clopper_pearson, krippendorff_alpha, repeat_agreement, variance_components
from qaeval.stats.components import SOURCES, VarianceComponents

X = np.nan


def values_of(result: VarianceComponents) -> dict[str, float]:
    return {source: getattr(result, source).variance.value for source in SOURCES}


def unbalanced(n_chunks: int = 14) -> tuple[np.ndarray, ...]:
    """Letters of which a third was lost."""
    values, chunks, items, replies = draw(Setting(n_chunks, 0.6, 0.05), np.random.default_rng(4))
    kept = np.random.default_rng(4).random(len(values)) > 1 / 3
    return values[kept], chunks[kept], items[kept], replies[kept]


def brute_force(
    values: np.ndarray, chunks: np.ndarray, items: np.ndarray, replies: np.ndarray
) -> list[float]:
    """Half the mean squared differences, pair by pair: of one text, item, chunk, and of two chunks."""
    texts: dict[tuple[int, int, int], list[float]] = {}
    for value, *key in zip(values, chunks, items, replies, strict=True):
        texts.setdefault(tuple(key), []).append(value)  # type: ignore[arg-type]
    levels: list[list[float]] = [[], [], [], []]
    for letters in texts.values():
        levels[0] += [(a - b) ** 2 / 2 for a, b in combinations(letters, 2)]
    for (first, of_first), (second, of_second) in combinations(texts.items(), 2):
        half = float(np.mean([(a - b) ** 2 / 2 for a in of_first for b in of_second]))
        if first[0] != second[0]:
            levels[3].append(half)
        elif first[1] == second[1]:
            levels[1].append(half)
        elif first[2] != second[2]:
            levels[2].append(half)
    return [float(np.mean(level)) for level in levels]


def test_components_are_differences_of_half_mean_squared_differences_of_pairs() -> None:
    data = unbalanced()
    judge, reply, item, chunk = brute_force(*data)
    expected = {"judge": judge, "reply": reply - judge, "item": item - reply, "chunk": chunk - item}
    result = variance_components(*data)
    assert values_of(result) == approx({name: max(0.0, value) for name, value in expected.items()})
    assert result.total.value == approx(chunk)


def test_a_balanced_nested_design_gives_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(8)
    g, i, r, j = 12, 3, 4, 2
    y = (
        rng.random((g, 1, 1, 1))
        + rng.random((g, i, 1, 1))
        + rng.random((g, i, r, 1))
        + rng.random((g, i, r, j))
    )
    text, item, chunk = y.mean(axis=3, keepdims=True), y.mean(axis=(2, 3)), y.mean(axis=(1, 2, 3))
    squares = (
        ((y - text) ** 2).sum() / (g * i * r * (j - 1)),
        j * ((text[..., 0] - item[..., None]) ** 2).sum() / (g * i * (r - 1)),
        r * j * ((item - chunk[:, None]) ** 2).sum() / (g * (i - 1)),
        i * r * j * ((chunk - chunk.mean()) ** 2).sum() / (g - 1),
    )
    expected = {
        "judge": squares[0],
        "reply": (squares[1] - squares[0]) / j,
        "item": (squares[2] - squares[1]) / (r * j),
        "chunk": (squares[3] - squares[2]) / (i * r * j),
    }
    chunks, items, replies, _ = np.indices(y.shape)
    labels = (chunks, chunks * i + items, (chunks * i + items) * r + replies)
    result = variance_components(y.ravel(), *(label.ravel() for label in labels), span=4.0)
    assert values_of(result) == approx(expected)


def test_the_shares_add_up_and_do_not_depend_on_unit_order_or_names() -> None:
    data = unbalanced(100)
    result = variance_components(*data)
    order = np.random.default_rng(1).permutation(len(data[0]))
    other = variance_components(
        data[0][order] * 6 - 3, [f"c{n}" for n in data[1][order]], -data[2][order], data[3][order], span=6.0
    )
    assert sum(getattr(result, source).share.value for source in SOURCES) == approx(1.0)
    for source in SOURCES:
        component, renamed = getattr(result, source), getattr(other, source)
        assert astuple(renamed.share)[:3] == approx(astuple(component.share)[:3])
        assert renamed.variance.high == approx(36 * component.variance.high)
    assert other.total.high == approx(36 * result.total.high)


def test_a_source_without_repeats_counts_in_the_next_one() -> None:
    values, chunks, items, replies = unbalanced()
    full = values_of(variance_components(values, chunks, items, replies))
    first = np.unique(np.column_stack([items, replies]), axis=0, return_index=True)[1]
    of_one_letter = variance_components(values[first], chunks[first], items[first], replies[first])
    assert "two letters" in of_one_letter.judge.variance.reason
    assert of_one_letter.judge.share.reason == of_one_letter.judge.variance.reason
    assert of_one_letter.reply.variance.value > full["reply"]
    run = replies == 0
    of_one_reply = variance_components(values[run], chunks[run], items[run], replies[run])
    assert np.isnan(of_one_reply.reply.variance.value)
    assert of_one_reply.judge.variance.value > 0
    one_item = items % 3 == 0
    of_one_item = variance_components(values[one_item], chunks[one_item], items[one_item], replies[one_item])
    assert of_one_item.item.variance.reason == "no chunk has two items"


def test_a_judge_that_never_differs_is_bounded_by_the_chunks_that_were_seen() -> None:
    values, chunks, items, replies = draw(Setting(30, 0.7, 0.0), np.random.default_rng(3))
    result = variance_components(values, chunks, items, replies)
    most = clopper_pearson(0, 30).high / 2
    assert (result.judge.variance.value, result.judge.variance.low) == (0.0, 0.0)
    assert result.judge.variance.high == approx(most)
    assert result.judge.share.high == approx(most / result.total.value)


def test_no_component_is_negative() -> None:
    # items of a chunk are as unlike as they can be: less alike than those of two chunks
    chunks = np.repeat(np.arange(20), 2)
    result = variance_components(np.tile([0.0, 1.0], 20), chunks, np.arange(40), np.zeros(40))
    assert result.chunk.variance.value == 0.0
    assert 0.0 <= result.chunk.variance.low <= result.chunk.variance.high
    assert result.chunk.share.low == 0.0


def test_few_chunks_have_no_interval_and_constant_letters_no_share() -> None:
    values, chunks, items, replies = unbalanced()
    few = chunks < 9
    result = variance_components(values[few], chunks[few], items[few], replies[few])
    assert result.judge.variance.value > 0
    assert not result.judge.variance.has_interval
    constant = variance_components(np.ones(60), np.arange(60) // 4, np.arange(60) // 2, np.zeros(60))
    assert constant.total.value == 0
    assert "do not vary" in constant.judge.share.reason


def test_wrong_arguments_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="span"):
        variance_components([0, 2], [0, 1], [0, 1], [0, 0])
    with pytest.raises(ValueError, match="two chunks"):
        variance_components([0, 1], [0, 1], [0, 0], [0, 0])
    with pytest.raises(ValueError, match="3 items"):
        variance_components([0, 1, 1], [0, 1], [0, 1], [0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("setting", [Setting(60, 0.85, 0.02), Setting(60, 0.85, 0.1), Setting(200, 0.6, 0.1)])
def test_planted_noise_of_judge_and_candidate_is_within_the_intervals(setting: Setting) -> None:
    covered = coverage(setting, 500, seed=20)
    # two standard errors of 500 runs are 0.02
    assert {
        name: share for name, share in covered.items() if share < (0.92 if "share" in name else 0.93)
    } == {}


def test_self_agreement_by_hand() -> None:
    # equal pairs: 3 of 3, 0 of 3, 0 of 1; best and worst: 0 of 3, 1 of 3, 1 of 1; the last has no pair
    letters = np.array([[0, 0, 0], [0, 1, 2], [0, 2, X], [1, X, X]])
    result = repeat_agreement(letters, np.arange(4), n_levels=3)
    assert (result.n_items, result.n_excluded) == (3, 1)
    assert result.self_agreement.value == approx(1 / 3)
    assert result.flips.value == approx((1 / 3 + 1) / 3)
    assert result.alpha.value == approx(krippendorff_alpha(letters, n_levels=3, metric="nominal"))


def test_self_agreement_of_a_judge_that_errs_at_a_known_rate() -> None:
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 2, size=(600, 1)) * 2
    letters = np.where(rng.random((600, 3)) < 0.1, 2 - truth, truth)
    result = repeat_agreement(letters, np.arange(600) // 3, n_levels=3)
    assert result.self_agreement.low < 0.9**2 + 0.1**2 < result.self_agreement.high
    assert result.flips.value == approx(1 - result.self_agreement.value)


def test_letters_without_a_second_pass_are_refused() -> None:
    with pytest.raises(ValueError, match="two letters"):
        repeat_agreement([[0, X], [1, X]], [0, 1], n_levels=3)
