"""The search for overlapping word sets: the threshold, and which pairs are never compared."""

from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaeval.text.near import NearIndex


def letters_of(text: str) -> frozenset[str]:
    return frozenset(text)


def make_index(*sets: frozenset[str], tenths: int = 9, groups: Sequence[str] = ()) -> NearIndex:
    index = NearIndex(sets, tenths, groups)
    for number in range(len(sets)):
        index.add(number)
    return index


def test_sets_at_the_threshold_are_near_and_below_it_are_not() -> None:
    ten, nine = letters_of("abcdefghij"), letters_of("abcdefghi")
    assert NearIndex((), 9).is_near(ten, nine)  # 9 of 10 words
    assert not NearIndex((), 9).is_near(nine, letters_of("abcdefgh"))  # 8 of 9
    assert NearIndex((), 5).is_near(letters_of("abc"), letters_of("bcd"))  # 2 of 4
    assert not NearIndex((), 6).is_near(letters_of("abc"), letters_of("bcd"))
    assert not NearIndex((), 1).is_near(letters_of("abc"), letters_of("def"))


def test_sets_that_share_only_frequent_words_are_never_compared() -> None:
    frequent = "abcdefgh"  # in each set, and first in the alphabet
    index = make_index(letters_of(frequent + "wx"), letters_of(frequent + "yz"))
    assert index.candidates(0) == set()


def test_sets_that_share_one_of_their_two_rarest_words_are_compared() -> None:
    first, second = letters_of("abcdefghij"), letters_of("abcdefghix")
    index = make_index(first, second, letters_of("abcdefgh"))
    assert index.candidates(0) == {0, 1}


def test_only_sets_that_were_added_are_found() -> None:
    index = NearIndex([letters_of("abc"), letters_of("abc")], 9)
    assert not index.has_near(1)
    index.add(0)
    assert index.has_near(1)


def test_sets_of_other_groups_are_not_candidates() -> None:
    index = make_index(letters_of("abc"), letters_of("abc"), letters_of("abc"), groups="ghg")
    assert index.candidates(2) == {0, 2}
    assert index.candidates(1) == set()


@pytest.mark.slow
@given(st.lists(st.frozensets(st.sampled_from("abcdefghijkl"), min_size=1), max_size=12), st.integers(1, 9))
def test_no_near_pair_is_missed(sets: list[frozenset[str]], tenths: int) -> None:
    index = make_index(*sets, tenths=tenths)
    for first, second in combinations(range(len(sets)), 2):
        if 10 * len(sets[first] & sets[second]) >= tenths * len(sets[first] | sets[second]):
            assert index.is_near(sets[first], sets[second])
            assert second in index.candidates(first)
