"""Summaries of candidates, strata and item types."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from qaeval.analysis.letters import FAILED, GRADED, UNGRADED, flag_column, row_weights
from qaeval.analysis.model import (
    NOT_NAMED,
    AnswerLength,
    CandidateSummary,
    Count,
    StratumRate,
    StratumSummary,
)
from qaeval.analysis.replies import ReplyTotals
from qaeval.analysis.server_metrics import server_span
from qaeval.records import FAILURES, FailureReason, Reading, Session
from qaeval.report.facts import ModelFacts, RubricFacts
from qaeval.report.measure import Measure
from qaeval.stats.estimate import undefined
from qaeval.stats.intervals import clustered_rate
from qaeval.text.units import count_words

Mask = pd.Series  # booleans, aligned with the table of letters

LONG_ANSWER: Final = 60
"""Words. The report shows the share of longer answers; report.json names it `share_over_60`."""

_BIN: Final = 10
"""Words per bin of the histogram of answer lengths."""
_BINS: Final = 11
"""Number of bins; the last one holds all answers of 100 words and more."""


def rate_by_cluster(table: pd.DataFrame, success: Mask, graded: Mask | None = None) -> Measure:
    """Return the rate of successful rows, by weight, with an interval clustered by chunk.

    Args:
        table: Rows of the table of letters.
        success: Which rows succeed.
        graded: Which rows count; default: all.

    Returns:
        The rate, 0 to 1; undefined, with a reason, if no row counts.
    """
    if table.empty:
        return Measure.of(undefined("there is no item"))
    hits = success.to_numpy(bool)
    counts = np.ones(len(table), dtype=bool) if graded is None else graded.to_numpy(bool)
    weights = row_weights(table).to_numpy(float)
    codes, clusters = pd.factorize(table["cluster"])  # no groupby: a report has hundreds of rates
    successes, totals = (
        np.bincount(codes, weights * mask, minlength=len(clusters)) for mask in (hits & counts, counts)
    )
    rate = Measure.of(replace(clustered_rate(successes, totals), n=int(counts.sum())))
    return rate if rate.value is not None else rate.model_copy(update={"reason": "no item was graded"})


def summarise_candidate(
    facts: ModelFacts,
    table: pd.DataFrame,
    replies: ReplyTotals,
    sessions: Iterable[Session],
    *,
    rubric: RubricFacts,
    item_types: Sequence[str],
    readings: Iterable[Reading] = (),
    near: int | None = None,
) -> CandidateSummary:
    """Summarise a candidate.

    Args:
        facts: The candidate.
        table: Its rows of the table of letters.
        replies: Tokens and times of its replies.
        sessions: All sessions of the run.
        rubric: Scale and flags.
        item_types: Question types in the eval's order; others follow by name.
        readings: Metrics of all servers.
        near: Number of questions with nearly the words of an earlier one; None: not counted.
    """
    status, letter = table["status"], table["letter"]
    graded, best = status == GRADED, letter == rubric.best
    items = table[status != FAILED]
    stage_sessions = [
        session for session in sessions if (session.stage, session.model) == ("generate", facts.name)
    ]
    return CandidateSummary(
        facts=facts,
        n_expected=len(table),
        n_valid=len(items),
        n_graded=int(graded.sum()),
        n_duplicate_questions=int(items["question"].duplicated().sum()),
        n_near_questions=near,
        usable=rate_by_cluster(table, best),
        usable_if_ungraded_were=float(np.average(best | (status == UNGRADED), weights=row_weights(table))),
        usable_of_graded=rate_by_cluster(table, best, graded),
        letters=tuple(_count(name, table, letter == name) for name in rubric.letters),
        failed=_count(FAILED, table, status == FAILED),
        ungraded=_count(UNGRADED, table, status == UNGRADED),
        failed_by_reason=failure_reasons(table, FAILED),
        ungraded_by_reason=failure_reasons(table, UNGRADED),
        flags=tuple(_count(name, table, table[flag_column(name)], graded) for name in rubric.flag_names),
        flaws=_flaws(table, rubric, graded & ~best, graded),
        n_best_flagged=int(
            (best & table[[flag_column(name) for name in rubric.flag_names]].any(axis=1)).sum()
        ),
        question_types=question_types(items["type"], item_types),
        answer_words=answer_words(items["answer"]),
        tokens=replies.tokens,
        timing=replies.timing(
            stage_sessions, n_items=len(items), server=server_span(readings, "generate", facts.name)
        ),
    )


def _count(name: str, table: pd.DataFrame, hit: Mask, graded: Mask | None = None) -> Count:
    return Count(name=name, n=int(hit.sum()), share=rate_by_cluster(table, hit, graded))


def _flaws(table: pd.DataFrame, rubric: RubricFacts, below: Mask, graded: Mask) -> tuple[Count, ...]:
    if not rubric.flaws:
        return ()
    names = [(flaw.name, flaw.name) for flaw in rubric.flaws]
    return tuple(
        _count(name, table, below & (table["flaw"] == value), graded)
        for name, value in (*names, (NOT_NAMED, ""))
    )


def failure_reasons(table: pd.DataFrame, status: str) -> dict[FailureReason, int]:
    """Count the rows of a status by reason, in the order of `records.FAILURES`."""
    counts = table.loc[table["status"] == status, "failure"].value_counts()
    return {reason: int(counts[reason]) for reason in FAILURES if reason in counts.index}


def question_types(types: "pd.Series[str]", eval_types: Sequence[str]) -> dict[str, int]:
    """Count items by type: the types of the eval in its order, then others by name."""
    counts = types.value_counts()
    names = [*eval_types, *sorted(set(counts.index) - set(eval_types))]
    return {name: int(counts.get(name, 0)) for name in names}


def answer_words(answers: "pd.Series[str]") -> AnswerLength:
    """Summarise the lengths of answers, in words."""
    words = np.array([count_words(answer) for answer in answers], dtype=float)
    if not len(words):
        return AnswerLength(n=0, mean=None, median=None, p95=None, share_over_60=None)
    return AnswerLength(
        n=len(words),
        mean=float(words.mean()),
        median=float(np.median(words)),
        p95=float(np.quantile(words, 0.95)),
        share_over_60=float((words > LONG_ANSWER).mean()),
        histogram=tuple(
            np.bincount(np.minimum(words // _BIN, _BINS - 1).astype(int), minlength=_BINS).tolist()
        ),
    )


def summarise_strata(
    table: pd.DataFrame, *, candidates: Sequence[str], best: str
) -> tuple[StratumSummary, ...]:
    """Return the usable rate of each candidate in each stratum, strata by name."""
    return _by(table, "stratum", candidates=candidates, best=best)


def summarise_types(
    table: pd.DataFrame, *, candidates: Sequence[str], best: str
) -> tuple[StratumSummary, ...]:
    """Return the usable rate of each candidate by type of sample or item; items without a type are excluded."""
    return _by(table[table["type"] != ""], "type", candidates=candidates, best=best)


def _by(
    table: pd.DataFrame, column: str, *, candidates: Sequence[str], best: str
) -> tuple[StratumSummary, ...]:
    strata = []
    for stratum in sorted(table[column].unique()):
        group = table[table[column] == stratum]
        rates = []
        for name in candidates:
            rows = group[group["candidate"] == name]
            if rows.empty:
                continue
            usable = rows["letter"] == best
            rate = rate_by_cluster(rows, usable)
            rates.append(
                StratumRate(
                    candidate=name,
                    n_usable=int(usable.sum()),
                    n_expected=len(rows),
                    n_failed=int((rows["status"] != GRADED).sum()),
                    usable=rate,
                )
            )
        strata.append(
            StratumSummary(stratum=stratum, n_chunks=group["cluster"].nunique(), rates=tuple(rates))
        )
    return tuple(strata)
