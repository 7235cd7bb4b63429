"""Counts by chunk from Parquet: equal to those of the letter table for every batch size."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qaeval.analysis import chunk_counts
from qaeval.analysis.chunk_counts import count_letters
from qaeval.cli import run as run_command
from qaeval.comparison.items_at_scale import count_items, write_item_counts
from qaeval.comparison.report_file import load_report
from qaeval.errors import DataError


@pytest.fixture(scope="module")
def run_folder(embedded_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has failed replies and grades, and its export."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(embedded_run, folder / "run")
    path = folder / "run" / "generations.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    failed = {
        "kind": "failure",
        "task_id": rows[0]["task_id"],
        "stage": "generate",
        "model": rows[0]["candidate"],
        "sample_id": rows[0]["sample_id"],
        "reason": "truncated",
        "detail": "",
    }
    failed_item_ids = {item["item_id"] for item in rows[0]["items"]}
    path.write_text("".join(json.dumps(row) + "\n" for row in (failed, *rows[1:])))
    path = folder / "run" / "grades.jsonl"
    grade_rows = [
        row
        for line in path.read_text().splitlines()
        if (row := json.loads(line))["item_id"] not in failed_item_ids
    ]
    grade_failure = {
        "kind": "failure",
        "stage": "grade",
        "model": grade_rows[0]["judge"],
        "sample_id": rows[1]["sample_id"],
        "reason": "unparseable",
        "detail": "",
        **{name: grade_rows[0][name] for name in ("task_id", "item_id")},
    }
    path.write_text("".join(json.dumps(row) + "\n" for row in (grade_failure, *grade_rows[1:])))
    (folder / "run" / "manifest.json").unlink()
    assert run_command(["report", str(folder / "run")]) == 0
    assert run_command(["export", str(folder / "run"), "--to", "parquet", "--out", str(folder / "e")]) == 0
    return folder


def write_parts(folder: Path, out: Path) -> list[Path]:
    """Write the exported rows to three files, ordered so that the rows of a chunk are separated."""
    (file,) = (folder / "e").rglob("*.parquet")
    table = pq.read_table(file)
    files = []
    for part in range(3):
        files.append(out / f"{part}.parquet")
        pq.write_table(table.take(list(range(part, table.num_rows, 3))[::-1]), files[-1])
    return files


@pytest.mark.parametrize("batch", [7, 1 << 18])
def test_counts_match_the_report(
    run_folder: Path, tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_counts, "_BATCH", batch)
    monkeypatch.setattr(chunk_counts, "_PENDING", batch)
    report = load_report(run_folder / "run")
    counts = count_letters(
        write_parts(run_folder, tmp_path), report.rubric.letters, items_per_sample=3
    ).by_candidate()
    assert {summary.facts.name for summary in report.candidates} == counts.keys()
    for summary in report.candidates:
        candidate_counts = counts[summary.facts.name]
        assert (candidate_counts.n_items, candidate_counts.n_failed, candidate_counts.n_ungraded) == (
            summary.n_expected,
            summary.failed.n,
            summary.ungraded.n,
        )
        assert candidate_counts.letters == {count.name: count.n for count in summary.letters}
        assert candidate_counts.usable == summary.usable
        assert candidate_counts.usable_of_graded == summary.usable_of_graded
    assert sum(candidate_counts.n_failed for candidate_counts in counts.values()) >= 3
    assert sum(candidate_counts.n_ungraded for candidate_counts in counts.values()) >= 1


def test_invalid_export_is_refused(tmp_path: Path) -> None:
    text, other, off_scale = (tmp_path / f"{name}.parquet" for name in ("text", "other", "off"))
    text.write_text("letters")
    pq.write_table(pa.table({"candidate": ["a"]}), other)
    pq.write_table(
        pa.table({"candidate": ["a"], "chunk_id": ["c"], "item_id": ["i"], "position": [0], "letter": ["Z"]}),
        off_scale,
    )
    for path, message in (
        (text, "expected a Parquet file"),
        (other, "chunk_id"),
        (off_scale, "off the scale A/B/C: 'Z'"),
    ):
        with pytest.raises(DataError, match=message):
            count_letters([path], ("A", "B", "C"), items_per_sample=3)
    assert count_letters([], ("A",), items_per_sample=3).by_candidate() == {}


def test_rates_are_weighted_by_inclusion_probability(tmp_path: Path) -> None:
    n = 60
    columns = {
        "candidate": ["a"] * n,
        "chunk_id": [f"c{number}" for number in range(n)],
        "item_id": [f"i{number}" for number in range(n)],
        "position": [0] * n,
        "letter": ["A"] * 30 + ["C"] * 30,
    }
    unweighted, weighted = tmp_path / "plain.parquet", tmp_path / "weighed.parquet"
    pq.write_table(pa.table(columns), unweighted)
    pq.write_table(pa.table({**columns, "inclusion": [0.1] * 30 + [1.0] * 30}), weighted)
    counts = count_letters([weighted], ("A", "B", "C"), items_per_sample=1).by_candidate()["a"]
    assert counts.usable.value == pytest.approx(300 / 330)
    assert counts.usable_of_graded.value == pytest.approx(300 / 330)
    assert (counts.n_items, counts.usable.n, counts.letters) == (60, 60, {"A": 30, "B": 0, "C": 30})
    assert count_letters([unweighted], ("A", "B", "C"), items_per_sample=1).by_candidate()[
        "a"
    ].usable.value == pytest.approx(0.5)
    with pytest.raises(DataError, match="no column 'inclusion'"):
        count_letters([unweighted, weighted], ("A", "B", "C"), items_per_sample=1)


def test_command_output_matches_the_report(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = load_report(run_folder / "run")
    assert run_command(["count", str(run_folder / "e"), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["n_files"] == 1
    for candidate, summary in zip(counts["candidates"], report.candidates, strict=True):
        assert candidate["candidate"] == summary.facts.name
        assert candidate["usable"] == summary.usable.model_dump(mode="json")
    ((pair,), (expected,)) = counts["differences"], report.differences
    assert (pair["a"], pair["b"], pair["p"], pair["p_holm"]) == (
        expected.a,
        expected.b,
        pytest.approx(expected.p),
        pytest.approx(expected.p_holm),
    )
    assert pair["difference"]["value"] == pytest.approx(expected.difference.value)
    assert pair["difference"]["low"] == pytest.approx(expected.difference.low)
    assert pair["difference"]["high"] == pytest.approx(expected.difference.high)
    assert pair["p_equivalent"] == pytest.approx(expected.p_equivalent)
    assert run_command(["count", str(run_folder / "e")]) == 0
    stdout = capsys.readouterr().out
    assert "no label, control or audit is in these files" in stdout
    assert "better" not in stdout  # unchecked letters name no winner


@pytest.mark.parametrize(
    ("argument", "message"),
    [("absent", "no such file or folder"), ("empty", "no Parquet file in this folder")],
)
def test_a_path_without_items_is_named(
    tmp_path: Path, argument: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert run_command(["count", str(tmp_path / argument)]) == 65
    assert message in capsys.readouterr().err


def test_differences_are_weighted_by_inclusion_probability(tmp_path: Path) -> None:
    """Of 30 chunks of weight 10 and 30 of weight 1, b is usable in all, and a only in the heavy ones."""
    n = 60
    columns = {
        "candidate": ["a"] * n + ["b"] * n,
        "chunk_id": [f"c{number}" for number in range(n)] * 2,
        "item_id": [f"i{number}" for number in range(2 * n)],
        "position": [0] * 2 * n,
        "letter": ["A"] * 30 + ["C"] * 30 + ["A"] * 60,
        "inclusion": ([0.1] * 30 + [1.0] * 30) * 2,
    }
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    counts = count_items([tmp_path], ("A", "B", "C"), items_per_sample=1, margin=0.05)
    assert counts.differences[0].difference.value == pytest.approx(30 / 330)


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_p_values_are_corrected_for_several_pairs_alone(tmp_path: Path, names: str) -> None:
    n = 12
    columns = {
        "candidate": [name for name in names for _ in range(n)],
        "chunk_id": [f"c{number}" for number in range(n)] * len(names),
        "item_id": [f"i{number}" for number in range(n * len(names))],
        "position": [0] * n * len(names),
        "letter": ["AB"[number % (2 + index) == 0] for index in range(len(names)) for number in range(n)],
    }
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    counts = count_items([tmp_path], ("A", "B"), items_per_sample=1, margin=0.05)
    (section,) = write_item_counts(counts)
    table = section.tables[-1]
    assert ("Holm" in table.header) == (len(names) > 2)
    assert {len(row) for row in table.rows} == {len(table.header)}
    assert len(table.rows) == len(names) * (len(names) - 1) // 2
