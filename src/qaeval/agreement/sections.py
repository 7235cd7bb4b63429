"""Sections about trust: the judge against labels, and the raters against each other."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from qaeval.agreement.model import (
    AgreementReport,
    Coefficients,
    FlagAgreement,
    LetterAgreement,
    RaterAgreement,
    RaterPair,
    Several,
)
from qaeval.report import numbers
from qaeval.report.tables import Notes, Section, Table


def write_agreement(found: AgreementReport) -> tuple[Section, ...]:
    """Turn what ``qaeval agreement`` found into sections: the judge, groups, the raters."""
    scale = f"Scale {' > '.join(found.letters)}, best first."
    if found.n_without_cluster:
        scale += " Nothing says which items belong together, so the intervals take them for independent and may be too narrow."
    parts = against_raters(found.judge, found.agreement, found.letters)
    sections = [
        Section(
            anchor=one.anchor,
            title=f"{found.judge} against {one.title}",
            paragraphs=(*one.paragraphs, scale),
            tables=one.tables,
        )
        for one in parts
    ]
    if found.groups:
        sections.append(_by_group(found))
    raters = ceiling(found.raters)
    if not parts:
        raters = tuple(
            replace(one, title="The raters with each other", paragraphs=(*one.paragraphs, scale))
            for one in raters
        )
    sections += raters
    if found.several is not None:
        sections.append(_several(found.several))
    return tuple(sections)


def _by_group(found: AgreementReport) -> Section:
    notes, rows = Notes(), []
    for one in found.groups:
        numbers_of = one.agreement.coefficients
        if numbers_of is None:
            continue
        where = f"{one.group}, {one.agreement.rater}"
        lower = numbers_of.confusion[1:]
        rows.append(
            (
                one.group,
                one.agreement.rater,
                f"{numbers_of.n:,}",
                notes.rate(numbers_of.observed, f"same letter of {where}"),
                notes.coefficient(numbers_of.kappa, f"kappa of {where}"),
                f"{sum(row[0] for row in lower):,} of {sum(map(sum, lower)):,}",
            )
        )
    best = found.letters[0]
    header = (found.by, "rater", "items", "same letter", "kappa", f"{best} to items the rater graded lower")
    table = Table(
        caption=f"Agreement of {found.judge} by {found.by}",
        header=header,
        rows=tuple(rows),
        notes=notes.lines(),
        words=frozenset({1}),
    )
    return Section(anchor="groups", title=f"By {found.by}", tables=(table,))


def _several(found: Several) -> Section:
    notes = Notes()
    rows = (
        ("Krippendorff's alpha, nominal", notes.coefficient(found.alpha, "alpha")),
        ("Krippendorff's alpha, ordinal", notes.coefficient(found.alpha_ordinal, "ordinal alpha")),
        ("Fleiss' kappa", notes.coefficient(found.fleiss, "Fleiss' kappa")),
    )
    caption = (
        f"{len(found.raters)} raters on {numbers.plural(found.n_items, 'item')} with letters of two or more"
    )
    table = Table(caption=caption, header=("Measure", "Value"), rows=rows, notes=notes.lines())
    return Section(anchor="several", title="All raters together", tables=(table,))


def against_raters(
    judge: str, agreement: Iterable[RaterAgreement], letters: tuple[str, ...]
) -> tuple[Section, ...]:
    """Return a section for each rater."""
    return tuple(
        Section(
            anchor=f"rater-{place}",
            title=one.rater,
            paragraphs=one.sentences,
            tables=_rater(one, judge, letters),
        )
        for place, one in enumerate(agreement, start=1)
    )


def ceiling(pairs: Sequence[RaterPair]) -> tuple[Section, ...]:
    """Return the section of the raters with each other; none without pairs."""
    if not pairs:
        return ()
    sentences = tuple(one.sentence for one in pairs)
    return (Section(anchor="ceiling", title="The ceiling", paragraphs=sentences, tables=(_ceiling(pairs),)),)


def _rater(one: RaterAgreement, judge: str, letters: tuple[str, ...]) -> tuple[Table, ...]:
    if one.coefficients is None:
        return ()
    tables = [
        _confusion(one.rater, judge, one.coefficients, letters),
        _coefficients(one, one.coefficients, judge),
        _by_letter(one.rater, judge, one.letters),
    ]
    if one.flags:
        tables.append(_by_flag(one.rater, judge, one.flags))
    if one.candidates:
        tables.append(_by_candidate(one, judge, letters[0]))
    return tuple(tables)


def _confusion(rater: str, judge: str, found: Coefficients, letters: tuple[str, ...]) -> Table:
    rows = [
        (f"{rater} {letter}", *(f"{n:,}" for n in counts), f"{sum(counts):,}")
        for letter, counts in zip(letters, found.confusion, strict=True)
    ]
    totals = [sum(column) for column in zip(*found.confusion, strict=True)]
    rows.append(("total", *(f"{n:,}" for n in totals), f"{sum(totals):,}"))
    header = (f"{rater} ↓ · {judge} →", *(f"{judge} {letter}" for letter in letters), "total")
    return Table(
        caption=f"Letters of {rater} (rows) and {judge} (columns); the marked diagonal is agreement",
        header=header,
        rows=tuple(rows),
        kind="confusion",
    )


def _coefficients(one: RaterAgreement, found: Coefficients, judge: str) -> Table:
    notes = Notes()
    leniency = "" if one.leniency is None else notes.difference(one.leniency, "leniency")
    rows = (
        (
            "Items",
            f"{found.n:,}"
            + (f" from {numbers.plural(found.n_chunks, 'chunk')}" if found.n_chunks < found.n else ""),
        ),
        ("Same letter", notes.rate(found.observed, "same letter")),
        (f"Always answering {one.majority_letter}", numbers.percent(one.majority_baseline)),
        ("Cohen's kappa", notes.coefficient(found.kappa, "kappa")),
        ("Cohen's kappa, linearly weighted", notes.coefficient(found.kappa_linear, "weighted kappa")),
        (
            "Cohen's kappa, quadratically weighted",
            notes.coefficient(found.kappa_quadratic, "quadratic kappa"),
        ),
        ("Largest kappa that these letter rates allow", numbers.decimal(found.kappa_max)),
        ("Largest agreement that these letter rates allow", numbers.percent(found.observed_max)),
        ("Krippendorff's alpha, nominal", notes.coefficient(found.alpha, "alpha")),
        ("Krippendorff's alpha, ordinal", notes.coefficient(found.alpha_ordinal, "ordinal alpha")),
        ("Scott's pi", notes.coefficient(found.scott_pi, "pi")),
        ("Brennan-Prediger (PABAK)", notes.coefficient(found.brennan_prediger, "Brennan-Prediger")),
        ("Gwet's AC1; flatters one-sided letters", notes.coefficient(found.gwet_ac1, "AC1")),
        ("Gwet's AC2, quadratic", notes.coefficient(found.gwet_ac2, "AC2")),
        ("Prevalence index of the best letter", numbers.decimal(found.prevalence_index)),
        ("Bias index of the best letter", numbers.decimal(found.bias_index)),
        ("Leniency (better minus worse letters)", leniency),
    )
    caption = f"Agreement of {judge} with {one.rater}"
    return Table(caption=caption, header=("Measure", "Value"), rows=rows, notes=notes.lines())


def _by_letter(rater: str, judge: str, letters: Iterable[LetterAgreement]) -> Table:
    notes = Notes()
    rows = tuple(
        (
            one.letter,
            notes.rate(one.recall, f"recall of {one.letter}"),
            notes.rate(one.precision, f"precision of {one.letter}"),
        )
        for one in letters
    )
    header = ("Letter", f"Recall (of {rater}'s)", f"Precision (of {judge}'s)")
    return Table(caption="Agreement on each letter", header=header, rows=rows, notes=notes.lines())


def _by_flag(rater: str, judge: str, flags: Iterable[FlagAgreement]) -> Table:
    notes = Notes()
    rows = tuple(
        (
            one.flag,
            f"{one.n_both:,}",
            f"{one.n_rater_only:,}",
            f"{one.n_judge_only:,}",
            f"{one.n_neither:,}",
            notes.rate(one.recall, f"recall of {one.flag}"),
            notes.rate(one.precision, f"precision of {one.flag}"),
        )
        for one in flags
    )
    header = ("Flag", "both", f"{rater} only", f"{judge} only", "neither", "Recall", "Precision")
    return Table(caption="Agreement on flags", header=header, rows=rows, notes=notes.lines())


def _by_candidate(one: RaterAgreement, judge: str, best: str) -> Table:
    rows = tuple(
        (own.candidate, f"{own.n:,}", f"{own.n_best_by_rater:,}", f"{own.n_best_by_judge:,}")
        for own in one.candidates
    )
    header = ("Candidate", "Labelled items", f"{best} by {one.rater}", f"{best} by {judge}")
    caption = "Labelled items of each candidate: does the judge favour one?"
    return Table(caption=caption, header=header, rows=rows)


def _ceiling(pairs: Sequence[RaterPair]) -> Table:
    notes = Notes()
    rows = []
    for pair in pairs:
        name, found = f"{pair.a} and {pair.b}", pair.coefficients
        rows.append(
            (
                name,
                f"{found.n:,}",
                notes.rate(found.observed, f"same letter of {name}"),
                notes.coefficient(found.kappa, f"kappa of {name}"),
                notes.coefficient(found.kappa_linear, f"weighted kappa of {name}"),
            )
        )
    header = ("Raters", "Items", "Same letter", "Cohen's kappa", "linearly weighted")
    caption = "Raters with each other, on the items that both labelled"
    return Table(caption=caption, header=header, rows=tuple(rows), notes=notes.lines())
