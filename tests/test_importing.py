"""Items that were made elsewhere become a run: formats, kinds of rows, failures, candidates, letters, and bad input."""

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
from qaeval.export.select import failed_replies
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


def pair(chunk: str, n: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "chunk_id": chunk,
        "chunk": TEXTS[chunk],
        "type": "factual",
        "question": f"Question {n} about {chunk}?",
        "answer": f"Answer {n}.",
        **more,
    }


PAIRS = [pair(chunk, n) for chunk in TEXTS for n in (1, 2, 3)]


def lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def counts(out: Path) -> Mapping[str, Mapping[str, int]]:
    return read_settings(out)["imported"]["counts"]


def read_settings(out: Path) -> dict[str, Any]:
    return json.loads((out / "settings.json").read_text())


def rows(out: Path, name: str = "generations.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def failures(out: Path) -> list[tuple[str, str]]:
    """Chunk and reason of every lost item, whole replies once."""
    with RunStore.open(out) as store:
        chunk_of = {sample.sample_id: sample.chunk.chunk_id for sample in store.samples()}
    found = []
    for row in rows(out):
        if row["kind"] == "failure":
            found.append((chunk_of[row["sample_id"]], row["reason"]))
        found += [(chunk_of[row["sample_id"]], lost["reason"]) for lost in row.get("lost", ())]
    return sorted(found)


# ---------------------------------------------------------------- formats


def as_csv(path: Path, items: list[dict[str, Any]], *, delimiter: str = ",", first: str = "") -> Path:
    with path.open("w", newline="") as file:
        file.write(first)
        writer = csv.DictWriter(file, list(items[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(items)
    return path


def as_parquet(path: Path, items: list[dict[str, Any]]) -> Path:
    pd.DataFrame(items).to_parquet(path)
    return path


def as_array(path: Path, items: list[Any], indent: int | None = None) -> Path:
    path.write_text(json.dumps(items, indent=indent))
    return path


FORMATS: dict[str, Callable[[Path], Any]] = {
    "lines": lambda folder: lines(folder / "gpt.jsonl", PAIRS),
    "array": lambda folder: as_array(folder / "gpt.json", PAIRS),
    "indented array": lambda folder: as_array(folder / "gpt.json", PAIRS, indent=2),
    "list a line": lambda folder: lines(folder / "gpt.jsonl", [PAIRS[:3], *PAIRS[3:]]),
    "csv": lambda folder: as_csv(folder / "gpt.csv", PAIRS),
    "excel csv": lambda folder: as_csv(folder / "gpt.csv", PAIRS, delimiter=";", first="sep=;\n"),
    "tsv": lambda folder: as_csv(folder / "gpt.tsv", PAIRS, delimiter="\t"),
    "parquet": lambda folder: as_parquet(folder / "gpt.parquet", PAIRS),
    "table": lambda _: pd.DataFrame(PAIRS),
    "items as a list": lambda folder: lines(
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
    "items as json in a cell": lambda folder: as_csv(
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
    "raw replies": lambda folder: lines(
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
def test_every_format_gives_the_same_items_with_the_ids_of_a_run(form: str, tmp_path: Path) -> None:
    api.import_items(FORMATS[form](tmp_path), out=tmp_path / "run", candidate="gpt")
    expected = api.import_items(
        lines(tmp_path / "x.jsonl", PAIRS), out=tmp_path / "expected", candidate="gpt"
    ).path
    ids = [[item["item_id"] for item in row["items"]] for row in rows(tmp_path / "run")]
    assert ids == [[item["item_id"] for item in row["items"]] for row in rows(expected)]
    assert counts(tmp_path / "run") == {"gpt": {"valid": 12}}
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
    out = api.import_items(lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run").path
    assert counts(out) == {"gpt": {"valid": 5, "reported": 4, "invalid_json": 3}}
    run = api.grade(out, judge="embedded-lexical")
    (candidate,) = run.report.candidates
    assert (candidate.n_expected, candidate.n_valid, candidate.failed.n) == (12, 5, 7)
    assert candidate.failed_by_reason == {"invalid_json": 3, "reported": 4}
    assert list(run.letters["status"]).count("failed") == 7


@pytest.mark.slow
def test_fewer_items_than_the_eval_asks_for_are_no_failures(tmp_path: Path) -> None:
    items = [
        pair("c0"),
        pair("c1"),
        pair("c1", 2),
        {"chunk_id": "c2", "chunk": TEXTS["c2"], "error": "refused"},
    ]
    out = api.import_items(lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run").path
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


def test_more_items_than_the_eval_asks_for_change_the_eval_and_say_so(tmp_path: Path) -> None:
    items = [pair("c0", n) for n in range(5)]
    out = api.import_items(lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run").path
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
def test_a_row_without_an_item_is_a_failure_with_its_reason(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = lines(tmp_path / "gpt.jsonl", [pair("c0"), {"chunk_id": "c1", "chunk": TEXTS["c1"], **row}])
    out = api.import_items(path, out=tmp_path / "run").path
    assert set(failures(out)) == {("c1", reason)}


def test_a_column_of_errors_without_any_is_no_failure(tmp_path: Path) -> None:
    values = [False, "False", None, 0, "", {}]
    items = [pair("c0", n, error=value, raw=f"reply {n}") for n, value in enumerate(values[:3])]
    items += [pair("c1", n, error=value) for n, value in enumerate(values[3:])]
    out = api.import_items(lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run").path
    assert counts(out) == {"gpt": {"valid": 6}}
    assert [row["text"] for row in rows(out)] == ["reply 0", ""]


# ---------------------------------------------------------------- chunks


def test_chunks_come_from_a_file_or_the_eval_by_id(tmp_path: Path) -> None:
    chunks = lines(
        tmp_path / "chunks.jsonl",
        [{"id": key, "body": text, "topic": "pumps"} for key, text in TEXTS.items()],
    )
    items = [{key: value for key, value in item.items() if key != "chunk"} for item in PAIRS]
    out = api.import_items(
        lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run", chunks=chunks, fields={"text": "body"}
    ).path
    inline = api.import_items(lines(tmp_path / "b.jsonl", PAIRS), out=tmp_path / "inline").path
    assert [row["sample_id"] for row in rows(out)] == [row["sample_id"] for row in rows(inline)]
    assert {row["chunk"]["stratum"] for row in rows(out, "samples.jsonl")} == {"pumps"}


def test_values_inside_objects_and_texts_without_ids_find_their_chunk(tmp_path: Path) -> None:
    items = [
        {
            "metadata": {"chunk": {"id": "c0"}},
            "page_content": TEXTS["c0"],
            "question": "Who?",
            "answer": "Larsen.",
        },
        {"page_content": TEXTS["c0"].replace(" ", "\n"), "question": "When?", "answer": "1950."},
    ]
    path = lines(tmp_path / "gpt.jsonl", items)
    out = api.import_items(path, out=tmp_path / "run", fields={"chunk_id": "metadata.chunk.id"}).path
    (sample,) = rows(out, "samples.jsonl")
    assert sample["chunk"]["chunk_id"] == "c0"
    assert counts(out) == {"gpt": {"valid": 2}}


@pytest.mark.slow
def test_an_item_without_its_chunk_is_a_failure_unless_the_rubric_needs_none(tmp_path: Path) -> None:
    items = [
        pair("c0"),
        {"question": "Who?", "answer": "Nobody."},
        {"chunk_id": "gone", "question": "Who?", "answer": "I."},
    ]
    path = lines(tmp_path / "gpt.jsonl", items)
    out = api.import_items(path, out=tmp_path / "run").path
    assert failures(out) == [("gone", "no_source"), ("gpt.jsonl:2", "no_source")]
    rubric = tmp_path / "free.yaml"
    shipped = (Path(__file__).parents[1] / "rubrics" / "qa_pair_abc.yaml").read_text()
    rubric.write_text(shipped.replace("name: qa_pair_abc", "name: free") + "needs_source: false\n")
    free = api.import_items(path, out=tmp_path / "free", rubric=rubric).path
    assert counts(free) == {"gpt": {"valid": 3}}
    run = api.grade(free, judge="embedded-lexical")
    assert run.report.rubric.name == "free"
    assert run.report.candidates[0].n_expected == 3


@pytest.mark.slow
def test_candidates_that_share_only_some_of_their_chunks_are_reported(tmp_path: Path) -> None:
    chunks = [f"c{n}" for n in range(3)]
    texts = {
        name: [{**pair(chunk), "answer": f"{name} {chunk}."} for chunk in chunks]
        for name in ("gpt", "llama", "glm")
    }
    texts["glm"].append({"question": "Who?", "answer": "Nobody at all."})
    paths = [lines(tmp_path / f"{name}.jsonl", rows) for name, rows in texts.items()]
    run = api.grade(api.import_items(paths, out=tmp_path / "three").path, judge="embedded-lexical")
    assert sorted(place.candidate for place in run.report.ranking) == ["glm", "gpt", "llama"]

    rubric = tmp_path / "free.yaml"
    shipped = (Path(__file__).parents[1] / "rubrics" / "qa_pair_abc.yaml").read_text()
    rubric.write_text(shipped.replace("name: qa_pair_abc", "name: free") + "needs_source: false\n")
    apart = [
        lines(
            tmp_path / f"{name}-alone.jsonl",
            [{"question": f"{name} {n}?", "answer": "Nobody at all.", "g": "AB"[n % 2]} for n in range(12)],
        )
        for name in ("gpt", "llama")
    ]
    run = api.import_items(apart, out=tmp_path / "apart", rubric=rubric, grade_field={"judge": "g"})
    (pair_of_both,) = run.report.differences
    assert (pair_of_both.p, pair_of_both.n_chunks_equal) == (1.0, 0)
    assert pair_of_both.outcome not in {"a is better", "b is better"}


@pytest.mark.slow
def test_a_rubric_that_needs_a_source_does_not_grade_an_item_without_one(tmp_path: Path) -> None:
    rubric = tmp_path / "free.yaml"
    shipped = (Path(__file__).parents[1] / "rubrics" / "qa_pair_abc.yaml").read_text()
    rubric.write_text(shipped.replace("name: qa_pair_abc", "name: free") + "needs_source: false\n")
    path = lines(tmp_path / "gpt.jsonl", [pair("c0"), {"question": "Who?", "answer": "Nobody."}])
    out = api.import_items(path, out=tmp_path / "run", rubric=rubric).path
    run = api.grade(out, judge="embedded-lexical", rubric="qa_pair_abc")
    assert run.report.candidates[0].ungraded_by_reason == {"no_source": 1}


# ---------------------------------------------------------------- kinds


@pytest.mark.slow
def test_answers_are_about_a_chunk_and_a_question(tmp_path: Path) -> None:
    items = [
        {"context": TEXTS["c0"], "question": "How much oil?", "answer": "3 litres."},
        {"context": TEXTS["c0"], "question": "Built when?", "response": "1950.", "type": "answerable"},
        {"context": TEXTS["c1"], "question": "Built when?", "error": "timeout"},
    ]
    out = api.import_items(
        lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run", eval_name="rag_qa"
    ).path
    run = api.grade(out, judge="embedded-lexical")
    (candidate,) = run.report.candidates
    assert (candidate.n_expected, candidate.n_valid, run.report.eval.n_samples) == (3, 2, 3)
    assert run.letters["chunk_id"].nunique() == 2


def test_answers_to_questions_of_the_eval_keep_their_types(tmp_path: Path) -> None:
    samples = Path(api.__file__).parents[2] / "evals" / "rag_qa" / "samples.jsonl"
    first = json.loads(samples.read_text().partition("\n")[0])
    item = {"chunk_id": first["chunk_id"], "question": first["question"], "answer": "I do not know."}
    out = api.import_items(pd.DataFrame([item]), out=tmp_path / "run", eval_name="rag_qa").path
    (sample,) = rows(out, "samples.jsonl")
    assert sample["given"]["type"] == first["type"]


def test_preference_pairs_have_a_prompt_a_chosen_and_a_rejected_answer(tmp_path: Path) -> None:
    items = [
        {"context": TEXTS[key], "prompt": "How?", "chosen": "Well.", "rejected": f"Badly {key}."}
        for key in TEXTS
    ]
    out = api.import_items(
        lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "run", eval_name="dpo_pairs"
    ).path
    assert [row["items"][0]["parts"]["rejected"] for row in rows(out)] != []
    assert counts(out) == {"gpt": {"valid": 4}}


# ---------------------------------------------------------------- candidates


@pytest.mark.slow
def test_files_and_columns_name_candidates(tmp_path: Path) -> None:
    one, two = lines(tmp_path / "one.jsonl", PAIRS), lines(tmp_path / "two.jsonl", PAIRS)
    both = lines(tmp_path / "both.jsonl", [{**item, "model": name} for name in ("x", "y") for item in PAIRS])
    assert list(counts(api.import_items([one, two], out=tmp_path / "a").path)) == ["one", "two"]
    assert list(counts(api.import_items([one, two], out=tmp_path / "b", candidate=["k", "l"]).path)) == [
        "k",
        "l",
    ]
    assert list(counts(api.import_items(both, out=tmp_path / "c").path)) == ["x", "y"]
    named = lines(tmp_path / "named.jsonl", [{**item, "model": "x-2024-08-06"} for item in PAIRS])
    assert list(counts(api.import_items(named, out=tmp_path / "e", candidate="x").path)) == ["x"]
    marked = lines(tmp_path / "marked.jsonl", [{**item, "who": "z"} for item in PAIRS])
    assert list(counts(api.import_items(marked, out=tmp_path / "d", candidate_field="who").path)) == ["z"]


def test_a_registered_name_keeps_its_licence_and_has_unknown_sampling(tmp_path: Path) -> None:
    out = api.import_items(pd.DataFrame(PAIRS), out=tmp_path / "run", candidate="mistral").path
    about = read_settings(out)["candidates"]["mistral"]
    assert about["kind"] == "imported"
    assert about["family"]
    assert "sampling" not in about


def test_candidates_with_other_chunks_are_refused_or_reduced_to_what_all_have(tmp_path: Path) -> None:
    one, two = lines(tmp_path / "one.jsonl", PAIRS), lines(tmp_path / "two.jsonl", PAIRS[:9])
    with pytest.raises(NotComparableError, match=r"two lacks 1 \(c3\)"):
        api.import_items([one, two], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    out = api.import_items([one, two], out=tmp_path / "run", common=True).path
    assert read_settings(out)["sample_set"]["n"] == 3
    assert counts(out) == {"one": {"valid": 9}, "two": {"valid": 9}}
    assert "left out" in read_settings(out)["imported"]["notes"][0]


@pytest.mark.slow
def test_unequal_numbers_of_items_keep_rates_and_difference_together(tmp_path: Path) -> None:
    def graded(n: int, best: int) -> list[dict[str, Any]]:
        return [pair(chunk, k, g="A" if k < best else "B") for chunk in TEXTS for k in range(n)]

    one, two = lines(tmp_path / "one.jsonl", graded(3, 1)), lines(tmp_path / "two.jsonl", graded(2, 1)[:-1])
    run = api.import_items([one, two], out=tmp_path / "run", grade_field={"j": "g"})
    first, second = run.report.candidates
    (difference,) = run.report.differences
    assert (first.usable.value, second.usable.value) == (4 / 12, 4 / 7)
    assert difference.difference.value == pytest.approx(4 / 7 - 4 / 12)


def uneven(folder: Path) -> Path:
    """A graded run of two candidates with 1 to 3 items a chunk, some of them lost."""
    one = [pair(chunk, n, g="A") for chunk in TEXTS for n in range(1 + int(chunk[1]) % 3)]
    two = [pair(chunk, n, g="BA"[n % 2]) for chunk in TEXTS for n in range(2)]
    two[3] = {"chunk_id": "c1", "chunk": TEXTS["c1"], "error": "timeout"}
    files = [lines(folder / "one.jsonl", one), lines(folder / "two.jsonl", two)]
    return api.import_items(
        files, out=folder / "run", grade_field={"j": "g"}, label_fields={"anna": "g"}
    ).path


@pytest.mark.slow
def test_a_gate_counts_the_items_that_there_are(tmp_path: Path) -> None:
    run = uneven(tmp_path)
    reader = EvidenceReader(config=find_config(None))
    evidence = reader.run(run)
    one, two = evidence.candidates
    assert (int(one.requested.sum()), int(one.usable.sum()), int(one.delivered.sum())) == (7, 7, 7)
    assert (int(two.requested.sum()), int(two.usable.sum()), int(two.delivered.sum())) == (8, 3, 7)
    write_baseline(evidence, tmp_path / "b.json")
    back = read_baseline(tmp_path / "b.json")
    assert isinstance(back, Evidence)
    assert back.candidates[1].letters.tolist() == two.letters.tolist()
    assert [labels.rater for labels in back.labels] == ["anna"]
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
    with RunStore.open(uneven(tmp_path)) as store:
        table = table_rows(store, ())
    lost = [row for row in table if row["failure"]]
    assert (len(table), len(lost), lost[0]["failure"], lost[0]["position"]) == (15, 1, "reported", 1)


@pytest.mark.slow
def test_replies_that_failed_whole_are_not_the_same_reply_for_several_chunks(tmp_path: Path) -> None:
    texts = {f"d{n}": f"Valve {n} opens at {n + 2} bar." for n in range(8)}
    items = [
        {"chunk_id": chunk, "chunk": text, "error": "timeout"}
        if n < 3
        else {"chunk_id": chunk, "chunk": text, "question": f"What of {chunk}?", "answer": text, "g": "A"}
        for n, (chunk, text) in enumerate(texts.items())
    ]
    path = lines(tmp_path / "gpt.jsonl", items)
    run = api.import_items(path, out=tmp_path / "run", grade_field={"j": "g"})
    with RunStore.open(run.path) as store:
        table = table_rows(store, ())
        assert failed_replies(store) == 3
        write_export(store, "parquet", tmp_path / "items")
    lost = [(row["failure"], row["position"]) for row in table if row["failure"]]
    assert lost == [("reported", 0)] * 3
    (counted,) = count_items(
        [tmp_path / "items"], ("A", "B", "C"), items_per_sample=3, margin=0.02
    ).candidates
    (reported,) = run.report.candidates
    assert (counted.n_items, counted.n_failed) == (reported.n_expected, reported.failed.n) == (8, 3)
    assert counted.usable.value == reported.usable.value == 5 / 8


@pytest.mark.slow
def test_scores_for_inspect_count_lost_items_as_the_report_does(tmp_path: Path) -> None:
    letters = ["A", "C", "A", "A", "A", None, None, None]
    items: list[dict[str, Any]] = []
    for index, letter in enumerate(letters):
        chunk = f"c{index // 2}"
        lost = {"chunk_id": chunk, "chunk": TEXTS[chunk], "error": "timeout"}
        items.append(pair(chunk, index, g=letter) if letter else lost)
    path = lines(tmp_path / "gpt.jsonl", items)
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
    (reported,) = run.report.candidates
    assert sum(row["value"] for row in records.values()) / 4 == reported.usable.value


@pytest.mark.slow
def test_logs_of_inspect_carry_an_imported_run_and_back(tmp_path: Path) -> None:
    bridge = pytest.importorskip("qaeval.inspect_bridge")
    run = uneven(tmp_path)
    empty_replies(run)
    with RunStore.open(run) as store:
        logs = bridge.export_logs(store, tmp_path / "logs")
    back = bridge.import_log(logs, tmp_path / "back")
    first, second = (api.load_run(path, labels=()).letters for path in (run, back))
    pd.testing.assert_frame_equal(first, second)
    assert replies_by_task(back) == replies_by_task(run)
    assert qaeval("import", *logs, "--candidate", "x", cwd=tmp_path).returncode == 64
    logged = importlib.import_module("inspect_ai.log").read_eval_log(str(logs[1]))
    scores = {sample.metadata["chunk_id"]: sample.scores for sample in logged.samples}
    assert (scores["c2"]["letters"].reason, scores["c2"]["letters"].explanation) == (
        "placeholder",
        "generate failed: placeholder: no text\ngenerate failed: invalid_json: cut off",
    )
    assert scores["c2"]["usable"].metadata == {"n_best": 0, "n_expected": 2, "n_failed": 2}
    assert [scores["c3"][name].reason for name in ("letters", "usable")] == ["no_response"] * 2
    results = {score.name: score for score in logged.results.scores}
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
    """Take the items from two replies of the second candidate: of one both are lost, of the other nothing is known."""
    with RunStore.open(run) as store:
        chunk_of = {sample.sample_id: sample.chunk.chunk_id for sample in store.samples()}
        replies = list(store.generations())
    lost = {
        "c2": (
            LostItem(position=0, reason="placeholder", detail="no text"),
            LostItem(position=1, reason="invalid_json", detail="cut off"),
        ),
        "c3": (),
    }
    changed = [
        row.model_copy(update={"items": (), "lost": lost[chunk]})
        if isinstance(row, Generation)
        and row.candidate == "two"
        and (chunk := chunk_of[row.sample_id]) in lost
        else row
        for row in replies
    ]
    removed = {item["item_id"] for row in rows(run) for item in row["items"]} - {
        item.item_id for row in changed if isinstance(row, Generation) for item in row.items
    }
    lines(run / GENERATIONS, [row.model_dump(mode="json") for row in changed])
    lines(
        run / "grades.jsonl",
        [row for row in rows(run, "grades.jsonl") if row["item_id"] not in removed],
    )


@pytest.mark.slow
def test_the_command_says_what_it_imported_and_what_comes_next(tmp_path: Path) -> None:
    lines(tmp_path / "gpt.jsonl", [*PAIRS[:5], {"chunk_id": "c1", "chunk": TEXTS["c1"], "error": "timeout"}])
    done = qaeval("import", "gpt.jsonl", "--out", "run", cwd=tmp_path)
    assert done.stdout.splitlines() == [
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
    assert len(rows(run.path, "labels/anna.jsonl")) == 12


@pytest.mark.slow
def test_columns_of_several_judges_are_further_judges(tmp_path: Path) -> None:
    items = [{**item, "g": "A", "h": "ABC"[n % 3]} for n, item in enumerate(PAIRS)]
    run = api.import_items(pd.DataFrame(items), out=tmp_path / "run", grade_field={"gpt-4": "g", "opus": "h"})
    assert run.report.judge.facts.name == "gpt-4"
    with RunStore.open(run.path) as store:
        assert list(store.further_judges()) == ["opus"]
        assert [row.letter for row in store.grades_of("opus")] == ["A", "B", "C"] * 4


@pytest.mark.slow
def test_another_judge_grades_a_run_with_imported_letters(tmp_path: Path) -> None:
    items = [{**item, "g": "A"} for item in PAIRS]
    run = api.import_items(pd.DataFrame(items), out=tmp_path / "run", grade_field={"gpt-4": "g"})
    with pytest.raises(UsageError, match="gpt-4"):
        api.grade(run)
    graded = api.grade(run, judge="embedded-lexical")
    assert graded.report.judge.facts.name == "gpt-4"
    assert len(list((tmp_path / "run" / "grades").glob("*.jsonl"))) == 1


@pytest.mark.slow
def test_equal_items_of_two_candidates_keep_the_letters_of_each(tmp_path: Path) -> None:
    one = lines(tmp_path / "one.jsonl", [{**item, "g": "A"} for item in PAIRS])
    two = lines(tmp_path / "two.jsonl", [{**item, "g": "B"} for item in PAIRS])
    run = api.import_items([one, two], out=tmp_path / "run", grade_field={"j": "g"})
    assert [candidate.usable.value for candidate in run.report.candidates] == [1.0, 0.0]


# ---------------------------------------------------------------- joining a run


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    run = api.compare(["embedded-lead", "embedded-salient"], n=12, out=folder / "base", cache=False)
    return run.path


def elsewhere(base: Path) -> list[dict[str, Any]]:
    """Pairs about the chunks of a run, with one that failed and a label for each."""
    with RunStore.open(base) as store:
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
    base: Path, tmp_path: Path
) -> None:
    path = lines(tmp_path / "gpt-4o.jsonl", elsewhere(base))
    before = sorted(
        (file.name, file.read_bytes()) for file in base.iterdir() if file.is_file() and file.name != ".lock"
    )
    out = api.import_items(path, out=tmp_path / "all", join=base, label_fields={"anna": "anna"}).path
    run = api.grade(out)
    report = run.report
    assert [candidate.facts.name for candidate in report.candidates] == [
        "embedded-lead",
        "embedded-salient",
        "gpt-4o",
    ]
    third = report.candidates[2]
    assert (third.n_expected, third.n_valid, third.failed_by_reason) == (36, 35, {"reported": 1})
    assert (third.timing.wall_s, third.timing.items_per_s, third.tokens.prompt) == (None, None, None)
    assert len(report.differences) == 3
    assert len(report.ranking) == 3
    anna = next(rater for rater in run.agreement().agreement if rater.rater == "anna")
    assert anna.n_labels == 35
    assert before == sorted(
        (file.name, file.read_bytes()) for file in base.iterdir() if file.is_file() and file.name != ".lock"
    )
    run.write_report()
    assert "not measured" in run.render("md")


@pytest.mark.slow
def test_a_join_reads_the_lines_that_every_reader_reads(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run)
    with RunStore.open(run) as store:
        first, second = [row.items[0].item_id for row in store.generations() if isinstance(row, Generation)][
            :2
        ]
    (run / "labels").mkdir()
    label = {"item_id": first, "letter": "A"}
    whole, torn = json.dumps(label), json.dumps({**label, "item_id": second})
    (run / "labels" / "anna.jsonl").write_text(f"{whole}\n\n{torn[:20]}")
    (run / "labels" / "bert.jsonl").write_text(f"{whole}\n{torn}")
    path = lines(tmp_path / "gpt-4o.jsonl", elsewhere(run))
    out = api.import_items(path, out=tmp_path / "all", join=run).path
    assert (out / "labels" / "anna.jsonl").read_text() == f"{whole}\n"
    assert (out / "labels" / "bert.jsonl").read_text() == f"{whole}\n{torn}\n"

    (run / "labels" / "anna.jsonl").write_text(f"{torn[:20]}\n{whole}\n")
    with pytest.raises(DataError, match=r"anna\.jsonl:1: not a valid row"):
        api.import_items(path, out=tmp_path / "again", join=run)


@pytest.mark.slow
def test_an_import_on_the_samples_of_a_run_is_reported_side_by_side(base: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "gpt-4o.jsonl", elsewhere(base))
    out = api.import_items(path, out=tmp_path / "alone").path
    judge = read_settings(base)["grading"]["judge"]["name"]
    api.grade(out, judge=judge)
    assert len(api.load_run([base, out]).report.candidates) == 3


@pytest.mark.slow
def test_a_join_with_other_samples_is_refused_or_reduced(base: Path, tmp_path: Path) -> None:
    items = [*elsewhere(base)[3:], pair("c0")]
    path = lines(tmp_path / "gpt-4o.jsonl", items)
    with pytest.raises(NotComparableError, match="lacks 1"):
        api.import_items(path, out=tmp_path / "all", join=base)
    out = api.import_items(path, out=tmp_path / "all", join=base, common=True).path
    run = api.grade(out)
    assert run.report.eval.n_samples == 11
    assert [candidate.n_expected for candidate in run.report.candidates] == [33, 33, 33]


def test_a_candidate_that_the_run_has_cannot_join(base: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "gpt-4o.jsonl", elsewhere(base))
    with pytest.raises(UsageError, match="embedded-lead"):
        api.import_items(path, out=tmp_path / "all", join=base, candidate="embedded-lead")


# ---------------------------------------------------------------- bad input


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def bad(folder: Path) -> dict[str, tuple[Any, str, Mapping[str, Any]]]:
    """Inputs that are refused: source, words of the message, options."""
    edited = {**PAIRS[3], "chunk": TEXTS["c1"].replace("litres", "gallons")}
    return {
        "missing file": (folder / "pairs.jsonl", "no such file", {}),
        "empty": (raw(folder / "e.jsonl", b""), "empty", {}),
        "blank": (raw(folder / "w.jsonl", b"\n \n"), "empty", {}),
        "header alone": (raw(folder / "h.csv", b"question,answer\n"), "no rows", {}),
        "empty array": (raw(folder / "a.json", b"[]"), "no rows", {}),
        "utf-16": (raw(folder / "u.jsonl", json.dumps(PAIRS[0]).encode("utf-16")), "UTF-16", {}),
        "latin-1": (
            raw(folder / "l.csv", "question,answer\nWer?,Müller\n".encode("latin-1")),
            r"l\.csv:2: not UTF-8: byte 0xfc",
            {},
        ),
        "latin-1 array": (raw(folder / "l.json", '[{"a": "Müller"}]'.encode("latin-1")), "not UTF-8", {}),
        "gzip": (raw(folder / "g.jsonl", b"\x1f\x8b\x08"), "gzip", {}),
        "excel": (raw(folder / "x.xlsx", b"PK\x03\x04[Content_Types].xml"), "Excel", {}),
        "broken line": (
            raw(folder / "b.jsonl", json.dumps(PAIRS[0]).encode() + b'\n{"question": \n'),
            r"b\.jsonl:2:",
            {},
        ),
        "broken array": (
            raw(folder / "b.json", b'[{"answer": "x", "chunk": "t"}, {"answer" "y"}]'),
            "not JSON",
            {},
        ),
        "cut array": (raw(folder / "c.json", b'[{"answer": "x", "chunk": "t"}'), "end of the file", {}),
        "scalar line": (raw(folder / "s.jsonl", b'{"a": 1}\n"text"\n'), "no item", {}),
        "broken parquet": (raw(folder / "p.parquet", b"PAR1 no"), "Parquet", {}),
        "ragged csv": (raw(folder / "r.csv", b"question,answer\na,b,c\n"), r"r\.csv:2: expected 2 cells", {}),
        "two columns of one name": (raw(folder / "t.csv", b"answer,answer\na,b\n"), "two columns", {}),
        "mixed kinds": (
            lines(
                folder / "m.jsonl", [PAIRS[0], {"prompt": "p", "chosen": "c", "rejected": "r", "chunk": "t"}]
            ),
            r"m\.jsonl:2: expected question/answer pairs",
            {},
        ),
        "no columns of an item": (
            lines(folder / "n.jsonl", [{"chunk": "t", "questin": "q", "answr": "a"}]),
            r"n\.jsonl:1: no item.*--field question=questin",
            {},
        ),
        "named column missing": (
            lines(folder / "f.jsonl", PAIRS),
            "no column 'anser'. Did you mean 'answer'",
            {"fields": {"answer": "anser"}},
        ),
        "letter column missing": (
            lines(folder / "lc.jsonl", [{**PAIRS[0], "grade": "A"}]),
            "no column 'grad'. Did you mean 'grade'",
            {"grade_field": {"j": "grad"}},
        ),
        "unknown field": (
            lines(folder / "uf.jsonl", PAIRS),
            "unknown field.*Did you mean 'question'",
            {"fields": {"qestion": "q"}},
        ),
        "unknown letter": (
            lines(folder / "ul.jsonl", [{**PAIRS[0], "g": "A"}, {**PAIRS[1], "g": "pass"}]),
            r"ul\.jsonl:2: 'g': letter \"pass\" is not on the scale.*A \(",
            {"grade_field": {"j": "g"}},
        ),
        "unknown eval": (
            lines(folder / "ue.jsonl", PAIRS),
            "unknown eval 'qa_pair'. Did you mean 'qa_pairs'",
            {"eval_name": "qa_pair"},
        ),
        "unknown rubric": (lines(folder / "ur.jsonl", PAIRS), "unknown rubric", {"rubric": "qa_pair"}),
        "an item twice": (
            lines(folder / "i2.jsonl", [*PAIRS, PAIRS[4]]),
            r"i2\.jsonl:13.*twice, first in i2\.jsonl:5",
            {},
        ),
        "an answer twice": (
            lines(folder / "a2.jsonl", [PAIRS[0], {**PAIRS[0], "answer": "Another."}]),
            r"a2\.jsonl:2.*twice, first in a2\.jsonl:1",
            {"eval_name": "rag_qa"},
        ),
        "a reply twice": (
            lines(folder / "r2.jsonl", [{"chunk_id": "c0", "chunk": TEXTS["c0"], "raw": "[]"}] * 2),
            "a reply of chunk 'c0' twice",
            {},
        ),
        "ids in another case": (
            lines(folder / "ic.jsonl", [PAIRS[0], {**PAIRS[3], "chunk_id": "C0"}]),
            r"ic\.jsonl:2: chunk id 'C0' differs from 'c0' \(ic\.jsonl:1\) in case only",
            {},
        ),
        "candidates in another case": (
            lines(folder / "cc.jsonl", [{**PAIRS[0], "model": "GPT"}, {**PAIRS[0], "model": "gpt"}]),
            "in case only",
            {},
        ),
        "an edited chunk": (
            lines(folder / "ec.jsonl", [PAIRS[3], edited]),
            r"ec\.jsonl:2: chunk 'c1' has another text than in ec\.jsonl:1, from character 17",
            {},
        ),
        "chunks edited between files": (
            [lines(folder / "e1.jsonl", PAIRS[3:6]), lines(folder / "e2.jsonl", [edited])],
            r"e2\.jsonl:1: chunk 'c1' has another text than in e1\.jsonl:1",
            {},
        ),
        "two files of one name": (
            [lines(folder / "a" / "p.jsonl", PAIRS), lines(folder / "b" / "p.jsonl", PAIRS)],
            "same name",
            {},
        ),
        "one file twice": ([lines(folder / "o.jsonl", PAIRS)] * 2, "named twice", {}),
        "json in a cell that is none": (
            lines(folder / "j.jsonl", [{"chunk": "t", "pairs": '[{"question": '}]),
            r"j\.jsonl:1: 'pairs': expected a list of items as JSON",
            {},
        ),
        "json twice in a cell": (
            lines(folder / "jj.jsonl", [{"chunk": "t", "pairs": json.dumps(json.dumps([PAIRS[0]]))}]),
            "expected a list of objects",
            {},
        ),
        "an object for text": (
            lines(folder / "ot.jsonl", [{**PAIRS[0], "answer": {"text": "a"}}]),
            r"'answer': expected text",
            {},
        ),
        "a position beyond all items": (
            lines(folder / "po.jsonl", [PAIRS[0], {**PAIRS[1], "position": 10**20}]),
            r"po\.jsonl:2: 'position': expected a whole number from 0 to 999,999, got 1000",
            {},
        ),
        "a position below the first": (
            lines(folder / "pn.jsonl", [{**PAIRS[0], "position": -1}]),
            r"'position': expected a whole number from 0",
            {},
        ),
        "half a character": (
            raw(folder / "hc.jsonl", b'{"chunk": "t", "question": "q", "answer": "\\ud83d"}'),
            "half a character",
            {},
        ),
        "no chunk of any": (
            lines(folder / "nc.jsonl", [{"chunk_id": "zzz", "question": "q", "answer": "a"}]),
            "no row has its chunk",
            {},
        ),
        "answers without a question": (
            lines(folder / "aq.jsonl", [{"chunk": "t", "answer": "a"}]),
            "no question",
            {"eval_name": "rag_qa"},
        ),
        "a row without its candidate": (
            lines(folder / "rc.jsonl", [{**PAIRS[0], "who": "x"}, {**PAIRS[1], "who": None}]),
            r"rc\.jsonl:2: no candidate in column 'who'",
            {"candidate_field": "who"},
        ),
        "an empty name": (lines(folder / "en.jsonl", PAIRS), "candidate", {"candidate": "a/b"}),
        "names for other files": (
            lines(folder / "nf.jsonl", PAIRS),
            "2 candidates for 1 files",
            {"candidate": ["a", "b"]},
        ),
        "a rater that label commands refuse": (
            lines(folder / "ln.jsonl", [{**PAIRS[0], "g": "A"}]),
            r"rater 'anna:2': expected a letter or digit",
            {"label_fields": {"anna:2": "g"}},
        ),
        "a judge and a rater of one name": (
            lines(folder / "tj.jsonl", PAIRS),
            "'a' is named as judge and as rater",
            {"grade_field": {"a": "x"}, "label_fields": {"a": "y"}},
        ),
    }


with tempfile.TemporaryDirectory() as _folder:
    CASES = tuple(bad(Path(_folder)))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_with_its_place_and_nothing_is_written(case: str, tmp_path: Path) -> None:
    source, message, options = bad(tmp_path)[case]
    with pytest.raises(QaevalError, match=message) as raised:
        api.import_items(source, out=tmp_path / "out" / "run", **options)
    assert isinstance(raised.value, DataError | UsageError)
    assert not (tmp_path / "out" / "run").exists()
    assert not list(tmp_path.glob("out/.*"))


def test_an_enormous_line_or_object_is_refused_without_reading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_run_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        api.import_items(pd.DataFrame(PAIRS), out=tmp_path / "run")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert api.import_items(pd.DataFrame(PAIRS), out=tmp_path / "empty").path == tmp_path / "empty"


@pytest.mark.slow
def test_a_join_keeps_of_the_run_what_belongs_to_the_common_samples(tmp_path: Path) -> None:
    words = {"alpha": ["AAB", "ABC", "CCC", "A-C!"]}
    base = make_run(tmp_path / "base", words, labels={"anna": {"alpha": ["AAA", "BBB", "CCC", "ABC"]}}).path
    with RunStore.open(base) as store:
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
    path = lines(tmp_path / "gpt.jsonl", items)
    with pytest.raises(NotComparableError, match="lacks 1"):
        api.import_items(path, out=tmp_path / "all", join=base)
    out = api.import_items(
        path, out=tmp_path / "all", join=base, common=True, label_fields={"anna": "anna"}
    ).path
    kept = {sample.sample_id for sample in samples[:3]}
    own = [item.item_id for row in replies if row.sample_id in kept for item in row.items]  # type: ignore[union-attr]
    with RunStore.open(out) as store:
        assert [sample.sample_id for sample in store.samples()] == [
            sample.sample_id for sample in samples[:3]
        ]
        by_candidate = dict.fromkeys(("alpha", "gpt"), 0)
        for row in store.generations():
            by_candidate[row.candidate] += len(row.items)  # type: ignore[union-attr]
        assert by_candidate == {"alpha": 9, "gpt": 9}
        assert {row.item_id: row for row in store.grades()} == {item_id: grades[item_id] for item_id in own}
    settings, before = read_settings(out), read_settings(base)
    assert list(settings["candidates"]) == ["alpha", "gpt"]
    assert settings["sample_set"]["n"] == 3
    assert settings["sample_set"]["digest"] != before["sample_set"]["digest"]
    assert settings["grading"] == before["grading"]
    # labels of the run that belong to a rater of the new items come first
    given = rows(out, "labels/anna.jsonl")
    assert [row["label"] for row in given if row["item_id"] in own] == list("AAABBBCCC")
    assert [row["letter"] for row in given if "letter" in row] == ["B"] * 9


@pytest.mark.slow
def test_letters_of_another_judge_cannot_join_a_graded_run(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", {"alpha": ["AAB"]}).path
    with RunStore.open(base) as store:
        (sample,) = store.samples()
    items = [
        {"chunk_id": sample.chunk.chunk_id, "question": f"{n}?", "answer": "Y.", "g": "A"} for n in range(3)
    ]
    with pytest.raises(NotComparableError, match="scripted-judge"):
        api.import_items(
            lines(tmp_path / "gpt.jsonl", items), out=tmp_path / "all", join=base, grade_field={"other": "g"}
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
def test_options_that_exclude_each_other_are_refused(
    options: dict[str, Any], error: str, tmp_path: Path
) -> None:
    base = make_run(tmp_path / "base", {"alpha": ["AAB"]}).path
    with pytest.raises(UsageError, match=error):
        api.import_items(
            lines(tmp_path / "gpt.jsonl", PAIRS[:1]),
            **{"out": tmp_path / "all", "join": base, "label_fields": {"anna": "anna"}, **options},
        )


def test_lists_of_a_table_are_read_as_those_of_its_file(tmp_path: Path) -> None:
    items = [
        {"question": "Q?", "answer": "A.", "tags": ["x"]},
        {"question": "Why?", "answer": "B.", "tags": []},
    ]
    path = tmp_path / "gpt.parquet"
    pd.DataFrame([{"context": [TEXTS["c0"], "More."], "pairs": items}]).to_parquet(path)
    ((_, of_file),) = reading.read_source(path)
    ((_, of_table),) = reading.read_source(pd.read_parquet(path))
    assert of_table == of_file == {"context": [TEXTS["c0"], "More."], "pairs": items}


def test_a_pipe_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gpt.jsonl"
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"gpt\.jsonl: neither a file nor a folder.*save it to a file"):
        api.import_items(path, out=tmp_path / "run")


def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame([["a", "b"]], columns=["answer", "answer"])
    with pytest.raises(UsageError, match="two columns 'answer'"):
        api.import_items(frame, out=tmp_path / "run", candidate="gpt")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--field", "--grade-field", "--label-field"])
def test_a_column_without_its_name_is_refused_by_the_name_of_its_option(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lines(tmp_path / "gpt.jsonl", PAIRS[:1])
    assert run(["import", str(path), option, "nothing", "--out", str(tmp_path / "run")]) == 64
    said = capsys.readouterr().err
    assert re.search(rf"{option}\b(?!-)", said)
    assert "nothing" in said
