"""Commands that read: they take no lock, change nothing, and work on a run that cannot be written or is being written."""

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import qaeval

EXAMPLE = Path(__file__).parents[1] / "results" / "example"
READING = [
    "report RUN",
    "report RUN --json",
    "report RUN --format csv",
    "agreement RUN",
    "plan RUN",
    "cost RUN",
    "decide RUN",
    "history .",
    "analyse generation RUN",
    "compare-runs RUN RUN",
    "gate RUN --baseline RUN",
    "baseline set RUN --out OUT/baseline.json",
    "export RUN --to csv --out OUT/csv",
    "export RUN --to labels --n 6 --out OUT/labels",
    "report RUN RUN2",
]


_WRITING = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.truncate",
    "os.link",
    "os.symlink",
    "os.chmod",
}
_PROTECTED: list[str] = []


def _refuse_writes(event: str, arguments: tuple[object, ...]) -> None:
    """Fail like a file system that is mounted read-only: root, who runs tests in containers, passes file modes."""
    if not _PROTECTED or event not in {"open", *_WRITING}:
        return
    if event == "open" and not int(str(arguments[2] or 0)) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    for path in arguments[:2]:
        if isinstance(path, str | os.PathLike) and str(Path(path).absolute()).startswith(tuple(_PROTECTED)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))


sys.addaudithook(_refuse_writes)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with two runs on a file system that is mounted read-only, and a folder to write to."""
    for name in ("run", "run2"):
        shutil.copytree(EXAMPLE, tmp_path / name)
    (tmp_path / "out").mkdir()
    _PROTECTED.extend(f"{tmp_path / name}{os.sep}" for name in ("run", "run2"))
    yield tmp_path
    _PROTECTED.clear()


def state(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in ("run", "run2")
        for path in sorted((folder / name).rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("command", READING)
@pytest.mark.slow
def test_a_command_that_reads_works_on_a_run_that_cannot_be_written(folder: Path, command: str) -> None:
    before = state(folder)
    words = [
        word.replace("RUN2", "run2").replace("RUN", "run").replace("OUT", "out") for word in command.split()
    ]
    if words[0] == "compare-runs":
        words[2] = "run2"
    with pytest.raises(OSError, match="Read-only"):
        (folder / "run" / "new").touch()
    done = qaeval(*words, cwd=folder)
    assert done.returncode in ({0, 2} if words[0] == "gate" else {0}), done.stderr
    assert done.stdout
    assert state(folder) == before


@pytest.mark.parametrize("command", READING[:4])
@pytest.mark.slow
def test_a_command_that_reads_works_beside_a_process_that_holds_the_lock(
    tmp_path: Path, command: str
) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "run")
    with (tmp_path / "run" / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = (tmp_path / "run" / "report.json").read_bytes()
        done = qaeval(*command.replace("RUN", "run").split(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "run" / "report.json").read_bytes() == before
