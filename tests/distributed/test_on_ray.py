"""`qaeval compare --backend ray` on a cluster of two workers that loses nodes, actors and its driver."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from ray_cluster import (
    BLOCK,
    ITEMS,
    LIMIT,
    N_CHUNKS,
    Cluster,
    Run,
    kill_at_exit,
    wait_for_success,
    wait_until,
)

from sharding import KEYS, in_order, rows_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

FILES = ("samples.jsonl", "generations.jsonl", "grades.jsonl")
FORTY_PERCENT = int(0.4 * N_CHUNKS)


def ordered_rows(run: Path) -> dict[str, list[bytes]]:
    """Rows in the order of the samples; fails if a row is missing or duplicated."""
    file_rows = rows_of(run)
    for name in FILES:
        assert len({json.loads(line).get("task_id", line) for line in file_rows[name]}) == len(
            file_rows[name]
        ), name
    ordered = in_order(file_rows)
    return {name: ordered[name] for name in FILES}


def count_generator_requests(run: Run) -> int:
    return len(run.generator.requests)


def test_ray_writes_the_rows_of_one_machine_within_the_request_limits(
    workers: Cluster, run: Run, reference_run: Path
) -> None:
    wait_for_success(run.start_on_ray(workers, "ray"))
    assert ordered_rows(run.folder / "ray") == ordered_rows(reference_run)
    # never more; a busy machine may start the last request of a few after the first one's reply
    assert LIMIT // 2 < run.generator.most_in_flight <= LIMIT
    assert LIMIT // 2 < run.judge.most_in_flight <= LIMIT
    assert run.count_repeated_requests() == (0, 0)
    failures = [
        row
        for line in ordered_rows(run.folder / "ray")["generations.jsonl"]
        if (row := json.loads(line))["kind"] == "failure"
    ]
    # the poisoned chunk is a failure row, and its neighbours in the block have their items
    assert [row["reason"] for row in failures] == ["invalid_json"]
    assert not (run.folder / "ray" / "blocks").exists()
    settings = [
        json.loads((path / "settings.json").read_text()) for path in (run.folder / "ray", reference_run)
    ]
    assert settings[0] == settings[1]


def test_a_dead_node_repeats_at_most_one_block_per_stage(
    workers: Cluster, run: Run, reference_run: Path
) -> None:
    process = run.start_on_ray(workers, "ray")
    with kill_at_exit(process):
        wait_until(lambda: count_generator_requests(run) >= FORTY_PERCENT, process)
        workers.kill_worker()
        wait_for_success(process)
    assert ordered_rows(run.folder / "ray") == ordered_rows(reference_run)
    replies, letters = run.count_repeated_requests()
    assert replies <= BLOCK
    assert letters <= BLOCK * ITEMS


def test_a_dead_actor_repeats_at_most_one_block(workers: Cluster, run: Run, reference_run: Path) -> None:
    process = run.start_on_ray(workers, "ray")
    with kill_at_exit(process):
        wait_until(lambda: count_generator_requests(run) >= FORTY_PERCENT, process)
        os.kill(workers.actors("GenerateBlocks")[0], signal.SIGKILL)
        wait_for_success(process)
    assert ordered_rows(run.folder / "ray") == ordered_rows(reference_run)
    replies, letters = run.count_repeated_requests()
    assert replies <= BLOCK
    assert letters == 0


def test_a_dead_driver_is_resumed_from_the_shared_store(
    workers: Cluster, run: Run, reference_run: Path, chunks: Path
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
    process = run.start_on_ray(workers, "ray", *store)
    with kill_at_exit(process):
        wait_until(lambda: count_generator_requests(run) >= FORTY_PERCENT, process)
    n_before = count_generator_requests(run)
    wait_for_success(run.start_on_ray(workers, "ray", *store, "--resume"))
    assert ordered_rows(run.folder / "ray") == ordered_rows(reference_run)
    assert n_before < count_generator_requests(run)
    # all actors die with the driver: two of each stage
    replies, letters = run.count_repeated_requests()
    assert replies <= 2 * BLOCK
    assert letters <= 2 * BLOCK * ITEMS
    folders = {
        entry["Key"].split("/")[1]
        for entry in client.list_objects(Bucket="results", Prefix="blocks/")["Contents"]
    }
    client.close()
    assert folders >= {"job.json", "blocks", "replies", "letters"}


def test_a_store_invisible_to_workers_is_refused_with_advice(workers: Cluster, run: Run) -> None:
    (run.folder / "place").mkdir()
    # a path that resolves to a different folder in each process
    process = run.start_on_ray(workers, "ray", "--ray-store", "/proc/self/cwd/place")
    _, stderr = process.communicate(timeout=400)
    assert process.returncode == 64, stderr
    assert "does not see" in stderr
    assert "--ray-store s3://BUCKET/PREFIX" in stderr
    assert not (run.folder / "ray").exists(), "the run must not have started"
    assert all("bar and closes after" not in json.dumps(body) for body in run.generator.requests)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://nowhere/chunks.jsonl", "bucket does not exist"),
        ("s3://results/none.jsonl", "s3://results/none.jsonl: no such file"),
    ],
)
def test_a_wrong_bucket_or_key_is_named_before_any_work(
    workers: Cluster, run: Run, address: str, message: str
) -> None:
    run.chunks = address
    process = run.start_on_ray(workers, "ray")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode in {65, 74}
    assert message in stderr
    assert run.generator.requests == []
    assert not (run.folder / "ray").exists()
    shutil.rmtree(run.folder / "results", ignore_errors=True)
