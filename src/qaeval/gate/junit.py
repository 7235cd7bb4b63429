"""JUnit XML of a gate: one case for each rule, as Jenkins, GitLab and the others read it.

JUnit has no standard; the document keeps to what both common schemas allow, Jenkins' ``junit-10.xsd`` and the one of Apache
Ant. Intervals are properties of the suite: the cases of both schemas have none.
"""

from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from qaeval.gate.verdict import GateReport, RuleVerdict
from qaeval.gate.words import allowed, change, judge_line, level, name, plain

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
