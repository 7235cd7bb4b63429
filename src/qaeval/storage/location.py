"""Where the shards of a run are kept: a folder, or a prefix in an S3-compatible store."""

import errno
import os
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from qaeval.environment import environment, shard_folder
from qaeval.errors import DataError, StoreError, UsageError, install_command
from qaeval.files.rows import explained
from qaeval.files.whole import sync_folder

BLOCK: Final = 1 << 20
"""Bytes that are read at once."""
_S3: Final = "s3:"
"""Also the beginning of a mistyped address; no folder has such a name by accident."""
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class Location(Protocol):
    """A folder or store that keeps shards. File names are relative, with slashes."""

    @property
    def name(self) -> str:
        """The location as the user typed it."""

    @property
    def external(self) -> str:
        """The host outside the user's own network that files are sent to; empty where they stay inside."""

    @property
    def work(self) -> Path:
        """The local folder in which attempts are written."""

    def names(self, folder: str) -> list[str]:
        """List the files of a folder, sorted; none where the folder does not exist."""

    def blocks(self, file: str) -> Iterator[bytes]:
        """Read a file piece by piece.

        Raises:
            DataError: the file does not exist.
            StoreError: it cannot be read.
        """

    def put(self, source: Path, file: str) -> None:
        """Store a file that was written in ``work``.

        Raises:
            StoreError: it cannot be written.
        """

    def create(self, file: str, content: bytes) -> bool:
        """Write a whole file, unless it exists: of all writers that try, exactly one succeeds.

        Returns:
            Whether this call wrote it.

        Raises:
            StoreError: it cannot be written.
        """

    def tidy(self, attempt: Path) -> None:
        """Delete an attempt in ``work`` that is stored elsewhere."""


def is_store(text: str) -> bool:
    """Whether a location is one in a store."""
    return text.lower().startswith(_S3)


def find_location(text: str, *, allow_external: Collection[str]) -> Location:
    """Return the location of an argument: the path of a folder, or ``s3://BUCKET/PREFIX``.

    Args:
        text: The argument.
        allow_external: Hosts outside the user's own network that may be sent data.

    Raises:
        UsageError: the address is not valid, the environment has no credentials, or s3fs is not installed.
        EndpointError: the store is outside the user's own network and not in ``allow_external``.
    """
    if not is_store(text):
        return Folder(Path(text))
    try:
        from qaeval.storage.s3 import Bucket  # noqa: PLC0415 - takes half a second, and needs an extra
    except ImportError as error:
        raise UsageError(f"{text}: an S3 store needs s3fs: {install_command('s3')} ({error})") from error
    return Bucket.at(text, environment(), allow_external=allow_external, work=shard_folder(text))


@dataclass(frozen=True)
class Folder:
    """A folder on a disk of this machine, or on a volume that several machines share."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self.path)

    @property
    def external(self) -> str:
        """Empty: nothing leaves the user's network."""
        return ""

    @property
    def work(self) -> Path:
        """The folder itself: attempts are written where they are kept."""
        return self.path

    def names(self, folder: str) -> list[str]:
        """List the files of a folder, sorted; none where the folder does not exist."""
        path = self.path / folder
        with explained(path, "reading"):
            return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []

    def blocks(self, file: str) -> Iterator[bytes]:
        """Read a file piece by piece; errors as in `Location.blocks`."""
        path = self.path / file
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        with explained(path, "reading"), path.open("rb") as opened:
            while block := opened.read(BLOCK):
                yield block

    def put(self, source: Path, file: str) -> None:  # noqa: ARG002 - the file stays where it was written
        """Sync the folder of a file to disk; the row writer has synced the rows themselves."""
        with explained(source, "syncing"):
            sync_folder(source.parent)

    def create(self, file: str, content: bytes) -> bool:
        """Write a whole file, unless it exists, by a hard link; see `Location.create`.

        A hard link to an existing name fails (POSIX), while a rename would replace the
        other writer's file. The content is on disk before the link makes it visible.
        """
        path = self.path / file
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with explained(path, "writing"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as opened:
                    opened.write(content)
                    opened.flush()
                    os.fsync(opened.fileno())
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise StoreError(
                    f"{path}: this file system has no hard links ({error.strerror}), which commit a shard; "
                    f"choose another --out, or a store with s3://"
                ) from error
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(path.parent)
        return True

    def tidy(self, attempt: Path) -> None:
        """Do nothing: the attempt is kept where it was written."""
