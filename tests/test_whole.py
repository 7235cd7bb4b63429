"""Atomic writing of files and folders."""

import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qaeval.errors import ReadOnlyError, StoreError, UsageError
from qaeval.files import whole
from qaeval.files.whole import whole_file, whole_folder, write_file


class KilledError(BaseException):
    """Simulates a killed process: no code of it runs afterwards, not even clean-up."""


def file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_written_without_leftovers(tmp_path: Path) -> None:
    assert write_file(tmp_path / "new" / "a.txt", "ä\r\n").read_bytes() == "ä\r\n".encode()
    assert write_file(tmp_path / "new" / "a.txt", b"\xff").read_bytes() == b"\xff"
    assert file_names(tmp_path / "new") == {"a.txt"}


def test_an_error_while_writing_keeps_the_previous_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.txt", "former")
    with pytest.raises(TypeError), whole_file(path) as file:
        file.writelines([b"half", "text"])  # type: ignore[list-item]
    assert path.read_text() == "former"
    assert file_names(tmp_path) == {"a.txt"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_failing_disk_is_a_store_error_and_keeps_the_previous_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, code: int
) -> None:
    path = write_file(tmp_path / "a.txt", "former")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    target: object = whole.os if operation == "fsync" else Path
    monkeypatch.setattr(target, operation, fail)
    with pytest.raises(ReadOnlyError if code == errno.EROFS else StoreError, match="writing failed"):
        write_file(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "former"
    assert file_names(tmp_path) == {"a.txt"}


def test_the_next_write_removes_only_leftovers_of_dead_processes(
    tmp_path: Path,
) -> None:
    leftover = tmp_path / ".a.txt.0123456789abcdef.partial"
    leftover.write_text("half")
    user_file = tmp_path / ".a.txt.notes.partial"
    user_file.write_text("of a user")
    with whole_file(tmp_path / "a.txt") as file:
        write_file(tmp_path / "a.txt", "second")
        file.write(b"first")
    assert (tmp_path / "a.txt").read_text() == "first"
    assert file_names(tmp_path) == {"a.txt", user_file.name}


def test_a_link_is_replaced_and_its_target_unchanged(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("of somebody else")
    (tmp_path / "a.txt").symlink_to(tmp_path / "other")
    write_file(tmp_path / "a.txt", "mine")
    assert (tmp_path / "other").read_text() == "of somebody else"
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_a_pipe_is_written_directly(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_file(pipe, "text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)


def test_a_folder_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "parent" / "run"
    for text in ("first", "second"):
        with whole_folder(target, replaces=True) as folder:
            (folder / "a.txt").write_text(text)
            assert not target.exists() or (target / "a.txt").read_text() == "first"
    assert (target / "a.txt").read_text() == "second"
    with pytest.raises(ZeroDivisionError), whole_folder(target):
        raise ZeroDivisionError
    assert (target / "a.txt").read_text() == "second"
    assert file_names(target.parent) == {"run"}


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_folder_created_concurrently_is_not_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "run"
    other_path = target / "a.txt" if kind == "folder" else target

    def make_both() -> None:
        with whole_folder(target) as folder:
            (folder / "a.txt").write_text("ours")
            other_path.parent.mkdir(exist_ok=True)
            other_path.write_text("theirs")

    with pytest.raises(UsageError, match="in the meantime"):
        make_both()
    assert other_path.read_text() == "theirs"
    assert file_names(tmp_path) == {"run"}


def test_a_folder_replaces_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with whole_folder(tmp_path / "run") as folder:
        (folder / "a.txt").write_text("ours")
    assert (tmp_path / "run" / "a.txt").read_text() == "ours"


def test_a_file_system_without_locks_is_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    write_file(tmp_path / "a.txt", "text")
    with whole_folder(tmp_path / "run") as folder:
        (folder / "a.txt").write_text("text")
    assert file_names(tmp_path) == {"run", "a.txt"}


@pytest.mark.parametrize("out", [".", "ABSOLUTE", "inner/..", "/"])
def test_the_working_directory_is_not_replaced(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(out.replace("ABSOLUTE", str(tmp_path)))
    with pytest.raises(UsageError, match="choose a folder in it with --out"), whole_folder(path):
        raise AssertionError("nothing is done before the folder is refused")
    assert tmp_path.samefile(".")


def test_the_leftover_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / ".run.0123456789abcdef.partial"
    leftover.mkdir()
    (leftover / "rows").write_text("half")
    with whole_folder(tmp_path / "run") as folder:
        (folder / "a.txt").write_text("text")
    assert file_names(tmp_path) == {"run"}


@pytest.fixture
def crash_at() -> Iterator[Callable[[int], list[str]]]:
    """Simulate a killed process: the n-th file operation and all later ones raise."""
    state: dict[str, object] = {"limit": None, "operations": []}

    def hook(event: str, _: tuple[object, ...]) -> None:
        limit, operations = state["limit"], state["operations"]
        if limit is None or event not in {
            "open",
            "os.rename",
            "os.mkdir",
            "os.remove",
            "os.rmdir",
            "shutil.rmtree",
        }:
            return
        assert isinstance(operations, list)
        operations.append(event)
        if len(operations) > limit:  # type: ignore[operator]
            raise KilledError

    sys.addaudithook(hook)

    def set_limit(n_operations: int) -> list[str]:
        state.update(limit=n_operations, operations=[])
        return state["operations"]  # type: ignore[return-value]

    yield set_limit
    state["limit"] = None


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_crash_before_any_operation_leaves_old_or_new_content_and_a_rerun_recovers(
    tmp_path: Path, crash_at: Callable[[int], list[str]], is_folder: bool
) -> None:
    target = tmp_path / "target"

    def write(text: str) -> None:
        if is_folder:
            with whole_folder(target, replaces=True) as folder:
                (folder / "text").write_text(text)
        else:
            write_file(target, text)

    def content() -> str:
        return (target / "text" if is_folder else target).read_text()

    write("former")
    n_crashes = 0
    for n_operations in range(100):
        crash_at(n_operations)
        try:
            write("new")
        except KilledError:
            n_crashes += 1
            crash_at(10**9)
            assert not target.exists() or content() in {"former", "new"}
            write("former")
            assert content() == "former"
            assert file_names(tmp_path) == {"target"}
        else:
            crash_at(10**9)
            break
    assert n_crashes >= 3
    assert content() == "new"


def test_a_lock_of_a_running_process_protects_its_temporary_file(tmp_path: Path) -> None:
    locked = tmp_path / ".a.txt.00000000deadbeef.partial"
    locked.write_text("half")
    with locked.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_file(tmp_path / "a.txt", "text")
        assert locked.exists()
    write_file(tmp_path / "a.txt", "text")
    assert not locked.exists()
