"""Markdown of a gate, for a job's summary on GitHub or GitLab."""

from collections.abc import Iterable, Sequence
from typing import Final

from qaeval.gate.verdict import GateReport, Outcome, RuleVerdict, Side
from qaeval.gate.words import allowed, change, judge_line, level, name, safe, sequential_line
from qaeval.report.numbers import moment

TITLES: Final[dict[Outcome, str]] = {
    "pass": "✅ passed",
    "regression": "❌ regression",
    "inconclusive": "⚠️ inconclusive",
    "untrusted": "⛔ judge not trusted",
    "not comparable": "⛔ not comparable",
}
"""What stands at the top, for readers in a hurry."""

_HEADER: Final = ("rule", "candidate", "baseline", "run", "change", "allowed", "verdict")


def to_markdown(report: GateReport) -> str:
    """Write a gate as GitHub-flavoured markdown; the same report gives the same text."""
    lines = [f"## qaeval gate: {TITLES[report.outcome]}", "", f"**{safe(report.headline)}**"]
    if report.rules:
        lines += ["", *rule_table(report.rules), "", *(f"- {safe(rule.sentence)}" for rule in report.rules)]
    lines += ["", *(f"> {safe(note)}  " for note in report.notes), ""] if report.notes else [""]
    lines += [f"- {what}: {text}" for what, text in _basis(report)]
    return "\n".join(lines) + "\n"


def rule_table(rules: Iterable[RuleVerdict]) -> tuple[str, ...]:
    """Write rules as the lines of a table."""
    return _row(_HEADER), _row(("---", "---", "--:", "--:", "--:", "---", "---")), *map(rule_row, rules)


def rule_row(rule: RuleVerdict) -> str:
    """Write a rule as a line of the table."""
    verdict = rule.verdict if rule.verdict == "pass" else f"**{rule.verdict}**"
    return _row(
        (
            safe(name(rule)),
            safe(rule.candidate),
            _tied(level(rule.baseline, rule.unit)),
            _tied(level(rule.current, rule.unit)),
            _tied(change(rule.change, rule.unit)),
            safe(allowed(rule)),
            verdict,
        )
    )


def _tied(numbers: str) -> str:
    """Let a number and its interval be parted at the end of a line, and neither of them in itself."""
    return safe(numbers).replace(" ", "\u00a0").replace("\u00a0[", " [")


def side(one: Side) -> str:
    """Name a run with its day and commit, safe for markdown."""
    more = [moment(one.created)] if one.created else []
    more += [f"commit {one.git_commit[:12]}"] if one.git_commit else []
    return safe(f"{one.name} ({', '.join(more)})" if more else one.name)


def _basis(report: GateReport) -> list[tuple[str, str]]:
    identity = report.run.identity
    found = [("run", side(report.run))]
    if report.baseline is not None:
        found.append(("baseline", side(report.baseline)))
    found += [
        ("eval", safe(f"{identity.eval}, {identity.n_samples:,} samples")),
        ("judge", safe(judge_line(report))),
        ("policy", safe(f"{report.policy} ({report.policy_digest[:12]})")),
        ("error rate", safe(report.multiplicity)),
    ]
    if report.sequential:
        found.append(("sequential", safe(sequential_line(report.sequential))))
    return found


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
