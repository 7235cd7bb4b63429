"""Output to a terminal and to a pipe."""

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


TerminalRun: TypeAlias = Callable[..., str]


@pytest.fixture(scope="module")
def run_on_terminal(tmp_path_factory: pytest.TempPathFactory) -> TerminalRun:
    """Run a comparison on a terminal, once for each environment, and return its output."""

    @cache
    def run_cached(**env: str) -> str:
        return _compare_on_terminal(tmp_path_factory.mktemp("terminal") / "run", env)

    return run_cached


def _compare_on_terminal(out: Path, env: dict[str, str]) -> str:
    terminal_fd, process_fd = pty.openpty()
    command = [QAEVAL, "compare", "embedded-lead", "embedded-salient", "--n", "12", "--out", str(out)]
    process = subprocess.Popen(
        command,
        stdout=process_fd,
        stderr=process_fd,
        stdin=process_fd,
        env={**os.environ, "TERM": "xterm-256color", "LINES": "24", **env},
    )
    os.close(process_fd)
    output = b""
    while True:
        try:
            data = os.read(terminal_fd, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        output += data
    os.close(terminal_fd)
    assert process.wait(60) == 0
    return output.decode()


@pytest.mark.slow
def test_a_terminal_gets_colour_unless_no_color_is_set(run_on_terminal: TerminalRun) -> None:
    assert COLOUR.search(run_on_terminal(COLUMNS="80"))
    assert not COLOUR.search(run_on_terminal(COLUMNS="80", NO_COLOR="1"))


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
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "\x1b" not in result.stdout + result.stderr
    assert [
        line
        for line in result.stdout.splitlines()
        if line.startswith("This is a rehearsal") and line[-1] == "."
    ]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 60])
def test_no_line_is_wider_than_the_terminal(run_on_terminal: TerminalRun, columns: int) -> None:
    output = run_on_terminal(COLUMNS=str(columns), NO_COLOR="1")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)
    final_report = text[text.rindex("embedded-lead and embedded-salient · ") :]
    lines = [line.rstrip() for line in final_report.splitlines() if "report:" not in line]
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("embedded-salient") for line in lines)
    assert "no language model was measured" in " ".join(lines)


def _capture_stdout(arguments: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Return the bytes on a stdout with an encoding that replaces characters it lacks."""
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding, errors="replace")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert run(arguments) == 0
    stream.flush()
    return buffer.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_samples_on_stdout_equal_the_file_in_any_encoding(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = tmp_path / "chunks.jsonl"
    row = {"chunk_id": "c", "text": "Prüfen Sie – bei 5 °C – den Ölstand \U0001f600 und die Pumpe."}
    chunks.write_text(json.dumps(row))
    arguments = ["sample", "--chunks", str(chunks)]
    assert run([*arguments, "--out", str(tmp_path / "samples.jsonl")]) == 0
    sample = json.loads((tmp_path / "samples.jsonl").read_bytes())
    assert row["text"] in sample.values()
    assert json.loads(_capture_stdout(arguments, encoding, monkeypatch)) == sample


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["csv", "md", "html", "json"])
def test_a_report_on_stdout_is_always_utf_8(
    format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = Path(__file__).parents[1] / "results" / "example"
    arguments = ["report", str(shutil.copytree(example, tmp_path / "run")), "--format", format_]
    printed = _capture_stdout(arguments, "utf-8", monkeypatch)
    assert not printed.isascii()
    assert _capture_stdout(arguments, "latin-1", monkeypatch) == printed
