"""Terminal output of `qaeval gate` and `qaeval baseline`."""

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape

from qaeval.cli.tables import print_table
from qaeval.comparison.headline import verdict_sentence
from qaeval.gate.baseline import ListedBaseline, Pointer
from qaeval.gate.certificate import HOURS_PER_DAY, age_hours
from qaeval.gate.evidence import CandidateEvidence, Evidence
from qaeval.gate.messages import (
    allowed,
    change,
    judge_line,
    level,
    plain,
    sentences_of_rules,
    sequential_line,
)
from qaeval.gate.model import GateReport, RuleVerdict
from qaeval.report.measure import Measure
from qaeval.report.numbers import age, moment, percent, plural

_MARKS: Final = {"pass": " ", "regression": "!", "inconclusive": "?"}
"""Mark before a rule's sentence."""


def print_gate(report: GateReport) -> None:
    """Print the headline, the rules, and the runs, judge and policy behind them."""
    console = Console(highlight=False)
    soft = not console.is_terminal
    console.print(f"[bold]{_safe(report.headline)}[/bold]", soft_wrap=soft)
    if report.caution:
        console.print(_safe(report.caution), soft_wrap=soft)
    names = list(dict.fromkeys(rule.candidate for rule in report.rules))
    for name in names:
        rows = [_row(rule) for rule in report.rules if rule.candidate == name]
        console.print(f"\n[bold]{_safe(name)}[/bold]" if len(names) > 1 else "", soft_wrap=soft)
        print_table(
            console, ("rule", "baseline", "run", "change, or limit", "verdict"), rows, unbroken=("verdict",)
        )
    if report.rules:
        console.print()
    for verdict, sentence in sentences_of_rules(report.rules):
        console.print(f"{_MARKS[verdict]} {_safe(sentence)}", soft_wrap=soft)
    for note in report.notes:
        console.print(f"! {_safe(note)}", soft_wrap=soft)
    console.print()
    for text in (*_basis(report), report.multiplicity):
        console.print(_safe(text), soft_wrap=soft)


def _row(rule: RuleVerdict) -> tuple[str, ...]:
    moved = allowed(rule) if rule.limit is not None else _moved(rule)
    return (
        _name(rule),
        level(_without_interval(rule.baseline), rule.unit),
        level(_without_interval(rule.current), rule.unit),
        moved,
        rule.verdict,
    )


def _name(rule: RuleVerdict) -> str:
    """Return a rule's id without the candidate, which heads the table, and the kind of limit, which has a column."""
    name = rule.id.removesuffix(f"@{rule.candidate}")
    return plain(name.replace(".at_least", "").replace(".at_most", "") if rule.limit is not None else name)


def _moved(rule: RuleVerdict) -> str:
    """Format a change; with a unit, its interval is in the sentence only: the table has 80 columns."""
    if rule.unit:
        return change(_without_interval(rule.change), rule.unit)
    return change(rule.change, rule.unit).replace(" points", "")


def _without_interval(measure: Measure | None) -> Measure | None:
    return None if measure is None else measure.model_copy(update={"low": None, "high": None})


def _basis(report: GateReport) -> Sequence[str]:
    against = ""
    if report.baseline is not None:
        hours = age_hours(report.baseline.created, report.run.created)
        before = f", {age(hours)} before the run" if hours is not None and hours > 0 else ""
        when = f" ({moment(report.baseline.created)}{before})" if report.baseline.created else ""
        against = f" against {report.baseline.name}{when}"
    identity = report.run.identity
    return (
        f"{report.run.name}{against}, policy {report.policy}; {identity.eval}, {plural(identity.n_samples, 'sample')}.",
        f"Graded by {judge_line(report)}.",
        *([f"Comparison: {verdict_sentence(report.verdict)}"] if report.verdict else []),
        *_sequential(report),
    )


def _sequential(report: GateReport) -> Sequence[str]:
    return [f"Sequential: {sequential_line(report.sequential)}"] if report.sequential else []


def baseline_rows(baselines: Sequence[ListedBaseline], today: str) -> list[dict[str, object]]:
    """Describe baselines, one mapping each."""
    return [_description(baseline, today) for baseline in baselines]


def _description(baseline: ListedBaseline, today: str) -> dict[str, object]:
    row: dict[str, object] = {"file": str(baseline.path), "problem": baseline.problem}
    if isinstance(baseline.content, Pointer):
        return {**row, "run": baseline.content.run}
    if isinstance(baseline.content, Evidence):
        source = baseline.content.source
        hours = age_hours(source.created, today)
        return {
            **row,
            "eval": source.identity.eval,
            "candidates": [candidate.name for candidate in baseline.content.candidates],
            "samples": source.identity.n_samples,
            "judge": source.identity.judge,
            "created": source.created,
            "age_days": None if hours is None else int(hours // HOURS_PER_DAY),
            "age_hours": None if hours is None else round(hours, 1),
        }
    return row


def print_baselines(rows: Sequence[Mapping[str, object]]) -> None:
    """Print baselines as a table."""
    console = Console(highlight=False)
    lines = []
    for row in rows:
        eval_name = row.get("eval") or (f"pointer to {row['run']}" if "run" in row else "cannot be read")
        names = row.get("candidates", [])
        candidates = ", ".join(map(str, names)) if isinstance(names, list) else ""
        cells = (str(row["file"]), str(eval_name), candidates, str(row.get("judge", "")))
        lines.append((*map(plain, cells), _age(row.get("age_hours"))))
    print_table(console, ("file", "eval", "candidates", "judge", "age"), lines)
    for row in rows:
        if row["problem"]:
            console.print(f"! {_safe(str(row['problem']))}", soft_wrap=not console.is_terminal)


def print_baseline(address: str, evidence: Evidence, today: str) -> None:
    """Print the candidates of a baseline, and eval, rubric, judge and samples."""
    console = Console(highlight=False)
    source = evidence.source
    identity = source.identity
    when = [moment(source.created)] if source.created else []
    title = ", ".join([f"{address}: {source.name}", *when, _age(age_hours(source.created, today))])
    console.print(f"[bold]{_safe(title)}[/bold]", soft_wrap=True)
    rows = [_candidate_row(candidate) for candidate in evidence.candidates]
    print_table(
        console, ("candidate", f"usable {evidence.scale[0]}", "items", "failed", "without a letter"), rows
    )
    hashes = [
        ("eval", identity.eval, identity.eval_digest),
        ("rubric", identity.rubric, identity.rubric_digest),
        ("judge", identity.judge, identity.judge_digest),
        ("samples", f"{identity.n_samples:,}", identity.samples_digest),
    ]
    console.print()
    print_table(console, ("", "", "hash"), [(part, plain(name), sha[:12]) for part, name, sha in hashes])
    commit = f" at commit {source.git_commit[:12]}" if source.git_commit else ""
    console.print(f"\n{_safe(f'Made with qaeval {source.qaeval_version}{commit}.')}", soft_wrap=True)


def _candidate_row(candidate: CandidateEvidence) -> tuple[str, ...]:
    n, n_delivered = int(candidate.requested.sum()), int(candidate.delivered.sum())
    usable = percent(int(candidate.usable.sum()) / n) if n else "–"
    n_ungraded = n_delivered - int(candidate.graded.sum())
    return (plain(candidate.name), usable, f"{n:,}", f"{n - n_delivered:,}", f"{n_ungraded:,}")


def _age(hours: object) -> str:
    return age(hours) if isinstance(hours, float) else "age unknown"


def _safe(text: str) -> str:
    return escape(plain(text))
