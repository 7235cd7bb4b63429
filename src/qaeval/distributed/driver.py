"""`qaeval compare --backend ray`: Ray Data moves the numbers of blocks through the stages, this process collects rows.

The rows go to an ordinary run directory, which is finished by the ordinary engine: it asks again what failed for a
passing reason, grades the planted controls, and reports.
"""

import asyncio
import logging
import shutil
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Self

import numpy as np
import orjson

from qaeval import __version__, errors
from qaeval.chat.guard import check_host
from qaeval.distributed.actors import GenerateBlocks, GradeBlocks, Work
from qaeval.distributed.blocks import BLOCK_SIZE, BlockFiles, slices
from qaeval.environment import now, quiet_ray
from qaeval.errors import DataError, Interrupted, QaevalError, UsageError, install_command
from qaeval.files.rows import Finished, ReplyIndex, read_rows
from qaeval.records import Failure, Generation, Sample, StageName, digest
from qaeval.registry.config import ModelSpec
from qaeval.registry.family import urls
from qaeval.registry.find import api_key
from qaeval.run import generate, grade
from qaeval.run.endpoint import Endpoint, resolve
from qaeval.run.plan import Judging, Plan
from qaeval.run.session import HOSTED_CONCURRENCY, session_of
from qaeval.run.watch import Progress, StageProgress
from qaeval.storage.location import Folder, Location, find_location
from qaeval.storage.run_directory import GENERATIONS, GRADES, SESSIONS, RunStore

BLOCKS: Final = "blocks"
"""Folder of a run directory with the blocks of a run that is under way, unless another place is named."""
PER_SERVER: Final = 64
"""Requests in flight for each server of a model, where the user names no number: what vLLM runs at once on an L4 in this
project (``--max-num-seqs 64``). Actors do not adapt to the server's load, since each would count the others' requests."""
_IN_PROCESS: Final = 4
_CPUS: Final = 0.25
"""Of an actor, which waits more than it computes."""
_MAX_READ_TASKS: Final = 10_000
_WRITERS: Final = 8
_LOCAL_OBJECT_STORE: Final = 100 << 20
"""Bytes; numbers of blocks alone go through it. Ray takes 30 % of the memory by default."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where and how a run is distributed.

    Attributes:
        address: Of a running cluster, ``HOST:PORT`` or ``auto``; None: Ray on this machine, for this run.
        store: Place of the blocks, a folder or ``s3://BUCKET/PREFIX``; None: a folder in the run directory.
        concurrency: Requests in flight to candidates, and to the judge; None: 64 for each server.
        block_size: Samples of a block.
        outage_s: Longest wait for a server that stopped answering, in seconds.
        allow_external: Hosts outside the user's network that may be sent data.
    """

    address: str | None = None
    store: str | None = None
    concurrency: int | None = None
    block_size: int = BLOCK_SIZE
    outage_s: float = 120.0
    allow_external: tuple[str, ...] = ()


def compare_on_ray(
    store: RunStore, plan: Plan, judging: Judging, options: RayOptions, progress: Progress
) -> None:
    """Generate and grade on a Ray cluster what the run directory does not have yet.

    Args:
        store: The open run directory.
        plan: Samples and candidates.
        judging: Judge and rubric.
        options: Cluster, place and limits.
        progress: Notified of every row, when its block is finished.

    Raises:
        UsageError: Ray is not installed, a model has no server, or the nodes share no place.
        EndpointError: a server or the cluster cannot be used, or stopped answering; finished blocks are kept.
        NotComparableError: the place has the blocks of another run.
        DataError, StoreError: as in `Runner.acompare`; finished blocks are kept.
        Interrupted: the user asked to stop; finished blocks are kept.
    """
    for spec in (*plan.candidates, judging.judge):
        if not spec.in_process and spec.url is None:
            raise UsageError(
                f"{spec.name!r} has no url, and actors on Ray start no server: name one that is up with --endpoint "
                f"{spec.name}=http://HOST:8000/v1"
            )
    place = options.store or str((store.path / BLOCKS).resolve())
    location = find_location(place, allow_external=options.allow_external)
    files = BlockFiles(location)
    with _Collector(store, plan, judging, files, options.block_size, progress) as collector:
        pending = collector.pending()
        if pending:
            if collector.has_rows and not files.is_claimed:
                raise UsageError(
                    f"{store.path}: was begun on one machine; continue it there, without --backend ray, or choose another "
                    f"--out"
                )
            _compare(collector, pending, place, options)


def remove_blocks(store: RunStore) -> None:
    """Remove the blocks that a run directory holds, once it has all of their rows.

    A run that was killed before needs them to be continued on Ray.
    """
    shutil.rmtree(store.path / BLOCKS, ignore_errors=True)


def _compare(collector: "_Collector", pending: Sequence[int], place: str, options: RayOptions) -> None:
    plan, judging = collector.plan, collector.judging
    endpoints = _endpoints((*plan.candidates, judging.judge), options.allow_external)
    with _cluster(options) as ray:
        # before any work: a place that a worker does not see, or another version, would end it later
        n_nodes = _require_workers(ray, place, collector.files.location, options.allow_external)
        collector.files.claim(collector.job)
        with ThreadPoolExecutor(_WRITERS) as writers:
            for _ in writers.map(
                lambda block: collector.files.write_samples(block, collector.samples(block)), pending
            ):
                pass
        collector.begin()
        blocks = _blocks(ray, pending, collector, place, options, n_nodes)
        try:
            for row in blocks.iter_rows():
                if row["problem"]:
                    raise getattr(errors, row["kind"], QaevalError)(row["problem"])
                collector.collect(int(row["block"]))
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; finished blocks are kept in {place}") from None
        except ray.exceptions.RayError as error:
            raise errors.EndpointError(
                f"the Ray cluster failed: {str(error).strip().splitlines()[-1]}; finished blocks are kept in {place}"
            ) from error
        finally:
            collector.end(endpoints)


def _blocks(
    ray: Any,  # noqa: ANN401 - a module that may be missing
    pending: Sequence[int],
    collector: "_Collector",
    place: str,
    options: RayOptions,
    n_nodes: int,
) -> Any:  # noqa: ANN401 - a dataset
    """Return the numbers of the pending blocks as a dataset that went through both stages."""
    plan, judging = collector.plan, collector.judging
    limits = stage_limits(plan.candidates, judging.judge, options.concurrency)
    numbers = np.asarray(pending)

    def numbered(batch: Mapping[str, Any]) -> dict[str, Any]:
        blank = np.full(len(batch["id"]), "")
        return {"block": numbers[batch["id"]], "problem": blank, "kind": blank}

    def stage(actor: type, name: StageName, *arguments: object) -> dict[str, Any]:
        n_actors = actors_for(limits[name], min(n_nodes, len(pending)))
        limit = limits[name] // n_actors
        # a block at a time loses least when an actor dies; more where a block alone would leave slots empty
        n_blocks = 1 if 4 * limit <= options.block_size else 2 + limit // options.block_size
        work = Work(
            place=place,
            limit=limit,
            n_blocks=n_blocks,
            outage_s=options.outage_s,
            allow_external=options.allow_external,
            is_start=not collector.has_rows,
        )
        return {
            "fn": actor,
            "fn_constructor_args": (work, *arguments),
            "batch_size": 1,
            "num_cpus": _CPUS,
            "compute": ray.data.ActorPoolStrategy(
                size=n_actors,
                max_tasks_in_flight_per_actor=n_blocks + 1,
                max_concurrent_calls_per_actor=n_blocks,
            ),
        }

    dataset = ray.data.range(len(pending), override_num_blocks=min(len(pending), _MAX_READ_TASKS))
    return (
        dataset.map_batches(numbered, batch_size=None, num_cpus=_CPUS)
        .map_batches(**stage(GenerateBlocks, "generate", plan.candidates, plan.definition))
        .map_batches(**stage(GradeBlocks, "grade", judging, collector.settings))
    )


def actors_for(limit: int, most: int) -> int:
    """Return for how many actors of equal share the most of a limit is used, of half the possible number or more.

    Args:
        limit: Requests in flight of the stage.
        most: Actors at most: nodes, or blocks where those are fewer.
    """
    most = max(1, min(limit, most))
    return max(range((most + 1) // 2, most + 1), key=lambda n: (n * (limit // n), n))


def stage_limits(
    candidates: Sequence[ModelSpec], judge: ModelSpec, concurrency: int | None
) -> dict[StageName, int]:
    """Return the requests in flight of each stage, over all its actors.

    Both stages run at the same time. Where the judge shares a server with a candidate they share the number too, so that
    no server has more requests in flight than it allows.

    Args:
        candidates: Who answers.
        judge: Who grades.
        concurrency: Requests in flight; None: 64 for each server.

    Raises:
        UsageError: the stages share one request.
    """
    shares = any(urls(judge) & urls(spec) for spec in candidates)
    if concurrency is None:
        own = {"generate": sum(map(_default_limit, candidates)), "grade": _default_limit(judge)}
        halved = {name: max(1, limit // 2) for name, limit in own.items()}
        return {"generate": halved["generate"], "grade": halved["grade"]} if shares else {**own}  # type: ignore[dict-item]
    if not shares:
        return {"generate": concurrency, "grade": concurrency}
    if concurrency < 2:
        raise UsageError(
            f"--concurrency {concurrency}: candidates and judge have one server and work at the same time on Ray; expected 2 "
            f"or more"
        )
    return {"generate": concurrency - concurrency // 2, "grade": concurrency // 2}


def _default_limit(spec: ModelSpec) -> int:
    if spec.in_process:
        return _IN_PROCESS
    return HOSTED_CONCURRENCY if spec.kind == "hosted" else PER_SERVER * (1 + len(spec.replicas))


def _endpoints(specs: Sequence[ModelSpec], allow_external: tuple[str, ...]) -> dict[str, Endpoint]:
    """Probe all models from here; every actor does so too, from its node."""

    async def resolved() -> dict[str, Endpoint]:
        return {
            spec.name: await resolve(spec, api_key=api_key(spec), allow_external=allow_external)
            for spec in specs
        }

    return asyncio.run(resolved())


# ---------------------------------------------------------------- the cluster


@contextmanager
def _cluster(options: RayOptions) -> Iterator[Any]:
    """Connect to the cluster, or start one on this machine, while the block runs.

    Raises:
        UsageError: Ray is not installed.
        EndpointError: the cluster cannot be reached, or is outside the user's network.
    """
    if options.address not in {None, "auto", "local"}:
        check_host(
            f"http://{str(options.address).removeprefix('ray://')}", allow_external=options.allow_external
        )
    quiet_ray()
    try:
        import ray  # noqa: PLC0415 - takes a second, and needs an extra
        import ray.data  # noqa: PLC0415 - the same
    except ImportError as error:
        raise UsageError(f"--backend ray needs Ray: {install_command('ray')} ({error})") from error
    own = {"object_store_memory": _LOCAL_OBJECT_STORE, "include_dashboard": False}
    try:
        ray.init(
            address=options.address or "local",
            logging_level="ERROR",
            log_to_driver=False,
            **({} if options.address else own),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise errors.EndpointError(
            f"--ray-address {options.address}: expected the address of a running Ray cluster, HOST:PORT, got: {error}"
        ) from error
    try:
        # the progress is that of a run on one machine
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray").setLevel(logging.ERROR)
        yield ray
    finally:
        ray.shutdown()


def _require_workers(
    ray: Any,  # noqa: ANN401 - a module that may be missing
    place: str,
    location: Location,
    allow_external: tuple[str, ...],
) -> int:
    """Check that all nodes that work see the place of the blocks, with this version of qaeval; return their number.

    Raises:
        UsageError: one of them does not; the message names it and says what to do.
    """
    token = f"{digest(now())[:16]}{np.random.default_rng().integers(1 << 62):016x}"
    name = f"seen-by-all/{token}"
    location.create(name, token.encode())
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not nodes:
        raise UsageError("the Ray cluster has no node with a CPU that works could run on")
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    task = ray.remote(num_cpus=0, max_retries=1)(_look)
    looks = {
        node["NodeManagerAddress"]: task.options(
            scheduling_strategy=strategy(node["NodeID"], soft=False)
        ).remote(place, name, allow_external)
        for node in nodes
    }
    for address, look in looks.items():
        try:
            version, seen, problem = ray.get(look)
        except ray.exceptions.RayError as error:
            raise UsageError(
                f"Ray node {address}: qaeval does not start there: {str(error).strip().splitlines()[-1]}; install qaeval "
                f"{__version__} with the extra `ray` on all nodes"
            ) from error
        if version != __version__:
            raise UsageError(f"Ray node {address}: expected qaeval {__version__}, got {version}")
        if seen != token:
            raise UsageError(_not_shared(place, address, problem))
    if isinstance(location, Folder):
        shutil.rmtree(location.path / "seen-by-all", ignore_errors=True)
    return len(nodes)


def _look(place: str, name: str, allow_external: tuple[str, ...]) -> tuple[str, str, str]:
    """Read a file of the place on a node: return qaeval's version there, the content, and the problem."""
    try:
        content = b"".join(find_location(place, allow_external=allow_external).blocks(name))
    except QaevalError as error:
        return __version__, "", str(error)
    return __version__, content.decode(), ""


def _not_shared(place: str, address: str, problem: str) -> str:
    if place.startswith("s3:"):
        return f"Ray node {address}: cannot read the location of the blocks: {problem}; all nodes need the keys in their environment"
    return (
        f"{place}: Ray node {address} does not see what this process writes there, so the nodes share no disk. Name a location "
        f"that all of them see: --ray-store s3://BUCKET/PREFIX, or a folder on a volume that all nodes mount"
    )


# ---------------------------------------------------------------- rows


class _Collector:
    """Appends the rows of finished blocks to the run directory, each once; a context manager.

    Args:
        store: The open run directory.
        plan: Samples and candidates.
        judging: Judge and rubric.
        files: Of the blocks.
        block_size: Samples of a block.
        progress: Notified of every row.
    """

    def __init__(
        self,
        store: RunStore,
        plan: Plan,
        judging: Judging,
        files: BlockFiles,
        block_size: int,
        progress: Progress,
    ) -> None:
        self.plan, self.judging, self.files = plan, judging, files
        self.settings = store.settings()
        self._store, self._progress = store, progress
        self._slices = slices(plan.samples, block_size)
        # a failure for a passing reason is a row too: the engine asks again at the end, not every resumed run on Ray
        self._had = {name: _task_ids(store.path / name) for name in (GENERATIONS, GRADES)}
        self._open = ExitStack()
        self._bars: dict[tuple[StageName, str], StageProgress] = {}
        self._n_rows: dict[tuple[StageName, str], int] = {}
        self._started, self._start_s = "", 0.0

    def __enter__(self) -> Self:
        self._before: ReplyIndex = self._open.enter_context(self._store.replies())
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def has_rows(self) -> bool:
        """Whether the run had a row when it was opened."""
        return len(self._had[GENERATIONS]) > 0

    @property
    def job(self) -> str:
        """Digest of the run, and of the way it is cut into blocks."""
        return digest([self.settings, [(part.start, part.stop) for part in self._slices]])

    def samples(self, block: int) -> Sequence[Sample]:
        """Return the samples of a block."""
        return self.plan.samples[self._slices[block]]

    def pending(self) -> list[int]:
        """Return the blocks that have a task without a row."""
        return [block for block in range(len(self._slices)) if not self._is_collected(block)]

    def _is_collected(self, block: int) -> bool:
        replied, graded = self._had[GENERATIONS], self._had[GRADES]
        judge = self.judging.judge.name
        return self.has_rows and all(
            all(generate.task_id(spec.name, sample.sample_id) in replied for spec in self.plan.candidates)
            and all(
                task.task_id in graded
                for task in grade.tasks(judge, sample, self._before.of(sample.sample_id))
            )
            for sample in self.samples(block)
        )

    def begin(self) -> None:
        """Begin the stages, before the first row."""
        self._store.drop_manifest()
        self._started, self._start_s = now(), perf_counter()
        n_samples, judge = len(self.plan.samples), self.judging.judge.name
        for spec in self.plan.candidates:
            n_done = sum(
                generate.task_id(spec.name, sample.sample_id) in self._had[GENERATIONS]
                for sample in self.plan.samples
            )
            self._bar("generate", spec.name, n_samples, n_done)
        n_items = n_samples * len(self.plan.candidates) * self.plan.definition.items_per_sample
        self._bar("grade", judge, n_items, len(self._had[GRADES]))
        self._replies = self._open.enter_context(self._store.writer(GENERATIONS))
        self._letters = self._open.enter_context(self._store.writer(GRADES))

    def _bar(self, stage: StageName, model: str, total: int, done: int) -> None:
        self._bars[stage, model] = self._progress.stage(stage, model, total=total, done=done)
        self._n_rows[stage, model] = 0

    def collect(self, block: int) -> None:
        """Append the rows of a finished block that the run does not have.

        Raises:
            DataError: the block has no rows, although its stages ended.
            StoreError: a row cannot be read or written.
        """
        replies, letters = self.files.replies(block), self.files.letters(block)
        if replies is None or letters is None:
            raise DataError(
                f"{self.files.location.name}: block {block} has no rows, although it was worked on; was the place changed?"
            )
        # an earlier process may have collected a part of the block, or asked again what had failed
        items = {
            item.item_id
            for sample in (self.samples(block) if len(self._before) else ())
            for row in self._before.of(sample.sample_id)
            for item in row.items
        }
        judge = self.judging.judge.name
        n_letters = 0
        for reply in replies:
            if reply.task_id in self._had[GENERATIONS]:
                continue
            self._replies.append(reply)
            self._count("generate", reply.model if isinstance(reply, Failure) else reply.candidate, reply)
            if isinstance(reply, Generation):
                items.update(item.item_id for item in reply.items)
            n_letters += self.plan.definition.items_per_sample
        for letter in letters:
            if letter.task_id not in self._had[GRADES] and letter.item_id in items:
                self._letters.append(letter)
                self._count("grade", judge, letter)
                n_letters -= 1
        if n_letters:  # failed replies, and items that two candidates wrote
            self._bars["grade", judge].skip(n_letters)

    def _count(self, stage: StageName, model: str, row: Any) -> None:  # noqa: ANN401 - a row of either stage
        self._bars[stage, model].row(row)
        self._n_rows[stage, model] += 1

    def end(self, endpoints: Mapping[str, Endpoint]) -> None:
        """End the stages, and write their sessions."""
        seconds = perf_counter() - self._start_s
        with self._store.writer(SESSIONS) as sessions:
            for (stage, model), n_rows in self._n_rows.items():
                self._bars[stage, model].end()
                sessions.append(
                    session_of(
                        endpoints[model],
                        stage=stage,
                        started=self._started,
                        seconds=seconds,
                        n_tasks=n_rows,
                        alongside=True,
                        stored=self.files.location.external,
                        prompt_sha=grade.prompt_sha(endpoints[model].spec) if stage == "grade" else "",
                    )
                )


def _task_ids(path: Path) -> Finished:
    ids = array("Q", read_rows(path, _task_id))
    return Finished(np.asarray(ids, dtype=np.uint64))


def _task_id(line: bytes) -> int:
    return int(orjson.loads(line)["task_id"], 16)
