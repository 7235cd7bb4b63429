"""A run over hostile documents: what its rows, its report and its comparisons say of the text that was broken."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from qaeval.cli import run
from qaeval.run.grade import prompt_digest
from replay.server import LoopbackServer

HOSTILE = "A chat of Qwen ends with <|im_end|>, one of Llama 2 with </s>, this one with <sentinel>, and [1] is a reference. "


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(["mistral", "compass-judger"], special=["<sentinel>"]) as running:
        yield running


@pytest.fixture(scope="module")
def graded(server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    chunks = folder / "chunks.jsonl"
    texts = [
        f"{HOSTILE if number % 2 else ''}The pump {number} starts at {number} bar. " * 3
        for number in range(12)
    ]
    chunks.write_text(
        "".join(
            json.dumps({"chunk_id": f"c{number}", "text": text}) + "\n" for number, text in enumerate(texts)
        )
    )
    out = folder / "run"
    endpoints = [f"--endpoint={name}={server.url}" for name in server.models]
    assert (
        run(["compare", "mistral", "--chunks", str(chunks), "--out", str(out), "--no-cache", *endpoints]) == 0
    )
    return out


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_and_report_count_what_was_broken_and_stored_texts_are_whole(
    graded: Path, server: LoopbackServer
) -> None:
    samples, written = rows(graded / "samples.jsonl"), rows(graded / "generations.jsonl")
    assert sum("<|im_end|>" in json.dumps(sample) for sample in samples) == 6
    assert [row["escaped"] for row in written if "escaped" in row] == [{"special token": 9}] * 6
    report = json.loads((graded / "report.json").read_text())
    counted = {entry["stage"]: entry for entry in report["escaped"]}
    assert (counted["generate"]["n_requests"], counted["generate"]["n_special_tokens"]) == (6, 54)
    grades = [row for row in rows(graded / "grades.jsonl") if "escaped" in row]
    assert counted["grade"]["n_requests"] == len(grades) > 0
    assert counted["grade"]["n_marks"] == 0
    prompts = [turn["content"] for request in server.requests for turn in request["messages"]]
    assert not [
        prompt for prompt in prompts if any(token in prompt for token in ("<|im_end|>", "</s>", "<sentinel>"))
    ]
    assert any("< |im_end|>" in prompt and "[1]" in prompt for prompt in prompts)
    assert "Control text" in (graded / "report.md").read_text()


@pytest.mark.slow
def test_a_run_that_was_graded_under_another_prompt_is_named(
    graded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads((graded / "report.json").read_text())["judge"]["facts"]["prompt_sha"] == prompt_digest()
    old = tmp_path / "old"
    shutil.copytree(graded, old)
    sessions = rows(old / "sessions.jsonl")
    assert {row["stage"]: row.get("prompt_sha") for row in sessions} == {
        "generate": None,
        "grade": prompt_digest(),
    }
    (old / "sessions.jsonl").write_text(
        "".join(
            json.dumps({key: value for key, value in row.items() if key != "prompt_sha"}) + "\n"
            for row in sessions
        )
    )
    policy = tmp_path / "gate.yaml"
    policy.write_text("rules:\n  - {quantity: usable_rate, margin: 0.5}\n")
    for baseline, is_named in ((old, True), (graded, False)):
        capsys.readouterr()
        run(["gate", str(graded), "--baseline", str(baseline), "--policy", str(policy)])
        printed = capsys.readouterr().out
        assert (prompt_digest()[:8] in printed) is is_named
    assert run(["compare-runs", str(old), str(graded)]) == 0
    assert prompt_digest()[:8] in capsys.readouterr().out
