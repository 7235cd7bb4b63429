"""A run in four processes, some of them killed: the rows are those of one process, none lost, none twice.

The servers' replies depend on the request alone. What was asked twice is counted: requests are sent at least once, rows count once.
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
"""Letters of the longest question by which a server is looked at; a prompt with a chunk is longer."""
MODELS = ("mistral", "qwen", "selene")

Keep = Callable[..., None]


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(MODELS, latency_s=0.1) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    whole = tmp_path_factory.mktemp("whole") / "run"
    with started(server, whole, concurrency=16) as process:
        assert ended(process) == (0, "")
    return in_order(rows_of(whole))


@pytest.fixture(params=["a folder", "an S3 store"])
def location(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Path]]:
    """Where shards are kept, and the local folder in which they are made."""
    if request.param == "a folder":
        yield str(tmp_path / "shards"), tmp_path / "shards"
        return
    with s3_server() as url:
        store(monkeypatch, url, tmp_path)
        yield (
            f"s3://results/{tmp_path.name}",
            tmp_path / "work",
        )  # all servers of a process share what is in them


def store(monkeypatch: pytest.MonkeyPatch, url: str, folder: Path) -> None:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": url, "QAEVAL_SHARDS": str(folder / "work")}.items():
        monkeypatch.setenv(name, value)


def started(
    server: LoopbackServer, out: object, *options: str, concurrency: int = 4
) -> "subprocess.Popen[str]":
    endpoints = [f"--endpoint={name}={server.url}" for name in MODELS]
    arguments = ["--n", str(N), "--out", str(out), "--concurrency", str(concurrency), *endpoints, *options]
    command = [QAEVAL, "compare", "mistral", "qwen", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code, and what went wrong."""
    out, err = process.communicate(timeout=300)
    return process.returncode, "" if process.returncode == 0 else out + err


def kill(process: "subprocess.Popen[str]", work: Path, index: int, file: str, n: int) -> None:
    """Kill a process with SIGKILL when its shard has so many rows in a file."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        files = work.rglob(f"shard={index:04}/attempt-*/{file}")
        if sum(path.read_bytes().count(b"\n") for path in files) >= n:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def merged(location: str, out: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [QAEVAL, "merge", location, "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def compared(merged_rows: dict[str, list[bytes]], expected: dict[str, list[bytes]]) -> tuple[int, int, int]:
    """Rows lost, rows doubled, rows that differ."""

    def tasks(rows: dict[str, list[bytes]]) -> list[tuple[str, bytes]]:
        lines = [*rows["generations.jsonl"], *rows["grades.jsonl"]]
        return [(json.loads(line)["task_id"], line) for line in lines]

    ours, theirs = dict(tasks(merged_rows)), dict(tasks(expected))
    doubled = sum(n - 1 for n in Counter(task for task, _ in tasks(merged_rows)).values())
    return (
        len(theirs.keys() - ours.keys()),
        doubled,
        sum(ours.get(task) != row for task, row in theirs.items()),
    )


def asked(server: LoopbackServer, since: int) -> tuple[int, int]:
    """Different requests for items and letters, and how many were sent again; a probe is short."""
    sent = [json.dumps(body["messages"]) + body["model"] for body in server.requests[since:]]
    bodies = Counter(body for body in sent if len(body) > PROBE)
    return len(bodies), sum(bodies.values()) - len(bodies)


def test_four_processes_of_which_two_are_killed_and_started_again(
    location: tuple[str, Path],
    server: LoopbackServer,
    undisturbed: dict[str, list[bytes]],
    tmp_path: Path,
    figures: Keep,
) -> None:
    where, work = location
    before = len(server.requests)
    running = [started(server, where, "--shard", f"{index}/{SHARDS}") for index in range(SHARDS)]
    kill(running[2], work, 2, "generations.jsonl", 6)
    kill(running[3], work, 3, "grades.jsonl", 10)
    for index in (0, 1):
        assert ended(running[index]) == (0, "")
    early = merged(where, tmp_path / "merged")
    assert (early.returncode, "2/4, 3/4" in early.stderr) == (65, True), early.stderr
    for index in (2, 3):
        assert ended(started(server, where, "--shard", f"{index}/{SHARDS}")) == (0, "")
    done = merged(where, tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    merged_rows = rows_of(tmp_path / "merged")
    result = compared(merged_rows, undisturbed)
    n_requests, n_again = asked(server, before)
    figures(
        f"4 shards in {'a store' if where.startswith('s3:') else 'a folder'}, 2 killed",
        2,
        len(merged_rows["grades.jsonl"]),
        *result,
    )
    assert result == (0, 0, 0)
    assert merged_rows == undisturbed
    # of a killed process what was in flight is asked again, no more
    assert n_requests == 2 * N + len(merged_rows["grades.jsonl"]) + N_CONTROLS
    assert n_again <= 2 * 2 * 4


def test_a_shard_that_is_killed_again_and_again_ends_with_the_same_rows(
    server: LoopbackServer, undisturbed: dict[str, list[bytes]], tmp_path: Path, figures: Keep
) -> None:
    draw, kills = random.Random(8), 8  # noqa: S311 - when to kill
    for n in sorted(draw.sample(range(1, 200), kills)):
        process = started(server, tmp_path / "shards", "--shard", "0/1", concurrency=2)
        kill(process, tmp_path / "shards", 0, "grades.jsonl" if n > 60 else "generations.jsonl", n)
    assert ended(started(server, tmp_path / "shards", "--shard", "0/1", concurrency=16)) == (0, "")
    assert len(list((tmp_path / "shards" / "shard=0000").iterdir())) == 1, "always the same attempt"
    assert merged(str(tmp_path / "shards"), tmp_path / "merged").returncode == 0
    merged_rows = rows_of(tmp_path / "merged")
    result = compared(merged_rows, undisturbed)
    figures("a shard killed at random moments", kills, len(merged_rows["grades.jsonl"]), *result)
    assert result == (0, 0, 0)
    assert merged_rows == undisturbed


def test_two_processes_on_the_same_shard_at_once(
    location: tuple[str, Path],
    server: LoopbackServer,
    undisturbed: dict[str, list[bytes]],
    tmp_path: Path,
    figures: Keep,
) -> None:
    where, _ = location
    processes = [started(server, where, "--shard", "0/1", concurrency=16) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("40 of 40 samples" in output for output in outputs) == 1, outputs
    assert sum("another process first" in output or "nothing to do" in output for output in outputs) == 1, (
        outputs
    )
    assert merged(where, tmp_path / "merged").returncode == 0
    merged_rows = rows_of(tmp_path / "merged")
    result = compared(merged_rows, undisturbed)
    figures(
        f"two processes on one shard, {'a store' if where.startswith('s3:') else 'a folder'}",
        1,
        len(merged_rows["grades.jsonl"]),
        *result,
    )
    assert merged_rows == undisturbed


def test_a_process_that_is_killed_in_the_middle_of_its_upload(
    server: LoopbackServer,
    undisturbed: dict[str, list[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: Keep,
) -> None:
    uploading, over = Event(), Event()
    where = f"s3://results/{tmp_path.name}"

    def hold(request: Asked) -> Answer | None:
        if request.method == "PUT" and "grades.jsonl" in request.path and not over.is_set():
            uploading.set()
            over.wait(120)
            return Answer.error(503, "SlowDown")
        return None

    with ExitStack() as stack:
        url = stack.enter_context(s3_server())
        spoilt = stack.enter_context(in_front_of(url, hold))
        store(monkeypatch, spoilt, tmp_path)
        process = started(server, where, "--shard", "0/1", concurrency=16)
        assert uploading.wait(120), process.poll()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        over.set()
        assert merged(where, tmp_path / "merged").returncode == 65
        before = len(server.requests)
        assert ended(started(server, where, "--shard", "0/1")) == (0, "")
        assert asked(server, before)[0] == 0, "all of it was made before, and is only sent"
        assert merged(where, tmp_path / "merged").returncode == 0
    merged_rows = rows_of(tmp_path / "merged")
    figures(
        "killed in the middle of an upload",
        1,
        len(merged_rows["grades.jsonl"]),
        *compared(merged_rows, undisturbed),
    )
    assert merged_rows == undisturbed
