"""Questions that were answered before, in any run, and are not asked again.

The same question is the same messages, schema, sampling and wish for alternatives, put to the same revision of a model on the
same version of a server. The file holds replies, so it is as confidential as the runs beside it; whatever goes wrong with it,
the question is asked.
"""

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Self

import orjson

from qaeval.chat.protocol import Alternatives, ChatModel, ChatRequest, Completion
from qaeval.records import Usage

FILE: Final = "replies.sqlite"

_COMMIT_S: Final = 0.5
_BUSY_S: Final = 2.0
"""Another process may be writing; longer than this nobody waits for it."""


class Cache:
    """Replies by question, in one SQLite file; a context manager.

    Args:
        folder: Where the file stands; made when it is not there.
        on_message: Called once when the file cannot be used.
    """

    def __init__(self, folder: Path, on_message: Callable[[str], None] = lambda _text: None) -> None:
        self._path = folder / FILE
        self._on_message = on_message
        self._file: sqlite3.Connection | None = None
        self._is_usable = True
        self._committed_at = perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            try:
                self._file.commit()
            except sqlite3.Error as error:
                self._give_up(error)
        if self._file is not None:
            self._file.close()

    def get(self, question: bytes) -> bytes | None:
        """Return the reply to a question; None where there is none."""
        try:
            file = self._opened()
            found = (
                file and file.execute("SELECT reply FROM reply WHERE question = ?", (question,)).fetchone()
            )
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
            return None
        return found[0] if found else None

    def put(self, question: bytes, reply: bytes) -> None:
        """Keep a reply; it is written at the latest half a second after, or with the next one."""
        try:
            if file := self._opened():
                file.execute("INSERT OR REPLACE INTO reply VALUES (?, ?)", (question, reply))
                if perf_counter() - self._committed_at >= _COMMIT_S:
                    file.commit()
                    self._committed_at = perf_counter()
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def _opened(self) -> sqlite3.Connection | None:
        """Open the file when it is needed first: a run without a pinned model leaves none behind."""
        if self._file is None and self._is_usable:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = sqlite3.connect(self._path, timeout=_BUSY_S)
            self._path.chmod(0o600)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS reply (question BLOB PRIMARY KEY, reply BLOB) WITHOUT ROWID"
            )
        return self._file

    def _give_up(self, error: Exception) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._is_usable = False
        self._on_message(f"{self._path}: not used ({error}); every question is asked")


class Cached:
    """A model that is asked what it was not asked before.

    Args:
        model: Is asked.
        cache: Replies of all models.
        identity: What the replies of this one depend on beside the request, as JSON.
    """

    def __init__(self, model: ChatModel, cache: Cache, identity: Any) -> None:  # noqa: ANN401 - any JSON value
        self._model = model
        self._cache = cache
        self._identity = identity

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask once, retries included, unless the reply is known.

        Raises:
            ChatError: when there is no reply.
        """
        question = self._question(request)
        if known := self._cache.get(question):
            try:
                return read_reply(known)
            except (LookupError, TypeError, ValueError):
                pass  # of another version, or damaged: asked, and written anew
        completion = await self._model.complete(request)
        if completion.finish_reason != "abort":
            self._cache.put(question, write_reply(completion))
        return completion

    def _question(self, request: ChatRequest) -> bytes:
        place = request.alternatives_at
        parts = [
            self._identity,
            [(turn.role, turn.content) for turn in request.messages],
            request.schema,
            request.sampling,
            request.top_logprobs,
            place.pattern if place else None,
        ]
        return hashlib.sha256(orjson.dumps(parts, default=dict, option=orjson.OPT_SORT_KEYS)).digest()


def write_reply(completion: Completion) -> bytes:
    """Write what is kept of a reply."""
    usage, found = completion.usage, completion.alternatives
    return orjson.dumps(
        {
            "text": completion.text,
            "finish": completion.finish_reason,
            "usage": usage.model_dump() if usage else None,
            "alternatives": [found.token, found.at, found.top] if found else None,
        },
        default=dict,
    )


def read_reply(content: bytes) -> Completion:
    """Read what was kept of a reply.

    Raises:
        LookupError, TypeError, ValueError: it is not what `write_reply` writes.
    """
    kept = orjson.loads(content)
    usage, found = kept["usage"], kept["alternatives"]
    return Completion(
        text=kept["text"],
        finish_reason=kept["finish"],
        usage=Usage.model_validate(usage) if usage else None,
        latency_s=0.0,
        alternatives=Alternatives(*found) if found else None,
        cached=True,
    )
