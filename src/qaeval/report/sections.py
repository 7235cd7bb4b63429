"""The sections of a report, in order; a new one is a function appended to the tuple."""

from collections.abc import Callable
from typing import Final

from qaeval.report import (
    sections_agreement,
    sections_checks,
    sections_choice,
    sections_cost,
    sections_provenance,
    sections_speed,
)
from qaeval.report import sections_quality as candidates
from qaeval.report.document import Report, Sentence
from qaeval.report.numbers import listed, moment
from qaeval.report.tables import Section

SECTIONS: Final[tuple[Callable[[Report], Section | None], ...]] = (
    candidates.quality,
    candidates.differences,
    sections_checks.selection,
    candidates.reliability,
    sections_checks.checks,
    sections_speed.speed,
    sections_cost.elsewhere,
    sections_choice.hosting,
    sections_agreement.agreement,
    candidates.strata,
    candidates.failures,
    sections_provenance.provenance,
)


def write_sections(report: Report) -> tuple[Section, ...]:
    """Turn a report into sentences and tables; a section that has nothing to say of this eval is left out."""
    return tuple(section for make in SECTIONS if (section := make(report)) is not None)


def headline(report: Report) -> tuple[Sentence, ...]:
    """Put what depends on times, the cost, into the headline: the verdict, findings, then cautions, then notes."""
    sentences = (*report.headline, *report.timing.headline)
    return tuple(sorted(sentences, key=lambda one: ("verdict", "finding", "caution", "note").index(one.kind)))


def title(report: Report) -> str:
    """Name the report."""
    names = [one.facts.name for one in report.candidates]
    return f"{listed(names)} on {report.eval.title or report.eval.name}"


def subtitle(report: Report) -> str:
    """Say what was asked and who graded."""
    facts = report.eval
    asked = (
        f"{facts.n_samples:,} chunks × {facts.items_per_sample:,} items"
        if facts.item_kind == "qa_pair"
        else f"{facts.n_samples:,} {'questions' if facts.item_kind == 'answer' else 'topic cards'}"
    )
    return (
        f"{asked} for each candidate; graded by "
        f"{report.judge.facts.name} with rubric {report.rubric.name}; run {report.run.id}, {moment(report.run.finished)}."
    )
