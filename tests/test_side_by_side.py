"""Generation and grading side by side, where all servers are up: the same rows, sooner, and nothing lost on the way."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Typed, qaeval
from qaeval.comparison.model import Reason
from qaeval.comparison.report_file import load_report
from replay.server import LoopbackServer

QAEVAL = str(Path(sys.executable).with_name("qaeval"))


def command(out: Path, servers: dict[str, LoopbackServer], *options: str, n: int = 10) -> list[str]:
    endpoints = [word for name, server in servers.items() for word in ("--endpoint", f"{name}={server.url}")]
    return ["compare", "mistral", "qwen", "--n", str(n), "--out", str(out), *endpoints, *options]


def compare(out: Path, servers: dict[str, LoopbackServer], *options: str, n: int = 10) -> Typed:
    return qaeval(*command(out, servers, *options, n=n), cwd=out.parent)


def finished(done: Typed) -> None:
    assert done.returncode == 0, done.stderr


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def what_counts(out: Path) -> dict[str, object]:
    report = json.loads((out / "report.json").read_text())
    del report["run"]

    def without_timing(value: object) -> object:
        if isinstance(value, dict):
            return {
                key: without_timing(inner) for key, inner in value.items() if key not in {"timing", "host"}
            }
        return [without_timing(inner) for inner in value] if isinstance(value, list) else value

    return without_timing(report)  # type: ignore[return-value]


class Watched(list[dict[str, object]]):
    """A list of requests that calls when one comes."""

    def __init__(self, on_request: Callable[[], None]) -> None:
        super().__init__()
        self.on_request = on_request

    def append(self, request: dict[str, object]) -> None:
        self.on_request()
        super().append(request)


@pytest.mark.slow
def test_the_judge_works_while_candidates_still_write_and_the_report_is_the_same(tmp_path: Path) -> None:
    with (
        LoopbackServer(["mistral", "qwen"], latency_s=0.1) as writers,
        LoopbackServer(["selene"]) as judge,
    ):
        servers = {"mistral": writers, "qwen": writers, "selene": judge}
        n_written: list[int] = []
        judge.requests = Watched(lambda: n_written.append(len(writers.requests)))
        finished(compare(tmp_path / "apart", servers, "--concurrency", "2"))
        n_requests = len(writers.requests)
        together = dict.fromkeys(servers, writers)
        writers.models["selene"] = 8192
        finished(compare(tmp_path / "together", together, "--concurrency", "2"))
    sessions = rows(tmp_path / "apart" / "sessions.jsonl")
    assert [session["stage"] for session in sessions] == ["generate", "generate", "grade"]
    assert all(session["alongside"] for session in sessions)
    # half of what the judge was asked came before the candidates' last request
    assert n_written[len(n_written) // 2] < n_requests
    assert what_counts(tmp_path / "apart") == what_counts(tmp_path / "together")


@pytest.mark.slow
def test_each_item_is_graded_once(tmp_path: Path) -> None:
    with LoopbackServer(["mistral", "qwen"]) as writers, LoopbackServer(["selene"]) as judge:
        finished(compare(tmp_path / "run", {"mistral": writers, "qwen": writers, "selene": judge}))
    graded = [row["task_id"] for row in rows(tmp_path / "run" / "grades.jsonl")]
    items = {
        item["item_id"]
        for row in rows(tmp_path / "run" / "generations.jsonl")
        for item in row.get("items", [])
    }  # type: ignore[attr-defined]
    assert len(graded) == len(set(graded)) == len(items)


@pytest.mark.slow
def test_ctrl_c_finishes_what_is_in_flight_on_both_sides_and_resumes(tmp_path: Path) -> None:
    with (
        LoopbackServer(["mistral", "qwen"], latency_s=0.2) as writers,
        LoopbackServer(["selene"], latency_s=0.3) as judge,
    ):
        servers = {"mistral": writers, "qwen": writers, "selene": judge}
        process = subprocess.Popen(
            [QAEVAL, *command(tmp_path / "run", servers, "--concurrency", "3", n=30)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while len(judge.requests) < 8:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        before = rows(tmp_path / "run" / "grades.jsonl")
        # probes of the judge are among its requests; all grading requests that were sent were also written
        gradings = [body for body in judge.requests if "rubric" in json.dumps(body).lower()]
        assert len(before) == len(gradings)
        finished(compare(tmp_path / "run", servers, "--resume", n=30))
    graded = [row["task_id"] for row in rows(tmp_path / "run" / "grades.jsonl")]
    assert len(graded) == len(set(graded))
    assert {row["task_id"] for row in before} <= set(graded)


@pytest.mark.slow
def test_a_run_without_any_generation_is_reported_and_no_success(tmp_path: Path) -> None:
    with LoopbackServer(["mistral", "qwen"]) as writers, LoopbackServer(["selene"]) as judge:
        writers.fail("wrong_item_count")
        done = compare(tmp_path / "run", {"mistral": writers, "qwen": writers, "selene": judge}, n=3)
    assert done.returncode == 65
    assert "no generation succeeded" in done.stderr
    assert "generations.jsonl" in done.stderr
    assert "--resume" not in done.stderr
    assert "no item was graded (wrong item count)" in done.stdout
    assert "grade selene: 18/18, 18 not needed\n" in done.stderr
    report = load_report(tmp_path / "run")
    assert (report.verdict.kind, report.verdict.reasons) == (
        "none",
        (Reason(code="nothing_graded", failure="wrong_item_count"),),
    )


@pytest.mark.slow
def test_a_judge_that_dies_ends_the_run_with_rows_kept(tmp_path: Path) -> None:
    with (
        LoopbackServer(["mistral", "qwen"], latency_s=0.1) as writers,
        LoopbackServer(["selene"], die_after=12) as judge,
    ):
        servers = {"mistral": writers, "qwen": writers, "selene": judge}
        (tmp_path / "short.yaml").write_text("defaults: {outage_s: 1}")
        config = ("--config", str(tmp_path / "short.yaml"))
        done = compare(tmp_path / "run", servers, "--concurrency", "2", *config, n=45)
    assert done.returncode == 69, done.stderr
    assert "stopped answering" in done.stderr
    assert "to continue" in done.stderr
    assert rows(tmp_path / "run" / "generations.jsonl")


@pytest.mark.slow
def test_a_judge_that_dies_in_the_probe_leaves_no_run(tmp_path: Path) -> None:
    with (
        LoopbackServer(["mistral", "qwen"]) as writers,
        LoopbackServer(["selene"], die_after=6) as judge,
    ):
        servers = {"mistral": writers, "qwen": writers, "selene": judge}
        (tmp_path / "short.yaml").write_text("defaults: {outage_s: 1}")
        done = compare(tmp_path / "run", servers, "--config", str(tmp_path / "short.yaml"), n=60)
    assert done.returncode == 69, done.stderr
    assert "the run has not begun" in done.stderr
    assert "rows are kept" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_report_does_not_depend_on_how_many_requests_are_in_flight(tmp_path: Path) -> None:
    reports = []
    with LoopbackServer(["mistral", "qwen", "selene"], latency_s=0.002) as server:
        servers = dict.fromkeys(("mistral", "qwen", "selene"), server)
        for concurrency in ("1", "256", "auto"):
            finished(compare(tmp_path / concurrency, servers, "--concurrency", concurrency))
            reports.append(what_counts(tmp_path / concurrency))
    assert reports[0] == reports[1] == reports[2]


@pytest.mark.slow
def test_several_servers_of_one_model_share_its_work(tmp_path: Path) -> None:
    with (
        LoopbackServer(["mistral", "qwen"], latency_s=0.02) as first,
        LoopbackServer(["mistral", "qwen"], latency_s=0.02) as second,
        LoopbackServer(["selene"]) as judge,
    ):
        urls = f"{first.url},{second.url}"
        arguments = ["--endpoint", f"mistral={urls}", "--endpoint", f"qwen={urls}"]
        finished(compare(tmp_path / "run", {"selene": judge}, *arguments))
    counts = [sum(body.get("max_tokens", 0) > 64 for body in server.requests) for server in (first, second)]
    assert sum(counts) == 20
    assert min(counts) >= 8


def test_servers_of_one_model_that_would_not_answer_alike_are_refused(tmp_path: Path) -> None:
    with (
        LoopbackServer({"mistral": 8192, "qwen": 8192}) as first,
        LoopbackServer({"mistral": 4096, "qwen": 4096}) as second,
        LoopbackServer(["selene"]) as judge,
    ):
        arguments = ["--endpoint", f"mistral={first.url},{second.url}", "--endpoint", f"qwen={first.url}"]
        done = compare(tmp_path / "run", {"selene": judge}, *arguments)
    assert done.returncode == 69
    assert "max model len: 8192" in done.stderr
