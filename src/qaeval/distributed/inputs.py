"""Chunk files that are not JSON Lines on this disk: in an S3-compatible store, or in Parquet."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import orjson

from qaeval.errors import DataError, UsageError, install_command
from qaeval.files.rows import explained
from qaeval.storage.location import find_location, is_store

_PARQUET: Final = ".parquet"
_ROWS: Final = 4096
"""Rows of a Parquet file that are in memory at once."""


@contextmanager
def chunk_file(path: Path | None, *, allow_external: Collection[str]) -> Iterator[Path | None]:
    """Give a chunk file as JSON Lines on this disk, for as long as the block runs.

    Args:
        path: JSON Lines or Parquet (``.parquet``), on this disk or ``s3://BUCKET/KEY``; None: none is named.
        allow_external: Hosts outside the user's network that may be asked.

    Raises:
        UsageError: the address is not valid, or an extra is not installed.
        DataError: the file does not exist, or is no Parquet file.
        EndpointError: the store is outside the user's network and not allowed.
        StoreError: the store cannot be read, for example because the bucket does not exist.
    """
    # a Path has one slash where the address had two
    address = "" if path is None else _address(path)
    if path is None or (not address and path.suffix.lower() != _PARQUET):
        yield path
        return
    with TemporaryDirectory(prefix="qaeval-") as folder:
        local = _fetched(address, Path(folder), allow_external) if address else path
        if local.suffix.lower() == _PARQUET:
            local = _as_lines(local, Path(folder, f"{local.stem}.jsonl"), shown=address or str(path))
        yield local


def _address(path: Path) -> str:
    text = str(path)
    return f"s3://{text[3:].lstrip('/')}" if is_store(text) else ""


def _fetched(address: str, folder: Path, allow_external: Collection[str]) -> Path:
    place, _, name = address.rpartition("/")
    if place in {"s3:", "s3:/"} or not name:
        raise UsageError(f"{address}: expected s3://BUCKET/KEY, like s3://corpora/chunks.jsonl")
    location = find_location(place, allow_external=allow_external)
    local = folder / name
    with explained(local, "writing"), local.open("wb") as file:
        file.writelines(location.blocks(name))
    return local


def _as_lines(path: Path, lines: Path, *, shown: str) -> Path:
    """Write the rows of a Parquet file as JSON Lines; columns of no value are left out."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - needs an extra
        import pyarrow.parquet as pq  # noqa: PLC0415 - the same
    except ImportError as error:
        raise UsageError(f"{shown}: needs pyarrow: {install_command('parquet')} ({error})") from error
    if not path.is_file():
        raise DataError(f"{shown}: no such file")
    try:
        with pq.ParquetFile(path) as source, lines.open("wb") as file:
            for batch in source.iter_batches(_ROWS):
                for row in batch.to_pylist():
                    present = {name: value for name, value in row.items() if value is not None}
                    file.write(orjson.dumps(present, default=str) + b"\n")
    except pa.ArrowException as error:
        raise DataError(f"{shown}: expected a Parquet file: {error}") from error
    return lines
