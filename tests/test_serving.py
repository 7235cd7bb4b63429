"""Servers of qaeval's own: the command, why one died, that none is left, and several in turns, without a GPU."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from command import Typed, qaeval
from qaeval.cli import run
from qaeval.errors import DataError, EndpointError, Interrupted, UsageError
from qaeval.evals.find import data_root
from qaeval.records import PREEMPTIONS, RUNNING, WAITING
from qaeval.registry.config import ModelSpec, Serving, load_config
from qaeval.registry.model import Lora
from qaeval.run.hosting import ServerManager, in_turns, lanes, runs_apart
from qaeval.serving.client import HttpAnswer, Server
from qaeval.serving.conductor import Conductor, Start
from qaeval.serving.diagnosis import diagnose, progress
from qaeval.serving.load import LoadWatcher, is_idle
from qaeval.serving.memory import estimate_memory, fit_together
from qaeval.serving.metrics import Scraper, read_metrics
from qaeval.serving.server import (
    VllmServer,
    check_arguments,
    environment,
    free_port,
    known_options,
    options_of,
    require_chat_template,
    serve_command,
)
from replay.server import LoopbackServer

HERE = Path(__file__).parent
LOGS = HERE / "replay" / "vllm-logs"
OPTIONS = options_of((HERE / "replay" / "vllm-0.32.0" / "serve-options.txt").read_text())
QAEVAL = str(Path(sys.executable).with_name("qaeval"))
FAKE = (sys.executable, str(HERE / "fake_vllm.py"))
ENV = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
}


def spec(model: str, name: str = "one", **fields: object) -> ModelSpec:
    return ModelSpec(name=name, hf_id=f"/models/{model}", **fields)  # type: ignore[arg-type]


def server_of(model: str, folder: Path) -> VllmServer:
    port = free_port()
    argv = serve_command(spec(model), command=FAKE, port=port)
    full = environment(spec(model), Serving(), ENV, api_key=None)
    return VllmServer("one", argv, full, port=port, log=folder / "logs" / "one.log")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = (
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] if Path("/proc").exists() else ""
    )
    return state != "Z"


def gone(pid: int, within_s: float = 5.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if not is_running(pid):
            return True
        time.sleep(0.05)
    return False


# ------------------------------------------------------------------------------ the command


def test_the_command_has_everything_that_the_entry_says() -> None:
    entry = ModelSpec(
        name="mistral", hf_id="org/model", revision="a" * 40, vllm_args=("--max-model-len=4096", "--seed=0")
    )
    assert serve_command(entry, command=("vllm",), port=8123) == [
        *("vllm", "serve", "org/model", "--revision", "a" * 40, "--served-model-name", "mistral"),
        *("--max-model-len=4096", "--seed=0", "--host", "127.0.0.1", "--port", "8123"),
    ]


def test_adapters_are_served_beside_their_base() -> None:
    tuned = spec("base", "tuned", lora=Lora(base="one", path="/adapters/tuned", rank=32))
    argv = serve_command(tuned.hosting, command=("vllm",), port=1, adapters=[tuned])
    assert argv[argv.index("--served-model-name") + 1] == "one"
    assert argv[argv.index("--enable-lora") :][:5] == [
        *("--enable-lora", "--max-lora-rank", "32", "--lora-modules", "tuned=/adapters/tuned")
    ]


def test_an_entry_that_says_nothing_to_serve_is_refused() -> None:
    with pytest.raises(UsageError, match="no hf_id"):
        serve_command(ModelSpec(name="x", url="http://127.0.0.1:1/v1"), command=("vllm",), port=1)


def test_the_shipped_registry_has_no_argument_that_vllm_does_not_know() -> None:
    registry = load_config(HERE.parent / "qaeval.yaml")
    servers = [
        model for model in (*registry.models.values(), *registry.judges.values()) if model.kind == "server"
    ]
    assert len(servers) >= 8
    for model in servers:
        check_arguments(serve_command(model, command=("vllm",), port=1), OPTIONS)


@pytest.mark.parametrize(
    ("files", "arguments", "is_refused"),
    [
        ({"tokenizer_config.json": "{}"}, (), True),
        ({"tokenizer_config.json": '{"chat_template": null}'}, ("--max-model-len=8",), True),
        ({"tokenizer_config.json": '{"chat_template": "{{ messages }}"}'}, (), False),
        ({"tokenizer_config.json": "{}", "chat_template.jinja": "x"}, (), False),
        ({"tokenizer_config.json": "{}", "chat_template.json": "{}"}, (), False),
        ({"tokenizer_config.json": "{}", "chat_templates": ""}, (), False),
        ({"tokenizer_config.json": "{}", "template.jinja": "x"}, (), True),
        ({"tokenizer_config.json": "{}"}, ("--chat-template", "x.jinja"), False),
        ({"tokenizer_config.json": "not JSON"}, (), False),
        ({}, (), False),
    ],
)
def test_a_folder_without_a_chat_template_is_refused_before_it_is_served(
    tmp_path: Path, files: dict[str, str], arguments: tuple[str, ...], is_refused: bool
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    spec = ModelSpec(name="m", hf_id=str(tmp_path), vllm_args=arguments)
    with pytest.raises(UsageError, match="chat") if is_refused else nullcontext():
        require_chat_template(spec)


def test_an_unknown_argument_is_an_error_with_the_closest_one() -> None:
    with pytest.raises(UsageError, match=r"--max-model-length.*Did you mean '--max-model-len'"):
        check_arguments(["vllm", "serve", "m", "--max-model-length=1"], OPTIONS)
    check_arguments(["--max_model_len=1", "--structured-outputs-config.backend=xgrammar"], OPTIONS)


@pytest.mark.slow
async def test_the_installed_version_is_asked_for_its_options() -> None:
    assert await known_options(FAKE, ENV) == OPTIONS
    with pytest.raises(UsageError, match="cannot be started"):
        await known_options(("/no/such/vllm",), ENV)
    with pytest.raises(UsageError, match="serve --help=all` failed"):
        await known_options((sys.executable, "-c", "raise SystemExit(3)"), ENV)


async def test_a_request_to_stop_ends_the_question_for_options() -> None:
    command = (sys.executable, "-c", "import time; time.sleep(30)")
    asked = time.monotonic()
    with pytest.raises(Interrupted, match="reading the arguments"):
        await known_options(command, ENV, stopped=lambda: True)
    assert time.monotonic() - asked < 10


@pytest.mark.slow
@pytest.mark.usefixtures("no_servers_left")
def test_ctrl_c_of_a_terminal_while_options_are_read_is_a_stop(tmp_path: Path) -> None:
    # a terminal sends the signal to the whole process group
    slow = tmp_path / "vllm.py"
    slow.write_text(
        f"import time; print('asked', file=open({str(tmp_path / 'asked')!r}, 'w')); time.sleep(30)"
    )
    registry = registry_file(tmp_path, mistral=entry("ok"))
    text = json.loads(registry.read_text())
    text["serving"]["command"] = [sys.executable, str(slow)]
    registry.write_text(json.dumps(text))
    command = [QAEVAL, "sweep", "mistral", "--config", str(registry), "--out", str(tmp_path / "s")]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 30
    while not (tmp_path / "asked").exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert "cannot be used" not in error


def test_no_server_reports_anything_and_a_folder_needs_no_hub(tmp_path: Path) -> None:
    serving = Serving(env={"OMP_NUM_THREADS": "1"})
    folder = ModelSpec(name="x", hf_id=str(tmp_path))
    env = environment(folder, serving, {"PATH": "/bin"}, api_key="sk-1")
    assert (env["VLLM_NO_USAGE_STATS"], env["DO_NOT_TRACK"], env["HF_HUB_OFFLINE"]) == ("1", "1", "1")
    assert (env["VLLM_API_KEY"], env["OMP_NUM_THREADS"], env["PATH"]) == ("sk-1", "1", "/bin")
    assert "HF_HUB_OFFLINE" not in environment(spec("org/model"), serving, {}, api_key=None)


# ------------------------------------------------------------------------------ why one died


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("missing-weights", "no such weights"),
        ("weights-not-here", "not on this machine"),
        ("unknown-argument", "does not know one of its arguments"),
        ("cache-too-small", "does not hold one sequence"),
        ("quantisation", "quantisation"),
        ("unknown-quantisation", "quantisation"),
        ("port-in-use", "port is in use"),
        ("split-prompt-on-cpu", "--no-enable-chunked-prefill"),
    ],
)
def test_a_recorded_death_is_explained(log: str, expected: str) -> None:
    assert expected in diagnose((LOGS / f"{log}.log").read_text())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # texts of public issue threads of vLLM and huggingface_hub
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB.", "ran out of memory"),
        (
            "ValueError: Free memory on device (3.2/22.0 GiB) on startup is less than desired GPU memory utilization (0.9, 19.8)",
            "other processes hold",
        ),
        (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
            "no memory for the KV",
        ),
        (
            "OSError: You are trying to access a gated repo.\n401 Client Error. Access to model x/y is restricted.",
            "gated",
        ),
        (
            "The quantization method awq is not supported for the current GPU. Minimum capability: 75. Current capability: 70.",
            "quantisation",
        ),
        ("RuntimeError: Failed to infer device type", "finds no GPU"),
        ("all is well", ""),
    ],
)
def test_a_death_that_needs_a_gpu_is_explained(line: str, expected: str) -> None:
    cause = diagnose(line)
    assert expected in cause
    assert bool(cause) == bool(expected)


def test_the_first_cause_is_told_not_what_it_dragged_behind_it() -> None:
    log = "CUDA out of memory\n...\nOSError: [Errno 98] Address already in use"
    assert "ran out of memory" in diagnose(log)


def test_progress_is_the_last_step() -> None:
    log = "Starting to load model x"
    assert progress(log) == "loading weights"
    log += "\nLoading safetensors checkpoint shards:  60% Completed | 3/5 [00:01<00:01]"
    assert progress(log) == "loading weights 3/5"
    assert progress("nothing yet") == ""


# ------------------------------------------------------------------------------ a process, and none left


@pytest.mark.slow
async def test_a_server_is_started_told_of_and_gone(tmp_path: Path) -> None:
    server = server_of("slow", tmp_path)
    steps: list[str] = []
    seconds = await server.start(deadline_s=30, on_step=steps.append)
    assert server.is_alive
    assert seconds > 1
    assert "loading weights 2/3" in steps
    await server.stop()
    assert not server.is_alive
    log = server.log.read_text()
    assert log.startswith("$ ")
    assert "ENV ['VLLM_NO_USAGE_STATS', 'DO_NOT_TRACK']" in log


@pytest.mark.slow
async def test_a_server_that_dies_is_explained_with_the_end_of_its_log(tmp_path: Path) -> None:
    server = server_of("oom", tmp_path)
    with pytest.raises(EndpointError, match="out of memory") as caught:
        await server.start(deadline_s=30)
    assert "  | torch.OutOfMemoryError" in str(caught.value)
    assert not server.is_alive


async def test_a_server_that_is_too_slow_is_stopped(tmp_path: Path) -> None:
    server = server_of("slow", tmp_path)
    with pytest.raises(EndpointError, match="not ready in time"):
        await server.start(deadline_s=0.5)
    assert not server.is_alive


async def test_asking_to_stop_ends_a_start(tmp_path: Path) -> None:
    server = server_of("slow", tmp_path)
    with pytest.raises(Interrupted):
        await server.start(deadline_s=30, stopped=lambda: True)
    assert not server.is_alive


async def test_a_server_takes_its_children_with_it(tmp_path: Path) -> None:
    server = server_of("child", tmp_path)
    await server.start(deadline_s=30)
    child = int(server.log.read_text().partition("CHILD ")[2].split()[0])
    assert is_running(child)
    await server.stop()
    assert gone(child)


@pytest.mark.slow
async def test_a_server_that_ignores_the_request_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qaeval.serving.server.GRACE_S", 0.5)
    server = server_of("stubborn", tmp_path)
    await server.start(deadline_s=30)
    await server.stop()
    assert not server.is_alive


@pytest.mark.slow
def test_kill_9_of_qaeval_leaves_no_server(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from test_serving import server_of\n"
        "async def main():\n"
        "    await server_of('child', Path(sys.argv[2])).start(deadline_s=30)\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(HERE), str(tmp_path)], env=ENV, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    child = int((tmp_path / "logs" / "one.log").read_text().partition("CHILD ")[2].split()[0])
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(child)


@pytest.mark.slow
def test_a_second_signal_does_not_end_the_supervisor_before_its_server() -> None:
    server = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(os.getpid(), flush=True); time.sleep(5)"
    )
    command = [sys.executable, "-m", "qaeval.serving.supervisor", "0.6", sys.executable, "-c", server]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert gone(pid, within_s=0.5)
    process.communicate()


# ------------------------------------------------------------------------------ in turns


@pytest.mark.slow
async def test_one_server_is_alive_at_a_time_and_a_needed_one_is_kept(tmp_path: Path) -> None:
    conductor = Conductor(Serving(command=FAKE), env=ENV, logs=tmp_path)
    first_model, second_model = spec("ok", "one"), spec("ok", "other")
    first = await conductor.serve(first_model)
    assert await conductor.serve(first_model) == first
    second = await conductor.serve(second_model)
    assert second != first
    assert [start.model for start in conductor.starts] == ["one", "other"]
    assert conductor.why_dead() == ""
    await conductor.close()
    await conductor.close()


async def test_cancelled_work_on_a_hosted_server_is_cleaned_up_before_the_caller_resumes(
    tmp_path: Path,
) -> None:
    servers = ServerManager(Serving(command=FAKE), logs=tmp_path, on_message=print, stopped=lambda: False)
    started, steps = asyncio.Event(), []

    async def work() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)  # as a session that is written
            steps.append("written")

    running = asyncio.ensure_future(servers.run_while_alive(spec("ok"), work()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert steps == ["written"]


class Conducting:
    """Starts no server: dies when it is told to, and says why."""

    def __init__(self, *, is_available: bool = True) -> None:
        self.is_available = is_available
        self.starts: list[Start] = []
        self.dead = asyncio.Event()
        self.served: list[tuple[str, list[str], str | None]] = []

    def why_dead(self) -> str:
        return "out of memory" if self.dead.is_set() else ""

    async def death(self) -> None:
        await self.dead.wait()


def managed(tmp_path: Path, **options: bool) -> tuple[ServerManager, Conducting]:
    servers = ServerManager(Serving(command=FAKE), logs=tmp_path, on_message=print, stopped=lambda: False)
    conductor = Conducting(**options)
    servers._conductor = conductor  # type: ignore[assignment]
    return servers, conductor


async def test_work_ends_with_the_server_that_it_needs_and_the_reason_comes_back(tmp_path: Path) -> None:
    servers, conductor = managed(tmp_path)
    cancelled = asyncio.Event()

    async def work() -> None:
        conductor.dead.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    assert await servers.run_while_alive(spec("ok"), work()) == "out of memory"
    assert cancelled.is_set()


async def test_work_that_is_done_while_the_server_lives_has_no_reason(tmp_path: Path) -> None:
    servers, _ = managed(tmp_path)
    steps = []

    async def work() -> None:
        steps.append(1)

    assert await servers.run_while_alive(spec("ok"), work()) == ""
    running = ModelSpec(name="running", url="http://127.0.0.1:1/v1")
    assert await servers.run_while_alive(running, work()) == ""
    assert steps == [1, 1]


@pytest.mark.parametrize("is_dead", [True, False])
async def test_an_error_of_the_work_is_the_servers_death_or_its_own(tmp_path: Path, is_dead: bool) -> None:
    servers, conductor = managed(tmp_path)

    async def work() -> None:
        if is_dead:
            conductor.dead.set()
        raise EndpointError("no answer")

    if is_dead:
        assert await servers.run_while_alive(spec("ok"), work()) == "out of memory"
    else:
        with pytest.raises(EndpointError, match="no answer"):
            await servers.run_while_alive(spec("ok"), work())


async def test_an_error_of_the_program_is_raised_whatever_the_server_does(tmp_path: Path) -> None:
    servers, _ = managed(tmp_path)

    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await servers.run_while_alive(spec("ok"), work())


async def test_a_model_to_serve_needs_the_program_that_serves(tmp_path: Path) -> None:
    servers, _ = managed(tmp_path, is_available=False)
    with pytest.raises(UsageError, match="one"):
        await servers.resolve(spec("ok"))
    with pytest.raises(UsageError, match="one"):
        await servers.check([spec("ok")])


async def test_a_hosted_model_is_found_at_its_server_and_its_start_counts_once(tmp_path: Path) -> None:
    with LoopbackServer(["one", "tuned"]) as loopback:
        servers, conductor = managed(tmp_path)

        async def serve(model: ModelSpec, *, adapters: list[ModelSpec], api_key: str | None) -> str:
            conductor.served.append((model.name, [adapter.name for adapter in adapters], api_key))
            conductor.starts.append(Start(model.name, "", 40.0))
            return loopback.url

        conductor.serve = serve  # type: ignore[attr-defined]
        conductor.gpus = lambda n: tuple(map(str, range(n)))  # type: ignore[attr-defined]
        beside, elsewhere = (
            ModelSpec(name=name, lora=Lora(base=base, path="/a", rank=8))
            for name, base in (("tuned", "one"), ("foreign", "another"))
        )
        servers.adapters = (beside, elsewhere)
        servers.carry_load(spec("ok"), 2.5)
        first = await servers.resolve(spec("ok"))
        second = await servers.resolve(spec("ok"))
    assert conductor.served == [("one", ["tuned"], None)] * 2
    assert (first.load_s, second.load_s) == (42.5, 40.0)
    assert first.spec.url == loopback.url


async def test_a_server_is_idle_when_it_says_that_nothing_runs_or_waits(unused_tcp_port: int) -> None:
    def server(url: str) -> Server:
        return Server(url, None, timeout_s=5.0, addresses=("127.0.0.1",))

    with LoopbackServer() as loopback:
        assert await is_idle(server(loopback.url))
        loopback.in_flight = 1
        assert not await is_idle(server(loopback.url))
    assert not await is_idle(server(f"http://127.0.0.1:{unused_tcp_port}/v1"))


class Replying:
    """A server with given answers to each reading; the last one stays."""

    def __init__(self, *preemptions: float | None) -> None:
        self._preemptions = list(preemptions)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def ask(self, path: str, **_: object) -> HttpAnswer:
        assert path == "/metrics"
        n = self._preemptions.pop(0) if len(self._preemptions) > 1 else self._preemptions[0]
        if n is None:
            return HttpAnswer(0)
        values = {RUNNING: 2.0, WAITING: 0.0, PREEMPTIONS: n}
        return HttpAnswer(200, "".join(f"{name} {value}\n" for name, value in values.items()).encode())


async def test_a_replica_that_misses_a_reading_has_preempted_nothing() -> None:
    readings: list[dict[str, float]] = []
    is_done = asyncio.Event()

    def note(values: Mapping[str, float]) -> None:
        readings.append(dict(values))
        if len(readings) == 4:
            is_done.set()

    replicas: Any = [Replying(100, 100, 100, 101), Replying(None, 50, None, 50)]
    async with LoadWatcher(replicas, note, lambda: True):
        await is_done.wait()
    assert [values[PREEMPTIONS] for values in readings[:4]] == [0, 0, 0, 1]
    assert [values[RUNNING] for values in readings[:4]] == [2, 4, 2, 4]


async def test_a_server_is_asked_without_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_tcp_port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with LoopbackServer() as loopback:
        async with Server(loopback.url, "a-key", timeout_s=5.0, addresses=("127.0.0.1",)) as server:
            assert (await server.ask("/health", root=True)).status == 200
            body = {"model": "tiny-gen", "messages": [{"role": "user", "content": "q"}]}
            assert (await server.ask("/chat/completions", body)).status == 200
    (headers,) = loopback.headers
    assert (headers["Accept-Encoding"], headers["Authorization"]) == ("identity", "Bearer a-key")


async def test_readings_are_taken_at_the_start_from_time_to_time_and_at_the_end() -> None:
    readings: list[tuple[float, Mapping[str, float]]] = []
    often = asyncio.Event()

    def emit(seconds: float, values: Mapping[str, float], _series: tuple[str, ...]) -> None:
        readings.append((seconds, values))
        if len(readings) == 3:
            often.set()

    with LoopbackServer() as loopback:
        server = Server(loopback.url, None, timeout_s=5.0, addresses=("127.0.0.1",))
        async with Scraper([server], emit, every_s=0.001):
            assert len(readings) == 1
            await often.wait()
            loopback.in_flight = 7
        assert readings[-1][1][RUNNING] == 7
        n = len(readings)
        await asyncio.sleep(0.01)
        assert len(readings) == n
        with pytest.raises(ZeroDivisionError):
            async with Scraper([server], emit, every_s=60):
                raise ZeroDivisionError
        assert len(readings) == n + 1  # none at the end of work that failed
    assert [seconds for seconds, _ in readings[:n]] == sorted(seconds for seconds, _ in readings[:n])


async def test_metrics_of_replicas_are_added_up_also_when_one_is_started_again() -> None:
    readings: list[Mapping[str, float]] = []
    is_done = asyncio.Event()

    def emit(_seconds: float, values: Mapping[str, float], _missing: tuple[str, ...]) -> None:
        readings.append(values)
        if len(readings) == 4:
            is_done.set()

    # the second one is away in the third reading, and counts from 0 after it
    replicas: Any = [Replying(100, 110, 120, 130), Replying(500, 520, None, 5)]
    async with Scraper(replicas, emit, every_s=0.001):
        await is_done.wait()
    counts = [values.get(PREEMPTIONS) for values in readings[:4]]
    assert counts == [600, 630, None, 630 + 20 + 5]
    assert [values.get(RUNNING) for values in readings[:4]] == [4, 4, None, 4]


def test_models_are_ordered_so_that_each_is_loaded_once() -> None:
    base, second = spec("a", "base"), spec("b", "other")
    tuned = spec("a", "tuned", lora=Lora(base="base", path="/a", rank=8))
    running = ModelSpec(name="running", url="http://127.0.0.1:1/v1")
    assert [model.name for model in in_turns([base, second, tuned, running])] == [
        "running",
        "base",
        "tuned",
        "other",
    ]


def up(name: str, *urls: str, gpus: tuple[str, ...] = ()) -> ModelSpec:
    """A model on running servers."""
    return ModelSpec(
        name=name, url=f"http://{urls[0]}/v1", replicas=[f"http://{url}/v1" for url in urls[1:]], gpus=gpus
    )


@pytest.mark.parametrize(
    ("specs", "groups"),
    [
        ([up("a", "10.0.0.1:1"), up("b", "10.0.0.1:2")], ["a", "b"]),
        ([up("a", "10.0.0.1:1"), up("b", "10.0.0.1:1")], ["a b"]),
        # c shares a server with each of the others
        ([up("a", "h:1"), up("b", "h:2"), up("c", "h:3", "h:2", "h:1"), up("d", "h:4")], ["a b c", "d"]),
        ([up("a", "127.0.0.1:1", gpus=("0",)), up("b", "127.0.0.1:2", gpus=("0", "1"))], ["a b"]),
        ([up("a", "127.0.0.1:1", gpus=("0",)), up("b", "127.0.0.1:2", gpus=("1",))], ["a", "b"]),
        # qaeval starts one server at a time, and knows no GPU of another one on this machine
        ([spec("a", "x"), up("c", "10.0.0.1:1"), spec("a", "y")], ["c", "x y"]),
        ([spec("a", "x"), up("c", "localhost:1")], ["c x"]),
        ([spec("a", "x", gpus=("1",)), up("c", "localhost:1", gpus=("0",))], ["c", "x"]),
        ([ModelSpec(name="inside", kind="embedded"), up("a", "h:1")], ["a"]),
    ],
)
def test_models_that_share_a_server_or_a_gpu_take_turns_and_others_do_not(
    specs: list[ModelSpec], groups: list[str]
) -> None:
    assert [" ".join(model.name for model in group) for group in lanes(specs)] == groups


def test_a_judge_on_a_replica_of_a_candidate_does_not_work_beside_it() -> None:
    candidate = up("a", "h:1", "h:2")
    assert not runs_apart([candidate], up("judge", "h:2"))
    assert runs_apart([candidate], up("judge", "h:3"))


def registry_file(folder: Path, **models: dict[str, object]) -> Path:
    path = folder / "registry.yaml"
    judge = {"hf_id": "/models/ok", "revision": None, "vllm_args": []}
    # the folder stands in the servers' command lines, so that those of this test are known among others
    path.write_text(
        json.dumps(
            {
                "serving": {"command": list(FAKE), "env": {"PYTHONPATH": str(HERE)}},
                "vllm_args": [],
                "models": models,
                "judges": {"compass-judger": judge},
            }
        ).replace("/models/", f"{folder}/models/")
    )
    return path


def compare(folder: Path, registry: Path, *arguments: str, n: int = 12) -> Typed:
    command = ["compare", *arguments, "--config", registry, "--n", n, "--out", folder / "run"]
    command += ["--judge", "compass-judger", "--allow-same-family"]
    return qaeval(*command, "--concurrency", "4", cwd=folder)


@pytest.fixture
def no_servers_left(tmp_path: Path) -> Iterator[None]:
    yield
    pattern = f"fake_vllm.py serve {tmp_path}/"
    processes = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    assert processes.stdout == ""


def entry(model: str, **fields: object) -> dict[str, object]:
    return {"hf_id": f"/models/{model}", "revision": None, "vllm_args": [], "system_role": "keep", **fields}


@pytest.mark.usefixtures("no_servers_left")
@pytest.mark.slow
def test_compare_starts_candidates_and_judge_in_turns(tmp_path: Path) -> None:
    registry = registry_file(
        tmp_path,
        mistral=entry("ok"),
        qwen=entry("ok"),
        tuned={"lora": {"base": "qwen", "path": "/adapters/tuned", "rank": 8}},
    )
    done = compare(tmp_path, registry, "tuned", "mistral", "qwen")
    assert done.returncode == 0, done.stderr
    order = [line.split()[0] for line in done.stderr.splitlines() if "is ready after" in line]
    assert order == ["qwen", "mistral", "compass-judger"]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [candidate["n_valid"] for candidate in report["candidates"]] == [36, 36, 36]
    assert sorted(path.name for path in (tmp_path / "run" / "logs").iterdir()) == [
        *("compass-judger.log", "mistral.log", "qwen.log")
    ]


@pytest.mark.usefixtures("no_servers_left")
@pytest.mark.slow
def test_a_server_that_is_started_and_one_that_is_up_work_side_by_side_on_other_gpus(tmp_path: Path) -> None:
    # the server that is up answers its probe while the other one starts
    with LoopbackServer(["qwen"], latency_s=1.0) as running:
        registry = registry_file(
            tmp_path, mistral=entry("ok", gpus=["1"]), qwen={"url": running.url, "gpus": ["0"]}
        )
        command = ["generate", "mistral", "qwen", "--config", registry, "--n", "4", "--out", tmp_path / "run"]
        done = qaeval(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "sessions.jsonl").read_text().splitlines()
    sessions = {row["model"]: row for row in map(json.loads, lines)}
    assert {name: (row["n_tasks"], row["alongside"]) for name, row in sessions.items()} == {
        "mistral": (4, True),
        "qwen": (4, True),
    }
    assert sessions["mistral"]["load_s"] > 0
    assert sessions["qwen"]["load_s"] == 0


@pytest.mark.usefixtures("no_servers_left")
@pytest.mark.slow
def test_candidates_that_differ_in_their_prompt_share_a_server(tmp_path: Path) -> None:
    text = (data_root() / "evals" / "qa_pairs" / "prompt.md").read_text()
    for name in ("one.md", "two.md"):
        (tmp_path / name).write_text(text.replace("# user", f"# user\n\n{name}"))
    registry = registry_file(
        tmp_path, mistral=entry("ok"), tuned={"lora": {"base": "mistral", "path": "/adapters/tuned"}}
    )
    done = compare(tmp_path, registry, "mistral", "tuned", "--prompts", "one.md,two.md", n=2)
    assert done.returncode == 0, done.stderr
    ready = [line.split()[0] for line in done.stderr.splitlines() if "is ready" in line]
    assert ready == ["mistral", "compass-judger"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "generations.jsonl").read_text().splitlines()]
    candidates = {f"{model}@{prompt}" for model in ("mistral", "tuned") for prompt in ("one", "two")}
    assert {row["candidate"] for row in rows} == candidates
    assert sorted(path.name for path in (tmp_path / "run" / "logs").iterdir()) == [
        *("compass-judger.log", "mistral.log")
    ]


@pytest.mark.usefixtures("no_servers_left")
@pytest.mark.slow
def test_a_server_that_crashes_is_started_again_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    registry = registry_file(tmp_path, mistral=entry("crashes-after-6"), qwen=entry("ok"))
    done = compare(tmp_path, registry, "mistral", "qwen")
    assert done.returncode == 0, done.stderr
    ready = [line.split()[0] for line in done.stderr.splitlines() if "is ready" in line]
    assert ready == ["mistral", "mistral", "qwen", "compass-judger"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "generations.jsonl").read_text().splitlines()]
    good = [row["task_id"] for row in rows if "items" in row]
    assert len(good) == len(set(good)) == 24
    assert len(rows) == 24  # what was in flight when the server died is no failure


@pytest.mark.slow
@pytest.mark.usefixtures("no_servers_left")
def test_a_server_that_always_crashes_is_given_up_and_the_run_can_go_on(tmp_path: Path) -> None:
    registry = registry_file(tmp_path, mistral=entry("always-crashes-after-4"), qwen=entry("ok"))
    done = compare(tmp_path, registry, "mistral", "qwen", n=40)
    assert done.returncode == 69
    assert "started 3 times" in done.stderr
    assert "--resume" in done.stderr


@pytest.mark.usefixtures("no_servers_left")
@pytest.mark.slow
def test_a_finished_model_is_not_loaded_again(tmp_path: Path) -> None:
    registry = registry_file(tmp_path, mistral=entry("ok"), qwen=entry("ok"))
    assert compare(tmp_path, registry, "mistral", "qwen").returncode == 0
    (tmp_path / "run" / "grades.jsonl").unlink()
    again = compare(tmp_path, registry, "mistral", "qwen", "--resume")
    assert again.returncode == 0, again.stderr
    ready = [line.split()[0] for line in again.stderr.splitlines() if "is ready" in line]
    assert ready == ["compass-judger"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_servers_left")
def test_an_unknown_argument_ends_before_anything_is_loaded(tmp_path: Path) -> None:
    registry = registry_file(
        tmp_path, mistral=entry("ok", vllm_args=["--max-model-length=1"]), qwen=entry("ok")
    )
    done = compare(tmp_path, registry, "mistral", "qwen")
    assert done.returncode == 64
    assert "mistral: " in done.stderr
    assert "--max-model-length" in done.stderr
    assert "starting" not in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("no_servers_left")
def test_the_server_of_the_probe_stays_up_and_its_start_counts_in_the_run(tmp_path: Path) -> None:
    registry = registry_file(tmp_path, mistral=entry("ok"), qwen=entry("ok"))
    chunks = [{"id": str(n), "text": f"Card {n} has {n + 2} GB of memory."} for n in range(50)]
    (tmp_path / "chunks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chunks))
    words = [
        "--config",
        str(registry),
        "--chunks",
        str(tmp_path / "chunks.jsonl"),
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        [QAEVAL, "generate", "mistral", "qwen", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.index("mistral is ready") < done.stderr.index("estimate: 100 requests")
    assert done.stderr.count("is ready") == 2
    sessions = [json.loads(line) for line in (tmp_path / "run" / "sessions.jsonl").read_text().splitlines()]
    assert [row["model"] for row in sessions] == ["mistral", "qwen"]
    assert all(row["load_s"] > 0 for row in sessions)


@pytest.mark.slow
@pytest.mark.usefixtures("no_servers_left")
def test_ctrl_c_while_a_server_runs_leaves_none(tmp_path: Path) -> None:
    registry = registry_file(tmp_path, mistral=entry("slow"), qwen=entry("ok"))
    command = [QAEVAL, "compare", "mistral", "qwen", "--config", str(registry)]
    command += ["--judge", "compass-judger", "--allow-same-family"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "run")], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "loading weights 1/3" in line:
            process.send_signal(signal.SIGINT)
            break
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["logs"]


# ------------------------------------------------------------------------------ registry and metrics


def test_an_adapter_takes_what_it_leaves_out_from_its_base(tmp_path: Path) -> None:
    path = registry_file(
        tmp_path,
        qwen=entry("ok"),
        tuned={"lora": {"base": "qwen", "path": "/a", "rank": 8}, "served_name": "t1"},
    )
    tuned = load_config(HERE.parent / "qaeval.yaml", path).candidate("tuned")
    assert (tuned.name, tuned.served, tuned.is_hosted) == ("tuned", "t1", True)
    assert tuned.hf_id == f"{tmp_path}/models/ok"
    assert tuned.hosting.served == "qwen"
    assert tuned.identity()["lora"] == {"base": "qwen", "path": "/a", "rank": 8}


def test_an_adapter_follows_its_base_to_another_server(tmp_path: Path) -> None:
    path = registry_file(tmp_path, qwen=entry("ok"), tuned={"lora": {"base": "qwen", "path": "/a"}})
    registry = load_config(HERE.parent / "qaeval.yaml", path).with_endpoints(
        {"qwen": "http://127.0.0.1:8000"}
    )
    assert registry.candidate("tuned").url == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("lora", "expected"),
    [({"base": "qven", "path": "/a"}, "Did you mean 'qwen'"), ({"base": "qwen", "path": "a=b"}, "path")],
)
def test_a_wrong_adapter_is_explained(tmp_path: Path, lora: dict[str, str], expected: str) -> None:
    path = registry_file(tmp_path, qwen=entry("ok"), tuned={"lora": lora})
    with pytest.raises(DataError, match=expected):
        load_config(HERE.parent / "qaeval.yaml", path)


def test_metrics_are_summed_over_engines_and_missing_ones_are_named() -> None:
    text = (
        "# TYPE vllm:num_requests_running gauge\n"
        'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_running{engine="1"} 4.0\n'
        "# TYPE vllm:kv_cache_usage_perc gauge\n"
        'vllm:kv_cache_usage_perc{engine="0"} 0.25\nvllm:kv_cache_usage_perc{engine="1"} 0.5\n'
        "# TYPE vllm:request_success counter\n"
        'vllm:request_success_total{engine="0",finished_reason="stop"} 2.0\n'
        'vllm:request_success_total{engine="0",finished_reason="length"} 1.0\n'
    )
    values, missing = read_metrics(text)
    assert values["vllm:num_requests_running"] == 7
    assert values["vllm:kv_cache_usage_perc"] == 0.5
    assert values["vllm:request_success_total stop"] == 2
    assert "vllm:num_preemptions_total" in missing
    assert "vllm:num_preemptions_total" not in values


def test_death_is_waited_for_for_ever_without_a_server(tmp_path: Path) -> None:
    async def wait() -> None:
        conductor = Conductor(Serving(command=FAKE), env=ENV, logs=tmp_path)
        await asyncio.wait_for(conductor.death(), 0.1)

    with pytest.raises(TimeoutError):
        asyncio.run(wait())


# ------------------------------------------------------------------------------ memory of one GPU


def test_the_memory_of_one_gpu_is_counted_by_hand() -> None:
    # 0.9 x 21.96 - 3.9 - 1 = 14.864 GiB; at 128 KiB a token: 14.864 x 8192 = 121,765
    registry = load_config(HERE.parent / "qaeval.yaml")
    estimate = estimate_memory(registry.candidate("mistral-v0.3"), 21.96)
    assert estimate is not None
    assert (estimate.kv_cache, estimate.tokens, estimate.fits) == (pytest.approx(14.864), 121_765, True)
    assert estimate.arithmetic.startswith("0.9 x 21.96")
    assert estimate.arithmetic.endswith("sequences of 16,384")


def test_a_model_that_is_too_large_does_not_fit() -> None:
    large = ModelSpec(
        name="large",
        hf_id="x/y",
        weights_gib=18.0,
        kv_kib_per_token=256,
        vllm_args=("--gpu-memory-utilization=0.9", "--max-model-len=8192"),
    )
    estimate = estimate_memory(large, 21.96)
    assert estimate is not None
    assert (estimate.tokens, estimate.fits) == (3129, False)  # 0.764 GiB
    assert estimate_memory(ModelSpec(name="unknown", hf_id="x/y"), 21.96) is None


def test_gpus_that_share_a_model_hold_a_part_of_it_each() -> None:
    # 0.9 x 22 - 27 / 2 - 1 = 5.3 GiB on each GPU; both hold 10.6 GiB of 160 KiB a token: 69,468
    split = ModelSpec(
        name="split",
        hf_id="x/y",
        weights_gib=27.0,
        kv_kib_per_token=160,
        vllm_args=(
            *("--gpu-memory-utilization=0.9", "--max-model-len=8192"),
            *("--tensor-parallel-size=2", "--data-parallel-size=2"),
        ),
    )
    estimate = estimate_memory(split, 22)
    assert estimate is not None
    assert (estimate.tokens, estimate.fits, split.n_gpus) == (69_468, True, 4)
    assert estimate.arithmetic.startswith("0.9 x 22 - 27 / 2 - 1 = 5.30 GiB on each of 2 GPUs")


@pytest.mark.slow
@pytest.mark.parametrize("is_dead", [True, False])
def test_doctor_asks_every_replica(is_dead: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with LoopbackServer(["mistral"]) as first, LoopbackServer(["another"]) as wrong:
        second = "http://127.0.0.1:9/v1" if is_dead else wrong.url
        argv = ["doctor", "mistral", "--judge", "embedded-lexical", "--n", "3"]
        assert run([*argv, "--endpoint", f"mistral={first.url},{second}"]) == 69
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  mistral:"))
    assert f"{first.url}: serves mistral; {second}: " in line


def test_two_models_fit_at_once_when_weights_and_one_sequence_of_each_do() -> None:
    registry = load_config(HERE.parent / "qaeval.yaml")
    mistral, judge = (
        estimate_memory(model, 21.96)
        for model in (registry.candidate("mistral-v0.3"), registry.judge("compass-judger"))
    )
    assert mistral is not None
    assert judge is not None
    # 3.9 + 1 + 2.0 (16,384 x 128 KiB) + 8.1 + 1 + 0.875 = 16.9 of 19.8 GiB
    assert fit_together(mistral, judge)
    assert not fit_together(judge, replace(judge, weights=10.0))


def test_doctor_shows_the_arithmetic(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "mistral-v0.3", "--n", "3", "--plan"]) == 0
    out = capsys.readouterr().out
    assert "GPU of 21.96 GiB" in out
    assert "= 14.86 GiB" in out
    assert "mistral-v0.3 and compass-judger fit" in out


@pytest.mark.slow
def test_doctor_says_that_qaeval_starts_what_has_no_url(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = registry_file(tmp_path, mistral=entry("ok"), qwen=entry("ok"))
    command = ["doctor", "mistral", "qwen", "--n", "3", "--config", str(registry)]
    assert run([*command, "--judge", "compass-judger", "--allow-same-family"]) == 0
    out = capsys.readouterr().out
    assert out.count(f"qaeval starts it with {FAKE[0]}") == 3
    assert "qaeval compare mistral qwen" in out
