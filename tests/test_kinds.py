"""What a file or folder in the wrong place is, and the command that reads it."""

from pathlib import Path

import pytest

from qaeval.files.kinds import DOCUMENTS, hint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *(
            (f"a{suffix}", " It is a document: `qaeval chunk PATH` cuts it into chunks")
            for suffix in DOCUMENTS
        ),
        *(
            (
                f"a.{suffix}",
                " It is a table: `qaeval import PATH` reads items, `qaeval agreement PATH` columns of letters",
            )
            for suffix in ("csv", "tsv", "parquet", "XLSX")
        ),
        *(
            (
                f"a.{suffix}",
                " It is a file of rows: `qaeval compare … --chunks PATH` reads chunks, `qaeval import PATH` items",
            )
            for suffix in ("jsonl", "ndjson")
        ),
        ("a.eval", " It is a log of Inspect: `qaeval import PATH` reads it"),
        ("a.zip", ""),
        ("", " It is a folder of documents: `qaeval chunk PATH` cuts them into chunks"),
        ("settings.json", " It is a run: `qaeval report PATH` reads it"),
        ("eval.yaml", " It is an eval: `qaeval compare … --eval PATH` reads it"),
        (
            "night/settings.json",
            " It is a folder of 1 run: `qaeval history PATH` reads it; the newest run is PATH/night",
        ),
        (".hidden.md", ""),
    ],
)
def test_a_path_is_described_with_the_command_that_reads_it(tmp_path: Path, name: str, message: str) -> None:
    is_folder = "/" in name or name in {"", "settings.json", "eval.yaml", ".hidden.md"}
    file = tmp_path / (name or "sub/a.md")
    file.parent.mkdir(exist_ok=True)
    file.touch()
    path = tmp_path if is_folder else file
    assert hint(path) == message.replace("PATH", str(path))


def test_a_path_that_does_not_exist_is_not_described(tmp_path: Path) -> None:
    assert hint(tmp_path / "a.md") == ""
