"""A cache of replies: a request that was answered in any earlier run is not sent again.

Two requests are the same when messages, schema, sampling and alternatives are, and so are the model's
weights, as far as `qaeval.run.weights` identifies them, and the server's version. The file holds replies, so it is as confidential as the runs. When it
cannot be used, every request is sent.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Self

import orjson

from qaeval.chat.protocol import Alternatives, ChatModel, ChatRequest, Completion, special_pieces
from qaeval.records import Usage

FILE: Final = "replies.sqlite"

_COMMIT_S: Final = 0.5
"""Replies are written together; a killed process loses those since the last time. No transaction is open in between: it would
lock out the runs of other processes, for minutes while a model loads."""
_BUSY_S: Final = 2.0
"""Longest wait for another process that writes the file; it holds up all requests of this one."""


class Cache:
    """Replies by the hash of their request, in one SQLite file; a context manager.

    Args:
        folder: Folder of the file; created when it does not exist.
        on_message: Called once, when the file cannot be used.
    """

    def __init__(self, folder: Path, on_message: Callable[[str], None] = lambda _text: None) -> None:
        self._path = folder / FILE
        self._on_message = on_message
        self._file: sqlite3.Connection | None = None
        self._is_usable = True
        self._unwritten: dict[bytes, bytes] = {}
        self._written_at = perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            try:
                self._write(self._file)
            except sqlite3.Error as error:
                self._give_up(error)
        if self._file is not None:
            self._file.close()

    def get(self, key: bytes) -> bytes | None:
        """Return the reply to a request; None where there is none."""
        try:
            file = self._opened()
            if file and key in self._unwritten:
                return self._unwritten[key]
            row = file and file.execute("SELECT reply FROM reply WHERE question = ?", (key,)).fetchone()
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
            return None
        return row[0] if row else None

    def put(self, key: bytes, reply: bytes) -> None:
        """Keep a reply; it is written with a later one, after half a second, or at the end."""
        try:
            if file := self._opened():
                self._unwritten[key] = reply
                if perf_counter() - self._written_at >= _COMMIT_S:
                    self._write(file)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def _write(self, file: sqlite3.Connection) -> None:
        with file:  # one transaction
            file.executemany("INSERT OR REPLACE INTO reply VALUES (?, ?)", self._unwritten.items())
        self._unwritten.clear()
        self._written_at = perf_counter()

    def weights(self, model: str) -> list[dict[str, str]]:
        """Return what identified the weights of a model in earlier runs, the last one at the end."""
        if not self._path.exists():
            return []
        try:
            file = self._opened()
            rows = file and file.execute("SELECT weights FROM seen WHERE model = ? ORDER BY rowid", (model,))
            return [orjson.loads(row[0]) for row in rows or ()]
        except (OSError, ValueError, sqlite3.Error) as error:
            self._give_up(error)
            return []

    def remember(self, model: str, weights: Mapping[str, str]) -> None:
        """Keep what identifies the weights of a model now."""
        try:
            if file := self._opened():
                row = (model, orjson.dumps(weights, option=orjson.OPT_SORT_KEYS))
                file.execute("DELETE FROM seen WHERE model = ? AND weights = ?", row)
                file.execute("INSERT INTO seen VALUES (?, ?)", row)
                file.commit()  # other runs write too
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def _opened(self) -> sqlite3.Connection | None:
        """Open the file at the first use, so that a run without a pinned model creates none."""
        if self._file is None and self._is_usable:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = sqlite3.connect(self._path, timeout=_BUSY_S)
            self._path.chmod(0o600)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS reply (question BLOB PRIMARY KEY, reply BLOB) WITHOUT ROWID"
            )
            self._file.execute("CREATE TABLE IF NOT EXISTS seen (model TEXT, weights BLOB)")
        return self._file

    def _give_up(self, error: Exception) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._is_usable = False
        self._on_message(f"{self._path}: cannot be used ({error}); every request is sent")


class Cached:
    """A model behind a cache.

    Args:
        model: The model.
        cache: Replies of all models.
        identity: What the model's replies depend on beside the request, as JSON.
    """

    def __init__(self, model: ChatModel, cache: Cache, identity: Any) -> None:  # noqa: ANN401 - any JSON value
        self._model = model
        self._cache = cache
        self._identity = identity

    async def complete(self, request: ChatRequest) -> Completion:
        """Return the cached reply, or ask once, retries included.

        Raises:
            ChatError: when there is no reply.
        """
        key = self._key(request)
        if content := self._cache.get(key):
            try:
                return read_reply(content)
            except (LookupError, TypeError, ValueError):
                pass  # written by another version, or damaged: the reply below replaces it
        completion = await self._model.complete(request)
        if completion.finish_reason != "abort":
            self._cache.put(key, write_reply(completion))
        return completion

    async def special_pieces(self, pieces: Collection[str]) -> frozenset[str]:
        """Return the pieces that are special tokens of the model."""
        return await special_pieces(self._model, pieces)

    def _key(self, request: ChatRequest) -> bytes:
        pattern = request.alternatives_at
        parts = [
            self._identity,
            [(turn.role, turn.content) for turn in request.messages],
            request.schema,
            request.sampling,
            request.top_logprobs,
            pattern.pattern if pattern else None,
            *([request.probability_of.pattern] if request.probability_of else []),
        ]
        return hashlib.sha256(orjson.dumps(parts, default=dict, option=orjson.OPT_SORT_KEYS)).digest()


def write_reply(completion: Completion) -> bytes:
    """Serialise a reply for the cache."""
    usage, alternatives = completion.usage, completion.alternatives
    return orjson.dumps(
        {
            "text": completion.text,
            "finish": completion.finish_reason,
            "usage": usage.model_dump() if usage else None,
            "alternatives": [alternatives.token, alternatives.at, alternatives.top] if alternatives else None,
            "thinking": completion.n_thinking,
            "remark": completion.remark,
            **({} if completion.probability is None else {"probability": completion.probability}),
        },
        default=dict,
    )


def read_reply(content: bytes) -> Completion:
    """Read a reply from the cache.

    Raises:
        LookupError, TypeError, ValueError: the content is not in the form that `write_reply` writes.
    """
    fields = orjson.loads(content)
    usage, alternatives = fields["usage"], fields["alternatives"]
    return Completion(
        text=fields["text"],
        finish_reason=fields["finish"],
        usage=Usage.model_validate(usage) if usage else None,
        latency_s=0.0,
        alternatives=Alternatives(*alternatives) if alternatives else None,
        cached=True,
        n_thinking=fields.get("thinking", 0),
        remark=fields.get("remark", ""),
        probability=fields.get("probability"),
    )
