"""The one table of letters: a row per expected item of every candidate, whatever became of it.

Rows are joined by id, and the join is checked: what is lost, doubled or foreign raises with the first ids.

=============  ==========================================================================================
`candidate`    who wrote the item
`sample_id`    about what
`cluster`      what makes items dependent: the chunk
`stratum`      of the chunk
`position`     place in the reply, from 0
`status`       ``graded``, ``ungraded`` (the judge gave no letter), ``failed`` (there is no item)
`item_id`      empty where there is no item; so are `type`, `question`, `answer`
`letter`       empty unless graded; `why` is then the judge's reason, `sure` its probability of the letter or NaN
`failure`      reason of the failure, empty when graded; `detail` and `text` belong to it
`flag <name>`  one column of booleans per flag of the rubric
=============  ==========================================================================================
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

import pandas as pd

from qaeval.errors import DataError
from qaeval.records import Failure, GenerateRow, Generation, Grade, GradeRow, Sample
from qaeval.report.facts import RubricFacts

GRADED: Final = "graded"
UNGRADED: Final = "ungraded"
FAILED: Final = "failed"

_SLOT: Final = ["candidate", "sample_id", "position"]
_REPLY: Final = ["candidate", "sample_id"]
_FAILURE: Final = ["failure", "detail", "text"]
_TEXT: Final = ("item_id", "type", "question", "answer", "letter", "why", *_FAILURE)


def cluster_of(sample: Sample) -> str:
    """Say what makes items dependent; nothing else decides it."""
    return sample.chunk.chunk_id


def flag_column(flag: str) -> str:
    """Name the column of a flag."""
    return f"flag {flag}"


def letter_table(
    samples: Sequence[Sample],
    generations: Iterable[GenerateRow],
    grades: Iterable[GradeRow],
    *,
    candidates: Sequence[str],
    items_per_sample: int,
    judge: str,
    rubric: RubricFacts,
) -> pd.DataFrame:
    """Join samples, generations and grades into one row per expected item.

    Args:
        samples: the sample set; its order is the table's order inside each candidate.
        generations: one row per candidate and sample.
        grades: one row per item.
        candidates: names, in the order of the report.
        items_per_sample: how many items each reply owes.
        judge: the only judge whose grades are allowed.
        rubric: the only rubric whose grades are allowed.

    Raises:
        DataError: a row is missing, doubled, foreign, or graded by another judge, rubric or scale.
    """
    grid = _grid(samples, candidates, items_per_sample)
    items, lost = _generation_tables(list(generations), grid, items_per_sample)
    letters, unread = _grade_tables(list(grades), judge=judge, rubric=rubric)
    _same_keys("grade", set(items["item_id"]), {*letters["item_id"], *unread["item_id"]}, "`qaeval grade`")
    table = grid.merge(items, on=_SLOT, how="left", validate="one_to_one")
    table = table.merge(letters, on="item_id", how="left", validate="many_to_one")
    failures = pd.concat(
        [
            table[_SLOT].merge(lost, on=_REPLY, how="left", validate="many_to_one")[_FAILURE],
            table[["item_id"]].merge(unread, on="item_id", how="left", validate="many_to_one")[_FAILURE],
        ],
        keys=["lost", "unread"],
        axis=1,
    )
    for name in _FAILURE:
        table[name] = failures[("lost", name)].fillna(failures[("unread", name)])
    return _finished(table, rubric)


def _grid(samples: Sequence[Sample], candidates: Sequence[str], items_per_sample: int) -> pd.DataFrame:
    _no_doubles("sample", [sample.sample_id for sample in samples])
    _no_doubles("candidate", candidates)
    slots = [
        (name, sample.sample_id, cluster_of(sample), sample.chunk.stratum, position)
        for name in candidates
        for sample in samples
        for position in range(items_per_sample)
    ]
    return pd.DataFrame(slots, columns=["candidate", "sample_id", "cluster", "stratum", "position"])


def _generation_tables(
    rows: Sequence[GenerateRow], grid: pd.DataFrame, items_per_sample: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the items, one row each, and the failed replies."""
    keys = [(_author(row), row.sample_id) for row in rows]
    _no_doubles("generation", [" ".join(key) for key in keys])
    expected = set(zip(grid["candidate"], grid["sample_id"], strict=True))
    _same_keys(
        "generation",
        {" ".join(key) for key in expected},
        {" ".join(key) for key in keys},
        "the run with --resume",
    )
    replies = [row for row in rows if isinstance(row, Generation)]
    places = list(range(items_per_sample))
    if odd := [row.task_id for row in replies if sorted(item.position for item in row.items) != places]:
        raise DataError(f"generations: expected items at positions {places}, not so in {_first(odd)}")
    items = [
        (row.candidate, row.sample_id, item.position, item.item_id, item.type, item.question, item.answer)
        for row in replies
        for item in row.items
    ]
    lost = [
        (row.model, row.sample_id, row.reason, row.detail, row.text)
        for row in rows
        if isinstance(row, Failure)
    ]
    columns = [*_SLOT, "item_id", "type", "question", "answer"]
    return pd.DataFrame(items, columns=columns), pd.DataFrame(lost, columns=[*_REPLY, *_FAILURE])


def _author(row: GenerateRow) -> str:
    return row.candidate if isinstance(row, Generation) else row.model


def _grade_tables(
    rows: Sequence[GradeRow], *, judge: str, rubric: RubricFacts
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the letters and the items that got none."""
    _no_doubles("grade", [row.item_id or "" for row in rows])
    given = [row for row in rows if isinstance(row, Grade)]
    if other := [row.item_id for row in given if row.rubric_sha != rubric.sha]:
        raise DataError(
            f"grades: {len(other)} were given by another rubric than {rubric.sha[:12]}; letters of two rubrics are never "
            f"pooled: {_first(other)}"
        )
    judges = {row.judge if isinstance(row, Grade) else row.model for row in rows}
    if judges - {judge}:
        raise DataError(f"grades: expected grades by {judge!r} alone, got some by {sorted(judges - {judge})}")
    if off := [row.item_id for row in given if row.letter not in rubric.letters]:
        raise DataError(f"grades: letters off the scale {'/'.join(rubric.letters)}: {_first(off)}")
    if odd := [row.item_id for row in given if set(row.flags) - set(rubric.flag_names)]:
        raise DataError(f"grades: flags that the rubric does not know: {_first(odd)}")
    letters = [
        (
            row.item_id,
            row.letter,
            row.reason,
            _sureness(row),
            *(flag in row.flags for flag in rubric.flag_names),
        )
        for row in given
    ]
    unread = [(row.item_id, row.reason, row.detail, row.text) for row in rows if isinstance(row, Failure)]
    columns = ["item_id", "letter", "why", "sure", *map(flag_column, rubric.flag_names)]
    return pd.DataFrame(letters, columns=columns), pd.DataFrame(unread, columns=["item_id", *_FAILURE])


def _sureness(row: Grade) -> float | None:
    return None if row.probabilities is None else row.probabilities.get(row.letter)


def _finished(table: pd.DataFrame, rubric: RubricFacts) -> pd.DataFrame:
    """Fill what does not exist with empty text and name each row's status."""
    for name in _TEXT:
        table[name] = table[name].fillna("").astype("str")
    for flag in rubric.flag_names:
        table[flag_column(flag)] = table[flag_column(flag)].eq(True)
    table["status"] = GRADED
    table.loc[table["letter"] == "", "status"] = UNGRADED
    table.loc[table["item_id"] == "", "status"] = FAILED
    return table


def _no_doubles(what: str, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    doubled = [name for name in ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if doubled:
        raise DataError(f"{what}s: expected one row per id, got {len(doubled)} twice: {_first(doubled)}")


def _same_keys(what: str, expected: Collection[str], came: Collection[str], how: str) -> None:
    if missing := sorted(set(expected) - set(came)):
        raise DataError(f"{what}s: {len(missing)} are missing ({_first(missing)}); finish with {how}")
    if foreign := sorted(set(came) - set(expected)):
        raise DataError(f"{what}s: {len(foreign)} belong to nothing in this run: {_first(foreign)}")


def _first(ids: Sequence[str], n: int = 3) -> str:
    return ", ".join(map(repr, ids[:n])) + (", …" if len(ids) > n else "")
