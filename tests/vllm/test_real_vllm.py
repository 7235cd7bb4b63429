"""Tests against a real vLLM on the CPU with tiny random models: protocol, server lifecycle, complete comparison."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from real_vllm import ARGUMENTS, ROOT, SERVING, SETTINGS, VLLM, spec, started

from qaeval.chat.http import HttpChat
from qaeval.chat.protocol import ChatError, ChatRequest, Message, Sampling
from qaeval.errors import EndpointError, UsageError
from qaeval.evals.definition import load_eval
from qaeval.evals.rubric import load_rubric
from qaeval.records import Chunk, Failure, Generation, Grade, Item, Sample
from qaeval.registry.config import load_config
from qaeval.run import generate as generating
from qaeval.run import grade as grading
from qaeval.serving.conductor import Conductor
from qaeval.serving.metrics import read_metrics
from qaeval.serving.probe import probe
from qaeval.serving.server import (
    check_arguments,
    known_options,
    serve_command,
)
from replay.server import LoopbackServer

pytestmark = pytest.mark.timeout(900)

QAEVAL = str(Path(sys.executable).with_name("qaeval"))
SAMPLES = [
    Sample.of(Chunk(chunk_id=f"c{n}", text=f"Card {n} has {n + 2} GB of memory.", stratum="gpus"))
    for n in range(4)
]


def test_recorded_architectures_match_the_installed_vllm() -> None:
    if not VLLM.exists():
        pytest.skip(f"no vLLM at {VLLM}")
    program = (
        "import vllm; from vllm.model_executor.models.registry import ModelRegistry; "
        "print('vllm', vllm.__version__.partition('+')[0], *sorted(ModelRegistry.get_supported_archs()))"
    )
    python = str(VLLM.with_name("python"))
    installed = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout
    recorded = (ROOT / "tests" / "data" / "vllm-architectures.txt").read_text()
    assert installed.strip().splitlines()[-1].split() == recorded.split()


@pytest.fixture
async def generator(pair: tuple[str, str]) -> AsyncIterator[HttpChat]:
    async with HttpChat(base_url=pair[0], addresses=("127.0.0.1",), model="tiny-gen", context=4096) as model:
        yield model


@pytest.fixture
async def judge(pair: tuple[str, str]) -> AsyncIterator[HttpChat]:
    async with HttpChat(
        base_url=pair[1], addresses=("127.0.0.1",), model="tiny-judge", system_role="merge", context=8192
    ) as model:
        yield model


# ------------------------------------------------------------------------------ server capabilities


async def test_the_probe_finds_the_generators_capabilities(pair: tuple[str, str]) -> None:
    facts = await probe(pair[0], "tiny-gen", addresses=("127.0.0.1",))
    assert (facts.version, facts.max_model_len, facts.adapters) == ("0.32.0", 4096, ("tuned",))
    assert (facts.system_role, facts.structured_output, facts.max_logprobs) == (True, True, 20)
    assert (facts.tokenizer, facts.metrics) == (True, True)


async def test_the_probe_finds_a_template_that_refuses_a_system_message(pair: tuple[str, str]) -> None:
    facts = await probe(pair[1], "tiny-judge", addresses=("127.0.0.1",))
    assert (facts.system_role, facts.structured_output) == (False, True)


async def test_an_adapter_has_the_context_length_of_its_base(pair: tuple[str, str]) -> None:
    assert (await probe(pair[0], "tuned", addresses=("127.0.0.1",))).max_model_len == 4096


async def test_an_unserved_model_is_refused_with_the_closest_name(pair: tuple[str, str]) -> None:
    with pytest.raises(EndpointError, match="Did you mean 'tiny-gen'"):
        await probe(pair[0], "tiny-gem", addresses=("127.0.0.1",))


@pytest.mark.usefixtures("models")
async def test_the_registrys_arguments_are_known_to_the_installed_version() -> None:
    options = await known_options(SERVING.command, os.environ)
    registry = load_config(ROOT / "qaeval.yaml")
    for entry in (*registry.models.values(), *registry.judges.values()):
        if entry.kind == "server":
            check_arguments(serve_command(entry, command=("vllm",), port=1), options)
    with pytest.raises(UsageError, match="does not know --max-model-length"):
        check_arguments(["--max-model-length=3"], options)


# ------------------------------------------------------------------------------ generation and grading


async def test_the_schema_yields_exactly_three_pairs(generator: HttpChat) -> None:
    # the samples have few words, for which fewer pairs would be allowed
    definition = load_eval(ROOT / "evals" / "qa_pairs").model_copy(update={"fewer_allowed": 0})
    sampling = Sampling(**definition.sampling.model_dump())
    rows = [
        await generating.generate_one(generator, task, definition, sampling, lenient=False)
        for task in generating.tasks("tiny-gen", SAMPLES)
    ]
    generations = [row for row in rows if isinstance(row, Generation)]
    assert generations, rows
    assert all(len(row.items) == 3 for row in generations)
    assert all(row.usage and row.usage.completion_tokens > 0 for row in generations)
    assert all(row.reason in {"truncated", "missing_field"} for row in rows if isinstance(row, Failure))


@pytest.mark.parametrize("mode", ["reason_first", "letter"])
async def test_grades_are_letters_of_the_scale_with_their_distribution(judge: HttpChat, mode: Any) -> None:
    rubric = load_rubric(ROOT / "rubrics" / "qa_pair_abc.yaml")
    rows = []
    for number, sample in enumerate(SAMPLES):
        item = Item.of(
            sample.sample_id, 0, type="factual", question=f"How much has card {number}?", answer="3 GB."
        )
        generation = Generation(
            task_id=str(number),
            candidate="x",
            sample_id=sample.sample_id,
            items=(item,),
            text="",
            latency_s=0.0,
        )
        (task,) = grading.tasks("tiny-judge", sample, [generation])
        sampling = Sampling(max_tokens=512)
        rows.append(
            await grading.grade_one(
                judge, task, grading.Instructions.of(rubric, sampling, mode), lenient=False
            )
        )
    grades = [row for row in rows if isinstance(row, Grade)]
    assert grades
    assert {row.letter for row in grades} <= {"A", "B", "C"}
    for row in grades:
        assert row.probabilities is not None
        assert set(row.probabilities) <= {"A", "B", "C"}
        assert sum(row.probabilities.values()) == pytest.approx(1.0, abs=0.02)


async def test_an_adapter_replies_differently_from_its_base(pair: tuple[str, str]) -> None:
    request = ChatRequest(messages=(Message("user", "Say hello."),), sampling=Sampling(max_tokens=24))
    texts = []
    for name in ("tiny-gen", "tuned"):
        async with HttpChat(base_url=pair[0], addresses=("127.0.0.1",), model=name) as model:
            texts.append((await model.complete(request)).text)
    assert texts[0] != texts[1]


async def test_a_prompt_that_exceeds_the_context_is_not_sent(
    pair: tuple[str, str], generator: HttpChat
) -> None:
    async def count_prompts() -> float:
        async with (
            aiohttp.ClientSession() as session,
            session.get(pair[0].replace("/v1", "/metrics")) as reply,
        ):
            return read_metrics(await reply.text())[0]["vllm:time_to_first_token_seconds_count"]

    n_before = await count_prompts()
    request = ChatRequest(messages=(Message("user", "memory " * 3900),), sampling=Sampling(max_tokens=1024))
    with pytest.raises(ChatError, match="not sent") as caught:
        await generator.complete(request)
    assert caught.value.reason == "context_overflow"
    assert await count_prompts() == n_before
    async with HttpChat(
        base_url=pair[0], addresses=("127.0.0.1",), model="tiny-gen"
    ) as model_without_context:
        long_request = ChatRequest(messages=(Message("user", "memory " * 9000),))
        with pytest.raises(ChatError) as overflow:
            await model_without_context.complete(long_request)
    assert overflow.value.reason == "context_overflow"


# ------------------------------------------------------------------------------ the loopback server against vLLM


def shape(value: Any) -> Any:
    """Reduce JSON to its keys and the kinds of its values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def differences(real: Any, loopback: Any, at: str = "") -> list[str]:
    """List keys that only the loopback reply has, and values of another type; missing keys do not matter."""
    if isinstance(real, dict) and isinstance(loopback, dict):
        return [
            line
            for key, value in loopback.items()
            for line in (
                [f"{at}.{key} is invented"]
                if key not in real
                else differences(real[key], value, f"{at}.{key}")
            )
        ]
    if isinstance(real, list) and isinstance(loopback, list):
        return differences(real[0], loopback[0], f"{at}[]") if real and loopback else []
    empty = {real, loopback} & {"NoneType"} if isinstance(real, str) and isinstance(loopback, str) else set()
    return [] if real == loopback or empty else [f"{at}: {real} there, {loopback} here"]


async def fetch_replies(url: str, model: str) -> dict[str, Any]:
    """Send the requests that qaeval sends, and return the shapes of the replies."""
    root = url.removesuffix("/v1")
    messages = [{"role": "user", "content": "Say hello."}]
    body_defaults = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 2}
    schema = {"type": "object", "properties": {"word": {"enum": ["yes"]}}, "required": ["word"]}
    posts = {
        "chat": (f"{url}/chat/completions", body_defaults),
        "logprobs": (f"{url}/chat/completions", {**body_defaults, "logprobs": True, "top_logprobs": 3}),
        "schema": (
            f"{url}/chat/completions",
            {
                **body_defaults,
                "max_tokens": 32,
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
            },
        ),
        "unknown model": (f"{url}/chat/completions", {**body_defaults, "model": "nope"}),
        "too long": (
            f"{url}/chat/completions",
            {**body_defaults, "messages": [{"role": "user", "content": "a b " * 20_000}]},
        ),
        "too many logprobs": (
            f"{url}/chat/completions",
            {**body_defaults, "logprobs": True, "top_logprobs": 21},
        ),
        "tokenize": (f"{root}/tokenize", {"model": model, "messages": messages}),
    }
    replies: dict[str, Any] = {}
    async with aiohttp.ClientSession() as session:
        for name, path in {"models": f"{url}/models", "version": f"{root}/version"}.items():
            async with session.get(path) as reply:
                replies[name] = {"status": str(reply.status), "body": shape(await reply.json())}
        for name, (path, body) in posts.items():
            async with session.post(path, json=body) as reply:
                replies[name] = {"status": str(reply.status), "body": shape(await reply.json())}
    return replies


async def test_the_loopback_server_replies_like_vllm(pair: tuple[str, str]) -> None:
    real = await fetch_replies(pair[0], "tiny-gen")
    with LoopbackServer({"tiny-gen": 4096}) as server:
        loopback = await fetch_replies(server.url, "tiny-gen")
    assert {name: reply["status"] for name, reply in loopback.items()} == {
        name: reply["status"] for name, reply in real.items()
    }
    assert [
        line for name in real for line in differences(real[name]["body"], loopback[name]["body"], name)
    ] == []


# ------------------------------------------------------------------------------ server lifecycle


def servers_running() -> list[int]:
    processes = subprocess.run(["pgrep", "-f", f"{VLLM} serve"], capture_output=True, text=True, check=False)
    supervisors = subprocess.run(
        ["pgrep", "-f", "qaeval.serving.supervisor"], capture_output=True, text=True, check=False
    )
    return sorted(set(map(int, processes.stdout.split())) - set(map(int, supervisors.stdout.split())))


@pytest.fixture
def running_before() -> Iterator[list[int]]:
    processes = servers_running()
    yield processes
    deadline = time.monotonic() + 10
    while servers_running() != processes and time.monotonic() < deadline:
        time.sleep(0.1)
    assert servers_running() == processes


def registry_file(folder: Path, models: Path, **entries: Any) -> Path:
    entry = {"revision": None, "vllm_args": ["--max-model-len=8192"], "sampling": {"max_tokens": 512}}
    path = folder / "registry.yaml"
    judges = {"compass-judger": {"hf_id": str(models / "mistral"), **entry}}
    candidates = {
        "mistral": {"hf_id": str(models / "mistral"), "system_role": "keep", **entry},
        "qwen": {"hf_id": str(models / "chatml"), **entry},
        **entries,
    }
    serving = {"command": [str(VLLM)], "env": SETTINGS, "startup_s": 180}
    path.write_text(
        json.dumps({"serving": serving, "vllm_args": list(ARGUMENTS), "models": candidates, "judges": judges})
    )
    return path


def compare(registry: Path, out: Path, *arguments: str, n: int = 12) -> "subprocess.Popen[str]":
    command = [QAEVAL, "compare", *arguments, "--config", str(registry), "--n", str(n), "--out", str(out)]
    command += ["--judge", "compass-judger", "--allow-same-family"]
    return subprocess.Popen(
        [*command, "--concurrency", "4"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


async def test_a_missing_weights_folder_is_explained(models: Path, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="no such weights"):
        await started(spec(models / "nothing", "lost"), tmp_path)


async def test_a_kv_cache_that_is_too_small_is_explained(models: Path, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="--max-model-len"):
        await started(
            spec(models / "chatml", "small", "--kv-cache-memory-bytes=1M", "--max-model-len=8192"), tmp_path
        )


async def test_an_unknown_argument_is_found_before_the_start(models: Path, tmp_path: Path) -> None:
    conductor = Conductor(SERVING, env=os.environ, logs=tmp_path)
    with pytest.raises(UsageError, match=r"tiny: .*--max-model-length"):
        await conductor.check([spec(models / "chatml", "tiny", "--max-model-length=1")])


def test_compare_serves_candidates_and_judge_in_turn(
    models: Path, tmp_path: Path, running_before: list[int]
) -> None:
    tuned = {"lora": {"base": "qwen", "path": str(models / "adapter"), "rank": 8}}
    registry = registry_file(tmp_path, models, tuned=tuned)
    process = compare(registry, tmp_path / "run", "mistral", "qwen", "tuned")
    peak = 0
    while process.poll() is None:
        peak = max(peak, len(set(servers_running()) - set(running_before)))
        time.sleep(0.2)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert peak == 1
    assert [line.split()[0] for line in err.splitlines() if "is ready after" in line] == [
        *("mistral", "qwen", "compass-judger")
    ]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert len(report["candidates"]) == 3
    for candidate in report["candidates"]:
        assert candidate["n_expected"] == 36
        assert candidate["n_graded"] + candidate["ungraded"]["n"] + candidate["failed"]["n"] == 36
        assert candidate["timing"]["server"]["ttft_s"] > 0
        assert candidate["timing"]["server"]["ttft_p50_s"] > 0
        assert candidate["timing"]["server"]["inter_token_p95_s"] > 0
    assert "report.html" in out
    sessions = [json.loads(line) for line in (tmp_path / "run" / "sessions.jsonl").read_text().splitlines()]
    assert sessions[0]["endpoint"]["system_role"] is False


def test_a_killed_server_is_restarted_and_no_request_is_repeated(
    models: Path, tmp_path: Path, running_before: list[int]
) -> None:
    process = compare(registry_file(tmp_path, models), tmp_path / "run", "mistral", "qwen", n=16)
    path = tmp_path / "run" / "generations.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and len(path.read_text().splitlines()) >= 5:
            break
        time.sleep(0.02)
    (server_pid,) = set(servers_running()) - set(running_before)
    os.kill(server_pid, signal.SIGKILL)
    _, err = process.communicate(timeout=500)  # three servers start, 40 s each on a quiet machine
    assert process.returncode == 0, err
    assert err.count("is ready after") == 4
    task_ids = [json.loads(line)["task_id"] for line in path.read_text().splitlines()]
    assert len(task_ids) == len(set(task_ids)) == 32


def test_ctrl_c_leaves_no_process(models: Path, tmp_path: Path, running_before: list[int]) -> None:
    process = compare(registry_file(tmp_path, models), tmp_path / "run", "mistral", "qwen", n=40)
    assert process.stderr is not None
    for line in process.stderr:
        if "is ready after" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "qaeval compare mistral qwen" in err
    assert servers_running() == running_before
