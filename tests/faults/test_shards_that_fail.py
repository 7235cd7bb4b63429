"""Sharded runs with killed processes: the rows equal those of a single process, without losses or duplicates.

The replies of the server depend only on the request. Requests are sent at least once, rows count once.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest

from qaeval.run.controls import N_CONTROLS
from replay.server import LoopbackServer
from sharding import KEYS, Answer, Asked, in_front_of, in_order, rows_of, s3_server

pytestmark = pytest.mark.timeout(600)

QAEVAL = str(Path(sys.executable).with_name("qaeval"))
N, SHARDS = 40, 4
PROBE = 600
"""Length of the longest probe of a server; a prompt with a chunk is longer."""
MODELS = ("mistral", "qwen", "selene")

KeepFigures = Callable[..., None]


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(MODELS, latency_s=0.1) as running:
        yield running


@pytest.fixture(scope="module")
def reference_rows(
    server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[bytes]]:
    run_path = tmp_path_factory.mktemp("whole") / "run"
    with start_shard(server, run_path, concurrency=16) as process:
        assert wait_for_end(process) == (0, "")
    return in_order(rows_of(run_path))


@pytest.fixture(params=["a folder", "an S3 store"])
def location(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Path]]:
    """Location of the shards, and the local working folder."""
    if request.param == "a folder":
        yield str(tmp_path / "shards"), tmp_path / "shards"
        return
    with s3_server() as url:
        configure_store(monkeypatch, url, tmp_path)
        yield (
            f"s3://results/{tmp_path.name}",
            tmp_path / "work",
        )  # all S3 servers of a process share their content


def configure_store(monkeypatch: pytest.MonkeyPatch, url: str, folder: Path) -> None:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": url, "QAEVAL_SHARDS": str(folder / "work")}.items():
        monkeypatch.setenv(name, value)


def start_shard(
    server: LoopbackServer, out: object, *options: str, concurrency: int = 4
) -> "subprocess.Popen[str]":
    endpoints = [f"--endpoint={name}={server.url}" for name in MODELS]
    arguments = ["--n", str(N), "--out", str(out), "--concurrency", str(concurrency), *endpoints, *options]
    command = [QAEVAL, "compare", "mistral", "qwen", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )


def wait_for_end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a process; return its exit code and, on failure, its output."""
    out, err = process.communicate(timeout=300)
    return process.returncode, "" if process.returncode == 0 else out + err


def kill(process: "subprocess.Popen[str]", work: Path, index: int, file: str, n_rows: int) -> None:
    """Kill a process with SIGKILL once its shard has `n_rows` rows in a file."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        files = work.rglob(f"shard={index:04}/attempt-*/{file}")
        if sum(path.read_bytes().count(b"\n") for path in files) >= n_rows:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def run_merge(location: str, out: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [QAEVAL, "merge", location, "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def compare_rows(
    merged_rows: dict[str, list[bytes]], expected: dict[str, list[bytes]]
) -> tuple[int, int, int]:
    """Count lost, duplicate and different rows."""

    def tasks(rows: dict[str, list[bytes]]) -> list[tuple[str, bytes]]:
        lines = [*rows["generations.jsonl"], *rows["grades.jsonl"]]
        return [(json.loads(line)["task_id"], line) for line in lines]

    actual, reference = dict(tasks(merged_rows)), dict(tasks(expected))
    n_doubled = sum(n - 1 for n in Counter(task for task, _ in tasks(merged_rows)).values())
    return (
        len(reference.keys() - actual.keys()),
        n_doubled,
        sum(actual.get(task) != row for task, row in reference.items()),
    )


def count_requests(server: LoopbackServer, start: int) -> tuple[int, int]:
    """Count distinct requests (without probes, which are short) and repeated ones."""
    requests = [json.dumps(body["messages"]) + body["model"] for body in server.requests[start:]]
    bodies = Counter(body for body in requests if len(body) > PROBE)
    return len(bodies), sum(bodies.values()) - len(bodies)


def test_two_of_four_shards_are_killed_and_restarted(
    location: tuple[str, Path],
    server: LoopbackServer,
    reference_rows: dict[str, list[bytes]],
    tmp_path: Path,
    figures: KeepFigures,
) -> None:
    shards_location, work = location
    before = len(server.requests)
    running = [
        start_shard(server, shards_location, "--shard", f"{index}/{SHARDS}") for index in range(SHARDS)
    ]
    kill(running[2], work, 2, "generations.jsonl", 6)
    kill(running[3], work, 3, "grades.jsonl", 10)
    for index in (0, 1):
        assert wait_for_end(running[index]) == (0, "")
    early_merge = run_merge(shards_location, tmp_path / "merged")
    assert (early_merge.returncode, "2/4, 3/4" in early_merge.stderr) == (65, True), early_merge.stderr
    for index in (2, 3):
        assert wait_for_end(start_shard(server, shards_location, "--shard", f"{index}/{SHARDS}")) == (0, "")
    final_merge = run_merge(shards_location, tmp_path / "merged")
    assert final_merge.returncode == 0, final_merge.stderr
    merged_rows = rows_of(tmp_path / "merged")
    result = compare_rows(merged_rows, reference_rows)
    n_requests, n_repeated = count_requests(server, before)
    figures(
        f"4 shards in {'a store' if shards_location.startswith('s3:') else 'a folder'}, 2 killed",
        2,
        len(merged_rows["grades.jsonl"]),
        *result,
    )
    assert result == (0, 0, 0)
    assert merged_rows == reference_rows
    # only requests in flight in a killed process are sent again
    assert n_requests == 2 * N + len(merged_rows["grades.jsonl"]) + N_CONTROLS
    assert n_repeated <= 2 * 2 * 4


def test_a_repeatedly_killed_shard_ends_with_the_same_rows(
    server: LoopbackServer, reference_rows: dict[str, list[bytes]], tmp_path: Path, figures: KeepFigures
) -> None:
    rng, kills = random.Random(8), 8  # noqa: S311 - when to kill
    for n_rows in sorted(rng.sample(range(1, 200), kills)):
        process = start_shard(server, tmp_path / "shards", "--shard", "0/1", concurrency=2)
        kill(process, tmp_path / "shards", 0, "grades.jsonl" if n_rows > 60 else "generations.jsonl", n_rows)
    assert wait_for_end(start_shard(server, tmp_path / "shards", "--shard", "0/1", concurrency=16)) == (0, "")
    assert len(list((tmp_path / "shards" / "shard=0000").iterdir())) == 1, "always the same attempt"
    assert run_merge(str(tmp_path / "shards"), tmp_path / "merged").returncode == 0
    merged_rows = rows_of(tmp_path / "merged")
    result = compare_rows(merged_rows, reference_rows)
    figures("a shard killed at random moments", kills, len(merged_rows["grades.jsonl"]), *result)
    assert result == (0, 0, 0)
    assert merged_rows == reference_rows


def test_two_processes_on_the_same_shard_at_once(
    location: tuple[str, Path],
    server: LoopbackServer,
    reference_rows: dict[str, list[bytes]],
    tmp_path: Path,
    figures: KeepFigures,
) -> None:
    shards_location, _ = location
    processes = [start_shard(server, shards_location, "--shard", "0/1", concurrency=16) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("40 of 40 samples" in output for output in outputs) == 1, outputs
    assert sum("another process first" in output or "nothing to do" in output for output in outputs) == 1, (
        outputs
    )
    assert run_merge(shards_location, tmp_path / "merged").returncode == 0
    merged_rows = rows_of(tmp_path / "merged")
    result = compare_rows(merged_rows, reference_rows)
    figures(
        f"two processes on one shard, {'a store' if shards_location.startswith('s3:') else 'a folder'}",
        1,
        len(merged_rows["grades.jsonl"]),
        *result,
    )
    assert merged_rows == reference_rows


def test_a_process_killed_during_its_upload(
    server: LoopbackServer,
    reference_rows: dict[str, list[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: KeepFigures,
) -> None:
    is_uploading, is_killed = Event(), Event()
    shards_location = f"s3://results/{tmp_path.name}"

    def hold(request: Asked) -> Answer | None:
        if request.method == "PUT" and "grades.jsonl" in request.path and not is_killed.is_set():
            is_uploading.set()
            is_killed.wait(120)
            return Answer.error(503, "SlowDown")
        return None

    with ExitStack() as stack:
        url = stack.enter_context(s3_server())
        proxy_url = stack.enter_context(in_front_of(url, hold))
        configure_store(monkeypatch, proxy_url, tmp_path)
        process = start_shard(server, shards_location, "--shard", "0/1", concurrency=16)
        assert is_uploading.wait(120), process.poll()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        is_killed.set()
        assert run_merge(shards_location, tmp_path / "merged").returncode == 65
        before = len(server.requests)
        assert wait_for_end(start_shard(server, shards_location, "--shard", "0/1")) == (0, "")
        assert count_requests(server, before)[0] == 0, "all of it was made before, and is only sent"
        assert run_merge(shards_location, tmp_path / "merged").returncode == 0
    merged_rows = rows_of(tmp_path / "merged")
    figures(
        "killed in the middle of an upload",
        1,
        len(merged_rows["grades.jsonl"]),
        *compare_rows(merged_rows, reference_rows),
    )
    assert merged_rows == reference_rows
