"""Untrusted text in every output: no control character, mark of direction or tag reaches a reader's program."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command import qaeval
from qaeval.cli.terminal import say, say_json
from qaeval.comparison.csv import escape_formula
from qaeval.gate.messages import plain, safe
from qaeval.report.markdown import escape, sentence
from qaeval.testing import make_run
from qaeval.text.visible import UNSEEN, visible

EVIL = "a\x1b[2J\x07\x00b\u202ec\u2066d\U000e0041ef\x9bg\ud83d\ufeff"


def test_every_unseen_character_becomes_visible_and_others_are_kept() -> None:
    assert visible(EVIL) == "a␛[2J␇␀b[U+202E]c[U+2066]d[U+E0041]ef[U+009B]g[U+D83D][U+FEFF]"
    assert visible("Zeile\n\tß · κ ✓ 👩\u200d🔬 a\r\nb") == "Zeile\n\tß · κ ✓ 👩\u200d🔬 a\nb"


@pytest.mark.parametrize("write", [visible, escape, sentence, plain, safe, escape_formula])
def test_no_writer_lets_an_unseen_character_through(write: object) -> None:
    assert callable(write)
    assert not UNSEEN.search(write(EVIL))


@pytest.mark.parametrize("cell", [" =1", "\u00a0=1", "＝1", "＋1", "－1", "＠x", "  ＝1"])
def test_blank_led_and_full_width_formulas_get_an_apostrophe(cell: str) -> None:
    assert escape_formula(cell) == f"'{cell}"


def test_json_on_the_terminal_is_the_same_value_without_unseen_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = {"name": EVIL.replace("\ud83d", ""), "note": "ß 👩"}
    say_json(value)
    say_json(json.dumps(value))
    say(EVIL, error=True)
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [value, value]
    assert not UNSEEN.search(out.replace("\n", ""))
    assert not UNSEEN.search(err.replace("\n", ""))


@pytest.mark.slow
def test_no_view_of_a_run_with_hostile_texts_has_an_unseen_character(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"alpha": ["AAB"] * 12, "beta": ["ABB"] * 12}).path
    for name in ("generations.jsonl", "grades.jsonl", "samples.jsonl"):
        text = (run / name).read_text()
        evil = json.dumps(EVIL.replace("\ud83d", ""))[1:-1]
        for field in ("question", "answer", "reason", "text", "title"):
            text = text.replace(f'"{field}":"', f'"{field}":"{evil}')
        (run / name).write_text(text)
    outputs = {}
    for command in (
        "report run",
        "report run --format md",
        "report run --format csv",
        "report run --json",
        "agreement run",
        "plan run",
    ):
        done = qaeval(*command.split(), cwd=tmp_path)
        outputs[command] = done.stdout + done.stderr
    for name in ("report.md", "report.html"):
        outputs[name] = (run / name).read_text()
    assert "␛" in outputs["report run --format csv"]
    assert {name: found[0] for name, text in outputs.items() if (found := UNSEEN.search(text))} == {}
    assert len(list(csv.reader(io.StringIO(outputs["report run --format csv"])))) == 73


@pytest.mark.slow
def test_a_terminal_of_another_encoding_loses_symbols_and_nothing_else(tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"alpha": ["AAB"] * 12, "beta": ["ABB"] * 12}).write_report()
    for words in (("report", "run"), ("report", "run", "--json")):
        done = subprocess.run(
            [sys.executable, "-m", "qaeval", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode("ascii")
        if "--json" in words:
            assert json.loads(text)["verdict"]
