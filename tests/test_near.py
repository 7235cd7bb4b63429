"""The search for overlapping sets of words: where the threshold lies, and which pairs are never compared."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from qaeval.text.near import NearIndex


def words(text: str) -> frozenset[str]:
    return frozenset(text)


def index_of(*sets: frozenset[str], tenths: int = 9) -> NearIndex:
    index = NearIndex(sets, tenths)
    for each in sets:
        index.add(each)
    return index


def test_sets_at_the_threshold_are_near_and_below_it_are_not() -> None:
    ten, nine = words("abcdefghij"), words("abcdefghi")
    assert NearIndex((), 9).is_near(ten, nine)  # 9 of 10 words
    assert not NearIndex((), 9).is_near(nine, words("abcdefgh"))  # 8 of 9
    assert NearIndex((), 5).is_near(words("abc"), words("bcd"))  # 2 of 4
    assert not NearIndex((), 6).is_near(words("abc"), words("bcd"))
    assert not NearIndex((), 1).is_near(words("abc"), words("def"))


def test_sets_that_share_frequent_words_alone_are_never_compared() -> None:
    frequent = "abcdefgh"  # in each set, and first in the alphabet
    one, other = words(frequent + "wx"), words(frequent + "yz")
    assert index_of(one, other).candidates(one) == {one}


def test_sets_that_share_one_of_their_two_rarest_words_are_compared() -> None:
    one, other = words("abcdefghij"), words("abcdefghix")
    index = index_of(one, other, words("abcdefgh"))
    assert index.candidates(one) == {one, other}


def test_sets_of_other_groups_are_not_candidates() -> None:
    one = words("abc")
    index = NearIndex([one], 9)
    index.add(one, "g")
    assert index.candidates(one, "g") == {one}
    assert index.candidates(one, "h") == index.candidates(one) == set()


@given(st.lists(st.frozensets(st.sampled_from("abcdefghijkl"), min_size=1), max_size=12), st.integers(1, 9))
def test_no_near_pair_is_missed(sets: list[frozenset[str]], tenths: int) -> None:
    index = index_of(*sets, tenths=tenths)
    for one, other in combinations(sets, 2):
        if 10 * len(one & other) >= tenths * len(one | other):
            assert index.is_near(one, other)
            assert other in index.candidates(one)
