"""Check the arithmetic of docs/capacity.md: throughput at 1, 2, 4 and 8 servers, and what client and driver cost per row.

    python benchmarks/capacity.py [--items 120] [--slots 8] [--latency-ms 500]
    python benchmarks/capacity.py --memory 100000

The servers are mocks with a fixed number of slots (`tests/mock`). The client is an actor of `qaeval compare --backend ray`, in this
process and without Ray: blocks in files, a limit on requests in flight, the least busy server first. Predicted is the time that the
slots of all servers impose, by the mock's own simulation.

With ``--memory`` the driver's memory is printed after each step of a run of so many chunks, in a separate process. The rows of
the actors are generated; the engine finds them and asks nothing.
"""

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mock.server import REPLY, Mock, build_mock, ideal_s, reply_to, sample_of, sentence
from qaeval.comparison.write_report import ReportOptions, write_report
from qaeval.distributed.actors import GradeBlocks, Work
from qaeval.distributed.blocks import BLOCK_SIZE, BlockFiles
from qaeval.distributed.driver import _Collector
from qaeval.evals.definition import load_eval
from qaeval.evals.find import data_root, find_rubric
from qaeval.files.spool import SpooledRows
from qaeval.records import Grade, Sample
from qaeval.registry.config import ModelSpec
from qaeval.registry.find import find_config
from qaeval.run import grade
from qaeval.run.plan import Judging, Plan, make_plan
from qaeval.run.runner import Runner
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
        plan = Plan(definition, SpooledRows(Sample, samples), (writer,), 0)
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


# ---------------------------------------------------------------------------- memory


def _resident(name: str) -> float:
    """Return memory of this process in MB: ``VmRSS`` now, ``VmHWM`` at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1000


@contextmanager
def _step(name: str, n_chunks: int, before: float) -> Iterator[None]:
    """Print the memory at most during a step and after it, and its CPU."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    cpu = time.process_time()
    yield
    cpu = time.process_time() - cpu
    most = _resident("VmHWM") - before
    gc.collect()
    after = _resident("VmRSS") - before
    print(
        f"| {name} | {most:.0f} | {1000 * most / n_chunks:.2f} | {after:.0f} | {1000 * after / n_chunks:.2f} | {cpu:.1f} |",
        flush=True,
    )


def _planned(folder: Path, writer: str, judge: str) -> tuple[Plan, Judging]:
    registry = folder / "qaeval.yaml"
    registry.write_text(
        f"models: {{writer: {{url: '{writer}', served_name: bench}}}}\n"
        f"judges: {{bench: {{url: '{judge}', served_name: bench, structured: off}}}}\n"
    )
    config = find_config(registry)
    chunks = folder / "chunks.jsonl"
    plan = make_plan(config, ["writer"], eval_name="qa_pairs", chunks=chunks, n=None, seed=0)
    return plan, Judging(config.judge("bench"), find_rubric("qa_pair_abc"))


def _write_blocks(folder: Path, n_chunks: int) -> None:
    """Write a chunk file, and the rows of the actors for its blocks."""
    with (folder / "chunks.jsonl").open("w") as file:
        for number in range(n_chunks):
            text = " ".join(sentence(number * 8 + index, 20) for index in range(9))
            row = {"id": f"c{number:08}", "text": text, "document": f"manual {number // 50}"}
            file.write(json.dumps({**row, "topic": f"s{number % 5}"}) + "\n")
    plan, judging = _planned(folder, *2 * ("http://127.0.0.1:9/v1",))
    files = BlockFiles(Folder(folder / "blocks"))
    settings = {**plan.settings(), "grading": judging.settings()}
    with (
        RunStore.create(folder / "unused", settings, plan.samples, resume=False) as store,
        _Collector(store, plan, judging, files, BLOCK_SIZE, NoProgress()) as collector,
    ):
        numbers = count()  # a reply that is the same for several chunks is a failure
        for block in collector.pending():
            samples = list(collector.samples(block))
            replies = [reply_to(sample, next(numbers)) for sample in samples]
            files.write_replies(block, replies)
            files.write_letters(
                block,
                (
                    Grade(
                        task_id=task.task_id,
                        judge="bench",
                        rubric_sha=judging.rubric.sha,
                        item_id=task.item.item_id,
                        letter="A",
                        reason="The answer says what the source says about the valve and gives the threshold.",
                        text=REPLY,
                        latency_s=1.0,
                    )
                    for sample, reply in zip(samples, replies, strict=True)
                    for task in grade.tasks("bench", sample, [reply])
                ),
            )


def measure_memory(folder: Path, n_chunks: int) -> None:
    """Print the memory of a driver over a run whose blocks are there."""
    with Mock() as writer, Mock() as judge:
        before = _resident("VmRSS")
        print(f"before: {before:.0f} MB\n")
        print(
            "| step | at most, MB | kB per chunk | after, MB | kB per chunk | CPU, s |\n|---|---|---|---|---|---|"
        )
        with _step("read and draw", n_chunks, before):
            plan, judging = _planned(folder, writer.url, judge.url)
        with _step("settings", n_chunks, before):
            settings = {**plan.settings(), "grading": judging.settings()}
        with _step("run directory", n_chunks, before):
            store = RunStore.create(folder / "run", settings, plan.samples, resume=False)
        files = BlockFiles(Folder(folder / "blocks"))
        with store:
            with _Collector(store, plan, judging, files, BLOCK_SIZE, NoProgress()) as collector:
                with _step("blocks written", n_chunks, before):
                    for block in collector.pending():
                        files.write_samples(block, collector.samples(block))
                with _step("rows collected", n_chunks, before):
                    collector.begin()
                    for block in collector.pending():
                        collector.collect(block)
            with (
                _step("the engine finds all done", n_chunks, before),
                Runner(store, NoProgress(), concurrency=8, outage_s=10.0, cache=None) as runner,
            ):
                runner.compare(plan.candidates, plan.definition, judging)
            with _step("report", n_chunks, before):
                write_report(store, ReportOptions(margin=0.05))


def memory(n_chunks: int) -> None:
    """Print the memory of a driver for so many chunks, measured in a separate process."""
    build_mock()
    with TemporaryDirectory() as text:
        _write_blocks(Path(text), n_chunks)
        command = [sys.executable, __file__, "--memory", str(n_chunks), "--folder", text]
        subprocess.run(command, check=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=120, help="per server")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--latency-ms", type=float, default=500)
    parser.add_argument("--memory", type=int, metavar="CHUNKS", help="print the driver's memory instead")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        measure_memory(arguments.folder, arguments.memory)
        return
    if arguments.memory:
        memory(arguments.memory)
        return
    driver(3000)
    print(
        "\n| servers | items | predicted, items/s | measured | time / predicted | client, ms of CPU per item | running at most |"
    )
    print("|---|---|---|---|---|---|---|")
    for n_servers in (1, 2, 4, 8):
        throughput(n_servers, arguments)


if __name__ == "__main__":
    main()
