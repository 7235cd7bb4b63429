"""Counts by chunk from Parquet: the numbers of the table of letters, whatever the batches."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command import qaeval
from qaeval.analysis import chunk_counts
from qaeval.analysis.chunk_counts import count_letters
from qaeval.comparison.report_file import load_report
from qaeval.errors import DataError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with letters, and with replies and letters that failed, and its export."""
    folder = tmp_path_factory.mktemp("run")
    done = qaeval(
        "compare", "embedded-lead", "embedded-salient", "--n", 24, "--out", folder / "run", cwd=folder
    )
    assert done.returncode == 0, done.stderr
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
    lost = {item["item_id"] for item in rows[0]["items"]}
    path.write_text("".join(json.dumps(row) + "\n" for row in (failed, *rows[1:])))
    path = folder / "run" / "grades.jsonl"
    kept = [row for line in path.read_text().splitlines() if (row := json.loads(line))["item_id"] not in lost]
    unread = {
        "kind": "failure",
        "stage": "grade",
        "model": kept[0]["judge"],
        "sample_id": rows[1]["sample_id"],
        "reason": "unparseable",
        "detail": "",
        **{name: kept[0][name] for name in ("task_id", "item_id")},
    }
    path.write_text("".join(json.dumps(row) + "\n" for row in (unread, *kept[1:])))
    (folder / "run" / "manifest.json").unlink()
    for command in (
        ("report", folder / "run"),
        ("export", folder / "run", "--to", "parquet", "--out", folder / "e"),
    ):
        done = qaeval(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def parts(folder: Path, out: Path) -> list[Path]:
    """The exported rows in three files, in an order in which the rows of a chunk are apart."""
    (file,) = (folder / "e").rglob("*.parquet")
    table = pq.read_table(file)
    files = []
    for part in range(3):
        files.append(out / f"{part}.parquet")
        pq.write_table(table.take(list(range(part, table.num_rows, 3))[::-1]), files[-1])
    return files


@pytest.mark.parametrize("batch", [7, 1 << 18])
def test_the_counts_are_those_of_the_report(
    run: Path, tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_counts, "_BATCH", batch)
    monkeypatch.setattr(chunk_counts, "_PENDING", batch)
    report = load_report(run / "run")
    counts = count_letters(parts(run, tmp_path), report.rubric.letters, items_per_sample=3)
    assert {summary.facts.name for summary in report.candidates} == counts.keys()
    for summary in report.candidates:
        ours = counts[summary.facts.name]
        assert (ours.n, ours.n_failed, ours.n_ungraded) == (
            summary.n_expected,
            summary.failed.n,
            summary.ungraded.n,
        )
        assert ours.letters == {count.name: count.n for count in summary.letters}
        assert ours.usable == summary.usable
        assert ours.usable_of_graded == summary.usable_of_graded
    assert sum(ours.n_failed for ours in counts.values()) >= 3
    assert sum(ours.n_ungraded for ours in counts.values()) >= 1


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    text, other, off = (tmp_path / f"{name}.parquet" for name in ("text", "other", "off"))
    text.write_text("letters")
    pq.write_table(pa.table({"candidate": ["a"]}), other)
    pq.write_table(
        pa.table({"candidate": ["a"], "chunk_id": ["c"], "item_id": ["i"], "position": [0], "letter": ["Z"]}),
        off,
    )
    for path, message in (
        (text, "expected a Parquet file"),
        (other, "chunk_id"),
        (off, "off the scale A/B/C: 'Z'"),
    ):
        with pytest.raises(DataError, match=message):
            count_letters([path], ("A", "B", "C"), items_per_sample=3)
    assert count_letters([], ("A",), items_per_sample=3) == {}


def test_rates_weigh_by_the_probability_of_the_draw(tmp_path: Path) -> None:
    n = 60
    columns = {
        "candidate": ["a"] * n,
        "chunk_id": [f"c{number}" for number in range(n)],
        "item_id": [f"i{number}" for number in range(n)],
        "position": [0] * n,
        "letter": ["A"] * 30 + ["C"] * 30,
    }
    plain, weighed = tmp_path / "plain.parquet", tmp_path / "weighed.parquet"
    pq.write_table(pa.table(columns), plain)
    pq.write_table(pa.table({**columns, "inclusion": [0.1] * 30 + [1.0] * 30}), weighed)
    counts = count_letters([weighed], ("A", "B", "C"), items_per_sample=1)["a"]
    assert counts.usable.value == pytest.approx(300 / 330)
    assert counts.usable_of_graded.value == pytest.approx(300 / 330)
    assert (counts.n, counts.usable.n, counts.letters) == (60, 60, {"A": 30, "B": 0, "C": 30})
    assert count_letters([plain], ("A", "B", "C"), items_per_sample=1)["a"].usable.value == pytest.approx(0.5)
    with pytest.raises(DataError, match="no column 'inclusion'"):
        count_letters([plain, weighed], ("A", "B", "C"), items_per_sample=1)
