"""A whole comparison with a small real model, served by qaeval: what such a model writes is counted and never recommended.

`make test-small-model` fetches the model, SmolLM2-135M-Instruct; tests/vllm has models of random weights besides.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_real_vllm import ROOT, SETTINGS, VLLM

from command import qaeval
from qaeval.evals.definition import load_eval

pytestmark = pytest.mark.timeout(900)

MODEL = ROOT / ".models" / "SmolLM2-135M-Instruct"
ARGUMENTS = (
    "--dtype=bfloat16",
    "--enforce-eager",
    "--distributed-executor-backend=uni",
    "--kv-cache-memory-bytes=512M",
    "--block-size=32",
    "--max-num-seqs=16",
    "--max-model-len=8192",
    "--gpu-memory-utilization=0.5",
    # vLLM 0.32 on a CPU dies when it splits the prompt of a seeded request
    "--no-enable-chunked-prefill",
    "--max-num-batched-tokens=8192",
)
SHORT_PROMPT = """# user

Text: $chunk

Write three questions that somebody who works with this could ask, and their answers from the text, as JSON.
"""


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not VLLM.exists() or not (MODEL / "config.json").exists():
        pytest.skip(f"no model at {MODEL}: `make small-model` fetches it")
    folder = tmp_path_factory.mktemp("small")
    registry = {
        "serving": {"command": [str(VLLM)], "env": {**SETTINGS, "HF_HUB_OFFLINE": "1"}, "startup_s": 300},
        "vllm_args": list(ARGUMENTS),
        "models": {"small": {"hf_id": str(MODEL), "family": "smollm", "sampling": {"max_tokens": 300}}},
        "judges": {"small-judge": {"hf_id": str(MODEL), "family": "smollm", "judge_mode": "letter"}},
    }
    (folder / "qaeval.yaml").write_text(json.dumps(registry))
    (folder / "short.md").write_text(SHORT_PROMPT)
    prompts = f"{ROOT / 'evals' / 'qa_pairs' / 'prompt.md'},short.md"
    judge = ("--judge", "small-judge", "--allow-same-family", "--yes")
    typed = qaeval("compare", "small", "--prompts", prompts, *judge, "--n", 6, "--out", "run", cwd=folder)
    assert typed.returncode == 0, typed.stderr
    return folder / "run"


def test_every_item_of_a_small_model_is_graded_or_lost_with_a_reason(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert len(report["candidates"]) == 2
    for candidate in report["candidates"]:
        assert candidate["n_graded"] + candidate["ungraded"]["n"] + candidate["failed"]["n"] == 18
        assert sum(candidate["failed_by_reason"].values()) == candidate["failed"]["n"]
        reasons = {
            "truncated",
            "placeholder",
            "wrong_item_count",
            "missing_field",
            "invalid_json",
            "interrupted",
        }
        assert set(candidate["failed_by_reason"]) <= reasons


def test_nothing_that_a_small_model_copied_from_the_prompt_is_an_item(run: Path) -> None:
    examples = load_eval(ROOT / "evals" / "qa_pairs").example_texts
    written = [item for row in rows(run / "generations.jsonl") for item in row.get("items", ())]
    assert not examples & {item[field].strip() for item in written for field in ("question", "answer")}


def test_a_small_judge_that_gives_one_letter_recommends_nobody(run: Path) -> None:
    verdict = json.loads((run / "report.json").read_text())["verdict"]
    letters = Counter(row["letter"] for row in rows(run / "grades.jsonl") if row["kind"] == "grade")
    assert verdict["condition"] != "shown"
    if letters.most_common(1)[0][1] >= 0.95 * letters.total() and letters.total() >= 30:
        assert verdict["kind"] == "none"
