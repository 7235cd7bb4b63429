"""From documents to training data, with the commands that a user types."""

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
def work_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_documentation(folder: Path) -> Path:
    folder.mkdir()
    for name in DOCUMENTED:
        metadata = distribution(name).metadata
        text = metadata.get_payload() or metadata["Description"]
        markdown = "markdown" in (metadata["Description-Content-Type"] or "")
        (folder / f"{name}.{'md' if markdown else 'rst'}").write_text(str(text), encoding="utf-8")
    return folder


def test_unreadable_documents_are_named_and_can_be_skipped(
    work_dir: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    docs = work_dir / "docs"
    docs.mkdir()
    (docs / "good.md").write_text("# Pumps\n\nThe pump starts at 40 degrees and stops at 20 degrees.\n")
    (docs / "scan.pdf").write_bytes(b"no pdf")
    (docs / "core.txt").write_bytes(b"\0\0")
    assert run(["chunk", "docs"]) == 65
    output = capsys.readouterr().err
    assert "2 of 3 documents" in output
    assert "scan.pdf: unreadable PDF" in output
    assert not caplog.records, "the PDF library's own warnings name no file and must not be shown"
    assert "core.txt:1: a NUL character" in output
    assert "--skip-unreadable" in output
    assert not (work_dir / "chunks.jsonl").exists()

    assert run(["chunk", "docs", "--skip-unreadable"]) == 0
    output, warning = capsys.readouterr()
    assert output.startswith("chunks.jsonl: 1 chunk ")
    assert "2 of 3 documents" in warning

    (docs / "good.md").unlink()
    assert run(["chunk", "docs", "--skip-unreadable", "--out", "none.jsonl"]) == 65


@pytest.mark.slow
def test_real_documentation_can_be_chunked_and_compared(
    work_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = write_documentation(work_dir / "docs")
    assert run(["chunk", str(docs), "--size", "200", "--language", "en"]) == 0
    stdout = capsys.readouterr().out
    rows = [json.loads(line) for line in (work_dir / "chunks.jsonl").read_text().splitlines()]
    assert f"chunks.jsonl: {len(rows)} chunks of {len(DOCUMENTED)} documents" in stdout
    assert len(rows) > 30
    assert {row["document"].rpartition(".")[0] for row in rows} == set(DOCUMENTED)
    placed = [row for row in rows if "lines" in row["place"]]
    assert len(placed) > 10
    for row in placed:
        first, last = row["place"]["lines"]
        source = (docs / row["document"]).read_text().split("\n")[first - 1 : last]
        assert row["text"].strip().split("\n")[0].strip() in "\n".join(source)
    assert (
        run(["sample", "--chunks", "chunks.jsonl", "--n", "12", "--seed", "3", "--out", "drawn.jsonl"]) == 0
    )
    assert (
        run(["compare", "embedded-lead", "embedded-salient", "--chunks", "drawn.jsonl", "--out", "run"]) == 0
    )
    report = json.loads((work_dir / "run" / "report.json").read_text())
    assert report["eval"]["n_samples"] == 12
    assert all(candidate["n_valid"] == 36 for candidate in report["candidates"])


def test_chunks_above_the_size_are_counted(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work_dir / "long.txt").write_text(f"{'word ' * 130}end.\n\nA short one.\n")
    counts = {}
    for size in (100, 300):
        assert run(["chunk", "long.txt", "--size", str(size), "--out", f"{size}.jsonl"]) == 0
        counts[size] = [line for line in capsys.readouterr().out.splitlines() if "larger than" in line]
    assert counts == {
        100: ["1 larger than 100 tokens: sentences, table rows and code lines are not cut"],
        300: [],
    }


def test_documents_without_a_chunk_are_named_and_not_counted(
    work_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = work_dir / "docs"
    docs.mkdir()
    (docs / "good.md").write_text("# Pumps\n\nThe pump starts at 40 degrees.\n")
    (docs / "nav.html").write_text("<nav>Home</nav>")
    assert run(["chunk", "docs"]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout.startswith("chunks.jsonl: 1 chunk of 1 document,")
    assert stderr == "1 document gave no chunk: nav.html\n"
    for n in range(25):
        (docs / f"empty{n:02}.md").write_text("")
    assert run(["init", "project", "--documents", "docs", "--name", "pumps"]) == 0
    stdout, stderr = capsys.readouterr()
    assert "26 documents gave no chunk: empty00.md, empty01.md, " in stdout + stderr
    assert "empty19.md, and 6 more" in stdout + stderr


def test_chunk_lists_ignored_files_and_never_overwrites(
    work_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = work_dir / "docs"
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
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    assert run(["compare", "embedded-lead", "embedded-salient", "--n", "30", "--out", str(path)]) == 0
    return path


@pytest.fixture
def graded_run(work_dir: Path, finished_run: Path) -> Path:
    return Path(shutil.copytree(finished_run, work_dir / "run"))


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
    to: str, files: set[str], graded_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(graded_run), "--to", to]) == 0
    out = graded_run.with_name(f"run-{to}")
    assert files <= {path.name for path in out.iterdir()}
    assert str(out / "README.md") in capsys.readouterr().out


@pytest.mark.usefixtures("graded_run")
@pytest.mark.slow
def test_filled_in_label_sheets_are_read_as_labels_of_the_run(
    work_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", "run", "--to", "labels", "--n", "20", "--out", "sheet"]) == 0
    sheet = work_dir / "sheet" / "labels.csv"
    head, *lines = sheet.read_text().splitlines(keepends=True)
    assert "letter" not in head.split(",")  # blind
    assert "embedded" not in sheet.read_text()
    filled = work_dir / "anna.csv"
    column = head.strip().split(",").index("label")
    assert column == 1
    filled.write_text(head + "".join(re.sub(r"^(\w{16}),", r"\1,B", line) for line in lines))
    with filled.open(newline="") as file, (work_dir / "bert.csv").open("w", newline="") as german:
        csv.writer(german, delimiter=";").writerows(
            csv.reader(file)
        )  # as a spreadsheet with a decimal comma saves it
    capsys.readouterr()
    assert run(["agreement", "run", "--labels", "bert.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agreement"][0]["rater"] == "bert"
    assert run(["agreement", "run", "--labels", str(filled), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["agreement"][0]["rater"] == "anna"
    rows = [json.loads(line) for line in (work_dir / "sheet" / "labels.jsonl").read_text().splitlines()]
    filled = work_dir / "ben.jsonl"
    filled.write_text("".join(json.dumps({**row, "label": "B"}) + "\n" for row in rows))
    assert run(["agreement", "run", "--labels", str(filled), "--json"]) == 0
    agreement = json.loads(capsys.readouterr().out)["agreement"][0]
    assert (agreement["rater"], agreement["n_labels"]) == ("ben", 20)


@pytest.mark.slow
@pytest.mark.usefixtures("graded_run")
def test_a_draw_without_a_seed_uses_the_registry_default(work_dir: Path) -> None:
    def draw_labels(name: str, *options: str) -> str:
        assert run(["export", "run", "--to", "labels", "--n", "10", "--out", name, *options]) == 0
        return (work_dir / name / "labels.jsonl").read_text()

    default_draw = draw_labels("first")
    (work_dir / "qaeval.yaml").write_text("defaults: {seed: 7}\n")
    assert draw_labels("registry") == draw_labels("seven", "--seed", "7") != default_draw
    assert draw_labels("zero", "--seed", "0") == default_draw


@pytest.mark.slow
@pytest.mark.usefixtures("graded_run")
@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
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
def test_invalid_export_options_are_refused(
    options: list[str], exit_code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["export", "run", *options, "--out", "out"]) == exit_code
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("to", ["sft", "csv", "inspect"])
@pytest.mark.slow
def test_an_unfinished_run_leaves_no_folder_behind(
    to: str, graded_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if to == "inspect":
        pytest.importorskip("inspect_ai")
    rows = (graded_run / "grades.jsonl").read_text().splitlines(keepends=True)
    (graded_run / "grades.jsonl").write_text("".join(rows[:-2]))
    (graded_run / "manifest.json").unlink()  # an unfinished run has none
    capsys.readouterr()
    assert run(["export", str(graded_run), "--to", to, "--out", "out"]) == 65
    assert "2 grades are missing" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.slow
def test_model_labels_require_an_option_and_acceptance_of_their_terms(
    graded_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (graded_run / "labels").mkdir(exist_ok=True)
    items = {json.loads(line)["item_id"] for line in (graded_run / "grades.jsonl").read_text().splitlines()}
    labels = [{"item_id": name, "rater": "claude", "rater_kind": "model", "letter": "A"} for name in items]
    (graded_run / "labels" / "claude.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels))
    assert run(["export", str(graded_run), "--to", "sft", "--out", "plain"]) == 0
    assert "were not used" in Path("plain/README.md").read_text()
    assert run(["export", str(graded_run), "--to", "sft", "--model-labels", "--out", "out"]) == 64
    message = capsys.readouterr().err
    assert "Anthropic's terms" in message
    assert "--accept-licence claude" in message
    acceptance = re.findall(r"--accept-licence claude[-\w]*", message)[0].split()
    assert run(["export", str(graded_run), "--to", "sft", "--model-labels", *acceptance, "--out", "out"]) == 0
    assert "claude (model)" in Path("out/README.md").read_text()
