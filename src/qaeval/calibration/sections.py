"""The section of soft grades, and the reliability diagram."""

from collections.abc import Iterator
from typing import Any

from qaeval.analysis.model import Sentence
from qaeval.calibration.model import (
    CandidateSoftGrade,
    Escalation,
    ModeAgreement,
    ProbabilityCheck,
    SoftGrades,
)
from qaeval.report.chart import SERIES, Chart, Theme, x_reach
from qaeval.report.numbers import decimal, p_value, percent, plural, rate
from qaeval.report.tables import Notes, Section, Table

_ALPHA = 0.05
_MODES_AGREE = 0.9
"""Share of agreeing letters below which the headline warns, where the letter alone decides."""


def soft_grade_section(soft: SoftGrades, judge: str, best: str) -> Section:
    """Return what the judge's probabilities show.

    Args:
        soft: The data.
        judge: Name of the judge.
        best: The best letter.
    """
    covered = "" if soft.n == soft.n_items else f" for {soft.n:,} of {plural(soft.n_items, 'item')}"
    spread = (
        f"{judge} gives probabilities of the letters{covered}; that of {best} goes from {decimal(soft.lowest)} to "
        f"{decimal(soft.highest)}, median {decimal(soft.median)}."
    )
    tables = [_candidates(soft.candidates, best)] if soft.candidates else []
    for check in soft.checks:
        tables += [_check(check, best), _bins(check, best)]
    return Section(
        anchor="soft-grades",
        title="Probabilities of the letters",
        paragraphs=(spread, *(sentence for check in soft.checks for sentence in _sentences(check, best))),
        tables=tuple(tables),
    )


def _sentences(check: ProbabilityCheck, best: str) -> Iterator[str]:
    gain = check.auc.low is not None and check.auc.low > max(0.5, check.auc_letter.value or 0.0)
    hidden = (
        f"By {check.rater}'s labels, the probability of {best} tells items apart that the letter does not"
        if gain
        else f"By {check.rater}'s labels, the probability of {best} is not shown to tell more than the letter"
    )
    yield f"{hidden} (area under the curve {_share(check.auc.value)} and {_share(check.auc_letter.value)})."
    state = "are not calibrated" if check.ece_p <= _ALPHA else "are not shown to be uncalibrated"
    yield (
        f"The probabilities {state}: they are off by {percent(check.ece)} on average, and by chance alone it would be "
        f"{percent(check.ece_expected)} ({p_value(check.ece_p)})."
    )


def _share(value: float | None) -> str:
    return decimal(value) if value is not None else "–"


def _candidates(candidates: tuple[CandidateSoftGrade, ...], best: str) -> Table:
    notes = Notes()
    return Table(
        caption=f"Letters and probabilities by candidate; the expected grade is 100 % where {best} is certain",
        header=("candidate", "items", f"letter {best}", f"mean probability of {best}", "expected grade"),
        rows=tuple(
            (
                candidate.candidate,
                f"{candidate.n:,}",
                notes.rate(candidate.share_best, f"letter {best} of {candidate.candidate}"),
                notes.rate(candidate.probability, f"probability of {candidate.candidate}"),
                notes.rate(candidate.expected, f"expected grade of {candidate.candidate}"),
            )
            for candidate in candidates
        ),
        notes=notes.lines(),
    )


def _check(check: ProbabilityCheck, best: str) -> Table:
    notes = Notes()
    threshold = (
        f"threshold, {decimal(check.threshold)} by all labels" if check.threshold is not None else "threshold"
    )
    rows = (
        (
            "area under the curve",
            notes.rate(check.auc_letter, "of the letter"),
            notes.rate(check.auc, "of the probability"),
            "",
        ),
        (
            "Brier score",
            decimal(check.brier_letter, 3),
            decimal(check.brier, 3),
            decimal(check.brier_isotonic, 3),
        ),
        (
            f"kappa of {best} or not",
            notes.coefficient(check.kappa_letter, "kappa of the letter"),
            notes.coefficient(check.kappa_threshold, "kappa of the threshold"),
            "",
        ),
        ("calibration error", "", f"{percent(check.ece)}, by chance {percent(check.ece_expected)}", ""),
        ("ranked probability score", "", decimal(check.rps, 3), ""),
    )
    return Table(
        caption=f"{check.rater}: {plural(check.n, 'label')} in {plural(check.n_chunks, 'chunk')}; kappa of the probability is that of a "
        f"{threshold}; thresholds and calibration saw no label of the item's chunk",
        header=("measure", "letter", "probability", "calibrated"),
        rows=rows,
        notes=notes.lines(),
    )


def _bins(check: ProbabilityCheck, best: str) -> Table:
    notes = Notes()
    return Table(
        caption=f"Reliability of the probability of {best}, by the labels of {check.rater}",
        header=("mean probability", "items", f"labelled {best}"),
        rows=tuple(
            (percent(bin_.probability), f"{bin_.n:,}", notes.rate(bin_.share, percent(bin_.probability)))
            for bin_ in check.bins
        ),
        notes=notes.lines(),
    )


def mode_sentence(modes: ModeAgreement, judge: str) -> Sentence:
    """Return the sentence of the headline about a judge with two modes; a caution where its letters alone are shown to differ.

    Args:
        modes: The data.
        judge: Name of the judge.
    """
    if modes.n_control == 0:
        text = f"No item of the random share shows how often the letter alone of {judge} agrees with its letter with reasons."
        return Sentence(kind="caution", text=text)
    kept = (
        f"; {rate(modes.kept)} of the {modes.n_kept:,} of which it is sure"
        if modes.kept.value is not None
        else ""
    )
    differs = modes.kept.high is not None and modes.kept.high < _MODES_AGREE
    return Sentence(
        kind="caution" if differs else "note",
        text=f"The letter alone of {judge} agrees with its letter with reasons in {rate(modes.agreement)} of a random "
        f"{plural(modes.n_control, 'item')}{kept}.",
    )


def mode_section(modes: ModeAgreement, judge: str) -> Section:
    """Return how often a judge's letter alone agrees with its letter with reasons, and what a cascade of both saves.

    Args:
        modes: The data.
        judge: Name of the judge.
    """
    letters = f", where it is {' or '.join(modes.reasons_for)}" if modes.reasons_for else ""
    reconsidered = "that were reconsidered" if modes.reasons_for else "of which it was unsure"
    decided = (
        f"{judge} gives the letter alone; where its probability is below {decimal(modes.below)}{letters}, and for a random "
        f"{percent(modes.control)} of the items, it is asked again for reasons, and that letter counts: for {modes.n_with_reasons:,} of "
        f"{plural(modes.n_items, 'item')}. Of {modes.n_reconsidered:,} {reconsidered}, {modes.n_changed:,} got another letter."
    )
    if modes.reasons_for:
        decided += (
            f" Other letters of which it is sure are not reconsidered, so that reasons can only take items away from "
            f"{' and '.join(modes.reasons_for)}."
        )
    paragraphs = [mode_sentence(modes, judge).text, decided]
    if modes.tokens is not None and modes.tokens_with_reasons is not None:
        paragraphs.append(
            f"An item takes {modes.tokens:.0f} completion tokens on average; with reasons for every item it would be "
            f"{modes.tokens_with_reasons:.0f}, by the items that have them."
        )
    paragraphs.append(
        "Agreement of the two modes says how much the shorter form changes, not which of them is right: labels, planted controls, an "
        "audit and a certificate say that, of the letters as they count."
    )
    return Section(
        anchor="judge-modes", title="Letters with and without reasons", paragraphs=tuple(paragraphs)
    )


def escalation_section(report: Escalation) -> Section:
    """Return which items went to a second judge, and what the cascade costs and is worth beside each judge alone."""
    return Section(
        anchor="escalation",
        title=f"Escalation from {report.judge} to {report.second}",
        paragraphs=tuple(escalation_sentences(report)),
        tables=(_shares(report),),
    )


def escalation_sentences(report: Escalation) -> Iterator[str]:
    """Yield what was sent on, and what is promised."""
    parts = [
        f"{n:,} {reason}"
        for n, reason in (
            (report.n_unsure, "unsure"),
            (report.n_disputed, "disputed"),
            (report.n_without_letter, "without a letter"),
        )
        if n
    ]
    why = f" ({', '.join(parts)})" if parts else ""
    yield (
        f"{report.second} decides {report.n_escalated:,} of {plural(report.n_items, 'item')}{why}; the letters of both together are those "
        f"of {report.cascade} (`qaeval report RUN --decide-by {report.cascade}`)."
    )
    error = percent(report.max_error)
    if report.basis == "given":
        yield f"The threshold {decimal(report.threshold)} is given: labels promise nothing of it."
    elif report.threshold is None:
        yield (
            f"{plural(report.n_labels, 'label')} show no threshold above which at most {error} of {report.judge}'s letters are wrong, so "
            f"every item went on."
        )
    else:
        yield (
            f"From a probability of {decimal(report.threshold, 3)} on, {report.judge}'s letter is kept: {report.n_wrong:,} of "
            f"{plural(report.n_kept, 'labelled item')} were wrong, at most {percent(report.upper)} with {percent(1 - report.alpha)} "
            f"certainty; {error} was allowed."
        )
    if report.n_labels_of_models:
        yield f"{plural(report.n_labels_of_models, 'label')} of these are of models: wrong means another letter than a model gave."


def _shares(report: Escalation) -> Table:
    notes = Notes()
    rows = tuple(
        (
            share.judge,
            f"{share.n_items:,}",
            f"{share.n_tokens:,}" if share.n_tokens is not None else "–",
            decimal(share.seconds, 1) if share.seconds is not None else "–",
            f"{share.cost:.4f} {report.currency}" if share.cost is not None else "–",
            notes.coefficient(share.kappa, f"kappa of {share.judge}") if share.kappa is not None else "–",
        )
        for share in report.shares
    )
    scaled = [share.judge for share in report.shares if share.is_extrapolated]
    extrapolated = (
        (f"Work of {scaled[0]} alone is scaled up from the items that it graded.",) if scaled else ()
    )
    return Table(
        caption="Each judge alone, and both together; kappa is on the labelled items that all of them graded",
        header=("judge", "items", "tokens", "seconds", "cost", "kappa with the labels"),
        rows=rows,
        notes=(*notes.lines(), *extrapolated),
    )


def reliability_diagram(soft: SoftGrades, best: str) -> Chart | None:
    """Draw the labelled share against the probability, one line for each rater; None without labels.

    Args:
        soft: The data.
        best: The best letter.
    """
    if not soft.checks:
        return None

    def draw(axes: Any, theme: Theme) -> None:  # noqa: ANN401 - matplotlib has no types here
        axes.plot([0, 100], [0, 100], color=theme.soft, linewidth=1, linestyle=":")
        for index, check in enumerate(soft.checks):
            colour = SERIES[index % len(SERIES)]
            for bin_ in check.bins:
                axes.errorbar(
                    [100 * bin_.probability],
                    [100 * (bin_.share.value or 0)],
                    yerr=x_reach(bin_.share, 100),
                    fmt="o",
                    color=colour,
                    capsize=3,
                )
            axes.plot(
                [100 * bin_.probability for bin_ in check.bins],
                [100 * (bin_.share.value or 0) for bin_ in check.bins],
                color=colour,
                label=check.rater,
            )
        axes.set_xlim(0, 103)
        axes.set_ylim(-3, 103)
        axes.set_xlabel(f"judge's probability of {best}, %")
        axes.set_ylabel(f"labelled {best}, %")
        axes.legend(loc="upper left")

    alt = "; ".join(
        f"{check.rater}: "
        + ", ".join(f"{percent(bin_.probability)}: {rate(bin_.share)}" for bin_ in check.bins)
        for check in soft.checks
    )
    title = f"Reliability of the probability of {best} (dotted: calibrated)"
    return Chart("reliability", title, alt, draw, 3.6, in_page=True)
