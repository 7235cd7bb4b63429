import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
import scipy

from gate_runs import TODAY, draw_letters, evidence, run_data, with_server
from qaeval.errors import DataError, UsageError
from qaeval.gate.baseline import evidence_digest
from qaeval.gate.decide import decide
from qaeval.gate.estimates import (
    Counts,
    PairedRates,
    RuleEstimate,
    independent_difference,
    p_beyond,
    permutation_p_value,
)
from qaeval.gate.evidence import Evidence, RaterLabels
from qaeval.gate.model import GateReport, RuleVerdict
from qaeval.gate.performance import _resampled
from qaeval.gate.policy import Policy, Rule
from qaeval.gate.rules import GateInputs, RuleCase, verdicts_of
from qaeval.report.facts import MachineFacts
from qaeval.report.numbers import two_digits_up
from qaeval.stats.estimate import Estimate
from qaeval.stats.intervals import wilson
from qaeval.stats.margins import non_inferiority
from qaeval.stats.paired import sign_flip_test
from qaeval.stats.power import reached_power
from report_builders import label_of

approx = pytest.approx

USABLE = {"quantity": "usable_rate", "margin": 0.05}


def gate(
    run: Evidence,
    baseline: Evidence | None,
    *rules: Mapping[str, Any],
    candidates: Mapping[str, str] | None = None,
    **policy: Any,
) -> GateReport:
    parsed_policy = Policy.model_validate({"rules": rules or (USABLE,), **policy})
    return decide(
        GateInputs(policy=parsed_policy, run=run, baseline=baseline, candidates=candidates or {}, today=TODAY)
    )


def only_rule(report: GateReport) -> RuleVerdict:
    (rule,) = report.rules
    return rule


def normal_estimate(value: float, se: float) -> Any:
    """Return a function that makes the normal interval of a level for this value and standard error."""

    def interval(level: float) -> Estimate:
        half_width = scipy.stats.norm.ppf((1 + level) / 2) * se
        return Estimate(
            value=value,
            low=value - half_width,
            high=value + half_width,
            level=level,
            method="normal",
            n=100,
            n_clusters=100,
        )

    return interval


# -------------------------------------------------------------------- quantities


def test_a_run_against_itself_passes_with_its_interval() -> None:
    run = evidence({"alpha": draw_letters(100, 0.8)})
    report = gate(run, run)
    assert (report.outcome, report.exit_code, only_rule(report).verdict) == ("pass", 0, "pass")
    assert only_rule(report).sentence.endswith(
        "(90 % interval): no loss above the allowed 5.0 points (95 % level)."
    )
    # all 100 chunks tie: two chunks of +1 and -1 are added, se = sqrt(2/101/102), t on 99 degrees of freedom
    assert only_rule(report).change.high == pytest.approx(
        scipy.stats.t.ppf(0.95, 99) * np.sqrt(2 / 101 / 102)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "margin", "verdict"),
    [(58, 0.05, "inconclusive"), (59, 0.05, "pass"), (98, 0.03, "inconclusive"), (99, 0.03, "pass")],
)
def test_two_identical_runs_pass_from_the_documented_size(n: int, margin: float, verdict: str) -> None:
    run = evidence({"alpha": ["AB"] * n})
    assert only_rule(gate(run, run, {**USABLE, "margin": margin})).verdict == verdict


def test_a_loss_beyond_the_margin_is_a_regression() -> None:
    report = gate(
        evidence({"alpha": draw_letters(200, 0.65, seed=1)}),
        evidence({"alpha": draw_letters(200, 0.8, seed=2)}),
    )
    assert (report.outcome, report.exit_code) == ("regression", 1)
    assert only_rule(report).sentence.startswith("alpha: usable rate")
    assert only_rule(report).change.high < 0
    assert "usable_rate" in report.headline


def test_equal_chunks_give_the_interval_and_p_value_of_the_paired_test() -> None:
    before, after = draw_letters(60, 0.8, seed=1), draw_letters(60, 0.7, seed=2)
    rule = only_rule(gate(evidence({"alpha": after}), evidence({"alpha": before})))
    baseline_rates, run_rates = ([word.count("A") / 3 for word in letters] for letters in (before, after))
    expected = non_inferiority(baseline_rates, run_rates, margin=0.05)
    assert (rule.change.low, rule.change.high) == pytest.approx(
        (expected.difference.low, expected.difference.high)
    )
    assert rule.change.value == pytest.approx(np.mean(run_rates) - np.mean(baseline_rates))
    differences = np.subtract(run_rates, baseline_rates)
    sign_flip_p = sign_flip_test(differences, alternative="less")
    assert rule.p_worse == pytest.approx(max(expected.p_worse, sign_flip_p), rel=1e-3)


def test_the_error_of_a_difference_of_ratios_matches_the_jackknife() -> None:
    rng = np.random.default_rng(3)
    totals = rng.integers(0, 4, (2, 150)).astype(float)
    hits = rng.binomial(totals.astype(int), [[0.1], [0.2]]).astype(float)
    names = tuple(map(str, range(150)))
    baseline, run = (Counts(names, hits[side], totals[side]) for side in (0, 1))
    paired = PairedRates.of(baseline, run)

    def difference(keep: np.ndarray) -> float:
        s, t = hits[:, keep].sum(axis=1), totals[:, keep].sum(axis=1)
        return float(s[1] / t[1] - s[0] / t[0])

    leave_one_out = [difference(np.arange(150) != chunk) for chunk in range(150)]
    jackknife = np.sqrt(149 / 150 * np.sum((leave_one_out - np.mean(leave_one_out)) ** 2))
    assert paired.difference == pytest.approx(difference(np.full(150, fill_value=True)))
    assert np.std(paired.values, ddof=1) / np.sqrt(len(paired.values)) == pytest.approx(jackknife, rel=0.03)


def test_independent_rates_are_compared_with_newcombes_interval() -> None:
    # Newcombe 1998, method 10: 56/70 against 48/80, difference 0.2, 95 % interval 0.0524 to 0.3339
    estimate = independent_difference(
        lambda level: wilson(48, 80, level=level), lambda level: wilson(56, 70, level=level)
    )(0.95)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(("value", "se"), [(-0.03, 0.02), (-0.1, 0.02), (-0.001, 0.02)])
def test_the_p_value_of_an_interval_matches_its_test(value: float, se: float) -> None:
    assert p_beyond(normal_estimate(value, se), 0.0, below=True) == pytest.approx(
        scipy.stats.norm.cdf(value / se), rel=1e-3
    )
    assert p_beyond(normal_estimate(-value, se), 0.0, below=False) == pytest.approx(
        scipy.stats.norm.cdf(value / se), rel=1e-3
    )


def test_failed_items_lower_all_rates_and_ungraded_items_do_not_lower_the_valid_rate() -> None:
    run = evidence({"alpha": ["AA", "A-", "x", "AB"] * 5})
    rules = [{"quantity": name, "at_least": 0.1} for name in ("usable_rate", "success_rate", "valid_rate")]
    values = [rule.current.value for rule in gate(run, None, *rules).rules]
    # of 8 items in four chunks: 4 A, 5 with a letter, 6 delivered
    assert values == pytest.approx([4 / 8, 5 / 8, 6 / 8])


def test_a_flag_rate_is_over_the_graded_items() -> None:
    run = evidence({"alpha": ["A!A", "A-", "x", "AB"] * 5})
    rule = only_rule(gate(run, None, {"quantity": "hallucination_rate", "at_most": 0.9}))
    assert rule.current.value == pytest.approx(1 / 5)
    assert not rule.higher_is_better


def test_a_check_rate_is_over_the_checked_items() -> None:
    base = evidence({"alpha": ["AA"] * 20})
    items = np.arange(40).reshape(20, 2)
    candidate = replace(
        base.candidates[0], findings={"short": items % 8 == 0}, unchecked={"short": items % 2 == 1}
    )
    run = replace(base, checks=("short",), candidates=(candidate,))
    rule = only_rule(gate(run, None, {"quantity": "check_rate", "check": "short", "at_most": 0.5}))
    assert rule.current.value == pytest.approx(5 / 20)


# -------------------------------------------------------------------- decisions


def test_a_proven_loss_within_the_margin_passes_and_is_reported() -> None:
    before, after = ["AAA"] * 400, ["AAA"] * 388 + ["AAB"] * 12
    rule = only_rule(gate(evidence({"alpha": after}), evidence({"alpha": before})))
    assert rule.verdict == "pass"
    assert rule.change.high < 0
    assert "p < 0.001" in rule.sentence


def test_too_little_data_is_inconclusive_and_gives_the_chunks_needed() -> None:
    run, baseline = (
        evidence({"alpha": draw_letters(40, 0.8, seed=5)}),
        evidence({"alpha": draw_letters(40, 0.8, seed=6)}),
    )
    rule = only_rule(report := gate(run, baseline))
    assert (report.outcome, report.exit_code) == ("inconclusive", 2)
    differences = [
        after.count("A") / 3 - before.count("A") / 3
        for before, after in zip(draw_letters(40, 0.8, seed=6), draw_letters(40, 0.8, seed=5), strict=True)
    ]
    spread, nearest = np.std(differences, ddof=1), max(0.05 + np.mean(differences), -np.mean(differences))
    needed = ((scipy.stats.norm.ppf(0.95) + scipy.stats.norm.ppf(0.8)) * spread / nearest) ** 2
    assert rule.n_more_chunks == pytest.approx(needed - 40, rel=0.15)
    phrase = f"{two_digits_up(rule.n_more_chunks)} more chunks"
    assert phrase in rule.sentence
    assert phrase in report.headline


def test_the_power_for_an_equal_run_matches_the_standard_formula() -> None:
    rng = np.random.default_rng(0)
    before, after = (["".join(row) for row in rng.choice(["A", "B"], (200, 3))] for _ in range(2))
    rule = only_rule(gate(evidence({"alpha": after}), evidence({"alpha": before}), {**USABLE, "margin": 0.1}))
    differences = [
        after_letters.count("A") / 3 - before_letters.count("A") / 3
        for before_letters, after_letters in zip(before, after, strict=True)
    ]
    assert rule.power_if_equal == pytest.approx(
        reached_power(float(np.std(differences, ddof=1)), 200, 0.1, sides=1), abs=0.01
    )


def test_the_requested_number_of_chunks_is_enough_to_decide() -> None:
    run = evidence({"alpha": draw_letters(30, 0.8)})
    n_more = only_rule(gate(run, run)).n_more_chunks
    larger_run = evidence({"alpha": draw_letters(30 + (n_more or 0), 0.8)})
    assert n_more is not None
    assert only_rule(gate(larger_run, larger_run)).verdict == "pass"


def test_fewer_than_ten_chunks_decide_nothing() -> None:
    report = gate(evidence({"alpha": ["CCC"] * 9}), evidence({"alpha": ["AAA"] * 9}), inconclusive="warn")
    assert (report.outcome, report.exit_code, only_rule(report).n_more_chunks) == ("inconclusive", 2, 1)
    assert "9 chunks" in only_rule(report).sentence
    assert "1 more chunk" in only_rule(report).sentence


def test_a_policy_may_let_too_little_data_pass_with_a_warning() -> None:
    report = gate(
        evidence({"alpha": draw_letters(40, 0.8, seed=5)}),
        evidence({"alpha": draw_letters(40, 0.8, seed=6)}),
        inconclusive="warn",
    )
    assert (report.outcome, report.exit_code) == ("inconclusive", 0)
    assert "policy" in report.headline


@pytest.mark.slow
@pytest.mark.parametrize(
    ("usable_rate", "verdict"), [(0.95, "pass"), (0.6, "regression"), (0.83, "inconclusive")]
)
def test_a_limit_passes_is_broken_or_stays_open(usable_rate: float, verdict: str) -> None:
    rule = only_rule(
        gate(
            evidence({"alpha": draw_letters(100, usable_rate)}),
            None,
            {"quantity": "usable_rate", "at_least": 0.8},
        )
    )
    assert rule.verdict == verdict
    assert (rule.change, rule.margin, rule.limit) == (None, None, 0.8)


@pytest.mark.slow
@pytest.mark.parametrize("n_chunks", [100, 150])
@pytest.mark.parametrize(
    ("rule", "failure_letters"),
    [
        ({"quantity": "usable_rate", "at_least": 0.975}, ["BAA", "BBB"]),
        ({"quantity": "hallucination_rate", "at_most": 0.025}, ["B!AA", "B!B!B!"]),
    ],
)
def test_more_failures_never_improve_the_verdict_on_a_limit(
    n_chunks: int, rule: dict[str, Any], failure_letters: Sequence[str]
) -> None:
    # 0 failures in 100 chunks were once inconclusive and 1 passed; 100 chunks cannot show it (rule of three), 150 can
    verdicts = []
    for n_failed, letters in [
        (0, failure_letters[0]),
        (1, failure_letters[0]),
        (1, failure_letters[1]),
        (2, failure_letters[1]),
        (9, failure_letters[1]),
    ]:
        run = evidence({"alpha": ["AAA"] * (n_chunks - n_failed) + [letters] * n_failed})
        verdicts.append(only_rule(gate(run, None, rule)).verdict)
    assert verdicts == sorted(verdicts, key=["pass", "inconclusive", "regression"].index)
    assert (verdicts[0] == "pass") == (n_chunks == 150)


def test_a_rate_close_to_its_limit_requests_no_unrealistic_number_of_chunks() -> None:
    letters = ["AAA"] * 80 + ["CCC"] * 20
    report = gate(evidence({"alpha": letters}), None, {"quantity": "usable_rate", "at_least": 0.799})
    rule = only_rule(report)
    assert rule.verdict == "inconclusive"
    assert "realistic size" in rule.sentence
    assert report.headline.endswith("of 1 rule. No sample of a realistic size would decide it.")
    # the items without a letter explain the loss but for rounding, and a distance that no number of chunks tells
    base = evidence({"alpha": ["AAA"] * 100}, name="base")
    explained = only_rule(gate(evidence({"alpha": ["AA-"] * 100}), base, {**USABLE, "margin": 0.1}))
    near = only_rule(
        gate(evidence({"alpha": letters}), None, {"quantity": "usable_rate", "at_least": 0.79999})
    )
    assert [explained.n_more_chunks, near.n_more_chunks] == [None, None]
    rule = only_rule(gate(evidence({"alpha": letters}), None, {"quantity": "usable_rate", "at_least": 0.75}))
    assert "no sample" not in rule.sentence
    assert f"{two_digits_up(rule.n_more_chunks)} more chunks" in rule.sentence


def decide_estimates(*cases: tuple[float, float]) -> tuple[RuleVerdict, ...]:
    """Decide one rule with a margin of 5 points per (value, standard error) of the change."""
    rule = Rule.model_validate(USABLE)
    rule_cases = [
        RuleCase(
            rule=rule,
            id=f"rule {index}",
            candidate="alpha",
            against="alpha",
            stratum=None,
            estimate=RuleEstimate(deciding=normal_estimate(value, se)),
            p_worse=p_beyond(normal_estimate(value, se), 0.0, below=True),
        )
        for index, (value, se) in enumerate(cases)
    ]
    return verdicts_of(rule_cases, 0.05)


def test_regressions_are_corrected_for_the_number_of_rules() -> None:
    # one-sided p-values: z = -1.8 gives 0.0359, z = -2.5 gives 0.0062
    single_rule = decide_estimates((-0.18, 0.1))
    three_rules = decide_estimates((-0.18, 0.1), (-0.25, 0.1), (0.0, 0.1))
    assert [rule.verdict for rule in single_rule] == ["regression"]
    # Holm of three: 3 x 0.0062 = 0.0186, then 2 x 0.0359 = 0.0719
    assert [rule.verdict for rule in three_rules] == ["inconclusive", "regression", "inconclusive"]
    assert [rule.alpha for rule in three_rules] == pytest.approx([0.05 / 2, 0.05 / 3, 0.05])
    assert "correction for 3 rules" in three_rules[0].sentence


def test_passes_are_not_corrected() -> None:
    # lower end 0.0 - 1.645 x 0.03 = -0.0493
    assert {rule.verdict for rule in decide_estimates(*[(0.0, 0.03)] * 20)} == {"pass"}


def test_a_regression_outranks_an_undecided_rule() -> None:
    run, baseline = (
        evidence({"alpha": draw_letters(60, 0.4, seed=1)}),
        evidence({"alpha": draw_letters(60, 0.8, seed=2)}),
    )
    report = gate(run, baseline, USABLE, {"quantity": "p95_latency", "margin": "10%"})
    assert report.outcome == "regression"
    assert "1 rule is undecided" in report.headline


# -------------------------------------------------------------------- strata and candidates


def test_a_rule_by_stratum_finds_a_loss_hidden_in_the_total() -> None:
    # the builder's strata alternate: valves, pumps
    run_letters = [letters if index % 2 == 0 else "ABB" for index, letters in enumerate(["AAA"] * 80)]
    run, baseline = evidence({"alpha": run_letters}), evidence({"alpha": ["AAA"] * 80})
    report = gate(run, baseline, {**USABLE, "margin": 0.1, "by": "stratum"})
    assert {rule.id: rule.verdict for rule in report.rules} == {
        "usable_rate[pumps]": "regression",
        "usable_rate[valves]": "pass",
    }
    assert report.rules[0].change.n_clusters == 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({**USABLE, "stratum": "pmps"}, "the run has no 'pmps'. Did you mean 'pumps'?"),
        (
            {"quantity": "flag_rate", "flag": "halucination", "margin": 0.1},
            "the rubric has no 'halucination'. Did you mean",
        ),
        ({"quantity": "check_rate", "check": "x", "margin": 0.1}, "the eval has no 'x'. It has none"),
        ({**USABLE, "candidates": ["alfa"]}, "Did you mean 'alpha'?"),
    ],
)
def test_an_unknown_name_in_a_rule_is_refused(rule: Mapping[str, Any], message: str) -> None:
    run = evidence({"alpha": draw_letters(20, 0.8)})
    with pytest.raises(DataError) as error:
        gate(run, run, rule)
    assert message in str(error.value)


def test_each_candidate_is_gated_against_its_namesake_and_a_new_one_never_passes() -> None:
    run = evidence({"alpha": draw_letters(100, 0.8), "beta": draw_letters(100, 0.8)})
    report = gate(run, evidence({"alpha": draw_letters(100, 0.8)}))
    assert {rule.id: rule.verdict for rule in report.rules} == {
        "usable_rate@alpha": "pass",
        "usable_rate@beta": "inconclusive",
    }
    assert report.exit_code == 2
    assert "--candidate beta=NAME" in report.rules[1].sentence


def test_a_candidate_is_gated_against_the_named_baseline_candidate() -> None:
    run = evidence({"alpha": draw_letters(100, 0.8), "beta": draw_letters(100, 0.8)})
    report = gate(run, evidence({"old": draw_letters(100, 0.8)}), candidates={"beta": "old"})
    assert [(rule.candidate, rule.against, rule.verdict) for rule in report.rules] == [
        ("beta", "old", "pass")
    ]
    assert [note for note in report.notes if "--candidate" in note and "alpha" in note]
    with pytest.raises(UsageError, match=r"the baseline .*'odl'.*'old'"):
        gate(run, evidence({"old": draw_letters(100, 0.8)}), candidates={"beta": "odl"})


def test_two_rules_with_the_same_name_are_refused() -> None:
    run = evidence({"alpha": draw_letters(20, 0.8), "beta": draw_letters(20, 0.8)})
    with pytest.raises(DataError, match=r"usable_rate@beta .*two rules"):
        gate(run, run, USABLE, {**USABLE, "margin": 0.1, "candidates": ["beta"]})


# -------------------------------------------------------------------- rules that cannot be evaluated never pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        {"quantity": "p95_ttft", "margin": "10%"},
        {"quantity": "p95_latency", "at_most": 2.0},
        {"quantity": "cost_per_1000_usable", "at_most": 2.0},
        {"quantity": "items_per_s", "margin": "10%"},
        {"quantity": "judge_kappa", "at_least": 0.5},
    ],
)
@pytest.mark.parametrize("inconclusive", ["fail", "warn"])
def test_a_quantity_without_data_is_inconclusive(rule: Mapping[str, Any], inconclusive: str) -> None:
    run = evidence({"alpha": draw_letters(50, 0.8)})
    report = gate(run, run, rule, inconclusive=inconclusive)
    assert (report.outcome, report.exit_code) == ("inconclusive", 2)
    assert "cannot be evaluated" in only_rule(report).sentence


@pytest.mark.slow
@pytest.mark.parametrize(("run_letters", "baseline_letters"), [("---", "AAA"), ("AAA", "---"), ("x", "x")])
def test_nothing_passes_without_a_graded_item(run_letters: str, baseline_letters: str) -> None:
    run, baseline = (
        evidence({"alpha": [letters] * 30 + ["x"], "beta": ["AAA"] * 31})
        for letters in (run_letters, baseline_letters)
    )
    report = gate(run, baseline, {**USABLE, "candidates": ["alpha"]}, inconclusive="warn")
    assert (report.outcome, report.exit_code) == ("inconclusive", 2)
    assert "cannot be evaluated" in only_rule(report).sentence
    assert "alpha" in only_rule(report).sentence


def test_a_margin_without_a_baseline_is_inconclusive() -> None:
    report = gate(evidence({"alpha": draw_letters(50, 0.8)}), None)
    assert (report.outcome, report.exit_code) == ("inconclusive", 2)


# -------------------------------------------------------------------- comparability


@pytest.mark.slow
@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({"rubric_digest": "0" * 64}, "the rubric"),
        ({"judge_digest": "0" * 64}, "the judge"),
        ({"eval_digest": "0" * 64}, "the eval"),
        ({"samples_digest": "0" * 64}, "the samples"),
    ],
)
def test_different_runs_are_not_comparable_and_the_difference_is_named(
    identity: Mapping[str, str], message: str
) -> None:
    run, baseline = (
        evidence({"alpha": draw_letters(50, 0.8)}),
        evidence({"alpha": draw_letters(50, 0.8)}, identity=identity),
    )
    report = gate(run, baseline)
    assert (report.outcome, report.exit_code, report.rules) == ("not comparable", 4, ())
    assert message in report.headline


def test_for_a_baseline_of_another_eval_only_the_eval_is_named() -> None:
    identity = {
        "eval": "rag_qa",
        "eval_digest": "0" * 64,
        "rubric_digest": "0" * 64,
        "samples_digest": "0" * 64,
    }
    run, baseline = (
        evidence({"alpha": draw_letters(50, 0.8)}),
        evidence({"alpha": draw_letters(50, 0.8)}, identity=identity),
    )
    headline = gate(run, baseline).headline
    assert all(phrase in headline for phrase in ("qa_pairs", "rag_qa", "--baseline"))
    assert "rubric" not in headline
    assert "--unpaired" not in headline


@pytest.mark.slow
def test_different_samples_are_compared_unpaired_if_the_policy_allows_it() -> None:
    run = evidence({"alpha": draw_letters(300, 0.9, seed=1)})
    baseline = evidence({"alpha": draw_letters(300, 0.9, seed=2)}, identity={"samples_digest": "0" * 64})
    report = gate(run, baseline, samples="may differ")
    assert "unpaired" in only_rule(report).change.method
    assert any("samples differ" in note for note in report.notes)
    paired = gate(run, evidence({"alpha": draw_letters(300, 0.9, seed=2)}))
    assert only_rule(report).change.value == pytest.approx(only_rule(paired).change.value)


def test_an_inconsistent_judge_is_noted() -> None:
    run, baseline = evidence({"alpha": ["AB"] * 20}), evidence({"alpha": ["AB"] * 19 + ["BB"]})
    assert any("40 items" in note and "2.5 %" in note for note in gate(run, baseline).notes)


def test_an_old_baseline_is_noted_with_its_age() -> None:
    run, before = (evidence({"alpha": draw_letters(100, 0.8, seed=seed)}) for seed in (0, 1))
    run = replace(run, candidates=before.candidates, source=run.source.model_copy(update={"created": ""}))
    assert gate(run, before).notes == ()
    assert "15 days old" in gate(run, before, stale_after_days=14).notes[0]


# -------------------------------------------------------------------- times, cost and the judge


def test_p95_latency_is_compared_by_a_paired_bootstrap_with_a_relative_margin() -> None:
    rng = np.random.default_rng(0)
    seconds = rng.lognormal(0, 0.3, 200)
    baseline = with_server(evidence({"alpha": draw_letters(200, 0.8)}), latency_s=seconds)
    slower = with_server(evidence({"alpha": draw_letters(200, 0.8)}), latency_s=1.5 * seconds)
    rule = {"quantity": "p95_latency", "margin": "20%"}
    same, worse = only_rule(gate(baseline, baseline, rule)), only_rule(gate(slower, baseline, rule))
    p95 = float(np.quantile(seconds, 0.95))
    assert (same.verdict, worse.verdict) == ("pass", "regression")
    assert (same.baseline.value, same.margin, same.unit) == pytest.approx((p95, 0.2 * p95, "s"))
    # every resample of the pairs is slower by the same factor
    assert (worse.change.value, worse.change.low) == pytest.approx((0.5 * p95, 0.5 * p95))
    assert "day-to-day" in same.sentence
    assert worse.p_worse == pytest.approx(1 / 4000, rel=0.01), "4,000 resamples cannot show less"


@pytest.mark.slow
def test_the_bootstrap_interval_of_a_quantile_covers_like_the_binomial_one() -> None:
    seconds = np.sort(np.random.default_rng(1).exponential(size=400))
    run = with_server(evidence({"alpha": draw_letters(400, 0.8)}), latency_s=seconds)
    rule = only_rule(gate(run, None, {"quantity": "p50_latency", "at_most": 2.0}))
    low, high = (seconds[int(scipy.stats.binom.ppf(q, 400, 0.5))] for q in (0.05, 0.95))
    assert (rule.current.low, rule.current.high) == pytest.approx((low, high), rel=0.05)


def test_the_ttft_quantile_is_read_from_the_histogram_with_binomial_ranks() -> None:
    counts = {0.1: 500.0, 0.2: 900.0, 0.4: 1000.0, inf: 1000.0}
    run = with_server(evidence({"alpha": draw_letters(20, 0.8)}), ttft=counts)
    rule = only_rule(gate(run, None, {"quantity": "p95_ttft", "at_most": 0.4}))
    # 950 of 1,000 lie half way through the bucket from 0.2 to 0.4; the ranks are 0.95 +- 1.645 sqrt(.95 x .05/1000)
    reach = 1.6448536 * np.sqrt(0.95 * 0.05 / 1000)
    assert rule.current.value == pytest.approx(0.3)
    assert rule.current.high == pytest.approx(0.3 + 0.2 * reach * 1000 / 100)
    assert rule.verdict == "pass"
    few_requests = with_server(evidence({"alpha": draw_letters(20, 0.8)}), ttft={0.1: 50.0, inf: 50.0})
    assert (
        only_rule(gate(few_requests, None, {"quantity": "p95_ttft", "at_most": 0.4})).verdict
        == "inconclusive"
    )


def test_ttft_of_run_and_baseline_is_compared_as_independent_requests() -> None:
    counts = {0.1: 500.0, 0.2: 900.0, 0.4: 1000.0, inf: 1000.0}
    slower = {2 * bound: n for bound, n in counts.items()}
    baseline, same, worse = (
        with_server(evidence({"alpha": draw_letters(20, 0.8)}), ttft=n) for n in (counts, counts, slower)
    )
    rule = {"quantity": "p50_ttft", "margin": "20%"}
    equal, regression = (only_rule(gate(run, baseline, rule)) for run in (same, worse))
    # half of 1,000 requests are below 0.1 s, and of the slower ones below 0.2 s
    assert (equal.baseline.value, equal.current.value, equal.change.value) == approx((0.1, 0.1, 0.0))
    assert (regression.current.value, regression.change.value, regression.margin) == approx((0.2, 0.1, 0.02))
    assert (equal.verdict, regression.verdict, equal.unit) == ("pass", "regression", "s")
    reach = 1.9599640 * np.sqrt(0.25 / 1000)
    assert equal.current.low == approx(0.1 * (0.5 - reach) / 0.5)
    assert equal.current.high == approx(0.1 + 0.1 * reach * 1000 / 400)


def test_only_a_model_behind_a_server_has_times() -> None:
    for embedded in (True, False):
        (candidate,) = evidence({"alpha": draw_letters(20, 0.8)}, embedded=embedded).candidates
        assert candidate.resources.has_server is not embedded
        assert (candidate.resources.work_s is None) is embedded


def test_a_quantile_above_the_last_histogram_bound_is_unknown() -> None:
    counts = {0.1: 500.0, 0.2: 900.0, inf: 1000.0}
    run = with_server(evidence({"alpha": draw_letters(20, 0.8)}), ttft=counts)
    rule = only_rule(gate(run, run, {"quantity": "p95_ttft", "margin": "20%"}))
    assert (rule.verdict, rule.change) == ("inconclusive", None)


@pytest.mark.parametrize("n_requests", [99.0, 100.0])
def test_ttft_needs_a_hundred_requests_on_both_sides(n_requests: float) -> None:
    counts = {0.1: 500.0, 0.2: 1000.0, inf: 1000.0}
    run, other = (
        with_server(evidence({"alpha": draw_letters(20, 0.8)}), ttft=histogram)
        for histogram in (counts, {bound: n_requests * value / 1000 for bound, value in counts.items()})
    )
    rule = {"quantity": "p50_ttft", "margin": "500%"}
    for current, baseline in ((run, other), (other, run)):
        assert only_rule(gate(current, baseline, rule)).verdict == (
            "pass" if n_requests == 100 else "inconclusive"
        )


def test_cost_is_the_price_of_the_work_over_the_usable_items() -> None:
    run = with_server(
        evidence({"alpha": ["AAB"] * 50 + ["ABB"] * 50}), work_s=360.0, price=0.1, currency="EUR"
    )
    rule = only_rule(gate(run, None, {"quantity": "cost_per_1000_usable", "at_most": 2.0}))
    # 150 of 300 items are usable: 0.1 EUR / 150 × 1,000
    assert (rule.current.value, rule.unit, rule.verdict) == (pytest.approx(0.1 / 150 * 1000), "EUR", "pass")
    dearer = with_server(
        evidence({"alpha": ["AAB"] * 50 + ["ABB"] * 50}), work_s=720.0, price=0.2, currency="EUR"
    )
    worse = only_rule(gate(dearer, run, {"quantity": "cost_per_1000_usable", "margin": "20%"}))
    assert (worse.verdict, worse.change.value) == ("regression", pytest.approx(0.1 / 150 * 1000))


def test_costs_in_different_currencies_are_not_compared() -> None:
    euro, dollar = (
        with_server(evidence({"alpha": draw_letters(50, 0.8)}), work_s=360.0, price=0.1, currency=name)
        for name in ("EUR", "USD")
    )
    rule = only_rule(gate(euro, dollar, {"quantity": "cost_per_1000_usable", "margin": "20%"}))
    assert (rule.verdict, "EUR" in rule.sentence, "USD" in rule.sentence) == ("inconclusive", True, True)


def test_a_run_without_a_price_is_gated_by_seconds() -> None:
    run = with_server(evidence({"alpha": ["AB"] * 60}), work_s=60.0)
    assert (
        "has no price"
        in only_rule(gate(run, run, {"quantity": "cost_per_1000_usable", "margin": "5%"})).sentence
    )
    rule = only_rule(gate(run, None, {"quantity": "seconds_per_1000_usable", "at_most": 2000}))
    assert rule.current.value == pytest.approx(1000.0)
    speed = only_rule(gate(run, None, {"quantity": "items_per_s", "at_least": 1}))
    assert speed.current.value == pytest.approx(2.0)


def test_the_price_comes_from_the_machine_in_the_registry() -> None:
    machine = MachineFacts(name="l4", price_per_hour=3.6, currency="EUR", as_of="2026-01-01", source="list")
    run = evidence({"alpha": draw_letters(50, 0.8)}, embedded=False, machines={"alpha": machine})
    # the builder's stage took 60 seconds
    assert run.candidates[0].resources.price == pytest.approx(0.06)
    assert run.candidates[0].resources.latency_s[0] == 1.5


def test_the_judges_kappa_is_gated_by_its_interval() -> None:
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 3, 300)
    judged = np.where(rng.random(300) < 0.9, reference, 1)
    labels = RaterLabels(
        rater="anna", kind="human", reference=reference, judged=judged, clusters=np.arange(300)
    )
    run = replace(evidence({"alpha": draw_letters(50, 0.8)}), labels=(labels,))
    rules = [
        {"quantity": "judge_kappa", "at_least": limit, "rater": rater}
        for limit, rater in ((0.5, ""), (0.99, "anna"))
    ]
    report = gate(run, None, *rules)
    assert [rule.verdict for rule in report.rules] == ["pass", "regression"]
    assert (report.rules[0].candidate, report.rules[0].unit) == ("judge-7b", "kappa")
    same_kappa = only_rule(gate(run, run, {"quantity": "judge_kappa", "margin": 0.15}))
    assert (same_kappa.verdict, same_kappa.change.value) == ("pass", 0.0)


def test_labels_of_a_run_are_used_by_the_rule() -> None:
    letters = {"alpha": draw_letters(40, 0.6)}
    grades = [row for row in run_data(letters).rows.grades if row.kind == "grade"]
    labels = [label_of(row, row.letter) for row in grades]
    run = evidence(letters, labels=labels)
    assert run.labels[0].reference.tolist() == run.labels[0].judged.tolist()
    assert run.labels[0].reference.shape == (120,)
    assert only_rule(gate(run, None, {"quantity": "judge_kappa", "at_least": 0.5})).verdict == "pass"


# -------------------------------------------------------------------- determinism, and error rates


def test_the_verdict_does_not_depend_on_the_order_of_the_rows() -> None:
    letters = {"alpha": draw_letters(60, 0.7), "beta": draw_letters(60, 0.75, seed=1)}
    rows = run_data(letters).rows
    shuffled: dict[str, Sequence[Any]] = {"generations": list(rows.generations), "grades": list(rows.grades)}
    for kind_rows in shuffled.values():
        random.Random(0).shuffle(kind_rows)  # noqa: S311 - no secret
    run, shuffled_run = evidence(letters), evidence(letters, **shuffled)
    assert evidence_digest(run) == evidence_digest(shuffled_run)
    baseline = evidence({name: draw_letters(60, 0.8, seed=9) for name in letters})
    assert gate(run, baseline) == gate(shuffled_run, baseline)


def test_bootstraps_are_reproducible() -> None:
    seconds = np.random.default_rng(2).exponential(size=80)
    run = with_server(evidence({"alpha": draw_letters(80, 0.8)}), latency_s=seconds)
    rule = {"quantity": "p95_latency", "at_most": 3.0}
    first = gate(run, None, rule)
    _resampled.cache_clear()
    assert gate(run, None, rule) == first


@pytest.mark.nightly
@pytest.mark.slow
def test_error_rates_of_ten_thousand_gates_match_the_documentation() -> None:
    """No change: regression in at most 5 %; a loss equal to the margin: pass in at most 5 %; a loss of 10 points: found in 90 %."""
    n_gates, n_chunks, n_items = 10_000, 200, 3
    rng = np.random.default_rng(0)
    ids = tuple(map(str, range(n_chunks)))
    rule = Rule.model_validate(USABLE)
    shares = {}
    for loss in (0.0, 0.05, 0.10):
        outcomes = []
        for _ in range(n_gates):
            chunk_rates = rng.beta(0.8 * 4, 0.2 * 4, n_chunks)  # items of a chunk correlate with 0.2
            kept_share = 1 - loss / 0.8
            before, after = (
                rng.binomial(n_items, chunk_rates),
                rng.binomial(n_items, chunk_rates * kept_share),
            )
            totals = np.full(n_chunks, float(n_items))
            sides = (Counts(ids, hits.astype(float), totals) for hits in (before, after))
            estimate = PairedRates.of(*(before_and_after := tuple(sides)))(0.9)
            is_pass = estimate.low > -(rule.loss or 0)
            is_worse = estimate.high < 0 and permutation_p_value(*before_and_after, below=True) <= 0.05
            outcomes.append("pass" if is_pass else "regression" if is_worse else "inconclusive")
        shares[loss] = {name: outcomes.count(name) / n_gates for name in ("pass", "regression")}
    assert shares[0.0]["regression"] <= 0.05
    assert shares[0.05]["pass"] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_gates)
    assert shares[0.10]["regression"] >= 0.9
