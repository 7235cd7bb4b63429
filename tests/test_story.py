"""The published comparison that qaeval is made against, repeated on small files: served models, pairs made elsewhere, two judges,
labels from a column, and a better prompt."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command import Typed, qaeval
from replay.server import LoopbackServer

ROOT = Path(__file__).parents[1]
N = 17
"""Samples: 17 chunks of 3 pairs are 51 items, of which one is an error in the imported file: 98 % valid."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("story")
    with LoopbackServer(models=("llama", "gemma", "first", "second")) as server:
        (folder / "qaeval.yaml").write_text(
            json.dumps(
                {
                    "models": {
                        name: {"url": server.url, "served_name": name, "family": name}
                        for name in ("llama", "gemma")
                    },
                    "judges": {
                        name: {"url": server.url, "served_name": name, "family": name}
                        for name in ("first", "second")
                    },
                }
            )
        )
        typed("generate", "llama", "gemma", "--n", N, "--out", "served", cwd=folder)
        write_pairs(folder)
        typed(
            *(
                "import",
                "hosted.jsonl",
                "--candidate",
                "hosted",
                "--join",
                "served",
                "--label-field",
                "anna=anna",
            ),
            *("--out", "all"),
            cwd=folder,
        )
        for judge in ("first", "second"):
            typed("grade", "all", "--judge", judge, "--allow-same-family", cwd=folder)
        yield folder


def typed(*words: object, cwd: Path, code: int = 0) -> Typed:
    result = qaeval(*words, cwd=cwd)
    assert result.returncode == code, result.stderr + result.stdout
    return result


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_pairs(folder: Path) -> None:
    """Write the third candidate's file: one pair a line, one of them an error, with the letters of a rater in a column."""
    lines = []
    for number, sample in enumerate(rows(folder / "served" / "samples.jsonl")):
        chunk = sample["chunk"]
        for position, kind in enumerate(("factual", "conceptual", "comparison")):
            pair: dict[str, Any] = {"chunk_id": chunk["chunk_id"], "type": kind}
            if (number, position) == (0, 2):
                lines.append({**pair, "error": "the reply was cut off"})
                continue
            words = chunk["text"].split()
            start = (number + 7 * position) % max(1, len(words) - 20)
            pair |= {
                "question": f"Which words stand at position {start} of the passage on {chunk['title'] or chunk['chunk_id']}?",
                "answer": " ".join(words[start : start + 12]),
                "anna": "ABC"[(number + position) % 3],
            }
            lines.append(pair)
    (folder / "hosted.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_three_candidates_have_the_denominator_of_all_that_was_asked(folder: Path) -> None:
    typed("report", "all", cwd=folder)
    report = json.loads((folder / "all" / "report.json").read_text())
    candidates = {candidate["facts"]["name"]: candidate for candidate in report["candidates"]}
    assert set(candidates) == {"llama", "gemma", "hosted"}
    assert {candidate["n_expected"] for candidate in candidates.values()} == {3 * N}
    assert candidates["hosted"]["n_valid"] == 3 * N - 1
    assert candidates["hosted"]["failed_by_reason"] == {"reported": 1}
    assert len(report["differences"]) == 3
    assert [judge["judge"] for judge in report["judges"]] == ["second"]
    by_second = typed("report", "all", "--decide-by", "second", "--format", "json", cwd=folder)
    assert json.loads(by_second.stdout)["judge"]["facts"]["name"] == "second"


@pytest.mark.parametrize("judge", ["first", "second"])
def test_each_judge_is_compared_with_the_labels_of_the_column(folder: Path, judge: str) -> None:
    result = typed("agreement", "all", "--judge", judge, "--json", cwd=folder)
    raters = {rater["rater"]: rater for rater in json.loads(result.stdout)["agreement"]}
    letters = {row["item_id"]: row["letter"] for row in grades(folder, judge) if "letter" in row}
    labels = [row for path in (folder / "all" / "labels").glob("*.jsonl") for row in rows(path)]
    assert len(labels) == 3 * N - 1
    same = [letters[label["item_id"]] == label["letter"] for label in labels if label["item_id"] in letters]
    assert raters["anna"]["coefficients"]["observed"]["value"] == pytest.approx(sum(same) / len(same))


def grades(folder: Path, judge: str) -> list[dict[str, Any]]:
    return rows(folder / "all" / ("grades.jsonl" if judge == "first" else f"grades/{judge}.jsonl"))


def test_the_published_kappa_is_impossible(folder: Path) -> None:
    claim = ("agreement", "--table", "111,50,10:167,3,1", "--kappa", "0.30", "--json")
    result = qaeval(*claim, cwd=folder)
    check = json.loads(result.stdout)
    assert check["is_possible"] is False
    assert check["bounds"]["kappa_max"] < 0.1


def test_a_better_prompt_is_gated_against_the_run(folder: Path) -> None:
    prompt = (ROOT / "evals" / "qa_pairs" / "prompt.md").read_text()
    (folder / "better.md").write_text(prompt.replace("Write three", "Take your time, then write three"))
    (folder / "gate.yaml").write_text(json.dumps({"rules": [{"quantity": "usable_rate", "margin": 0.3}]}))
    typed("generate", "llama", "--prompts", "better.md", "--n", N, "--out", "better", cwd=folder)
    typed("grade", "better", "--judge", "first", cwd=folder)
    result = qaeval("gate", "better", "--baseline", "all", "--policy", "gate.yaml", cwd=folder)
    report = json.loads((folder / "better" / "gate.json").read_text())
    assert (
        result.returncode
        == {"pass": 0, "regression": 1, "inconclusive": 2, "untrusted": 3}[report["outcome"]]
    ), result.stderr
    assert [(change["candidate"], change["against"]) for change in report["prompts"]] == [
        ("llama@better", "llama")
    ]
    assert {rule["against"] for rule in report["rules"]} == {"llama"}
