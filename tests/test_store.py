"""The run directory: resume, lock, torn lines, settings."""

import errno
import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from permissions import without_privileges
from qaeval.errors import DataError, InUseError, NotComparableError, ReadOnlyError, StoreError, UsageError
from qaeval.labelling.rater_file import RaterFile
from qaeval.records import Chunk, Failure, Generation, Sample
from qaeval.storage import run_directory
from qaeval.storage.run_directory import GENERATIONS, GRADES, RunStore, differences, is_written

SAMPLE = Sample.of(Chunk(chunk_id="c1", text="One sentence."))


def generation(task: str, text: str = "t") -> Generation:
    return Generation(
        task_id=task, candidate="m", sample_id=SAMPLE.sample_id, items=(), text=text, latency_s=0
    )


def failure(task: str, reason: str) -> Failure:
    return Failure(task_id=task, stage="generate", model="m", sample_id="s", reason=reason, detail="d")


def create(path: Path, settings: dict[str, object] | None = None, *, resume: bool = False) -> RunStore:
    return RunStore.create(path, settings or {"seed": 1}, [SAMPLE], resume=resume)


def test_the_files_of_a_run_have_the_names_that_earlier_runs_have() -> None:
    names = (
        *(run_directory.SETTINGS, run_directory.SAMPLES, run_directory.GENERATIONS, run_directory.GRADES),
        *(run_directory.CONTROLS, run_directory.GENERATION_REPEATS, run_directory.GRADE_REPEATS),
        *(run_directory.SESSIONS, run_directory.METRICS, run_directory.MANIFEST),
        *(run_directory.LOGS, run_directory.JUDGES, run_directory.COMMITTED),
    )
    assert names == (
        *("settings.json", "samples.jsonl", "generations.jsonl", "grades.jsonl"),
        *("controls.jsonl", "generation_repeats.jsonl", "grade_repeats.jsonl"),
        *("sessions.jsonl", "metrics.jsonl", "manifest.json"),
        *("logs", "grades", "_committed"),
    )


def test_a_line_that_a_killed_process_cut_short_is_dropped_and_said(tmp_path: Path) -> None:
    with create(tmp_path) as store, store.writer(GENERATIONS) as rows:
        rows.append(generation("a1"))
    with (tmp_path / GENERATIONS).open("ab") as file:
        file.write(b'{"kind":"gener')
    with create(tmp_path, resume=True) as store:
        assert [row.task_id for row in store.generations()] == ["a1"]
        assert "14 bytes" in store.warnings[0]
    assert (tmp_path / GENERATIONS).read_bytes().endswith(b"}\n")


def test_the_last_row_of_a_task_wins(tmp_path: Path) -> None:
    with create(tmp_path) as store, store.writer(GENERATIONS) as rows:
        rows.append(failure("a1", "endpoint"))
        rows.append(generation("a1", "second"))
        (row,) = store.generations()
    assert isinstance(row, Generation)
    assert row.text == "second"


def test_only_failures_that_may_pass_are_asked_again(tmp_path: Path) -> None:
    with create(tmp_path) as store, store.writer(GENERATIONS) as rows:
        for row in (
            generation("a"),
            failure("b", "endpoint"),
            failure("c", "invalid_json"),
            failure("d", "interrupted"),
        ):
            rows.append(row)
        done = store.finished(GENERATIONS)
    assert {name for name in "abcdef" if name in done} == {"a", "c"}
    assert len(done) == 2


def test_of_two_rows_of_a_task_the_last_one_says_whether_it_is_done(tmp_path: Path) -> None:
    with create(tmp_path) as store, store.writer(GENERATIONS) as rows:
        for row in (failure("a", "endpoint"), generation("b"), generation("a"), failure("b", "endpoint")):
            rows.append(row)
        done = store.finished(GENERATIONS)
    assert {name for name in "ab" if name in done} == {"a"}


def test_a_second_process_is_refused_while_the_first_one_writes(tmp_path: Path) -> None:
    with create(tmp_path), pytest.raises(StoreError, match="in use"):
        create(tmp_path, resume=True)


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(tmp_path).close()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for open_ in (
        lambda: RunStore.open(tmp_path, writable=True),
        lambda: RaterFile(tmp_path / "labels" / "anna.jsonl"),
    ):
        with pytest.raises(StoreError, match=r"this file system has no locks \(No locks available\)"):
            open_()
    RunStore.open(tmp_path).close()
    assert not is_written(tmp_path)


def test_a_run_has_the_name_of_its_directory_wherever_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path / "night" / "inner").close()
    monkeypatch.chdir(tmp_path / "night" / "inner")
    assert RunStore.open(Path()).name == "inner"
    assert RunStore(Path("..")).name == "night"


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    create(tmp_path, {"seed": 1, "eval": {"n": 5}}).close()
    with pytest.raises(NotComparableError, match=r"eval\.n was 5"):
        create(tmp_path, {"seed": 1, "eval": {"n": 6}}, resume=True)


def test_settings_of_a_model_without_a_row_may_change(tmp_path: Path) -> None:
    def settings(m: int, n: int, judge: int) -> dict[str, object]:
        return {"candidates": {"m": {"seed": m}, "n": {"seed": n}}, "grading": {"judge": judge}}

    with create(tmp_path, settings(1, 1, 1)) as store, store.writer(GENERATIONS) as rows:
        rows.append(failure("a1", "rejected"))
    with create(tmp_path, settings(1, 2, 2), resume=True) as store:
        assert json.loads((tmp_path / "settings.json").read_text()) == settings(1, 2, 2)
        with store.writer(GRADES) as rows:
            rows.append(
                Failure(task_id="b1", stage="grade", model="j", sample_id="s", reason="empty", detail="d")
            )
    for refused, name in (
        (settings(2, 2, 2), r"candidates\.m\.seed"),
        (settings(1, 2, 3), r"grading\.judge"),
    ):
        with pytest.raises(NotComparableError, match=name):
            create(tmp_path, refused, resume=True)
    assert json.loads((tmp_path / "settings.json").read_text()) == settings(1, 2, 2)


def test_a_directory_with_a_run_needs_resume_and_an_empty_one_must_not_have_it(tmp_path: Path) -> None:
    create(tmp_path / "run").close()
    with pytest.raises(UsageError, match="--resume"):
        create(tmp_path / "run")
    with pytest.raises(UsageError, match="nothing to resume"):
        create(tmp_path / "new", resume=True)


def test_a_damaged_row_in_the_middle_is_named_by_line(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        (tmp_path / GENERATIONS).write_text('{"kind":"generation"}\n')
        with pytest.raises(DataError, match=rf"{GENERATIONS}:1:"):
            list(store.generations())


def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        (tmp_path / GENERATIONS).symlink_to("/dev/full")
        with pytest.raises(StoreError, match="free some space"), store.writer(GENERATIONS) as rows:
            rows.append(generation("a1"))


def test_opening_a_directory_without_a_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="qaeval compare"):
        RunStore.open(tmp_path)


@pytest.fixture
def finished() -> Iterator[Path]:
    """A run of one row in a directory that everybody may read and nobody but root may write."""
    path = Path(tempfile.mkdtemp()) / "run"
    path.parent.chmod(0o755)
    with create(path) as store, store.writer(GENERATIONS) as rows:
        rows.append(generation("a1"))
    path.chmod(0o555)
    for file in path.iterdir():
        file.chmod(0o444)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path.parent)


def test_a_directory_that_cannot_be_written_can_be_read(finished: Path) -> None:
    with without_privileges(), RunStore.open(finished) as store, RunStore.open(finished) as other:
        assert [row.task_id for row in store.generations()] == ["a1"]
        assert list(other.samples()) == [SAMPLE]
        with pytest.raises(ReadOnlyError, match="Permission denied"):
            store.write_text("report.md", "text")
    with without_privileges(), pytest.raises(ReadOnlyError, match="lock"):
        RunStore.open(finished, writable=True)


def test_a_reader_changes_nothing_in_the_directory(tmp_path: Path) -> None:
    with create(tmp_path) as store, store.writer(GENERATIONS) as rows:
        rows.append(generation("a1"))
    (tmp_path / ".lock").unlink()
    with (tmp_path / GENERATIONS).open("ab") as file:
        file.write(b'{"kind":"gener')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with RunStore.open(tmp_path) as store:
        assert [row.task_id for row in store.generations()] == ["a1"]
        assert len(store.warnings) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_is_read_as_it_was_when_it_was_opened_while_a_process_writes_it(tmp_path: Path) -> None:
    with create(tmp_path) as store, store.writer(GENERATIONS) as rows:
        rows.append(generation("a1"))
        with RunStore.open(tmp_path) as reader:
            rows.append(generation("a2"))
            (tmp_path / GRADES).write_text("not read: it did not exist\n")
            assert [row.task_id for row in reader.generations()] == ["a1"]
            with reader.replies() as replies:
                assert len(replies) == 1
            assert list(reader.grades()) == []
        with RunStore.open(tmp_path) as reader:
            assert [row.task_id for row in reader.generations()] == ["a1", "a2"]
        with pytest.raises(InUseError):
            RunStore.open(tmp_path, writable=True)


def test_settings_are_written_whole(tmp_path: Path) -> None:
    create(tmp_path, {"seed": 3}).close()
    assert json.loads((tmp_path / "settings.json").read_text()) == {"seed": 3}
    assert not list(tmp_path.glob(".*.partial"))


def test_differences_of_long_settings_show_the_text_around_the_change() -> None:
    start, end = "Write three question/answer pairs about the source text below. " * 4, " words at most." * 10
    change = differences({"prompt": f"{start}Use 40{end}"}, {"prompt": f"{start}Use 60{end}"})
    before, after = change.removeprefix("prompt was ").split(", now ")
    assert "Use 40 words" in before
    assert "Use 60 words" in after
    assert max(len(before), len(after)) <= 62
    assert differences({"n": 1, "a": "x"}, {"n": 2, "a": "x"}) == "n was 1, now 2"


def test_differences_are_named_as_on_the_command_line() -> None:
    def settings(n: int, name: str, letter: str) -> dict[str, object]:
        return {
            "sample_set": {"n": n, "seed": n, "digest": name},
            "eval": {"name": name},
            "grading": {"judge": {"name": name}, "rubric": {"name": letter}},
        }

    assert differences(settings(1, "a", "x"), settings(2, "b", "y")) == (
        '--eval was "a", now "b"; --judge was "a", now "b"; --rubric was "x", now "y"; --n was 1, now 2; --seed was 1, now 2'
    )
    assert differences({"sample_set": {"digest": "a"}}, {"sample_set": {"digest": "b"}}) == (
        'the sample set was "a", now "b"'
    )
