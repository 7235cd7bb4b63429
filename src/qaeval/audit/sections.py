"""Sections of an audit, for terminal, page and Markdown."""

from collections.abc import Iterator
from typing import Final

from qaeval.audit.messages import detail, effect, tolerance
from qaeval.audit.model import Audit, GoodSource, Stability
from qaeval.report import numbers
from qaeval.report.tables import Notes, Section, Table

_SOURCES: Final[dict[GoodSource, str]] = {
    "labels": "labelled with the best letter",
    "expected answers": "expected answers of the eval",
    "statements": "statements that are quoted from its chunks",
}


def audit_title(audit: Audit) -> str:
    """Return the title: judge, rubric and eval."""
    request = audit.request
    return f"Audit of {request.judge} with {request.rubric} on {request.eval}"


def audit_verdict(audit: Audit) -> str:
    """Return the verdict in one line."""
    failed = audit.failed()
    if audit.verdict == "not trusted":
        return f"Not trusted: {numbers.listed(failed)} {'fails' if len(failed) == 1 else 'fail'}."
    if audit.verdict == "trusted so far":
        return "Trusted so far: no probe fails. An audit shows no agreement with people; labels do (`qaeval agreement`)."
    return "Not enough data: no probe fails, and what is required is not shown."


def audit_basis(audit: Audit) -> str:
    """Say what was asked of what."""
    raters = f" by {numbers.listed(audit.raters)}" if audit.raters else ""
    about = {**_SOURCES, "labels": f"{_SOURCES['labels']}{raters}"}
    sources = numbers.listed([f"{n:,} {about[source]}" for source, n in audit.good_sources.items()])
    return (
        f"{numbers.plural(audit.n_good, 'good item')} from {numbers.plural(audit.n_chunks, 'chunk')} ({sources}); "
        f"{numbers.plural(audit.n_requests, 'request')}, {audit.n_failed:,} without a letter; seed {audit.request.seed}"
        f"{_checked(audit)}"
    )


def _checked(audit: Audit) -> str:
    """Say what people made of the planted items; empty where nobody labelled any."""
    if not audit.n_checked:
        return ""
    return f"; {audit.n_checked:,} planted items checked by {numbers.listed(audit.checked_by)}, {audit.n_refuted:,} refuted and left out"


def write_audit_sections(audit: Audit) -> tuple[Section, ...]:
    """Return the sections: verdict, probes, defects, harmless changes, stability."""
    return tuple(_sections(audit))


def _sections(audit: Audit) -> Iterator[Section]:
    yield Section(
        anchor="verdict",
        title=audit_title(audit),
        paragraphs=(audit_verdict(audit), audit_basis(audit), *audit.reasons),
    )
    yield _probes(audit)
    yield _kinds(audit)
    if audit.stability is not None:
        yield _stability(audit)


def _probes(audit: Audit) -> Section:
    rows = tuple(
        (probe.probe, probe.verdict, effect(probe), tolerance(probe))
        for probe in audit.probes
        if probe.verdict != "not applicable"
    )
    skipped: dict[str, list[str]] = {}
    for probe in audit.probes:
        if probe.verdict == "not applicable":
            skipped.setdefault(probe.sentence, []).append(probe.probe)
    notes = [f"{sentence.removesuffix('.')}: {numbers.listed(names)}." for sentence, names in skipped.items()]
    notes += [
        f"{probe.probe}: "
        + "; ".join(f"{name} {detail(probe, measure)}" for name, measure in probe.details.items())
        + "."
        for probe in audit.probes
        if probe.details
    ]
    notes += [
        f"{probe.probe}: {probe.sentence}"
        for probe in audit.probes
        if probe.effect is None and probe.verdict != "not applicable"
    ]
    notes += [
        f"{probe.probe}: {probe.n_failed:,} requests gave no letter."
        for probe in audit.probes
        if probe.n_failed
    ]
    table = Table(
        caption="Probes: effect with its 95 % interval by chunk, and what passes",
        header=("probe", "verdict", "effect", "passes"),
        rows=rows,
        notes=tuple(notes),
        words=frozenset({1, 3}),
    )
    return Section(anchor="probes", title="Probes", tables=(table,))


def _kinds(audit: Audit) -> Section:
    tables = []
    for is_defect, caption in (
        (True, "Planted defects: how often the letter is lower than that of the original"),
        (False, "Harmless changes: how often the letter is lower than that of the original"),
    ):
        notes = Notes()
        rows = tuple(
            (
                kind.kind,
                kind.verdict,
                f"{kind.n:,}",
                notes.rate(kind.lowered, kind.kind),
                numbers.percent(kind.worst.value),
                *(() if kind.flagged is None else (numbers.percent(kind.flagged.value),)),
            )
            for kind in audit.kinds
            if kind.is_defect is is_defect and kind.n
        )
        if not rows:
            continue
        flagged = any(kind.flagged is not None for kind in audit.kinds)
        missing = [kind.kind for kind in audit.kinds if kind.is_defect is is_defect and not kind.n]
        ungraded = [
            f"{kind.kind} {kind.n_ungraded:,}"
            for kind in audit.kinds
            if kind.is_defect is is_defect and kind.n_ungraded
        ]
        without = (f"Without a letter, or beside an original without one: {numbers.listed(ungraded)}.",)
        lacking = (f"No good item can have: {numbers.listed(missing)}.",) if missing else ()
        header = (
            "kind",
            "verdict",
            "n",
            "lowered",
            "worst letter",
            *(("flagged",) if flagged else ()),
        )
        tables.append(
            Table(
                caption=caption,
                header=header,
                rows=rows,
                notes=(*notes.lines(), *(without if ungraded else ()), *lacking),
                words=frozenset({1}),
            )
        )
    refusal = "Of an honest refusal, which is the answer to another question than the original's, the worst letter counts."
    return Section(
        anchor="kinds", title="Defects and harmless changes", paragraphs=(refusal,), tables=tuple(tables)
    )


def _stability(audit: Audit) -> Section:
    stability = audit.stability
    assert stability is not None  # noqa: S101 - the caller has looked
    notes = Notes()
    rows = tuple(
        (each.setting, notes.difference(each.difference, each.setting)) for each in stability.separations
    )
    tables = [
        Table(
            caption="Mean score of good items minus that of the same items with a defect",
            header=("setting", "difference"),
            rows=rows,
            notes=notes.lines(),
        )
    ]
    if stability.components:
        tables.append(
            Table(
                caption="Where the spread of the scores comes from",
                header=("source", "share of the variance"),
                rows=tuple((part.source, numbers.rate(part.share)) for part in stability.components),
            )
        )
    signs = {
        True: "The difference keeps its sign in every repeat and wording",
        False: "The difference does not have one sign in every repeat and wording",
        None: "Whether the difference keeps its sign is not known",
    }[stability.keeps_sign]
    return Section(
        anchor="stability",
        title="Stability",
        paragraphs=(f"{signs}{_span(stability)}.",),
        tables=tuple(tables),
    )


def _span(stability: Stability) -> str:
    if stability.low is None:
        return ""
    low, high = numbers.points(stability.low), numbers.points(stability.high)
    return f": {low} points" if low == high else f", from {low} to {high} points"
