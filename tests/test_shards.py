"""A run in shards: every row once, and the same rows as in a run that was made in one."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaeval.analysis.replies import worked_s
from qaeval.cli import run
from qaeval.errors import DataError, InUseError, StoreError
from qaeval.records import Chunk, Reading, Sample, Session
from qaeval.registry.find import find_config
from qaeval.run.plan import find_judging, make_plan
from qaeval.storage.location import Folder
from qaeval.storage.merge import find_shards, merge_shards
from qaeval.storage.run_directory import RunStore
from qaeval.storage.shards import Shard, assign_shards, begin, commit
from sharding import in_order, rows_of

EMBEDDED = ("embedded-lead", "embedded-salient")


def compare(*arguments: object, n: int = 10) -> int:
    return run(["compare", *EMBEDDED, "--n", str(n), *map(str, arguments)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten samples in three shards, the same in one, and the three merged."""
    folder = tmp_path_factory.mktemp("made")
    assert compare("--out", folder / "whole") == 0
    for index in range(3):
        assert compare("--out", folder / "shards", "--shard", f"{index}/3") == 0
    assert run(["merge", str(folder / "shards"), "--out", str(folder / "merged")]) == 0
    return folder


@pytest.fixture
def shards(runs: Path, tmp_path: Path) -> Path:
    """A copy of the three shards, to be damaged."""
    return Path(shutil.copytree(runs / "shards", tmp_path / "shards"))


def mark(shards: Path, index: int) -> Path:
    return shards / "_committed" / f"{index:04}.json"


def attempt(shards: Path, index: int) -> Path:
    name = json.loads(mark(shards, index).read_text())["attempt"]
    return shards / f"shard={index:04}" / str(name)


def renew(shards: Path, index: int, name: str) -> None:
    """Commit a file of a shard as it is now."""
    was = json.loads(mark(shards, index).read_text())
    was["files"][name] = hashlib.sha256((attempt(shards, index) / name).read_bytes()).hexdigest()
    mark(shards, index).write_text(json.dumps(was))


def merged(shards: Path, *locations: Path, out: str = "out") -> int:
    return run(["merge", str(shards), *map(str, locations), "--out", str(shards.parent / out)])


# ---------------------------------------------------------------- who gets what


def sample(number: int, stratum: str) -> Sample:
    return Sample.of(Chunk(chunk_id=f"c{number}", text="t", stratum=stratum))


@pytest.mark.slow
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.integers(1, 12), st.randoms())
def test_samples_are_dealt_evenly_from_every_stratum_whatever_their_order(
    strata: list[str], of: int, random: "object"
) -> None:
    samples = [sample(number, stratum) for number, stratum in enumerate(strata)]
    dealt = assign_shards(samples, of)
    for stratum in {None, *strata}:
        indices = [dealt[drawn.sample_id] for drawn in samples if stratum in {None, drawn.stratum}]
        sizes = [indices.count(index) for index in range(of)]
        assert max(sizes) - min(sizes) <= 1
    random.shuffle(samples)  # type: ignore[attr-defined]
    assert assign_shards(samples, of) == dealt


def test_the_shards_of_six_samples_worked_by_hand() -> None:
    # strata in order, ids in order inside each, then dealt 0, 1, 0, 1, …
    samples = [sample(number, stratum) for number, stratum in enumerate("bbbaaa")]
    first = sorted(drawn.sample_id for drawn in samples if drawn.stratum == "a")
    second = sorted(drawn.sample_id for drawn in samples if drawn.stratum == "b")
    assert Shard(0, 2).samples(samples) == {first[0], first[2], second[1]}
    assert Shard(1, 2).samples(samples) == {first[1], second[0], second[2]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "typed", ["", "1", "4/4", "5/4", "-1/4", "0/0", "a/b", "1/", "/4", "1/4/2", "0.5/2", "1 /4", "²/4"]
)
def test_what_is_no_shard_is_a_usage_error(
    typed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("--out", tmp_path / "run", f"--shard={typed}") == 64
    assert f"--shard {typed!r}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- the same rows


@pytest.mark.slow
def test_the_rows_of_merged_shards_are_those_of_one_run_byte_by_byte(runs: Path) -> None:
    assert rows_of(runs / "merged") == in_order(rows_of(runs / "whole"))
    raw = [(runs / name / "settings.json").read_bytes() for name in ("merged", "whole")]
    assert raw[0] == raw[1]


def test_every_row_is_copied_as_the_shard_wrote_it(runs: Path) -> None:
    for name in ("generations.jsonl", "grades.jsonl"):
        written = [
            line
            for index in range(3)
            for line in (attempt(runs / "shards", index) / name).read_bytes().splitlines()
        ]
        assert Counter((runs / "merged" / name).read_bytes().splitlines()) == Counter(written)


def test_every_shard_froze_the_whole_sample_set(runs: Path) -> None:
    frozen = {(attempt(runs / "shards", index) / "samples.jsonl").read_bytes() for index in range(3)}
    assert frozen == {(runs / "whole" / "samples.jsonl").read_bytes()}


@pytest.mark.slow
def test_a_merged_run_is_a_run(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(runs / "merged", tmp_path / "merged"))
    assert run(["report", str(copy)]) == 0
    report = json.loads((copy / "report.json").read_text())
    of_one = json.loads((runs / "whole" / "report.json").read_text())
    assert [row["usable"] for row in report["candidates"]] == [row["usable"] for row in of_one["candidates"]]
    manifest = json.loads((copy / "manifest.json").read_text())
    assert {row["shard"] for row in manifest["sessions"]} == {"0/3", "1/3", "2/3"}
    assert len(manifest["sessions"]) == 9
    # and it can be gone on with: nothing is left to ask
    capsys.readouterr()
    assert compare("--out", copy, "--resume") == 0
    assert rows_of(copy) == rows_of(runs / "merged")


def test_merging_again_finds_the_same_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (runs / "merged").glob("*.jsonl")}
    assert run(["merge", str(runs / "shards"), "--out", str(runs / "merged")]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{runs / 'merged'}: 3 shards")
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_a_merge_does_not_replace_another_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["merge", str(runs / "shards"), "--out", str(runs / "whole")]) == 64
    assert "holds something else" in capsys.readouterr().err
    assert [path for path in runs.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("out", [".", "ABSOLUTE"])
def test_a_merge_into_the_working_directory_is_refused(
    out: str, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = shards.parent / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert run(["merge", str(shards), "--out", out.replace("ABSOLUTE", str(empty))]) == 64
    assert "choose a folder in it with --out" in capsys.readouterr().err
    assert not list(empty.iterdir())


def test_shards_may_be_kept_in_several_places(runs: Path, tmp_path: Path) -> None:
    locations = []
    for index in range(3):
        location = tmp_path / f"place-{index}"
        shutil.copytree(runs / "shards" / f"shard={index:04}", location / f"shard={index:04}")
        (location / "_committed").mkdir()
        shutil.copy(mark(runs / "shards", index), location / "_committed")
        locations.append(location)
    assert merged(*locations) == 0
    assert rows_of(tmp_path / "out") == rows_of(runs / "merged")


@pytest.mark.slow
def test_more_shards_than_samples_leave_some_of_them_empty(tmp_path: Path) -> None:
    for index in range(4):
        assert compare("--out", tmp_path / "shards", "--shard", f"{index}/4", n=2) == 0
    assert not (attempt(tmp_path / "shards", 3) / "generations.jsonl").exists()
    assert compare("--out", tmp_path / "whole", n=2) == 0
    assert merged(tmp_path / "shards") == 0
    assert rows_of(tmp_path / "out") == in_order(rows_of(tmp_path / "whole"))


# ---------------------------------------------------------------- once


def test_a_shard_that_is_committed_is_left_as_it_is(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in shards.rglob("*")}
    assert compare("--out", shards, "--shard", "1/3") == 0
    assert attempt(shards, 1).name in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in shards.rglob("*")} == before


def test_an_attempt_that_was_not_committed_is_gone_on_with(shards: Path, runs: Path) -> None:
    mark(shards, 2).unlink()
    unfinished = attempt(runs / "shards", 2)
    path = shards / "shard=0002" / unfinished.name / "grades.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    assert compare("--out", shards, "--shard", "2/3") == 0
    assert attempt(shards, 2).name == unfinished.name
    assert path.read_bytes().splitlines(keepends=True)[:5] == lines[:5]
    assert merged(shards) == 0
    assert rows_of(shards.parent / "out") == rows_of(runs / "merged")


def plan_of(n: int = 10) -> "tuple[dict[str, object], tuple[Sample, ...]]":
    registry = find_config(None)
    plan = make_plan(registry, EMBEDDED, eval_name="qa_pairs", chunks=None, n=n, seed=0)
    judging = find_judging(registry, plan.candidates, judge=None, rubric=plan.definition.rubric)
    return {**plan.settings(), "grading": judging.settings()}, plan.samples


def test_of_two_processes_on_one_shard_the_first_that_commits_counts(shards: Path) -> None:
    mark(shards, 1).unlink()
    settings, samples = plan_of()
    location, shard = Folder(shards), Shard(1, 3)
    first, second = (begin(location, shard, settings, samples) for _ in range(2))
    assert isinstance(first, RunStore)
    assert isinstance(second, RunStore)
    assert first.path != second.path, "the second process does not write what the first one writes"
    with pytest.raises(InUseError), RunStore.open(first.path, writable=True):
        pass
    assert commit(location, shard, second.path).record.attempt == second.path.name
    assert commit(location, shard, first.path).record.attempt == second.path.name
    assert attempt(shards, 1) == second.path
    first.close()
    second.close()


def test_a_commit_that_was_sent_twice_is_still_ones_own(shards: Path) -> None:
    path = attempt(shards, 1)
    assert commit(Folder(shards), Shard(1, 3), path).record.attempt == path.name


def test_a_mark_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    location = Folder(tmp_path)
    assert location.create("_committed/0000.json", b"first")
    assert not location.create("_committed/0000.json", b"second")
    assert [path.name for path in (tmp_path / "_committed").iterdir()] == ["0000.json"]
    assert (tmp_path / "_committed" / "0000.json").read_bytes() == b"first"


def test_a_shard_that_says_what_it_did_to_machines(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert compare("--out", shards, "--shard", "0/3", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["index"], record["of"], record["attempt"]) == (0, 3, attempt(shards, 0).name)


# ---------------------------------------------------------------- refused


def test_a_merge_names_the_shards_that_are_missing(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark(shards, 0).unlink()
    mark(shards, 2).unlink()
    assert merged(shards) == 65
    assert "committed: 0/3, 2/3" in capsys.readouterr().err
    assert not (shards.parent / "out").exists()


def test_a_folder_without_a_shard_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["merge", str(tmp_path), "--out", str(tmp_path / "out")]) == 65
    assert f"{tmp_path}: " in capsys.readouterr().err
    (tmp_path / "shard=0002" / "attempt-1").mkdir(parents=True)
    assert run(["merge", str(tmp_path), "--out", str(tmp_path / "out")]) == 65
    assert "begun: 2." in capsys.readouterr().err


@pytest.mark.slow
def test_shards_of_another_number_do_not_mix(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--out", shards, "--shard", "3/4") == 4
    assert f"{shards}: shard 0/3 " in capsys.readouterr().err
    assert compare("--out", shards.parent / "four", "--shard", "3/4") == 0
    assert merged(shards, shards.parent / "four") == 4
    assert "shard 3/4 " in capsys.readouterr().err


@pytest.mark.slow
def test_a_shard_of_other_settings_is_refused_before_it_is_made_and_when_it_is_merged(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark(shards, 2).unlink()
    assert compare("--out", shards, "--shard", "2/3", "--seed", "7") == 4
    assert "seed was 0," in capsys.readouterr().err
    elsewhere = shards.parent / "other"
    assert compare("--out", elsewhere, "--shard", "2/3", "--seed", "7") == 0
    assert merged(shards, elsewhere) == 4
    assert "seed was 7," in capsys.readouterr().err


def test_samples_that_differ_in_what_no_id_holds_are_refused(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = attempt(shards, 1) / "samples.jsonl"
    path.write_text(re.sub('"title":"', '"title":"Other ', path.read_text()))
    renew(shards, 1, "samples.jsonl")
    assert merged(shards) == 4
    assert f"{shards}: shard 1/3 " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["generations.jsonl", "grades.jsonl", "samples.jsonl", "settings.json"])
def test_a_file_that_was_changed_after_it_was_committed_is_refused(
    name: str, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = attempt(shards, 0) / name
    path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))
    assert merged(shards) == 65
    message = capsys.readouterr().err
    assert f"{path}: expected the sha256" in message
    assert "delete" in message
    assert not (shards.parent / "out").exists()


def test_a_file_that_is_gone_is_refused(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (attempt(shards, 0) / "grades.jsonl").unlink()
    assert merged(shards) == 65
    assert "grades.jsonl: no such file" in capsys.readouterr().err


def test_a_row_of_another_version_is_refused_in_words(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = attempt(shards, 2) / "sessions.jsonl"
    path.write_text(path.read_text().replace('"stage"', '"phase"', 1))
    renew(shards, 2, "sessions.jsonl")
    assert merged(shards) == 65
    assert f"{path}:1: " in capsys.readouterr().err


def test_settings_of_shards_without_a_key_are_refused(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        (attempt(shards, index) / "settings.json").write_text("{}")
        renew(shards, index, "settings.json")
    assert merged(shards) == 65
    assert "settings.json: damaged, or of another version of qaeval: eval: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"attempt": "attempt-../../../etc"},
        {"index": 1},
        {"of": 0},
        {"of": 2},
        {"files": {}},
        {"files": {"settings.json": "0", "samples.jsonl": "0", "../../key": "0"}},
        {"more": 1},
        {"committed": "x" * 2**20},
    ],
    ids=[
        "a way out",
        "another shard",
        "of none",
        "third of two",
        "no files",
        "a foreign file",
        "more",
        "endless",
    ],
)
def test_what_is_no_mark_is_refused(
    change: dict[str, object], shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark(shards, 2).write_text(json.dumps({**json.loads(mark(shards, 2).read_text()), **change}))
    assert merged(shards) == 65
    assert f"{mark(shards, 2)}: expected" in capsys.readouterr().err


def test_two_places_with_different_attempts_of_one_shard_are_not_chosen_between(
    shards: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = shards.parent / "other"
    assert compare("--out", elsewhere, "--shard", "1/3") == 0
    assert merged(shards, elsewhere) == 65
    assert "shard 1/3 is committed" in capsys.readouterr().err
    assert len(find_shards([Folder(shards), Folder(runs / "shards")])) == 3  # the same attempt may be in both


def test_rows_of_a_foreign_sample_and_rows_that_are_missing_are_refused(shards: Path) -> None:
    ours, foreign = attempt(shards, 0) / "generations.jsonl", attempt(shards, 1) / "generations.jsonl"
    for content, expected in ((foreign.read_bytes(), "shard 1's"), (b"", "in no shard")):
        ours.write_bytes(content)
        renew(shards, 0, "generations.jsonl")
        with pytest.raises(DataError, match=expected):
            merge_shards([Folder(shards)], Folder(shards.parent / "out"))


def test_shards_are_not_reported_before_they_are_merged(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(runs / "shards")]) == 65
    assert "qaeval merge" in capsys.readouterr().err
    assert run(["report", str(attempt(runs / "shards", 1))]) == 65
    assert "shard 1/3 " in capsys.readouterr().err
    assert run(["report", "s3://bucket/run"]) == 65
    assert "qaeval merge s3://bucket/run " in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_and_shards_do_not_share_a_folder(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted((runs / "whole").iterdir()), sorted((runs / "shards").iterdir())
    assert compare("--out", runs / "whole", "--shard", "0/3") == 64
    assert f"{runs / 'whole'}: holds a run" in capsys.readouterr().err
    assert compare("--out", runs / "shards") == 64
    assert f"{runs / 'shards'}: holds shards" in capsys.readouterr().err
    assert before == (sorted((runs / "whole").iterdir()), sorted((runs / "shards").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--shard", "0/2"], "--shard requires --out"),
        (["--shard", "0/2", "--out", "DIR", "--margin", "0.1"], "apply to the report"),
        (["--out", "s3://bucket/run"], "add --shard 0/1"),
        (["--shard", "0/2", "--out", "s3://"], "expected s3://BUCKET/PREFIX"),
        (["--shard", "0/2", "--out", "s3://bucket/../x"], "expected s3://BUCKET/PREFIX"),
        (["--shard", "0/2", "--out", "s3:/bucket/run"], "expected s3://BUCKET/PREFIX"),
        (["--shard", "0/2", "--out", "S3://bucket/run"], "expected s3://BUCKET/PREFIX"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error_that_says_what_to_do(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(*arguments) == 64
    assert expected in capsys.readouterr().err


def test_other_commands_do_not_make_a_folder_of_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["generate", "embedded-lead", "--n", "2", "--out", "s3://bucket/run"]) == 64
    assert "--out s3://bucket/run: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_hard_links_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert compare("--out", tmp_path / "shards", "--shard", "0/2") == 74
    assert "no hard links" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_of_a_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match="free some space"):
        Folder(tmp_path).create("_committed/0000.json", b"{}")
    assert list((tmp_path / "_committed").iterdir()) == []


# ---------------------------------------------------------------- time


def test_a_servers_metrics_are_kept_of_one_of_the_shards_that_ran_side_by_side(shards: Path) -> None:
    # 0/3 and 1/3 overlap, 0/3 is the longer; 2/3 came later
    for index, (start, seconds) in enumerate([("00:00", 40), ("00:10", 35), ("02:00", 5)]):
        work = session(start, seconds, "")
        reading = Reading(stage="generate", model="m", session=work.started, at_s=1, values={"n": index})
        for name, row in (("sessions.jsonl", work), ("metrics.jsonl", reading)):
            path = attempt(shards, index) / name
            path.write_text(row.model_dump_json(exclude_none=True) + "\n")
            renew(shards, index, name)
    assert merged(shards) == 0
    lines = (shards.parent / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["values"]["n"] for line in lines] == [0, 2]


def session(start: str, seconds: float, shard: str) -> Session:
    return Session(
        stage="generate",
        model="m",
        started=f"2026-05-01T10:{start}+00:00",
        seconds=seconds,
        n_tasks=1,
        qaeval_version="0",
        host="h",
        shard=shard,
    )


def test_shards_side_by_side_take_as_long_as_they_took_together() -> None:
    # 10:00–10:40 and 10:10–10:50 are 50 s; 11:00–11:05, after a stop, are 5 more
    three = [session("00:00", 40, "0/3"), session("00:10", 40, "1/3"), session("01:00", 5, "2/3")]
    assert worked_s(three) == pytest.approx(55)
    # started in the same second: side by side, not one after the other
    assert worked_s([session("00:00", 0.6, "0/2"), session("00:00", 0.5, "1/2")]) == pytest.approx(0.6)


def test_sessions_of_a_run_that_was_made_in_one_are_added_up() -> None:
    assert worked_s([session("00:00", 40.5, ""), session("00:40", 10, "")]) == pytest.approx(50.5)


def test_a_shard_is_named_in_its_settings_by_index_and_number() -> None:
    whole = {"seed": 7}
    assert Shard(1, 4).settings(whole) == {"seed": 7, "shard": {"index": 1, "of": 4}}
    assert whole == {"seed": 7}
