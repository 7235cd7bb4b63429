"""What was found by fuzzing stays found; and a short search for more."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
SEEDS = {name: [path.read_bytes() for path in sorted((CORPUS / name).iterdir())] for name in TARGETS}


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_case_is_refused_in_words_or_read(name: str) -> None:
    assert len(SEEDS[name]) >= 5
    for data in SEEDS[name]:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(max_examples=60)
@pytest.mark.slow
def test_bytes_and_changed_cases_are_refused_in_words_or_read(name: str, data: st.DataObject) -> None:
    made = data.draw(st.one_of(st.binary(max_size=200), st.sampled_from(SEEDS[name])))
    changes = data.draw(
        st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 2)), max_size=6)
    )
    changed = bytearray(made)
    for where, byte, how in changes:
        at = where % (len(changed) + 1)
        if how == 0:
            changed[at:at] = bytes([byte])
        elif how == 1 and at < len(changed):
            changed[at] = byte
        else:
            del changed[at : at + random.Random(byte).randrange(1, 9)]  # noqa: S311 - how much is cut
    TARGETS[name](bytes(changed))
