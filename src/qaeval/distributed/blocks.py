"""Blocks of a run's samples, and their files in a place that all nodes see.

::

    PLACE/job.json              digest of the run that the blocks belong to
          blocks/000012.jsonl   samples of a block
          replies/000012.jsonl  rows of all candidates for these samples
          letters/000012.jsonl  rows of the judge for the items of these replies

Each file is created once, whole, by the first writer (`Location.create`: a hard link, or a conditional put). A stage
that finds the file of a block asks nothing, so that a task that Ray repeats costs requests only where its actor died
before the file was written, and no row can count twice.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from qaeval.errors import DataError, NotComparableError
from qaeval.records import GenerateRow, GradeRow, Record, Sample
from qaeval.storage.location import Location

BLOCK_SIZE: Final = 200
"""Samples after which a block ends with the document: what an actor that dies has to ask again at most."""
MAX_BLOCK_SIZE: Final = 500
"""Samples of a block of a long document."""

_JOB: Final = "job.json"
_GENERATE_ROWS: Final[TypeAdapter[GenerateRow]] = TypeAdapter(GenerateRow)
_GRADE_ROWS: Final[TypeAdapter[GradeRow]] = TypeAdapter(GradeRow)
_Row = TypeVar("_Row")


def slices(samples: Iterable[Sample], size: int = BLOCK_SIZE) -> list[slice]:
    """Cut a sample set into blocks that end with a document where they can.

    The server's prefix cache and the judge's see the chunks of a document one after another.

    Args:
        samples: Ordered by document, as `qaeval.corpus.sampling.draw` does.
        size: Samples of a block, at least 1. A document is not cut before the block has 2.5 times as many.
    """
    blocks, start, limit = [], 0, size * MAX_BLOCK_SIZE // BLOCK_SIZE
    documents: Iterator[str | None] = (sample.chunk.document for sample in samples)
    for end, (document, following) in enumerate(pairwise(chain(documents, (None,))), start=1):
        n = end - start
        # a sample set without documents has blocks of `size`
        if following is None or n >= limit or (n >= size and (following != document or not following)):
            blocks.append(slice(start, end))
            start = end
    return blocks


class BlockFiles:
    """The files of blocks in a place."""

    def __init__(self, location: Location) -> None:
        self.location = location

    def claim(self, job: str) -> None:
        """Take an empty place for a job, or find it taken by the same one.

        Args:
            job: Digest of everything that the rows depend on.

        Raises:
            NotComparableError: the place has the blocks of another run.
            StoreError: it cannot be written.
        """
        content = json.dumps({"job": job}).encode()
        self.location.create(_JOB, content)
        if self._content(_JOB) != content:
            raise NotComparableError(
                f"{self.location.name}: has the blocks of another run, or of this one with other settings or samples; choose "
                f"another --ray-store"
            )

    @property
    def is_claimed(self) -> bool:
        """Whether the place has the blocks of a run."""
        return _JOB in self.location.names("")

    def write_samples(self, block: int, samples: Iterable[Sample]) -> None:
        """Write the samples of a block, unless they are there."""
        self.location.create(_name("blocks", block), _lines(samples))

    def samples(self, block: int) -> list[Sample]:
        """Read the samples of a block."""
        name = _name("blocks", block)
        return [*self._rows(name, self._content(name), Sample.model_validate_json)]

    def write_replies(self, block: int, rows: Iterable[GenerateRow]) -> None:
        """Write the replies of a block, unless another actor did."""
        self.location.create(_name("replies", block), _lines(rows))

    def replies(self, block: int) -> list[GenerateRow] | None:
        """Read the replies of a block; None where it has none yet."""
        return self._unless_missing(_name("replies", block), _GENERATE_ROWS)

    def write_letters(self, block: int, rows: Iterable[GradeRow]) -> None:
        """Write the letters of a block, unless another actor did."""
        self.location.create(_name("letters", block), _lines(rows))

    def letters(self, block: int) -> list[GradeRow] | None:
        """Read the letters of a block; None where it has none yet."""
        return self._unless_missing(_name("letters", block), _GRADE_ROWS)

    def _unless_missing(self, name: str, model: "TypeAdapter[_Row]") -> "list[_Row] | None":
        try:
            content = self._content(name)
        except DataError:
            return None
        return [*self._rows(name, content, model.validate_json)]

    def _rows(self, name: str, content: bytes, parse: Callable[[bytes], _Row]) -> Iterator[_Row]:
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                yield parse(line)
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]["msg"]
                raise DataError(
                    f"{self.location.name}/{name}:{number}: not a valid row: {problem}; was the block written by another "
                    f"version of qaeval?"
                ) from error

    def _content(self, name: str) -> bytes:
        return b"".join(self.location.blocks(name))


def _name(folder: str, block: int) -> str:
    return f"{folder}/{block:06}.jsonl"


def _lines(rows: Iterable[Record]) -> bytes:
    return b"".join(row.model_dump_json(exclude_none=True).encode() + b"\n" for row in rows)
