import random
from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaeval.corpus import sampling
from qaeval.corpus.sampling import Allocation, sample_set_digest
from qaeval.errors import DataError, UsageError
from qaeval.files.spool import SpooledRows
from qaeval.records import Chunk, Sample

Case: TypeAlias = tuple[dict[str, int], int, int]
"""Sizes of the strata, how many to draw, seed."""


def corpus(sizes: dict[str, int]) -> list[Chunk]:
    return [
        Chunk(chunk_id=f"{name}-{number:03}", text=f"{name} {number}", stratum=name)
        for name, size in sizes.items()
        for number in range(size)
    ]


def draw(
    chunks: Iterable[Chunk], *, n: int | None, seed: int, allocation: Allocation = "proportional"
) -> tuple[Sample, ...]:
    samples = SpooledRows(Sample, map(Sample.of, chunks))
    return tuple(sampling.draw(samples, n=n, seed=seed, allocation=allocation))


def ids(samples: Iterable[Sample]) -> list[str]:
    return [sample.chunk.chunk_id for sample in samples]


def strata(samples: Iterable[Sample]) -> Counter[str]:
    return Counter(sample.chunk.stratum for sample in samples)


@st.composite
def corpora(draw_: st.DrawFn) -> Case:
    sizes = draw_(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 30), min_size=1))
    return sizes, draw_(st.integers(1, sum(sizes.values()))), draw_(st.integers(0, 99))


def test_strata_are_drawn_in_proportion() -> None:
    # 60 + 30 + 10 = 100 chunks; 20 of them: 12, 6, 2
    assert strata(draw(corpus({"a": 60, "b": 30, "c": 10}), n=20, seed=0)) == {"a": 12, "b": 6, "c": 2}


def test_no_share_falls_when_more_are_drawn() -> None:
    # With largest remainders, strata of 6, 6 and 2 get 4, 4, 2 of 10 seats (shares 4.29, 4.29, 1.43) and
    # 5, 5, 1 of 11 (shares 4.71, 4.71, 1.57): a larger n would drop a chunk of c.
    chunks = corpus({"a": 6, "b": 6, "c": 2})
    counts = [strata(draw(chunks, n=n, seed=0))["c"] for n in range(1, 15)]
    assert counts == sorted(counts)


@given(corpora())
def test_every_share_is_the_exact_one_rounded_down_or_up(case: Case) -> None:
    sizes, n, seed = case
    drawn = strata(draw(corpus(sizes), n=n, seed=seed))
    total = sum(sizes.values())
    assert sum(drawn.values()) == n
    for name, size in sizes.items():
        assert n * size // total <= drawn[name] <= -(-n * size // total)


@pytest.mark.slow
@given(corpora(), st.data())
def test_a_smaller_draw_is_part_of_a_larger_one(case: Case, data: st.DataObject) -> None:
    sizes, n, seed = case
    fewer = data.draw(st.integers(1, n))
    assert set(ids(draw(corpus(sizes), n=fewer, seed=seed))) <= set(ids(draw(corpus(sizes), n=n, seed=seed)))


@given(corpora(), st.integers(0, 99))
@pytest.mark.slow
def test_the_order_of_the_file_does_not_matter(case: Case, shuffle: int) -> None:
    sizes, n, seed = case
    chunks = corpus(sizes)
    shuffled = random.Random(shuffle).sample(chunks, len(chunks))  # noqa: S311 - shuffles, guards nothing
    assert draw(chunks, n=n, seed=seed) == draw(shuffled, n=n, seed=seed)


@given(corpora())
@settings(max_examples=30)
def test_all_are_taken_when_no_number_is_given(case: Case) -> None:
    sizes, _, seed = case
    chunks = corpus(sizes)
    assert draw(chunks, n=None, seed=seed) == draw(chunks, n=len(chunks), seed=seed)


def test_another_seed_draws_other_chunks() -> None:
    chunks = corpus({"a": 100})
    assert ids(draw(chunks, n=10, seed=0)) != ids(draw(chunks, n=10, seed=1))


def test_a_draw_stays_the_same_between_versions() -> None:
    drawn = draw(corpus({"a": 6, "b": 3}), n=3, seed=7)
    assert ids(drawn) == ["a-003", "a-004", "b-001"]


def test_equal_strata_are_chosen_by_lot() -> None:
    chunks = corpus({"a": 1, "b": 1, "c": 1})
    assert {ids(draw(chunks, n=1, seed=seed))[0] for seed in range(30)} == {"a-000", "b-000", "c-000"}


def test_samples_are_ordered_by_document_and_chunk() -> None:
    chunks = [
        Chunk(chunk_id="2", text="x", document="a.md"),
        Chunk(chunk_id="1", text="x", document="b.md"),
        Chunk(chunk_id="3", text="x", document="a.md"),
    ]
    assert ids(draw(chunks, n=None, seed=0)) == ["2", "3", "1"]


def test_many_strata_take_no_time() -> None:
    chunks = corpus({f"s{number:05}": 1 for number in range(5_000)})
    assert len(draw(chunks, n=2_500, seed=0)) == 2_500


@pytest.mark.parametrize("n", [0, -1, 6])
def test_a_number_that_cannot_be_drawn_is_refused_with_both_numbers(n: int) -> None:
    with pytest.raises(UsageError, match=rf"cannot draw {n} of 5 samples"):
        draw(corpus({"a": 5}), n=n, seed=0)


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(UsageError, match="no samples"):
        draw((), n=None, seed=0)


def test_chunks_that_share_an_id_are_refused() -> None:
    with pytest.raises(DataError, match="share a chunk_id"):
        draw([*corpus({"a": 2}), *corpus({"a": 1})], n=1, seed=0)


def test_the_digest_is_of_the_set_not_of_its_order() -> None:
    samples = draw(corpus({"a": 5}), n=None, seed=0)
    assert sample_set_digest(samples) == sample_set_digest(samples[::-1])
    assert sample_set_digest(samples) != sample_set_digest(samples[1:])
    assert len(sample_set_digest(samples)) == 64


def inclusions(samples: Iterable[Sample]) -> dict[str, set[float]]:
    by_stratum: dict[str, set[float]] = {}
    for sample in samples:
        by_stratum.setdefault(sample.stratum, set()).add(sample.inclusion)
    return by_stratum


def test_an_equal_allocation_takes_the_same_number_of_each_stratum_as_far_as_it_goes() -> None:
    drawn = draw(corpus({"a": 100, "b": 50, "c": 3}), n=23, seed=0, allocation="equal")
    # c gives its 3, the others share the other 20
    assert strata(drawn) == {"a": 10, "b": 10, "c": 3}
    assert inclusions(drawn) == {"a": {0.1}, "b": {0.2}, "c": {1.0}}


def test_at_least_one_of_each_stratum_is_drawn_on_request() -> None:
    chunks = corpus({"a": 900, "b": 98, "c": 1, "d": 1})
    assert strata(draw(chunks, n=10, seed=0)) == {"a": 9, "b": 1}
    drawn = draw(chunks, n=10, seed=0, allocation="at-least-one")
    assert strata(drawn) == {"a": 7, "b": 1, "c": 1, "d": 1}
    assert inclusions(drawn) == {"a": {7 / 900}, "b": {1 / 98}, "c": {1.0}, "d": {1.0}}


@pytest.mark.parametrize("allocation", ["equal", "at-least-one"])
def test_fewer_samples_than_strata_are_refused_where_each_stratum_gets_one(allocation: Allocation) -> None:
    with pytest.raises(UsageError, match=rf"--allocation {allocation}: cannot draw 2 samples from 3 strata"):
        draw(corpus({"a": 5, "b": 5, "c": 5}), n=2, seed=0, allocation=allocation)


@pytest.mark.slow
@given(corpora(), st.data(), st.sampled_from(["equal", "at-least-one"]))
@settings(max_examples=60)
def test_weights_add_up_to_the_samples_of_each_stratum(
    case: Case, data: st.DataObject, allocation: Allocation
) -> None:
    sizes, _, seed = case
    n = data.draw(st.integers(len(sizes), sum(sizes.values())))
    drawn = draw(corpus(sizes), n=n, seed=seed, allocation=allocation)
    assert len(drawn) == n
    for name, size in sizes.items():
        members = [sample.weight for sample in drawn if sample.stratum == name]
        assert members
        assert sum(members) == pytest.approx(size)
    if allocation == "equal":
        counts, most = strata(drawn), max(strata(drawn).values())
        assert all(counts[name] in {most, most - 1, size} for name, size in sizes.items())
    fewer = data.draw(st.integers(len(sizes), n))
    assert set(ids(draw(corpus(sizes), n=fewer, seed=seed, allocation=allocation))) <= set(ids(drawn))


def test_a_draw_of_a_draw_multiplies_the_probabilities() -> None:
    first = draw(corpus({"a": 100, "b": 10}), n=20, seed=0, allocation="equal")
    second = sampling.draw(SpooledRows(Sample, first), n=10, seed=1, allocation="equal")
    assert inclusions(second) == {"a": {0.1 * 0.5}, "b": {0.5}}


def test_weights_count_in_the_digest_only_where_samples_are_drawn_unequally() -> None:
    chunks = corpus({"a": 20, "b": 5})
    drawn = draw(chunks, n=10, seed=0, allocation="equal")
    plain = [Sample.of(sample.chunk) for sample in drawn]
    assert ids(drawn) == ids(plain)
    assert sample_set_digest(drawn) != sample_set_digest(plain)
    assert "inclusion" not in draw(chunks, n=10, seed=0)[0].model_dump()
