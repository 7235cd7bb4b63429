"""The section of a judge's certificate."""

from collections.abc import Iterator

from qaeval.agreement.messages import WEIGHTED
from qaeval.gate.certificate import JudgeCertificate
from qaeval.gate.trust import JudgeNumbers
from qaeval.report.numbers import listed, plural
from qaeval.report.tables import Notes, Section, Table


def certificate_section(certificate: JudgeCertificate) -> Section:
    """Return what a certificate shows: requirements, numbers, letters of labels and judge."""
    certified, numbers = certificate.certified, certificate.numbers
    letters = certificate.rubric.letters
    confusion = Table(
        caption="Items by the letter of the labels (rows) and of the judge (columns)",
        header=("", *letters),
        rows=tuple(
            (letter, *(f"{n:,}" for n in row)) for letter, row in zip(letters, numbers.confusion, strict=True)
        ),
        kind="crossed",
    )
    return Section(
        anchor="certificate",
        title=f"Certificate of {certified.judge} with {certified.rubric} on {certified.eval}",
        paragraphs=tuple(_paragraphs(certificate)),
        tables=(_numbers(numbers), confusion),
    )


def _paragraphs(certificate: JudgeCertificate) -> Iterator[str]:
    for requirement in certificate.verdict.requirements:
        yield f"{requirement[:1].upper()}{requirement[1:]}."
    raters = listed([f"{rater.rater} ({rater.kind}, {rater.n:,})" for rater in certificate.raters])
    yield f"Labels by {raters}."
    if certificate.numbers.is_weighted:
        yield WEIGHTED
    if proxies := certificate.numbers.n_by_kind.get("model", 0):
        yield f"{plural(proxies, 'label')} of models count, as the policy allows: agreement with a model is not agreement with people."
    if (audit := certificate.audit) is not None:
        yield f"Audit of {audit.created[:10]}: {audit.verdict}, {plural(audit.n_good, 'good item')}, {plural(len(audit.probes), 'probe')}."
    if certificate.n_ungraded:
        yield f"The judge gave no letter to {plural(certificate.n_ungraded, 'labelled item')}."


def _numbers(numbers: JudgeNumbers) -> Table:
    notes = Notes()
    rows = [
        ("kappa", notes.coefficient(numbers.kappa, "kappa")),
        ("Gwet's AC1", notes.coefficient(numbers.gwet_ac1, "AC1")),
        ("same letter", notes.rate(numbers.observed, "same letter")),
        *(
            (f"recall of {letter.letter}", notes.rate(letter.recall, f"recall of {letter.letter}"))
            for letter in numbers.letters
        ),
        ("recall below the best letter", notes.rate(numbers.lower_recall, "recall below the best letter")),
        *(
            (f"favours {pair.b} over {pair.a}", notes.difference(pair.error, f"{pair.b} over {pair.a}"))
            for pair in numbers.differential_errors
        ),
    ]
    return Table(
        caption=f"Judge against {plural(numbers.n_labels, 'label')} in {plural(numbers.n_chunks, 'chunk')}",
        header=("Measure", "Value"),
        rows=tuple(rows),
        notes=notes.lines(),
    )
