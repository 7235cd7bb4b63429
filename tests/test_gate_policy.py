import re
from math import sqrt
from pathlib import Path

import pytest

from qaeval.errors import DataError
from qaeval.gate.policy import (
    QUANTITIES,
    Policy,
    chunks_for_smallest_margins,
    default_margins,
    default_policy,
    read_policy,
)


def write_and_read_policy(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    return read_policy(path)


def test_a_policy_is_read_with_its_defaults(tmp_path: Path) -> None:
    policy = write_and_read_policy(
        tmp_path,
        "rules:\n  - {quantity: usable_rate, margin: 0.05}\n  - {quantity: p95_latency, margin: 20%}",
    )
    assert (policy.name, policy.alpha, policy.inconclusive, policy.certificate) == (
        "gate.yaml",
        0.05,
        "fail",
        "off",
    )
    assert [(rule.id, rule.loss) for rule in policy.rules] == [("usable_rate", 0.05), ("p95_latency", 0.2)]


def test_the_default_policy_has_rules_for_usable_items_every_flag_and_success() -> None:
    policy = default_policy(("hallucination", "off_topic"))
    assert [(rule.id, rule.loss) for rule in policy.rules] == [
        ("usable_rate", 0.05),
        ("hallucination_rate", 0.03),
        ("flag_rate.off_topic", 0.03),
        ("success_rate", 0.03),
    ]


def test_default_margins_depend_on_the_number_of_chunks() -> None:
    # 20 chunks of 3 items: s^2 = 0.03 + 0.26/3, t_.95,21 = 1.721, t_.9,19 = 1.328
    spread = 0.03 + 0.26 / 3
    detectable = 1.721 * sqrt((spread + 2 / 21) / 22) + 1.328 * sqrt(spread / 20)
    assert detectable == pytest.approx(0.2703, abs=1e-4)
    assert default_margins(20, 3) == (0.28, 0.2)
    assert default_margins(78, 3) == (0.13, 0.08)
    assert default_margins(78, 1) > default_margins(78, 3) > default_margins(200, 3)
    assert default_margins(9, 3) == default_margins(10, 3)
    n_enough = chunks_for_smallest_margins(3)
    assert default_margins(n_enough, 3) == (0.05, 0.03)
    assert default_margins(n_enough - 1, 3) > (0.05, 0.03)


def test_equal_policies_have_equal_digests() -> None:
    assert default_policy(("a",)).digest == default_policy(("a",)).digest != default_policy(("b",)).digest


@pytest.mark.parametrize("text", ["", "name: x", "rules: []", "rules:"])
def test_a_gate_without_rules_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gate\.yaml: (no rules|.*mapping)"):
        write_and_read_policy(tmp_path, text)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{quantity: usable_rat, margin: 0.05}", "no quantity 'usable_rat'. Did you mean 'usable_rate'?"),
        ("{quantity: usable_rate, margn: 0.05}", "unknown key 'rules[1].margn'. Did you mean 'margin'?"),
        ("{quantity: usable_rate}", "a margin (against the baseline) or a limit (at_least), got neither"),
        ("{quantity: usable_rate, margin: 0.05, at_least: 0.8}", "got margin and at_least"),
        ("{quantity: usable_rate, margin: 5}", "Did you mean 5 points?"),
        ("{quantity: usable_rate, margin: 0}", "between 0 and 1"),
        ("{quantity: usable_rate, margin: 5 chunks}", "like 5 points, 5pp, 5% or 0.05"),
        ("{quantity: p95_latency, margin: 5 points}", "a percentage of the baseline's value"),
        ("{quantity: usable_rate, at_least: 80}", "0.8 is 80 %"),
        ("{quantity: usable_rate, at_least: 0}", "between 0 and 1"),
        ("{quantity: hallucination_rate, at_most: 1}", "between 0 and 1"),
        ("{quantity: p95_latency, at_most: 0}", "a number above 0"),
        ("{quantity: usable_rate, at_most: 0.8}", "better the higher it is: its limit is at_least"),
        ("{quantity: hallucination_rate, at_least: 0.8}", "better the lower it is: its limit is at_most"),
        ("{quantity: p95_latency, margin: 0.2}", "a percentage of the baseline's value"),
        ("{quantity: p95_latency, margin: 0%}", "above 0"),
        ("{quantity: items_per_s, margin: 100%}", "less than 100%"),
        ("{quantity: flag_rate, margin: 0.05}", "flag_rate needs flag"),
        ("{quantity: usable_rate, flag: x, margin: 0.05}", "flag has no meaning for usable_rate"),
        ("{quantity: usable_rate, rater: x, margin: 0.05}", "rater has no meaning"),
        ("{quantity: usable_rate, margin: 0.05, by: strata}", "'stratum'"),
        ("{quantity: usable_rate, margin: 0.05, by: stratum, stratum: x}", "one of the two"),
        ("{quantity: p95_latency, margin: 10%, by: stratum}", "it has no strata"),
        ("{quantity: usable_rate, margin: .nan}", "got '.nan'"),
    ],
)
def test_an_invalid_rule_is_refused_with_its_location(rule: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as error:
        write_and_read_policy(tmp_path, f"rules:\n  - {rule}")
    assert str(tmp_path / "gate.yaml") in str(error.value)
    assert "rules[1]" in str(error.value)


@pytest.mark.parametrize("margin", ["5 points", "5pp", "5%", "5 %", "0.05", '"0.05"'])
def test_a_margin_may_be_written_in_points_or_percent(margin: str, tmp_path: Path) -> None:
    rule = "rules:\n  - {quantity: usable_rate, margin: %s}"
    assert (
        write_and_read_policy(tmp_path, rule % margin).digest
        == write_and_read_policy(tmp_path, rule % 0.05).digest
    )


def test_a_limit_of_a_share_may_be_a_percentage(tmp_path: Path) -> None:
    policy = write_and_read_policy(tmp_path, "rules:\n  - {quantity: usable_rate, at_least: 70%}")
    assert policy.rules[0].limit == pytest.approx(0.7)
    with pytest.raises(DataError, match="at_most"):
        write_and_read_policy(tmp_path, "rules:\n  - {quantity: p95_latency, at_most: 70%}")


def test_all_problems_of_a_policy_are_named_at_once(tmp_path: Path) -> None:
    text = (
        "alpha: 2\nrules:\n  - {quantity: usable_rate, margin: 7, rater: anna}\n"
        "  - {quantity: usabel_rate, margin: 5%}\n  - {quantity: flag_rate, margin: 5%, by: week}\n"
    )
    with pytest.raises(DataError) as error:
        write_and_read_policy(tmp_path, text)
    headline, *problems = str(error.value).splitlines()
    assert "gate.yaml: 5 problems" in headline
    for location, detail in (
        ("alpha", "0.5"),
        ("rules[1]", "rater"),
        ("margin of usable_rate", "7 points"),
        ("rules[2].quantity", "usable_rate"),
        ("rules[3].by", "stratum"),
    ):
        assert any(location in problem and detail in problem for problem in problems)


def test_all_duplicate_rules_are_named(tmp_path: Path) -> None:
    rule = "  - {quantity: usable_rate, margin: 0.05}\n"
    with pytest.raises(DataError) as error:
        write_and_read_policy(tmp_path, f"rules:\n{rule * 3}")
    assert str(error.value).count("repeats rules[1]") == 2


@pytest.mark.parametrize(
    "line", ["alpha: 0", "alpha: 0.5", "inconclusive: green", "certificate: yes", "retries: 3"]
)
def test_a_wrong_setting_is_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=line.partition(":")[0]):
        write_and_read_policy(tmp_path, f"{line}\nrules:\n  - {{quantity: usable_rate, margin: 0.05}}")


def test_a_duplicate_rule_is_refused(tmp_path: Path) -> None:
    rule = "  - {quantity: usable_rate, margin: 0.05}\n"
    with pytest.raises(DataError, match=r"rules\[2\].*rules\[1\].*usable_rate"):
        write_and_read_policy(tmp_path, f"rules:\n{rule}{rule}")


def test_every_quantity_can_have_a_margin_and_a_limit() -> None:
    for name, quantity in QUANTITIES.items():
        margin = "10%" if quantity.scale == "ratio" else 0.1
        parameters = {quantity.needs: "x"} if quantity.needs else {}
        limit = "at_least" if quantity.higher_is_better else "at_most"
        policy = Policy.model_validate(
            {
                "rules": [
                    {"quantity": name, "margin": margin, **parameters},
                    {"quantity": name, limit: 0.5, **parameters},
                ]
            }
        )
        assert len({rule.id for rule in policy.rules}) == 2


def test_the_policy_in_the_documentation_is_valid(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "gate.md").read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    policy = write_and_read_policy(tmp_path, example)
    assert (policy.name, policy.certificate, len(policy.rules)) == ("release", "off", 11)
    assert {name for name in QUANTITIES if f"`{name}`" not in text} == set()
