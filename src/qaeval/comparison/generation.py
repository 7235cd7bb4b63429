"""Items of the candidates without their letters: analysis, data and view of ``qaeval analyse generation``.

A run that is not graded yet has all of it.
"""

from collections.abc import Iterable, Mapping, Sequence

from qaeval.analysis.candidates import answer_words, failure_reasons, question_types
from qaeval.analysis.failures import gather_failures
from qaeval.analysis.letters import FAILED, generation_table
from qaeval.analysis.model import AnswerLength, FailureGroup
from qaeval.comparison.findings import check_tables, gather_findings, near_duplicates
from qaeval.comparison.quality import REPEATED, failure_tables, mix, repeated
from qaeval.comparison.report import CheckGroup
from qaeval.records import FailureReason, GenerateRow, Sample
from qaeval.report import numbers
from qaeval.report.facts import EvalFacts, Part
from qaeval.report.numbers import in_words
from qaeval.report.tables import Section, Table


class GenerationSummary(Part):
    """What one candidate wrote."""

    candidate: str
    n_expected: int
    n_valid: int
    failed_by_reason: Mapping[FailureReason, int]
    n_duplicate_questions: int
    n_near_questions: int | None
    n_without_findings: int
    """Items in which no check found anything."""
    question_types: Mapping[str, int]
    answer_words: AnswerLength


class GenerationReport(Part):
    """Items of the candidates, without letters."""

    eval: EvalFacts
    candidates: tuple[GenerationSummary, ...]
    failures: tuple[FailureGroup, ...]
    checks: tuple[CheckGroup, ...]


def analyse_generation(
    samples: Iterable[Sample],
    generations: Iterable[GenerateRow],
    *,
    eval_facts: EvalFacts,
    candidates: Sequence[str],
) -> GenerationReport:
    """Summarise the items of each candidate.

    Args:
        samples: The sample set.
        generations: The last row of every generation task.
        eval_facts: What was asked.
        candidates: Names, in the order of the report.

    Raises:
        DataError: rows are missing, doubled or foreign.
    """
    table = generation_table(
        samples, generations, candidates=candidates, items_per_sample=eval_facts.items_per_sample
    )
    summaries = []
    for name in candidates:
        rows = table[table["candidate"] == name]
        items = rows[rows["status"] != FAILED]
        summaries.append(
            GenerationSummary(
                candidate=name,
                n_expected=len(rows),
                n_valid=len(items),
                failed_by_reason=failure_reasons(rows, FAILED),
                n_duplicate_questions=int(items["question"].duplicated().sum()),
                n_near_questions=near_duplicates(items["question"]),
                n_without_findings=int(items["findings"].isna().sum()),
                question_types=question_types(items["type"], eval_facts.item_types),
                answer_words=answer_words(items["answer"]),
            )
        )
    return GenerationReport(
        eval=eval_facts,
        candidates=tuple(summaries),
        failures=gather_failures(table, candidates),
        checks=gather_findings(table, eval_facts.checks, candidates),
    )


def write_generation(report: GenerationReport) -> tuple[Section, ...]:
    """Return the sections of the document."""
    names = [candidate.candidate for candidate in report.candidates]
    return (
        Section(
            anchor="generation",
            title=f"Items of {report.eval.name}",
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
    writes_questions = report.eval.item_kind == "qa_pair"
    rows = tuple(
        (
            candidate.candidate,
            numbers.count(candidate.n_expected),
            numbers.count(candidate.n_valid),
            ", ".join(f"{in_words(reason)} {n:,}" for reason, n in candidate.failed_by_reason.items()) or "–",
            numbers.count(candidate.n_without_findings),
            *(repeated(candidate) if writes_questions else ()),
        )
        for candidate in report.candidates
    )
    header = (
        "Candidate",
        "Expected",
        "Valid",
        "failed because of",
        "Without a finding",
        *(REPEATED if writes_questions else ()),
    )
    return Table(caption="Items", header=header, rows=rows, words=frozenset({3}))


def _answers(report: GenerationReport) -> Table:
    rows = tuple(
        (
            candidate.candidate,
            numbers.decimal(candidate.answer_words.mean, 1),
            numbers.decimal(candidate.answer_words.median, 0),
            numbers.decimal(candidate.answer_words.p95, 0),
            numbers.percent(candidate.answer_words.share_over_60),
            mix(candidate.question_types, candidate.n_valid),
        )
        for candidate in report.candidates
    )
    header = ("Candidate", "Words, mean", "median", "95th percentile", "over 60 words", "Types")
    return Table(caption="Answers", header=header, rows=rows, words=frozenset({5}))
