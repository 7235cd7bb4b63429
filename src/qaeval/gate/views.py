"""Markdown of a gate, for a job's summary on GitHub or GitLab.

The body of one comment on a pull request: found again by its marker and brought up to date, never repeated.

JUnit XML of a gate: one case for each rule, as Jenkins, GitLab and the others read it.

JUnit has no standard; the document keeps to what both common schemas allow, Jenkins' ``junit-10.xsd`` and the one of Apache
Ant. Intervals are properties of the suite: the cases of both schemas have none.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import quote, urlsplit
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from qaeval.errors import UsageError
from qaeval.gate.messages import (
    allowed,
    change,
    has_moved,
    judge_line,
    level,
    name,
    plain,
    safe,
    sequential_line,
)
from qaeval.gate.model import GateReport, Outcome, RuleVerdict, RunIdentity
from qaeval.report.numbers import moment, plural

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


def side(one: RunIdentity) -> str:
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


MARKER: Final = "<!-- qaeval-gate -->"
"""The first line of the body; nobody sees it, and the comment is found by it."""

MOST: Final = 65_536
"""Characters that GitHub takes."""
_SHOWN: Final = 30_000
_FOLDED: Final = 20_000
"""Characters of what is shown and of what is folded; the rest of `MOST` is for what surrounds them."""


def to_comment(report: GateReport, link: str = "") -> str:
    """Write a gate as the body of a comment, below the length that GitHub takes.

    Rules that passed and whose quantity did not move, as far as can be told, are folded away.

    Args:
        report: The gate.
        link: Where the whole report can be read; ``http`` or ``https``.

    Raises:
        UsageError: the link is another kind of address.
    """
    shown = [rule for rule in report.rules if rule.verdict != "pass" or has_moved(rule)]
    quiet = [rule for rule in report.rules if rule not in shown]
    lines = [MARKER, f"### qaeval gate: {TITLES[report.outcome]}", "", f"**{safe(report.headline)}**", ""]
    lines += _shown(shown)
    lines += _folded(quiet)
    lines += [f"> {safe(note)}  " for note in report.notes[:10]]
    lines += ["", f"Judge: {safe(judge_line(report))}", "", _foot(report, link)]
    return "\n".join(lines) + "\n"


def _shown(rules: Sequence[RuleVerdict]) -> list[str]:
    if not rules:
        return []
    kept = _fitting([f"{rule_row(rule)}\n- {safe(rule.sentence)}" for rule in rules], _SHOWN)
    lines = [*rule_table(rules[:kept]), "", *(f"- {safe(rule.sentence)}" for rule in rules[:kept]), ""]
    return [*lines, *_left_out(len(rules) - kept)]


def _folded(rules: Sequence[RuleVerdict]) -> list[str]:
    if not rules:
        return []
    kept = _fitting([rule_row(rule) for rule in rules], _FOLDED)
    title = f"{plural(len(rules), 'rule')} passed without a change that could be told from 0"
    lines = ["<details>", f"<summary>{title}</summary>", "", *rule_table(rules[:kept]), ""]
    return [*lines, *_left_out(len(rules) - kept), "</details>", ""]


def _fitting(texts: Sequence[str], most: int) -> int:
    """Count how many texts from the first fit into ``most`` characters."""
    used = 0
    for place, text in enumerate(texts):
        used += len(text) + 1
        if used > most:
            return place
    return len(texts)


def _left_out(n: int) -> list[str]:
    return [f"{plural(n, 'more rule')} in the report.", ""] if n else []


def _foot(report: GateReport, link: str) -> str:
    against = f" against {side(report.baseline)}" if report.baseline else ""
    where = f"[Report]({_address(link)}) · " if link else ""
    return f"{where}{side(report.run)}{against} · policy {safe(report.policy)}"


def _address(link: str) -> str:
    if urlsplit(link).scheme not in {"http", "https"}:
        raise UsageError(f"link to the report: expected an address with http or https, got {link[:100]!r}")
    return quote(link, safe=":/?#[]@!$&'*+,;=%~")


_BROKEN: Final = frozenset({"untrusted", "not comparable"})
"""Outcomes of a gate whose rules say nothing."""
_WHOLE_SECONDS: Final = len("2026-01-05T10:00:00")


def to_junit(report: GateReport) -> str:
    """Write a gate as JUnit XML; the same report gives the same text.

    A regression is a failure. An inconclusive rule is a failure of the type ``inconclusive`` where it stops the job, and skipped
    where the policy lets it through. Where the judge is not trusted or the runs are not comparable, every case is an error.
    """
    cases = [_case(report, rule) for rule in report.rules] or [_only_case(report)]
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
    }
    suites = Element("testsuites")
    suite = SubElement(
        suites,
        "testsuite",
        {
            "name": plain(f"qaeval gate {report.run.identity.eval}"),
            "package": "qaeval",
            "id": "0",
            "hostname": "localhost",
            "time": "0",
            **{kind: str(n) for kind, n in counts.items()},
            "skipped": str(sum(case.find("skipped") is not None for case in cases)),
        },
    )
    if report.run.created:
        suite.set("timestamp", plain(report.run.created)[:_WHOLE_SECONDS])
    properties = SubElement(suite, "properties")
    for key, value in _properties(report):
        SubElement(properties, "property", {"name": plain(key), "value": plain(value)})
    suite.extend(cases)
    said = (report.headline, *(rule.sentence for rule in report.rules), *report.notes)
    SubElement(suite, "system-out").text = "\n".join(map(plain, said))
    SubElement(suite, "system-err").text = ""
    indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(suites, encoding="unicode")}\n'


def _case(report: GateReport, rule: RuleVerdict) -> Element:
    case = _named(report, f"{name(rule)} of {rule.candidate}")
    sentence = plain(rule.sentence)
    if report.outcome in _BROKEN:
        _end(case, "error", report.outcome, plain(report.headline), sentence)
    elif rule.verdict == "regression":
        _end(case, "failure", "regression", sentence, _evidence(rule))
    elif rule.verdict == "inconclusive" and report.exit_code:
        _end(case, "failure", "inconclusive", sentence, _evidence(rule))
    elif rule.verdict == "inconclusive":
        _end(case, "skipped", "inconclusive", sentence, _evidence(rule))
    return case


def _only_case(report: GateReport) -> Element:
    """Stand for a gate that came to no rule: a document without cases would be taken for a green one."""
    case = _named(report, "gate")
    _end(case, "error", report.outcome, plain(report.headline), " ".join(map(plain, report.notes)))
    return case


def _named(report: GateReport, title: str) -> Element:
    classname = plain(f"qaeval.{report.run.identity.eval}")
    return Element("testcase", {"classname": classname, "name": plain(title), "time": "0"})


def _end(case: Element, kind: str, type_: str, message: str, text: str) -> None:
    SubElement(case, kind, {"type": type_, "message": message}).text = text


def _evidence(rule: RuleVerdict) -> str:
    against = f"baseline {level(rule.baseline, rule.unit)}\n" if rule.baseline else ""
    moved = f"change {change(rule.change, rule.unit)}\n" if rule.change else ""
    return f"{against}run {level(rule.current, rule.unit)}\n{moved}allowed: {allowed(rule)}"


def _properties(report: GateReport) -> Iterator[tuple[str, str]]:
    yield "outcome", report.outcome
    yield "exit_code", str(report.exit_code)
    yield "policy", f"{report.policy} {report.policy_digest}"
    yield "run", report.run.name
    if report.baseline:
        yield "baseline", report.baseline.name
    yield "judge", judge_line(report)
    yield "multiplicity", report.multiplicity
    for rule in report.rules:
        stem = f"{name(rule)}.{rule.candidate}"
        yield f"{stem}.verdict", rule.verdict
        yield f"{stem}.allowed", allowed(rule)
        for what, text in (
            ("baseline", rule.baseline and level(rule.baseline, rule.unit)),
            ("run", rule.current and level(rule.current, rule.unit)),
            ("change", rule.change and change(rule.change, rule.unit)),
        ):
            if text:
                yield f"{stem}.{what}", text
