"""Sections of `qaeval labels status`."""

from qaeval.labelling.model import LabelStatus
from qaeval.report.numbers import seconds
from qaeval.report.tables import Notes, Section, Table


def write_status(status: LabelStatus) -> tuple[Section, ...]:
    """Return the sections: raters, and what the labels show."""
    sections = [Section(anchor="labels", title="Labels", paragraphs=status.sentences)]
    if status.raters:
        sections.insert(0, _raters(status))
    return tuple(sections)


def _raters(status: LabelStatus) -> Section:
    notes, rows = Notes(), []
    agreements = {agreement.rater: agreement for agreement in status.agreement}
    for work in status.raters:
        agreement = agreements.get(work.rater)
        quality = agreement.quality if agreement else None
        coefficients = agreement.coefficients if agreement else None
        rows.append(
            (
                work.rater,
                work.rater_kind,
                f"{work.n_labels:,}",
                f"{work.n_chunks:,}",
                f"{work.n_skipped:,}",
                notes.coefficient(coefficients.kappa, f"kappa of {work.rater}") if coefficients else "–",
                seconds(quality.median_seconds) if quality and quality.median_seconds is not None else "–",
                f"{quality.n_repeats_same} of {quality.n_repeats}" if quality and quality.n_repeats else "–",
                f"{quality.n_too_fast} of {quality.n_readable}" if quality and quality.n_readable else "–",
            )
        )
    header = (
        "rater",
        "kind",
        "labels",
        "chunks",
        "skipped",
        f"kappa with {status.judge}",
        "median time",
        "same letter again",
        "too fast to read",
    )
    table = Table(
        caption="Labels of each rater",
        header=header,
        rows=tuple(rows),
        notes=notes.lines(),
        words=frozenset({1}),
    )
    return Section(anchor="raters", title="Raters", tables=(table,))
