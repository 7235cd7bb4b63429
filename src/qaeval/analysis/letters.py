"""The one table of letters: a row per expected item of every candidate, whatever became of it.

Rows are joined by id, and the join is checked: what is lost, doubled or foreign raises with the first ids.

=============  ==========================================================================================
`candidate`    who wrote the item
`sample_id`    about what
`cluster`      what makes items dependent: the chunk
`stratum`      of the sample
`position`     place in the reply, from 0
`status`       ``graded``, ``ungraded`` (the judge gave no letter), ``failed`` (there is no item)
`given`        type of the sample, empty where the eval's data gives it none
`item_id`      empty where there is no item; so are `question`, `answer`, `rejected`
`type`         of the sample where it has one, else of the item, empty where there is none
`findings`     what the eval's checks found, by check; None where nothing
`letter`       empty unless graded; `why` is then the judge's reason, `sure` its probability of the letter or NaN
`failure`      reason of the failure, empty when graded; `detail` and `text` belong to it
`flag <name>`  one column of booleans per flag of the rubric
=============  ==========================================================================================
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import pandas as pd

from qaeval.analysis.repeated import PLACEHOLDER, ReplyTexts, detail, repeated_replies
from qaeval.errors import DataError
from qaeval.records import (
    REJECTED,
    Failure,
    GenerateRow,
    Grade,
    GradeRow,
    Sample,
    author,
)
from qaeval.report.facts import RubricFacts

GRADED: Final = "graded"
UNGRADED: Final = "ungraded"
FAILED: Final = "failed"

_SLOT: Final = ["candidate", "sample_id", "position"]
_REPLY: Final = ["candidate", "sample_id"]
_FAILURE: Final = ["failure", "detail", "text"]
_TEXT: Final = ("item_id", "type", "question", "answer", "rejected", "letter", "why", *_FAILURE)


_WRITTEN: Final = ("question", "answer", "rejected")
"""Columns of what the candidate wrote."""


def cluster_of(sample: Sample) -> str:
    """Say what makes items dependent; nothing else decides it."""
    return sample.chunk.chunk_id


def flag_column(flag: str) -> str:
    """Name the column of a flag."""
    return f"flag {flag}"


def letter_table(
    samples: Iterable[Sample],
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
    items, failed = _generation_tables(generations, grid, items_per_sample)
    letters, unread = _grade_tables(grades, judge=judge, rubric=rubric)
    _same_keys("grade", set(items["item_id"]), {*letters["item_id"], *unread["item_id"]}, "`qaeval grade`")
    table = grid.merge(items, on=_SLOT, how="left", validate="one_to_one")
    table = table.merge(letters, on="item_id", how="left", validate="many_to_one")
    failures = pd.concat(
        [
            table[_SLOT].merge(failed, on=_REPLY, how="left", validate="many_to_one")[_FAILURE],
            table[["item_id"]].merge(unread, on="item_id", how="left", validate="many_to_one")[_FAILURE],
        ],
        keys=["lost", "unread"],
        axis=1,
    )
    for name in _FAILURE:
        table[name] = failures[("lost", name)].fillna(failures[("unread", name)])
    return _without_repeated(_finished(table, rubric.flag_names), samples)


def generation_table(
    samples: Iterable[Sample],
    generations: Iterable[GenerateRow],
    *,
    candidates: Sequence[str],
    items_per_sample: int,
) -> pd.DataFrame:
    """Join samples and generations alone: the table of letters of a run that has none; arguments as in `letter_table`.

    Raises:
        DataError: a row is missing, doubled or foreign.
    """
    grid = _grid(samples, candidates, items_per_sample)
    items, failed = _generation_tables(generations, grid, items_per_sample)
    table = grid.merge(items, on=_SLOT, how="left", validate="one_to_one")
    table = table.merge(failed, on=_REPLY, how="left", validate="many_to_one")
    table[["letter", "why"]] = ""
    return _without_repeated(_finished(table, ()), samples)


def _grid(samples: Iterable[Sample], candidates: Sequence[str], items_per_sample: int) -> pd.DataFrame:
    drawn = [(sample.sample_id, cluster_of(sample), sample.stratum, sample.type) for sample in samples]
    _no_doubles("sample", [sample_id for sample_id, *_ in drawn])
    _no_doubles("candidate", candidates)
    slots = [
        (name, *sample, position)
        for name in candidates
        for sample in drawn
        for position in range(items_per_sample)
    ]
    return pd.DataFrame(slots, columns=["candidate", "sample_id", "cluster", "stratum", "given", "position"])


def _generation_tables(
    rows: Iterable[GenerateRow], grid: pd.DataFrame, items_per_sample: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the items, one row each, and the failed replies; the rows are gone through once, and none is kept."""
    keys, misplaced, items, failed = [], [], [], []
    positions = list(range(items_per_sample))
    for row in rows:
        keys.append((author(row), row.sample_id))
        if isinstance(row, Failure):
            failed.append((row.model, row.sample_id, row.reason, row.detail, row.text))
            continue
        if sorted(item.position for item in row.items) != positions:
            misplaced.append(row.task_id)
        items += [
            (
                row.candidate,
                row.sample_id,
                item.position,
                item.item_id,
                item.type,
                item.question,
                item.answer,
                item.parts.get(REJECTED, ""),
                item.findings or None,
            )
            for item in row.items
        ]
    _no_doubles("generation", [" ".join(key) for key in keys])
    expected = set(zip(grid["candidate"], grid["sample_id"], strict=True))
    _same_keys(
        "generation",
        {" ".join(key) for key in expected},
        {" ".join(key) for key in keys},
        "the run with --resume",
    )
    if misplaced:
        raise DataError(
            f"generations: expected items at positions {positions}, not so in {_first(misplaced)}"
        )
    columns = [*_SLOT, "item_id", "type", "question", "answer", "rejected", "findings"]
    return pd.DataFrame(items, columns=columns), pd.DataFrame(failed, columns=[*_REPLY, *_FAILURE])


def _grade_tables(
    rows: Iterable[GradeRow], *, judge: str, rubric: RubricFacts
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the letters and the items that got none; the rows are gone through once, and none is kept."""
    wrong: dict[str, list[str | None]] = {"rubric": [], "letter": [], "flag": []}
    judges, graded, letters, unread = set(), [], [], []
    for row in rows:
        graded.append(row.item_id or "")
        if isinstance(row, Failure):
            judges.add(row.model)
            unread.append((row.item_id, row.reason, row.detail, row.text))
            continue
        judges.add(row.judge)
        for aspect, is_wrong in (
            ("rubric", row.rubric_sha != rubric.sha),
            ("letter", row.letter not in rubric.letters),
            ("flag", bool(set(row.flags) - set(rubric.flag_names))),
        ):
            if is_wrong:
                wrong[aspect].append(row.item_id)
        flags = (flag in row.flags for flag in rubric.flag_names)
        letters.append((row.item_id, row.letter, row.reason, _sureness(row), *flags))
    _no_doubles("grade", graded)
    _require_one_judge(judges, judge, rubric, wrong)
    columns = ["item_id", "letter", "why", "sure", *map(flag_column, rubric.flag_names)]
    return pd.DataFrame(letters, columns=columns), pd.DataFrame(unread, columns=["item_id", *_FAILURE])


def _require_one_judge(
    judges: Collection[str], judge: str, rubric: RubricFacts, wrong: Mapping[str, Sequence[str | None]]
) -> None:
    if ids := wrong["rubric"]:
        raise DataError(
            f"grades: {len(ids)} were given by another rubric than {rubric.sha[:12]}; letters of two rubrics are never "
            f"pooled: {_first(ids)}"
        )
    if set(judges) - {judge}:
        raise DataError(
            f"grades: expected grades by {judge!r} alone, got some by {sorted(set(judges) - {judge})}"
        )
    if ids := wrong["letter"]:
        raise DataError(f"grades: letters off the scale {'/'.join(rubric.letters)}: {_first(ids)}")
    if ids := wrong["flag"]:
        raise DataError(f"grades: flags that the rubric does not know: {_first(ids)}")


def _sureness(row: Grade) -> float | None:
    return None if row.probabilities is None else row.probabilities.get(row.letter)


def _finished(table: pd.DataFrame, flags: Iterable[str]) -> pd.DataFrame:
    """Fill what does not exist with empty text and name each row's status."""
    for name in _TEXT:
        table[name] = table[name].fillna("").astype("str")
    table["type"] = table["type"].where(table["given"] == "", table["given"])
    for flag in flags:
        table[flag_column(flag)] = table[flag_column(flag)].eq(True)
    table["status"] = GRADED
    table.loc[table["letter"] == "", "status"] = UNGRADED
    table.loc[table["item_id"] == "", "status"] = FAILED
    return table


def _without_repeated(table: pd.DataFrame, samples: Iterable[Sample]) -> pd.DataFrame:
    """Turn replies that are the same for several chunks into failures; few rows share an answer, so this is cheap."""
    items = table[table["item_id"] != ""]
    shared = items[items.duplicated(["candidate", "answer"], keep=False)]
    if shared.empty:
        return table
    sample_ids = set(shared["sample_id"])
    by_id = {sample.sample_id: sample for sample in samples if sample.sample_id in sample_ids}
    n_items = Counter(zip(items["candidate"], items["sample_id"], strict=True))
    texts: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    columns = [*_REPLY, *_WRITTEN]
    for candidate, sample_id, *text in shared.sort_values("position")[columns].itertuples(index=False):
        texts.setdefault((candidate, sample_id), []).append((text[0], text[1], text[2]))
    repeated = repeated_replies(
        ReplyTexts(
            candidate, sample_id, by_id[sample_id].chunk.text, bool(by_id[sample_id].question), tuple(reply)
        )
        for (candidate, sample_id), reply in texts.items()
        if len(reply) == n_items[candidate, sample_id]
    )
    return _failed(table, repeated) if repeated else table


def _failed(table: pd.DataFrame, repeated: Mapping[tuple[str, str], int]) -> pd.DataFrame:
    """Empty the rows of repeated replies, as those of any other failure are."""
    keys = pd.Series(list(zip(table["candidate"], table["sample_id"], strict=True)), index=table.index)
    rows = keys.isin(list(repeated))
    table.loc[rows, "text"] = (
        table.loc[rows, "question"] + "\n" + table.loc[rows, "answer"] + "\n" + table.loc[rows, "rejected"]
    ).str.strip()
    table.loc[rows, "detail"] = [detail(repeated[key]) for key in keys[rows]]
    table.loc[rows, ["item_id", *_WRITTEN, "letter", "why"]] = ""
    table.loc[rows, "type"] = table.loc[rows, "given"]
    table.loc[rows, "failure"], table.loc[rows, "status"] = PLACEHOLDER, FAILED
    for column, empty in (("findings", None), ("sure", float("nan"))):
        if column in table:
            table.loc[rows, column] = empty
    for column in table.columns[table.columns.str.startswith(flag_column(""))]:
        table.loc[rows, column] = False
    return table


def _no_doubles(kind: str, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    doubled = [name for name in ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if doubled:
        raise DataError(f"{kind}s: expected one row per id, got {len(doubled)} twice: {_first(doubled)}")


def _same_keys(kind: str, expected: Collection[str], actual: Collection[str], remedy: str) -> None:
    if missing := sorted(set(expected) - set(actual)):
        raise DataError(f"{kind}s: {len(missing)} are missing ({_first(missing)}); finish with {remedy}")
    if foreign := sorted(set(actual) - set(expected)):
        raise DataError(f"{kind}s: {len(foreign)} belong to nothing in this run: {_first(foreign)}")


def _first(ids: Sequence[str | None], n: int = 3) -> str:
    return ", ".join(map(repr, ids[:n])) + (", …" if len(ids) > n else "")
