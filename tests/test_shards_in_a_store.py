"""Shards in an S3-compatible store: the same guarantees, over a protocol that only knows conditional puts."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from command import sockets_of
from qaeval.cli import run
from qaeval.errors import DataError, EndpointError, StoreError, install_command
from qaeval.registry.find import find_config
from qaeval.run.plan import find_judging, make_plan
from qaeval.storage.location import Folder
from qaeval.storage.merge import merge_shards
from qaeval.storage.run_directory import RunStore
from qaeval.storage.shards import Shard, begin, commit
from sharding import KEYS, Answer, Asked, in_front_of, in_order, rows_of, s3_server

if TYPE_CHECKING:
    from qaeval.storage.s3 import Bucket

EMBEDDED = ("embedded-lead", "embedded-salient")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def store(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of its own in the store; the environment leads to it."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": server, "QAEVAL_SHARDS": str(tmp_path / "work")}.items():
        monkeypatch.setenv(name, value)
    return f"s3://results/{tmp_path.name}"


def compare(out: str, shard: str) -> int:
    return run(["compare", *EMBEDDED, "--n", "6", "--out", out, "--shard", shard])


def merge(*arguments: object) -> int:
    return run(["merge", *map(str, arguments)])


def at(*arguments: Any, **options: Any) -> "Bucket":
    from qaeval.storage.s3 import Bucket  # noqa: PLC0415 - 0.4 s that collecting need not take

    return Bucket.at(*arguments, **options)


def bucket(store: str, url: str, work: Path) -> "Bucket":
    return at(store, {**KEYS, "AWS_ENDPOINT_URL": url}, allow_external=(), work=work)


@pytest.mark.slow
def test_the_rows_of_shards_in_a_store_are_those_of_one_run(store: str, tmp_path: Path) -> None:
    assert run(["compare", *EMBEDDED, "--n", "6", "--out", str(tmp_path / "whole")]) == 0
    for index in range(2):
        assert compare(f"{store}/shards", f"{index}/2") == 0
    assert list((tmp_path / "work").rglob("*.jsonl")) == [], "the store has what the local folder had"
    assert merge(f"{store}/shards/", "--out", tmp_path / "merged") == 0
    assert rows_of(tmp_path / "merged") == in_order(rows_of(tmp_path / "whole"))
    # merged into the store and out of it again
    for _ in ("once", "and again"):
        assert merge(f"{store}/shards", "--out", f"{store}/merged") == 0
    assert merge(f"{store}/merged", "--out", tmp_path / "fetched") == 0
    assert rows_of(tmp_path / "fetched") == rows_of(tmp_path / "merged")


@pytest.mark.slow
def test_a_merge_into_a_store_does_not_replace_another_run(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(f"{store}/one", "0/1") == 0
    assert compare(f"{store}/other", "0/1") == 0
    assert merge(f"{store}/one", "--out", f"{store}/merged") == 0
    assert merge(f"{store}/other", "--out", f"{store}/merged") == 64
    assert "holds something else" in capsys.readouterr().err


@pytest.mark.slow
def test_a_committed_shard_is_not_asked_again_and_a_changed_one_is_refused(
    store: str, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(store, "0/1") == 0
    location = bucket(store, server, tmp_path)
    committed = b"".join(location.blocks("_committed/0000.json"))
    assert compare(store, "0/1") == 0
    assert b"".join(location.blocks("_committed/0000.json")) == committed
    mark = json.loads(committed)
    file = f"shard=0000/{mark['attempt']}/grades.jsonl"
    changed = tmp_path / "grades.jsonl"
    changed.write_bytes(b"".join(location.blocks(file)).replace(b'"A"', b'"B"', 1))
    location.put(changed, file)
    assert merge(store, "--out", tmp_path / "merged") == 65
    assert f"{store}/{file}: expected the sha256" in capsys.readouterr().err


def attempts(location: "Bucket", n: int) -> list[RunStore]:
    plan = make_plan(find_config(None), EMBEDDED, eval_name="qa_pairs", chunks=None, n=2, seed=0)
    judging = find_judging(
        find_config(None), plan.candidates, judge=None, rubric=plan.definition.rubric
    ).settings()
    begun = [
        begin(location, Shard(0, 1), {**plan.settings(), "grading": judging}, plan.samples) for _ in range(n)
    ]
    assert all(isinstance(store_, RunStore) for store_ in begun)
    return begun  # type: ignore[return-value]


@pytest.mark.slow
def test_of_two_processes_on_one_shard_the_first_that_commits_counts(
    store: str, server: str, tmp_path: Path
) -> None:
    location = bucket(store, server, tmp_path)
    first, second = attempts(location, 2)
    assert commit(location, Shard(0, 1), second.path).record.attempt == second.path.name
    assert commit(location, Shard(0, 1), first.path).record.attempt == second.path.name
    first.close()
    second.close()


@pytest.mark.slow
def test_a_store_that_fails_in_the_middle_of_an_upload_leaves_no_mark(
    store: str,
    server: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_grades(request: Asked) -> Answer | None:
        spoilt = request.method in {"PUT", "POST"} and "grades.jsonl" in request.path
        return Answer.error(403, "AccessDenied") if spoilt else None

    assert compare(store, "0/2") == 0
    with in_front_of(server, no_grades) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert compare(store, "1/2") == 74
        message = capsys.readouterr().err
    assert "grades.jsonl" in message
    assert "to continue: " in message
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    assert merge(store, "--out", tmp_path / "merged") == 65
    assert "committed: 1/2" in capsys.readouterr().err
    # what was made is still here, and is sent without asking again
    (rows,) = (tmp_path / "work").rglob("grades.jsonl")
    before = rows.read_bytes()
    assert compare(store, "1/2") == 0
    assert merge(store, "--out", tmp_path / "merged") == 0
    assert set(before.splitlines()) <= set((tmp_path / "merged" / "grades.jsonl").read_bytes().splitlines())


def test_a_store_without_conditional_puts_is_found_out_before_any_request(
    store: str,
    server: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def forgets(request: Asked) -> Answer | None:
        request.headers.pop("If-None-Match", None)
        return None

    with in_front_of(server, forgets) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert compare(store, "0/1") == 74
    assert "`If-None-Match: *`" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("details", ["", "<Condition>If-None-Match</Condition>"], ids=["bare", "as AWS"])
@pytest.mark.slow
def test_a_refused_condition_means_that_another_one_came_first(
    details: str, store: str, server: str, tmp_path: Path
) -> None:
    def refuse(request: Asked) -> Answer | None:
        return Answer.error(412, "PreconditionFailed", details=details) if request.method == "PUT" else None

    with in_front_of(server, refuse) as url:
        assert bucket(store, url, tmp_path).create("_committed/0000.json", b"x") is False


@pytest.mark.slow
def test_a_put_that_meets_another_one_is_sent_again(store: str, server: str, tmp_path: Path) -> None:
    paths = []

    def conflict_once(request: Asked) -> Answer | None:
        paths.append(request.method)
        return Answer.error(409, "ConditionalRequestConflict") if len(paths) == 1 else None

    with in_front_of(server, conflict_once) as url:
        assert bucket(store, url, tmp_path).create("_committed/0000.json", b"x") is True
    assert paths == ["PUT", "PUT"]


def test_what_a_store_says_is_told_without_the_keys(store: str, server: str, tmp_path: Path) -> None:
    def chatty(_: Asked) -> Answer | None:
        return Answer.error(403, "SignatureDoesNotMatch", f"signed with {' and '.join(KEYS.values())}")

    with in_front_of(server, chatty) as url, pytest.raises(StoreError, match="signed with") as raised:
        bucket(store, url, tmp_path).names("_committed")
    assert "***" in str(raised.value)
    assert not any(secret in str(raised.value) for secret in KEYS.values())


@pytest.mark.parametrize(
    "ask",
    [
        lambda location: location.names("_committed"),
        lambda location: next(location.blocks("_committed/0000.json")),
        lambda location: location.create("_committed/0000.json", b"x"),
    ],
    ids=["list", "read", "write"],
)
def test_a_store_cannot_send_data_elsewhere_by_a_redirect(
    ask: Callable[["Bucket"], object], store: str, server: str, tmp_path: Path
) -> None:
    strangers: list[str] = []

    def stranger(request: Asked) -> Answer:
        strangers.append(request.method)
        return Answer(200, {}, b"")

    with in_front_of(server, stranger) as elsewhere, in_front_of(server, redirect(elsewhere)) as url:
        location = bucket(store, url, tmp_path)
        location.files.config_kwargs["retries"] = {"max_attempts": 0}
        with pytest.raises(StoreError):
            ask(location)
    assert strangers == []


def redirect(elsewhere: str) -> Callable[[Asked], Answer]:
    return lambda request: Answer(307, {"Location": f"{elsewhere}{request.path}"}, b"")


@pytest.mark.usefixtures("store")
@pytest.mark.slow
def test_a_bucket_that_does_not_exist_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("s3://nowhere/run", "0/1") == 74
    assert "bucket does not exist" in capsys.readouterr().err
    assert merge("s3://nowhere/run", "--out", "nowhere") == 74


@pytest.mark.slow
def test_a_file_of_a_bucket_that_does_not_exist_is_no_missing_file(
    store: str, server: str, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="bucket does not exist"):
        next(bucket("s3://nowhere/corpus", server, tmp_path).blocks("chunks.jsonl"))
    with pytest.raises(DataError, match=r"corpus/chunks\.jsonl: no such file"):
        next(bucket(f"{store}/corpus", server, tmp_path).blocks("chunks.jsonl"))


@pytest.mark.slow
def test_no_proxy_is_asked(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert compare(store, "0/1") == 0


def test_without_s3fs_it_is_said_what_to_install(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "qaeval.storage.s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert compare(store, "0/1") == 64
    assert install_command("s3") in capsys.readouterr().err


@pytest.mark.slow
def test_a_shard_connects_to_its_store_alone(store: str, server: str, tmp_path: Path) -> None:
    words = ["compare", *EMBEDDED, "--n", "2", "--out", store, "--shard", "0/1"]
    for command in (words, ["merge", store, "--out", str(tmp_path / "merged")]):
        connected, looked_up = sockets_of(*command, log=tmp_path / "seen.json")
        assert connected == {repr(("127.0.0.1", urlsplit(server).port))}
        assert looked_up <= {"'127.0.0.1'"}


@pytest.mark.parametrize("missing", KEYS)
def test_keys_come_from_the_environment_alone(
    missing: str,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = a\naws_secret_access_key = b\n", encoding="utf-8"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.delenv(missing)
    assert compare(store, "0/1") == 64
    assert f"${missing} is not set" in capsys.readouterr().err


def test_a_store_outside_ones_own_network_is_refused_unless_it_is_named(
    store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://203.0.113.7:9000")
    assert compare(store, "0/1") == 69
    assert "allow_external: [203.0.113.7]" in capsys.readouterr().err
    assert merge(store, "--out", tmp_path / "out") == 69
    allowed = at(store, dict(os.environ), allow_external=["203.0.113.7"], work=tmp_path)
    assert (allowed.endpoint, allowed.external) == ("http://203.0.113.7:9000", "203.0.113.7")


def test_a_name_is_connected_to_at_the_address_that_was_checked(
    store: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qaeval.chat.guard.resolve", lambda _host: ["127.0.0.1"])
    location = bucket(store, f"http://store-of-a-test:{urlsplit(server).port}", tmp_path)
    assert location.create("_committed/0000.json", b"x")


def test_without_an_address_the_store_is_amazons_and_that_is_outside(
    store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setattr("qaeval.chat.guard.resolve", lambda _host: ["203.0.113.7"])
    with pytest.raises(
        EndpointError, match=r"AWS_ENDPOINT_URL.*'s3.eu-central-1.amazonaws.com'.*203\.0\.113\.7"
    ):
        at(store, dict(os.environ), allow_external=(), work=tmp_path)


def test_a_password_in_the_address_is_refused_and_not_shown(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:hush@127.0.0.1:9000")
    assert compare(store, "0/1") == 69
    assert "hush" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_merged_run_says_where_its_shards_were_kept_outside(
    store: str, server: str, tmp_path: Path
) -> None:
    assert compare(store, "0/1") == 0
    outside = replace(bucket(store, server, tmp_path), external="store.example")
    merge_shards([outside], Folder(tmp_path / "merged"))
    assert run(["report", str(tmp_path / "merged")]) == 0
    assert json.loads((tmp_path / "merged" / "manifest.json").read_text())["data_left"] == ["store.example"]
    assert "store.example" in (tmp_path / "merged" / "report.md").read_text()
