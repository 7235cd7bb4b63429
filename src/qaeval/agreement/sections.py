"""Sections of agreement between judge and labels, and between raters."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from qaeval.agreement.model import (
    NO_ORDER,
    AgreementReport,
    Coefficients,
    FactAgreement,
    FlagAgreement,
    FurtherJudge,
    JudgeDiscrimination,
    LetterAgreement,
    MultiRaterAgreement,
    Panel,
    RaterAgreement,
    RaterPair,
)
from qaeval.calibration.sections import soft_grade_section
from qaeval.report import numbers
from qaeval.report.measure import Measure
from qaeval.report.tables import Notes, Section, Table


def write_agreement(report: AgreementReport) -> tuple[Section, ...]:
    """Return the sections of ``qaeval agreement``: the judge, groups, the raters."""
    scale = _scale(report)
    if report.n_without_cluster:
        scale += " No cluster column is named (--cluster), so the intervals assume independent items and may be too narrow."
    parts = against_raters(report.judge, report.agreement, report.letters)
    sections = [
        Section(
            anchor=section.anchor,
            title=f"{report.judge} against {section.title}",
            paragraphs=(*section.paragraphs, scale),
            tables=section.tables,
        )
        for section in parts
    ]
    if report.soft is not None:
        sections.append(soft_grade_section(report.soft, report.judge, report.letters[0]))
    if report.groups:
        sections.append(_by_group(report))
    raters = ceiling(report.raters)
    if not parts:
        raters = tuple(replace(section, paragraphs=(*section.paragraphs, scale)) for section in raters)
    sections += raters
    if report.several is not None:
        sections.append(_several(report.several))
    return tuple(sections)


def _scale(report: AgreementReport) -> str:
    """Describe the letters: their order and where it is from, spellings, missing letters."""
    listed = ",".join(report.letters)
    if report.order == "none":
        text = (
            f"The letters {', '.join(report.letters)} have no known order, so only nominal measures are given; "
            f"--scale {listed} states an order, best first."
        )
    else:
        text = f"Scale {' > '.join(report.letters)}, best first."
    if report.is_scale_assumed:
        text += (
            f" The letters are numbers and no scale was given, so the largest, {report.letters[0]}, is taken to be the best; "
            f"--scale={','.join(reversed(report.letters))} makes {report.letters[-1]} the best."
        )
    if report.merged:
        text += f" Counted as one letter: {', '.join(f'{text} and {letter}' for text, letter in report.merged.items())}."
    if report.n_missing:
        text += f" {numbers.plural(report.n_missing, 'cell has', 'cells have')} no letter (empty, N/A, nan or null)."
    return text


def _by_group(report: AgreementReport) -> Section:
    notes, rows = Notes(), []
    for group in report.groups:
        coefficients = group.agreement.coefficients
        if coefficients is None:
            continue
        name = f"{group.group}, {group.agreement.rater}"
        lower = coefficients.confusion[1:]
        passed = (
            (f"{sum(row[0] for row in lower):,} of {sum(map(sum, lower)):,}",)
            if report.order != "none"
            else ()
        )
        rows.append(
            (
                group.group,
                group.agreement.rater,
                f"{coefficients.n:,}",
                notes.rate(coefficients.observed, f"same letter of {name}"),
                notes.coefficient(coefficients.kappa, f"kappa of {name}"),
                *passed,
            )
        )
    header: tuple[str, ...] = (report.by, "rater", "items", "same letter", "kappa")
    if report.order != "none":
        header = (*header, f"{report.letters[0]} to items that the rater graded lower")
    table = Table(
        caption=f"Agreement of {report.judge} by {report.by}",
        header=header,
        rows=tuple(rows),
        notes=notes.lines(),
        words=frozenset({1}),
    )
    return Section(anchor="groups", title=f"By {report.by}", tables=(table,))


def _several(agreement: MultiRaterAgreement) -> Section:
    notes = Notes()
    rows = (
        ("Krippendorff's alpha, nominal", notes.coefficient(agreement.alpha, "alpha")),
        *_ordinal(("Krippendorff's alpha, ordinal", agreement.alpha_ordinal, "ordinal alpha"), notes=notes),
        ("Fleiss' kappa", notes.coefficient(agreement.fleiss, "Fleiss' kappa")),
    )
    caption = f"{len(agreement.raters)} raters on {numbers.plural(agreement.n_items, 'item')} with letters of two or more"
    table = Table(caption=caption, header=("Measure", "Value"), rows=rows, notes=notes.lines())
    return Section(anchor="several", title="All raters together", tables=(table,))


def against_raters(
    judge: str, agreement: Iterable[RaterAgreement], letters: tuple[str, ...]
) -> tuple[Section, ...]:
    """Return one section per rater."""
    return tuple(
        Section(
            anchor=f"rater-{number}",
            title=rater.rater,
            paragraphs=rater.sentences,
            tables=_rater(rater, judge, letters),
        )
        for number, rater in enumerate(agreement, start=1)
    )


_STANDINGS: Final = {
    "no labels joined": "no label joined",
    "too few chunks": "too few labels",
    "chance": "not shown to beat chance",
    "majority": "not shown to beat the commonest letter",
    "beats both": "beats chance and the commonest letter",
}


def raters_at_a_glance(judge: str, agreement: Sequence[RaterAgreement]) -> tuple[Table, ...]:
    """Return one table of the judge against all raters with joined labels; empty without them."""
    notes = Notes()
    rows = tuple(
        (
            rater.rater,
            {"human": "a person", "model": "a model", "mixed": "both"}.get(rater.rater_kind, "not known"),
            f"{rater.coefficients.n:,}",
            notes.rate(rater.coefficients.observed, f"same letter as {rater.rater}"),
            notes.coefficient(rater.coefficients.kappa, f"kappa with {rater.rater}"),
            "–"
            if rater.lower_recall is None
            else notes.rate(rater.lower_recall, f"lower letters of {rater.rater} noticed"),
            "–" if rater.leniency is None else notes.difference(rater.leniency, f"leniency to {rater.rater}"),
            _STANDINGS[rater.standing],
        )
        for rater in agreement
        if rater.coefficients is not None
    )
    if not rows:
        return ()
    header = (
        "Rater",
        "Who",
        "Items",
        "Same letter",
        "Cohen's kappa",
        "Lower letters noticed",
        "Leniency",
        "Shown",
    )
    return (
        Table(
            caption=f"{judge} against each rater",
            header=header,
            rows=rows,
            notes=notes.lines(),
            words=frozenset({1, 7}),
        ),
    )


_CONTROLS: Final = (
    "Controls are items of this run with a defect: dots as the answer, or the answer to an item of another chunk. They count in "
    "no rate and no cost, and nothing is exported of them."
)


def planted_controls(controls: JudgeDiscrimination, best: str) -> Section | None:
    """Return the section of the planted controls; None where the run has none, and nothing follows from its letters."""
    if not controls.sentence:
        return None
    rows = tuple((count.defect, f"{count.n_graded:,}", f"{count.n_best:,}") for count in controls.defects)
    table = Table(
        caption="Planted controls by defect", header=("Defect", "Graded", f"Graded {best}"), rows=rows
    )
    return Section(
        anchor="controls",
        title="Planted controls",
        paragraphs=(controls.sentence, *((_CONTROLS,) if rows else ())),
        tables=(table,) if rows else (),
    )


def between_judges(judge: str, others: Sequence[FurtherJudge], letters: tuple[str, ...]) -> Iterator[Section]:
    """Yield a section for each further judge: against the judge that decides, and against each rater."""
    for number, other in enumerate(others, start=1):
        tables = (
            ()
            if other.coefficients is None
            else (
                _confusion(judge, other.judge, other.coefficients, letters),
                _usable_by_judges(judge, other, letters[0]),
                *((_kappas(judge, other),) if other.kappa_differences else ()),
            )
        )
        yield Section(
            anchor=f"judge-{number}",
            title=f"{other.judge}, a further judge",
            paragraphs=(
                *other.sentences,
                *(rater.sentences[0] for rater in other.agreement if rater.coefficients),
            ),
            tables=tables,
        )


def panel_votes(panel: Panel, best: str) -> Section:
    """Return the section of a panel: its members, their agreement, and Dawid-Skene beside the votes."""
    members = tuple(
        (
            member.judge,
            f"{member.n_graded:,}",
            f"{member.n_ungraded:,}",
            f"{member.n_as_panel:,}",
            "–" if member.accuracy is None else numbers.percent(member.accuracy),
        )
        for member in panel.members
    )
    candidates = tuple(
        (
            candidate.candidate,
            f"{candidate.n:,}",
            f"{candidate.n_usable:,}",
            numbers.percent(candidate.n_usable / candidate.n),
            "–" if candidate.share_dawid_skene is None else numbers.percent(candidate.share_dawid_skene),
        )
        for candidate in panel.candidates
    )
    return Section(
        anchor="panel",
        title="The panel",
        paragraphs=panel.sentences,
        tables=(
            Table(
                caption="Members",
                header=("judge", "graded", "no letter", "letter of the panel", "accuracy by Dawid-Skene"),
                rows=members,
            ),
            *(() if panel.agreement is None else _several(panel.agreement).tables),
            Table(
                caption=f"Items graded {best}, of those that were expected",
                header=("candidate", "expected", "by the panel", "share", "share by Dawid-Skene"),
                rows=candidates,
            ),
        ),
    )


def _kappas(judge: str, other: FurtherJudge) -> Table:
    notes = Notes()
    rows = tuple(
        (
            change.rater,
            f"{change.n:,}",
            notes.coefficient(change.kappa, f"kappa of {judge} with {change.rater}"),
            notes.coefficient(change.kappa_of_other, f"kappa of {other.judge} with {change.rater}"),
            notes.coefficient(change.difference, f"difference of kappa with {change.rater}"),
        )
        for change in other.kappa_differences
    )
    return Table(
        caption="Cohen's kappa with each rater, on the items that both judges graded",
        header=("rater", "items", judge, other.judge, "difference"),
        rows=rows,
        notes=notes.lines(),
    )


def _usable_by_judges(judge: str, other: FurtherJudge, best: str) -> Table:
    return Table(
        caption=f"Items graded {best}, of those that were expected",
        header=("candidate", "expected", f"by {judge}", f"by {other.judge}"),
        rows=tuple(
            (usable.candidate, f"{usable.n:,}", f"{usable.n_usable:,}", f"{usable.n_usable_by_other:,}")
            for usable in other.candidates
        ),
    )


def ceiling(pairs: Sequence[RaterPair]) -> tuple[Section, ...]:
    """Return the section of agreement between raters; empty without pairs."""
    if not pairs:
        return ()
    sentences = tuple(pair.sentence for pair in pairs)
    return (
        Section(
            anchor="ceiling",
            title="Agreement between raters",
            paragraphs=sentences,
            tables=(_ceiling(pairs),),
        ),
    )


def _rater(rater: RaterAgreement, judge: str, letters: tuple[str, ...]) -> tuple[Table, ...]:
    if rater.coefficients is None:
        return ()
    tables = [
        _confusion(rater.rater, judge, rater.coefficients, letters),
        _coefficients(rater, rater.coefficients, judge),
        _by_letter(rater.rater, judge, rater.letters),
    ]
    if rater.flags:
        tables.append(_by_flag(rater.rater, judge, rater.flags))
    if rater.facts:
        tables.append(_by_fact(rater.rater, judge, rater.facts))
    if rater.candidates:
        tables.append(_by_candidate(rater, judge, letters[0]))
    return tuple(tables)


def _confusion(rater: str, judge: str, coefficients: Coefficients, letters: tuple[str, ...]) -> Table:
    rows = [
        (f"{rater} {letter}", *(f"{n:,}" for n in counts), f"{sum(counts):,}")
        for letter, counts in zip(letters, coefficients.confusion, strict=True)
    ]
    totals = [sum(column) for column in zip(*coefficients.confusion, strict=True)]
    rows.append(("total", *(f"{n:,}" for n in totals), f"{sum(totals):,}"))
    header = (f"{rater} ↓ · {judge} →", *(f"{judge} {letter}" for letter in letters), "total")
    return Table(
        caption=f"Letters of {rater} (rows) and {judge} (columns); the diagonal is agreement",
        header=header,
        rows=tuple(rows),
        kind="confusion",
    )


def _ordinal(*measures: tuple[str, Measure, str], notes: Notes) -> list[tuple[str, str]]:
    """Return the rows of measures (caption, value, name in a note) that need an order of the letters; none without one."""
    return [
        (caption, notes.coefficient(measure, name))
        for caption, measure, name in measures
        if measure.reason != NO_ORDER
    ]


def _coefficients(rater: RaterAgreement, coefficients: Coefficients, judge: str) -> Table:
    notes = Notes()
    lift = "" if rater.lift is None else notes.difference(rater.lift, "lift")
    leniency = "" if rater.leniency is None else notes.difference(rater.leniency, "leniency")
    rows = (
        (
            "Items",
            f"{coefficients.n:,}"
            + (
                f" from {numbers.plural(coefficients.n_chunks, 'chunk')}"
                if coefficients.n_chunks < coefficients.n
                else ""
            ),
        ),
        ("Same letter", notes.rate(coefficients.observed, "same letter")),
        (f"Always answering {rater.majority_letter}", numbers.percent(rater.majority_baseline)),
        (f"Same letter, above always answering {rater.majority_letter}", lift),
        ("Cohen's kappa", notes.coefficient(coefficients.kappa, "kappa")),
        *_ordinal(
            ("Cohen's kappa, linearly weighted", coefficients.kappa_linear, "weighted kappa"),
            ("Cohen's kappa, quadratically weighted", coefficients.kappa_quadratic, "quadratic kappa"),
            notes=notes,
        ),
        ("Maximum kappa at these letter rates", numbers.decimal(coefficients.kappa_max)),
        ("Maximum agreement at these letter rates", numbers.percent(coefficients.observed_max)),
        ("Krippendorff's alpha, nominal", notes.coefficient(coefficients.alpha, "alpha")),
        *_ordinal(
            ("Krippendorff's alpha, ordinal", coefficients.alpha_ordinal, "ordinal alpha"), notes=notes
        ),
        ("Scott's pi", notes.coefficient(coefficients.scott_pi, "pi")),
        ("Brennan-Prediger (PABAK)", notes.coefficient(coefficients.brennan_prediger, "Brennan-Prediger")),
        ("Gwet's AC1 (high if one letter dominates)", notes.coefficient(coefficients.gwet_ac1, "AC1")),
        *_ordinal(("Gwet's AC2, quadratic", coefficients.gwet_ac2, "AC2"), notes=notes),
        *(
            (f"{index} of the best letter", numbers.decimal(value))
            for index, value in (
                ("Prevalence index", coefficients.prevalence_index),
                ("Bias index", coefficients.bias_index),
            )
            if value is not None
        ),
        *((("Leniency (better minus worse letters)", leniency),) if leniency else ()),
    )
    caption = f"Agreement of {judge} with {rater.rater}"
    return Table(caption=caption, header=("Measure", "Value"), rows=rows, notes=notes.lines())


def _by_letter(rater: str, judge: str, letters: Iterable[LetterAgreement]) -> Table:
    notes = Notes()
    rows = tuple(
        (
            letter.letter,
            notes.rate(letter.recall, f"recall of {letter.letter}"),
            notes.rate(letter.precision, f"precision of {letter.letter}"),
        )
        for letter in letters
    )
    header = ("Letter", f"Recall (of {rater}'s)", f"Precision (of {judge}'s)")
    return Table(caption="Agreement on each letter", header=header, rows=rows, notes=notes.lines())


def _by_fact(rater: str, judge: str, facts: Iterable[FactAgreement]) -> Table:
    notes = Notes()
    rows = tuple(
        (
            fact.fact,
            f"{fact.n:,}",
            notes.rate(fact.observed, f"same answer to {fact.fact}"),
            notes.coefficient(fact.kappa, f"kappa of {fact.fact}"),
            _disagreements(fact),
        )
        for fact in facts
    )
    header = (
        "Fact",
        "Items",
        "Same answer",
        "Cohen's kappa",
        f"Most frequent differences ({rater} → {judge})",
    )
    return Table(
        caption="Agreement on facts", header=header, rows=rows, notes=notes.lines(), words=frozenset({4})
    )


def _disagreements(fact: FactAgreement) -> str:
    """Return the two most frequent pairs of different answers, with their counts."""
    pairs = [
        (n, f"{first} → {second}")
        for first, row in zip(fact.answers, fact.confusion, strict=True)
        for second, n in zip(fact.answers, row, strict=True)
        if n and first != second
    ]
    return ", ".join(f"{pair} ({n:,})" for n, pair in sorted(pairs, reverse=True)[:2]) or "none"


def _by_flag(rater: str, judge: str, flags: Iterable[FlagAgreement]) -> Table:
    notes = Notes()
    rows = tuple(
        (
            flag.flag,
            f"{flag.n_both:,}",
            f"{flag.n_rater_only:,}",
            f"{flag.n_judge_only:,}",
            f"{flag.n_neither:,}",
            notes.rate(flag.recall, f"recall of {flag.flag}"),
            notes.rate(flag.precision, f"precision of {flag.flag}"),
        )
        for flag in flags
    )
    header = ("Flag", "both", f"{rater} only", f"{judge} only", "neither", "Recall", "Precision")
    return Table(caption="Agreement on flags", header=header, rows=rows, notes=notes.lines())


def _by_candidate(rater: RaterAgreement, judge: str, best: str) -> Table:
    rows = tuple(
        (
            candidate.candidate,
            f"{candidate.n:,}",
            f"{candidate.n_best_by_rater:,}",
            f"{candidate.n_best_by_judge:,}",
        )
        for candidate in rater.candidates
    )
    header = ("Candidate", "Labelled items", f"{best} by {rater.rater}", f"{best} by {judge}")
    caption = "Best letters on the labelled items of each candidate"
    return Table(caption=caption, header=header, rows=rows)


def _ceiling(pairs: Sequence[RaterPair]) -> Table:
    is_ordered = any(pair.coefficients.kappa_linear.reason != NO_ORDER for pair in pairs)
    notes = Notes()
    rows = []
    for pair in pairs:
        name, coefficients = f"{pair.a} and {pair.b}", pair.coefficients
        rows.append(
            (
                name,
                f"{coefficients.n:,}",
                notes.rate(coefficients.observed, f"same letter of {name}"),
                notes.coefficient(coefficients.kappa, f"kappa of {name}"),
                *(
                    (notes.coefficient(coefficients.kappa_linear, f"weighted kappa of {name}"),)
                    if is_ordered
                    else ()
                ),
            )
        )
    header = (
        "Raters",
        "Items",
        "Same letter",
        "Cohen's kappa",
        *(("linearly weighted",) if is_ordered else ()),
    )
    caption = "Agreement between raters, on the items that both labelled"
    return Table(caption=caption, header=header, rows=tuple(rows), notes=notes.lines())
