"""Files and folders that are written whole or not at all."""

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


class Killed(BaseException):
    """The process ended here: nothing after it runs, not even the clean-up."""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_has_its_content_and_no_neighbour(tmp_path: Path) -> None:
    assert write_file(tmp_path / "new" / "a.txt", "ä\r\n").read_bytes() == "ä\r\n".encode()
    assert write_file(tmp_path / "new" / "a.txt", b"\xff").read_bytes() == b"\xff"
    assert names(tmp_path / "new") == {"a.txt"}


def test_an_error_while_writing_keeps_the_former_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.txt", "former")
    with pytest.raises(TypeError), whole_file(path) as file:
        file.writelines([b"half", "text"])  # type: ignore[list-item]
    assert path.read_text() == "former"
    assert names(tmp_path) == {"a.txt"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_failing_disk_is_a_store_error_and_keeps_the_former_file(
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
    assert names(tmp_path) == {"a.txt"}


def test_the_next_write_removes_what_a_killed_process_left_and_nothing_of_a_living_one(
    tmp_path: Path,
) -> None:
    dead = tmp_path / ".a.txt.0123456789abcdef.partial"
    dead.write_text("half")
    foreign = tmp_path / ".a.txt.notes.partial"
    foreign.write_text("of a user")
    with whole_file(tmp_path / "a.txt") as file:
        write_file(tmp_path / "a.txt", "second")
        file.write(b"first")
    assert (tmp_path / "a.txt").read_text() == "first"
    assert names(tmp_path) == {"a.txt", foreign.name}


def test_a_link_at_the_target_is_replaced_and_what_it_points_to_is_unchanged(tmp_path: Path) -> None:
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


def test_a_folder_takes_its_place_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "run"
    for text in ("first", "second"):
        with whole_folder(target, replaces=True) as folder:
            (folder / "a.txt").write_text(text)
            assert not target.exists() or (target / "a.txt").read_text() == "first"
    assert (target / "a.txt").read_text() == "second"
    with pytest.raises(ZeroDivisionError), whole_folder(target):
        raise ZeroDivisionError
    assert (target / "a.txt").read_text() == "second"
    assert names(tmp_path) == {"run"}


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_folder_that_another_process_made_in_the_meantime_is_not_replaced(
    tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "run"
    theirs = target / "a.txt" if kind == "folder" else target

    def make_both() -> None:
        with whole_folder(target) as folder:
            (folder / "a.txt").write_text("ours")
            theirs.parent.mkdir(exist_ok=True)
            theirs.write_text("theirs")

    with pytest.raises(UsageError, match="in the meantime"):
        make_both()
    assert theirs.read_text() == "theirs"
    assert names(tmp_path) == {"run"}


def test_a_folder_takes_the_place_of_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with whole_folder(tmp_path / "run") as folder:
        (folder / "a.txt").write_text("ours")
    assert (tmp_path / "run" / "a.txt").read_text() == "ours"


def test_a_file_system_without_locks_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    write_file(tmp_path / "a.txt", "text")
    with whole_folder(tmp_path / "run") as folder:
        (folder / "a.txt").write_text("text")
    assert names(tmp_path) == {"run", "a.txt"}


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
    dead = tmp_path / ".run.0123456789abcdef.partial"
    dead.mkdir()
    (dead / "rows").write_text("half")
    with whole_folder(tmp_path / "run") as folder:
        (folder / "a.txt").write_text("text")
    assert names(tmp_path) == {"run"}


@pytest.fixture
def crash_at() -> Iterator[Callable[[int], list[str]]]:
    """Raise before the n-th operation on a file of the test's folder, and in every one after it: a process that is gone."""
    state: dict[str, object] = {"at": None, "seen": []}

    def hook(event: str, _: tuple[object, ...]) -> None:
        at, seen = state["at"], state["seen"]
        if at is None or event not in {
            "open",
            "os.rename",
            "os.mkdir",
            "os.remove",
            "os.rmdir",
            "shutil.rmtree",
        }:
            return
        assert isinstance(seen, list)
        seen.append(event)
        if len(seen) > at:  # type: ignore[operator]
            raise Killed

    sys.addaudithook(hook)

    def set_(n: int) -> list[str]:
        state.update(at=n, seen=[])
        return state["seen"]  # type: ignore[return-value]

    yield set_
    state["at"] = None


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_crash_before_any_operation_leaves_the_former_or_the_new_content_and_the_same_command_heals(
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
    crashes = 0
    for n in range(100):
        crash_at(n)
        try:
            write("new")
        except Killed:
            crashes += 1
            crash_at(10**9)
            assert not target.exists() or content() in {"former", "new"}
            write("former")
            assert content() == "former"
            assert names(tmp_path) == {"target"}
        else:
            crash_at(10**9)
            break
    assert crashes >= 3
    assert content() == "new"


def test_a_lock_of_a_living_process_protects_its_temporary_file(tmp_path: Path) -> None:
    living = tmp_path / ".a.txt.00000000deadbeef.partial"
    living.write_text("half")
    with living.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_file(tmp_path / "a.txt", "text")
        assert living.exists()
    write_file(tmp_path / "a.txt", "text")
    assert not living.exists()
