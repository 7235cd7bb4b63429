"""Check the arithmetic of docs/capacity.md: throughput at 1, 2, 4 and 8 servers, and what client and driver cost per row.

    python benchmarks/capacity.py [--items 120] [--slots 8] [--latency-ms 500]

The servers are mocks with a fixed number of slots (`tests/mock`). The client is an actor of `qaeval compare --backend ray`, in this
process and without Ray: blocks in files, a limit on requests in flight, the least busy server first. Predicted is the time that the
slots of all servers impose, by the mock's own simulation.
"""

import argparse
import asyncio
import sys
import time
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mock.server import Mock, ideal_s, reply_to, sample_of
from qaeval.distributed.actors import GradeBlocks, Work
from qaeval.distributed.blocks import BlockFiles
from qaeval.distributed.driver import _Collector
from qaeval.evals.definition import load_eval
from qaeval.evals.find import data_root, find_rubric
from qaeval.records import Chunk, Sample
from qaeval.registry.config import ModelSpec
from qaeval.run.plan import Judging, Plan
from qaeval.run.watch import Unwatched
from qaeval.storage.location import Folder
from qaeval.storage.run_directory import GENERATIONS, GRADES, RunStore

_BLOCK = 20
_ITEMS = 3
_SPARE = 1.5
"""Requests in flight per slot: a few wait in each server, so that no slot is ever empty."""


class NoProgress:
    """Shows nothing."""

    def stage(self, *_: object, **__: object) -> Unwatched:
        """Show nothing."""
        return Unwatched()

    def note(self, _text: str) -> None:
        """Show nothing."""


def prepared(folder: Path, n_items: int) -> tuple[BlockFiles, list[Sample]]:
    """Write blocks whose replies wait for the judge."""
    files = BlockFiles(Folder(folder))
    samples = [sample_of(number) for number in range(-(-n_items // _ITEMS))]
    for block in range(-(-len(samples) // _BLOCK)):
        part = range(block * _BLOCK, min((block + 1) * _BLOCK, len(samples)))
        files.write_samples(block, [samples[number] for number in part])
        files.write_replies(block, [reply_to(samples[number], number) for number in part])
    return files, samples


async def graded(folder: Path, urls: list[str], n_blocks: int, limit: int) -> tuple[float, float]:
    """Grade all blocks; return seconds and seconds of CPU."""
    judge = ModelSpec(name="bench", kind="server", url=urls[0], replicas=tuple(urls[1:]), structured="off")
    definition = load_eval(data_root() / "evals" / "qa_pairs")
    work = Work(
        place=str(folder),
        limit=limit,
        n_blocks=2 + limit // (_BLOCK * _ITEMS),
        outage_s=60.0,
        allow_external=(),
        is_start=False,
    )
    actor = GradeBlocks(
        work, Judging(judge, find_rubric("qa_pair_abc")), {"eval": definition.model_dump(mode="json")}
    )
    await actor.open_models()

    async def task(block: int) -> None:
        batch: dict[str, Any] = {
            "block": np.array([block]),
            "problem": np.array([""]),
            "kind": np.array([""]),
        }
        async for row in actor(batch):
            assert not row["problem"][0], row["problem"][0]

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(task, range(n_blocks)))
    taken = time.perf_counter() - started, time.process_time() - cpu
    await actor.close()
    return taken


def throughput(n_servers: int, arguments: argparse.Namespace) -> None:
    """Print measured and predicted time with so many servers."""
    n_items = arguments.items * n_servers
    options = {"slots": arguments.slots, "latency_ms": arguments.latency_ms}
    with TemporaryDirectory() as text, ExitStack() as stack:
        folder = Path(text)
        _, samples = prepared(folder, n_items)
        mocks = [stack.enter_context(Mock(seed=number, **options)) for number in range(n_servers)]
        limit = round(_SPARE * arguments.slots * n_servers)
        seconds, cpu = asyncio.run(
            graded(folder, [mock.url for mock in mocks], -(-len(samples) // _BLOCK), limit)
        )
        most = max(mock.stats()["most_running"] for mock in mocks)
    predicted = ideal_s(arguments.items, **options)
    print(
        f"| {n_servers} | {n_items:,} | {n_items / predicted:.1f} | {n_items / seconds:.1f} | {seconds / predicted:.2f} | "
        f"{1000 * cpu / n_items:.2f} | {most} |",
        flush=True,
    )


def driver(n_items: int) -> None:
    """Print what the driver costs: CPU and bytes per row, memory per chunk."""
    with TemporaryDirectory() as text:
        folder = Path(text)
        files, samples = prepared(folder / "blocks", n_items)
        definition = load_eval(data_root() / "evals" / "qa_pairs")
        n_blocks = -(-len(samples) // _BLOCK)
        with Mock() as mock:
            asyncio.run(graded(folder / "blocks", [mock.url], n_blocks, 64))
        writer = ModelSpec(name="writer", kind="server", url="http://127.0.0.1:9/v1")
        judging = Judging(
            ModelSpec(name="bench", kind="server", url="http://127.0.0.1:9/v1"), find_rubric("qa_pair_abc")
        )
        plan = Plan(definition, tuple(samples), (writer,), 0)
        settings = {**plan.settings(), "grading": judging.settings()}
        run = folder / "run"
        with (
            RunStore.create(run, settings, plan.samples, resume=False) as store,
            _Collector(store, plan, judging, files, _BLOCK, NoProgress()) as collector,
        ):
            collector.begin()
            cpu = time.process_time()
            for block in range(n_blocks):
                collector.collect(block)
            cpu = time.process_time() - cpu
        n_rows = len(samples) + n_items
        size = sum((run / name).stat().st_size for name in (GENERATIONS, GRADES))
        print(
            f"driver: {1000 * cpu / n_rows:.3f} ms of CPU per row, {size / n_rows / 1000:.2f} kB per row on disk"
        )
    tracemalloc.start()
    kept = [
        Sample.of(Chunk(chunk_id=f"c{number:07}", text=f"{number} " + "x" * 3000, document="manual"))
        for number in range(2000)
    ]
    print(
        f"driver: {tracemalloc.get_traced_memory()[0] / len(kept) / 1000:.1f} kB of memory per chunk of 3 kB"
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=120, help="per server")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--latency-ms", type=float, default=500)
    arguments = parser.parse_args()
    driver(3000)
    print(
        "\n| servers | items | predicted, items/s | measured | time / predicted | client, ms of CPU per item | running at most |"
    )
    print("|---|---|---|---|---|---|---|")
    for n_servers in (1, 2, 4, 8):
        throughput(n_servers, arguments)


if __name__ == "__main__":
    main()
