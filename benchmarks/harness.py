"""What all benchmarks share: what a command takes in seconds, CPU and memory, and the work that is graded."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mock.server import Mock, reply_to, sample_of, user_registry
from qaeval.chat.protocol import Sampling
from qaeval.evals.find import find_rubric
from qaeval.evals.rubric import GradeMode
from qaeval.run.grade import Instructions, build_request

HERE = Path(__file__).parent
QAEVAL = Path(sys.executable).with_name("qaeval")


@dataclass(frozen=True)
class Taken:
    """What a command took.

    Attributes:
        wall_s: Start of the process to its end.
        cpu_s: Of all its processes.
        rss_mib: Largest memory of its largest process.
        code: Exit code.
        text: What it printed.
    """

    wall_s: float
    cpu_s: float
    rss_mib: float
    code: int
    text: str


def take(
    command: Sequence[str | Path], *, timeout_s: float = 900, env: Mapping[str, str] | None = None
) -> Taken:
    """Run a command and measure it; one that takes too long is ended with code -9."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    peak = 0
    output: list[bytes] = []
    assert process.stdout
    os.set_blocking(process.stdout.fileno(), False)
    while process.poll() is None:
        output.append(process.stdout.read() or b"")
        peak = max(peak, _rss(process.pid))
        if time.perf_counter() - began > timeout_s:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.02)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    output.append(process.stdout.read() or b"")
    process.stdout.close()
    cpu = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return Taken(wall, cpu, peak / 2**20, process.returncode, b"".join(output).decode(errors="replace"))


def _rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def prepare_requests(path: Path, n_items: int, mode: GradeMode = "reason_first") -> Path:
    """Write the same items as messages, for those that are compared with: id, system, user."""
    instructions = Instructions.of(find_rubric("qa_pair_abc"), Sampling(max_tokens=512), mode)
    with path.open("w") as file:
        for number in range(-(-n_items // 3)):
            sample = sample_of(number)
            for item in reply_to(sample, number).items:
                request = build_request(sample, item, instructions)
                system, user = (turn.content for turn in request.messages)
                line = {
                    "id": item.item_id,
                    "system": system,
                    "user": user,
                    "question": item.question,
                    "answer": item.answer,
                    "context": sample.chunk.text,
                }
                file.write(json.dumps(line) + "\n")
    return path


def grade(
    run: Path, mock: Mock, concurrency: int | str, folder: Path, *more: str, mode: str = "reason_first"
) -> Taken:
    """Grade a prepared run with qaeval as users do: a schema, log-probabilities, the cache."""
    command = [
        QAEVAL,
        "grade",
        "--yes",
        run,
        "--judge",
        "bench",
        "--endpoint",
        f"bench={mock.url}",
        "--config",
        user_registry(folder, mode),
    ]
    cache = {"QAEVAL_CACHE": str(folder / "cache")}
    return take([*command, "--concurrency", str(concurrency), *more], env=cache)
