"""What ``qaeval analyse generation`` says, as data."""

from collections.abc import Mapping

from qaeval.records import FailureReason
from qaeval.report.document import AnswerLength, CheckGroup, FailureGroup
from qaeval.report.facts import EvalFacts, Part


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
    """What the candidates wrote, whatever the judge says of it."""

    eval: EvalFacts
    candidates: tuple[GenerationSummary, ...]
    failures: tuple[FailureGroup, ...]
    checks: tuple[CheckGroup, ...]
