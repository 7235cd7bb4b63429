"""The last page: what the labels of a sitting show and how the rater worked, or how many differences are settled."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from qaeval.agreement.model import RaterAgreement, RaterQuality
from qaeval.comparison.model import Difference, ReasonCode, Verdict
from qaeval.comparison.verdict import SHOWN_FROM
from qaeval.labelling import MoreLabels, SittingSummary, StoppingDecision
from qaeval.report.numbers import coefficient, difference
from qaeval.stats.estimate import MIN_CLUSTERS
from qaeval.web.label import Section
from qaeval.web.messages import Language, localised, number, text

_NO_VERDICT: Final[tuple[ReasonCode, ...]] = (
    "judge_refuted",
    "judge_tells_nothing_apart",
    "one_candidate",
    "nothing_graded",
    "nothing_usable",
    "embedded_only",
)
"""Reasons against a verdict that have a text of their own."""


def summary_sections(summary: SittingSummary, language: Language) -> list[Section]:
    """Return the summary of a sitting in a language: title and lines of each section."""
    say = partial(text, language=language)
    quality = summary.agreement.quality if summary.agreement else None
    sections: list[Section] = [
        (
            say("finished"),
            [say("counts", labels=summary.n_labels, skipped=summary.n_skipped), say("close_window")],
        ),
        (
            say("verdict"),
            [_verdict(summary.verdict, say), *_stopping(summary.decision, say), *_basis(summary, say)],
        ),
        (
            say("differences"),
            [_difference(pair, language) for pair in summary.differences]
            + [_more(more, language) for more in summary.more if more.width and more.width_then],
        ),
        (say("judge"), [_kappa(summary.agreement, language), say("intervals")]),
        (say("quality"), list(_quality(quality, language)) if quality else []),
    ]
    return [(title, lines) for title, lines in sections if lines]


def _verdict(verdict: Verdict, say: Callable[..., str]) -> str:
    if verdict.kind == "undecided":
        return say("undecided")
    if verdict.kind == "none":
        known = (code for code in _NO_VERDICT if verdict.reason(code))
        return say(next(known, "no_verdict"))
    names = (verdict.candidate or "",) if verdict.kind == "use" else verdict.candidates
    decided = "decided" if verdict.condition == "shown" else "conditional"
    return say(decided, verdict=say(verdict.kind, names=", ".join(names))) + "."


def _basis(summary: SittingSummary, say: Callable[..., str]) -> list[str]:
    if summary.verdict.kind == "none":
        return []
    # the first rater of a pair is the one whose labels decide
    n = min(
        (next((labelled.n_chunks for labelled in pair.labelled), 0) for pair in summary.differences),
        default=0,
    )
    return [say("shown_from", least=MIN_CLUSTERS, shown=SHOWN_FROM, n=n)] if n < SHOWN_FROM else []


def _stopping(decision: StoppingDecision | None, say: Callable[..., str]) -> list[str]:
    if decision is None:
        return []
    return [
        say(
            "stopping",
            estimand=say(f"estimand_{decision.estimand}"),
            n=decision.n_labelled,
            total=decision.n_chunks,
            outcome=say(f"stop_{decision.outcome}", names=", ".join(decision.leaders)),
        )
    ]


def _difference(pair: Difference, language: Language) -> str:
    deciding = pair.deciding
    if deciding is not None:
        return text(
            "corrected",
            language,
            a=pair.a,
            b=pair.b,
            rater=deciding.rater,
            n=deciding.n_chunks,
            difference=localised(difference(deciding.difference), language),
        )
    return text(
        "by_judge",
        language,
        a=pair.a,
        b=pair.b,
        difference=localised(difference(pair.difference), language),
    )


def _more(more: MoreLabels, language: Language) -> str:
    now, then = (number(100 * (width or 0.0), language, 1) for width in (more.width, more.width_then))
    return text("more", language, a=more.a, b=more.b, n=more.n_more, now=now, then=then)


def _kappa(agreement: RaterAgreement | None, language: Language) -> str:
    if agreement is None or agreement.coefficients is None:
        return text("no_labels", language)
    kappa = agreement.coefficients.kappa
    if kappa.value is None:
        return text("no_kappa", language, reason=kappa.reason or "?")
    return text("kappa", language, kappa=localised(coefficient(kappa), language), n=kappa.n)


def _quality(quality: RaterQuality, language: Language) -> Iterator[str]:
    say = partial(text, language=language)
    if quality.median_seconds is not None:
        yield say("median", seconds=number(quality.median_seconds, language, 1))
    if quality.seconds_first is not None and quality.seconds_last is not None:
        first, last = (number(value, language, 1) for value in (quality.seconds_first, quality.seconds_last))
        yield say("drift", first=first, last=last)
    if quality.best_first is not None and quality.best_last is not None:
        first, last = (number(100 * value, language) for value in (quality.best_first, quality.best_last))
        yield say("drift_best", first=first, last=last)
    if quality.n_repeats:
        yield say("repeats", same=quality.n_repeats_same, n=quality.n_repeats)
    if quality.n_readable:
        yield say("too_fast", fast=quality.n_too_fast, n=quality.n_readable)
