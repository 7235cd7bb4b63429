"""JUnit XML of a gate: valid by the schema, and readable by other tools."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import junitparser
import pytest

from gate_builders import EVERY, HOSTILE, INCONCLUSIVE, NOT_COMPARABLE, REGRESSION, TOLERATED, gate, rule
from qaeval.gate.model import GateReport
from qaeval.gate.views import to_junit


@pytest.fixture(scope="module")
def schema() -> Any:
    import xmlschema  # noqa: PLC0415 - takes 0.3 s, needed only here

    return xmlschema.XMLSchema(Path(__file__).parent / "data" / "junit-10.xsd")


def count_cases(report: GateReport) -> tuple[int, int, int, int]:
    """Count cases, failures, errors and skipped cases with junitparser."""
    suites = junitparser.JUnitXml.fromstring(to_junit(report).encode())
    (suite,) = suites
    results = [type(result) for case in suite for result in case.result]
    kinds = (junitparser.Failure, junitparser.Error, junitparser.Skipped)
    counts = (len(list(suite)), *(results.count(kind) for kind in kinds))
    assert counts == (suite.tests, suite.failures, suite.errors, suite.skipped)
    return counts  # type: ignore[return-value]


@pytest.mark.parametrize("name", EVERY)
def test_xml_is_valid_by_the_schema(name: str, schema: Any) -> None:
    schema.validate(to_junit(EVERY[name]))


@pytest.mark.parametrize("name", EVERY)
def test_xml_has_the_elements_and_attributes_of_the_ant_schema(name: str) -> None:
    # windyroad's JUnit.xsd: elements in a fixed order, and required attributes
    (suite,) = ET.fromstring(to_junit(EVERY[name]))  # noqa: S314 - our own text
    tags = [element.tag for element in suite]
    assert tags == ["properties", *["testcase"] * tags.count("testcase"), "system-out", "system-err"]
    required = {"name", "package", "id", "timestamp", "hostname", "tests", "failures", "errors", "time"}
    assert required <= set(suite.attrib)
    assert suite.get("timestamp") == "2026-11-21T10:00:00"
    assert tags.count("testcase") == int(suite.get("tests", 0))
    for case in suite.iter("testcase"):
        assert set(case.attrib) == {"name", "classname", "time"}
        assert len(case) <= 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pass", (2, 0, 0, 0)),
        ("regression", (2, 1, 0, 0)),
        ("inconclusive", (2, 1, 0, 0)),
        ("tolerated", (2, 0, 0, 1)),
        ("untrusted", (1, 0, 1, 0)),
        ("not comparable", (1, 0, 1, 0)),
    ],
)
def test_each_rule_is_a_case_with_the_result_of_the_gate(
    name: str, expected: tuple[int, int, int, int]
) -> None:
    assert count_cases(EVERY[name]) == expected


def test_failure_contains_its_figures() -> None:
    failure = ET.fromstring(to_junit(REGRESSION)).find(".//failure")  # noqa: S314 - our own text
    assert failure is not None
    assert failure.attrib == {"type": "regression", "message": "usable_rate of alpha: regression."}
    lines = dict(line.split(" ", 1) for line in (failure.text or "").splitlines())
    assert {name: re.findall(r"[−\d.]+", text) for name, text in lines.items()} == {
        "baseline": ["70.0", "65.0", "75.0"],
        "run": ["58.0", "60.0", "80.0"],
        "change": ["−12.0", "−16.0", "−8.0"],
        "allowed:": ["5.0"],
    }


def test_inconclusive_rule_fails_or_is_skipped_by_policy() -> None:
    def result_types(report: GateReport) -> list[tuple[str, str | None]]:
        cases = ET.fromstring(to_junit(report)).iter("testcase")  # noqa: S314
        return [(result.tag, result.get("type")) for case in cases for result in case]

    assert result_types(INCONCLUSIVE) == [("failure", "inconclusive")]
    assert result_types(TOLERATED) == [("skipped", "inconclusive")]


def test_properties_contain_the_intervals() -> None:
    properties = {
        element.get("name"): element.get("value")
        for element in ET.fromstring(to_junit(EVERY["pass"])).iter("property")  # noqa: S314
    }
    assert properties["usable_rate.alpha.change"] == "−1.0 points [−3.0, +1.0]"
    assert properties["ttft_p95.alpha.run"] == "0.412 s [0.38, 0.45]"
    assert properties["ttft_p95.alpha.allowed"] == "at most 0.8 s"
    assert "ttft_p95.alpha.change" not in properties


@pytest.mark.parametrize("text", [HOSTILE, "a\x00b\x0b\x1b[31m\ud800\uffff]]>&amp;<x>", "two\nlines\t\r"])
def test_untrusted_text_is_escaped_without_forbidden_characters(text: str, schema: Any) -> None:
    untrusted_rule = rule(verdict="regression", id=text, candidate=text, sentence=text)
    xml = to_junit(gate("regression", untrusted_rule, headline=text, notes=(text,), policy=text))
    schema.validate(xml)
    assert not any(ord(char) < 32 and char != "\n" for char in xml)
    (case,) = ET.fromstring(xml).iter("testcase")  # noqa: S314
    assert [child.tag for child in case] == ["failure"]


def test_equal_reports_give_equal_xml() -> None:
    assert to_junit(NOT_COMPARABLE) == to_junit(NOT_COMPARABLE.model_copy())


def test_candidate_in_the_rule_id_is_named_once() -> None:
    xml = to_junit(gate("pass", rule("usable_rate@alpha")))
    assert 'name="usable_rate of alpha"' in xml
    assert "@alpha" not in xml.split("<system-out>")[0]
