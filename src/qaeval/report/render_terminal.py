"""What the command line prints at the end of a run: plain strings, drawn by the command line."""

from dataclasses import dataclass

from qaeval.report import numbers
from qaeval.report.document import CandidateSummary, Report


@dataclass(frozen=True)
class TextSummary:
    """Sentences and one table."""

    headline: tuple[tuple[str, str], ...]
    """Kind (``finding``, ``caution``, ``note``) and sentence."""
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """One per candidate, as long as the header."""


def render_text_rows(report: Report) -> TextSummary:
    """Put the report's most important numbers into strings."""
    level = numbers.level(report.candidates[0].usable)
    counts = "/".join((*report.rubric.letters, "none", "failed"))
    flags = tuple(flag.name for flag in report.rubric.flags)
    return TextSummary(
        headline=tuple((one.kind, one.text) for one in report.headline),
        header=(
            "candidate",
            f"usable {report.rubric.best}",
            f"{level} interval",
            counts,
            *flags,
            "words",
            "time",
        ),
        rows=tuple(_row(one) for one in report.candidates),
    )


def _row(one: CandidateSummary) -> tuple[str, ...]:
    counts = [*(letter.n for letter in one.letters), one.ungraded.n, one.failed.n]
    return (
        one.facts.name,
        numbers.percent(one.usable.value),
        numbers.rate_interval(one.usable).strip() or "too few chunks",
        "/".join(map(str, counts)),
        *(numbers.percent(flag.share.value) for flag in one.flags),
        numbers.decimal(one.answer_words.median, 0),
        numbers.seconds(one.timing.wall_s),
    )
