"""A run of which some items have no letter yet."""

from collections.abc import Mapping, Sequence

import numpy as np

from qaeval.errors import DataError
from qaeval.gate.claims import Floats, count
from qaeval.gate.evidence import FAILED_MARK, UNGRADED_MARK, Candidate, Evidence
from qaeval.gate.policy import Rule
from qaeval.records import Failure, Generation, Grade, GradeRow
from qaeval.rundata import RunData
from qaeval.stages.grade import task_id


def with_pending(data: RunData) -> list[GradeRow]:
    """Return the judge's rows, and for every item without one a row that says so."""
    rows: list[GradeRow] = list(data.rows.grades)
    known = {row.item_id for row in rows}
    for reply in data.rows.generations:
        for item in reply.items if isinstance(reply, Generation) else ():
            if item.item_id not in known:
                known.add(item.item_id)
                rows.append(
                    Failure(
                        task_id=task_id(data.judge.name, item.item_id),
                        stage="grade",
                        model=data.judge.name,
                        sample_id=reply.sample_id,
                        item_id=item.item_id,
                        reason="interrupted",
                        detail="not graded yet",
                    )
                )
    return rows


def graded_part(run: Evidence, places: Sequence[int], grades: Mapping[str, GradeRow]) -> Evidence:
    """Return some of the run's samples, with these letters.

    Raises:
        DataError: an item has no row.
    """
    return run.model_copy(
        update={
            "samples": "",
            "chunks": tuple(run.chunks[place] for place in places),
            "strata": tuple(run.strata[place] for place in places),
            "candidates": tuple(_graded(one, places, grades) for one in run.candidates),
        }
    )


def _graded(candidate: Candidate, places: Sequence[int], grades: Mapping[str, GradeRow]) -> Candidate:
    words = candidate.items.split(" ")
    items = [words[place].split(",") for place in places]
    flat = [item for word in items for item in word]
    if missing := [item for item in flat if item != UNGRADED_MARK and item not in grades]:
        raise DataError(
            f"grades: {len(missing)} of a chunk that was to be graded are missing, first {missing[0]!r}"
        )
    return candidate.model_copy(
        update={
            "letters": " ".join("".join(_mark(item, grades) for item in word) for word in items),
            "items": " ".join(",".join(word) for word in items),
            "flags": {
                name: tuple(place for place, item in enumerate(flat) if _has_flag(item, name, grades))
                for name in candidate.flags
            },
        }
    )


def _mark(item: str, grades: Mapping[str, GradeRow]) -> str:
    if item == UNGRADED_MARK:
        return FAILED_MARK
    row = grades[item]
    return row.letter if isinstance(row, Grade) else UNGRADED_MARK


def _has_flag(item: str, name: str, grades: Mapping[str, GradeRow]) -> bool:
    row = grades.get(item)
    return isinstance(row, Grade) and name in row.flags


class Became:
    """What became of a candidate's items in the chunks that were seen."""

    def __init__(self, candidate: str, side: str) -> None:
        self.candidate, self.side = candidate, side
        self._known: dict[str, Floats] = {}
        self._seen: Floats = np.zeros(3)

    def note(self, evidence: Evidence, stratum: str | None) -> None:
        """Read how many items of each chunk were delivered, graded and asked for."""
        own = evidence.candidate(self.candidate)
        assert own is not None  # noqa: S101 - the caller asked for a candidate that there is
        delivered, graded = (
            count(evidence, own, Rule(quantity=name, margin=0.5), stratum)
            for name in ("valid_rate", "success_rate")
        )
        rows = np.column_stack([delivered.hits, graded.hits, delivered.totals])
        self._known.update(zip(delivered.chunks, rows, strict=True))

    def update(self, chunk: str) -> None:
        """Count a chunk."""
        self._seen = self._seen + self._known.get(chunk, 0.0)

    @property
    def without_letter(self) -> float:
        """Share of the items that were delivered and that the judge gave no letter."""
        delivered, graded, asked = self._seen
        return float((delivered - graded) / asked) if asked else 0.0

    @property
    def graded(self) -> float:
        """Share of the items that have a letter; 1 before any chunk was seen."""
        return float(self._seen[1] / self._seen[2]) if self._seen[2] else 1.0
