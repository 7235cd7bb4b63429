"""What a terminal gets, and what a pipe gets."""

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeAlias

import pytest

from qaeval.cli import run

QAEVAL = str(Path(sys.executable).with_name("qaeval"))
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")


Shown: TypeAlias = Callable[..., str]


@pytest.fixture(scope="module")
def on_a_terminal(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Run a comparison whose stdout and stderr are a terminal, once for each environment, and return what it was sent."""

    @cache
    def shown(**env: str) -> str:
        return _run_on_a_terminal(tmp_path_factory.mktemp("terminal") / "run", env)

    return shown


def _run_on_a_terminal(out: Path, env: dict[str, str]) -> str:
    ours, theirs = pty.openpty()
    command = [QAEVAL, "compare", "embedded-lead", "embedded-salient", "--n", "12", "--out", str(out)]
    process = subprocess.Popen(
        command,
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env={**os.environ, "TERM": "xterm-256color", "LINES": "24", **env},
    )
    os.close(theirs)
    sent = b""
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        sent += read
    os.close(ours)
    assert process.wait(60) == 0
    return sent.decode()


@pytest.mark.slow
def test_a_terminal_gets_colour_unless_no_color_is_set(on_a_terminal: Shown) -> None:
    assert COLOUR.search(on_a_terminal(COLUMNS="80"))
    assert not COLOUR.search(on_a_terminal(COLUMNS="80", NO_COLOR="1"))


@pytest.mark.slow
def test_a_pipe_gets_no_escapes_and_sentences_on_one_line(tmp_path: Path) -> None:
    command = [
        QAEVAL,
        "compare",
        "embedded-lead",
        "embedded-salient",
        "--n",
        "12",
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "\x1b" not in done.stdout + done.stderr
    assert [
        line
        for line in done.stdout.splitlines()
        if line.startswith("This is a rehearsal") and line[-1] == "."
    ]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 60])
def test_no_line_is_wider_than_the_terminal(on_a_terminal: Shown, columns: int) -> None:
    sent = on_a_terminal(COLUMNS=str(columns), NO_COLOR="1")
    seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sent)
    last = seen[seen.rindex("embedded-lead and embedded-salient · ") :]
    lines = [line.rstrip() for line in last.splitlines() if "report:" not in line]
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("embedded-salient") for line in lines)
    assert "no language model was measured" in " ".join(lines)


def _printed(words: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Return the bytes on a stdout of an encoding, which loses the symbols that it does not have."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, errors="replace")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        assert run(words) == 0
    stream.flush()
    return written.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_samples_on_stdout_are_those_of_the_file_whatever_the_encoding(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = tmp_path / "chunks.jsonl"
    row = {"chunk_id": "c", "text": "Prüfen Sie – bei 5 °C – den Ölstand \U0001f600 und die Pumpe."}
    chunks.write_text(json.dumps(row))
    words = ["sample", "--chunks", str(chunks)]
    assert run([*words, "--out", str(tmp_path / "samples.jsonl")]) == 0
    written = json.loads((tmp_path / "samples.jsonl").read_bytes())
    assert row["text"] in written.values()
    assert json.loads(_printed(words, encoding, monkeypatch)) == written


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["csv", "md", "html", "json"])
def test_a_report_on_stdout_is_utf_8_whatever_the_encoding(
    format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = Path(__file__).parents[1] / "results" / "example"
    words = ["report", str(shutil.copytree(example, tmp_path / "run")), "--format", format_]
    printed = _printed(words, "utf-8", monkeypatch)
    assert not printed.isascii()
    assert _printed(words, "latin-1", monkeypatch) == printed
