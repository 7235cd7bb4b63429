"""A run of which some items have no letter yet."""

from collections.abc import Mapping, Sequence

from qaeval.errors import DataError
from qaeval.gate.evidence import FAILED_MARK, UNGRADED_MARK, Candidate, Evidence
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
