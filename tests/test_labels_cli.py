"""`qaeval labels`: status, import from several machines, export, and adjudication."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qaeval import api
from qaeval.agreement.label_files import read_labels, read_rater_rows
from qaeval.cli import run as qaeval
from qaeval.labelling import Question, Sitting
from qaeval.testing import make_run

N_CHUNKS = 12
LETTERS = {"alpha": ["AAA"] * N_CHUNKS, "beta": ["AAC", "ABC"] * (N_CHUNKS // 2)}


@pytest.fixture(scope="module")
def graded_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", LETTERS).path


@pytest.fixture
def run(graded_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(graded_run, tmp_path / "run"))


def label_items(
    run: Path, rater: str, letter: str | Callable[[Question], str] = "A", n: int = 72, n_answers: int = 99
) -> None:
    with Sitting.open(run, rater, n=n) as sitting:
        while (question := sitting.current()) is not None and sitting.progress().answered < n_answers:
            answer = letter if isinstance(letter, str) else letter(question)
            sitting.record(question.assignment, answer, note=f"={rater}", seconds=4.0)


def letter_for_beta(letter: str) -> Callable[[Question], str]:
    return lambda question: letter if question.question.startswith("beta, factual") else "A"


def run_labels(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert qaeval(["labels", *arguments]) == 0
    return capsys.readouterr().out


def run_labels_refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    capsys.readouterr()
    assert qaeval(["labels", *arguments]) == code
    return capsys.readouterr().err


def read_letters(run: Path) -> dict[tuple[str, str], str]:
    return {
        (label.rater, label.item_id): label.letter
        for path in sorted((run / "labels").glob("*.jsonl"))
        for label in read_labels(path)
    }


# ------------------------------------------------------------------------------ status


@pytest.mark.slow
def test_status_without_labels_names_the_command(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qaeval.labelling.status.labels_of_run", lambda *_: [])  # an eval without labels
    status = json.loads(run_labels(capsys, "status", str(run), "--json"))
    assert (status["raters"], status.get("several")) == ([], None)
    assert f"qaeval label {run}" in run_labels(capsys, "status", str(run)).replace("\n", "")


@pytest.mark.slow
def test_status_shows_raters_agreement_and_the_gain_from_more_labels(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label_items(run, "anna", letter_for_beta("C"), n=60)
    label_items(run, "bert", "A", n=36, n_answers=8)
    status = json.loads(run_labels(capsys, "status", str(run), "--json"))
    anna, bert = status["raters"]
    assert (anna["n_labels"], anna["n_chunks"], anna["n_open"]) == (60, 10, 0)
    assert (bert["n_labels"], bert["n_open"]) == (8, 28)
    (gain,) = [entry for entry in status["more"] if entry["rater"] == "anna"]
    assert (gain["n_chunks"], gain["n_chunks_then"]) == (10, N_CHUNKS)
    assert 0 < gain["width_then"] < gain["width"]
    people = [pair for pair in status["pairs"] if {pair["a"], pair["b"]} == {"anna", "bert"}]
    assert len(people) == 1
    assert all(1 <= pair["coefficients"]["n"] <= 8 for pair in people)
    report = api.load_run(run).report
    assert status["verdict"] == report.verdict.model_dump(mode="json")
    assert api.label_status(run).model_dump(mode="json") == status
    table = run_labels(capsys, "status", str(run))
    assert "60" in table
    assert "4.0 s" in table


@pytest.mark.slow
def test_status_of_a_run_without_human_labels_lists_no_human_rater(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = json.loads(run_labels(capsys, "status", str(run), "--json"))
    assert not [rater for rater in status["raters"] if rater["rater_kind"] == "human"]
    assert status["more"] == []
    run_labels_refused(capsys, 65, "status", str(run / "no"))


# ------------------------------------------------------------------------------ import


@pytest.mark.slow
def test_label_files_are_merged_and_a_second_import_adds_nothing(
    graded_run: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other_run = Path(shutil.copytree(graded_run, tmp_path / "other"))
    label_items(run, "anna", n=36)
    label_items(other_run, "bert", letter_for_beta("B"), n=36)
    label_file = str(other_run / "labels" / "bert.jsonl")
    run_labels(capsys, "import", str(run), label_file)
    merged = (run / "labels" / "bert.jsonl").read_bytes()
    assert merged == (other_run / "labels" / "bert.jsonl").read_bytes()
    run_labels(capsys, "import", str(run), label_file)
    assert (run / "labels" / "bert.jsonl").read_bytes() == merged
    assert {rater.rater for rater in api.load_run(run).report.agreement} >= {"anna", "bert"}
    assert all(label.inclusion is not None for label in read_labels(run / "labels" / "bert.jsonl"))


def test_a_sitting_continued_on_another_machine_is_imported_with_its_corrections(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label_items(run, "anna", n=36, n_answers=10)
    other_run = Path(shutil.copytree(run, tmp_path / "other"))
    with Sitting.open(other_run, "anna") as sitting:
        reopened = sitting.undo()
        assert reopened is not None
        sitting.record(reopened.assignment, "C")
    label_items(other_run, "anna", "B")
    run_labels(capsys, "import", str(run), str(other_run / "labels" / "anna.jsonl"))
    assert read_letters(run) == read_letters(other_run)
    with Sitting.open(run, "anna", n=36) as sitting:
        assert sitting.progress().answered == 0  # a new sitting, because the imported one is finished


def test_conflicting_labels_of_a_rater_are_refused_and_nothing_is_imported(
    graded_run: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other_run = Path(shutil.copytree(graded_run, tmp_path / "other"))
    label_items(run, "anna", "A", n=36)
    label_items(other_run, "anna", letter_for_beta("C"), n=36)
    label_items(other_run, "bert", "A", n=6)
    before = read_letters(run)
    files = [str(other_run / "labels" / f"{rater}.jsonl") for rater in ("anna", "bert")]
    error = run_labels_refused(capsys, 65, "import", str(run), *files)
    differing = [item for (rater, item), letter in read_letters(other_run).items() if letter == "C"]
    assert differing
    assert sum(item in error for item in differing) == min(5, len(differing))
    assert "A and C" in error
    assert read_letters(run) == before
    run_labels(capsys, "import", str(run), files[0], "--rater", "anna-2")
    assert ("anna-2", differing[0]) in read_letters(run)


def test_a_sitting_skips_items_whose_labels_would_not_count(run: Path) -> None:
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    for number, sample in enumerate(samples):
        sample["chunk"]["split"] = ("tuning", "held-out")[number % 2]
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))

    def splits(rater: str) -> set[str]:
        label_items(run, rater, n=72)
        return {label.split for label in read_labels(run / "labels" / f"{rater}.jsonl")}

    assert splits("anna") == {"tuning", "held-out"}
    settings = json.loads((run / "settings.json").read_text())
    settings["grading"]["judge"]["tuned_on"] = [settings["eval"]["name"]]
    (run / "settings.json").write_text(json.dumps(settings))
    assert splits("bert") == {"held-out"}


def test_an_imported_label_gets_the_split_of_its_chunk(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    for number, sample in enumerate(samples):
        sample["chunk"]["split"] = ("tuning", "held-out")[number % 2]
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    splits = {sample["sample_id"]: sample["chunk"]["split"] for sample in samples}
    replies = [json.loads(line) for line in (run / "generations.jsonl").read_text().splitlines()]
    split_by_item = {item["item_id"]: splits[row["sample_id"]] for row in replies for item in row["items"]}
    (tmp_path / "anna.csv").write_text("item_id,label\n" + "".join(f"{item},B\n" for item in split_by_item))
    run_labels(capsys, "import", str(run), str(tmp_path / "anna.csv"))
    labels = read_labels(run / "labels" / "anna.jsonl")
    assert {label.item_id: label.split for label in labels} == split_by_item


def test_a_completed_sheet_is_imported_with_its_draw_and_flags(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet"
    arguments = ["export", str(run), "--to", "labels", "--n", "12", "--spreadsheet", "de", "--out", str(out)]
    assert qaeval(arguments) == 0
    rows = list(csv.DictReader(io.StringIO((out / "labels.csv").read_text("utf-8-sig")), delimiter=";"))
    for row in rows:
        row["label"], row["flag hallucination"] = "C", "x"
    path = out / "anna.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        file.write("sep=;\r\n")
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    assert "without the probability" not in run_labels(capsys, "import", str(run), str(path))
    imported = read_rater_rows(run / "labels" / "anna.jsonl")
    assert [(label.rater, label.letter, label.flags) for label in imported.labels] == [
        ("anna", "C", ("hallucination",))
    ] * 12
    assert [draw.rater for draw in imported.draws] == ["anna"]
    assert all(label.inclusion for label in imported.labels)
    with Sitting.open(run, "anna", n=72) as sitting:
        assert sitting.progress().total == 72 - 12 + 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "code", "message"),
    [
        ({"letter": "D"}, 65, "'D'"),
        ({"flags": ["no_such"]}, 65, "no_such"),
        ({"item_id": "0" * 16}, 65, "1 of items that"),
        ({"rubric": "qa_pair_abc/9"}, 65, "1 under another rubric"),
        ({"rater": "a/b"}, 64, "--rater"),
        ({"rater_kind": "cat"}, 65, "rater_kind"),
    ],
)
def test_invalid_rows_are_refused(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    row: dict[str, Any],
    code: int,
    message: str,
) -> None:
    item = api.load_run(run).letters["item_id"][0]
    path = tmp_path / "anna.jsonl"
    path.write_text(
        json.dumps({"item_id": item, "rater": "anna", "rater_kind": "human", "letter": "A", **row}) + "\n"
    )
    assert message in run_labels_refused(capsys, code, "import", str(run), str(path))
    assert not (run / "labels" / "anna.jsonl").exists()


def test_an_import_into_an_open_sitting_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label_items(run, "anna", n=6)
    copied = Path(shutil.copy(run / "labels" / "anna.jsonl", tmp_path))
    with Sitting.open(run, "anna", n=6):
        assert "in use" in run_labels_refused(capsys, 74, "import", str(run), str(copied))


# ------------------------------------------------------------------------------ export


@pytest.mark.slow
@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_exported_labels_survive_a_round_trip_with_their_probabilities(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    label_items(run, "anna", letter_for_beta("B"), n=36)
    label_items(run, "bert", "A", n=36)
    out = tmp_path / name
    run_labels(capsys, "export", str(run), "--out", str(out), "--rater", "anna", "--rater", "bert")
    exported = {(label.rater, label.item_id): label for label in read_labels(out)}
    assert {key: label.letter for key, label in exported.items()} == read_letters(run)
    all_path = tmp_path / f"all-{name}"
    run_labels(
        capsys, "export", str(run), "--out", str(all_path)
    )  # the eval also has labels of items that are not in the run
    assert {label.item_id for label in read_labels(all_path)} <= set(api.load_run(run).letters["item_id"])
    labels = [label for path in sorted((run / "labels").glob("*.jsonl")) for label in read_labels(path)]
    assert len(labels) == len(exported) > 0
    for label in labels:
        match = exported[label.rater, label.item_id]
        assert (match.inclusion, match.chunk_inclusion) == pytest.approx(
            (label.inclusion, label.chunk_inclusion)
        )
        assert match.note.lstrip("'") == label.note
    run_labels(capsys, "import", str(run), str(out))
    assert {key: label.letter for key, label in exported.items()} == read_letters(run)


def test_an_export_escapes_formulas_and_validates_its_options(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label_items(run, "anna", n=6)
    out = tmp_path / "labels.csv"
    run_labels(capsys, "export", str(run), "--out", str(out), "--spreadsheet", "de", "--rater", "anna")
    raw = out.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfitem_id;label;flag hallucination;note")
    assert b";'=anna;" in raw
    assert "expected a language" in run_labels_refused(
        capsys, 64, "export", str(run), "--out", str(out), "--spreadsheet", "xx"
    )
    assert "unknown rater" in run_labels_refused(
        capsys, 64, "export", str(run), "--out", str(out), "--rater", "zoe"
    )
    assert ".csv or .jsonl" in run_labels_refused(
        capsys, 64, "export", str(run), "--out", str(tmp_path / "labels.xls")
    )
    assert raw == out.read_bytes()


# ------------------------------------------------------------------------------ adjudication


@pytest.mark.slow
def test_disputed_items_are_listed_and_settled_on_the_command_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label_items(run, "anna", "A")
    label_items(run, "bert", letter_for_beta("C"))
    disputes = json.loads(run_labels(capsys, "adjudicate", str(run), "--json"))
    assert len(disputes) == N_CHUNKS
    assert [(label["rater"], label["letter"], label["note"]) for label in disputes[0]["labels"]] == [
        ("anna", "A", "=anna"),
        ("bert", "C", "=bert"),
    ]
    listing = run_labels(capsys, "adjudicate", str(run)).splitlines()
    first = disputes[0]
    assert listing[:4] == [
        f"{first['item_id']}  {first['question']}",
        f"  {first['answer']}",
        "  anna: A  =anna",
        "  bert: C  =bert",
    ]
    decisions = [f"{dispute['item_id']}=B" for dispute in disputes[:2]]
    stdout = run_labels(
        capsys, "adjudicate", str(run), "--rater", "cleo", "--settle", decisions[0], "--settle", decisions[1]
    )
    assert "2 of 12" in stdout
    assert len(json.loads(run_labels(capsys, "adjudicate", str(run), "--json"))) == N_CHUNKS - 2
    assert "--rater" in run_labels_refused(capsys, 64, "adjudicate", str(run), "--settle", decisions[0])
    assert "ITEM=LETTER" in run_labels_refused(
        capsys, 64, "adjudicate", str(run), "--rater", "cleo", "--settle", "B"
    )
    assert "'Z'" in run_labels_refused(
        capsys, 64, "adjudicate", str(run), "--rater", "cleo", "--settle", f"{disputes[2]['item_id']}=Z"
    )
    status = json.loads(run_labels(capsys, "status", str(run), "--json"))
    assert (status["n_disputed"], status["n_settled"]) == (N_CHUNKS - 2, 2)
