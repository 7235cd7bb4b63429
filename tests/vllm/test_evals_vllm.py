"""The evals other than `qa_pairs` through a real vLLM: their requests are accepted, and what fails is counted with a reason."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from real_vllm import ROOT

from command import Typed, qaeval

pytestmark = pytest.mark.timeout(900)


def registry(folder: Path, urls: tuple[str, str]) -> Path:
    path = folder / "registry.yaml"
    candidates = {name: {"url": urls[0], "served_name": name} for name in ("tiny-gen", "tuned")}
    judges = {"tiny-judge": {"url": urls[1], "served_name": "tiny-judge", "sampling": {"max_tokens": 256}}}
    path.write_text(json.dumps({"models": candidates, "judges": judges}))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def compare(name: str, urls: tuple[str, str], folder: Path) -> tuple[Typed, list[dict[str, Any]]]:
    """Three samples of an eval, by two candidates and a judge; what was printed, and the rows of the replies."""
    arguments = ("tiny-gen", "tuned", "--judge", "tiny-judge", "--config", registry(folder, urls))
    typed = qaeval("compare", *arguments, "--eval", name, "--n", 3, "--out", "run", cwd=folder)
    return typed, rows(folder / "run" / "generations.jsonl")


@pytest.mark.parametrize("name", ["rag_qa", "dpo_pairs"])
def test_under_a_schema_every_eval_brings_items_and_loses_none(
    name: str,
    pair: tuple[str, str],
    tmp_path: Path,
) -> None:
    shutil.copytree(ROOT / "evals", tmp_path / "evals")
    definition = tmp_path / "evals" / name / "eval.yaml"
    definition.write_text(definition.read_text().replace("enforce_schema: false", "enforce_schema: true"))
    typed, replies = compare(name, pair, tmp_path)
    assert typed.returncode == 0, typed.stderr
    assert len(replies) == 6
    assert {row.get("reason") for row in replies} <= {None, "truncated"}
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert len(report["candidates"]) == 2
    for candidate in report["candidates"]:
        assert candidate["n_expected"] == 3
        # a random model may give three chunks the same reply
        assert candidate["n_valid"] + candidate["failed_by_reason"].get("placeholder", 0) > 0
        assert candidate["n_graded"] + candidate["ungraded"]["n"] + candidate["failed"]["n"] == 3
        assert sum(candidate["failed_by_reason"].values()) == candidate["failed"]["n"]
    assert (tmp_path / "run" / "report.html").exists()


def test_without_a_schema_every_reply_that_is_none_is_counted_with_its_reason(
    pair: tuple[str, str],
    tmp_path: Path,
) -> None:
    typed, replies = compare("rag_qa", pair, tmp_path)
    assert typed.returncode == 65, typed.stderr
    assert "no generation succeeded" in typed.stderr
    assert len(replies) == 6
    assert {row["reason"] for row in replies} <= {"truncated", "repetition", "invalid_json", "missing_field"}
    analysis = qaeval("analyse", "generation", "run", cwd=tmp_path)
    assert analysis.returncode == 0, analysis.stderr
    assert {row["reason"] for row in replies} <= set(re.findall(r"[a-z_]+", analysis.stdout))
