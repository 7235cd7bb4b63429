"""`qaeval compare --backend ray` on a cluster of two workers that loses nodes, actors and its driver."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from ray_cluster import BLOCK, ITEMS, LIMIT, N_CHUNKS, Cluster, Run, done, stopped_at_the_end, until

from sharding import KEYS, in_order, rows_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

FILES = ("samples.jsonl", "generations.jsonl", "grades.jsonl")
FORTY_PERCENT = int(0.4 * N_CHUNKS)


def rows(run: Path) -> dict[str, list[bytes]]:
    """Rows in the order of samples; fails where a row is missing, or there twice."""
    own = rows_of(run)
    for name in FILES:
        assert len({json.loads(line).get("task_id", line) for line in own[name]}) == len(own[name]), name
    ordered = in_order(own)
    return {name: ordered[name] for name in FILES}


def asked(run: Run) -> int:
    return len(run.generator.requests)


def test_the_rows_are_those_of_one_machine_and_no_server_has_more_in_flight_than_named(
    workers: Cluster, run: Run, whole: Path
) -> None:
    done(run.on_ray(workers, "ray"))
    assert rows(run.folder / "ray") == rows(whole)
    assert (run.generator.most_in_flight, run.judge.most_in_flight) == (LIMIT, LIMIT)
    assert run.repeated() == (0, 0)
    failures = [
        row
        for line in rows(run.folder / "ray")["generations.jsonl"]
        if (row := json.loads(line))["kind"] == "failure"
    ]
    # the poisoned chunk is a failure row, and its neighbours in the block have their items
    assert [row["reason"] for row in failures] == ["invalid_json"]
    assert not (run.folder / "ray" / "blocks").exists()
    settings = [json.loads((path / "settings.json").read_text()) for path in (run.folder / "ray", whole)]
    assert settings[0] == settings[1]


def test_a_node_that_dies_costs_the_requests_of_a_block_of_each_stage(
    workers: Cluster, run: Run, whole: Path
) -> None:
    process = run.on_ray(workers, "ray")
    with stopped_at_the_end(process):
        until(lambda: asked(run) >= FORTY_PERCENT, process)
        workers.kill_worker()
        done(process)
    assert rows(run.folder / "ray") == rows(whole)
    replies, letters = run.repeated()
    assert replies <= BLOCK
    assert letters <= BLOCK * ITEMS


def test_an_actor_that_dies_costs_the_requests_of_a_block(workers: Cluster, run: Run, whole: Path) -> None:
    process = run.on_ray(workers, "ray")
    with stopped_at_the_end(process):
        until(lambda: asked(run) >= FORTY_PERCENT, process)
        os.kill(workers.actors("GenerateBlocks")[0], signal.SIGKILL)
        done(process)
    assert rows(run.folder / "ray") == rows(whole)
    replies, letters = run.repeated()
    assert replies <= BLOCK
    assert letters == 0


def test_a_driver_that_dies_is_resumed_from_a_store_that_all_nodes_see(
    workers: Cluster, run: Run, whole: Path, chunks: Path
) -> None:
    import boto3  # noqa: PLC0415 - slow to import

    client = boto3.client(
        "s3",
        endpoint_url=workers.store_url,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    client.upload_file(str(chunks), "results", "corpus/chunks.jsonl")
    run.chunks = "s3://results/corpus/chunks.jsonl"
    store = ("--ray-store", "s3://results/blocks")
    process = run.on_ray(workers, "ray", *store)
    with stopped_at_the_end(process):
        until(lambda: asked(run) >= FORTY_PERCENT, process)
    n_before = asked(run)
    done(run.on_ray(workers, "ray", *store, "--resume"))
    assert rows(run.folder / "ray") == rows(whole)
    assert n_before < asked(run)
    # all actors die with the driver: two of each stage
    replies, letters = run.repeated()
    assert replies <= 2 * BLOCK
    assert letters <= 2 * BLOCK * ITEMS
    folders = {
        entry["Key"].split("/")[1]
        for entry in client.list_objects(Bucket="results", Prefix="blocks/")["Contents"]
    }
    client.close()
    assert folders >= {"job.json", "blocks", "replies", "letters"}


def test_a_place_that_workers_do_not_see_is_refused_with_the_way_on(workers: Cluster, run: Run) -> None:
    (run.folder / "place").mkdir()
    # a path that leads every process to a folder of its own
    process = run.on_ray(workers, "ray", "--ray-store", "/proc/self/cwd/place")
    _, said = process.communicate(timeout=400)
    assert process.returncode == 64, said
    assert "does not see" in said
    assert "--ray-store s3://BUCKET/PREFIX" in said
    assert not (run.folder / "ray").exists(), "nothing was begun"
    assert all("bar and closes after" not in json.dumps(body) for body in run.generator.requests)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://nowhere/chunks.jsonl", "NoSuchBucket"),
        ("s3://results/none.jsonl", "s3://results/none.jsonl: no such file"),
    ],
)
def test_a_wrong_bucket_or_key_is_named_before_any_work(
    workers: Cluster, run: Run, address: str, message: str
) -> None:
    run.chunks = address
    process = run.on_ray(workers, "ray")
    _, said = process.communicate(timeout=120)
    assert process.returncode in {65, 74}
    assert message in said
    assert run.generator.requests == []
    assert not (run.folder / "ray").exists()
    shutil.rmtree(run.folder / "results", ignore_errors=True)
