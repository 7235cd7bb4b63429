"""Items made elsewhere are imported as a run: formats, row kinds, failures, candidates, letters, and bad input."""

import csv
import importlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from command import qaeval
from qaeval import api
from qaeval.cli import run
from qaeval.comparison.items_at_scale import count_items
from qaeval.errors import DataError, NotComparableError, QaevalError, UsageError
from qaeval.export import write_export
from qaeval.export.select import Replies
from qaeval.export.sheets import precomputed_rows
from qaeval.export.tables import table_rows
from qaeval.gate.baseline import EvidenceReader, read_baseline, write_baseline
from qaeval.gate.evidence import Evidence
from qaeval.importing import reading
from qaeval.records import Generation, LostItem
from qaeval.registry.find import find_config
from qaeval.storage.run_directory import GENERATIONS, RunStore
from qaeval.testing import make_run

TEXTS = {
    f"c{n}": f"Pump {n} holds {7 * n + 3} litres of oil. The Larsen works built it in {1950 + n}."
    for n in range(4)
}


def pair(chunk: str, n: int = 1, **extra: Any) -> dict[str, Any]:
    return {
        "chunk_id": chunk,
        "chunk": TEXTS[chunk],
        "type": "factual",
        "question": f"Question {n} about {chunk}?",
        "answer": f"Answer {n}.",
        **extra,
    }


PAIRS = [pair(chunk, n) for chunk in TEXTS for n in (1, 2, 3)]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def imported_counts(out: Path) -> Mapping[str, Mapping[str, int]]:
    return read_settings(out)["imported"]["counts"]


def read_settings(out: Path) -> dict[str, Any]:
    return json.loads((out / "settings.json").read_text())


def read_rows(out: Path, name: str = "generations.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def list_failures(out: Path) -> list[tuple[str, str]]:
    """Chunk and reason of every lost item; a reply that failed as a whole is listed once."""
    with RunStore.open(out) as store:
        chunk_of = {sample.sample_id: sample.chunk.chunk_id for sample in store.samples()}
    failures = []
    for row in read_rows(out):
        if row["kind"] == "failure":
            failures.append((chunk_of[row["sample_id"]], row["reason"]))
        failures += [(chunk_of[row["sample_id"]], item["reason"]) for item in row.get("lost", ())]
    return sorted(failures)


# ---------------------------------------------------------------- formats


def write_csv(path: Path, items: list[dict[str, Any]], *, delimiter: str = ",", prefix: str = "") -> Path:
    with path.open("w", newline="") as file:
        file.write(prefix)
        writer = csv.DictWriter(file, list(items[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(items)
    return path


def write_parquet(path: Path, items: list[dict[str, Any]]) -> Path:
    pd.DataFrame(items).to_parquet(path)
    return path


def write_array(path: Path, items: list[Any], indent: int | None = None) -> Path:
    path.write_text(json.dumps(items, indent=indent))
    return path


FORMATS: dict[str, Callable[[Path], Any]] = {
    "lines": lambda folder: write_lines(folder / "gpt.jsonl", PAIRS),
    "array": lambda folder: write_array(folder / "gpt.json", PAIRS),
    "indented array": lambda folder: write_array(folder / "gpt.json", PAIRS, indent=2),
    "list a line": lambda folder: write_lines(folder / "gpt.jsonl", [PAIRS[:3], *PAIRS[3:]]),
    "csv": lambda folder: write_csv(folder / "gpt.csv", PAIRS),
    "excel csv": lambda folder: write_csv(folder / "gpt.csv", PAIRS, delimiter=";", prefix="sep=;\n"),
    "tsv": lambda folder: write_csv(folder / "gpt.tsv", PAIRS, delimiter="\t"),
    "parquet": lambda folder: write_parquet(folder / "gpt.parquet", PAIRS),
    "table": lambda _: pd.DataFrame(PAIRS),
    "items as a list": lambda folder: write_lines(
        folder / "gpt.jsonl",
        [
            {
                "id": 1,
                "chunk_id": chunk,
                "context": TEXTS[chunk],
                "pairs": [item for item in PAIRS if item["chunk_id"] == chunk],
            }
            for chunk in TEXTS
        ],
    ),
    "items as json in a cell": lambda folder: write_csv(
        folder / "gpt.csv",
        [
            {
                "chunk_id": chunk,
                "context": TEXTS[chunk],
                "qa_pairs": json.dumps([pair(chunk, n) for n in (1, 2, 3)]),
            }
            for chunk in TEXTS
        ],
    ),
    "raw replies": lambda folder: write_lines(
        folder / "gpt.jsonl",
        [
            {
                "chunk_id": chunk,
                "context": TEXTS[chunk],
                "raw": "Here they are:\n```json\n"
                + json.dumps(
                    {
                        "pairs": [
                            {key: pair(chunk, n)[key] for key in ("type", "question", "answer")}
                            for n in (1, 2, 3)
                        ]
                    }
                )
                + "\n```",
            }
            for chunk in TEXTS
        ],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_item_ids(form: str, tmp_path: Path) -> None:
    api.import_items(FORMATS[form](tmp_path), out=tmp_path / "run", candidate="gpt")
    expected = api.import_items(
        write_lines(tmp_path / "x.jsonl", PAIRS), out=tmp_path / "expected", candidate="gpt"
    ).path
    ids = [[item["item_id"] for item in row["items"]] for row in read_rows(tmp_path / "run")]
    assert ids == [[item["item_id"] for item in row["items"]] for row in read_rows(expected)]
    assert imported_counts(tmp_path / "run") == {"gpt": {"valid": 12}}
    assert (tmp_path / "run" / "samples.jsonl").read_bytes() == (expected / "samples.jsonl").read_bytes()


def test_elements_of_an_array_are_read_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK_CHARS", 7)
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps([{"a": "größer", "b": [1, {"c": "]}"}]}, {"d": 2}], ensure_ascii=False, indent=1)
        + "\n[{}]\n"
    )
    assert list(reading.read_source(path)) == [
        ("a.json:2", {"a": "größer", "b": [1, {"c": "]}"}]}),
        ("a.json:11", {"d": 2}),
        ("a.json:15", {}),
    ]


# ---------------------------------------------------------------- failures and denominators


@pytest.mark.slow
def test_failures_of_items_and_replies_stay_in_the_denominator(tmp_path: Path) -> None:
    items = [
        *PAIRS[:5],
        {"chunk_id": "c1", "chunk": TEXTS["c1"], "error": "timeout"},
        {"chunk_id": "c2", "error": {"code": 429}, "chunk": TEXTS["c2"]},
        {"chunk_id": "c3", "chunk": TEXTS["c3"], "raw": "I cannot help with that."},
    ]
    out = api.import_items(write_lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run").path
    assert imported_counts(out) == {"gpt": {"valid": 5, "reported": 4, "invalid_json": 3}}
    run = api.grade(out, judge="embedded-lexical")
    (candidate,) = run.report.candidates
    assert (candidate.n_expected, candidate.n_valid, candidate.failed.n) == (12, 5, 7)
    assert candidate.failed_by_reason == {"invalid_json": 3, "reported": 4}
    assert list(run.letters["status"]).count("failed") == 7


@pytest.mark.slow
def test_fewer_items_than_requested_are_not_failures(tmp_path: Path) -> None:
    items = [
        pair("c0"),
        pair("c1"),
        pair("c1", 2),
        {"chunk_id": "c2", "chunk": TEXTS["c2"], "error": "refused"},
    ]
    out = api.import_items(write_lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run").path
    run = api.grade(out, judge="embedded-lexical")
    (candidate,) = run.report.candidates
    assert (candidate.n_expected, candidate.n_valid) == (
        5,
        3,
    )  # the failed reply counts as the median reply: 2 items
    assert run.report.eval.items_per_sample == 3
    assert "up to 3 items" in run.render("md").splitlines()[2]
    assert "of the 5 items that each candidate was asked for" in run.render("md")
    assert "page omits" not in run.render("html")


def test_more_items_than_requested_change_the_eval_with_a_note(tmp_path: Path) -> None:
    items = [pair("c0", n) for n in range(5)]
    out = api.import_items(write_lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run").path
    assert read_settings(out)["eval"]["items_per_sample"] == 5
    assert "up to 5 items" in read_settings(out)["imported"]["notes"][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "What?", "answer": float("nan")}, "missing_field"),
        ({"question": "What?", "answer": "  "}, "missing_field"),
        ({"question": None, "answer": "Yes."}, "missing_field"),
        ({"question": "What?", "answer": "Yes.", "error": "filtered"}, "reported"),
        ({"answer": None, "error": "truncated"}, "truncated"),
        ({"question": "What?", "answer": "..."}, "placeholder"),
        ({"error": True}, "reported"),
        ({"pairs": [{"question": "What?", "answer": "Yes."}], "error": "cut off"}, "reported"),
        ({"error": "False"}, "missing_field"),
        ({"raw": "[]"}, "wrong_item_count"),
        ({"raw": '{"pairs": [{"question": "x"}]}'}, "missing_field"),
    ],
)
def test_a_row_without_an_item_is_a_failure_with_a_reason(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "gpt.jsonl", [pair("c0"), {"chunk_id": "c1", "chunk": TEXTS["c1"], **row}])
    out = api.import_items(path, out=tmp_path / "run").path
    assert set(list_failures(out)) == {("c1", reason)}


def test_empty_error_values_are_not_failures(tmp_path: Path) -> None:
    values = [False, "False", None, 0, "", {}, "0", "no", "None", " null "]
    items = [pair("c0", n, error=value, raw=f"reply {n}") for n, value in enumerate(values[:3])]
    items += [pair("c1", n, error=value) for n, value in enumerate(values[3:])]
    out = api.import_items(write_lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run").path
    assert imported_counts(out) == {"gpt": {"valid": 10}}
    assert [row["text"] for row in read_rows(out)] == ["reply 0", ""]


# ---------------------------------------------------------------- chunks


def test_chunks_are_found_by_id_in_a_chunk_file(tmp_path: Path) -> None:
    chunks = write_lines(
        tmp_path / "chunks.jsonl",
        [{"id": key, "body": text, "topic": "pumps"} for key, text in TEXTS.items()],
    )
    items = [{key: value for key, value in item.items() if key != "chunk"} for item in PAIRS]
    out = api.import_items(
        write_lines(tmp_path / "gpt.jsonl", items),
        out=tmp_path / "run",
        chunks=chunks,
        fields={"text": "body"},
    ).path
    inline = api.import_items(write_lines(tmp_path / "b.jsonl", PAIRS), out=tmp_path / "inline").path
    assert [row["sample_id"] for row in read_rows(out)] == [row["sample_id"] for row in read_rows(inline)]
    assert {row["chunk"]["stratum"] for row in read_rows(out, "samples.jsonl")} == {"pumps"}


def test_chunks_are_found_by_nested_ids_and_by_text(tmp_path: Path) -> None:
    items = [
        {
            "metadata": {"chunk": {"id": "c0"}},
            "page_content": TEXTS["c0"],
            "question": "Who?",
            "answer": "Larsen.",
        },
        {"page_content": TEXTS["c0"].replace(" ", "\n"), "question": "When?", "answer": "1950."},
    ]
    path = write_lines(tmp_path / "gpt.jsonl", items)
    out = api.import_items(path, out=tmp_path / "run", fields={"chunk_id": "metadata.chunk.id"}).path
    (sample,) = read_rows(out, "samples.jsonl")
    assert sample["chunk"]["chunk_id"] == "c0"
    assert imported_counts(out) == {"gpt": {"valid": 2}}


@pytest.mark.slow
def test_an_item_without_its_chunk_is_a_failure_unless_the_rubric_needs_no_source(tmp_path: Path) -> None:
    items = [
        pair("c0"),
        {"question": "Who?", "answer": "Nobody."},
        {"chunk_id": "gone", "question": "Who?", "answer": "I."},
    ]
    path = write_lines(tmp_path / "gpt.jsonl", items)
    out = api.import_items(path, out=tmp_path / "run").path
    assert list_failures(out) == [("gone", "no_source"), ("gpt.jsonl:2", "no_source")]
    rubric = tmp_path / "free.yaml"
    shipped = (Path(__file__).parents[1] / "rubrics" / "qa_pair_abc.yaml").read_text()
    rubric.write_text(shipped.replace("name: qa_pair_abc", "name: free") + "needs_source: false\n")
    free = api.import_items(path, out=tmp_path / "free", rubric=rubric).path
    assert imported_counts(free) == {"gpt": {"valid": 3}}
    run = api.grade(free, judge="embedded-lexical")
    assert run.report.rubric.name == "free"
    assert run.report.candidates[0].n_expected == 3


@pytest.mark.slow
def test_candidates_with_partly_shared_chunks_are_reported(tmp_path: Path) -> None:
    chunks = [f"c{n}" for n in range(3)]
    items = {
        name: [{**pair(chunk), "answer": f"{name} {chunk}."} for chunk in chunks]
        for name in ("gpt", "llama", "glm")
    }
    items["glm"].append({"question": "Who?", "answer": "Nobody at all."})
    paths = [write_lines(tmp_path / f"{name}.jsonl", rows) for name, rows in items.items()]
    run = api.grade(api.import_items(paths, out=tmp_path / "three").path, judge="embedded-lexical")
    assert sorted(place.candidate for place in run.report.ranking) == ["glm", "gpt", "llama"]

    rubric = tmp_path / "free.yaml"
    shipped = (Path(__file__).parents[1] / "rubrics" / "qa_pair_abc.yaml").read_text()
    rubric.write_text(shipped.replace("name: qa_pair_abc", "name: free") + "needs_source: false\n")
    disjoint_paths = [
        write_lines(
            tmp_path / f"{name}-alone.jsonl",
            [{"question": f"{name} {n}?", "answer": "Nobody at all.", "g": "AB"[n % 2]} for n in range(12)],
        )
        for name in ("gpt", "llama")
    ]
    run = api.import_items(disjoint_paths, out=tmp_path / "apart", rubric=rubric, grade_field={"judge": "g"})
    (difference,) = run.report.differences
    assert (difference.p, difference.n_chunks_equal) == (1.0, 0)
    assert difference.outcome not in {"a is better", "b is better"}


@pytest.mark.slow
def test_a_rubric_that_needs_a_source_does_not_grade_an_item_without_one(tmp_path: Path) -> None:
    rubric = tmp_path / "free.yaml"
    shipped = (Path(__file__).parents[1] / "rubrics" / "qa_pair_abc.yaml").read_text()
    rubric.write_text(shipped.replace("name: qa_pair_abc", "name: free") + "needs_source: false\n")
    path = write_lines(tmp_path / "gpt.jsonl", [pair("c0"), {"question": "Who?", "answer": "Nobody."}])
    out = api.import_items(path, out=tmp_path / "run", rubric=rubric).path
    run = api.grade(out, judge="embedded-lexical", rubric="qa_pair_abc")
    assert run.report.candidates[0].ungraded_by_reason == {"no_source": 1}


# ---------------------------------------------------------------- kinds


@pytest.mark.slow
def test_answers_are_grouped_by_chunk_and_question(tmp_path: Path) -> None:
    items = [
        {"context": TEXTS["c0"], "question": "How much oil?", "answer": "3 litres."},
        {"context": TEXTS["c0"], "question": "Built when?", "response": "1950.", "type": "answerable"},
        {"context": TEXTS["c1"], "question": "Built when?", "error": "timeout"},
    ]
    out = api.import_items(
        write_lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run", eval_name="rag_qa"
    ).path
    run = api.grade(out, judge="embedded-lexical")
    (candidate,) = run.report.candidates
    assert (candidate.n_expected, candidate.n_valid, run.report.eval.n_samples) == (3, 2, 3)
    assert run.letters["chunk_id"].nunique() == 2


def test_answers_to_questions_of_the_eval_keep_their_types(tmp_path: Path) -> None:
    samples = Path(api.__file__).parents[2] / "evals" / "rag_qa" / "samples.jsonl"
    shipped = json.loads(samples.read_text().partition("\n")[0])
    item = {"chunk_id": shipped["chunk_id"], "question": shipped["question"], "answer": "I do not know."}
    out = api.import_items(pd.DataFrame([item]), out=tmp_path / "run", eval_name="rag_qa").path
    (sample,) = read_rows(out, "samples.jsonl")
    assert sample["given"]["type"] == shipped["type"]


def test_preference_pairs_have_a_prompt_a_chosen_and_a_rejected_answer(tmp_path: Path) -> None:
    items = [
        {"context": TEXTS[key], "prompt": "How?", "chosen": "Well.", "rejected": f"Badly {key}."}
        for key in TEXTS
    ]
    out = api.import_items(
        write_lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run", eval_name="dpo_pairs"
    ).path
    assert [row["items"][0]["parts"]["rejected"] for row in read_rows(out)] != []
    assert imported_counts(out) == {"gpt": {"valid": 4}}


# ---------------------------------------------------------------- candidates


@pytest.mark.slow
def test_files_and_columns_name_candidates(tmp_path: Path) -> None:
    first_path, second_path = (
        write_lines(tmp_path / "one.jsonl", PAIRS),
        write_lines(tmp_path / "two.jsonl", PAIRS),
    )
    combined_path = write_lines(
        tmp_path / "both.jsonl", [{**item, "model": name} for name in ("x", "y") for item in PAIRS]
    )
    assert list(imported_counts(api.import_items([first_path, second_path], out=tmp_path / "a").path)) == [
        "one",
        "two",
    ]
    assert list(
        imported_counts(
            api.import_items([first_path, second_path], out=tmp_path / "b", candidate=["k", "l"]).path
        )
    ) == [
        "k",
        "l",
    ]
    assert list(imported_counts(api.import_items(combined_path, out=tmp_path / "c").path)) == ["x", "y"]
    versioned_path = write_lines(
        tmp_path / "named.jsonl", [{**item, "model": "x-2024-08-06"} for item in PAIRS]
    )
    assert list(
        imported_counts(api.import_items(versioned_path, out=tmp_path / "e", candidate="x").path)
    ) == ["x"]
    custom_path = write_lines(tmp_path / "marked.jsonl", [{**item, "who": "z"} for item in PAIRS])
    assert list(
        imported_counts(api.import_items(custom_path, out=tmp_path / "d", candidate_field="who").path)
    ) == ["z"]


def test_a_registered_name_keeps_its_licence_and_has_unknown_sampling(tmp_path: Path) -> None:
    out = api.import_items(pd.DataFrame(PAIRS), out=tmp_path / "run", candidate="mistral").path
    candidate = read_settings(out)["candidates"]["mistral"]
    assert candidate["kind"] == "imported"
    assert candidate["family"]
    assert "sampling" not in candidate


def test_candidates_with_different_chunks_are_refused_or_reduced_to_common_chunks(tmp_path: Path) -> None:
    first_path, second_path = (
        write_lines(tmp_path / "one.jsonl", PAIRS),
        write_lines(tmp_path / "two.jsonl", PAIRS[:9]),
    )
    with pytest.raises(NotComparableError, match=r"two lacks 1 \(c3\)"):
        api.import_items([first_path, second_path], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    out = api.import_items([first_path, second_path], out=tmp_path / "run", common=True).path
    assert read_settings(out)["sample_set"]["n"] == 3
    assert imported_counts(out) == {"one": {"valid": 9}, "two": {"valid": 9}}
    assert "left out" in read_settings(out)["imported"]["notes"][0]


@pytest.mark.slow
def test_rates_and_difference_agree_with_unequal_item_counts(tmp_path: Path) -> None:
    def graded_items(n: int, n_best: int) -> list[dict[str, Any]]:
        return [pair(chunk, k, g="A" if k < n_best else "B") for chunk in TEXTS for k in range(n)]

    first_path, second_path = (
        write_lines(tmp_path / "one.jsonl", graded_items(3, 1)),
        write_lines(tmp_path / "two.jsonl", graded_items(2, 1)[:-1]),
    )
    run = api.import_items([first_path, second_path], out=tmp_path / "run", grade_field={"j": "g"})
    first, second = run.report.candidates
    (difference,) = run.report.differences
    assert (first.usable.value, second.usable.value) == (4 / 12, 4 / 7)
    assert difference.difference.value == pytest.approx(4 / 7 - 4 / 12)


def make_uneven_run(folder: Path) -> Path:
    """A graded run of two candidates with 1 to 3 items a chunk, some of them lost."""
    first_items = [pair(chunk, n, g="A") for chunk in TEXTS for n in range(1 + int(chunk[1]) % 3)]
    second_items = [pair(chunk, n, g="BA"[n % 2]) for chunk in TEXTS for n in range(2)]
    second_items[3] = {"chunk_id": "c1", "chunk": TEXTS["c1"], "error": "timeout"}
    files = [write_lines(folder / "one.jsonl", first_items), write_lines(folder / "two.jsonl", second_items)]
    return api.import_items(
        files, out=folder / "run", grade_field={"j": "g"}, label_fields={"anna": "g"}
    ).path


@pytest.mark.slow
def test_a_gate_counts_the_items_that_exist(tmp_path: Path) -> None:
    run = make_uneven_run(tmp_path)
    reader = EvidenceReader(config=find_config(None))
    evidence = reader.run(run)
    first, second = evidence.candidates
    assert (int(first.requested.sum()), int(first.usable.sum()), int(first.delivered.sum())) == (7, 7, 7)
    assert (int(second.requested.sum()), int(second.usable.sum()), int(second.delivered.sum())) == (8, 3, 7)
    write_baseline(evidence, tmp_path / "b.json")
    baseline = read_baseline(tmp_path / "b.json")
    assert isinstance(baseline, Evidence)
    assert baseline.candidates[1].letters.tolist() == second.letters.tolist()
    assert [labels.rater for labels in baseline.labels] == ["anna"]
    policy = {
        "rules": [{"quantity": "usable_rate", "at_least": 0.9}, {"quantity": "valid_rate", "at_least": 0.5}]
    }
    report = api.gate(run, baseline=tmp_path / "b.json", policy=policy, save=False)
    usable = {
        verdict.candidate: verdict.current.value
        for verdict in report.rules
        if verdict.quantity == "usable_rate"
    }
    assert usable == {"one": 1.0, "two": 3 / 8}


def test_tables_have_a_row_for_each_lost_item(tmp_path: Path) -> None:
    with RunStore.open(make_uneven_run(tmp_path)) as store:
        table = list(table_rows(store, ()))
    lost_rows = [row for row in table if row["failure"]]
    assert (len(table), len(lost_rows), lost_rows[0]["failure"], lost_rows[0]["position"]) == (
        15,
        1,
        "reported",
        1,
    )


@pytest.mark.slow
def test_failed_replies_of_several_chunks_are_counted_separately(tmp_path: Path) -> None:
    texts = {f"d{n}": f"Valve {n} opens at {n + 2} bar." for n in range(8)}
    items = [
        {"chunk_id": chunk, "chunk": text, "error": "timeout"}
        if n < 3
        else {"chunk_id": chunk, "chunk": text, "question": f"What of {chunk}?", "answer": text, "g": "A"}
        for n, (chunk, text) in enumerate(texts.items())
    ]
    path = write_lines(tmp_path / "gpt.jsonl", items)
    run = api.import_items(path, out=tmp_path / "run", grade_field={"j": "g"})
    with RunStore.open(run.path) as store:
        table = list(table_rows(store, ()))
        assert Replies(store).n_failed == 3
        write_export(store, "parquet", tmp_path / "items")
    lost = [(row["failure"], row["position"]) for row in table if row["failure"]]
    assert lost == [("reported", 0)] * 3
    (actual,) = count_items([tmp_path / "items"], ("A", "B", "C"), items_per_sample=3, margin=0.02).candidates
    (expected,) = run.report.candidates
    assert (actual.n_items, actual.n_failed) == (expected.n_expected, expected.failed.n) == (8, 3)
    assert actual.usable.value == expected.usable.value == 5 / 8


@pytest.mark.slow
def test_inspect_scores_count_lost_items_as_the_report_does(tmp_path: Path) -> None:
    letters = ["A", "C", "A", "A", "A", None, None, None]
    items: list[dict[str, Any]] = []
    for index, letter in enumerate(letters):
        chunk = f"c{index // 2}"
        failed_item = {"chunk_id": chunk, "chunk": TEXTS[chunk], "error": "timeout"}
        items.append(pair(chunk, index, g=letter) if letter else failed_item)
    path = write_lines(tmp_path / "gpt.jsonl", items)
    run = api.import_items(path, out=tmp_path / "run", grade_field={"j": "g"})
    with RunStore.open(run.path) as store:
        chunk_of = {sample.sample_id: sample.chunk.chunk_id for sample in store.samples()}
        records = {chunk_of[row["id"]]: row for row in precomputed_rows(store, ())["gpt"]}
    assert {chunk: row["value"] for chunk, row in records.items()} == {
        "c0": 0.5,
        "c1": 1.0,
        "c2": 0.5,
        "c3": 0.0,
    }
    assert records["c2"]["answer"] == "A"
    assert records["c3"]["explanation"] == "reported: timeout\nreported: timeout"
    (candidate,) = run.report.candidates
    assert sum(row["value"] for row in records.values()) / 4 == candidate.usable.value


@pytest.mark.slow
def test_an_imported_run_round_trips_through_inspect_logs(tmp_path: Path) -> None:
    bridge = pytest.importorskip("qaeval.inspect_bridge")
    run = make_uneven_run(tmp_path)
    empty_replies(run)
    with RunStore.open(run) as store:
        logs = bridge.export_logs(store, tmp_path / "logs")
    reimported = bridge.import_log(logs, tmp_path / "back")
    expected, actual = (api.load_run(path, labels=()).letters for path in (run, reimported))
    pd.testing.assert_frame_equal(expected, actual)
    assert replies_by_task(reimported) == replies_by_task(run)
    assert qaeval("import", *logs, "--candidate", "x", cwd=tmp_path).returncode == 64
    log = importlib.import_module("inspect_ai.log").read_eval_log(str(logs[1]))
    scores = {sample.metadata["chunk_id"]: sample.scores for sample in log.samples}
    assert (scores["c2"]["letters"].reason, scores["c2"]["letters"].explanation) == (
        "placeholder",
        "generate failed: placeholder: no text\ngenerate failed: invalid_json: cut off",
    )
    assert scores["c2"]["usable"].metadata == {"n_best": 0, "n_expected": 2, "n_failed": 2}
    assert [scores["c3"][name].reason for name in ("letters", "usable")] == ["no_response"] * 2
    results = {score.name: score for score in log.results.scores}
    assert [(results[name].scored_samples, results[name].unscored_samples) for name in results] == [
        (2, 2),
        (3, 1),
    ]
    assert results["usable"].metrics["usable_rate"].value == 1 / 6
    assert results["usable"].metrics["failed"].value == 3


def replies_by_task(run: Path) -> dict[str, Any]:
    with RunStore.open(run) as store:
        return {row.task_id: row for row in store.generations()}


def empty_replies(run: Path) -> None:
    """Empty two replies of the second candidate: one records both lost items, the other records nothing."""
    with RunStore.open(run) as store:
        chunk_of = {sample.sample_id: sample.chunk.chunk_id for sample in store.samples()}
        replies = list(store.generations())
    lost_by_chunk = {
        "c2": (
            LostItem(position=0, reason="placeholder", detail="no text"),
            LostItem(position=1, reason="invalid_json", detail="cut off"),
        ),
        "c3": (),
    }
    changed_replies = [
        row.model_copy(update={"items": (), "lost": lost_by_chunk[chunk]})
        if isinstance(row, Generation)
        and row.candidate == "two"
        and (chunk := chunk_of[row.sample_id]) in lost_by_chunk
        else row
        for row in replies
    ]
    removed = {item["item_id"] for row in read_rows(run) for item in row["items"]} - {
        item.item_id for row in changed_replies if isinstance(row, Generation) for item in row.items
    }
    write_lines(run / GENERATIONS, [row.model_dump(mode="json") for row in changed_replies])
    write_lines(
        run / "grades.jsonl",
        [row for row in read_rows(run, "grades.jsonl") if row["item_id"] not in removed],
    )


@pytest.mark.slow
def test_the_command_prints_counts_and_the_next_command(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "gpt.jsonl", [*PAIRS[:5], {"chunk_id": "c1", "chunk": TEXTS["c1"], "error": "timeout"}]
    )
    result = qaeval("import", "gpt.jsonl", "--out", "run", cwd=tmp_path)
    assert result.stdout.splitlines() == [
        "run",
        "gpt: 6 items, 5 valid; failed: reported 1",
        "next: qaeval grade run",
    ]
    assert qaeval("import", "gpt.jsonl", "--out", "run", cwd=tmp_path).returncode == 64
    assert qaeval("import", "gpt.json", "--out", "new", cwd=tmp_path).returncode == 65


# ---------------------------------------------------------------- letters


@pytest.mark.slow
def test_letters_from_columns_are_grades_and_labels(tmp_path: Path) -> None:
    letters = ["a", "B", "Suitable as is", "N/A", float("nan"), "c", *["A"] * 6]
    frame = pd.DataFrame(
        [{**item, "gpt4": letter, "Anna": "b"} for item, letter in zip(PAIRS, letters, strict=True)]
    )
    run = api.import_items(
        frame, out=tmp_path / "run", grade_field={"gpt-4": "gpt4"}, label_fields={"anna": "Anna"}
    )
    assert run.report.judge.facts.name == "gpt-4"
    (candidate,) = run.report.candidates
    assert {count.name: count.n for count in candidate.letters} == {"A": 8, "B": 1, "C": 1}
    assert candidate.ungraded_by_reason == {"reported": 2}
    assert set(run.letters["label anna"]) == {"B"}
    anna = next(rater for rater in run.agreement().agreement if rater.rater == "anna")
    assert (anna.rater, anna.rater_kind, anna.n_labels, anna.n_ungraded) == ("anna", "human", 12, 2)
    assert len(read_rows(run.path, "labels/anna.jsonl")) == 12


@pytest.mark.slow
def test_letter_columns_of_more_judges_are_further_judges(tmp_path: Path) -> None:
    items = [{**item, "g": "A", "h": "ABC"[n % 3]} for n, item in enumerate(PAIRS)]
    run = api.import_items(pd.DataFrame(items), out=tmp_path / "run", grade_field={"gpt-4": "g", "opus": "h"})
    assert run.report.judge.facts.name == "gpt-4"
    with RunStore.open(run.path) as store:
        assert list(store.further_judges()) == ["opus"]
        assert [row.letter for row in store.grades_of("opus")] == ["A", "B", "C"] * 4


@pytest.mark.slow
def test_another_judge_can_grade_a_run_with_imported_letters(tmp_path: Path) -> None:
    items = [{**item, "g": "A"} for item in PAIRS]
    run = api.import_items(pd.DataFrame(items), out=tmp_path / "run", grade_field={"gpt-4": "g"})
    with pytest.raises(UsageError, match="gpt-4"):
        api.grade(run)
    graded = api.grade(run, judge="embedded-lexical")
    assert graded.report.judge.facts.name == "gpt-4"
    assert len(list((tmp_path / "run" / "grades").glob("*.jsonl"))) == 1


@pytest.mark.slow
def test_equal_items_of_two_candidates_keep_their_own_letters(tmp_path: Path) -> None:
    first_path = write_lines(tmp_path / "one.jsonl", [{**item, "g": "A"} for item in PAIRS])
    second_path = write_lines(tmp_path / "two.jsonl", [{**item, "g": "B"} for item in PAIRS])
    run = api.import_items([first_path, second_path], out=tmp_path / "run", grade_field={"j": "g"})
    assert [candidate.usable.value for candidate in run.report.candidates] == [1.0, 0.0]


# ---------------------------------------------------------------- joining a run


@pytest.fixture(scope="module")
def base_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    run = api.compare(["embedded-lead", "embedded-salient"], n=12, out=folder / "base", cache=False)
    return run.path


def external_items(base_run: Path) -> list[dict[str, Any]]:
    """Pairs about the chunks of a run, each with a label, one of them failed."""
    with RunStore.open(base_run) as store:
        items = [
            {
                "chunk_id": sample.chunk.chunk_id,
                "question": f"What is said in sentence {n}?",
                "answer": sample.chunk.text.split(". ")[n],
                "anna": "A",
            }
            for sample in store.samples()
            for n in range(3)
        ]
    items[7] = {"chunk_id": items[7]["chunk_id"], "error": "rate limit"}
    return items


@pytest.mark.slow
def test_an_imported_candidate_joins_a_run_and_is_reported_beside_its_candidates(
    base_run: Path, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "gpt-4o.jsonl", external_items(base_run))
    before = sorted(
        (file.name, file.read_bytes())
        for file in base_run.iterdir()
        if file.is_file() and file.name != ".lock"
    )
    out = api.import_items(path, out=tmp_path / "all", join=base_run, label_fields={"anna": "anna"}).path
    run = api.grade(out)
    report = run.report
    assert [candidate.facts.name for candidate in report.candidates] == [
        "embedded-lead",
        "embedded-salient",
        "gpt-4o",
    ]
    imported = report.candidates[2]
    assert (imported.n_expected, imported.n_valid, imported.failed_by_reason) == (36, 35, {"reported": 1})
    assert (imported.timing.wall_s, imported.timing.items_per_s, imported.tokens.prompt) == (None, None, None)
    assert len(report.differences) == 3
    assert len(report.ranking) == 3
    anna = next(rater for rater in run.agreement().agreement if rater.rater == "anna")
    assert anna.n_labels == 35
    assert before == sorted(
        (file.name, file.read_bytes())
        for file in base_run.iterdir()
        if file.is_file() and file.name != ".lock"
    )
    run.write_report()
    assert "not measured" in run.render("md")


@pytest.mark.slow
def test_a_join_copies_complete_label_lines_only(base_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(base_run, run)
    with RunStore.open(run) as store:
        first_id, second_id = [
            row.items[0].item_id for row in store.generations() if isinstance(row, Generation)
        ][:2]
    (run / "labels").mkdir()
    label = {"item_id": first_id, "letter": "A"}
    complete_line, other_line = json.dumps(label), json.dumps({**label, "item_id": second_id})
    (run / "labels" / "anna.jsonl").write_text(f"{complete_line}\n\n{other_line[:20]}")
    (run / "labels" / "bert.jsonl").write_text(f"{complete_line}\n{other_line}")
    path = write_lines(tmp_path / "gpt-4o.jsonl", external_items(run))
    out = api.import_items(path, out=tmp_path / "all", join=run).path
    assert (out / "labels" / "anna.jsonl").read_text() == f"{complete_line}\n"
    assert (out / "labels" / "bert.jsonl").read_text() == f"{complete_line}\n{other_line}\n"

    (run / "labels" / "anna.jsonl").write_text(f"{other_line[:20]}\n{complete_line}\n")
    with pytest.raises(DataError, match=r"anna\.jsonl:1: not a valid row"):
        api.import_items(path, out=tmp_path / "again", join=run)


@pytest.mark.slow
def test_an_import_with_the_samples_of_a_run_is_reported_side_by_side(base_run: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "gpt-4o.jsonl", external_items(base_run))
    out = api.import_items(path, out=tmp_path / "alone").path
    judge = read_settings(base_run)["grading"]["judge"]["name"]
    api.grade(out, judge=judge)
    assert len(api.load_run([base_run, out]).report.candidates) == 3


@pytest.mark.slow
def test_a_join_with_different_samples_is_refused_or_reduced(base_run: Path, tmp_path: Path) -> None:
    items = [*external_items(base_run)[3:], pair("c0")]
    path = write_lines(tmp_path / "gpt-4o.jsonl", items)
    with pytest.raises(NotComparableError, match="lacks 1"):
        api.import_items(path, out=tmp_path / "all", join=base_run)
    out = api.import_items(path, out=tmp_path / "all", join=base_run, common=True).path
    run = api.grade(out)
    assert run.report.eval.n_samples == 11
    assert [candidate.n_expected for candidate in run.report.candidates] == [33, 33, 33]


def test_a_candidate_already_in_the_run_cannot_join(base_run: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "gpt-4o.jsonl", external_items(base_run))
    with pytest.raises(UsageError, match="embedded-lead"):
        api.import_items(path, out=tmp_path / "all", join=base_run, candidate="embedded-lead")


# ---------------------------------------------------------------- bad input


def write_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def bad_inputs(folder: Path) -> dict[str, tuple[Any, str, Mapping[str, Any]]]:
    """Inputs that are refused: source, pattern of the message, options."""
    edited = {**PAIRS[3], "chunk": TEXTS["c1"].replace("litres", "gallons")}
    return {
        "missing file": (folder / "pairs.jsonl", "no such file", {}),
        "empty": (write_bytes(folder / "e.jsonl", b""), "empty", {}),
        "blank": (write_bytes(folder / "w.jsonl", b"\n \n"), "empty", {}),
        "header alone": (write_bytes(folder / "h.csv", b"question,answer\n"), "no rows", {}),
        "empty array": (write_bytes(folder / "a.json", b"[]"), "no rows", {}),
        "utf-16": (write_bytes(folder / "u.jsonl", json.dumps(PAIRS[0]).encode("utf-16")), "UTF-16", {}),
        "latin-1": (
            write_bytes(folder / "l.csv", "question,answer\nWer?,Müller\n".encode("latin-1")),
            r"l\.csv:2: not UTF-8: byte 0xfc",
            {},
        ),
        "latin-1 array": (
            write_bytes(folder / "l.json", '[{"a": "Müller"}]'.encode("latin-1")),
            "not UTF-8",
            {},
        ),
        "gzip": (write_bytes(folder / "g.jsonl", b"\x1f\x8b\x08"), "gzip", {}),
        "excel": (write_bytes(folder / "x.xlsx", b"PK\x03\x04[Content_Types].xml"), "Excel", {}),
        "broken line": (
            write_bytes(folder / "b.jsonl", json.dumps(PAIRS[0]).encode() + b'\n{"question": \n'),
            r"b\.jsonl:2:",
            {},
        ),
        "broken array": (
            write_bytes(folder / "b.json", b'[{"answer": "x", "chunk": "t"}, {"answer" "y"}]'),
            "not JSON",
            {},
        ),
        "cut array": (
            write_bytes(folder / "c.json", b'[{"answer": "x", "chunk": "t"}'),
            "end of the file",
            {},
        ),
        "scalar line": (write_bytes(folder / "s.jsonl", b'{"a": 1}\n"text"\n'), "no item", {}),
        "broken parquet": (write_bytes(folder / "p.parquet", b"PAR1 no"), "Parquet", {}),
        "ragged csv": (
            write_bytes(folder / "r.csv", b"question,answer\na,b,c\n"),
            r"r\.csv:2: expected 2 cells",
            {},
        ),
        "two columns of one name": (
            write_bytes(folder / "t.csv", b"answer,answer\na,b\n"),
            "two columns",
            {},
        ),
        "mixed kinds": (
            write_lines(
                folder / "m.jsonl", [PAIRS[0], {"prompt": "p", "chosen": "c", "rejected": "r", "chunk": "t"}]
            ),
            r"m\.jsonl:2: expected question/answer pairs",
            {},
        ),
        "no columns of an item": (
            write_lines(folder / "n.jsonl", [{"chunk": "t", "questin": "q", "answr": "a"}]),
            r"n\.jsonl:1: no item.*--field question=questin",
            {},
        ),
        "named column missing": (
            write_lines(folder / "f.jsonl", PAIRS),
            "no column 'anser'. Did you mean 'answer'",
            {"fields": {"answer": "anser"}},
        ),
        "letter column missing": (
            write_lines(folder / "lc.jsonl", [{**PAIRS[0], "grade": "A"}]),
            "no column 'grad'. Did you mean 'grade'",
            {"grade_field": {"j": "grad"}},
        ),
        "unknown field": (
            write_lines(folder / "uf.jsonl", PAIRS),
            "unknown field.*Did you mean 'question'",
            {"fields": {"qestion": "q"}},
        ),
        "unknown letter": (
            write_lines(folder / "ul.jsonl", [{**PAIRS[0], "g": "A"}, {**PAIRS[1], "g": "pass"}]),
            r"ul\.jsonl:2: 'g': letter \"pass\" is not on the scale.*A \(",
            {"grade_field": {"j": "g"}},
        ),
        "unknown eval": (
            write_lines(folder / "ue.jsonl", PAIRS),
            "unknown eval 'qa_pair'. Did you mean 'qa_pairs'",
            {"eval_name": "qa_pair"},
        ),
        "unknown rubric": (write_lines(folder / "ur.jsonl", PAIRS), "unknown rubric", {"rubric": "qa_pair"}),
        "an item twice": (
            write_lines(folder / "i2.jsonl", [*PAIRS, PAIRS[4]]),
            r"i2\.jsonl:13.*twice, first in i2\.jsonl:5",
            {},
        ),
        "an answer twice": (
            write_lines(folder / "a2.jsonl", [PAIRS[0], {**PAIRS[0], "answer": "Another."}]),
            r"a2\.jsonl:2.*twice, first in a2\.jsonl:1",
            {"eval_name": "rag_qa"},
        ),
        "a reply twice": (
            write_lines(folder / "r2.jsonl", [{"chunk_id": "c0", "chunk": TEXTS["c0"], "raw": "[]"}] * 2),
            "a reply of chunk 'c0' twice",
            {},
        ),
        "ids in another case": (
            write_lines(folder / "ic.jsonl", [PAIRS[0], {**PAIRS[3], "chunk_id": "C0"}]),
            r"ic\.jsonl:2: chunk id 'C0' differs from 'c0' \(ic\.jsonl:1\) in case only",
            {},
        ),
        "candidates in another case": (
            write_lines(folder / "cc.jsonl", [{**PAIRS[0], "model": "GPT"}, {**PAIRS[0], "model": "gpt"}]),
            "in case only",
            {},
        ),
        "an edited chunk": (
            write_lines(folder / "ec.jsonl", [PAIRS[3], edited]),
            r"ec\.jsonl:2: chunk 'c1' has another text than in ec\.jsonl:1, from character 17",
            {},
        ),
        "chunks edited between files": (
            [write_lines(folder / "e1.jsonl", PAIRS[3:6]), write_lines(folder / "e2.jsonl", [edited])],
            r"e2\.jsonl:1: chunk 'c1' has another text than in e1\.jsonl:1",
            {},
        ),
        "two files of one name": (
            [write_lines(folder / "a" / "p.jsonl", PAIRS), write_lines(folder / "b" / "p.jsonl", PAIRS)],
            "same name",
            {},
        ),
        "one file twice": ([write_lines(folder / "o.jsonl", PAIRS)] * 2, "named twice", {}),
        "json in a cell that is none": (
            write_lines(folder / "j.jsonl", [{"chunk": "t", "pairs": '[{"question": '}]),
            r"j\.jsonl:1: 'pairs': expected a list of items as JSON",
            {},
        ),
        "json twice in a cell": (
            write_lines(folder / "jj.jsonl", [{"chunk": "t", "pairs": json.dumps(json.dumps([PAIRS[0]]))}]),
            "expected a list of objects",
            {},
        ),
        "an object for text": (
            write_lines(folder / "ot.jsonl", [{**PAIRS[0], "answer": {"text": "a"}}]),
            r"'answer': expected text",
            {},
        ),
        "a position beyond all items": (
            write_lines(folder / "po.jsonl", [PAIRS[0], {**PAIRS[1], "position": 10**20}]),
            r"po\.jsonl:2: 'position': expected a whole number from 0 to 999,999, got 1000",
            {},
        ),
        "a position below the first": (
            write_lines(folder / "pn.jsonl", [{**PAIRS[0], "position": -1}]),
            r"'position': expected a whole number from 0",
            {},
        ),
        "half a character": (
            write_bytes(folder / "hc.jsonl", b'{"chunk": "t", "question": "q", "answer": "\\ud83d"}'),
            "half a character",
            {},
        ),
        "no chunk of any": (
            write_lines(folder / "nc.jsonl", [{"chunk_id": "zzz", "question": "q", "answer": "a"}]),
            "no row has its chunk",
            {},
        ),
        "answers without a question": (
            write_lines(folder / "aq.jsonl", [{"chunk": "t", "answer": "a"}]),
            "no question",
            {"eval_name": "rag_qa"},
        ),
        "a row without its candidate": (
            write_lines(folder / "rc.jsonl", [{**PAIRS[0], "who": "x"}, {**PAIRS[1], "who": None}]),
            r"rc\.jsonl:2: no candidate in column 'who'",
            {"candidate_field": "who"},
        ),
        "an empty name": (write_lines(folder / "en.jsonl", PAIRS), "candidate", {"candidate": "a/b"}),
        "names for other files": (
            write_lines(folder / "nf.jsonl", PAIRS),
            "2 candidates for 1 files",
            {"candidate": ["a", "b"]},
        ),
        "a rater that label commands refuse": (
            write_lines(folder / "ln.jsonl", [{**PAIRS[0], "g": "A"}]),
            r"rater 'anna:2': expected a letter or digit",
            {"label_fields": {"anna:2": "g"}},
        ),
        "a judge and a rater of one name": (
            write_lines(folder / "tj.jsonl", PAIRS),
            "'a' is named as judge and as rater",
            {"grade_field": {"a": "x"}, "label_fields": {"a": "y"}},
        ),
    }


with tempfile.TemporaryDirectory() as _folder:
    CASES = tuple(bad_inputs(Path(_folder)))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_with_its_location_and_writes_nothing(case: str, tmp_path: Path) -> None:
    source, message, options = bad_inputs(tmp_path)[case]
    with pytest.raises(QaevalError, match=message) as error:
        api.import_items(source, out=tmp_path / "out" / "run", **options)
    assert isinstance(error.value, DataError | UsageError)
    assert not (tmp_path / "out" / "run").exists()
    assert not list(tmp_path.glob("out/.*"))


def test_an_oversized_line_or_object_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_ROW_BYTES", 1000)
    monkeypatch.setattr(reading, "_BLOCK_CHARS", 256)
    text = "x" * 5000
    for name, content in {
        "long.jsonl": json.dumps({"answer": text}),
        "long.json": json.dumps([{"answer": text}]),
        "long.csv": f'question,answer\nq,"{text}"\n',
        "lines.csv": 'question,answer\nq,"' + "x\n" * 2500 + '"\n',
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=r"longer than|larger than field limit"):
            list(reading.read_source(tmp_path / name))


def test_a_non_empty_run_directory_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        api.import_items(pd.DataFrame(PAIRS), out=tmp_path / "run")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert api.import_items(pd.DataFrame(PAIRS), out=tmp_path / "empty").path == tmp_path / "empty"


@pytest.mark.slow
def test_a_join_keeps_the_rows_of_the_common_samples(tmp_path: Path) -> None:
    letters = {"alpha": ["AAB", "ABC", "CCC", "A-C!"]}
    base_run = make_run(
        tmp_path / "base", letters, labels={"anna": {"alpha": ["AAA", "BBB", "CCC", "ABC"]}}
    ).path
    with RunStore.open(base_run) as store:
        samples, replies = list(store.samples()), list(store.generations())
        grades = {row.item_id: row for row in store.grades()}
    items = [
        {
            "chunk_id": sample.chunk.chunk_id,
            "question": f"{sample.sample_id} {n}?",
            "answer": "Yes.",
            "anna": "B",
        }
        for sample in samples[:3]
        for n in range(3)
    ]
    path = write_lines(tmp_path / "gpt.jsonl", items)
    with pytest.raises(NotComparableError, match="lacks 1"):
        api.import_items(path, out=tmp_path / "all", join=base_run)
    out = api.import_items(
        path, out=tmp_path / "all", join=base_run, common=True, label_fields={"anna": "anna"}
    ).path
    common_ids = {sample.sample_id for sample in samples[:3]}
    joined_item_ids = [item.item_id for row in replies if row.sample_id in common_ids for item in row.items]  # type: ignore[union-attr]
    with RunStore.open(out) as store:
        assert [sample.sample_id for sample in store.samples()] == [
            sample.sample_id for sample in samples[:3]
        ]
        n_items = dict.fromkeys(("alpha", "gpt"), 0)
        for row in store.generations():
            n_items[row.candidate] += len(row.items)  # type: ignore[union-attr]
        assert n_items == {"alpha": 9, "gpt": 9}
        assert {row.item_id: row for row in store.grades()} == {
            item_id: grades[item_id] for item_id in joined_item_ids
        }
    settings, base_settings = read_settings(out), read_settings(base_run)
    assert list(settings["candidates"]) == ["alpha", "gpt"]
    assert settings["sample_set"]["n"] == 3
    assert settings["sample_set"]["digest"] != base_settings["sample_set"]["digest"]
    assert settings["grading"] == base_settings["grading"]
    # the rater's labels from the run come before the imported ones
    labels = read_rows(out, "labels/anna.jsonl")
    assert [row["label"] for row in labels if row["item_id"] in joined_item_ids] == list("AAABBBCCC")
    assert [row["letter"] for row in labels if "letter" in row] == ["B"] * 9


@pytest.mark.slow
def test_letters_from_another_judge_cannot_join_a_graded_run(tmp_path: Path) -> None:
    base_run = make_run(tmp_path / "base", {"alpha": ["AAB"]}).path
    with RunStore.open(base_run) as store:
        (sample,) = store.samples()
    items = [
        {"chunk_id": sample.chunk.chunk_id, "question": f"{n}?", "answer": "Y.", "g": "A"} for n in range(3)
    ]
    with pytest.raises(NotComparableError, match="scripted-judge"):
        api.import_items(
            write_lines(tmp_path / "gpt.jsonl", items),
            out=tmp_path / "all",
            join=base_run,
            grade_field={"other": "g"},
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"eval_name": "qa_pairs"}, "--join"),
        ({"chunks": "x.jsonl"}, "--join"),
        ({"grade_field": {"anna": "a"}}, "anna"),
    ],
)
def test_mutually_exclusive_options_are_refused(options: dict[str, Any], error: str, tmp_path: Path) -> None:
    base_run = make_run(tmp_path / "base", {"alpha": ["AAB"]}).path
    with pytest.raises(UsageError, match=error):
        api.import_items(
            write_lines(tmp_path / "gpt.jsonl", PAIRS[:1]),
            **{"out": tmp_path / "all", "join": base_run, "label_fields": {"anna": "anna"}, **options},
        )


def test_lists_in_a_data_frame_are_read_like_those_in_its_file(tmp_path: Path) -> None:
    items = [
        {"question": "Q?", "answer": "A.", "tags": ["x"]},
        {"question": "Why?", "answer": "B.", "tags": []},
    ]
    path = tmp_path / "gpt.parquet"
    pd.DataFrame([{"context": [TEXTS["c0"], "More."], "pairs": items}]).to_parquet(path)
    ((_, file_row),) = reading.read_source(path)
    ((_, table_row),) = reading.read_source(pd.read_parquet(path))
    assert table_row == file_row == {"context": [TEXTS["c0"], "More."], "pairs": items}


def test_a_named_pipe_is_refused_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "gpt.jsonl"
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"gpt\.jsonl: neither a file nor a folder.*save it to a file"):
        api.import_items(path, out=tmp_path / "run")


def test_a_data_frame_with_duplicate_columns_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame([["a", "b"]], columns=["answer", "answer"])
    with pytest.raises(UsageError, match="two columns 'answer'"):
        api.import_items(frame, out=tmp_path / "run", candidate="gpt")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--field", "--grade-field", "--label-field"])
def test_a_column_option_without_a_field_name_is_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_lines(tmp_path / "gpt.jsonl", PAIRS[:1])
    assert run(["import", str(path), option, "nothing", "--out", str(tmp_path / "run")]) == 64
    message = capsys.readouterr().err
    assert re.search(rf"{option}\b(?!-)", message)
    assert "nothing" in message
