"""The labels that come with qa_pairs: drawn with known probability, read blind, and not to be guessed from the question."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from qaeval.corpus.loading import load_chunks
from qaeval.evals.rubric import load_rubric
from qaeval.records import Chunk, Item, Label, Sample
from qaeval.registry.config import load_config
from qaeval.stats.reliability import cohen_kappa, kappa_interval
from qaeval_floor.candidates import lead, salient
from qaeval_floor.lexical import judge

ROOT = Path(__file__).parents[1]
EVAL = ROOT / "evals" / "qa_pairs"
FIRST, SECOND, SETTLED = "claude-1", "claude-2", "claude-3"
BY_CONSTRUCTION = {
    **dict.fromkeys(("number", "date", "unit", "name", "negation", "contradiction"), "C"),
    **dict.fromkeys(("invented fact", "unsupported addition", "other question", "vague question"), "C"),
    "honest refusal": "B",
}
"""Letters that follow from the rubric for what was planted; other faults can be a B or a C."""
PATTERNS = (
    (r"compared with|im Vergleich", "C"),
    (r"\b[Tt]ext\b", "B"),
    (r" related\?$", "B"),
    (r"^What happens|^Why", "B"),
    (r"characterises|kennzeichnet|is true of", "C"),
)
"""A reader of questions alone, read off the labels of rules' items under rubric 1: kappa 0.52 on their held-out half."""


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read(rater: str) -> dict[str, Label]:
    return {row["item_id"]: Label.model_validate(row) for row in rows(EVAL / "labels" / f"{rater}.jsonl")}


@pytest.fixture(scope="module")
def chunks() -> dict[str, Chunk]:
    return {chunk.chunk_id: chunk for chunk in load_chunks(EVAL / "chunks.jsonl")}


@pytest.fixture(scope="module")
def drawn() -> dict[str, dict[str, Any]]:
    return {row["item_id"]: row for row in rows(EVAL / "items" / "drawn.jsonl")}


@pytest.fixture(scope="module")
def reference() -> dict[str, Label]:
    return {**read(FIRST), **read(SETTLED)}


@pytest.fixture(scope="module")
def held_out(reference: dict[str, Label]) -> list[Label]:
    return [label for label in reference.values() if label.split == "held-out"]


def kappa(labels: list[Label], letters: list[str]) -> float:
    given, judged = (["ABC".index(letter) for letter in row] for row in (map(letter_of, labels), letters))
    return cohen_kappa(given, judged, n_levels=3)


def letter_of(label: Label) -> str:
    return label.letter


def test_labels_are_of_drawn_items_of_the_shipped_chunks(
    chunks: dict[str, Chunk], drawn: dict[str, dict[str, Any]]
) -> None:
    rubric = load_rubric(ROOT / "rubrics" / "qa_pair_abc.yaml")
    for rater in (FIRST, SECOND, SETTLED):
        assert read(rater)
        for name, label in read(rater).items():
            item, chunk = drawn[name], chunks[label.chunk_id]
            made = Item.of(
                Sample.of(chunk).sample_id, 0, type="", question=label.question, answer=label.answer
            )
            assert made.item_id == name
            assert (label.question, label.answer, label.inclusion) == (
                item["question"],
                item["answer"],
                item["inclusion"],
            )
            assert (label.rater, label.rater_kind, label.split) == (rater, "model", chunk.split)
            assert label.rubric == f"{rubric.name}/{rubric.version}"
            assert label.letter in rubric.letters
            assert set(label.flags) <= {flag.name for flag in rubric.flags}
            assert label.note, "a label says why"


def test_the_labels_have_the_breadth_that_they_promise(drawn: dict[str, dict[str, Any]]) -> None:
    labels = read(FIRST)
    kinds = Counter(drawn[name]["kind"] for name in labels)
    assert len({label.chunk_id for label in labels.values()}) >= 145
    assert kinds["model"] >= 145
    assert kinds["planted"] >= 140
    assert kinds["sound"] >= 95
    assert kinds["floor"] >= 45
    assert min(Counter(label.split for label in labels.values()).values()) >= 200


def test_two_blind_readings_agree_better_than_those_under_the_first_rubric() -> None:
    first, second = read(FIRST), read(SECOND)
    names = sorted(set(first) & set(second))
    codes = [["ABC".index(labels[name].letter) for name in names] for labels in (first, second)]
    estimate = kappa_interval(*codes, [first[name].chunk_id for name in names], n_levels=3)
    assert len(names) >= 145
    assert estimate.n_clusters >= 30
    assert estimate.value > 0.63
    assert sum(first[name].note == second[name].note for name in names) <= 0.05 * len(names)


def test_what_two_readings_differ_in_is_settled() -> None:
    first, second = read(FIRST), read(SECOND)
    differing = {name for name in set(first) & set(second) if first[name].letter != second[name].letter}
    assert differing <= set(read(SETTLED))
    assert all(label.settles for label in read(SETTLED).values())


def test_planted_faults_have_the_letter_that_follows_from_them(
    drawn: dict[str, dict[str, Any]], reference: dict[str, Label]
) -> None:
    planted = [
        (drawn[name]["origin"], label.letter)
        for name, label in reference.items()
        if drawn[name]["kind"] == "planted"
    ]
    wrong = [(kind, letter) for kind, letter in planted if letter != BY_CONSTRUCTION.get(kind, letter)]
    assert not wrong
    assert not [kind for kind, letter in planted if letter == "A"]


def test_items_of_the_floor_are_what_it_writes_today(
    chunks: dict[str, Chunk], drawn: dict[str, dict[str, Any]]
) -> None:
    items = [item for item in drawn.values() if item["kind"] == "floor"]
    assert {item["origin"] for item in items} == {"embedded-lead", "embedded-salient"}
    for item in items:
        write = {"embedded-lead": lead, "embedded-salient": salient}[item["origin"]]
        pairs = [(pair.question, pair.answer) for pair in write(chunks[item["chunk_id"]].text)]
        assert (item["question"], item["answer"]) in pairs


def test_five_patterns_that_see_neither_chunk_nor_answer_do_not_find_the_letters(
    held_out: list[Label],
) -> None:
    guesses = [
        next((letter for pattern, letter in PATTERNS if re.search(pattern, label.question)), "A")
        for label in held_out
    ]
    assert kappa(held_out, guesses) <= 0.15


def test_the_card_states_how_far_the_floor_judge_agrees(
    chunks: dict[str, Chunk], held_out: list[Label]
) -> None:
    judged = [judge(chunks[label.chunk_id].text, label.question, label.answer).letter for label in held_out]
    stated = f"kappa {kappa(held_out, judged):.2f}"
    assert stated in (EVAL / "README.md").read_text(encoding="utf-8")
    assert stated in load_config(ROOT / "qaeval.yaml").judges["embedded-lexical"].notes
