"""Which sample an entry is about: its chunk from the row, a chunk file, a run or the eval, and what must agree."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from qaeval.corpus.loading import MAX_CHUNK_WORDS
from qaeval.errors import DataError
from qaeval.evals.definition import ItemKind
from qaeval.importing.entries import Entry
from qaeval.records import Chunk, Sample, record_id
from qaeval.text.units import count_words

_EXCERPT: Final = 40


@dataclass(frozen=True, slots=True)
class KnownSamples:
    """Chunks and samples that rows refer to by id."""

    name: str
    """Where they come from, for messages."""
    chunks: dict[str, Chunk]
    samples: dict[str, Sample]
    """By id; they have fields of the eval's data that the imported rows lack."""

    @classmethod
    def of(cls, name: str, samples: Iterable[Sample], chunks: Iterable[Chunk] = ()) -> "KnownSamples":
        """Index samples and further chunks."""
        by_id = {sample.sample_id: sample for sample in samples}
        by_chunk = {chunk.chunk_id: chunk for chunk in chunks}
        by_chunk |= {sample.chunk.chunk_id: sample.chunk for sample in by_id.values()}
        return cls(name, by_chunk, by_id)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The sample of an entry."""

    sample: Sample
    is_placed: bool
    """Whether other candidates can answer the same sample; not so without chunk, chunk id and question."""


class SampleFinder:
    """Finds the sample of each entry, and refuses chunks that differ between rows.

    Texts of chunks are put aside, and only their hashes are held.

    Args:
        kind: Kind of the eval's items.
        known: Reads the chunks that rows refer to by id; called when the first row does.
        is_given: Whether the user names these chunks, so that texts in rows must be theirs.
        put: Puts a chunk of a row at some place aside and returns where.
        get: Reads such a chunk back.
    """

    def __init__(
        self,
        kind: ItemKind,
        known: Callable[[], KnownSamples],
        *,
        is_given: bool,
        put: Callable[[Chunk, str], int],
        get: Callable[[int], Chunk],
    ) -> None:
        self._kind = kind
        self._read_known = known
        self._is_given = is_given
        self._put, self._get = put, get
        self._last: tuple[str, Chunk | None] = ("", None)
        """Chunk of the row before: rows of a chunk follow each other."""
        self._known: KnownSamples | None = None
        self._folded: dict[str, str] = {}
        self._seen: dict[str, tuple[bytes, str, int]] = {}
        """By chunk id: hash of the words, first place, and where the chunk was put; nothing of it where it has no text."""
        self._id_of: dict[bytes, str] = {}
        """Of rows that give the text of a chunk without its id, which an earlier row has."""

    @property
    def known(self) -> KnownSamples:
        """The chunks and samples that rows refer to by id."""
        if self._known is None:
            self._known = self._read_known()
            for chunk_id in self._known.chunks:
                self._folded.setdefault(chunk_id.casefold(), chunk_id)
        return self._known

    def resolve(self, entry: Entry) -> Resolved:
        """Return the sample of an entry; its chunk has no text where there is none.

        Raises:
            DataError: an id differs from another one in case only, or a chunk has other text than before.
        """
        chunk = self._chunk(entry)
        is_placed = True
        if chunk is None:
            chunk_id = entry.chunk_id
            if not chunk_id:
                asked = entry.question or (entry.slots[0].question if self._is_preference(entry) else "")
                is_placed = bool(asked)
                chunk_id = f"question-{record_id('question', asked)}" if asked else entry.where
            chunk = Chunk(chunk_id=chunk_id, text="")
        given = {name: value for name, value in (("type", entry.type), ("expected", entry.expected)) if value}
        sample = Sample.of(chunk, entry.question if self._kind == "answer" else "", given)
        if self._known is not None and self._known.chunks.get(chunk.chunk_id) is chunk:
            sample = self._known.samples.get(sample.sample_id, sample)
        return Resolved(sample, is_placed)

    def _is_preference(self, entry: Entry) -> bool:
        return self._kind == "preference_pair" and bool(entry.slots)

    def _chunk(self, entry: Entry) -> Chunk | None:
        text, chunk_id = entry.chunk.get("text", ""), entry.chunk_id
        if not chunk_id and not text:
            return None
        words = _hash(text) if text else b""
        if not chunk_id:
            chunk_id = self._id_of.get(words) or f"chunk-{record_id('chunk', text)}"
        seen = self._seen.get(chunk_id)
        if seen is None:
            self._require_same_case(chunk_id, entry.where)
            chunk = self._first(chunk_id, entry)
            words = b"" if chunk is None else _hash(chunk.text)
            self._seen[chunk_id] = (
                words,
                entry.where,
                -1 if chunk is None else self._put(chunk, entry.where),
            )
            if chunk is not None:
                self._id_of.setdefault(words, chunk_id)
        else:
            first_words, where, offset = seen
            chunk = self._recall(chunk_id, offset)
            if text and words != first_words:
                self._refuse_edited(chunk_id, "" if chunk is None else chunk.text, where, text, entry.where)
        self._last = (chunk_id, chunk)
        return chunk

    def _recall(self, chunk_id: str, offset: int) -> Chunk | None:
        if offset < 0:
            return None
        known = None if self._known is None else self._known.chunks.get(chunk_id)
        if known is not None:
            return known
        return self._last[1] if self._last[0] == chunk_id else self._get(offset)

    def _first(self, chunk_id: str, entry: Entry) -> Chunk | None:
        """Return the chunk of an id that comes for the first time; None where nobody knows its text."""
        text = entry.chunk.get("text", "")
        if text and not self._is_given:
            return _made(chunk_id, entry)
        chunk = self.known.chunks.get(chunk_id)
        if chunk is None:
            return _made(chunk_id, entry) if text else None
        if text and not _same(chunk.text, text):
            self._refuse_edited(chunk_id, chunk.text, self.known.name, text, entry.where)
        return chunk

    def _require_same_case(self, chunk_id: str, where: str) -> None:
        known = self._folded.setdefault(chunk_id.casefold(), chunk_id)
        if known != chunk_id:
            first = self._seen[known][1] if known in self._seen else self.known.name
            raise DataError(
                f"{where}: chunk id {chunk_id!r} differs from {known!r} ({first}) in case only; write one id the same "
                "way everywhere"
            )

    def _refuse_edited(self, chunk_id: str, old: str, old_where: str, new: str, new_where: str) -> None:
        at = next(
            (n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new))
        )
        start = max(0, at - _EXCERPT // 2)
        raise DataError(
            f"{new_where}: chunk {chunk_id!r} has another text than in {old_where}, from character {at + 1}: "
            f"{old[start : start + _EXCERPT]!r} there, {new[start : start + _EXCERPT]!r} here. Candidates are compared on "
            "the same chunks: give edited chunks ids of their own, or import the file by itself"
        )


def _same(a: str, b: str) -> bool:
    return a == b or a.split() == b.split()


def _hash(text: str) -> bytes:
    """Hash a text whatever its white space."""
    return sha256(" ".join(text.split()).encode()).digest()[:16]


def _made(chunk_id: str, entry: Entry) -> Chunk:
    fields = dict(entry.chunk)
    if "\0" in fields["text"] + chunk_id:
        raise DataError(f"{entry.where}: the chunk holds a NUL character; remove it")
    if (n_words := count_words(fields["text"])) > MAX_CHUNK_WORDS:
        raise DataError(
            f"{entry.where}: the chunk has {n_words:,} words, more than {MAX_CHUNK_WORDS:,}; cut it with `qaeval chunk`"
        )
    return Chunk(chunk_id=chunk_id, **fields)
