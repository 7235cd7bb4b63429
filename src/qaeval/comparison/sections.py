"""Sections of a report in their order. To add a section, append a function to the tuple."""

from collections.abc import Callable, Sequence
from typing import Final

from qaeval.agreement.model import RaterAgreement
from qaeval.agreement.sections import (
    against_raters,
    between_judges,
    ceiling,
    panel_votes,
    planted_controls,
    raters_at_a_glance,
)
from qaeval.analysis.model import Sentence
from qaeval.calibration.sections import escalation_section, mode_section, mode_sentence, soft_grade_section
from qaeval.comparison import decision as sections_choice
from qaeval.comparison import findings as sections_checks
from qaeval.comparison import noise_section as sections_noise
from qaeval.comparison import provenance as sections_provenance
from qaeval.comparison import quality as candidates
from qaeval.comparison import speed as sections_speed
from qaeval.comparison.report import Report
from qaeval.cost.sections import hosting_section
from qaeval.report import numbers
from qaeval.report.numbers import listed, moment, plural
from qaeval.report.tables import Section


def agreement(report: Report) -> Section:
    """Agreement of the judge with each rater of this run, and of the raters with each other."""
    judge = report.judge.facts.name
    further = (
        *(() if report.panel is None else (panel_votes(report.panel, report.rubric.best),)),
        *between_judges(judge, report.judges, report.rubric.letters),
    )
    of_others = [rater.rater for rater in report.agreement if _is_of_others(rater)]
    strange = (_of_others(of_others),) if of_others else ()
    if len(of_others) == len(report.agreement):
        unknown = (
            f"The judge {judge} was not checked against labels: how reliable its letters are is unknown."
        )
        sheet = "`qaeval export RUN --to labels --next` writes a blind sheet of items to label; `qaeval report RUN --labels FILE` takes it."
        return Section(
            anchor="agreement",
            title="Judge agreement",
            paragraphs=(*_decider(report), f"{unknown} {sheet}", *strange),
            parts=further,
        )
    of_this = [rater for rater in report.agreement if not _is_of_others(rater)]
    parts = (*against_raters(judge, of_this, report.rubric.letters), *further, *ceiling(report.raters))
    paragraphs = (*_decider(report), *strange)
    return Section(
        anchor="agreement",
        title="Judge agreement",
        paragraphs=paragraphs,
        tables=raters_at_a_glance(judge, of_this),
        parts=parts,
    )


def _decider(report: Report) -> tuple[str, ...]:
    """Say whose letters the report is made of, where several judges graded."""
    if report.panel is not None:
        text = (
            f"Every rate of this report is by the letters of the panel {report.judge.facts.name}. A member's agreement with the "
            f"panel contains its agreement with itself."
        )
        return (text,)
    graded = [other.judge for other in report.judges if other.n_graded]
    if not graded:
        return ()
    others = listed(graded)
    judge = report.judge.facts.name
    text = (
        f"Every rate of this report is by the letters of {judge}. {others} graded the same items; `qaeval report RUN "
        f"--decide-by NAME` takes the letters of another judge."
    )
    return (text,)


def controls(report: Report) -> Section | None:
    """What the judge made of the planted controls."""
    return None if report.controls is None else planted_controls(report.controls, report.rubric.best)


def modes(report: Report) -> Section | None:
    """How often the judge's letter alone agrees with its letter with reasons."""
    return None if report.modes is None else mode_section(report.modes, report.judge.facts.name)


def soft_grades(report: Report) -> Section | None:
    """What the judge's probabilities of the letters show by labels."""
    if report.soft is None:
        return None
    return soft_grade_section(report.soft, report.judge.facts.name, report.rubric.best)


def escalation(report: Report) -> Section | None:
    """What a second judge for the unsure items costs and is worth."""
    return None if report.escalation is None else escalation_section(report.escalation)


def _is_of_others(rater: RaterAgreement) -> bool:
    """Whether a rater labelled no item of this run, but for those that the judge was tuned on."""
    return (
        rater.coefficients is None
        and not rater.n_ungraded
        and not rater.n_other_rubric
        and rater.n_not_in_run > 0
    )


def _of_others(raters: Sequence[str]) -> str:
    return f"The labels by {numbers.listed(raters)} are of other items than this run's and are ignored."


def _hosted(report: Report) -> Section | None:
    hosting = report.timing.hosting
    return None if hosting is None else hosting_section(hosting)


SECTIONS: Final[tuple[Callable[[Report], Section | None], ...]] = (
    candidates.quality,
    candidates.differences,
    candidates.stopping,
    sections_checks.selection,
    candidates.reliability,
    sections_checks.checks,
    sections_speed.speed,
    _hosted,
    sections_choice.hosting,
    controls,
    agreement,
    modes,
    soft_grades,
    escalation,
    sections_noise.noise,
    candidates.strata,
    candidates.failures,
    sections_provenance.provenance,
)


def write_sections(report: Report) -> tuple[Section, ...]:
    """Return the sections of a report; those that do not apply to its eval are omitted."""
    return tuple(section for make in SECTIONS if (section := make(report)) is not None)


def headline(report: Report) -> tuple[Sentence, ...]:
    """Merge the sentences about cost into the headline: the verdict, findings, cautions, then notes."""
    of_modes = () if report.modes is None else (mode_sentence(report.modes, report.judge.facts.name),)
    sentences = (*report.headline, *of_modes, *report.timing.headline)
    return tuple(
        sorted(sentences, key=lambda sentence: ("verdict", "finding", "caution", "note").index(sentence.kind))
    )


def title(report: Report) -> str:
    """Name the report."""
    names = [candidate.facts.name for candidate in report.candidates]
    return f"{listed(names)} on {report.eval.title or report.eval.name}"


def subtitle(report: Report) -> str:
    """Describe the eval, the judge and the run."""
    facts = report.eval
    # imported files may have fewer items of a chunk than the eval asks for
    is_full = all(candidate.n_expected == facts.n_expected for candidate in report.candidates)
    extent = (
        f"{plural(facts.n_samples, 'chunk')} × {'' if is_full else 'up to '}{plural(facts.items_per_sample, 'item')}"
        if facts.item_kind == "qa_pair"
        else f"{facts.n_samples:,} {'questions' if facts.item_kind == 'answer' else 'topic cards'}"
    )
    return (
        f"{extent} for each candidate; graded by "
        f"{report.judge.facts.name}{', which decides,' if report.judges else ''} with rubric {report.rubric.name}; run {report.run.id}, started {moment(report.run.started)}."
    )
