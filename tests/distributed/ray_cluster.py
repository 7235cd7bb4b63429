"""A local Ray cluster with a head without CPUs and two workers, and runs started on it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from replay.server import LoopbackServer
from sharding import KEYS, s3_server

N_CHUNKS, BLOCK, LIMIT = 120, 10, 4
ITEMS = 3
"""Items per reply of the eval."""
POISON = "The poisoned valve is opened first."
_NODE = {"object_store_memory": 80 << 20}


class PoisonableServer(LoopbackServer):
    """Server that answers poisoned chunks with invalid JSON."""

    def _reply(self, body: Any) -> Any:
        if POISON in body["messages"][-1]["content"]:
            self.fail("invalid_json", 1)
        return super()._reply(body)


@dataclass
class Cluster:
    """A running cluster."""

    ray: Any
    store_url: str
    workers: list[Any] = field(default_factory=list)

    def add_worker(self) -> None:
        # Ray allows a node 30 s to start, which a busy machine exceeds; a late node still joins as a worker
        with contextlib.suppress(Exception):
            self.workers.append(self.ray.add_node(num_cpus=2, **_NODE))

    def kill_worker(self) -> None:
        """Remove a worker abruptly, as in a power loss."""
        self.ray.remove_node(self.workers.pop(), allow_graceful=False)

    def actors(self, stage: str) -> list[int]:
        """Return the process ids of the actors of a stage."""
        stdout = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
        rows = (line.strip().partition(" ") for line in stdout.splitlines())
        own_pids = {process.pid for process in _descendants()}
        return [
            int(pid)
            for pid, _, args in rows
            if args.startswith("ray::") and stage in args and int(pid) in own_pids
        ]


def _descendants() -> list[Any]:
    import psutil  # noqa: PLC0415 - of Ray

    return psutil.Process().children(recursive=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster as RayCluster  # noqa: PLC0415 - in .venv-ray alone

    with s3_server() as url:
        # nodes inherit the environment of this process, including the keys of the store
        os.environ.update({**KEYS, "AWS_ENDPOINT_URL": url})
        ray = RayCluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, **_NODE},
        )
        try:
            yield Cluster(ray, url)
        finally:
            ray.shutdown()


@pytest.fixture
def workers(cluster: Cluster) -> Cluster:
    """The cluster with two workers, replaced if a previous test removed them."""
    while len(cluster.workers) < 2:
        cluster.add_worker()
    cluster.ray.wait_for_nodes()
    return cluster


@pytest.fixture(scope="session")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chunks of twelve documents; one is poisoned."""
    path = tmp_path_factory.mktemp("corpus") / "chunks.jsonl"
    lines = []
    for number in range(N_CHUNKS):
        text = f"Section {number}. The valve opens at {number + 3} bar and closes after {number + 5} seconds. Log it."
        text = f"{text} {POISON}" if number == 77 else text
        lines.append(
            json.dumps({"chunk_id": f"c{number:03}", "text": text, "document": f"manual-{number // 10:02}"})
        )
    path.write_text("\n".join(lines) + "\n")
    return path


@dataclass
class Run:
    """A run: its servers, its directory, and its command."""

    folder: Path
    generator: PoisonableServer
    judge: PoisonableServer
    chunks: str

    def command(self, name: str, *options: object) -> list[str]:
        return [
            *(sys.executable, "-m", "qaeval", "compare", "mistral", "--judge", "selene"),
            *("--chunks", self.chunks, "--out", str(self.folder / name), "--concurrency", str(LIMIT)),
            *("--endpoint", f"mistral={self.generator.url}", "--endpoint", f"selene={self.judge.url}"),
            *("--yes", *map(str, options)),
        ]

    def start(self, name: str, *options: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(name, *options),
            cwd=self.folder,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start_on_ray(self, cluster: Cluster, name: str, *options: object) -> "subprocess.Popen[str]":
        address = cluster.ray.address
        # Ray uses the machine's own address, which the network guard may not recognise as internal
        (self.folder / "qaeval.yaml").write_text(f"allow_external: [{address.partition(':')[0]}]\n")
        return self.start(name, "--backend", "ray", "--ray-address", address, "--ray-block", BLOCK, *options)

    def count_repeated_requests(self) -> tuple[int, int]:
        """Count the chunk requests that each server received more than once; probes contain no chunk."""
        return _count_repeated(self.generator), _count_repeated(self.judge)


def _count_repeated(server: PoisonableServer) -> int:
    prompts = Counter(
        prompt
        for body in server.requests
        if "bar and closes after" in (prompt := "\n".join(turn["content"] for turn in body["messages"]))
    )
    return prompts.total() - len(prompts)


@pytest.fixture
def run(tmp_path: Path, chunks: Path) -> Iterator[Run]:
    with (
        PoisonableServer(["mistral"], latency_s=0.02) as generator,
        PoisonableServer(["selene"], latency_s=0.02) as judge,
    ):
        yield Run(tmp_path, generator, judge, str(chunks))


@pytest.fixture(scope="session")
def reference_run(tmp_path_factory: pytest.TempPathFactory, chunks: Path) -> Path:
    """The same run on one machine, for comparison."""
    folder = tmp_path_factory.mktemp("one-machine")
    with PoisonableServer(["mistral"]) as generator, PoisonableServer(["selene"]) as judge:
        wait_for_success(Run(folder, generator, judge, str(chunks)).start("whole"))
    return folder / "whole"


def wait_for_success(process: "subprocess.Popen[str]") -> str:
    """Wait until a run succeeds and return its stderr."""
    stdout, stderr = process.communicate(timeout=400)
    assert process.returncode == 0, f"{stderr}\n{stdout}"
    return stderr


@contextmanager
def kill_at_exit(process: "subprocess.Popen[str]") -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()  # closes its pipes too


def wait_until(
    condition: Callable[[], bool], process: "subprocess.Popen[str]", *, limit_s: float = 300
) -> None:
    """Wait until a condition holds while a run is active."""
    for _ in range(int(limit_s / 0.05)):
        if condition():
            return
        assert process.poll() is None, "the run ended before: " + "".join(process.communicate())
        time.sleep(0.05)
    raise AssertionError("it did not happen")
