"""Sharded runs: every row occurs once, and the merged rows are those of an unsharded run."""

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


def run_compare(*arguments: object, n: int = 10) -> int:
    return run(["compare", *EMBEDDED, "--n", str(n), *map(str, arguments)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of ten samples in three shards, unsharded, and merged from the shards."""
    folder = tmp_path_factory.mktemp("made")
    assert run_compare("--out", folder / "whole") == 0
    for index in range(3):
        assert run_compare("--out", folder / "shards", "--shard", f"{index}/3") == 0
    assert run(["merge", str(folder / "shards"), "--out", str(folder / "merged")]) == 0
    return folder


@pytest.fixture
def shards(runs: Path, tmp_path: Path) -> Path:
    """A copy of the three shards that the test may damage."""
    return Path(shutil.copytree(runs / "shards", tmp_path / "shards"))


def commit_record_path(shards: Path, index: int) -> Path:
    return shards / "_committed" / f"{index:04}.json"


def attempt_folder(shards: Path, index: int) -> Path:
    name = json.loads(commit_record_path(shards, index).read_text())["attempt"]
    return shards / f"shard={index:04}" / str(name)


def update_committed_hash(shards: Path, index: int, name: str) -> None:
    """Update the committed hash of a changed file of a shard."""
    record = json.loads(commit_record_path(shards, index).read_text())
    record["files"][name] = hashlib.sha256((attempt_folder(shards, index) / name).read_bytes()).hexdigest()
    commit_record_path(shards, index).write_text(json.dumps(record))


def run_merge(shards: Path, *locations: Path, out: str = "out") -> int:
    return run(["merge", str(shards), *map(str, locations), "--out", str(shards.parent / out)])


# ---------------------------------------------------------------- assignment


def make_sample(number: int, stratum: str) -> Sample:
    return Sample.of(Chunk(chunk_id=f"c{number}", text="t", stratum=stratum))


@pytest.mark.slow
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.integers(1, 12), st.randoms())
def test_samples_are_assigned_evenly_by_stratum_in_any_order(
    strata: list[str], n_shards: int, random: "object"
) -> None:
    samples = [make_sample(number, stratum) for number, stratum in enumerate(strata)]
    assignment = assign_shards(samples, n_shards)
    for stratum in {None, *strata}:
        indices = [assignment[drawn.sample_id] for drawn in samples if stratum in {None, drawn.stratum}]
        sizes = [indices.count(index) for index in range(n_shards)]
        assert max(sizes) - min(sizes) <= 1
    random.shuffle(samples)  # type: ignore[attr-defined]
    assert assign_shards(samples, n_shards) == assignment


def test_shards_of_six_samples_match_hand_calculation() -> None:
    # strata in order, ids in order in each stratum, assigned 0, 1, 0, 1, …
    samples = [make_sample(number, stratum) for number, stratum in enumerate("bbbaaa")]
    first = sorted(drawn.sample_id for drawn in samples if drawn.stratum == "a")
    second = sorted(drawn.sample_id for drawn in samples if drawn.stratum == "b")
    assert Shard(0, 2).samples(samples) == {first[0], first[2], second[1]}
    assert Shard(1, 2).samples(samples) == {first[1], second[0], second[2]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "option", ["", "1", "4/4", "5/4", "-1/4", "0/0", "a/b", "1/", "/4", "1/4/2", "0.5/2", "1 /4", "²/4"]
)
def test_invalid_shard_option_is_a_usage_error(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_compare("--out", tmp_path / "run", f"--shard={option}") == 64
    assert f"--shard {option!r}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- the same rows


@pytest.mark.slow
def test_merged_rows_are_identical_to_those_of_an_unsharded_run(runs: Path) -> None:
    assert rows_of(runs / "merged") == in_order(rows_of(runs / "whole"))
    raw = [(runs / name / "settings.json").read_bytes() for name in ("merged", "whole")]
    assert raw[0] == raw[1]


def test_merge_copies_rows_unchanged(runs: Path) -> None:
    for name in ("generations.jsonl", "grades.jsonl"):
        shard_lines = [
            line
            for index in range(3)
            for line in (attempt_folder(runs / "shards", index) / name).read_bytes().splitlines()
        ]
        assert Counter((runs / "merged" / name).read_bytes().splitlines()) == Counter(shard_lines)


def test_every_shard_stores_the_complete_sample_set(runs: Path) -> None:
    stored = {(attempt_folder(runs / "shards", index) / "samples.jsonl").read_bytes() for index in range(3)}
    assert stored == {(runs / "whole" / "samples.jsonl").read_bytes()}


@pytest.mark.slow
def test_merged_run_can_be_reported_and_resumed(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(runs / "merged", tmp_path / "merged"))
    assert run(["report", str(copy)]) == 0
    report = json.loads((copy / "report.json").read_text())
    unsharded_report = json.loads((runs / "whole" / "report.json").read_text())
    assert [row["usable"] for row in report["candidates"]] == [
        row["usable"] for row in unsharded_report["candidates"]
    ]
    manifest = json.loads((copy / "manifest.json").read_text())
    assert {row["shard"] for row in manifest["sessions"]} == {"0/3", "1/3", "2/3"}
    assert len(manifest["sessions"]) == 9
    # the merged run can be resumed: no task is left
    capsys.readouterr()
    assert run_compare("--out", copy, "--resume") == 0
    assert rows_of(copy) == rows_of(runs / "merged")


def test_merging_again_keeps_the_existing_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times_before = {path: path.stat().st_mtime_ns for path in (runs / "merged").glob("*.jsonl")}
    assert run(["merge", str(runs / "shards"), "--out", str(runs / "merged")]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{runs / 'merged'}: 3 shards")
    assert {path: path.stat().st_mtime_ns for path in times_before} == times_before


@pytest.mark.slow
def test_merge_does_not_overwrite_another_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_shards_in_several_locations_are_merged(runs: Path, tmp_path: Path) -> None:
    locations = []
    for index in range(3):
        location = tmp_path / f"place-{index}"
        shutil.copytree(runs / "shards" / f"shard={index:04}", location / f"shard={index:04}")
        (location / "_committed").mkdir()
        shutil.copy(commit_record_path(runs / "shards", index), location / "_committed")
        locations.append(location)
    assert run_merge(*locations) == 0
    assert rows_of(tmp_path / "out") == rows_of(runs / "merged")


@pytest.mark.slow
def test_more_shards_than_samples_leave_empty_shards(tmp_path: Path) -> None:
    for index in range(4):
        assert run_compare("--out", tmp_path / "shards", "--shard", f"{index}/4", n=2) == 0
    assert not (attempt_folder(tmp_path / "shards", 3) / "generations.jsonl").exists()
    assert run_compare("--out", tmp_path / "whole", n=2) == 0
    assert run_merge(tmp_path / "shards") == 0
    assert rows_of(tmp_path / "out") == in_order(rows_of(tmp_path / "whole"))


# ---------------------------------------------------------------- commits


def test_committed_shard_is_not_changed(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times_before = {path: path.stat().st_mtime_ns for path in shards.rglob("*")}
    assert run_compare("--out", shards, "--shard", "1/3") == 0
    assert attempt_folder(shards, 1).name in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in shards.rglob("*")} == times_before


def test_uncommitted_attempt_is_resumed(shards: Path, runs: Path) -> None:
    commit_record_path(shards, 2).unlink()
    unfinished = attempt_folder(runs / "shards", 2)
    path = shards / "shard=0002" / unfinished.name / "grades.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    assert run_compare("--out", shards, "--shard", "2/3") == 0
    assert attempt_folder(shards, 2).name == unfinished.name
    assert path.read_bytes().splitlines(keepends=True)[:5] == lines[:5]
    assert run_merge(shards) == 0
    assert rows_of(shards.parent / "out") == rows_of(runs / "merged")


def make_settings_and_samples(n: int = 10) -> "tuple[dict[str, object], tuple[Sample, ...]]":
    registry = find_config(None)
    plan = make_plan(registry, EMBEDDED, eval_name="qa_pairs", chunks=None, n=n, seed=0)
    judging = find_judging(registry, plan.candidates, judge=None, rubric=plan.definition.rubric)
    return {**plan.settings(), "grading": judging.settings()}, plan.samples


def test_first_commit_of_a_shard_wins(shards: Path) -> None:
    commit_record_path(shards, 1).unlink()
    settings, samples = make_settings_and_samples()
    location, shard = Folder(shards), Shard(1, 3)
    first, second = (begin(location, shard, settings, samples) for _ in range(2))
    assert isinstance(first, RunStore)
    assert isinstance(second, RunStore)
    assert first.path != second.path, "the second process does not write what the first one writes"
    with pytest.raises(InUseError), RunStore.open(first.path, writable=True):
        pass
    assert commit(location, shard, second.path).record.attempt == second.path.name
    assert commit(location, shard, first.path).record.attempt == second.path.name
    assert attempt_folder(shards, 1) == second.path
    first.close()
    second.close()


def test_repeated_commit_of_an_attempt_is_accepted(shards: Path) -> None:
    path = attempt_folder(shards, 1)
    assert commit(Folder(shards), Shard(1, 3), path).record.attempt == path.name


def test_commit_record_is_created_atomically_once(tmp_path: Path) -> None:
    location = Folder(tmp_path)
    assert location.create("_committed/0000.json", b"first")
    assert not location.create("_committed/0000.json", b"second")
    assert [path.name for path in (tmp_path / "_committed").iterdir()] == ["0000.json"]
    assert (tmp_path / "_committed" / "0000.json").read_bytes() == b"first"


def test_shard_result_as_json(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run_compare("--out", shards, "--shard", "0/3", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["index"], record["of"], record["attempt"]) == (0, 3, attempt_folder(shards, 0).name)


# ---------------------------------------------------------------- refused


def test_merge_error_names_missing_shards(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit_record_path(shards, 0).unlink()
    commit_record_path(shards, 2).unlink()
    assert run_merge(shards) == 65
    assert "committed: 0/3, 2/3" in capsys.readouterr().err
    assert not (shards.parent / "out").exists()


def test_merge_of_a_folder_without_shards_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["merge", str(tmp_path), "--out", str(tmp_path / "out")]) == 65
    assert f"{tmp_path}: " in capsys.readouterr().err
    (tmp_path / "shard=0002" / "attempt-1").mkdir(parents=True)
    assert run(["merge", str(tmp_path), "--out", str(tmp_path / "out")]) == 65
    assert "begun: 2." in capsys.readouterr().err


@pytest.mark.slow
def test_shards_of_different_counts_are_refused(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_compare("--out", shards, "--shard", "3/4") == 4
    assert f"{shards}: shard 0/3 " in capsys.readouterr().err
    assert run_compare("--out", shards.parent / "four", "--shard", "3/4") == 0
    assert run_merge(shards, shards.parent / "four") == 4
    assert "shard 3/4 " in capsys.readouterr().err


@pytest.mark.slow
def test_shard_with_different_settings_is_refused_at_creation_and_merge(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit_record_path(shards, 2).unlink()
    assert run_compare("--out", shards, "--shard", "2/3", "--seed", "7") == 4
    assert "seed was 0," in capsys.readouterr().err
    other_location = shards.parent / "other"
    assert run_compare("--out", other_location, "--shard", "2/3", "--seed", "7") == 0
    assert run_merge(shards, other_location) == 4
    assert "seed was 7," in capsys.readouterr().err


def test_samples_that_differ_outside_their_ids_are_refused(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = attempt_folder(shards, 1) / "samples.jsonl"
    path.write_text(re.sub('"title":"', '"title":"Other ', path.read_text()))
    update_committed_hash(shards, 1, "samples.jsonl")
    assert run_merge(shards) == 4
    assert f"{shards}: shard 1/3 " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["generations.jsonl", "grades.jsonl", "samples.jsonl", "settings.json"])
def test_file_changed_after_its_commit_is_refused(
    name: str, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = attempt_folder(shards, 0) / name
    path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))
    assert run_merge(shards) == 65
    message = capsys.readouterr().err
    assert f"{path}: expected the sha256" in message
    assert deletion_advice(shards, 0) in message
    assert not (shards.parent / "out").exists()


def deletion_advice(shards: Path, index: int) -> str:
    return f"delete {commit_record_path(shards, index)} and {attempt_folder(shards, index)}, and run shard"


def test_missing_file_is_refused(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (attempt_folder(shards, 0) / "grades.jsonl").unlink()
    assert run_merge(shards) == 65
    message = capsys.readouterr().err
    assert "grades.jsonl: no such file" in message
    assert deletion_advice(shards, 0) in message


@pytest.mark.slow
def test_advice_on_a_damaged_shard_restores_its_rows(runs: Path, shards: Path) -> None:
    attempt = attempt_folder(shards, 0)
    grades = attempt / "grades.jsonl"
    grades.write_bytes(grades.read_bytes().replace(b'"letter":"B"', b'"letter":"A"'))
    assert run_merge(shards) == 65
    commit_record_path(shards, 0).unlink()
    shutil.rmtree(attempt)
    assert run_compare("--out", shards, "--shard", "0/3") == 0
    assert run_merge(shards) == 0
    assert rows_of(shards.parent / "out") == rows_of(runs / "merged")


def test_row_of_another_version_is_refused(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = attempt_folder(shards, 2) / "sessions.jsonl"
    path.write_text(path.read_text().replace('"stage"', '"phase"', 1))
    update_committed_hash(shards, 2, "sessions.jsonl")
    assert run_merge(shards) == 65
    assert f"{path}:1: " in capsys.readouterr().err


def test_settings_without_required_keys_are_refused(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(3):
        (attempt_folder(shards, index) / "settings.json").write_text("{}")
        update_committed_hash(shards, index, "settings.json")
    assert run_merge(shards) == 65
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
def test_invalid_commit_record_is_refused(
    change: dict[str, object], shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit_record_path(shards, 2).write_text(
        json.dumps({**json.loads(commit_record_path(shards, 2).read_text()), **change})
    )
    assert run_merge(shards) == 65
    assert f"{commit_record_path(shards, 2)}: expected" in capsys.readouterr().err


def test_locations_with_different_attempts_of_a_shard_are_refused(
    shards: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other_location = shards.parent / "other"
    assert run_compare("--out", other_location, "--shard", "1/3") == 0
    assert run_merge(shards, other_location) == 65
    assert "shard 1/3 is committed" in capsys.readouterr().err
    # both locations may have the same attempt
    assert len(find_shards([Folder(shards), Folder(runs / "shards")])) == 3


def test_rows_of_another_shard_and_missing_rows_are_refused(shards: Path) -> None:
    shard_file, other_shard_file = (
        attempt_folder(shards, 0) / "generations.jsonl",
        attempt_folder(shards, 1) / "generations.jsonl",
    )
    for content, expected in ((other_shard_file.read_bytes(), "shard 1's"), (b"", "in no shard")):
        shard_file.write_bytes(content)
        update_committed_hash(shards, 0, "generations.jsonl")
        with pytest.raises(DataError, match=expected):
            merge_shards([Folder(shards)], Folder(shards.parent / "out"))


def test_unmerged_shards_are_not_reported(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(runs / "shards")]) == 65
    assert "qaeval merge" in capsys.readouterr().err
    assert run(["report", str(attempt_folder(runs / "shards", 1))]) == 65
    assert "shard 1/3 " in capsys.readouterr().err
    assert run(["report", "s3://bucket/run"]) == 65
    assert "qaeval merge s3://bucket/run " in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_and_shards_do_not_share_a_folder(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths_before = sorted((runs / "whole").iterdir()), sorted((runs / "shards").iterdir())
    assert run_compare("--out", runs / "whole", "--shard", "0/3") == 64
    assert f"{runs / 'whole'}: holds a run" in capsys.readouterr().err
    assert run_compare("--out", runs / "shards") == 64
    assert f"{runs / 'shards'}: holds shards" in capsys.readouterr().err
    assert paths_before == (sorted((runs / "whole").iterdir()), sorted((runs / "shards").iterdir()))


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
def test_contradictory_options_are_a_usage_error(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_compare(*arguments) == 64
    assert expected in capsys.readouterr().err


def test_other_commands_refuse_an_address_as_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["generate", "embedded-lead", "--n", "2", "--out", "s3://bucket/run"]) == 64
    assert "--out s3://bucket/run: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_file_system_without_hard_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raise_permission_error(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", raise_permission_error)
    assert run_compare("--out", tmp_path / "shards", "--shard", "0/2") == 74
    assert "no hard links" in capsys.readouterr().err


def test_full_disk_leaves_no_partial_commit_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_disk_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", raise_disk_full)
    with pytest.raises(StoreError, match="free some space"):
        Folder(tmp_path).create("_committed/0000.json", b"{}")
    assert list((tmp_path / "_committed").iterdir()) == []


# ---------------------------------------------------------------- time


def test_merge_keeps_metrics_of_one_of_overlapping_shards(shards: Path) -> None:
    # 0/3 and 1/3 overlap, and 0/3 is longer; 2/3 ran later
    for index, (start, seconds) in enumerate([("00:00", 40), ("00:10", 35), ("02:00", 5)]):
        session_row = make_session(start, seconds, "")
        reading = Reading(
            stage="generate", model="m", session=session_row.started, at_s=1, values={"n": index}
        )
        for name, row in (("sessions.jsonl", session_row), ("metrics.jsonl", reading)):
            path = attempt_folder(shards, index) / name
            path.write_text(row.model_dump_json(exclude_none=True) + "\n")
            update_committed_hash(shards, index, name)
    assert run_merge(shards) == 0
    lines = (shards.parent / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["values"]["n"] for line in lines] == [0, 2]


def make_session(start: str, seconds: float, shard: str) -> Session:
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


def test_overlapping_sessions_count_their_union() -> None:
    # 10:00–10:40 and 10:10–10:50 are 50 s; 11:00–11:05, after a pause, are 5 s more
    sessions = [
        make_session("00:00", 40, "0/3"),
        make_session("00:10", 40, "1/3"),
        make_session("01:00", 5, "2/3"),
    ]
    assert worked_s(sessions) == pytest.approx(55)
    # started in the same second: in parallel, not one after the other
    assert worked_s([make_session("00:00", 0.6, "0/2"), make_session("00:00", 0.5, "1/2")]) == pytest.approx(
        0.6
    )


def test_sessions_of_an_unsharded_run_are_summed() -> None:
    assert worked_s([make_session("00:00", 40.5, ""), make_session("00:40", 10, "")]) == pytest.approx(50.5)


def test_shard_settings_contain_index_and_count() -> None:
    run_settings = {"seed": 7}
    assert Shard(1, 4).settings(run_settings) == {"seed": 7, "shard": {"index": 1, "of": 4}}
    assert run_settings == {"seed": 7}
