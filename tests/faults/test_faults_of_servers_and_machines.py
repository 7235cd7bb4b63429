"""Servers that misbehave, machines that fail, processes that are killed: nothing finished is lost, and no item comes twice.

Each run is graded by the mock server, whose letters depend on the request alone: the letters of a disturbed run must be those of
an undisturbed one.
"""

import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mock.server import REPLY, Mock, prepare_run, registry

pytestmark = pytest.mark.timeout(600)

QAEVAL = str(Path(sys.executable).with_name("qaeval"))
N = 600

Keep = Callable[..., None]


def command(run: Path, url: str, *options: str) -> list[str]:
    config = str(registry(run.parent))
    return [
        QAEVAL,
        "grade",
        str(run),
        "--yes",
        "--judge",
        "bench",
        "--endpoint",
        f"bench={url}",
        "--config",
        config,
        *options,
    ]


def grade(run: Path, url: str, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(run, url, *arguments), capture_output=True, text=True, timeout=500, check=False, **options
    )


def rows(run: Path) -> list[dict[str, Any]]:
    path = run / "grades.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def letters(run: Path) -> dict[str, str]:
    """The last row of each task: its letter, or why there is none."""
    return {row["task_id"]: row.get("letter") or row["reason"] for row in rows(run)}


def doubled(run: Path) -> int:
    """Tasks that were asked again although they had a letter."""
    return sum(n > 1 for n in Counter(row["task_id"] for row in rows(run) if row["kind"] == "grade").values())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    run = prepare_run(tmp_path_factory.mktemp("calm") / "run", N)
    with Mock() as mock:
        assert grade(run, mock.url).returncode == 0
    graded = letters(run)
    assert len(graded) == N
    assert set(graded.values()) == {"A", "B", "C"}
    return graded


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return prepare_run(tmp_path / "run", N)


def compared(run: Path, undisturbed: dict[str, str]) -> tuple[int, int, int]:
    """Rows lost, rows doubled, letters that differ."""
    graded = letters(run)
    n_lost = sum(task not in graded for task in undisturbed)
    return (
        n_lost,
        doubled(run),
        sum(graded[task] != letter for task, letter in undisturbed.items() if task in graded),
    )


# ---------------------------------------------------------------------------- servers

RATES = {
    "5 % of requests answered with 500": {"rate_500": 0.05},
    "5 % of connections cut": {"rate_reset": 0.05},
    "5 % of replies cut in half": {"rate_half": 0.05},
    "half of requests refused with 429": {"rate_429": 0.5},
    "all of these": {"rate_500": 0.05, "rate_reset": 0.05, "rate_half": 0.05, "rate_429": 0.1},
}


@pytest.mark.parametrize("name", RATES)
def test_what_passes_leaves_no_trace(
    name: str, run: Path, undisturbed: dict[str, str], figures: Keep
) -> None:
    with Mock(**RATES[name]) as mock:
        done = grade(run, mock.url)
        stats = mock.stats()
    assert done.returncode == 0, done.stderr
    faults = sum(stats[kind] for kind in ("refused_429", "failed_500", "resets", "halves"))
    assert faults > 10
    result = compared(run, undisturbed)
    figures(name, faults, N, *result)
    assert result == (0, 0, 0)


def test_replies_that_never_come_are_given_up_and_asked_again(
    run: Path, undisturbed: dict[str, str], figures: Keep
) -> None:
    with Mock(rate_hang=0.02) as mock:
        done = grade(run, mock.url, "--concurrency", "32")
        hangs = mock.stats()["hangs"]
    assert done.returncode == 0, done.stderr
    result = compared(run, undisturbed)
    figures("2 % of requests never answered", hangs, N, *result)
    assert hangs > 2
    assert result == (0, 0, 0)


def test_a_malformed_letter_is_a_failure_that_says_so_and_never_a_letter(
    run: Path, undisturbed: dict[str, str], figures: Keep
) -> None:
    with Mock(rate_badjson=0.03) as mock:
        done = grade(run, mock.url)
        bad = mock.stats()["bad_json"]
    assert done.returncode == 0, done.stderr
    graded = letters(run)
    failed = {row["task_id"]: row for row in rows(run) if row["kind"] == "failure"}
    assert 5 < len(failed) <= bad
    assert len(undisturbed) > len(failed)
    assert all(
        row["reason"] in {"invalid_json", "unparseable"} and row["detail"] and row["text"]
        for row in failed.values()
    )
    assert all(graded[task] == letter for task, letter in undisturbed.items() if task not in failed)
    figures(
        "3 % malformed JSON",
        bad,
        N,
        0,
        doubled(run),
        f"0 ({len(failed)} without a letter, each with its reason)",
    )


@pytest.mark.parametrize("seconds", [3, 30])
def test_a_server_that_is_gone_for_a_while_is_waited_for(
    seconds: int, run: Path, undisturbed: dict[str, str], figures: Keep
) -> None:
    with Mock(port=lasting_port(), slots=16, latency_ms=100) as mock:
        process = subprocess.Popen(command(run, mock.url), stderr=subprocess.PIPE, text=True)
        wait_for(lambda: len(rows(run)) > 50)
    time.sleep(seconds)
    with Mock(port=mock.port, slots=16, latency_ms=100):
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"127.0.0.1:{mock.port} does not answer" in err
    assert "answers again" in err
    result = compared(run, undisturbed)
    figures(f"a server down for {seconds} s", 1, N, *result)
    assert result == (0, 0, 0)


def lasting_port() -> int:
    """A free port that the system gives to nobody while its server is gone: below those it picks itself."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("every port below 32,000 is taken")


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


CONTENT = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "model": "bench",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": REPLY.replace("@", "A")},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()


def slowly(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    with_patience(connection, b" ")


def with_patience(connection: socket.socket, byte: bytes) -> None:
    connection.settimeout(0.2)
    for _ in range(10_000):
        connection.sendall(byte)
        time.sleep(0.2)


def hugely(connection: socket.socket) -> None:
    connection.sendall(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 52428800\r\n\r\n"
        + b" " * 52428800
    )


def as_html(connection: socket.socket) -> None:
    page = b"<html>502 Bad Gateway</html>"
    connection.sendall(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n%s" % (len(page), page)
    )


def as_text(connection: socket.socket) -> None:
    connection.sendall(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%s"
        % (len(CONTENT), CONTENT)
    )


@contextmanager
def misbehaving(act: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server whose chat does one thing, and whose other routes are those of a server that is well."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)

    def answer(connection: socket.socket) -> None:
        try:
            with connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536) or (_ for _ in ()).throw(OSError())
                path = request.split(b" ", 2)[1]
                if path.endswith(b"/chat/completions"):
                    act(connection)
                    return
                body = b'{"object":"list","data":[{"id":"bench"}]}' if path.endswith(b"/models") else b"{}"
                status = b"200 OK" if path.endswith((b"/models", b"/health")) else b"404 Not Found"
                connection.sendall(
                    b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
                    % (status, len(body), body)
                )
        except OSError:
            pass

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        listener.close()


@pytest.mark.parametrize(
    ("act", "excerpt"),
    [(hugely, "more than 16 MiB"), (as_html, "expected a chat completion"), (slowly, "nothing within")],
    ids=["a reply of 50 MB", "a page of HTML", "a reply that drips"],
)
def test_a_reply_that_is_none_is_an_explained_failure_within_bounds(
    act: Callable[[socket.socket], None], excerpt: str, tmp_path: Path, figures: Keep
) -> None:
    run = prepare_run(tmp_path / "run", 3)
    impatient = tmp_path / "impatient.py"
    # timeouts of three seconds, as of a server that has proved quick, instead of five minutes (one for a probe)
    impatient.write_text(
        "import sys\nfrom qaeval.chat import timeouts\ntimeouts.AdaptiveTimeout.seconds = lambda self, n: 3.0\n"
        "from qaeval.serving import client, probe\n"
        "probe.Server = lambda url, key, timeout_s, **more: client.Server(url, key, 3.0, **more)\n"
        "from qaeval.cli import run\nsys.exit(run(sys.argv[1:]))\n"
    )
    with misbehaving(act) as url:
        words_typed = [sys.executable, str(impatient), *command(run, url)[1:]]
        done = subprocess.run(words_typed, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 69, done.stderr
    failures = rows(run)
    assert len(failures) == 3
    assert {row["reason"] for row in failures} == {"endpoint"}
    assert all(excerpt in row["detail"] for row in failures), failures[0]["detail"]
    figures(
        f"{act.__name__.replace('_', ' ')}, every reply", 3 * 8, 3, 0, 0, "no letter, each with its reason"
    )


def test_a_wrong_content_type_around_a_right_reply_does_no_harm(tmp_path: Path) -> None:
    run = prepare_run(tmp_path / "run", 3)
    with misbehaving(as_text) as url:
        assert grade(run, url).returncode == 0
    assert list(letters(run).values()) == ["A"] * 3


# ---------------------------------------------------------------------------- machines


def test_a_full_disk_stops_the_run_and_a_resumed_one_is_whole(
    run: Path, undisturbed: dict[str, str], figures: Keep
) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    with Mock() as mock:
        full = grade(run, mock.url, preexec_fn=small)
        assert full.returncode == 74, full.stderr
        assert "finished rows are kept" in full.stderr
        before = letters(run) if run.joinpath("grades.jsonl").read_bytes().endswith(b"\n") else None
        assert grade(run, mock.url).returncode == 0
    assert before is None or all(letters(run)[task] == letter for task, letter in before.items())
    result = compared(run, undisturbed)
    figures("a file size limit", 1, N, *result)
    assert result == (0, 0, 0)


def test_a_full_file_system(run: Path, undisturbed: dict[str, str], figures: Keep, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        copy = small / "run"
        shutil.copytree(run, copy)
        with Mock() as mock:
            full = grade(copy, mock.url)
            assert full.returncode == 74, full.stderr
            assert "free some space" in full.stderr
            subprocess.run(["mount", "-o", "remount,size=20m", small], check=True)
            assert grade(copy, mock.url).returncode == 0
        result = compared(copy, undisturbed)
        figures("a full tmpfs", 1, N, *result)
        assert result == (0, 0, 0)
    finally:
        subprocess.run(["umount", small], check=False)


def test_a_directory_that_cannot_be_written_is_named_with_what_to_do() -> None:
    out = "/proc/qaeval-run"
    done = subprocess.run(
        [QAEVAL, "compare", "embedded-lead", "embedded-salient", "--n", "2", "--out", out],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 74
    assert out in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_process_is_refused_while_the_first_one_writes(
    run: Path, undisturbed: dict[str, str], figures: Keep
) -> None:
    with Mock(slots=8, latency_ms=100) as mock:
        first = subprocess.Popen(command(run, mock.url), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(lambda: len(rows(run)) > 10)
        first.send_signal(signal.SIGSTOP)  # it must not end before the second one looks
        second = grade(run, mock.url)
        first.send_signal(signal.SIGCONT)
        assert second.returncode == 74
        assert f"{run}: in use" in second.stderr
        assert first.wait(120) == 0
    result = compared(run, undisturbed)
    figures("two processes on one run", 1, N, *result)
    assert result == (0, 0, 0)


def test_a_clock_that_jumps_changes_nothing_but_the_times(
    run: Path, undisturbed: dict[str, str], figures: Keep
) -> None:
    jumping = run.parent / "jumping.py"
    jumping.write_text(
        "import sys, random, time, datetime as d\n"
        "rng = random.Random(7)\n"
        "class Jumping(d.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None):\n"
        "        return d.datetime.fromtimestamp(rng.randrange(0, 4_000_000_000), tz)\n"
        "import qaeval.environment as s\n"
        "s.datetime = Jumping\n"
        "time.time = lambda: float(rng.randrange(0, 4_000_000_000))\n"
        "from qaeval.cli import run\nsys.exit(run(sys.argv[1:]))\n"
    )
    with Mock() as mock:
        for part in (command(run, mock.url)[1:], ["report", str(run), "--config", str(registry(run.parent))]):
            done = subprocess.run(
                [sys.executable, str(jumping), *part],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    result = compared(run, undisturbed)
    figures("a clock that jumps by decades", "at every reading", N, *result)
    assert result == (0, 0, 0)
    report = json.loads((run / "report.json").read_text())
    assert report["judge"]["timing"]["wall_s"] < 120  # the process had no more


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("n_kills", [20, pytest.param(100, marks=pytest.mark.nightly)])
def test_killed_at_random_moments(n_kills: int, tmp_path: Path, figures: Keep) -> None:
    n, rng = 240 * n_kills, random.Random(1)  # noqa: S311 - moments
    calm, run = prepare_run(tmp_path / "calm", n), prepare_run(tmp_path / "run", n)
    n_lost, before = 0, set[str]()
    with Mock(slots=64, latency_ms=250) as mock:
        for kill in range(n_kills):
            process = subprocess.Popen(
                command(run, mock.url, "--concurrency", "80"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if kill % 10:
                enough = size(run / "grades.jsonl") + rng.randrange(80_000)
                wait_for(lambda enough=enough: size(run / "grades.jsonl") >= enough)  # type: ignore[misc]
            else:
                time.sleep(rng.uniform(0, 1.5))  # while it starts
            assert process.poll() is None, "the run ended by itself; it must be longer"
            process.send_signal(signal.SIGKILL)
            process.communicate()
            written = (run / "grades.jsonl").read_bytes() if (run / "grades.jsonl").exists() else b""
            whole = {json.loads(line)["task_id"] for line in written[: written.rfind(b"\n") + 1].splitlines()}
            n_lost += len(before - whole)
            before = whole
    with Mock() as mock:
        assert grade(run, mock.url).returncode == 0
        assert grade(calm, mock.url).returncode == 0
    result = compared(run, letters(calm))
    figures("kill -9 at a random moment", n_kills, n, n_lost + result[0], *result[1:])
    assert (n_lost, *result) == (0, 0, 0, 0)
    reports = []
    for path in (run, calm):
        done = subprocess.run(
            [QAEVAL, "report", str(path), "--config", str(registry(tmp_path))],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        report = json.loads((path / "report.json").read_text())
        reports.append(
            {key: report[key] for key in ("candidates", "strata", "failures", "agreement", "headline")}
        )
        for candidate in reports[-1]["candidates"]:
            candidate.pop("timing")
    assert reports[0] == reports[1]
