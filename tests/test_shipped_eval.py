"""The corpus and the labels that come with the project are what the documents say of them."""

from collections import Counter
from pathlib import Path

import pytest

from qaeval.corpus.loading import load_chunks
from qaeval.evals.rubric import load_rubric
from qaeval.records import Chunk, Item, Label, Sample
from qaeval.stats.reliability import cohen_kappa
from qaeval_floor.candidates import lead, salient
from qaeval_floor.lexical import judge

ROOT = Path(__file__).parents[1]
EVAL = ROOT / "evals" / "qa_pairs"
FIRST, SECOND, THIRD = (EVAL / "labels" / f"{name}.jsonl" for name in ("claude", "claude-2", "claude-3"))


@pytest.fixture(scope="module")
def chunks() -> dict[str, Chunk]:
    return {chunk.chunk_id: chunk for chunk in load_chunks(EVAL / "chunks.jsonl")}


def read(path: Path) -> list[Label]:
    return [Label.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("path", "at_least"), [(FIRST, 180), (SECOND, 60), (THIRD, 50)])
def test_labels_are_of_what_the_embedded_candidates_write_today(
    path: Path, at_least: int, chunks: dict[str, Chunk]
) -> None:
    labels = read(path)
    letters, flags = load_rubric(ROOT / "rubrics" / "qa_pair_abc.yaml").letters, {"hallucination"}
    items = {}
    for chunk in chunks.values():
        sample_id = Sample.of(chunk).sample_id
        for write in (lead, salient):
            for index, pair in enumerate(write(chunk.text)):
                item = Item.of(sample_id, index, type=pair.type, question=pair.question, answer=pair.answer)
                items[item.item_id] = (chunk.chunk_id, pair.question, pair.answer)
    assert len({label.item_id for label in labels}) == len(labels) >= at_least
    for label in labels:
        assert (label.chunk_id, label.question, label.answer) == items[label.item_id]
        assert label.rater_kind == "model"
        assert label.letter in letters
        assert set(label.flags) <= flags
        assert label.note, "a label says why"


def test_a_chunk_is_wholly_in_one_half_of_the_split() -> None:
    halves = {(label.chunk_id, label.split) for label in (*read(FIRST), *read(SECOND), *read(THIRD))}
    assert max(Counter(chunk_id for chunk_id, _ in halves).values()) == 1


@pytest.mark.parametrize("path", [SECOND, THIRD])
def test_another_rater_did_not_copy_the_first(path: Path) -> None:
    first = {label.item_id: label for label in read(FIRST)}
    both = [(first[label.item_id], label) for label in read(path)]
    assert {one.rater for one, _ in both}.isdisjoint({two.rater for _, two in both})
    assert any(one.letter != two.letter for one, two in both)
    assert all(one.note != two.note for one, two in both)


def test_the_lexical_judge_is_better_than_chance_on_the_held_out_half(chunks: dict[str, Chunk]) -> None:
    labels = [label for label in read(FIRST) if label.split == "held-out"]
    judged = [judge(chunks[one.chunk_id].text, one.question, one.answer).letter for one in labels]
    given = ["ABC".index(label.letter) for label in labels]
    assert cohen_kappa(given, ["ABC".index(letter) for letter in judged], n_levels=3) > 0.4
