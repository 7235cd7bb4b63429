"""The table of letters: one row per expected item of each candidate, failures included.

Rows are joined by id. Missing, duplicate and foreign ids are errors that name the first ids.

=============  ==========================================================================================
`candidate`    candidate that wrote the item
`sample_id`    sample of the item
`cluster`      cluster of dependent items: the chunk
`stratum`      stratum of the sample
`weight`       how many samples of the documents the sample stands for, over the mean of the run; only where samples
               weigh differently
`position`     position in the reply, from 0
`status`       ``graded``, ``ungraded`` (the judge gave no letter), ``failed`` (there is no item)
`given`        type of the sample, empty if the eval's data has none
`item_id`      empty if there is no item; so are `question`, `answer`, `rejected`
`type`         type of the sample, else of the item, else empty
`findings`     findings by check; None without findings
`letter`       empty unless graded; `why` is then the judge's reason, `sure` its probability of the letter or NaN
`flaw`         flaw of the rubric that the judge names; empty for the best letter, and where it names none
`failure`      reason of the failure, empty if graded; `detail` and `text` describe it
`flag <name>`  one boolean column per flag of the rubric
`fact <name>`  one column per fact of a rubric with ``decide: facts``: the judge's answer, empty unless graded
=============  ==========================================================================================
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
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

WAY_ON: Final = "the command of the run with --resume"
"""What completes a run of which nothing more is known."""
_SLOT: Final = ["candidate", "sample_id", "position"]
_FAILURE: Final = ["failure", "detail", "text"]
_TEXT: Final = ("item_id", "type", "question", "answer", "rejected", "letter", "flaw", "why", *_FAILURE)


_WRITTEN: Final = ("question", "answer", "rejected")
"""Columns of what the candidate wrote."""


def cluster_of(sample: Sample) -> str:
    """Return the cluster of a sample's items, its chunk; the only definition of clusters."""
    return sample.chunk.chunk_id


def row_weights(table: pd.DataFrame) -> "pd.Series[float]":
    """Return the weight of each row's sample, with mean 1 over the samples of the run."""
    return table["weight"] if "weight" in table else pd.Series(1.0, index=table.index)


def relative_weights(weights: Sequence[float]) -> np.ndarray | None:
    """Return weights of samples over their mean, shape (n_samples,); None where all weigh the same."""
    if not weights or np.allclose(weights, weights[0], rtol=1e-9, atol=0.0):
        return None
    return np.asarray(np.asarray(weights) / np.mean(weights))


def flag_column(flag: str) -> str:
    """Return the column name of a flag."""
    return f"flag {flag}"


def probability_column(letter: str) -> str:
    """Return the column name of the judge's probability of a letter."""
    return f"probability {letter}"


def fact_column(fact: str) -> str:
    """Return the column name of a fact."""
    return f"fact {fact}"


def letter_table(
    samples: Iterable[Sample],
    generations: Iterable[GenerateRow],
    grades: Iterable[GradeRow],
    *,
    candidates: Sequence[str],
    items_per_sample: int,
    judge: str,
    rubric: RubricFacts,
    run: str = "RUN",
    way_on: str = WAY_ON,
) -> pd.DataFrame:
    """Join samples, generations and grades into one row per expected item.

    A reply that was imported has as many rows as it has items and lost items, which may be fewer than
    `items_per_sample`; any other reply has all.

    Args:
        samples: The sample set; the rows of a candidate follow its order.
        generations: One row per candidate and sample.
        grades: One row per item.
        candidates: Names, in the order of the report.
        items_per_sample: Number of items that each reply must have.
        judge: The only permitted judge.
        rubric: The only permitted rubric.
        run: Directory of the run, for errors.
        way_on: The command that asks for missing replies, for errors.

    Raises:
        DataError: a row is missing, duplicate or foreign, or has a grade of another judge, rubric or scale.
    """
    grid = _grid(samples, candidates, items_per_sample)
    grid, items, failed = _generation_tables(generations, grid, items_per_sample, way_on)
    letters, unread = _grade_tables(grades, judge=judge, rubric=rubric)
    _require_same_keys(
        "grade",
        set(items["item_id"]),
        {*letters["item_id"], *unread["item_id"]},
        f"`qaeval grade {run} --judge {judge}`",
    )
    table = grid.merge(items, on=_SLOT, how="left", validate="one_to_one")
    table = table.merge(letters, on="item_id", how="left", validate="many_to_one")
    failures = pd.concat(
        [
            table[_SLOT].merge(failed, on=_SLOT, how="left", validate="one_to_one")[_FAILURE],
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
    """Return the table of letters of an ungraded run; arguments as in `letter_table`.

    Raises:
        DataError: a row is missing, duplicate or foreign.
    """
    grid = _grid(samples, candidates, items_per_sample)
    grid, items, failed = _generation_tables(generations, grid, items_per_sample)
    table = grid.merge(items, on=_SLOT, how="left", validate="one_to_one")
    table = table.merge(failed, on=_SLOT, how="left", validate="one_to_one")
    table[["letter", "flaw", "why"]] = ""
    return _without_repeated(_finished(table, ()), samples)


def _grid(samples: Iterable[Sample], candidates: Sequence[str], items_per_sample: int) -> pd.DataFrame:
    drawn, weights = [], []
    for sample in samples:
        drawn.append((sample.sample_id, cluster_of(sample), sample.stratum, sample.type))
        weights.append(sample.weight)
    _require_unique("sample", [sample_id for sample_id, *_ in drawn])
    _require_unique("candidate", candidates)
    slots = [
        (name, *sample, position)
        for name in candidates
        for sample in drawn
        for position in range(items_per_sample)
    ]
    grid = pd.DataFrame(slots, columns=["candidate", "sample_id", "cluster", "stratum", "given", "position"])
    relative = relative_weights(weights)
    if relative is not None:
        grid["weight"] = np.tile(np.repeat(relative, items_per_sample), len(candidates))
    return grid


def _generation_tables(
    rows: Iterable[GenerateRow], grid: pd.DataFrame, items_per_sample: int, way_on: str = WAY_ON
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return tables of expected slots, items and failed slots; reads the rows once and keeps none, so that runs may exceed memory."""
    keys, misplaced, items, failed = [], [], [], []
    positions, short = list(range(items_per_sample)), {}
    for row in rows:
        keys.append((author(row), row.sample_id))
        if isinstance(row, Failure):
            failed += [
                (row.model, row.sample_id, position, row.reason, row.detail, row.text)
                for position in positions
            ]
            continue
        lost = row.lost or ()
        taken = sorted([*(item.position for item in row.items), *(item.position for item in lost)])
        if taken != (positions if row.lost is None else positions[: len(taken)]):
            misplaced.append(row.task_id)
        if len(taken) < items_per_sample:
            short[keys[-1]] = len(taken)
        failed += [
            (row.candidate, row.sample_id, item.position, item.reason, item.detail, item.text)
            for item in lost
        ]
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
    _require_unique("generation", [" ".join(key) for key in keys])
    expected = set(zip(grid["candidate"], grid["sample_id"], strict=True))
    _require_same_keys(
        "generation",
        {" ".join(key) for key in expected},
        {" ".join(key) for key in keys},
        way_on,
    )
    if misplaced:
        raise DataError(
            f"generations: expected items at positions {positions}, found others in {_first(misplaced)}"
        )
    if short:
        replies = zip(grid["candidate"], grid["sample_id"], strict=True)
        n_slots = np.array([short.get(reply, items_per_sample) for reply in replies])
        grid = grid[grid["position"].to_numpy() < n_slots].reset_index(drop=True)
    columns = [*_SLOT, "item_id", "type", "question", "answer", "rejected", "findings"]
    return (
        grid,
        pd.DataFrame(items, columns=columns),
        pd.DataFrame(failed, columns=[*_SLOT, *_FAILURE]).astype({"position": "int64"}),
    )


def _grade_tables(
    rows: Iterable[GradeRow], *, judge: str, rubric: RubricFacts
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return tables of letters and ungraded items; reads the rows once and keeps none, so that runs may exceed memory."""
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
        distribution = row.probabilities or {}
        values = (distribution.get(letter, 0.0 if distribution else None) for letter in rubric.letters)
        facts = (row.facts.get(fact.name, "") for fact in rubric.facts)
        why = explained(row)
        letters.append((row.item_id, row.letter, row.flaw, why, _sureness(row), *values, *flags, *facts))
    _require_unique("grade", graded)
    _require_one_judge(judges, judge, rubric, wrong)
    probabilities = list(map(probability_column, rubric.letters))
    columns = [
        "item_id",
        "letter",
        "flaw",
        "why",
        "sure",
        *probabilities,
        *map(flag_column, rubric.flag_names),
        *(fact_column(fact.name) for fact in rubric.facts),
    ]
    table = pd.DataFrame(letters, columns=columns).astype(dict.fromkeys(probabilities, "float64"))
    return table, pd.DataFrame(unread, columns=["item_id", *_FAILURE])


def _require_one_judge(
    judges: Collection[str], judge: str, rubric: RubricFacts, wrong: Mapping[str, Sequence[str | None]]
) -> None:
    if ids := wrong["rubric"]:
        raise DataError(
            f"grades: {len(ids)} are of another rubric than {rubric.sha[:12]}; letters of two rubrics are never "
            f"pooled: {_first(ids)}"
        )
    if set(judges) - {judge}:
        raise DataError(
            f"grades: expected grades by {judge!r} only, got grades by {sorted(set(judges) - {judge})}"
        )
    if ids := wrong["letter"]:
        raise DataError(f"grades: letters off the scale {'/'.join(rubric.letters)}: {_first(ids)}")
    if ids := wrong["flag"]:
        raise DataError(f"grades: flags outside the rubric: {_first(ids)}")


def explained(row: Grade) -> str:
    """Return the judge's reason, with its facts and with what was done to the reason, if anything."""
    facts = ", ".join(f"{name}: {answer}" for name, answer in row.facts.items())
    parts = (row.reason, f"({facts})" if facts else "", f"[{row.remark}]" if row.remark else "")
    return " ".join(part for part in parts if part)


def _sureness(row: Grade) -> float | None:
    return None if row.probabilities is None else row.probabilities.get(row.letter)


def _finished(table: pd.DataFrame, flags: Iterable[str]) -> pd.DataFrame:
    """Replace missing text by empty strings, and set the status of each row."""
    for name in _TEXT:
        table[name] = table[name].fillna("").astype("str")
    table["type"] = table["type"].where(table["given"] == "", table["given"])
    for flag in flags:
        table[flag_column(flag)] = table[flag_column(flag)].eq(True)
    for column in table.columns[table.columns.str.startswith(fact_column(""))]:
        table[column] = table[column].fillna("").astype("str")
    # in this order: a failed row has no letter either
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
    columns = ["candidate", "sample_id", *_WRITTEN]
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
    table.loc[rows, ["item_id", *_WRITTEN, "letter", "flaw", "why"]] = ""
    table.loc[rows, "type"] = table.loc[rows, "given"]
    table.loc[rows, "failure"], table.loc[rows, "status"] = PLACEHOLDER, FAILED
    if "findings" in table:
        table.loc[rows, "findings"] = None
    for column in table.columns[table.columns.str.startswith(("sure", probability_column("")))]:
        table.loc[rows, column] = float("nan")
    for column in table.columns[table.columns.str.startswith(flag_column(""))]:
        table.loc[rows, column] = False
    for column in table.columns[table.columns.str.startswith(fact_column(""))]:
        table.loc[rows, column] = ""
    return table


def _require_unique(kind: str, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    duplicates = [name for name in ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if duplicates:
        raise DataError(
            f"{kind}s: expected one row per id, got {len(duplicates)} twice: {_first(duplicates)}"
        )


def _require_same_keys(kind: str, expected: Collection[str], actual: Collection[str], remedy: str) -> None:
    if missing := sorted(set(expected) - set(actual)):
        are = "is" if len(missing) == 1 else "are"
        raise DataError(f"{kind}s: {len(missing)} {are} missing ({_first(missing)}); finish with {remedy}")
    if foreign := sorted(set(actual) - set(expected)):
        raise DataError(f"{kind}s: {len(foreign)} do not belong to this run: {_first(foreign)}")


def _first(ids: Sequence[str | None], n: int = 3) -> str:
    return ", ".join(map(repr, ids[:n])) + (", …" if len(ids) > n else "")
