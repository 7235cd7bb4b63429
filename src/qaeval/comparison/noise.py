"""Noise of letters from repeats: the shares of judge, candidate, item and chunk in their spread."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Final

import numpy as np
import pandas as pd

from qaeval.analysis.letters import FAILED, GRADED
from qaeval.analysis.repeated import fail_repeated
from qaeval.comparison.model import CandidateNoise, JudgeNoise, Noise, NoiseComponent, NoiseSource
from qaeval.errors import DataError
from qaeval.records import (
    TRANSIENT_REASONS,
    Failure,
    GenerateRow,
    Generation,
    Grade,
    GradeRow,
    Sample,
    author,
)
from qaeval.report.facts import RubricFacts
from qaeval.report.measure import Measure
from qaeval.stats.components import repeat_agreement, variance_components

_SOURCES: Final[tuple[NoiseSource, ...]] = ("chunk", "item", "reply", "judge")


def measure_noise(
    table: pd.DataFrame,
    samples: Iterable[Sample],
    generation_repeats: Iterable[GenerateRow],
    grade_repeats: Iterable[GradeRow],
    *,
    candidates: Sequence[str],
    judge: str,
    rubric: RubricFacts,
    temperatures: Mapping[str, float],
) -> Noise | None:
    """Split the spread of each candidate's letters, usable or not, by source; None for a run without repeats.

    A failed reply is not usable, as in the usable rate, and the judge adds no noise to it. What a server that was
    away did not answer, and what the judge gave no letter, does not enter.

    Args:
        table: The table of letters of the run.
        samples: The sample set.
        generation_repeats: Further replies.
        grade_repeats: Further letters, and those of further replies.
        candidates: Names, in the order of the report.
        judge: The only judge whose letters are allowed.
        rubric: The only rubric whose letters are allowed.
        temperatures: Of the models, by name.

    Raises:
        DataError: a letter is by another judge or rubric, or a reply by a candidate or to a sample of another run.
    """
    letters = _Letters.read(table, grade_repeats, judge=judge, rubric=rubric)
    replies = _further_replies(table, samples, generation_repeats)
    if not (replies or letters.n_per_item > 1):
        return None
    repeated = [
        *(name for name in candidates if name in replies),
        *([judge] if letters.n_per_item > 1 else ()),
    ]
    measured = (
        _candidate(name, table[table["candidate"] == name], replies.get(name, ()), letters, best=rubric.best)
        for name in candidates
    )
    return Noise(
        candidates=tuple(candidate for candidate in measured if candidate is not None),
        judge=_judge(table, letters, rubric.letters) if letters.n_per_item > 1 else None,
        at_temperature_0=tuple(dict.fromkeys(name for name in repeated if temperatures.get(name) == 0)),
    )


@dataclass(frozen=True)
class _Letters:
    """Letters by item and reply, and by their number; those of the run are number 0 of reply 0."""

    given: dict[tuple[str, int], dict[int, str]] = field(default_factory=dict)
    n_per_item: int = 1
    """Largest number of letters for an item of the run."""

    @classmethod
    def read(
        cls, table: pd.DataFrame, grade_repeats: Iterable[GradeRow], *, judge: str, rubric: RubricFacts
    ) -> "_Letters":
        graded = table[table["status"] == GRADED]
        given = {
            (item, 0): {0: letter} for item, letter in zip(graded["item_id"], graded["letter"], strict=True)
        }
        n_per_item = 1
        for row in grade_repeats:
            if (row.model if isinstance(row, Failure) else row.judge) != judge:
                raise DataError(
                    f"repeats: expected letters by {judge!r} alone, row {row.task_id} has another judge"
                )
            if not row.reply_number:
                n_per_item = max(n_per_item, row.letter_number + 1)
            if isinstance(row, Grade):
                if row.rubric_sha != rubric.sha or row.letter not in rubric.letters:
                    raise DataError(
                        f"repeats: row {row.task_id} has a letter of another rubric than {rubric.name}"
                    )
                given.setdefault((row.item_id, row.reply_number), {})[row.letter_number] = row.letter
        return cls(given, n_per_item)


_Reply = tuple[str, int, tuple[str, ...]]
"""A sample, the number of the reply, and the items in it by position; none of a failed reply."""


def _further_replies(
    table: pd.DataFrame, samples: Iterable[Sample], rows: Iterable[GenerateRow]
) -> dict[str, list[_Reply]]:
    """Return the further replies by candidate, without those that a server did not answer."""
    expected = set(zip(table["candidate"], table["sample_id"], strict=True))
    by_number: dict[int, list[GenerateRow]] = {}
    for row in rows:
        if (author(row), row.sample_id) not in expected:
            raise DataError(f"repeats: the reply {row.task_id} belongs to nothing in this run")
        by_number.setdefault(row.reply_number, []).append(row)
    replies: dict[str, list[_Reply]] = {}
    for number, numbered in by_number.items():
        for row in fail_repeated(samples, numbered):
            if isinstance(row, Generation):
                items = tuple(item.item_id for item in sorted(row.items, key=lambda item: item.position))
                replies.setdefault(row.candidate, []).append((row.sample_id, number, items))
            elif row.reason not in TRANSIENT_REASONS:
                replies.setdefault(row.model, []).append((row.sample_id, number, ()))
    return replies


def _candidate(
    name: str, table: pd.DataFrame, replies: Sequence[_Reply], letters: _Letters, *, best: str
) -> CandidateNoise | None:
    """Split the spread of one candidate's letters; None where no item has a letter."""
    positions = sorted(table["position"].unique())
    clusters = dict(zip(table["sample_id"], table["cluster"], strict=True))
    n_missing = 0
    rows: list[tuple[float, str, str, int]] = []  # usable or not, chunk, expected item, reply
    for sample_id, position, number, item_id in _slots(table, replies, positions):
        if item_id:
            given = letters.given.get((item_id, number), {}).values()
            n_missing += not given
            values = [float(letter == best) for letter in given]
        else:
            values = [0.0] * (1 if number else letters.n_per_item)
        rows += [(value, clusters[sample_id], f"{sample_id} {position}", number) for value in values]
    if not rows:
        return None
    result = variance_components(*(np.array(column) for column in zip(*rows, strict=True)))
    judge = result.judge.variance
    usable = ((table["status"] == GRADED) & (table["letter"] == best)).to_numpy(dtype=float)
    return CandidateNoise(
        candidate=name,
        n_letters=len(rows),
        n_missing=n_missing,
        n_replies=1 + max((number for _, number, _ in replies), default=0),
        total=Measure.of(result.total),
        components=tuple(
            NoiseComponent(
                source=source,
                variance=Measure.of(getattr(result, source).variance),
                share=Measure.of(getattr(result, source).share),
            )
            for source in _SOURCES
        ),
        without_judge_noise=_relative_width(usable, table["cluster"].to_numpy(), judge.value)
        if judge.is_defined
        else None,
    )


def _slots(
    table: pd.DataFrame, replies: Iterable[_Reply], positions: Sequence[int]
) -> Iterator[tuple[str, int, int, str]]:
    """Yield sample, position, number of the reply and item of everything expected; no item where the reply failed."""
    answered = table[~((table["status"] == FAILED) & table["failure"].isin(TRANSIENT_REASONS))]
    yield from zip(
        answered["sample_id"],
        answered["position"],
        np.zeros(len(answered), dtype=int),
        answered["item_id"],
        strict=True,
    )
    for sample_id, number, items in replies:
        for position, item_id in zip(positions, items or [""] * len(positions), strict=True):
            yield sample_id, position, number, item_id


def _relative_width(usable: np.ndarray, clusters: np.ndarray, judge_variance: float) -> float | None:
    """Return the width of the usable rate's interval without the judge's noise, relative to that with it."""
    sums = pd.Series(usable - usable.mean()).groupby(clusters).sum()
    variance = float((sums**2).sum()) * len(sums) / max(1, len(sums) - 1) / len(usable) ** 2
    return sqrt(max(0.0, 1 - judge_variance / len(usable) / variance)) if variance > 0 else None


def _judge(table: pd.DataFrame, letters: _Letters, scale: Sequence[str]) -> JudgeNoise | None:
    items = table.loc[table["item_id"] != "", ["item_id", "cluster"]].drop_duplicates("item_id")
    code = {letter: float(index) for index, letter in enumerate(scale)}
    passes = np.full((len(items), letters.n_per_item), np.nan)
    for index, item_id in enumerate(items["item_id"]):
        for number, letter in letters.given.get((item_id, 0), {}).items():
            passes[index, number] = code[letter]
    if ((~np.isnan(passes)).sum(axis=1) < 2).all():  # the judge gave no second letter
        return None
    agreement = repeat_agreement(passes, items["cluster"].to_numpy(), n_levels=len(scale))
    alpha = Measure.of(agreement.alpha)
    return JudgeNoise(
        n_items=agreement.n_items,
        n_letters=letters.n_per_item,
        self_agreement=Measure.of(agreement.self_agreement),
        flips=Measure.of(agreement.flips),
        alpha=alpha if alpha.value is not None else alpha.without_value("all letters are the same"),
    )
