"""Sections of what candidates wrote, without a letter in them."""

from qaeval.report import numbers
from qaeval.report.generation import GenerationReport
from qaeval.report.sections_checks import check_tables
from qaeval.report.sections_quality import REPEATED, failure_tables, mix, repeated
from qaeval.report.tables import Section, Table


def write_generation(report: GenerationReport) -> tuple[Section, ...]:
    """Turn it into sentences and tables."""
    names = [one.candidate for one in report.candidates]
    return (
        Section(
            anchor="generation",
            title=f"What was written for {report.eval.name}",
            tables=(_items(report), _answers(report)),
        ),
        Section(
            anchor="checks",
            title="Checks",
            paragraphs=() if report.checks else ("The eval names no checks.",),
            tables=check_tables(report.checks, names),
        ),
        Section(
            anchor="failures",
            title="Failures",
            paragraphs=() if report.failures else ("Nothing failed.",),
            tables=failure_tables(report.failures),
        ),
    )


def _items(report: GenerationReport) -> Table:
    own = report.eval.item_kind == "qa_pair"
    rows = tuple(
        (
            one.candidate,
            numbers.count(one.n_expected),
            numbers.count(one.n_valid),
            ", ".join(f"{reason} {n:,}" for reason, n in one.failed_by_reason.items()) or "–",
            numbers.count(one.n_without_findings),
            *(repeated(one) if own else ()),
        )
        for one in report.candidates
    )
    header = (
        "Candidate",
        "Expected",
        "Valid",
        "failed because of",
        "Without a finding",
        *(REPEATED if own else ()),
    )
    return Table(caption="Items", header=header, rows=rows, words=frozenset({3}))


def _answers(report: GenerationReport) -> Table:
    rows = tuple(
        (
            one.candidate,
            numbers.decimal(one.answer_words.mean, 1),
            numbers.decimal(one.answer_words.median, 0),
            numbers.decimal(one.answer_words.p95, 0),
            numbers.percent(one.answer_words.share_over_60),
            mix(one.question_types, one.n_valid),
        )
        for one in report.candidates
    )
    header = ("Candidate", "Words, mean", "median", "95th percentile", "over 60 words", "Types")
    return Table(caption="Answers", header=header, rows=rows, words=frozenset({5}))
