"""`qaeval sweep` and `vllm bench serve` report the same times and throughput for the same server and prompts."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from real_vllm import VLLM, spec, started

from figures import Bar
from mock.server import Mock
from qaeval.cli import run
from qaeval.records import TimedRequest
from qaeval.sweep.model import Sweep

pytestmark = pytest.mark.timeout(900)

CLIENT = Path(__file__).with_name("bench_client.py")
TOKENS = 64
MODEL = "tiny-gen"
QUANTITIES = ("ttft_p50", "tpot_p50", "itl_mean", "requests_per_s", "tokens_per_s")


class Bench:
    """`vllm bench serve` in a separate process, started once because its imports take longer than a measurement."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self._folder, self._tokenizer = folder, tokenizer
        offline = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        self._log = (folder / "bench.log").open("w")
        self._process = subprocess.Popen(
            [str(VLLM.with_name("python")), str(CLIENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **offline},
        )

    def close(self) -> None:
        self._process.communicate(timeout=300)
        self._log.close()

    def measure(self, url: str, n_requests: int, in_flight: int, round_number: int) -> dict[str, float]:
        options: dict[str, object] = {
            "backend": "openai-chat",
            "base-url": url.removesuffix("/v1"),
            "endpoint": "/v1/chat/completions",
            "model": MODEL,
            "tokenizer": self._tokenizer,
            "dataset-name": "custom",
            "dataset-path": self._folder / "prompts.jsonl",
            "custom-output-len": TOKENS,
            "num-prompts": n_requests,
            "max-concurrency": in_flight,
            "num-warmups": in_flight,
            "temperature": 0,
            "extra-body": json.dumps({"seed": 0, "cache_salt": f"bench {round_number}"}),
            "result-dir": self._folder,
            "result-filename": f"bench-{round_number}.json",
        }
        arguments = [argument for name, value in options.items() for argument in (f"--{name}", str(value))]
        arguments += ["--skip-chat-template", "--disable-shuffle", "--disable-tqdm", "--save-result"]
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n", (self._folder / "bench.log").read_text()[-2000:]
        result = json.loads((self._folder / f"bench-{round_number}.json").read_text())
        assert result["completed"] == n_requests
        return {
            "ttft_p50": result["median_ttft_ms"] / 1000,
            "tpot_p50": result["median_tpot_ms"] / 1000,
            "itl_mean": result["mean_itl_ms"] / 1000,
            "requests_per_s": result["request_throughput"],
            "tokens_per_s": result["output_throughput"],
            "n_tokens": result["total_output_tokens"],
        }


def run_sweep(url: str, folder: Path, n_requests: int, in_flight: int, round_number: int) -> dict[str, float]:
    """Measure with qaeval; throughput is over the whole time with requests in flight, as in vLLM."""
    out = folder / f"sweep-{round_number}"
    options: dict[str, object] = {
        "config": folder / "registry.yaml",
        "endpoint": f"{MODEL}={url}",
        "eval": folder / "eval",
        "concurrency": in_flight,
        "requests": n_requests,
        "repeats": 1,
        "out": out,
    }
    assert (
        run(
            [
                "sweep",
                MODEL,
                *(argument for name, value in options.items() for argument in (f"--{name}", str(value))),
            ]
        )
        == 0
    )
    (level,) = Sweep.model_validate_json((out / "sweep.json").read_text()).levels
    lines = (out / "requests.jsonl").read_text().splitlines()
    rows = [row for row in map(TimedRequest.model_validate_json, lines) if not row.warm_up]
    seconds = max(row.end_s for row in rows) - min(row.start_s for row in rows)
    n_tokens = sum(row.usage.completion_tokens for row in rows if row.usage)
    assert level.n_failed == 0
    return {
        "ttft_p50": level.ttft.p50 or 0,
        "tpot_p50": level.tpot.p50 or 0,
        "itl_mean": level.itl.mean or 0,
        "requests_per_s": n_requests / seconds,
        "tokens_per_s": n_tokens / seconds,
        "n_tokens": n_tokens,
    }


def prepare(folder: Path, n_prompts: int) -> Path:
    """Write an eval whose prompts are its chunks, the same prompts for vLLM's client, and a registry."""
    texts = [" ".join([f"Card {number} has {number + 2} GB of memory."] * 8) for number in range(n_prompts)]
    eval_folder = folder / "eval"
    eval_folder.mkdir()
    chunks = [{"chunk_id": f"c{number:03}", "text": text} for number, text in enumerate(texts)]
    (eval_folder / "chunks.jsonl").write_text("".join(json.dumps(chunk) + "\n" for chunk in chunks))
    (eval_folder / "prompt.md").write_text("# user\n\n$chunk\n")
    definition = {"name": "plain", "title": "Plain prompts", "rubric": "qa_pair_abc", "enforce_schema": False}
    sampling = {"temperature": 0.0, "max_tokens": TOKENS, "seed": 0}
    (eval_folder / "eval.yaml").write_text(json.dumps({**definition, "sampling": sampling}))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    entry = {"url": "http://127.0.0.1:9/v1", "structured": "off"}
    (folder / "registry.yaml").write_text(json.dumps({"models": {MODEL: entry}}))
    return folder


@pytest.fixture
def bench(tmp_path: Path, models: Path) -> Iterator[Bench]:
    setup = Bench(tmp_path, models / "chatml")
    yield setup
    setup.close()


def median_ratios(rounds: list[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Return the median qaeval / vLLM ratios over the rounds; the first round is a warm-up."""
    for index, measurements in enumerate(rounds):
        print(index, measurements)  # noqa: T201 - shown where the test fails
    assert all(
        measurements["qaeval"]["n_tokens"] == measurements["vllm"]["n_tokens"] for measurements in rounds
    )
    return {
        name: median(measurements["qaeval"][name] / measurements["vllm"][name] for measurements in rounds[1:])
        for name in QUANTITIES
    }


@pytest.mark.nightly
def test_both_tools_agree_within_5_percent_on_a_server_with_steady_times(
    bench: Bench, tmp_path: Path
) -> None:
    folder, n_requests, in_flight = prepare(tmp_path, 40), 40, 4
    rounds: list[dict[str, Any]] = []
    with Mock(model=MODEL, tokens=TOKENS, ttft_ms=300, gap_ms=15) as mock:
        for round_number in range(4):  # the tools alternate in who starts
            vllm_result = (
                bench.measure(mock.url, n_requests, in_flight, round_number) if round_number % 2 else None
            )
            qaeval_result = run_sweep(mock.url, folder, n_requests, in_flight, round_number)
            rounds.append(
                {
                    "qaeval": qaeval_result,
                    "vllm": vllm_result or bench.measure(mock.url, n_requests, in_flight, round_number),
                }
            )
    ratios = median_ratios(rounds)
    print(ratios)  # noqa: T201
    assert ratios == dict.fromkeys(QUANTITIES, pytest.approx(1, abs=0.05))


def test_both_tools_count_tokens_alike_on_a_real_server(
    bench: Bench,
    tmp_path: Path,
    models: Path,
    bar: Bar,
) -> None:
    # both at the same time, two requests in flight each. A tiny model takes 4 ms per token, about as long as
    # a busy machine takes to wake a client: token counts are equal, times agree only in order of magnitude
    folder, n_requests, in_flight = prepare(tmp_path, 100), 100, 2
    rounds: list[dict[str, Any]] = []
    with asyncio.Runner() as loop, ThreadPoolExecutor(1) as executor:
        server = loop.run(started(spec(models / "chatml", MODEL, "--max-model-len=4096"), folder))
        try:
            for round_number in range(4):
                vllm_future = executor.submit(bench.measure, server.url, n_requests, in_flight, round_number)
                qaeval_result = run_sweep(server.url, folder, n_requests, in_flight, round_number)
                rounds.append({"qaeval": qaeval_result, "vllm": vllm_future.result()})
        finally:
            loop.run(server.stop())
    for name, ratio in median_ratios(rounds).items():
        print(name, ratio)  # noqa: T201
        bar(f"{name}, of vLLM's or of ours", max(ratio, 1 / ratio), 2)
