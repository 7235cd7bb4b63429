"""The shipped eval `rag_qa`: its questions are not separable by their words, and corrections are recognised."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from qaeval.checks.answers import missing_refusal
from qaeval.checks.check import CheckedItem
from qaeval.corpus.samples import load_samples
from qaeval.errors import DataError
from qaeval.evals.find import find_eval
from qaeval.records import Item, Sample

RAG: Final = find_eval("rag_qa")
ANSWERS: Final = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "rag_qa_answers.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]


@pytest.fixture(scope="module")
def samples() -> dict[str, Sample]:
    return {sample.given["sample"]: sample for sample in load_samples(RAG)}


def test_rag_qa_has_the_questions_that_it_promises(samples: dict[str, Sample]) -> None:
    assert Counter(sample.stratum for sample in samples.values()) == {
        "answerable": 90,
        "absent": 18,
        "false_premise": 18,
        "near_miss": 16,
        "partly": 16,
        "conflict": 8,
    }
    assert {sample.type for sample in samples.values() if sample.stratum != "answerable"} == {"unanswerable"}
    assert sum(sample.chunk.language == "de" for sample in samples.values()) == 32
    assert all(sample.given["expected"] for sample in samples.values())


def test_every_sample_has_its_own_id_and_question(samples: dict[str, Sample]) -> None:
    assert len(load_samples(RAG)) == len(samples)
    assert len({sample.sample_id for sample in samples.values()}) == len(samples)


def test_the_chunks_of_unanswerable_questions_have_answerable_ones_too(samples: dict[str, Sample]) -> None:
    """Otherwise the source of a chunk separates the types, and nobody needs to read it."""
    documents = {
        kind: {sample.chunk.stratum for sample in samples.values() if sample.type == kind}
        for kind in RAG.item_types
    }
    assert documents["unanswerable"] <= documents["answerable"]


def words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.casefold()) if len(word) > 3}


def overlap(sample: Sample) -> float:
    asked = words(sample.question)
    return len(asked & words(f"{sample.chunk.title} {sample.chunk.text}")) / len(asked)


@pytest.mark.parametrize("stratum", ["near_miss", "conflict", "false_premise"])
def test_overlap_of_words_does_not_show_whether_the_chunk_answers(
    stratum: str, samples: dict[str, Sample]
) -> None:
    """The questions of the former stratum `elsewhere` had an AUC of .975 by the same measure."""
    answered, others = (
        np.array([overlap(sample) for sample in samples.values() if sample.stratum == name])
        for name in ("answerable", stratum)
    )
    above, equal = answered[:, None] > others, answered[:, None] == others
    area = above.mean() + equal.mean() / 2
    assert 0.3 < area < 0.7


def finding(sample: Sample, answer: str) -> str:
    item = Item.of(sample.sample_id, 0, type=sample.type, question=sample.question, answer=answer)
    return missing_refusal(CheckedItem(item, (), sample, ""))


@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: f"{row['sample']}-{row['answer'][:30]}")
def test_missing_refusal_passes_corrections_and_no_other_answer(
    row: dict[str, Any], samples: dict[str, Sample]
) -> None:
    assert bool(finding(samples[row["sample"]], row["answer"])) is not row["is_right"]


def test_every_correction_that_a_sample_accepts_is_tested(samples: dict[str, Sample]) -> None:
    accepting = {name for name, sample in samples.items() if "accepts" in sample.given}
    corrected = {name for name, sample in samples.items() if sample.stratum in {"false_premise", "conflict"}}
    assert accepting == corrected
    for is_right in (True, False):
        tested = Counter(row["sample"] for row in ANSWERS if row["is_right"] is is_right)
        assert all(tested[name] >= 5 for name in accepting)
    wrong = [row["answer"] for row in ANSWERS if not row["is_right"]]
    assert sum(re.search(r"\b(not|no|nicht|kein\w*)\b|n't\b", answer) is not None for answer in wrong) >= 60


@pytest.mark.parametrize("accepts", ["a text", [1], [""], ["("], ["a{99999999999}"]], ids=str)
def test_accepted_corrections_that_are_no_expressions_are_refused_with_their_line(
    accepts: Any, tmp_path: Path
) -> None:
    path = tmp_path / "samples.jsonl"
    row = {"chunk_id": "lora-01-idea", "question": "Why?", "type": "unanswerable", "accepts": accepts}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"samples\.jsonl:1: accepts: "):
        load_samples(RAG, samples=path)
