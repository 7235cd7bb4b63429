"""JUnit XML of a gate: by the schema, and as other tools read it."""

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
    import xmlschema  # noqa: PLC0415 - 0.3 s that this file alone needs

    return xmlschema.XMLSchema(Path(__file__).parent / "data" / "junit-10.xsd")


def counted(report: GateReport) -> tuple[int, int, int, int]:
    """Count cases, failures, errors and skipped ones as junitparser reads them."""
    suites = junitparser.JUnitXml.fromstring(to_junit(report).encode())
    (suite,) = suites
    results = [type(result) for case in suite for result in case.result]
    kinds = (junitparser.Failure, junitparser.Error, junitparser.Skipped)
    found = (len(list(suite)), *(results.count(kind) for kind in kinds))
    assert found == (suite.tests, suite.failures, suite.errors, suite.skipped)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("name", EVERY)
def test_it_is_valid_by_the_schema(name: str, schema: Any) -> None:
    schema.validate(to_junit(EVERY[name]))


@pytest.mark.parametrize("name", EVERY)
def test_it_has_what_the_schema_of_ant_asks_for(name: str) -> None:
    # windyroad's JUnit.xsd: a fixed order of parts, and attributes that may not be missing
    (suite,) = ET.fromstring(to_junit(EVERY[name]))  # noqa: S314 - our own text
    tags = [part.tag for part in suite]
    assert tags == ["properties", *["testcase"] * tags.count("testcase"), "system-out", "system-err"]
    asked = {"name", "package", "id", "timestamp", "hostname", "tests", "failures", "errors", "time"}
    assert asked <= set(suite.attrib)
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
def test_each_rule_is_a_case_that_ends_as_the_gate_says(
    name: str, expected: tuple[int, int, int, int]
) -> None:
    assert counted(EVERY[name]) == expected


def test_a_failure_says_what_it_rests_on() -> None:
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


def test_an_inconclusive_rule_fails_where_the_policy_stops_the_job_and_is_skipped_where_it_does_not() -> None:
    def types(report: GateReport) -> list[tuple[str, str | None]]:
        cases = ET.fromstring(to_junit(report)).iter("testcase")  # noqa: S314
        return [(end.tag, end.get("type")) for case in cases for end in case]

    assert types(INCONCLUSIVE) == [("failure", "inconclusive")]
    assert types(TOLERATED) == [("skipped", "inconclusive")]


def test_the_properties_hold_the_intervals() -> None:
    properties = {
        one.get("name"): one.get("value")
        for one in ET.fromstring(to_junit(EVERY["pass"])).iter("property")  # noqa: S314
    }
    assert properties["usable_rate.alpha.change"] == "−1.0 points [−3.0, +1.0]"
    assert properties["ttft_p95.alpha.run"] == "0.412 s [0.38, 0.45]"
    assert properties["ttft_p95.alpha.allowed"] == "at most 0.8 s"
    assert "ttft_p95.alpha.change" not in properties


@pytest.mark.parametrize("text", [HOSTILE, "a\x00b\x0b\x1b[31m\ud800\uffff]]>&amp;<x>", "two\nlines\t\r"])
def test_untrusted_names_are_escaped_and_lose_what_xml_forbids(text: str, schema: Any) -> None:
    made = rule(verdict="regression", id=text, candidate=text, sentence=text)
    written = to_junit(gate("regression", made, headline=text, notes=(text,), policy=text))
    schema.validate(written)
    assert not any(ord(char) < 32 and char != "\n" for char in written)
    (case,) = ET.fromstring(written).iter("testcase")  # noqa: S314
    assert [child.tag for child in case] == ["failure"]


def test_the_same_report_gives_the_same_text() -> None:
    assert to_junit(NOT_COMPARABLE) == to_junit(NOT_COMPARABLE.model_copy())


def test_a_candidate_in_the_id_of_its_rule_is_named_once() -> None:
    written = to_junit(gate("pass", rule("usable_rate@alpha")))
    assert 'name="usable_rate of alpha"' in written
    assert "@alpha" not in written.split("<system-out>")[0]
