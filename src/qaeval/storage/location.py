"""Where the shards of a run are kept: a folder, or a prefix in an S3-compatible store."""

import errno
import os
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from qaeval.environment import environment, shard_folder
from qaeval.errors import DataError, StoreError, UsageError
from qaeval.files.rows import explained

BLOCK: Final = 1 << 20
"""Bytes that are read at once."""
_S3: Final = "s3:"
"""Also what was meant as an address and is not quite one; no folder is called so by chance."""
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class Place(Protocol):
    """What shards need from where they are kept. Names of files are relative, with slashes."""

    @property
    def name(self) -> str:
        """The place as the user typed it."""

    @property
    def external(self) -> str:
        """The host outside the user's own network that files are sent to; empty where they stay inside."""

    @property
    def work(self) -> Path:
        """The local folder in which attempts are made."""

    def names(self, folder: str) -> list[str]:
        """List the files of a folder, sorted; none where there is no folder."""

    def blocks(self, file: str) -> Iterator[bytes]:
        """Read a file piece by piece.

        Raises:
            DataError: there is no such file.
            StoreError: it cannot be read.
        """

    def put(self, source: Path, file: str) -> None:
        """Keep a file that was made in ``work``.

        Raises:
            StoreError: it cannot be written.
        """

    def create(self, file: str, content: bytes) -> bool:
        """Write a file whole, unless it is there: of all who try, one succeeds.

        Returns:
            Whether this call wrote it.

        Raises:
            StoreError: it cannot be written.
        """

    def tidy(self, attempt: Path) -> None:
        """Take away what was made in ``work`` and is kept elsewhere."""


def is_store(text: str) -> bool:
    """Whether a place is typed as one in a store."""
    return text.lower().startswith(_S3)


def place_of(text: str, *, allow_external: Collection[str]) -> Place:
    """Find a place by what was typed: the path of a folder, or ``s3://BUCKET/PREFIX``.

    Args:
        text: What was typed.
        allow_external: Hosts outside the user's own network that may be sent data.

    Raises:
        UsageError: not such an address, no credentials in the environment, or s3fs is not installed.
        EndpointError: the store stands outside the user's own network and is not named in ``allow_external``.
    """
    if not is_store(text):
        return Folder(Path(text))
    try:
        from qaeval.storage.s3 import Bucket  # noqa: PLC0415 - half a second, and an extra
    except ImportError as error:
        raise UsageError(f"{text}: an S3 store needs s3fs: pip install 'qaeval[s3]' ({error})") from error
    return Bucket.at(text, environment(), allow_external=allow_external, work=shard_folder(text))


@dataclass(frozen=True)
class Folder:
    """A folder on a disk of this machine, or on a volume that several share."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self.path)

    @property
    def external(self) -> str:
        """Nothing leaves."""
        return ""

    @property
    def work(self) -> Path:
        """Attempts are made where they stay."""
        return self.path

    def names(self, folder: str) -> list[str]:
        """List the files of a folder, sorted; none where there is no folder."""
        path = self.path / folder
        with explained(path, "reading"):
            return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []

    def blocks(self, file: str) -> Iterator[bytes]:
        """Read a file piece by piece; errors as in `Place.blocks`."""
        path = self.path / file
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        with explained(path, "reading"), path.open("rb") as opened:
            while block := opened.read(BLOCK):
                yield block

    def put(self, source: Path, file: str) -> None:  # noqa: ARG002 - it stays where it was made
        """Bring the folder of a file to the disk; its rows are there."""
        with explained(source, "syncing"):
            _sync(source.parent)

    def create(self, file: str, content: bytes) -> bool:
        """Write a file whole, unless it is there, by a hard link; see `Place.create`."""
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
                    f"{path}: this file system has no hard links ({error.strerror}), and a shard is committed by one; "
                    f"choose another --out, or a store with s3://"
                ) from error
            finally:
                temporary.unlink(missing_ok=True)
            _sync(path.parent)
        return True

    def tidy(self, attempt: Path) -> None:
        """Do nothing: the attempt is the one that is kept."""


def _sync(folder: Path) -> None:
    """Bring a folder's entries to the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
