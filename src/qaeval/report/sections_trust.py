"""Sections about trust: the judge against labels, and where everything came from."""

from collections.abc import Iterable, Mapping

from qaeval.report import numbers
from qaeval.report.document import Coefficients, FlagAgreement, LetterAgreement, RaterAgreement, Report
from qaeval.report.facts import ModelFacts, Plain
from qaeval.report.tables import Notes, Section, Table


def agreement(report: Report) -> Section:
    """The judge against every rater, and the raters against each other."""
    if not report.agreement:
        return Section(
            anchor="agreement",
            title="Judge agreement",
            paragraphs=(
                (
                    f"The judge {report.judge.facts.name} was not checked against labels: how far its letters can be trusted is "
                    f"not known."
                ),
            ),
        )
    parts = [
        Section(
            anchor=f"rater-{place}", title=one.rater, paragraphs=one.sentences, tables=_rater(one, report)
        )
        for place, one in enumerate(report.agreement, start=1)
    ]
    if report.raters:
        sentences = tuple(one.sentence for one in report.raters)
        parts.append(
            Section(anchor="ceiling", title="The ceiling", paragraphs=sentences, tables=(_ceiling(report),))
        )
    return Section(anchor="agreement", title="Judge agreement", parts=tuple(parts))


def _rater(one: RaterAgreement, report: Report) -> tuple[Table, ...]:
    if one.coefficients is None:
        return ()
    judge = report.judge.facts.name
    tables = [
        _confusion(one.rater, judge, one.coefficients, report.rubric.letters),
        _coefficients(one, one.coefficients, judge),
        _by_letter(one.rater, judge, one.letters),
    ]
    if one.flags:
        tables.append(_by_flag(one.rater, judge, one.flags))
    if one.candidates:
        tables.append(_by_candidate(one, judge, report.rubric.best))
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
        ("Items", f"{found.n:,} from {numbers.plural(found.n_chunks, 'chunk')}"),
        ("Same letter", notes.rate(found.observed, "same letter")),
        (f"Always answering {one.majority_letter}", numbers.percent(one.majority_baseline)),
        ("Cohen's kappa", notes.coefficient(found.kappa, "kappa")),
        ("linearly weighted", notes.coefficient(found.kappa_linear, "weighted kappa")),
        ("Largest kappa that these letter rates allow", numbers.decimal(found.kappa_max)),
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


def _ceiling(report: Report) -> Table:
    notes = Notes()
    rows = []
    for pair in report.raters:
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


def provenance(report: Report) -> Section:
    """Hashes, versions and what left the machines."""
    warnings = tuple(f"Warning: {text}" for text in report.run.warnings)
    return Section(
        anchor="provenance",
        title="Provenance",
        paragraphs=(data_left(report), *warnings),
        tables=(_eval(report), _models(report), _run(report)),
    )


def data_left(report: Report) -> str:
    """Say which hosts outside the user's network were sent chunks."""
    if not report.data_left:
        return "Data left the machines: nothing."
    return f"Data left the machines: chunks were sent to {', '.join(report.data_left)}."


def _eval(report: Report) -> Table:
    facts, rubric = report.eval, report.rubric
    return _facts(
        "Eval and rubric",
        {
            "eval": facts.name,
            "title": facts.title,
            "source": facts.source,
            "samples": facts.n_samples,
            "items per sample": facts.items_per_sample,
            "seed of the draw": facts.seed,
            "eval sha-256": facts.sha,
            "prompt sha-256": facts.prompt_sha,
            "sample set sha-256": facts.sample_set_digest,
            "rubric": rubric.name,
            "rubric sha-256": rubric.sha,
            **{f"letter {letter.name}": letter.meaning for letter in rubric.scale},
            **{f"flag {flag.name}": flag.meaning for flag in rubric.flags},
        },
    )


def _models(report: Report) -> Table:
    """Put all models side by side; a fact that none of them has is left out."""
    judge = report.judge.facts
    facts = [*(_model(one.facts) for one in report.candidates), _model(judge)]
    names = dict.fromkeys(name for one in facts for name in one)
    known = [name for name in names if any(one.get(name) not in {"", None} for one in facts)]
    rows = tuple((name, *(_value(one.get(name)) for one in facts)) for name in known)
    header = ("What", *(one.facts.name for one in report.candidates), f"{judge.name} (judge)")
    return Table(caption="Models", header=header, rows=rows, kind="text")


def _model(facts: ModelFacts) -> dict[str, Plain]:
    return {
        "kind": facts.kind,
        "what it is": facts.description,
        "Hugging Face id": facts.hf_id,
        "revision": facts.revision,
        "licence": facts.licence,
        "openness": facts.openness,
        "host": facts.host,
        "server": facts.server,
        "context length": facts.max_model_len,
        **facts.sampling,
        **facts.more,
    }


def _value(value: Plain) -> str:
    return "–" if value in {"", None} else str(value)


def _run(report: Report) -> Table:
    run = report.run
    return _facts(
        "Run",
        {
            "run": run.id,
            "started": run.started,
            "finished": run.finished,
            "sessions": run.n_sessions,
            "command": run.command,
            "qaeval": run.qaeval_version,
            "git commit": run.git_commit,
            "python": run.python,
            "platform": run.platform,
            "report format": report.format,
            **{f"time: {stage}": numbers.seconds(seconds) for stage, seconds in run.seconds.items()},
        },
    )


def _facts(caption: str, facts: Mapping[str, Plain]) -> Table:
    """List what is known; what is not is left out."""
    rows = tuple((name, str(value)) for name, value in facts.items() if value not in {"", None})
    return Table(caption=caption, header=("What", "Value"), rows=rows, kind="text")
