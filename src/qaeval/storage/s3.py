"""An S3-compatible store. Needs the extra ``s3`` (s3fs).

Keys come from the environment alone: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and, if set,
``AWS_SESSION_TOKEN``. No file in the home directory and no metadata service is read. The store's URL is
``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``, else Amazon's in ``AWS_REGION``. Requests go to that one host
(buckets are part of the path), to the addresses that the sovereignty guard checked, without a proxy and
without redirects to other hosts: data goes where the guard looked.
"""

import re
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self

import s3fs
from botocore.exceptions import BotoCoreError, ClientError
from yarl import URL

from qaeval.chat.guard import check_host
from qaeval.chat.resolver import PinnedResolver, sockets_to
from qaeval.errors import DataError, EndpointError, StoreError, UsageError

_ADDRESS: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[^/\s?#]+)*)/?")
_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_SECRETS: Final = (*_KEYS, "AWS_SESSION_TOKEN")
_BLOCK: Final = 8 << 20
"""Bytes of one ranged request; smaller ones spend their time in round trips."""
_CONFLICTS: Final = 6
"""Attempts at a conditional write while another one to the same name is under way (409)."""


@dataclass(frozen=True)
class Bucket:
    """A prefix in a bucket; its methods are those of `qaeval.storage.location.Location`.

    Attributes:
        name: As the user typed it.
        root: Bucket and prefix.
        endpoint: URL of the store.
        external: Its host, where that is outside the user's own network.
        work: Local folder in which attempts are written.
        files: The client.
        secrets: Values that are masked in messages.
    """

    name: str
    root: str
    endpoint: str
    external: str
    work: Path
    files: s3fs.S3FileSystem
    secrets: tuple[str, ...]

    @classmethod
    def at(
        cls, address: str, environment: Mapping[str, str], *, allow_external: Collection[str], work: Path
    ) -> Self:
        """Return the prefix at an address; sends no request.

        Raises:
            UsageError: the address is not valid, or the environment has no keys.
            EndpointError: the store is outside the user's own network and not in ``allow_external``.
        """
        match = _ADDRESS.fullmatch(address)
        if not match or ".." in address:
            raise UsageError(f"{address!r}: expected s3://BUCKET/PREFIX, like s3://results/first")
        if missing := [name for name in _KEYS if not environment.get(name)]:
            raise UsageError(
                f"{address}: the store's keys are read from ${_KEYS[0]} and ${_KEYS[1]}; "
                f"{' and '.join(f'${name}' for name in missing)} {'are' if missing[1:] else 'is'} not set"
            )
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
        custom = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        endpoint = custom or f"https://s3.{region}.amazonaws.com"
        try:
            location = check_host(endpoint, allow_external=allow_external)
        except EndpointError as error:
            source = "AWS_ENDPOINT_URL" if custom else "Amazon's, because AWS_ENDPOINT_URL is not set"
            raise EndpointError(f"{address}: the store ({source}): {error}") from error
        files = s3fs.S3FileSystem(
            key=environment[_KEYS[0]],
            secret=environment[_KEYS[1]],
            token=environment.get("AWS_SESSION_TOKEN") or None,
            endpoint_url=endpoint,
            client_kwargs={"region_name": region},
            config_kwargs={
                "s3": {"addressing_style": "path"},
                "proxies": {},
                "connector_args": {
                    "resolver": PinnedResolver(location.addresses),
                    "socket_factory": sockets_to(location.addresses, URL(endpoint).port or 0),
                },
            },
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        return cls(
            name=address.rstrip("/"),
            root=f"{match[1]}{match[2]}",
            endpoint=endpoint,
            external=location.host if location.external else "",
            work=work,
            files=files,
            secrets=tuple(environment[name] for name in _SECRETS if environment.get(name)),
        )

    def names(self, folder: str) -> list[str]:
        """List the files of a folder, sorted; none where the folder does not exist."""
        with self._explained(f"listing {folder or self.name}"):
            try:
                paths = self.files.ls(f"{self.root}/{folder}", detail=False, refresh=True)
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return []
        return sorted(name.rpartition("/")[2] for name in paths)

    def blocks(self, file: str) -> Iterator[bytes]:
        """Read a file piece by piece; errors as in `Location.blocks`."""
        with self._explained(f"reading {file}"):
            try:
                size = self.files.info(f"{self.root}/{file}", refresh=True)["size"]
            except FileNotFoundError as error:
                self.names("")  # a HEAD has no body: only a list tells a missing bucket from a missing file
                raise DataError(f"{self.name}/{file}: no such file") from error
        for start in range(0, size, _BLOCK):
            with self._explained(f"reading {file}"):
                block: bytes = self.files.cat_file(
                    f"{self.root}/{file}", start=start, end=min(start + _BLOCK, size)
                )
            yield block

    def put(self, source: Path, file: str) -> None:
        """Upload a file; a large one in parts."""
        with self._explained(f"writing {file}"):
            self.files.put_file(str(source), f"{self.root}/{file}")

    def create(self, file: str, content: bytes) -> bool:
        """Write a whole file, unless it exists, by a conditional put (``If-None-Match: *``)."""
        with self._explained(f"writing {file}"):
            for attempt in range(_CONFLICTS):
                try:
                    self.files.pipe_file(f"{self.root}/{file}", content, mode="create")
                except OSError as error:
                    if isinstance(error, FileExistsError) or _status(error) == HTTPStatus.PRECONDITION_FAILED:
                        return False
                    if _status(error) != HTTPStatus.CONFLICT or attempt == _CONFLICTS - 1:
                        raise
                    time.sleep(0.1 * 2**attempt)
                else:
                    return True
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def tidy(self, attempt: Path) -> None:
        """Delete the local copy of an attempt: it is in the store, or another attempt was committed."""
        shutil.rmtree(attempt, ignore_errors=True)

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Raise errors of the client as `StoreError`, without a key in the message."""
        try:
            yield
        except (OSError, BotoCoreError, ClientError) as error:
            message = f"{type(error).__name__}: {error}"
            for secret in self.secrets:
                message = message.replace(secret, "***")
            raise StoreError(
                f"{self.name}: {doing} at {self.endpoint} failed: {message}; check bucket, keys and endpoint "
                f"(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL), then run the same command "
                f"again"
            ) from None


def _response(error: BaseException) -> Mapping[str, Any]:
    """Return the store's response; empty where there is none."""
    return getattr(error.__cause__, "response", None) or {}


def _status(error: BaseException) -> int | None:
    status: int | None = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _code(error: BaseException) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))
