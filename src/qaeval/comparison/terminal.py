"""Summary of a report for the terminal, as plain strings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qaeval.analysis.model import CandidateSummary
from qaeval.comparison.quality import named_flaws
from qaeval.comparison.report import Report
from qaeval.comparison.sections import headline
from qaeval.report import numbers

_BAR: Final = 20
"""Width of the bar of letters."""
_FLAWS: Final = 3
_NONE, _FAILED = "·", "×"


@dataclass(frozen=True)
class TextSummary:
    """Sentences and one table."""

    headline: tuple[tuple[str, str], ...]
    """Kind (``finding``, ``caution``, ``note``) and sentence."""
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """One per candidate, as long as the header."""
    flaws: tuple[str, ...] = ()
    """One line per candidate: the flaws of its items below the best letter, the most frequent first; empty without flaws."""


def render_text_rows(report: Report) -> TextSummary:
    """Put the report's most important numbers into strings that fit a terminal of 80 columns."""
    level = numbers.level(report.candidates[0].usable)
    flags = [flag.name for flag in report.rubric.flags if _raised(report, flag.name)]
    legend = {
        _NONE: any(candidate.ungraded.n for candidate in report.candidates),
        _FAILED: any(candidate.failed.n for candidate in report.candidates),
    }
    named = {_NONE: f"{_NONE} none", _FAILED: f"{_FAILED} failed"}
    return TextSummary(
        headline=tuple((sentence.kind, sentence.text) for sentence in headline(report)),
        header=(
            "candidate",
            f"usable {report.rubric.best} [{level}]",
            " ".join([*report.rubric.letters, *(named[mark] for mark, used in legend.items() if used)]),
            *flags,
            "time",
        ),
        rows=tuple(_row(candidate, flags) for candidate in report.candidates),
        flaws=tuple(_flaws(candidate, report.rubric.best) for candidate in report.candidates)
        if named_flaws(report)
        else (),
    )


def _raised(report: Report, name: str) -> bool:
    return any(flag.n for candidate in report.candidates for flag in candidate.flags if flag.name == name)


def _row(candidate: CandidateSummary, flags: Sequence[str]) -> tuple[str, ...]:
    shares = {flag.name: numbers.percent(flag.share.value) for flag in candidate.flags}
    return (
        candidate.facts.name,
        f"{numbers.percent(candidate.usable.value)}{numbers.rate_interval(candidate.usable) or ' too few chunks'}",
        _bar(candidate),
        *(shares[name] for name in flags),
        numbers.seconds(candidate.timing.wall_s),
    )


def _flaws(candidate: CandidateSummary, best: str) -> str:
    """Count the most frequent flaws of a candidate."""
    counts = sorted(((flaw.n, flaw.name) for flaw in candidate.flaws if flaw.n), reverse=True)
    listed = ", ".join(f"{name} {n}" for n, name in counts[:_FLAWS])
    return f"{candidate.facts.name}, not {best}: {listed or 'none'}"


def _bar(candidate: CandidateSummary) -> str:
    """Draw the letters of all expected items as a bar; what occurs at all has at least one place."""
    counts = [
        *((letter.name, letter.n) for letter in candidate.letters),
        (_NONE, candidate.ungraded.n),
        (_FAILED, candidate.failed.n),
    ]
    present = [(mark, n) for mark, n in counts if n]
    widths = [max(1, round(_BAR * n / candidate.n_expected)) for _, n in present]
    while sum(widths) > _BAR:
        widths[widths.index(max(widths))] -= 1
    while sum(widths) < _BAR:
        widths[widths.index(max(widths))] += 1
    return "".join(mark * n for (mark, _), n in zip(present, widths, strict=True))
