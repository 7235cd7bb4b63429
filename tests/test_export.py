"""A graded run becomes training data, tables and sheets."""

import csv
import hashlib
import io
import json
import re
import shutil
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from command import qaeval
from qaeval.agreement.label_files import read_labels
from qaeval.comparison.csv import escape_formula
from qaeval.errors import DataError, UsageError, install_command
from qaeval.export import ExportResult, Filters, write_export
from qaeval.export.dedup import ComparedText, deduplicate
from qaeval.export.licences import SourceModel, check_licences, terms_of
from qaeval.export.select import GradedItem, GradedItems, Grading
from qaeval.export.split import SplitKey, assign
from qaeval.export.tables import require_package, write_parquet
from qaeval.export.training import PAIRS_PER_SAMPLE, dpo_examples, sft_examples
from qaeval.records import REJECTED, Chunk, Failure, Generation, Grade, Item, Label, Sample, record_id
from qaeval.storage.run_directory import GENERATIONS, GRADES, RunStore

EXAMPLE = Path(__file__).parents[1] / "results" / "example"
SPLITS = ("train", "validation", "test")
SHA = "f" * 64
PROMPT = {"system": "You write pairs.", "user": "$title: $chunk for $$5"}

GradedPair = tuple[str, str, str]
"""Question, answer and letter; an empty letter means an unparseable reply of the judge."""
UNGRADED = "-"
"""Letter of an item that the judge has not graded yet."""


def settings(candidates: Sequence[str], **licences: str) -> dict[str, Any]:
    def model_settings(name: str) -> dict[str, Any]:
        kind = "server" if name in licences else "embedded"
        return {"kind": kind, "hf_id": f"org/{name}", "revision": None, "licence": licences.get(name, "")}

    rubric = {
        "name": "abc",
        "version": 1,
        "sha": SHA,
        "scale": [{"letter": letter, "name": f"level {letter}"} for letter in "ABC"],
        "flags": [],
    }
    task = {"items_per_sample": 1, "item_types": [], "rubric": "abc", "prompt": PROMPT}
    return {
        "eval": {"name": "e", "title": "An eval", "digest": "e" * 64, **task},
        "sample_set": {"n": 1, "seed": 0, "digest": "d" * 64},
        "candidates": {name: model_settings(name) for name in candidates},
        "grading": {"judge": {"name": "judge", **model_settings("judge")}, "rubric": rubric},
    }


def sample(number: int, question: str = "", document: str = "") -> Sample:
    chunk = Chunk(
        chunk_id=f"c{number}", text=f"Text of {number}.", document=document, title=f"Title {number}"
    )
    return Sample.of(chunk, question)


def grade(item: Item, letter: str, **fields: Any) -> Grade:
    return Grade(
        task_id=record_id("grade", item.item_id),
        judge="judge",
        rubric_sha=SHA,
        item_id=item.item_id,
        letter=letter,
        reason=fields.pop("reason", "because"),
        text="",
        latency_s=0,
        **fields,
    )


def grade_failure(graded_sample: Sample, item: Item) -> Failure:
    return Failure(
        task_id=record_id("grade", item.item_id),
        stage="grade",
        model="judge",
        sample_id=graded_sample.sample_id,
        item_id=item.item_id,
        reason="unparseable",
        detail="d",
    )


def make_run(
    path: Path,
    replies: Mapping[str, Sequence[Sequence[GradedPair] | None]],
    *,
    samples: Sequence[Sample] | None = None,
    grade_fields: Mapping[str, Mapping[str, Any]] | None = None,
    parts: Mapping[str, str] | None = None,
    licences: Mapping[str, str] | None = None,
    item_kind: str = "qa_pair",
) -> RunStore:
    """Make a run from each candidate's replies per sample, None for a failure; ``grade_fields`` adds to grades."""
    n = max(map(len, replies.values()))
    samples = samples or [sample(number) for number in range(n)]
    run_settings = settings(list(replies), **(licences or {}))
    run_settings["eval"]["item_kind"] = item_kind
    store = RunStore.create(path, run_settings, samples, resume=False)
    grades: dict[str, Grade | Failure] = {}
    with store.writer(GENERATIONS) as rows:
        for name, sample_replies in replies.items():
            for run_sample, pairs in zip(samples, sample_replies, strict=True):
                task_id = record_id("generate", name, run_sample.sample_id)
                if pairs is None:
                    rows.append(
                        Failure(
                            task_id=task_id,
                            stage="generate",
                            model=name,
                            sample_id=run_sample.sample_id,
                            reason="invalid_json",
                            detail="d",
                        )
                    )
                    continue
                items = []
                for position, (question, answer, letter) in enumerate(pairs):
                    item = Item.of(
                        run_sample.sample_id,
                        position,
                        type="factual",
                        question=question,
                        answer=answer,
                        parts=parts,
                    )
                    fields = dict((grade_fields or {}).get(question, {}))
                    findings = fields.pop("findings", {})
                    items.append(item.model_copy(update={"findings": findings}))
                    if letter != UNGRADED:
                        grades[item.item_id] = (
                            grade(item, letter, **fields) if letter else grade_failure(run_sample, item)
                        )
                rows.append(
                    Generation(
                        task_id=task_id,
                        candidate=name,
                        sample_id=run_sample.sample_id,
                        items=tuple(items),
                        text="",
                        latency_s=0,
                    )
                )
    with store.writer(GRADES) as rows:
        for row in grades.values():
            rows.append(row)
    return store


def label(item: Item, letter: str, rater: str = "ann", kind: Any = "human", rubric: str = "") -> Label:
    return Label(
        item_id=item.item_id, rater=rater, rater_kind=kind, letter=letter, rubric=rubric, note="seen"
    )


def read_splits(folder: Path) -> dict[str, list[dict[str, Any]]]:
    paths = {split: folder / f"{split}.jsonl" for split in SPLITS}
    return {
        split: [json.loads(line) for line in path.read_text().splitlines()]
        for split, path in paths.items()
        if path.is_file()
    }


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for rows in read_splits(folder).values() for row in rows]


def front_matter(folder: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return metadata


def exported_questions(folder: Path) -> list[str]:
    return sorted(row["messages"][-2]["content"] for row in read_rows(folder))


@pytest.fixture
def example(tmp_path: Path) -> Iterator[RunStore]:
    # a run is locked while it is open, and other tests read this one
    with RunStore.open(Path(shutil.copytree(EXAMPLE, tmp_path / "example"))) as store:
        yield store


# ---------------------------------------------------------------- the example run


def test_sft_exports_only_best_items_of_the_example(example: RunStore, tmp_path: Path) -> None:
    result = write_export(example, "sft", tmp_path / "out")
    best_ids = {
        row.item_id
        for row in example.grades()
        if isinstance(row, Grade) and row.letter == "A" and not row.flags
    }
    rows = read_rows(tmp_path / "out")
    assert rows
    assert {row["id"] for row in rows} <= best_ids
    assert sum(result.counts.values()) == len(rows)
    assert {row["letter"] for row in rows} == {"A"}
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize("to", ["sft", "dpo", "csv", "parquet", "labels"])
def test_export_is_deterministic(example: RunStore, tmp_path: Path, to: Any) -> None:
    exports = [write_export(example, to, tmp_path / name, seed=3).paths for name in ("one", "two")]
    assert [path.name for path in exports[0]] == [path.name for path in exports[1]]
    assert [path.read_bytes() for path in exports[0]] == [path.read_bytes() for path in exports[1]]


@pytest.mark.slow
def test_datasets_loads_an_export(example: RunStore, tmp_path: Path) -> None:
    import datasets  # type: ignore[import-untyped]  # noqa: PLC0415 - takes seconds

    for to in ("sft", "dpo"):
        result = write_export(example, to, tmp_path / to)
        files = {split: str(tmp_path / to / f"{split}.jsonl") for split in result.counts}
        by_file = datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))
        by_folder = datasets.load_dataset(str(tmp_path / to), cache_dir=str(tmp_path / "cache"))
        for loaded in (by_file, by_folder):
            assert {split: len(rows) for split, rows in loaded.items()} == result.counts
    assert by_folder["train"][0]["prompt"][0]["role"] == "system"


def test_card_lists_every_file_with_its_hash_and_every_split(example: RunStore, tmp_path: Path) -> None:
    result = write_export(example, "sft", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert {path.stem for path in result.paths[:-1]} == set(result.counts)
    for path in result.paths[:-1]:
        assert f"`{path.name}`" in card
        assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    config = front_matter(tmp_path / "out")["configs"][0]
    assert [data_file["split"] for data_file in config["data_files"]] == list(result.counts)
    run_settings = example.settings()
    for excerpt in (
        run_settings["eval"]["digest"],
        run_settings["grading"]["rubric"]["sha"],
        "embedded-lead",
        "assistant_only_loss=True",
        f"The judge `embedded-lexical` graded {sum(result.counts.values()):,} items with the rubric `qa_pair_abc/3`.",
    ):
        assert excerpt in card
    assert "## Personal and confidential" in card


def test_model_labels_of_the_eval_do_not_change_the_default_export(example: RunStore, tmp_path: Path) -> None:
    paths = sorted((EXAMPLE.parents[1] / "evals" / "qa_pairs" / "labels").glob("*.jsonl"))
    labels = [row for path in paths for row in read_labels(path)]
    assert any(graded.source == "label" for graded in GradedItems(example, labels, model_labels=True))
    write_export(example, "sft", tmp_path / "plain")
    write_export(example, "sft", tmp_path / "out", labels=labels)
    assert read_splits(tmp_path / "out") == read_splits(tmp_path / "plain")
    card = (tmp_path / "out" / "README.md").read_text()
    assert re.search(r"claude-1[^)]*\) were not", card)


# ---------------------------------------------------------------- letters and filters


def test_human_label_overrides_the_grade(tmp_path: Path) -> None:
    with make_run(tmp_path / "run", {"m": [[("Q one?", "a", "C"), ("Q two?", "b", "A")]]}) as store:
        first, second = (graded.item for graded in GradedItems(store))
        labels = [label(first, "A"), label(second, "C")]
        write_export(store, "sft", tmp_path / "with", labels=labels)
    assert exported_questions(tmp_path / "with") == ["Q one?"]
    assert "ann (human)" in (tmp_path / "with" / "README.md").read_text()


@pytest.mark.parametrize(
    ("rater", "message"),
    [
        (
            "claude-2",
            r"claude-2: licence \"Anthropic's terms\".*accept-licence claude-2.*--model-labels",
        ),
        ("Claude4", r"Anthropic's terms"),
        ("gemini-3", r"Gemini API terms"),
        ("m1", r"m1: no licence.*--accept-licence m1"),
        ("judge", r"judge: licence 'mrl'"),
    ],
)
def test_model_labels_count_only_on_request_and_if_licence_allows(
    tmp_path: Path, rater: str, message: str
) -> None:
    replies = {"m": [[("Q one?", "a", "C"), ("Q two?", "b", "A"), ("Q three?", "c", "A")]]}
    licences = {"m": "mit", "judge": "mrl"}
    filters = Filters(model_labels=True)
    with make_run(tmp_path / "run", replies, licences=licences) as store:
        store.write_settings({**store.settings(), "grading": with_judge(store, "judge", licence="mit")})
        first, second, third = (graded.item for graded in GradedItems(store))
        labels = [label(first, "A", rater, "model"), label(second, "C", rater, "model")]
        labels.append(label(third, "A", "ann"))
        write_export(store, "sft", tmp_path / "without", labels=labels)
        if rater == "judge":
            store.write_settings({**store.settings(), "grading": with_judge(store, "judge", licence="mrl")})
        with pytest.raises(UsageError, match=message):
            write_export(store, "sft", tmp_path / "with", labels=labels, filters=filters)
        write_export(store, "sft", tmp_path / "with", labels=labels, filters=filters, accept=(rater,))
    assert exported_questions(tmp_path / "without") == ["Q three?", "Q two?"]
    assert exported_questions(tmp_path / "with") == ["Q one?", "Q three?"]
    card = (tmp_path / "with" / "README.md").read_text()
    assert f"{rater} (model)" in card
    assert f"Labels by models ({rater}) count" in card
    assert f"{rater} (model)" not in (tmp_path / "without" / "README.md").read_text()


def with_judge(store: RunStore, name: str, **fields: str) -> dict[str, Any]:
    grading = store.settings()["grading"]
    return {**grading, "judge": {**grading["judge"], "name": name, "kind": "server", **fields}}


@pytest.mark.parametrize(
    ("ratings", "letter"),
    [
        ([("ann", "human", "A"), ("ben", "human", "A"), ("cy", "human", "C")], "A"),
        ([("ann", "human", "A"), ("ben", "human", "B")], "B"),
        ([("ann", "human", "A"), ("m1", "model", "C"), ("m2", "model", "C")], "A"),
        ([("m1", "model", "B"), ("m2", "model", "B"), ("m3", "model", "A")], "B"),
        ([("ann", "human", "C"), ("ann", "human", "A")], "A"),
    ],
)
def test_letters_of_several_raters_are_combined(
    tmp_path: Path, ratings: list[GradedPair], letter: str
) -> None:
    with make_run(tmp_path, {"m": [[("Q?", "a", "B")]]}) as store:
        item = next(iter(GradedItems(store))).item
        labels = [label(item, rating, rater, rater_kind) for rater, rater_kind, rating in ratings]
        assert next(iter(GradedItems(store, labels, model_labels=True))).letter == letter


def test_labels_of_another_rubric_are_ignored_and_letters_off_the_scale_refused(tmp_path: Path) -> None:
    with make_run(tmp_path, {"m": [[("Q?", "a", "B")]]}) as store:
        item = next(iter(GradedItems(store))).item
        assert next(iter(GradedItems(store, [label(item, "Z", rubric="other/1")]))).source == "grade"
        assert next(iter(GradedItems(store, [label(item, "A", rubric="abc/1")]))).letter == "A"
        with pytest.raises(DataError, match=r"ann.*A/B/C.*'Z'"):
            GradedItems(store, [label(item, "Z")])


def test_each_filter_selects_matching_items(tmp_path: Path) -> None:
    pairs = [(f"About {word}?", f"It is {word} here.", "A") for word in ("plain", "sure", "found", "flagged")]
    grade_fields: dict[str, dict[str, Any]] = {
        "About sure?": {"probabilities": {"A": 0.95}},
        "About plain?": {"probabilities": {"A": 0.5}},
        "About found?": {"findings": {"language": "is not German"}},
        "About flagged?": {"flags": ("hallucination",)},
    }

    def export_subjects(name: str, **filters: Any) -> list[str]:
        write_export(store, "sft", tmp_path / name, filters=Filters(**filters))
        return [
            question.removeprefix("About ").removesuffix("?")
            for question in exported_questions(tmp_path / name)
        ]

    with make_run(tmp_path / "run", {"m": [pairs]}, grade_fields=grade_fields) as store:
        assert export_subjects("default") == ["found", "plain", "sure"]
        assert export_subjects("checks", checks_passed=True) == ["plain", "sure"]
        assert export_subjects("sure", min_probability=0.9) == ["sure"]


def test_a_single_candidate_can_be_exported(tmp_path: Path) -> None:
    replies = {"m": [[("Q one?", "a", "A")]], "n": [[("Q two?", "b", "A")]]}
    with make_run(tmp_path / "run", replies) as store:
        write_export(store, "sft", tmp_path / "out", filters=Filters(candidates=("n",)))
        with pytest.raises(UsageError, match=r"'nn'.*Did you mean 'n'"):
            write_export(store, "sft", tmp_path / "no", filters=Filters(candidates=("nn",)))
    assert exported_questions(tmp_path / "out") == ["Q two?"]


def test_error_names_the_filter_that_removed_the_last_items(tmp_path: Path) -> None:
    with make_run(tmp_path / "run", {"m": [[("Q?", "a", "B")]]}) as store:
        with pytest.raises(DataError, match=r"of 1 items .*'letters A'"):
            write_export(store, "sft", tmp_path / "out")
        probability_filter = Filters(letters=("B",), min_probability=0.5)
        with pytest.raises(DataError, match=r"'probability .*0\.5'"):
            write_export(store, "sft", tmp_path / "out", filters=probability_filter)
        with pytest.raises(DataError, match="no pairs: 1 items"):
            write_export(store, "dpo", tmp_path / "out", filters=Filters(letters=("B",)))
    assert not (tmp_path / "out").exists()


def test_a_run_without_grades_is_refused(tmp_path: Path) -> None:
    run_settings = {**settings(["m"]), "grading": None}
    with (
        RunStore.create(tmp_path / "run", run_settings, [sample(1)], resume=False) as store,
        pytest.raises(DataError, match="not graded yet"),
    ):
        write_export(store, "sft", tmp_path / "out")


# ---------------------------------------------------------------- rows


def graded_items_of_run(path: Path, *args: Any, **options: Any) -> list[GradedItem]:
    with make_run(path, *args, **options) as store:
        return list(GradedItems(store))


def test_dpo_prompt_is_that_of_the_chosen_items_candidate(tmp_path: Path) -> None:
    replies = {"m": [[("Good?", "yes", "A")]], "n": [[("Bad?", "no", "C")]]}
    (row,) = preference_rows(
        graded_items_of_run(tmp_path, replies), prompt=lambda name: {"user": f"{name}: $chunk"}
    )
    assert row["prompt"][0]["content"].startswith("m: ")


def preference_rows(items: list[GradedItem], **options: Any) -> list[dict[str, Any]]:
    defaults = {
        "best": "A",
        "scale": "ABC",
        "prompt": lambda _: PROMPT,
        "chosen": lambda _: True,
        "per_sample": PAIRS_PER_SAMPLE,
    }
    return [example.row for example in dpo_examples(items, **{**defaults, **options})]


def test_context_is_included_on_request(tmp_path: Path) -> None:
    items = graded_items_of_run(tmp_path, {"m": [[("Größe?", "5 € 🙂", "A")]]})
    row = next(sft_examples(items, with_context=True)).row
    assert [turn["content"] for turn in row["messages"]] == ["Text of 0.\n\nGröße?", "5 € 🙂"]
    assert {key: row[key] for key in ("chunk_id", "candidate", "letter", "type")} == {
        "chunk_id": "c0",
        "candidate": "m",
        "letter": "A",
        "type": "factual",
    }


@pytest.mark.parametrize(("kind", "context"), [("answer", True), ("qa_pair", False)])
def test_answer_prompts_include_the_passage_by_default(tmp_path: Path, kind: str, context: bool) -> None:
    replies = {"m": [[("Why?", "The text does not say.", "A")]]}
    with make_run(tmp_path / "run", replies, samples=[sample(0, "Why?")], item_kind=kind) as store:
        write_export(store, "sft", tmp_path / "default")
        write_export(store, "sft", tmp_path / "other", with_context=not context)
    prompts = {True: ["Text of 0.\n\nWhy?"], False: ["Why?"]}
    assert exported_questions(tmp_path / "default") == prompts[context]
    assert exported_questions(tmp_path / "other") == prompts[not context]


def test_dpo_rows_of_qa_pairs_have_the_original_prompt(tmp_path: Path) -> None:
    replies = {"m": [[("Good?", "yes", "A")]], "n": [[("Bad?", "no", "C")]]}
    (row,) = preference_rows(graded_items_of_run(tmp_path, replies))
    system, user = row["prompt"]
    assert system == {"role": "system", "content": PROMPT["system"]}
    assert user["role"] == "user"
    original, single_pair = user["content"].split("\n\n")
    title, text = "Title 0", "Text of 0."
    assert original == f"{title}: {text} for $5"
    assert "one of type factual" in single_pair
    assert json.loads(row["chosen"][0]["content"]) == {
        "type": "factual",
        "question": "Good?",
        "answer": "yes",
    }
    assert json.loads(row["rejected"][0]["content"])["question"] == "Bad?"
    assert (row["candidate_chosen"], row["candidate_rejected"], row["letter_rejected"]) == ("m", "n", "C")


def test_dpo_rows_of_answers_have_chunk_and_question_as_prompt(tmp_path: Path) -> None:
    replies = {"m": [[("Why?", "so", "A")]], "n": [[("Why?", "no idea", "B")]]}
    (row,) = preference_rows(graded_items_of_run(tmp_path, replies, samples=[sample(0, "Why?")]))
    assert row["prompt"] == [{"role": "user", "content": "Text of 0.\n\nWhy?"}]
    assert row["chosen"][0]["content"] == "so"
    assert row["rejected"][0]["content"] == "no idea"


def test_each_preference_pair_is_one_dpo_row(tmp_path: Path) -> None:
    replies = {"m": [[("Do it", "well", "A"), ("Do that", "well too", "C")]]}
    items = graded_items_of_run(tmp_path, replies, parts={REJECTED: "badly"})
    (row,) = preference_rows(items, chosen=lambda item: item.letter == "A")
    assert row["prompt"] == [{"role": "user", "content": "Do it"}]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("well", "badly")
    assert next(sft_examples(items[:1], with_context=True)).row["messages"] == [
        {"role": "user", "content": "Do it"},
        {"role": "assistant", "content": "well"},
    ]


@pytest.mark.parametrize(
    ("letters", "prompts"),
    [((), ["Do A"]), (("B",), ["Do B"]), (("B", "C"), ["Do B", "Do C"]), (("A", "C"), ["Do A", "Do C"])],
)
def test_letter_option_selects_preference_pairs(
    letters: tuple[str, ...], prompts: list[str], tmp_path: Path
) -> None:
    replies = {"m": [[(f"Do {letter}", f"well, {letter}", letter)] for letter in "ABC"]}
    make_run(tmp_path / "run", replies, parts={REJECTED: "badly"}, item_kind="preference_pair").close()
    options = [word for letter in letters for word in ("--letter", letter)]
    result = qaeval(
        "export", "run", "--to", "dpo", "--split", "1,0,0", "--out", "out", *options, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert sorted(row["prompt"][0]["content"] for row in rows) == prompts
    assert all(row["letter_chosen"] == row["prompt"][0]["content"][-1] for row in rows)
    assert all(row["rejected"][0]["content"] == "badly" for row in rows)


def test_pairs_per_sample_are_limited_with_widest_gaps_first(tmp_path: Path) -> None:
    good = [(f"Good {n}?", f"g{n}", "A") for n in range(3)]
    worse = [("Fair?", "f", "B"), ("Bad 1?", "b1", "C"), ("Bad 2?", "b2", "C")]
    items = graded_items_of_run(tmp_path, {"m": [good], "n": [worse]})
    pairs = preference_rows(items, per_sample=3)
    assert [row["letter_rejected"] for row in pairs] == ["C", "C", "B"]
    assert len({row["chosen"][0]["content"] for row in pairs}) == 3
    all_pairs = preference_rows(items, per_sample=99)
    assert len(all_pairs) == len({row["id"] for row in all_pairs}) == 9


def test_items_of_different_type_or_sample_are_not_paired(tmp_path: Path) -> None:
    items = graded_items_of_run(tmp_path, {"m": [[("Good?", "g", "A")], [("Bad?", "b", "C")]]})
    other = items[1].item.model_copy(update={"type": "conceptual"})
    assert preference_rows(items) == []
    assert (
        preference_rows([items[0], GradedItem(items[0].sample, "m", other, "C", "grade", None, (), "")]) == []
    )


# ---------------------------------------------------------------- duplicates


def deduplicated_indices(*texts: tuple[str, str]) -> tuple[int, ...]:
    return deduplicate([ComparedText(*text) for text in texts]).indices


LONG = "the server reads the whole weights from memory for every step of each sequence and writes keys and values back"


def test_item_written_by_two_candidates_is_one_row(tmp_path: Path) -> None:
    replies = [[("What is it?", "It is this.", "A")]]
    with make_run(tmp_path / "run", {"m": replies, "n": replies}) as store:
        result = write_export(store, "sft", tmp_path / "out")
    assert [row["candidate"] for row in read_rows(tmp_path / "out")] == ["m"]
    assert result.dropped["exact duplicates"] == 1


def test_texts_that_differ_in_case_spaces_or_one_word_are_duplicates() -> None:
    unique = deduplicate(
        [
            ComparedText("What happens?", LONG),
            ComparedText("what  happens?", LONG.upper()),
            ComparedText("What happens?", f"{LONG}, quickly"),
        ]
    )
    assert (unique.indices, unique.exact, unique.near) == ((0,), 1, 1)


def test_texts_that_differ_in_number_negation_or_question_word_are_distinct() -> None:
    assert deduplicated_indices(("How much?", f"{LONG} 5 times"), ("How much?", f"{LONG} 6 times")) == (0, 1)
    assert deduplicated_indices(("Is it?", f"{LONG}"), ("Is it?", f"not {LONG}")) == (0, 1)
    assert deduplicated_indices(("Why does it load?", LONG), ("How does it load?", LONG)) == (0, 1)


def test_duplicate_with_the_better_letter_is_kept(tmp_path: Path) -> None:
    replies = {"m": [[("What happens?", f"{LONG}.", "B")]], "n": [[("What happens?", f"{LONG}!", "A")]]}
    with make_run(tmp_path / "run", replies) as store:
        write_export(store, "sft", tmp_path / "out", filters=Filters(letters=("A", "B")))
    assert [row["letter"] for row in read_rows(tmp_path / "out")] == ["A"]


WORDS = [f"word{chr(97 + n)}" for n in range(14)]


@pytest.mark.slow
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=8, max_size=14, unique=True), max_size=12))
def test_deduplication_drops_exactly_the_near_duplicates(bags: list[list[str]]) -> None:
    texts = [ComparedText("What?", " ".join(bag)) for bag in bags]
    sets = [frozenset(bag) for bag in bags]

    def are_near(first: int, second: int) -> bool:
        return len(sets[first] & sets[second]) * 10 >= 9 * len(sets[first] | sets[second])

    indices = deduplicate(texts).indices
    assert not any(are_near(first, second) for first, second in combinations(indices, 2))
    dropped = set(range(len(texts))) - set(indices)
    assert all(any(are_near(index, earlier) for earlier in indices if earlier < index) for index in dropped)


# ---------------------------------------------------------------- splits

SPLIT_KEYS = st.builds(
    SplitKey,
    chunk_id=st.integers(0, 12).map(lambda n: f"c{n}"),
    document=st.just(""),
    questions=st.integers(0, 30).map(lambda n: (f"Question {n}?",)),
)


@given(st.lists(SPLIT_KEYS), st.integers(0, 5), st.sampled_from(["chunk", "document"]))
def test_no_chunk_and_no_question_is_in_two_splits(keys: list[SplitKey], seed: int, by: Any) -> None:
    splits = assign(keys, shares=(0.4, 0.3, 0.3), seed=seed, by=by).splits
    for (first, first_split), (second, second_split) in combinations(zip(keys, splits, strict=True), 2):
        if first.chunk_id == second.chunk_id or first.questions == second.questions:
            assert first_split == second_split


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 5))
def test_added_data_do_not_change_existing_splits(n: int, n_added: int, seed: int) -> None:
    keys = [SplitKey(f"c{index}", f"d{index % 7}", (f"q{index}",)) for index in range(n + n_added)]
    for by in ("chunk", "document"):
        assert assign(keys, seed=seed, by=by).splits[:n] == assign(keys[:n], seed=seed, by=by).splits


def test_chunks_that_share_a_question_go_to_the_earliest_split() -> None:
    keys = [SplitKey(f"c{n}", "", (f"q{n}",)) for n in range(60)]
    splits = assign(keys).splits
    early, late = splits.index("train"), splits.index("test")
    linked = [*keys, SplitKey(f"c{late}", "", (f" Q{early} ",))]
    assignment = assign(linked)
    assert assignment.splits[late] == assignment.splits[-1] == "train"
    assert assignment.n_moved == 1
    assert [split for n, split in enumerate(assignment.splits[:60]) if n != late] == [
        split for n, split in enumerate(splits) if n != late
    ]


def test_chunks_with_equal_text_or_questions_share_a_split() -> None:
    keys = [SplitKey(f"c{n}", "", (f"q{n}",), f"Text {n}.") for n in range(60)]
    splits = assign(keys).splits
    early, late = splits.index("train"), splits.index("test")
    for added in (
        SplitKey(f"c{late}", "", ("other",), f" text  {early}."),
        SplitKey(f"c{late}", "", (f"Q{early} ?!",), "other"),
    ):
        assignment = assign([*keys, added])
        assert assignment.splits[late] == assignment.splits[-1] == "train"
        assert assignment.n_moved == 1
    punctuation_keys = [SplitKey("c1", "", ("?",)), SplitKey(f"c{late}", "", ("!",))]
    assert assign(punctuation_keys).n_moved == 0


def test_split_by_document_keeps_documents_together() -> None:
    keys = [SplitKey(f"c{n}", f"d{n % 50}", (f"q{n}",)) for n in range(200)]
    splits = assign(keys, by="document").splits
    assert all(splits[n] == splits[n % 50] for n in range(200))
    assert set(splits) == set(SPLITS)


def test_split_shares_are_met_and_validated() -> None:
    splits = assign([SplitKey(f"c{n}", "", ()) for n in range(5000)], shares=(0.8, 0.2, 0)).splits
    assert 3900 < splits.count("train") < 4100
    assert splits.count("test") == 0
    with pytest.raises(UsageError, match=r"split 0\.8/0\.8/0\.1: expected shares"):
        assign([], shares=(0.8, 0.8, 0.1))


# ---------------------------------------------------------------- licences


@pytest.mark.parametrize(
    ("licence", "verdict"),
    [
        ("Apache-2.0", "free"),
        ("apache-2.0", "free"),
        ("Apache License, Version 2.0", "free"),
        ("MIT", "free"),
        ("Apache-2.0, for research only", "refused"),
        ("Llama 3.1 Community License", "conditions"),
        ("llama3.3", "conditions"),
        ("Apache-2.0 by its card; the Llama 3.1 Community License of its base applies", "conditions"),
        ("llama3", "refused"),
        ("Llama 2 Community License", "refused"),
        ("Meta Llama 3 Community License", "refused"),
        ("gemma", "conditions"),
        ("Mistral Research License", "refused"),
        ("mrl", "refused"),
        ("cc-by-nc-4.0", "refused"),
        ("cc-by-4.0", "conditions"),
        ("qwen-research", "refused"),
        ("Qwen License", "conditions"),
        ("tongyi-qianwen", "refused"),
        ("OpenAI Terms of Use", "refused"),
        ("", "unknown"),
        ("Modified MIT", "unknown"),
        ("Llama 5", "unknown"),
    ],
)
def test_licence_terms_for_outputs(licence: str, verdict: str) -> None:
    verdicts = {row.verdict for row in terms_of(licence)}
    strictest = next(
        (candidate for candidate in ("refused", "conditions", "free") if candidate in verdicts), "unknown"
    )
    assert strictest == verdict


def test_every_registry_licence_has_known_terms() -> None:
    registry = yaml.safe_load((EXAMPLE.parents[1] / "qaeval.yaml").read_text())
    entries = {**registry["models"], **registry["judges"]}.values()
    assert all(terms_of(entry["licence"]) for entry in entries)


def test_restrictive_licence_is_refused_until_accepted(tmp_path: Path) -> None:
    replies = {"mini": [[("Q?", "a", "A")]]}
    licences = {"mini": "Mistral Research License", "judge": "Apache-2.0"}
    with make_run(tmp_path / "run", replies, licences=licences) as store:
        with pytest.raises(UsageError, match=r"mini.*Mistral Research License.*--accept-licence mini"):
            write_export(store, "sft", tmp_path / "out")
        write_export(store, "csv", tmp_path / "table")
        write_export(store, "sft", tmp_path / "out", accept=("mini",))
    assert "terms accepted by" in (tmp_path / "out" / "README.md").read_text()


def test_only_licences_of_models_with_exported_text_are_checked(tmp_path: Path) -> None:
    replies = {"mini": [[("Q?", "a", "A")]], "fine": [[("P?", "b", "A")]]}
    licences = {"mini": "mrl", "fine": "mit", "judge": ""}
    with make_run(tmp_path / "run", replies, licences=licences) as store:
        filters = Filters(candidates=("fine",))
        with pytest.raises(UsageError, match="judge: no licence"):
            write_export(store, "sft", tmp_path / "out", filters=filters)
        labels = [label(graded.item, "A") for graded in GradedItems(store)]
        write_export(store, "sft", tmp_path / "out", filters=filters, labels=labels)
    assert exported_questions(tmp_path / "out") == ["P?"]


def test_licence_conditions_are_noted_and_embedded_models_have_none() -> None:
    llama = SourceModel("llama", "server", "Llama 3.1 Community License")
    (note,) = check_licences([llama, SourceModel("embedded-lead", "embedded", "")], ())
    assert 'begin with "Llama"' in note
    with pytest.raises(UsageError, match=r"'lama'.*Did you mean 'llama'"):
        check_licences([llama], ("lama",))


# ---------------------------------------------------------------- tables and sheets


def read_table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "items.csv").read_bytes().decode(), newline="")))


def test_a_table_has_every_item_and_every_failure(tmp_path: Path) -> None:
    replies = {"m": [[("Q?", "=1+1", "B"), ("P?", "b", "")], None]}
    with make_run(tmp_path / "run", replies) as store:
        labels = [label(next(iter(GradedItems(store))).item, "A")]
        write_export(store, "csv", tmp_path / "csv", labels=labels)
        write_export(store, "parquet", tmp_path / "parquet", labels=labels)
    first, second, failed = read_table(tmp_path / "csv")
    assert (first["letter"], first["answer"], first["labels"]) == ("B", "'=1+1", '{"ann": "A"}')
    assert (second["letter"], second["failure"]) == ("", "unparseable")
    assert (failed["failure"], failed["item_id"], failed["chunk_id"]) == ("invalid_json", "", "c1")
    frame = pd.read_parquet(tmp_path / "parquet" / "items.parquet")
    assert list(frame["answer"]) == ["=1+1", "b", ""]
    assert list(frame["position"].dropna()) == [0, 1]


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@x", "\t=1", "\n=1"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(cell: str) -> None:
    assert escape_formula(cell) == f"'{cell}"
    assert escape_formula(-1.5) == "-1.5"
    assert escape_formula("1-2") == "1-2"
    assert escape_formula("\r=1") == "'\n=1"


def test_carriage_return_does_not_start_a_csv_row(tmp_path: Path) -> None:
    answer = "fine\r=cmd|' /C calc'!A0"
    with make_run(tmp_path / "run", {"m": [[("Q?", answer, "A")]]}) as store:
        write_export(store, "csv", tmp_path / "csv")
        write_export(store, "labels", tmp_path / "labels")
    for path in (tmp_path / "csv" / "items.csv", tmp_path / "labels" / "labels.csv"):
        text = path.read_bytes().decode()
        assert "\r" not in text
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert [row["answer"] for row in rows] == [answer.replace("\r", "\n")]
    assert escape_formula("a\r\nb\rc") == "a\nb\nc"


def test_missing_package_error_names_the_extra() -> None:
    with pytest.raises(UsageError, match=re.escape(install_command("parquet"))):
        require_package("no_such_package_at_all", "parquet")


@pytest.mark.parametrize("to", ["sft", "dpo", "csv", "parquet", "labels"])
def test_unfinished_run_is_refused_with_missing_counts(tmp_path: Path, to: Any) -> None:
    replies = {"m": [[("Q?", "a", "A"), ("P?", "b", UNGRADED)], [("R?", "c", "A")], None]}
    with make_run(tmp_path / "run", replies) as store:
        lines = (store.path / GENERATIONS).read_text().splitlines(keepends=True)
        (store.path / GENERATIONS).write_text("".join(lines[:-2]))
        with pytest.raises(DataError, match=r"2 replies and 1 grades.*--resume"):
            write_export(store, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run_of_forty(path: Path) -> RunStore:
    letters = "A" * 30 + "B" * 8 + "C" * 2
    return make_run(
        path, {"secret-model": [[(f"Q{n}?", f"a{n}", letter)] for n, letter in enumerate(letters)]}
    )


def test_label_sheet_is_blind_and_stratified_by_letter(tmp_path: Path) -> None:
    with run_of_forty(tmp_path / "run") as store:
        letters = {graded.item.item_id: graded.letter for graded in GradedItems(store)}
        write_export(store, "labels", tmp_path / "out", n=10, seed=1)
        write_export(store, "labels", tmp_path / "other", n=10, seed=2)
    text = (tmp_path / "out" / "labels.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    drawn = [letters[row["item_id"]] for row in rows]
    assert {letter: drawn.count(letter) for letter in "ABC"} == {"A": 7, "B": 2, "C": 1}
    assert drawn != sorted(drawn)
    assert {row["label"] for row in rows} == {""}
    assert "secret-model" not in text
    assert "because" not in text
    assert "letter" not in rows[0]
    assert rows[0]["text"].startswith("Text of")
    assert text != (tmp_path / "other" / "labels.jsonl").read_text()


def test_drawing_more_items_than_exist_is_refused(tmp_path: Path) -> None:
    with run_of_forty(tmp_path / "run") as store, pytest.raises(UsageError, match="draw 41 of 40"):
        write_export(store, "labels", tmp_path / "out", n=41)


def test_filled_in_sheet_is_read_as_labels_and_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with run_of_forty(tmp_path / "run") as store:
        write_export(store, "labels", out, n=3)
        rows = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
        rows[0]["label"] = "B"
        (out / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(UsageError, match=r"labels\.jsonl .*would be\s+lost"):
            write_export(store, "labels", out, n=3)
        (read_label,) = read_labels(out / "labels.jsonl")
        assert (read_label.letter, read_label.rater, read_label.rater_kind, read_label.rubric) == (
            "B",
            "labels",
            "human",
            "abc/1",
        )
        letters = [
            graded.letter
            for graded in GradedItems(store, [read_label])
            if graded.item.item_id == read_label.item_id
        ]
    assert letters == ["B"]


def test_sheet_rows_name_the_rater_and_errors_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "anna.jsonl"
    row = {"item_id": "1", "label": " A ", "text": "t", "flags": ["x"]}
    complete = Label(item_id="3", rater="cy", rater_kind="human", letter="C")
    other_rows = [{**row, "item_id": "2", "label": None}, {**row, "rater": "m", "rater_kind": "model"}]
    lines = [json.dumps(row), *map(json.dumps, other_rows), complete.model_dump_json()]
    path.write_text("\n".join(lines) + "\n")
    actual = [
        (parsed.item_id, parsed.rater, parsed.rater_kind, parsed.letter) for parsed in read_labels(path)
    ]
    assert actual == [
        ("1", "anna", "human", "A"),
        ("1", "m", "model", "A"),
        ("3", "cy", "human", "C"),
    ]
    for invalid in ({**row, "label": ["A"]}, {"label": "A"}, {**row, "rater_kind": "cat"}):
        path.write_text(f"{json.dumps(row)}\n{json.dumps(invalid)}\n")
        with pytest.raises(DataError, match=r"anna\.jsonl:2: "):
            read_labels(path)
    with pytest.raises(DataError, match="no such file"):
        read_labels(tmp_path / "nobody.jsonl")


def test_csv_sheet_is_read_as_labels(tmp_path: Path) -> None:
    with run_of_forty(tmp_path / "run") as store:
        write_export(store, "labels", tmp_path / "out", n=3)
    path = tmp_path / "out" / "labels.csv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace(",,,abc/1", ",A,,abc/1", 1)
    assert ",A,,abc/1" in lines[1]
    path.write_text("\n".join(lines))
    assert [(parsed.letter, parsed.rater) for parsed in read_labels(path)] == [("A", "labels")]


def test_inspect_scores_have_one_value_per_sample(tmp_path: Path) -> None:
    replies = {"m/1": [[("Q?", "a", "A"), ("P?", "b", "C")], None, [("R?", "c", "")]]}
    with make_run(tmp_path / "run", replies) as store:
        result = write_export(store, "labels", tmp_path / "out", precomputed=True)
        ids = [run_sample.sample_id for run_sample in store.samples()]
    assert [path.name for path in result.paths] == ["m-1.jsonl", "README.md"]
    rows = {row["id"]: row for row in map(json.loads, result.paths[0].read_text().splitlines())}
    assert set(rows) == set(ids[:2])
    assert rows[ids[0]]["value"] == 0.5
    assert rows[ids[0]]["answer"] == "A C"
    assert rows[ids[1]]["value"] == 0


@pytest.mark.parametrize("names", [["3-a-b", "a-b", "a/b"], ["2-a-b", "a-b", "a/b"], ["A-B", "a-b"]])
def test_each_candidate_has_a_separate_score_file(tmp_path: Path, names: list[str]) -> None:
    with make_run(tmp_path / "run", {name: [[("Q?", name, "A")]] for name in names}) as store:
        result = write_export(store, "labels", tmp_path / "out", precomputed=True)
    files = [path.name.casefold() for path in result.paths]
    assert len(set(files)) == len(files) == len(names) + 1


# ---------------------------------------------------------------- the folder


def test_previous_export_is_replaced_entirely(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with make_run(tmp_path / "run", {"m": [[("Q?", "a", "A")]]}) as store:
        write_export(store, "csv", out)
        write_export(store, "sft", out)
    assert {path.name for path in out.iterdir()} <= {"README.md", *(f"{split}.jsonl" for split in SPLITS)}
    assert not (out / "items.csv").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}


@pytest.mark.parametrize("name", ["README.md", "notes.txt"])
def test_folder_with_other_files_is_not_overwritten(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with make_run(tmp_path / "run", {"m": [[("Q?", "a", "A")]]}) as store:
        with pytest.raises(UsageError, match=rf"expected an empty folder.*found {name}"):
            write_export(store, "sft", out)
        (out / name).unlink()
        write_export(store, "sft", out)
        (out / "notes.txt").write_text("mine")
        with pytest.raises(UsageError, match=r"notes\.txt is not part"):
            write_export(store, "sft", out)
    assert (out / "notes.txt").read_text() == "mine"


def test_splits_are_disjoint_by_chunk_and_complete(tmp_path: Path) -> None:
    pairs = [[(f"What is {n} of {k}?", f"It is {n} and {k}.", "A") for k in range(3)] for n in range(60)]
    with make_run(tmp_path / "run", {"m": pairs}) as store:
        result: ExportResult = write_export(store, "sft", tmp_path / "out", seed=4)
        grading = Grading.of(store)
    chunks = {
        split: {row["chunk_id"] for row in rows} for split, rows in read_splits(tmp_path / "out").items()
    }
    assert sum(map(len, chunks.values())) == 60
    assert sum(result.counts.values()) == 180
    assert set(chunks) == set(SPLITS)
    assert grading.scale == ("A", "B", "C")


def test_unicode_text_is_exported_unchanged(tmp_path: Path) -> None:
    text = 'Größe – 漢字 \u2028 🙂 "quoted"\nand \\ back'
    with make_run(tmp_path / "run", {"m": [[(text, text, "A")]]}) as store:
        write_export(store, "sft", tmp_path / "sft", with_context=True)
        write_export(store, "csv", tmp_path / "csv")
    path = next((tmp_path / "sft").glob("*.jsonl"))
    row = json.loads(path.read_bytes())
    assert row["messages"][1]["content"] == text
    assert "漢字" in path.read_text()
    assert read_table(tmp_path / "csv")[0]["answer"] == text


# ---------------------------------------------------------------- large runs


def peak_of_export(folder: Path, to: Any, n_samples: int) -> int:
    """Return the largest memory of Python objects in an export, in bytes."""
    topics = [f"The {name}{number} opens slowly." for number in range(n_samples) for name in ("pump", "gate")]
    pairs = [(f"Why does {topic}?", f"{topic} {'It is inspected each week. ' * 40}", "A") for topic in topics]
    replies = {"m": [pairs[2 * number : 2 * number + 2] for number in range(n_samples)]}
    with make_run(folder / f"run{n_samples}", replies) as store:
        tracemalloc.start()
        write_export(store, to, folder / f"{to}{n_samples}", n=1 if to == "labels" else None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@pytest.mark.slow
@pytest.mark.parametrize("to", ["csv", "labels"])
def test_an_export_holds_no_texts(tmp_path: Path, to: Any) -> None:
    peak_of_export(tmp_path / "first", to, 20)  # fills the caches
    few, many = (peak_of_export(tmp_path, to, n_samples) for n_samples in (20, 140))
    assert (many - few) / 240 < 900  # bytes an item, of which the text alone has 1,100


@pytest.mark.parametrize("n", [1, 3000, 9000])
def test_parquet_has_the_bytes_of_a_table_that_is_written_at_once(n: int) -> None:
    rows = [{"a": f"c{i // 6}", "t": f"text {i * i}", "position": i % 3 if i % 7 else None} for i in range(n)]
    at_once, in_batches = io.BytesIO(), io.BytesIO()
    frame = pd.DataFrame(rows).astype({"a": "string", "t": "string", "position": "Int64"})
    frame.to_parquet(at_once, engine="pyarrow", index=False)
    assert write_parquet(iter(rows), ("a", "t", "position"), in_batches) == n
    assert in_batches.getvalue() == at_once.getvalue()


def test_an_export_that_fails_on_the_way_leaves_the_earlier_one(tmp_path: Path) -> None:
    with make_run(tmp_path / "run", {"m": [[("Q one?", "a", "A")], [("Q two?", "b", "A")]]}) as store:
        write_export(store, "csv", tmp_path / "out")
        before = (tmp_path / "out" / "items.csv").read_bytes()
        second = list(GradedItems(store))[1].item
        bad = label(second, "Z", rubric="abc/1")
        with pytest.raises(DataError, match="expected a letter"):
            write_export(store, "csv", tmp_path / "out", labels=[bad])
    assert (tmp_path / "out" / "items.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
