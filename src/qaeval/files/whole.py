"""Files and folders that exist whole or not at all, also after an interruption of the command that writes them.

Content goes to a temporary name in the same folder and is on disk before a rename makes it visible. The temporary
file is locked while its process lives, so that the next write of the same path removes what a killed process left.
"""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from qaeval.errors import UsageError
from qaeval.files.rows import explained

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_NAME: Final = 200
"""Characters of the target's name in a temporary name; file systems allow 255 bytes in all."""
_DEVICES: Final = Path("/dev")


def write_file(path: Path, content: str | bytes) -> Path:
    """Write a file, whole or not at all; creates its folder, replaces an existing file.

    Args:
        path: The file.
        content: Text is written as UTF-8, with unchanged line ends.

    Raises:
        StoreError: the file cannot be written; the former one is unchanged.
    """
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file for writing, which takes the place of the path when the block ends; arguments and errors as in `write_file`.

    A device such as ``/dev/stdout``, or a pipe, is written directly.
    """
    with explained(path, "writing"):
        if path.exists() and (not path.is_file() or path.absolute().is_relative_to(_DEVICES)):
            with path.open("wb") as file:
                yield file
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = _temporary(path)
        with open(os.open(temporary, _NEW, 0o666), "wb") as file:  # noqa: PTH123 - of a descriptor
            try:
                _mark_alive(file.fileno())
                yield file
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        sync_folder(path.parent)


@contextmanager
def whole_folder(path: Path, *, replaces: bool = False) -> Iterator[Path]:
    """Yield a temporary folder to fill, which takes the place of the path when the block ends. Files are synced to disk.

    Args:
        path: The folder.
        replaces: Replace an existing folder; callers refuse one that holds the work of a user. Otherwise the path is absent or an
            empty folder, also at the end: another process may have made the same in the meantime.

    Raises:
        UsageError: the path is the working directory, or a folder with files that is not to be replaced.
        StoreError: the folder cannot be written; the former one is unchanged.
    """
    with explained(path, "writing"):
        target = replaceable(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        temporary, former = _temporary(target), _temporary(target)
        temporary.mkdir()
        lock = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _mark_alive(lock)
            yield temporary
            for entry in sorted(temporary.rglob("*"), reverse=True):
                _sync(entry)
            os.fsync(lock)
            if replaces and target.exists():
                target.rename(former)
            _rename_folder(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if former.exists() and not target.exists():
                former.rename(target)
            raise
        finally:
            os.close(lock)
        shutil.rmtree(former, ignore_errors=True)
        sync_folder(target.parent)


def _rename_folder(folder: Path, target: Path) -> None:
    """Rename a folder to a path that is absent or an empty folder: the rename itself tells, with nothing between test and act."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise UsageError(
                f"{target}: was made by another process in the meantime; nothing of it was replaced. Run the command again with "
                f"another name or folder"
            ) from error
        raise


def replaceable(path: Path) -> Path:
    """Return the resolved path of a folder that a rename may replace.

    Raises:
        UsageError: the path is the working directory, which would be deleted below the user's shell, or the root.
    """
    target = path.resolve()
    if not target.name or target == Path.cwd():
        raise UsageError(
            f"{path}: the working directory cannot be replaced; choose a folder in it with --out"
        )
    return target


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk: a new or renamed file survives a loss of power."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{_prefix(path)}{secrets.token_hex(8)}.partial")


def _prefix(path: Path) -> str:
    return f".{path.name[:_MAX_NAME]}."


def _mark_alive(descriptor: int) -> None:
    """Lock a temporary file or folder; where the file system has no locks nothing of a killed process is removed."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of a path; the file or folder of a living process is locked."""
    prefix = _prefix(path)
    for entry in list(os.scandir(path.parent)):
        middle = entry.name.removeprefix(prefix).removesuffix(".partial")
        if entry.name != f"{prefix}{middle}.partial" or len(middle) != 16 or entry.is_symlink():
            continue
        with suppress(OSError):
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)  # noqa: PTH108 - of an entry
            finally:
                os.close(descriptor)
