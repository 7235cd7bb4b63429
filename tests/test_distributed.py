"""The parts of a run on Ray that can be tested without Ray: blocks, limits, actors and chunk files."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command import qaeval
from qaeval import api
from qaeval.distributed.actors import GenerateBlocks, GradeBlocks, Work, spread
from qaeval.distributed.blocks import BlockFiles, slices
from qaeval.distributed.driver import actors_for, stage_limits
from qaeval.distributed.inputs import chunk_file
from qaeval.errors import DataError, NotComparableError, UsageError
from qaeval.evals.find import find_eval, find_rubric
from qaeval.records import Chunk, Failure, Generation, Sample
from qaeval.registry.config import ModelSpec
from qaeval.registry.find import find_config
from qaeval.run.plan import Judging
from qaeval.storage.location import Folder
from replay.server import LoopbackServer


def make_samples(*documents: str) -> tuple[Sample, ...]:
    return tuple(
        Sample.of(
            Chunk(chunk_id=f"c{number}", text=f"Valve {number} opens at {number} bar.", document=document)
        )
        for number, document in enumerate(documents)
    )


def slice_sizes(documents: Sequence[str], size: int) -> list[int]:
    return [part.stop - part.start for part in slices(make_samples(*documents), size)]


def test_blocks_end_at_documents_and_long_documents_are_split() -> None:
    assert slice_sizes("aaabbbbcc", 2) == [3, 4, 2]
    assert slice_sizes("aaabbbbcc", 4) == [7, 2]
    assert slice_sizes("a" * 23, 4) == [10, 10, 3]
    assert slice_sizes([""] * 9, 4) == [4, 4, 1], "samples without documents"
    assert slice_sizes("a", 4) == [1]


def test_the_first_writer_of_a_block_wins(tmp_path: Path) -> None:
    files = BlockFiles(Folder(tmp_path))
    first, second = (
        Failure(task_id="1", stage="generate", model="m", sample_id="s", reason="empty", detail=detail)
        for detail in ("first", "second")
    )
    assert files.replies(3) is None
    files.write_replies(3, [first])
    files.write_replies(3, [second])
    assert files.replies(3) == [first]


def test_a_damaged_block_is_an_error(tmp_path: Path) -> None:
    files = BlockFiles(Folder(tmp_path))
    files.write_letters(0, [])
    (tmp_path / "letters" / "000000.jsonl").write_text('{"kind": "grade"}\n')
    with pytest.raises(DataError, match=r"letters/000000\.jsonl:1: not a valid row"):
        files.letters(0)


def test_a_location_belongs_to_one_run(tmp_path: Path) -> None:
    files = BlockFiles(Folder(tmp_path))
    files.claim("a run")
    files.claim("a run")
    with pytest.raises(NotComparableError, match="blocks of another run"):
        files.claim("another run")


# ---------------------------------------------------------------- limits


def server_spec(name: str, *urls: str) -> ModelSpec:
    return ModelSpec(name=name, kind="server", url=urls[0], replicas=urls[1:])


A, B, C = (f"http://127.0.0.1:{port}/v1" for port in (8001, 8002, 8003))


def test_stages_with_separate_servers_get_the_full_limit_each() -> None:
    assert stage_limits([server_spec("a", A)], server_spec("j", B), 20) == {"generate": 20, "grade": 20}
    assert stage_limits([server_spec("a", A)], server_spec("j", B, C), None) == {"generate": 64, "grade": 128}


def test_stages_that_share_a_server_share_the_limit() -> None:
    assert stage_limits([server_spec("a", A)], server_spec("j", A), 21) == {"generate": 11, "grade": 10}
    assert stage_limits([server_spec("a", A)], server_spec("j", A), None) == {"generate": 32, "grade": 32}
    assert stage_limits([server_spec("a", A, C)], server_spec("j", C), 21) == {"generate": 11, "grade": 10}
    with pytest.raises(UsageError, match="expected 2 or more"):
        stage_limits([server_spec("a", A)], server_spec("j", A), 1)


def test_each_address_of_a_headless_service_is_a_separate_server() -> None:
    def resolver(_host: str) -> list[str]:
        return ["10.0.0.7", "10.0.0.5", "fd00::5"]

    spec = spread(server_spec("a", "http://vllm.eval.svc:8000/v1"), allow_external=(), resolver=resolver)
    assert (spec.url, spec.replicas) == ("http://10.0.0.5:8000/v1", ("http://10.0.0.7:8000/v1",))
    external = spread(
        server_spec("a", "http://llm.example.org/v1"),
        allow_external=("llm.example.org",),
        resolver=lambda _host: ["93.184.216.34", "93.184.216.35"],
    )
    assert (external.url, external.replicas) == ("http://llm.example.org/v1", ())
    single = spread(server_spec("a", A), allow_external=(), resolver=lambda _host: ["127.0.0.1", "::1"])
    assert single.url == A
    https_spec = spread(server_spec("a", "https://vllm.svc/v1"), allow_external=(), resolver=resolver)
    assert (https_spec.url, https_spec.replicas) == ("https://vllm.svc/v1", ())


# ---------------------------------------------------------------- actors


async def run_blocks(actor: Any, *blocks: int) -> list[dict[str, Any]]:
    batch = {
        "block": np.array(blocks),
        "problem": np.array([""] * len(blocks)),
        "kind": np.array([""] * len(blocks)),
    }
    return [{name: value[0] for name, value in row.items()} async for row in actor(batch)]


def make_work(location: Path, **options: Any) -> Work:
    settings = {"limit": 2, "n_blocks": 1, "outage_s": 1.0, "allow_external": (), "is_start": False}
    return Work(place=str(location), **{**settings, **options})


def make_judging() -> Judging:
    definition = find_eval("qa_pairs")
    return Judging(find_config(None).judge("selene"), find_rubric(definition.rubric))


async def test_actors_write_a_row_per_task_and_repeat_no_request(tmp_path: Path) -> None:
    files, definition = BlockFiles(Folder(tmp_path)), find_eval("qa_pairs")
    files.write_samples(0, make_samples("a", "a", "b"))
    with LoopbackServer(["mistral", "selene"], latency_s=0.01) as server:
        config = find_config(None).with_endpoints({"mistral": server.url, "selene": server.url})
        judging = Judging(config.judge("selene"), find_rubric(definition.rubric))
        candidates = [config.candidate("mistral")]
        first, second = (GenerateBlocks(make_work(tmp_path), candidates, definition) for _ in "12")
        assert await run_blocks(first, 0) == [{"block": 0, "problem": "", "kind": ""}]
        replies = files.replies(0)
        assert replies is not None
        assert [row.sample_id for row in replies] == [
            sample.sample_id for sample in make_samples("a", "a", "b")
        ]
        assert server.most_in_flight == 2
        n_asked = len(server.requests)
        await run_blocks(second, 0)
        probes = len(server.requests) - n_asked
        settings = {"eval": definition.model_dump(mode="json")}
        await run_blocks(GradeBlocks(make_work(tmp_path), judging, settings), 0)
        letters = files.letters(0)
        assert letters is not None
        assert [row.item_id for row in letters] == [
            item.item_id for row in replies if isinstance(row, Generation) for item in row.items
        ]
        for actor in (first, second):
            await actor.close()
    # the second actor only probed the server
    assert n_asked == probes + 3


async def test_an_internal_error_on_a_sample_is_one_failure_row(tmp_path: Path) -> None:
    files, definition = BlockFiles(Folder(tmp_path)), find_eval("qa_pairs")
    files.write_samples(0, make_samples("a", "a", "b"))
    actor = GenerateBlocks(make_work(tmp_path), [find_config(None).candidate("embedded-lead")], definition)
    ask = actor._ask
    poisoned = make_samples("a", "a", "b")[1].sample_id

    async def stumbling(task: Any) -> Any:
        if task.sample.sample_id == poisoned:
            raise KeyError("no such thing")
        return await ask(task)

    actor._ask = stumbling  # type: ignore[method-assign]
    assert (await run_blocks(actor, 0))[0]["problem"] == ""
    rows = files.replies(0)
    assert rows is not None
    assert [row.reason if isinstance(row, Failure) else "" for row in rows] == ["", "internal", ""]
    assert isinstance(rows[1], Failure)
    assert "KeyError" in rows[1].detail


async def test_an_unreachable_server_is_a_problem_of_the_block_without_rows(tmp_path: Path) -> None:
    files, definition = BlockFiles(Folder(tmp_path)), find_eval("qa_pairs")
    files.write_samples(0, make_samples("a"))
    config = find_config(None).with_endpoints({"mistral": "http://127.0.0.1:9/v1"})
    actor = GenerateBlocks(make_work(tmp_path), [config.candidate("mistral")], definition)
    (result,) = await run_blocks(actor, 0)
    assert result["kind"] == "EndpointError"
    assert "127.0.0.1:9" in result["problem"]
    assert files.replies(0) is None
    # the next stage passes the problem on and sends no request
    batch = {name: np.array([value]) for name, value in result.items()}
    grader = GradeBlocks(make_work(tmp_path), make_judging(), {"eval": definition.model_dump(mode="json")})
    assert [row["problem"][0] async for row in grader(batch)] == [result["problem"]]


async def test_every_actor_applies_the_network_guard(tmp_path: Path) -> None:
    files, definition = BlockFiles(Folder(tmp_path)), find_eval("qa_pairs")
    files.write_samples(0, make_samples("a"))
    config = find_config(None).with_endpoints({"mistral": "http://1.1.1.1:8000/v1"})
    actor = GenerateBlocks(make_work(tmp_path), [config.candidate("mistral")], definition)
    (result,) = await run_blocks(actor, 0)
    assert result["kind"] == "EndpointError"
    assert "outside your own network" in result["problem"]


# ---------------------------------------------------------------- chunk files


def test_a_parquet_file_gives_one_chunk_per_row(tmp_path: Path) -> None:
    rows = [
        {"id": "c1", "content": "Ein Ventil öffnet.", "page": 3},
        {"id": "c2", "content": "Zwei.", "page": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chunks.parquet")
    with chunk_file(tmp_path / "chunks.parquet", allow_external=()) as lines:
        assert lines is not None
        assert [json.loads(line) for line in lines.read_text().splitlines()] == [
            rows[0],
            {"id": "c2", "content": "Zwei."},
        ]
    assert not lines.exists()


def test_generate_reads_a_parquet_file(tmp_path: Path) -> None:
    rows = [
        {
            "chunk_id": f"c{number}",
            "text": f"Pump {number} starts at {number} bar. It stops at {number + 2} bar.",
        }
        for number in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chunks.parquet")
    run = api.generate(
        "embedded-lead", eval_name="qa_pairs", chunks=tmp_path / "chunks.parquet", out=tmp_path / "run"
    )
    samples = [json.loads(line) for line in (run.path / "samples.jsonl").read_text().splitlines()]
    assert [sample["chunk"]["chunk_id"] for sample in samples] == ["c0", "c1", "c2"]


@pytest.mark.parametrize("name", ["none.parquet", "text.parquet"])
def test_an_invalid_parquet_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.parquet").write_text("chunk")
    with pytest.raises(DataError, match=name), chunk_file(tmp_path / name, allow_external=()):
        pass


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray-address", "127.0.0.1:6379"], "add --backend ray"),
        (["--backend", "ray", "--shard", "0/2"], "distributes a run itself"),
        (["--backend", "ray", "--ray-address", "1.1.1.1:6379"], "outside your own network"),
        (["--backend", "ray", "--ray-block", "501"], "expected a number of at most 500"),
    ],
)
def test_contradictory_options_are_refused_before_any_work(
    tmp_path: Path, options: list[str], message: str
) -> None:
    process = qaeval("compare", "embedded-lead", "--n", 2, "--out", tmp_path / "run", *options, cwd=tmp_path)
    assert process.returncode in {64, 69}, process.stderr
    assert message in process.stderr
    assert not (tmp_path / "run").exists()


def test_a_shared_limit_of_one_is_refused_before_the_run_directory_exists(tmp_path: Path) -> None:
    with LoopbackServer(["mistral", "selene"]) as server:
        endpoints = (f"--endpoint=mistral={server.url}", f"--endpoint=selene={server.url}")
        limits = ("--backend", "ray", "--concurrency", 1)
        models = ("mistral", "--judge", "selene", "--allow-same-family")
        process = qaeval(
            "compare", *models, *endpoints, *limits, "--n", 2, "--out", tmp_path / "run", cwd=tmp_path
        )
    assert process.returncode == 64
    assert "expected 2 or more" in process.stderr
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_server_is_refused_on_ray(tmp_path: Path) -> None:
    with LoopbackServer(["mistral"]) as server:
        endpoint = f"mistral={server.url}"
        arguments = ("compare", "mistral", "--judge", "embedded-lexical", "--endpoint", endpoint, "--n", 2)
        process = qaeval(*arguments, "--out", tmp_path / "run", "--backend", "ray", cwd=tmp_path)
    assert process.returncode == 64
    assert "needs Ray: pip install" in process.stderr


async def test_the_block_that_started_first_has_precedence(
    tmp_path: Path,
) -> None:
    files, definition = BlockFiles(Folder(tmp_path)), find_eval("qa_pairs")
    blocks = (
        make_samples(*"a" * 9),
        tuple(Sample.of(Chunk(chunk_id=f"d{n}", text=f"Pump {n}.")) for n in range(9)),
    )
    for number, block in enumerate(blocks):
        files.write_samples(number, block)
    actor = GenerateBlocks(
        make_work(tmp_path, n_blocks=2), [find_config(None).candidate("embedded-lead")], definition
    )
    started_ids: list[str] = []

    async def ask(task: Any) -> Any:
        started_ids.append(task.sample.chunk.chunk_id)
        await asyncio.sleep(0.001)
        return Failure(
            task_id=task.task_id, stage="generate", model="m", sample_id="s", reason="empty", detail=""
        )

    actor._ask = ask  # type: ignore[method-assign]
    await asyncio.gather(run_blocks(actor, 0), run_blocks(actor, 1))
    first = "c" if started_ids[0].startswith("c") else "d"
    # the second block starts only when the first one leaves a slot free, at its end
    assert sum(name.startswith(first) for name in started_ids[:9]) >= 8


@pytest.mark.parametrize(
    ("limit", "n_blocks", "expected"), [(64, 40, 32), (7, 4, 3), (64, 4, 4), (2, 9, 2), (1, 5, 1), (12, 1, 1)]
)
def test_the_number_of_actors_depends_on_the_limit(limit: int, n_blocks: int, expected: int) -> None:
    assert actors_for(limit, n_blocks) == expected
