"""Views of a gate: Markdown for a job's summary, the body of a pull-request comment, and JUnit XML.

The comment has a marker in its first line, by which it is found again and updated.

JUnit has no standard; the document keeps to what both common schemas allow, Jenkins' ``junit-10.xsd`` and that of Apache
Ant. Intervals are properties of the suite: the cases of both schemas have none.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import quote, urlsplit
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from qaeval.comparison.headline import verdict_sentence
from qaeval.comparison.markdown import overview_lines
from qaeval.comparison.overview import Overview
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
    sentences_of_rules,
    sequential_line,
    unmentioned,
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
"""First line, for readers in a hurry."""

_HEADER: Final = ("rule", "candidate", "baseline", "run", "change", "allowed", "verdict")


def to_markdown(report: GateReport) -> str:
    """Return a gate as GitHub-flavoured Markdown; the same report gives the same text."""
    lines = [f"## qaeval gate: {TITLES[report.outcome]}", "", *_headline(report)]
    if report.rules:
        lines += ["", *rule_table(report.rules), ""]
        lines += [f"- {safe(sentence)}" for _, sentence in sentences_of_rules(report.rules)]
    lines += ["", *(f"> {safe(note)}  " for note in report.notes), ""] if report.notes else [""]
    lines += [f"- {name}: {text}" for name, text in _basis(report)]
    return "\n".join(lines) + "\n"


def _headline(report: GateReport) -> list[str]:
    return [f"**{safe(report.headline)}**", *(["", safe(report.caution)] if report.caution else [])]


def rule_table(rules: Iterable[RuleVerdict]) -> tuple[str, ...]:
    """Return rules as the lines of a table."""
    return _row(_HEADER), _row(("---", "---", "--:", "--:", "--:", "---", "---")), *map(rule_row, rules)


def rule_row(rule: RuleVerdict) -> str:
    """Return a rule as a line of the table."""
    verdict = rule.verdict if rule.verdict == "pass" else f"**{rule.verdict}**"
    return _row(
        (
            safe(name(rule)),
            safe(rule.candidate),
            _unbroken(level(rule.baseline, rule.unit)),
            _unbroken(level(rule.current, rule.unit)),
            _unbroken(change(rule.change, rule.unit)),
            safe(allowed(rule)),
            verdict,
        )
    )


def _unbroken(numbers: str) -> str:
    """Allow a line break between a number and its interval, and nowhere else."""
    return safe(numbers).replace(" ", "\u00a0").replace("\u00a0[", " [")


def run_name(run: RunIdentity) -> str:
    """Return the name of a run with its date and commit, safe for Markdown."""
    details = [moment(run.created)] if run.created else []
    details += [f"commit {run.git_commit[:12]}"] if run.git_commit else []
    return safe(f"{run.name} ({', '.join(details)})" if details else run.name)


def _basis(report: GateReport) -> list[tuple[str, str]]:
    identity = report.run.identity
    basis = [("run", run_name(report.run))]
    if report.baseline is not None:
        basis.append(("baseline", run_name(report.baseline)))
    basis += [
        ("eval", safe(f"{identity.eval}, {identity.n_samples:,} samples")),
        ("judge", safe(judge_line(report))),
        *([("comparison", safe(verdict_sentence(report.verdict)))] if report.verdict else []),
        ("policy", safe(f"{report.policy} ({report.policy_digest[:12]})")),
        ("error rate", safe(report.multiplicity)),
    ]
    if report.sequential:
        basis.append(("sequential", safe(sequential_line(report.sequential))))
    return basis


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


MARKER: Final = "<!-- qaeval-gate -->"
"""First line of the body, invisible on the page; the comment is found by it."""

MAX_COMMENT: Final = 65_536
"""Characters that GitHub accepts."""
_MAX_SHOWN: Final = 30_000
_MAX_FOLDED: Final = 20_000
"""Characters of the visible and of the folded rules; the rest of `MAX_COMMENT` is for headline, notes and names."""
_MAX_NOTES: Final = 10


def to_comment(report: GateReport, link: str = "", screen: Overview | None = None) -> str:
    """Return a gate as the body of a comment, below the length that GitHub accepts.

    Rules that passed without a change that could be told from 0 are folded away, and so is the comparison of the run's candidates.

    Args:
        report: The gate.
        link: Address of the whole report, ``http`` or ``https``; empty: no link.
        screen: The first screen of the run's report; None: the comment has none.

    Raises:
        UsageError: The link is another kind of address.
    """
    shown = [rule for rule in report.rules if rule.verdict != "pass" or has_moved(rule)]
    quiet = [rule for rule in report.rules if rule not in shown]
    lines = [MARKER, f"### qaeval gate: {TITLES[report.outcome]}", "", *_headline(report), ""]
    lines += _shown(shown)
    lines += _folded(quiet)
    lines += [f"> {safe(note)}  " for note in report.notes[:_MAX_NOTES]]
    lines += ["", f"Judge: {safe(judge_line(report))}", ""]
    lines += [f"Comparison: {safe(verdict_sentence(report.verdict))}", ""] if report.verdict else []
    lines += _screen(screen) if screen else []
    lines += [_foot(report, link)]
    return "\n".join(lines) + "\n"


def _shown(rules: Sequence[RuleVerdict]) -> list[str]:
    if not rules:
        return []
    kept = _fitting([f"{rule_row(rule)}\n- {safe(rule.sentence)}" for rule in rules], _MAX_SHOWN)
    lines = [*rule_table(rules[:kept]), "", *(f"- {safe(rule.sentence)}" for rule in rules[:kept]), ""]
    return [*lines, *_omitted(len(rules) - kept)]


def _folded(rules: Sequence[RuleVerdict]) -> list[str]:
    if not rules:
        return []
    kept = _fitting([rule_row(rule) for rule in rules], _MAX_FOLDED)
    title = f"{plural(len(rules), 'rule')} passed without a change that could be told from 0"
    lines = ["<details>", f"<summary>{title}</summary>", "", *rule_table(rules[:kept]), ""]
    return [*lines, *_omitted(len(rules) - kept), "</details>", ""]


def _screen(screen: Overview) -> list[str]:
    lines = [unmentioned(line) for line in overview_lines(screen)]
    if _fitting(lines, _MAX_FOLDED) < len(lines):
        return []
    return [
        "<details>",
        "<summary>The run: candidates, judge and differences</summary>",
        "",
        *lines,
        "",
        "</details>",
        "",
    ]


def _fitting(texts: Sequence[str], limit: int) -> int:
    """Count how many texts from the first fit into ``limit`` characters."""
    used = 0
    for index, text in enumerate(texts):
        used += len(text) + 1
        if used > limit:
            return index
    return len(texts)


def _omitted(n: int) -> list[str]:
    return [f"{plural(n, 'more rule')} in the report.", ""] if n else []


def _foot(report: GateReport, link: str) -> str:
    against = f" against {run_name(report.baseline)}" if report.baseline else ""
    report_link = f"[Report]({_address(link)}) · " if link else ""
    return f"{report_link}{run_name(report.run)}{against} · policy {safe(report.policy)}"


def _address(link: str) -> str:
    if urlsplit(link).scheme not in {"http", "https"}:
        raise UsageError(f"link to the report: expected an address with http or https, got {link[:100]!r}")
    return quote(link, safe=":/?#[]@!$&'*+,;=%~")


_NO_VERDICT: Final = frozenset({"untrusted", "not comparable"})
"""Outcomes whose rules mean nothing."""
_TO_SECONDS: Final = len("2026-01-05T10:00:00")
"""The schema of Ant allows neither fractions nor an offset."""


def to_junit(report: GateReport) -> str:
    """Return a gate as JUnit XML; the same report gives the same text.

    A regression is a failure. An inconclusive rule is a failure of the type ``inconclusive`` where it stops the job, and skipped
    where the policy lets it through. Where the judge is not trusted or the runs are not comparable, every case is an error.
    """
    cases = [_case(report, rule) for rule in report.rules] or [_case_without_rules(report)]
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
        suite.set("timestamp", plain(report.run.created)[:_TO_SECONDS])
    properties = SubElement(suite, "properties")
    for key, value in _properties(report):
        SubElement(properties, "property", {"name": plain(key), "value": plain(value)})
    suite.extend(cases)
    cautions = [report.caution] if report.caution else []
    sentences = (report.headline, *cautions, *(rule.sentence for rule in report.rules), *report.notes)
    SubElement(suite, "system-out").text = "\n".join(map(plain, sentences))
    SubElement(suite, "system-err").text = ""
    indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(suites, encoding="unicode")}\n'


def _case(report: GateReport, rule: RuleVerdict) -> Element:
    case = _named(report, f"{name(rule)} of {rule.candidate}")
    sentence = plain(rule.sentence)
    if report.outcome in _NO_VERDICT:
        _end(case, "error", report.outcome, plain(report.headline), sentence)
    elif rule.verdict == "regression":
        _end(case, "failure", "regression", sentence, _evidence(rule))
    elif rule.verdict == "inconclusive" and report.exit_code:
        _end(case, "failure", "inconclusive", sentence, _evidence(rule))
    elif rule.verdict == "inconclusive":
        _end(case, "skipped", "inconclusive", sentence, _evidence(rule))
    return case


def _case_without_rules(report: GateReport) -> Element:
    """Return the case of a gate without rules: CI takes a document without cases for a green one."""
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
    if report.caution:
        yield "caution", report.caution
    yield "policy", f"{report.policy} {report.policy_digest}"
    yield "run", report.run.name
    if report.baseline:
        yield "baseline", report.baseline.name
    yield "judge", judge_line(report)
    if report.verdict:
        yield "comparison", verdict_sentence(report.verdict)
    yield "multiplicity", report.multiplicity
    for rule in report.rules:
        stem = f"{name(rule)}.{rule.candidate}"
        yield f"{stem}.verdict", rule.verdict
        yield f"{stem}.allowed", allowed(rule)
        for part, text in (
            ("baseline", rule.baseline and level(rule.baseline, rule.unit)),
            ("run", rule.current and level(rule.current, rule.unit)),
            ("change", rule.change and change(rule.change, rule.unit)),
        ):
            if text:
                yield f"{stem}.{part}", text
