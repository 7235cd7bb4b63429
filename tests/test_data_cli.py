"""Documents in, training data out, by the commands that a user types."""

import csv
import json
import re
import shutil
from importlib.metadata import distribution
from pathlib import Path

import pytest

from qaeval.cli import run

DOCUMENTED = (
    "aiohttp",
    "beautifulsoup4",
    "hypothesis",
    "jinja2",
    "numpy",
    "pandas",
    "pydantic",
    "rich",
    "typer",
)
"""Packages of the environment; their project descriptions are public documentation."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def documentation(folder: Path) -> Path:
    folder.mkdir()
    for name in DOCUMENTED:
        about = distribution(name).metadata
        text = about.get_payload() or about["Description"]
        markdown = "markdown" in (about["Description-Content-Type"] or "")
        (folder / f"{name}.{'md' if markdown else 'rst'}").write_text(str(text), encoding="utf-8")
    return folder


def test_every_document_that_cannot_be_read_is_named_and_can_be_left_out(
    here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    docs = here / "docs"
    docs.mkdir()
    (docs / "good.md").write_text("# Pumps\n\nThe pump starts at 40 degrees and stops at 20 degrees.\n")
    (docs / "scan.pdf").write_bytes(b"no pdf")
    (docs / "core.txt").write_bytes(b"\0\0")
    assert run(["chunk", "docs"]) == 65
    told = capsys.readouterr().err
    assert "2 of 3 documents" in told
    assert "scan.pdf: unreadable PDF" in told
    assert not caplog.records, "what the library says of a PDF names no file"
    assert "core.txt:1: a NUL character" in told
    assert "--skip-unreadable" in told
    assert not (here / "chunks.jsonl").exists()

    assert run(["chunk", "docs", "--skip-unreadable"]) == 0
    told, warned = capsys.readouterr()
    assert told.startswith("chunks.jsonl: 1 chunk ")
    assert "2 of 3 documents" in warned

    (docs / "good.md").unlink()
    assert run(["chunk", "docs", "--skip-unreadable", "--out", "none.jsonl"]) == 65


@pytest.mark.slow
def test_real_documentation_goes_from_documents_to_a_report(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = documentation(here / "docs")
    assert run(["chunk", str(docs), "--size", "200", "--language", "en"]) == 0
    told = capsys.readouterr().out
    rows = [json.loads(line) for line in (here / "chunks.jsonl").read_text().splitlines()]
    assert f"chunks.jsonl: {len(rows)} chunks of {len(DOCUMENTED)} documents" in told
    assert len(rows) > 30
    assert {row["document"].rpartition(".")[0] for row in rows} == set(DOCUMENTED)
    for row in rows:
        if "lines" in row["place"]:
            first, last = row["place"]["lines"]
            source = (docs / row["document"]).read_text().split("\n")[first - 1 : last]
            assert row["text"].strip().split("\n")[0].strip() in "\n".join(source)
    assert (
        run(["sample", "--chunks", "chunks.jsonl", "--n", "12", "--seed", "3", "--out", "drawn.jsonl"]) == 0
    )
    assert (
        run(["compare", "embedded-lead", "embedded-salient", "--chunks", "drawn.jsonl", "--out", "run"]) == 0
    )
    report = json.loads((here / "run" / "report.json").read_text())
    assert report["eval"]["n_samples"] == 12
    assert all(one["n_valid"] == 36 for one in report["candidates"])


def test_chunk_says_what_it_did_not_read_and_never_writes_over_a_file(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = here / "docs"
    docs.mkdir()
    (docs / "picture.png").write_bytes(b"\x89PNG")
    assert run(["chunk", "docs"]) == 64
    assert "ignored: 1 .png" in capsys.readouterr().err
    (docs / "a.md").write_text("# One\n\nA server listens on port 8000.\n")
    (docs / "b.md").write_text("# One\n\nA server listens on port 8000.\n")
    assert run(["chunk", "docs"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("chunks.jsonl: 1 chunk ")
    assert "1 duplicate" in captured.out
    assert "1 .png" in captured.err
    assert run(["chunk", "docs"]) == 64
    assert "chunks.jsonl exists" in capsys.readouterr().err
    assert run(["chunk", "nowhere", "--out", "other.jsonl"]) == 65
    assert "nowhere: no such file" in capsys.readouterr().err
    assert run(["chunk", "docs", "--tokenizer", "docs", "--out", "other.jsonl"]) == 65
    assert "tokenizer.json" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("finished") / "run"
    assert run(["compare", "embedded-lead", "embedded-salient", "--n", "30", "--out", str(made)]) == 0
    return made


@pytest.fixture
def graded(here: Path, finished: Path) -> Path:
    return Path(shutil.copytree(finished, here / "run"))


@pytest.mark.parametrize(
    ("to", "files"),
    [
        ("sft", {"train.jsonl", "README.md"}),
        ("dpo", {"train.jsonl", "README.md"}),
        ("csv", {"items.csv", "README.md"}),
        ("parquet", {"items.parquet", "README.md"}),
        ("labels", {"labels.jsonl", "labels.csv", "README.md"}),
    ],
)
@pytest.mark.slow
def test_a_run_is_exported_by_one_command(
    to: str, files: set[str], graded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(graded), "--to", to]) == 0
    out = graded.with_name(f"run-{to}")
    assert files <= {path.name for path in out.iterdir()}
    assert str(out / "README.md") in capsys.readouterr().out


@pytest.mark.usefixtures("graded")
@pytest.mark.slow
def test_labels_that_people_fill_in_are_labels_of_the_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", "run", "--to", "labels", "--n", "20", "--out", "sheet"]) == 0
    sheet = here / "sheet" / "labels.csv"
    head, *lines = sheet.read_text().splitlines(keepends=True)
    assert "letter" not in head.split(",")  # blind
    assert "embedded" not in sheet.read_text()
    filled = here / "anna.csv"
    column = head.strip().split(",").index("label")
    assert column == 1
    filled.write_text(head + "".join(re.sub(r"^(\w{16}),", r"\1,B", line) for line in lines))
    with filled.open(newline="") as file, (here / "bert.csv").open("w", newline="") as german:
        csv.writer(german, delimiter=";").writerows(
            csv.reader(file)
        )  # as a spreadsheet with a decimal comma saves it
    capsys.readouterr()
    assert run(["agreement", "run", "--labels", "bert.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agreement"][0]["rater"] == "bert"
    assert run(["agreement", "run", "--labels", str(filled), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["agreement"][0]["rater"] == "anna"
    rows = [json.loads(line) for line in (here / "sheet" / "labels.jsonl").read_text().splitlines()]
    filled = here / "ben.jsonl"
    filled.write_text("".join(json.dumps({**row, "label": "B"}) + "\n" for row in rows))
    assert run(["agreement", "run", "--labels", str(filled), "--json"]) == 0
    agreement = json.loads(capsys.readouterr().out)["agreement"][0]
    assert (agreement["rater"], agreement["n_labels"]) == ("ben", 20)


@pytest.mark.slow
@pytest.mark.usefixtures("graded")
def test_a_draw_without_a_seed_has_that_of_the_registry(here: Path) -> None:
    def drawn(name: str, *words: str) -> str:
        assert run(["export", "run", "--to", "labels", "--n", "10", "--out", name, *words]) == 0
        return (here / name / "labels.jsonl").read_text()

    first = drawn("first")
    (here / "qaeval.yaml").write_text("defaults: {seed: 7}\n")
    assert drawn("registry") == drawn("seven", "--seed", "7") != first
    assert drawn("zero", "--seed", "0") == first


@pytest.mark.slow
@pytest.mark.usefixtures("graded")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--to", "sfx"], 64, "--to: expected sft, dpo, parquet, csv, labels, inspect, got 'sfx'"),
        (["--to", "sft", "--split", "0.8,0.2"], 64, "--split: expected three shares"),
        (["--to", "sft", "--by", "stratum"], 64, "--by: expected chunk or document"),
        (["--to", "sft", "--letter", "X"], 64, "'X'"),
        (["--to", "sft", "--candidate", "embedded-led"], 64, "embedded-lead"),
        (
            ["--to", "csv", "--letter", "A"],
            64,
            "--letter has no effect with --to csv: it applies to sft and dpo",
        ),
        (["--to", "csv", "--min-probability", "0"], 64, "--min-probability has no effect"),
        (["--to", "parquet", "--checks-passed"], 64, "--checks-passed has no effect with --to parquet"),
        (["--to", "labels", "--split", "0.8,0.1,0.1"], 64, "--split has no effect with --to labels"),
        (["--to", "labels", "--by", "chunk"], 64, "--by has no effect with --to labels"),
        (
            ["--to", "csv", "--seed", "0"],
            64,
            "--seed has no effect with --to csv: it applies to sft and dpo and",
        ),
        (
            ["--to", "sft", "--per-sample", "3"],
            64,
            "--per-sample has no effect with --to sft: it applies to dpo",
        ),
        (["--to", "dpo", "--context"], 64, "--context has no effect with --to dpo: it applies to sft"),
        (["--to", "inspect", "--no-context"], 64, "--no-context has no effect with --to inspect"),
        (
            ["--to", "inspect", "--candidate", "embedded-lead"],
            64,
            "--candidate has no effect with --to inspect",
        ),
        (["--to", "inspect", "--n", "3"], 64, "--n has no effect with --to inspect: it applies to labels"),
        (["--to", "csv", "--model-labels"], 64, "--model-labels has no effect with --to csv"),
    ],
)
def test_an_export_that_cannot_be_is_refused(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["export", "run", *words, "--out", "out"]) == code
    assert said in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("to", ["sft", "csv", "inspect"])
@pytest.mark.slow
def test_an_unfinished_run_leaves_no_folder_behind(
    to: str, graded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if to == "inspect":
        pytest.importorskip("inspect_ai")
    rows = (graded / "grades.jsonl").read_text().splitlines(keepends=True)
    (graded / "grades.jsonl").write_text("".join(rows[:-2]))
    (graded / "manifest.json").unlink()  # an unfinished run has none
    capsys.readouterr()
    assert run(["export", str(graded), "--to", to, "--out", "out"]) == 65
    assert "2 grades are missing" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.slow
def test_labels_by_models_are_asked_for_and_their_terms_read(
    graded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (graded / "labels").mkdir(exist_ok=True)
    items = {json.loads(line)["item_id"] for line in (graded / "grades.jsonl").read_text().splitlines()}
    labels = [{"item_id": name, "rater": "claude", "rater_kind": "model", "letter": "A"} for name in items]
    (graded / "labels" / "claude.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels))
    assert run(["export", str(graded), "--to", "sft", "--out", "plain"]) == 0
    assert "were not used" in Path("plain/README.md").read_text()
    assert run(["export", str(graded), "--to", "sft", "--model-labels", "--out", "out"]) == 64
    said = capsys.readouterr().err
    assert "Anthropic's terms" in said
    assert "--accept-licence claude" in said
    words = re.findall(r"--accept-licence claude[-\w]*", said)[0].split()
    assert run(["export", str(graded), "--to", "sft", "--model-labels", *words, "--out", "out"]) == 0
    assert "claude (model)" in Path("out/README.md").read_text()
