"""Section on noise: results of repeated replies and letters."""

from collections.abc import Iterator
from typing import Final

from qaeval.comparison.model import CandidateNoise, JudgeNoise, Noise, NoiseSource
from qaeval.comparison.report import Report
from qaeval.report import numbers
from qaeval.report.tables import Notes, Section, Table

_NAMES: Final = {"chunk": "chunks", "item": "items", "reply": "replies", "judge": "judge"}
_NARROWER: Final = 0.005
"""Below half a percent a narrower interval is not worth a sentence."""


def noise(report: Report) -> Section | None:
    """Variance components by candidate, and the judge against itself; None for a run without repeats."""
    measured, judge, letters = report.noise, report.judge.facts.name, report.rubric.letters
    if measured is None:
        return None
    tables = [_components(measured, letters[0])] if measured.candidates else []
    if measured.judge is not None:
        tables.append(_judge(measured.judge, judge, letters))
    return Section(
        anchor="noise",
        title="Noise",
        paragraphs=(*_sentences(measured, judge), *_cautions(measured)),
        tables=tuple(tables),
    )


def _sentences(measured: Noise, judge: str) -> Iterator[str]:
    for candidate in measured.candidates:
        shares = {part.source: part.share for part in candidate.components}
        name = candidate.candidate
        # without a second letter for a text, replies differ for both reasons
        writer = name if shares["judge"].value is not None else f"{name} and {judge} together"
        meanings: dict[NoiseSource, str] = {
            "reply": f"is noise of {writer}, between replies to one sample",
            "judge": f"is noise of {judge}, between its letters for one text",
        }
        parts = [
            f"{numbers.rate(shares[source])} {meaning}"
            for source, meaning in meanings.items()
            if shares[source].value is not None
        ]
        if parts:
            yield f"{name}: of the spread of its letters, {', and '.join(parts)}.{_narrower(candidate)}"


def _narrower(candidate: CandidateNoise) -> str:
    width = candidate.without_judge_noise
    if width is None or 1 - width < _NARROWER:
        return ""
    return (
        f" Without the noise of the judge the interval of its usable rate would be about {numbers.percent(1 - width)} narrower; "
        f"more letters for each item cannot do more."
    )


def _cautions(measured: Noise) -> Iterator[str]:
    if measured.at_temperature_0:
        names = numbers.listed(measured.at_temperature_0)
        yield f"Asked at temperature 0, where repeats show the noise of the server alone: {names}."
    missing = sum(candidate.n_missing for candidate in measured.candidates)
    if missing:
        yield (
            f"{numbers.plural(missing, 'item has', 'items have')} no letter and could not enter; `qaeval grade RUN` grades the items "
            f"of repeated replies."
        )


def _components(measured: Noise, best: str) -> Table:
    notes, rows = Notes(), []
    for candidate in measured.candidates:
        cells = [
            notes.rate(part.share, f"{_NAMES[part.source]} of {candidate.candidate}")
            for part in candidate.components
        ]
        total = notes.coefficient(candidate.total, f"variance of {candidate.candidate}")
        rows.append(
            (candidate.candidate, *cells, total, f"{candidate.n_replies:,}", f"{candidate.n_letters:,}")
        )
    explanation = (
        f"Spread: variance of one letter, {best} (1) or not (0), of a random chunk. Chunks: between chunks. Items: between the "
        f"items of a chunk. Replies: between replies to one sample. Judge: between letters for one text. A source without repeats is "
        f"part of the one to its left. A negative estimate is shown as 0, so that the shares need not add up to 100 %."
    )
    return Table(
        caption="Where the spread of letters comes from, by candidate",
        header=(
            "Candidate",
            "Chunks",
            "Items",
            "Replies",
            "Judge",
            "Variance",
            "Replies to a sample",
            "Letters",
        ),
        rows=tuple(rows),
        notes=(explanation, *notes.lines()),
    )


def _judge(agreement: JudgeNoise, judge: str, letters: tuple[str, ...]) -> Table:
    notes = Notes()
    rows = (
        ("Same letter again", notes.rate(agreement.self_agreement, "same letter again")),
        (f"{letters[0]} once and {letters[-1]} once", notes.rate(agreement.flips, "flips")),
        ("Krippendorff's alpha, nominal", notes.coefficient(agreement.alpha, "alpha")),
    )
    caption = (
        f"{judge} against itself, {numbers.plural(agreement.n_items, 'item')} with up to "
        f"{numbers.plural(agreement.n_letters, 'letter')}"
    )
    return Table(
        caption=caption, header=("Of two letters for an item", "Value"), rows=rows, notes=notes.lines()
    )
