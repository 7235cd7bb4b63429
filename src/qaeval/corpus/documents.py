"""From files and folders to the rows of a chunk file: found, read, cut, each text once."""

import signal
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from qaeval.corpus.chunking import chunk_documents, words_counter
from qaeval.corpus.reading import Document, find_documents, read_documents
from qaeval.errors import DataError, UsageError
from qaeval.files.kinds import DOCUMENTS

_SHOWN: Final = 20
"""Documents listed in a message."""
_BYTES_PER_PROCESS: Final = 500_000
"""Reading so much HTML takes a second and more, the start of a process half a second."""


@dataclass(frozen=True)
class ChunkedDocuments:
    """The chunks of some documents."""

    rows: tuple[dict[str, Any], ...]
    """Rows of the chunk file; a text that occurs twice is left out the second time."""
    n_documents: int
    """Documents with a chunk."""
    without_chunk: str
    """Message about documents without a chunk: empty ones, and boilerplate; empty without any."""
    n_duplicates: int
    """Chunks left out."""
    ignored: str
    """Files of other kinds, as counts by suffix; empty without any."""
    unreadable: str
    """Message about skipped documents; empty without any."""
    n_tokens: tuple[int, ...] = field(repr=False)
    """Tokens of each row."""


def cut_documents(
    paths: Sequence[Path],
    *,
    size: int,
    overlap: int = 0,
    min_tokens: int | None = None,
    count: Callable[[str], int] | None = None,
    language: str = "",
    skip_unreadable: bool = False,
    processes: int = 1,
) -> ChunkedDocuments:
    """Cut documents into the rows of a chunk file.

    Args:
        paths: Files, or folders that are searched.
        size: Maximum number of tokens of a chunk; see `chunk_documents` for this and the next two.
        overlap: Maximum number of tokens repeated in the next chunk.
        min_tokens: Least tokens before a heading starts a new chunk.
        count: Counts tokens; default: four per three words.
        language: Language of all documents; empty: that which a document states.
        skip_unreadable: Whether documents that cannot be read are left out.
        processes: Maximum number of processes that read documents. More than 1 needs a main module that can be imported.

    Raises:
        UsageError: there is no document, or none has text; or the sizes are inconsistent.
        DataError: a document cannot be read.
    """
    names = ", ".join(map(str, paths))
    others: Counter[str] = Counter()
    files = find_documents(paths, others)
    ignored = ", ".join(f"{n:,} {suffix or 'without suffix'}" for suffix, n in others.most_common(8))
    if not files:
        raise UsageError(f"no Markdown, HTML, PDF or plain text in {names}; ignored: {ignored or 'nothing'}")
    read, problems = _read(files, processes)
    unreadable = _unreadable(problems, len(files), is_skipped=skip_unreadable) if problems else ""
    chunks = list(
        chunk_documents(
            read, size=size, overlap=overlap, min_tokens=min_tokens, count=count or words_counter()
        )
    )
    if not chunks:
        raise UsageError(f"{names}: no chunks, the documents are empty or boilerplate")
    first = {chunk.text: chunk.chunk_id for chunk in reversed(chunks)}
    named = {chunk.document for chunk in chunks}
    without = [document.name for document in read if document.name not in named]
    extra = {"language": language} if language else {}
    kept = [chunk for chunk in chunks if first[chunk.text] == chunk.chunk_id]
    return ChunkedDocuments(
        rows=tuple({**chunk.row(), **extra} for chunk in kept),
        n_documents=len(named),
        without_chunk=_without_chunk(without) if without else "",
        n_duplicates=len(chunks) - len(kept),
        ignored=ignored,
        unreadable=unreadable,
        n_tokens=tuple(chunk.n_tokens for chunk in kept),
    )


def _read(files: Sequence[tuple[Path, str]], processes: int) -> tuple[list[Document], list[str]]:
    """Read documents like `read_documents`, in several processes if there is enough to read."""
    n_bytes = sum(
        path.stat().st_size
        for path, _ in files
        if path.is_file() and DOCUMENTS.get(path.suffix.lower(), "text") != "text"  # which takes no time
    )
    n = min(processes, len(files), n_bytes // _BYTES_PER_PROCESS)
    if n <= 1:
        return read_documents(files)
    try:
        # spawned, not forked: the caller may have threads; Ctrl-C is for this process, which then starts no further document
        with ProcessPoolExecutor(
            n, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
        ) as pool:
            results = list(pool.map(read_documents, ([file] for file in files)))
    except BrokenProcessPool:  # one of them was killed, as for want of memory
        return read_documents(files)
    return (
        list(chain.from_iterable(documents for documents, _ in results)),
        list(chain.from_iterable(problems for _, problems in results)),
    )


def _without_chunk(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _SHOWN:,} more"] if len(names) > _SHOWN else []
    documents = "document" if len(names) == 1 else "documents"
    return f"{len(names):,} {documents} gave no chunk: {', '.join([*names[:_SHOWN], *more])}"


def _unreadable(problems: Sequence[str], n_found: int, *, is_skipped: bool) -> str:
    """Return the message about unreadable documents; raise it as an error unless they are skipped."""
    shown = "\n  ".join(problems[:_SHOWN]) + (
        f"\n  and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
    )
    message = f"{len(problems):,} of {n_found:,} documents cannot be read:\n  {shown}"
    if not is_skipped or len(problems) == n_found:
        raise DataError(
            message if is_skipped else f"{message}\nfix them, or skip them with --skip-unreadable"
        )
    return message
