import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
import scipy

from gate_runs import TODAY, evidence, run_data, served, words
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
    asked = Policy.model_validate({"rules": rules or (USABLE,), **policy})
    return decide(
        GateInputs(policy=asked, run=run, baseline=baseline, candidates=candidates or {}, today=TODAY)
    )


def one(report: GateReport) -> RuleVerdict:
    (rule,) = report.rules
    return rule


def estimated(value: float, se: float) -> Any:
    """Return a normal interval with these."""

    def interval(level: float) -> Estimate:
        half = scipy.stats.norm.ppf((1 + level) / 2) * se
        return Estimate(
            value=value,
            low=value - half,
            high=value + half,
            level=level,
            method="normal",
            n=100,
            n_clusters=100,
        )

    return interval


# -------------------------------------------------------------------- what is measured


def test_a_run_against_itself_passes_and_says_how_much_was_ruled_out() -> None:
    run = evidence({"alpha": words(100, 0.8)})
    report = gate(run, run)
    assert (report.outcome, report.exit_code, one(report).verdict) == ("pass", 0, "pass")
    # all 100 chunks tie: two chunks of +1 and -1 are added, se = sqrt(2/101/102), t on 99 degrees of freedom
    assert one(report).change.high == pytest.approx(scipy.stats.t.ppf(0.95, 99) * np.sqrt(2 / 101 / 102))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "margin", "verdict"),
    [(58, 0.05, "inconclusive"), (59, 0.05, "pass"), (98, 0.03, "inconclusive"), (99, 0.03, "pass")],
)
def test_two_identical_runs_pass_from_the_size_that_the_documentation_says(
    n: int, margin: float, verdict: str
) -> None:
    run = evidence({"alpha": ["AB"] * n})
    assert one(gate(run, run, {**USABLE, "margin": margin})).verdict == verdict


def test_a_loss_beyond_the_margin_is_a_regression() -> None:
    report = gate(evidence({"alpha": words(200, 0.65, seed=1)}), evidence({"alpha": words(200, 0.8, seed=2)}))
    assert (report.outcome, report.exit_code) == ("regression", 1)
    assert one(report).sentence.startswith("alpha: usable rate")
    assert one(report).change.high < 0
    assert "usable_rate" in report.headline


def test_the_interval_and_the_p_value_of_equal_chunks_are_those_of_the_paired_test() -> None:
    before, after = words(60, 0.8, seed=1), words(60, 0.7, seed=2)
    rule = one(gate(evidence({"alpha": after}), evidence({"alpha": before})))
    a, b = ([word.count("A") / 3 for word in own] for own in (before, after))
    expected = non_inferiority(a, b, margin=0.05)
    assert (rule.change.low, rule.change.high) == pytest.approx(
        (expected.difference.low, expected.difference.high)
    )
    assert rule.change.value == pytest.approx(np.mean(b) - np.mean(a))
    d = np.subtract(b, a)
    swapped = sign_flip_test(d, alternative="less")
    assert rule.p_worse == pytest.approx(max(expected.p_worse, swapped), rel=1e-3)


def test_a_difference_of_ratios_has_the_error_of_the_jackknife() -> None:
    rng = np.random.default_rng(3)
    totals = rng.integers(0, 4, (2, 150)).astype(float)
    hits = rng.binomial(totals.astype(int), [[0.1], [0.2]]).astype(float)
    names = tuple(map(str, range(150)))
    a, b = (Counts(names, hits[side], totals[side]) for side in (0, 1))
    found = PairedRates.of(a, b)

    def difference(keep: np.ndarray) -> float:
        s, t = hits[:, keep].sum(axis=1), totals[:, keep].sum(axis=1)
        return float(s[1] / t[1] - s[0] / t[0])

    left_out = [difference(np.arange(150) != chunk) for chunk in range(150)]
    jackknife = np.sqrt(149 / 150 * np.sum((left_out - np.mean(left_out)) ** 2))
    assert found.difference == pytest.approx(difference(np.full(150, fill_value=True)))
    assert np.std(found.values, ddof=1) / np.sqrt(len(found.values)) == pytest.approx(jackknife, rel=0.03)


def test_two_independent_rates_are_compared_as_newcombe_does() -> None:
    # Newcombe 1998, method 10: 56/70 against 48/80, difference 0.2, 95 % interval 0.0524 to 0.3339
    found = independent_difference(
        lambda level: wilson(48, 80, level=level), lambda level: wilson(56, 70, level=level)
    )(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(("value", "se"), [(-0.03, 0.02), (-0.1, 0.02), (-0.001, 0.02)])
def test_the_p_value_of_an_interval_is_that_of_its_test(value: float, se: float) -> None:
    assert p_beyond(estimated(value, se), 0.0, below=True) == pytest.approx(
        scipy.stats.norm.cdf(value / se), rel=1e-3
    )
    assert p_beyond(estimated(-value, se), 0.0, below=False) == pytest.approx(
        scipy.stats.norm.cdf(value / se), rel=1e-3
    )


def test_failed_items_count_against_usable_and_success_and_ungraded_ones_not_against_valid() -> None:
    run = evidence({"alpha": ["AA", "A-", "x", "AB"] * 5})
    rules = [{"quantity": name, "at_least": 0.1} for name in ("usable_rate", "success_rate", "valid_rate")]
    values = [rule.current.value for rule in gate(run, None, *rules).rules]
    # of 8 items in four chunks: 4 A, 5 with a letter, 6 delivered
    assert values == pytest.approx([4 / 8, 5 / 8, 6 / 8])


def test_a_flag_is_counted_among_the_graded_items_as_in_the_report() -> None:
    run = evidence({"alpha": ["A!A", "A-", "x", "AB"] * 5})
    rule = one(gate(run, None, {"quantity": "hallucination_rate", "at_most": 0.9}))
    assert rule.current.value == pytest.approx(1 / 5)
    assert not rule.higher_is_better


def test_a_check_is_counted_among_the_items_it_looked_at() -> None:
    made = evidence({"alpha": ["AA"] * 20})
    items = np.arange(40).reshape(20, 2)
    candidate = replace(
        made.candidates[0], findings={"short": items % 8 == 0}, unchecked={"short": items % 2 == 1}
    )
    run = replace(made, checks=("short",), candidates=(candidate,))
    rule = one(gate(run, None, {"quantity": "check_rate", "check": "short", "at_most": 0.5}))
    assert rule.current.value == pytest.approx(5 / 20)


# -------------------------------------------------------------------- how it is decided


def test_a_loss_within_the_margin_passes_though_it_is_proven_and_is_said() -> None:
    before, after = ["AAA"] * 400, ["AAA"] * 388 + ["AAB"] * 12
    rule = one(gate(evidence({"alpha": after}), evidence({"alpha": before})))
    assert rule.verdict == "pass"
    assert rule.change.high < 0
    assert "p < 0.001" in rule.sentence


def test_too_little_data_is_inconclusive_and_says_how_many_chunks_more_would_decide() -> None:
    run, baseline = evidence({"alpha": words(40, 0.8, seed=5)}), evidence({"alpha": words(40, 0.8, seed=6)})
    rule = one(report := gate(run, baseline))
    assert (report.outcome, report.exit_code) == ("inconclusive", 2)
    d = [
        b.count("A") / 3 - a.count("A") / 3
        for a, b in zip(words(40, 0.8, seed=6), words(40, 0.8, seed=5), strict=True)
    ]
    spread, nearest = np.std(d, ddof=1), max(0.05 + np.mean(d), -np.mean(d))
    needed = ((scipy.stats.norm.ppf(0.95) + scipy.stats.norm.ppf(0.8)) * spread / nearest) ** 2
    assert rule.n_more_chunks == pytest.approx(needed - 40, rel=0.15)
    printed = f"{two_digits_up(rule.n_more_chunks)} more chunks"
    assert printed in rule.sentence
    assert printed in report.headline


def test_the_power_for_an_equal_run_is_that_of_the_usual_formula() -> None:
    rng = np.random.default_rng(0)
    before, after = (["".join(row) for row in rng.choice(["A", "B"], (200, 3))] for _ in range(2))
    rule = one(gate(evidence({"alpha": after}), evidence({"alpha": before}), {**USABLE, "margin": 0.1}))
    d = [b.count("A") / 3 - a.count("A") / 3 for a, b in zip(before, after, strict=True)]
    assert rule.power_if_equal == pytest.approx(
        reached_power(float(np.std(d, ddof=1)), 200, 0.1, sides=1), abs=0.01
    )


def test_as_many_chunks_as_were_asked_for_do_decide() -> None:
    tied = evidence({"alpha": words(30, 0.8)})
    more = one(gate(tied, tied)).n_more_chunks
    larger = evidence({"alpha": words(30 + (more or 0), 0.8)})
    assert more is not None
    assert one(gate(larger, larger)).verdict == "pass"


def test_fewer_than_ten_chunks_decide_nothing() -> None:
    report = gate(evidence({"alpha": ["CCC"] * 9}), evidence({"alpha": ["AAA"] * 9}), inconclusive="warn")
    assert (report.outcome, report.exit_code, one(report).n_more_chunks) == ("inconclusive", 2, 1)
    assert "9 chunks" in one(report).sentence
    assert "1 more chunk" in one(report).sentence


def test_a_policy_may_let_too_little_data_pass_with_a_warning() -> None:
    report = gate(
        evidence({"alpha": words(40, 0.8, seed=5)}),
        evidence({"alpha": words(40, 0.8, seed=6)}),
        inconclusive="warn",
    )
    assert (report.outcome, report.exit_code) == ("inconclusive", 0)
    assert "policy" in report.headline


@pytest.mark.slow
@pytest.mark.parametrize(("best", "verdict"), [(0.95, "pass"), (0.6, "regression"), (0.83, "inconclusive")])
def test_a_limit_is_shown_broken_or_open(best: float, verdict: str) -> None:
    rule = one(
        gate(evidence({"alpha": words(100, best)}), None, {"quantity": "usable_rate", "at_least": 0.8})
    )
    assert rule.verdict == verdict
    assert (rule.change, rule.margin, rule.limit) == (None, None, 0.8)


@pytest.mark.slow
@pytest.mark.parametrize("n_chunks", [100, 150])
@pytest.mark.parametrize(
    ("rule", "failed"),
    [
        ({"quantity": "usable_rate", "at_least": 0.975}, ["BAA", "BBB"]),
        ({"quantity": "hallucination_rate", "at_most": 0.025}, ["B!AA", "B!B!B!"]),
    ],
)
def test_a_further_failure_never_helps_to_keep_a_limit(
    n_chunks: int, rule: dict[str, Any], failed: Sequence[str]
) -> None:
    # on 100 chunks 0 failures were inconclusive and 1 passed; 100 cannot show it (rule of three), 150 can
    verdicts = []
    for n_failed, word in [(0, failed[0]), (1, failed[0]), (1, failed[1]), (2, failed[1]), (9, failed[1])]:
        run = evidence({"alpha": ["AAA"] * (n_chunks - n_failed) + [word] * n_failed})
        verdicts.append(one(gate(run, None, rule)).verdict)
    assert verdicts == sorted(verdicts, key=["pass", "inconclusive", "regression"].index)
    assert (verdicts[0] == "pass") == (n_chunks == 150)


def test_a_number_that_lies_at_its_limit_is_not_sent_for_chunks_that_nobody_has() -> None:
    letters = ["AAA"] * 80 + ["CCC"] * 20
    rule = one(gate(evidence({"alpha": letters}), None, {"quantity": "usable_rate", "at_least": 0.799}))
    assert rule.verdict == "inconclusive"
    assert "realistic size" in rule.sentence
    rule = one(gate(evidence({"alpha": letters}), None, {"quantity": "usable_rate", "at_least": 0.75}))
    assert "no sample" not in rule.sentence
    assert f"{two_digits_up(rule.n_more_chunks)} more chunks" in rule.sentence


def verdicts(*cases: tuple[float, float]) -> tuple[RuleVerdict, ...]:
    """Decide rules of a margin of 5 points from normal estimates of the change."""
    rule = Rule.model_validate(USABLE)
    made = [
        RuleCase(
            rule=rule,
            id=f"rule {place}",
            candidate="alpha",
            against="alpha",
            stratum=None,
            estimate=RuleEstimate(deciding=estimated(value, se)),
            p_worse=p_beyond(estimated(value, se), 0.0, below=True),
        )
        for place, (value, se) in enumerate(cases)
    ]
    return verdicts_of(made, 0.05)


def test_regressions_are_corrected_for_the_number_of_rules() -> None:
    # one-sided p-values: z = -1.8 gives 0.0359, z = -2.5 gives 0.0062
    alone = verdicts((-0.18, 0.1))
    together = verdicts((-0.18, 0.1), (-0.25, 0.1), (0.0, 0.1))
    assert [rule.verdict for rule in alone] == ["regression"]
    # Holm of three: 3 x 0.0062 = 0.0186, then 2 x 0.0359 = 0.0719
    assert [rule.verdict for rule in together] == ["inconclusive", "regression", "inconclusive"]
    assert [rule.alpha for rule in together] == pytest.approx([0.05 / 2, 0.05 / 3, 0.05])
    assert "correction for 3 rules" in together[0].sentence


def test_passes_are_not_corrected() -> None:
    # lower end 0.0 - 1.645 x 0.03 = -0.0493
    assert {rule.verdict for rule in verdicts(*[(0.0, 0.03)] * 20)} == {"pass"}


def test_a_regression_counts_more_than_an_open_rule() -> None:
    run, baseline = evidence({"alpha": words(60, 0.4, seed=1)}), evidence({"alpha": words(60, 0.8, seed=2)})
    report = gate(run, baseline, USABLE, {"quantity": "p95_latency", "margin": "10%"})
    assert report.outcome == "regression"
    assert "1 rule is undecided" in report.headline


# -------------------------------------------------------------------- strata and candidates


def test_a_rule_by_stratum_finds_the_loss_that_the_whole_hides() -> None:
    # the builder's strata alternate: valves, pumps
    after = [word if place % 2 == 0 else "ABB" for place, word in enumerate(["AAA"] * 80)]
    run, baseline = evidence({"alpha": after}), evidence({"alpha": ["AAA"] * 80})
    report = gate(run, baseline, {**USABLE, "margin": 0.1, "by": "stratum"})
    assert {rule.id: rule.verdict for rule in report.rules} == {
        "usable_rate[pumps]": "regression",
        "usable_rate[valves]": "pass",
    }
    assert report.rules[0].change.n_clusters == 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "says"),
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
def test_a_name_that_there_is_not_is_refused(rule: Mapping[str, Any], says: str) -> None:
    run = evidence({"alpha": words(20, 0.8)})
    with pytest.raises(DataError) as raised:
        gate(run, run, rule)
    assert says in str(raised.value)


def test_each_candidate_is_gated_against_its_namesake_and_a_new_one_is_never_green() -> None:
    run = evidence({"alpha": words(100, 0.8), "beta": words(100, 0.8)})
    report = gate(run, evidence({"alpha": words(100, 0.8)}))
    assert {rule.id: rule.verdict for rule in report.rules} == {
        "usable_rate@alpha": "pass",
        "usable_rate@beta": "inconclusive",
    }
    assert report.exit_code == 2
    assert "--candidate beta=NAME" in report.rules[1].sentence


def test_a_candidate_is_gated_against_the_one_that_is_named() -> None:
    run = evidence({"alpha": words(100, 0.8), "beta": words(100, 0.8)})
    report = gate(run, evidence({"old": words(100, 0.8)}), candidates={"beta": "old"})
    assert [(rule.candidate, rule.against, rule.verdict) for rule in report.rules] == [
        ("beta", "old", "pass")
    ]
    assert [note for note in report.notes if "--candidate" in note and "alpha" in note]
    with pytest.raises(UsageError, match=r"the baseline .*'odl'.*'old'"):
        gate(run, evidence({"old": words(100, 0.8)}), candidates={"beta": "odl"})


def test_two_rules_that_would_have_one_name_are_refused() -> None:
    run = evidence({"alpha": words(20, 0.8), "beta": words(20, 0.8)})
    with pytest.raises(DataError, match=r"usable_rate@beta .*two rules"):
        gate(run, run, USABLE, {**USABLE, "margin": 0.1, "candidates": ["beta"]})


# -------------------------------------------------------------------- what cannot be evaluated is never green


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
def test_a_quantity_that_the_run_has_no_data_for_is_inconclusive(
    rule: Mapping[str, Any], inconclusive: str
) -> None:
    run = evidence({"alpha": words(50, 0.8)})
    report = gate(run, run, rule, inconclusive=inconclusive)
    assert (report.outcome, report.exit_code) == ("inconclusive", 2)
    assert "cannot be evaluated" in one(report).sentence


@pytest.mark.slow
@pytest.mark.parametrize(("now", "before"), [("---", "AAA"), ("AAA", "---"), ("x", "x")])
def test_without_a_graded_item_nothing_passes(now: str, before: str) -> None:
    run, baseline = (evidence({"alpha": [word] * 30 + ["x"], "beta": ["AAA"] * 31}) for word in (now, before))
    rules = gate(run, baseline, {**USABLE, "candidates": ["alpha"]}, inconclusive="warn")
    assert (rules.outcome, rules.exit_code) == ("inconclusive", 2)
    assert "cannot be evaluated" in one(rules).sentence
    assert "alpha" in one(rules).sentence


def test_a_margin_without_a_baseline_is_inconclusive() -> None:
    report = gate(evidence({"alpha": words(50, 0.8)}), None)
    assert (report.outcome, report.exit_code) == ("inconclusive", 2)


# -------------------------------------------------------------------- comparable?


@pytest.mark.slow
@pytest.mark.parametrize(
    ("aspect", "says"),
    [
        ({"rubric_digest": "0" * 64}, "the rubric"),
        ({"judge_digest": "0" * 64}, "the judge"),
        ({"eval_digest": "0" * 64}, "the eval"),
        ({"samples_digest": "0" * 64}, "the samples"),
    ],
)
def test_runs_that_differ_are_not_comparable_and_the_difference_is_named(
    aspect: Mapping[str, str], says: str
) -> None:
    run, baseline = evidence({"alpha": words(50, 0.8)}), evidence({"alpha": words(50, 0.8)}, identity=aspect)
    report = gate(run, baseline)
    assert (report.outcome, report.exit_code, report.rules) == ("not comparable", 4, ())
    assert says in report.headline


def test_a_baseline_of_another_eval_is_named_alone() -> None:
    other = {"eval": "rag_qa", "eval_digest": "0" * 64, "rubric_digest": "0" * 64, "samples_digest": "0" * 64}
    run, baseline = evidence({"alpha": words(50, 0.8)}), evidence({"alpha": words(50, 0.8)}, identity=other)
    said = gate(run, baseline).headline
    assert all(datum in said for datum in ("qa_pairs", "rag_qa", "--baseline"))
    assert "rubric" not in said
    assert "--unpaired" not in said


@pytest.mark.slow
def test_other_samples_are_compared_without_pairs_where_the_policy_says_so() -> None:
    run = evidence({"alpha": words(300, 0.9, seed=1)})
    baseline = evidence({"alpha": words(300, 0.9, seed=2)}, identity={"samples_digest": "0" * 64})
    report = gate(run, baseline, samples="may differ")
    assert "unpaired" in one(report).change.method
    assert any("samples differ" in note for note in report.notes)
    paired = gate(run, evidence({"alpha": words(300, 0.9, seed=2)}))
    assert one(report).change.value == pytest.approx(one(paired).change.value)


def test_a_judge_that_gives_the_same_item_another_letter_is_noted() -> None:
    run, baseline = evidence({"alpha": ["AB"] * 20}), evidence({"alpha": ["AB"] * 19 + ["BB"]})
    assert any("40 items" in note and "2.5 %" in note for note in gate(run, baseline).notes)


def test_an_old_baseline_is_noted_with_its_age() -> None:
    run, before = (evidence({"alpha": words(100, 0.8, seed=seed)}) for seed in (0, 1))
    run = replace(run, candidates=before.candidates, source=run.source.model_copy(update={"created": ""}))
    assert gate(run, before).notes == ()
    assert "15 days old" in gate(run, before, stale_after_days=14).notes[0]


# -------------------------------------------------------------------- times, cost and the judge


def test_p95_latency_is_compared_by_a_paired_bootstrap_with_a_relative_margin() -> None:
    rng = np.random.default_rng(0)
    seconds = rng.lognormal(0, 0.3, 200)
    baseline = served(evidence({"alpha": words(200, 0.8)}), latency_s=seconds)
    slower = served(evidence({"alpha": words(200, 0.8)}), latency_s=1.5 * seconds)
    rule = {"quantity": "p95_latency", "margin": "20%"}
    same, worse = one(gate(baseline, baseline, rule)), one(gate(slower, baseline, rule))
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
    run = served(evidence({"alpha": words(400, 0.8)}), latency_s=seconds)
    rule = one(gate(run, None, {"quantity": "p50_latency", "at_most": 2.0}))
    low, high = (seconds[int(scipy.stats.binom.ppf(q, 400, 0.5))] for q in (0.05, 0.95))
    assert (rule.current.low, rule.current.high) == pytest.approx((low, high), rel=0.05)


def test_the_first_token_is_read_off_the_histogram_with_binomial_ranks() -> None:
    counts = {0.1: 500.0, 0.2: 900.0, 0.4: 1000.0, inf: 1000.0}
    run = served(evidence({"alpha": words(20, 0.8)}), ttft=counts)
    rule = one(gate(run, None, {"quantity": "p95_ttft", "at_most": 0.4}))
    # 950 of 1,000 lie half way through the bucket from 0.2 to 0.4; the ranks are 0.95 +- 1.645 sqrt(.95 x .05/1000)
    reach = 1.6448536 * np.sqrt(0.95 * 0.05 / 1000)
    assert rule.current.value == pytest.approx(0.3)
    assert rule.current.high == pytest.approx(0.3 + 0.2 * reach * 1000 / 100)
    assert rule.verdict == "pass"
    few = served(evidence({"alpha": words(20, 0.8)}), ttft={0.1: 50.0, inf: 50.0})
    assert one(gate(few, None, {"quantity": "p95_ttft", "at_most": 0.4})).verdict == "inconclusive"


def test_the_first_token_of_run_and_baseline_is_compared_as_of_independent_requests() -> None:
    counts = {0.1: 500.0, 0.2: 900.0, 0.4: 1000.0, inf: 1000.0}
    slower = {2 * bound: n for bound, n in counts.items()}
    baseline, same, worse = (
        served(evidence({"alpha": words(20, 0.8)}), ttft=n) for n in (counts, counts, slower)
    )
    rule = {"quantity": "p50_ttft", "margin": "20%"}
    equal, regression = (one(gate(run, baseline, rule)) for run in (same, worse))
    # half of 1,000 requests are below 0.1 s, and of the slower ones below 0.2 s
    assert (equal.baseline.value, equal.current.value, equal.change.value) == approx((0.1, 0.1, 0.0))
    assert (regression.current.value, regression.change.value, regression.margin) == approx((0.2, 0.1, 0.02))
    assert (equal.verdict, regression.verdict, equal.unit) == ("pass", "regression", "s")
    reach = 1.9599640 * np.sqrt(0.25 / 1000)
    assert equal.current.low == approx(0.1 * (0.5 - reach) / 0.5)
    assert equal.current.high == approx(0.1 + 0.1 * reach * 1000 / 400)


def test_a_model_behind_a_server_has_times_and_an_embedded_one_none() -> None:
    for embedded in (True, False):
        (candidate,) = evidence({"alpha": words(20, 0.8)}, embedded=embedded).candidates
        assert candidate.resources.has_server is not embedded
        assert (candidate.resources.work_s is None) is embedded


def test_a_time_above_the_last_bound_of_the_histogram_is_not_known() -> None:
    counts = {0.1: 500.0, 0.2: 900.0, inf: 1000.0}
    run = served(evidence({"alpha": words(20, 0.8)}), ttft=counts)
    rule = one(gate(run, run, {"quantity": "p95_ttft", "margin": "20%"}))
    assert (rule.verdict, rule.change) == ("inconclusive", None)


@pytest.mark.parametrize("n", [99.0, 100.0])
def test_the_first_token_needs_a_hundred_requests_on_both_sides(n: float) -> None:
    counts = {0.1: 500.0, 0.2: 1000.0, inf: 1000.0}
    run, few = (
        served(evidence({"alpha": words(20, 0.8)}), ttft=histogram)
        for histogram in (counts, {bound: n * value / 1000 for bound, value in counts.items()})
    )
    rule = {"quantity": "p50_ttft", "margin": "500%"}
    for current, baseline in ((run, few), (few, run)):
        assert one(gate(current, baseline, rule)).verdict == ("pass" if n == 100 else "inconclusive")


def test_cost_is_the_price_of_the_work_over_the_usable_items() -> None:
    run = served(evidence({"alpha": ["AAB"] * 50 + ["ABB"] * 50}), work_s=360.0, price=0.1, currency="EUR")
    rule = one(gate(run, None, {"quantity": "cost_per_1000_usable", "at_most": 2.0}))
    # 150 of 300 items are usable: 0.1 EUR / 150 x 1,000
    assert (rule.current.value, rule.unit, rule.verdict) == (pytest.approx(0.1 / 150 * 1000), "EUR", "pass")
    dearer = served(evidence({"alpha": ["AAB"] * 50 + ["ABB"] * 50}), work_s=720.0, price=0.2, currency="EUR")
    worse = one(gate(dearer, run, {"quantity": "cost_per_1000_usable", "margin": "20%"}))
    assert (worse.verdict, worse.change.value) == ("regression", pytest.approx(0.1 / 150 * 1000))


def test_prices_in_two_currencies_are_not_compared() -> None:
    euro, dollar = (
        served(evidence({"alpha": words(50, 0.8)}), work_s=360.0, price=0.1, currency=name)
        for name in ("EUR", "USD")
    )
    rule = one(gate(euro, dollar, {"quantity": "cost_per_1000_usable", "margin": "20%"}))
    assert (rule.verdict, "EUR" in rule.sentence, "USD" in rule.sentence) == ("inconclusive", True, True)


def test_a_run_without_a_price_counts_seconds() -> None:
    run = served(evidence({"alpha": ["AB"] * 60}), work_s=60.0)
    assert (
        "has no price" in one(gate(run, run, {"quantity": "cost_per_1000_usable", "margin": "5%"})).sentence
    )
    rule = one(gate(run, None, {"quantity": "seconds_per_1000_usable", "at_most": 2000}))
    assert rule.current.value == pytest.approx(1000.0)
    speed = one(gate(run, None, {"quantity": "items_per_s", "at_least": 1}))
    assert speed.current.value == pytest.approx(2.0)


def test_a_prices_machine_comes_from_the_registry() -> None:
    machine = MachineFacts(name="l4", price_per_hour=3.6, currency="EUR", as_of="2026-01-01", source="list")
    run = evidence({"alpha": words(50, 0.8)}, embedded=False, machines={"alpha": machine})
    # the builder's stage took 60 seconds
    assert run.candidates[0].resources.price == pytest.approx(0.06)
    assert run.candidates[0].resources.latency_s[0] == 1.5


def test_the_judges_kappa_is_held_to_a_limit_by_its_bound() -> None:
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 3, 300)
    judged = np.where(rng.random(300) < 0.9, reference, 1)
    labels = RaterLabels(
        rater="anna", kind="human", reference=reference, judged=judged, clusters=np.arange(300)
    )
    run = replace(evidence({"alpha": words(50, 0.8)}), labels=(labels,))
    rules = [
        {"quantity": "judge_kappa", "at_least": limit, "rater": rater}
        for limit, rater in ((0.5, ""), (0.99, "anna"))
    ]
    report = gate(run, None, *rules)
    assert [rule.verdict for rule in report.rules] == ["pass", "regression"]
    assert (report.rules[0].candidate, report.rules[0].unit) == ("judge-7b", "kappa")
    kept = one(gate(run, run, {"quantity": "judge_kappa", "margin": 0.15}))
    assert (kept.verdict, kept.change.value) == ("pass", 0.0)


def test_labels_of_a_run_reach_the_rule() -> None:
    letters = {"alpha": words(40, 0.6)}
    grades = [row for row in run_data(letters).rows.grades if row.kind == "grade"]
    labels = [label_of(row, row.letter) for row in grades]
    run = evidence(letters, labels=labels)
    assert run.labels[0].reference.tolist() == run.labels[0].judged.tolist()
    assert run.labels[0].reference.shape == (120,)
    assert one(gate(run, None, {"quantity": "judge_kappa", "at_least": 0.5})).verdict == "pass"


# -------------------------------------------------------------------- determinism, and error rates


def test_the_verdict_does_not_depend_on_the_order_of_the_rows() -> None:
    letters = {"alpha": words(60, 0.7), "beta": words(60, 0.75, seed=1)}
    rows = run_data(letters).rows
    shuffled: dict[str, Sequence[Any]] = {"generations": list(rows.generations), "grades": list(rows.grades)}
    for own in shuffled.values():
        random.Random(0).shuffle(own)  # noqa: S311 - no secret
    run, again = evidence(letters), evidence(letters, **shuffled)
    assert evidence_digest(run) == evidence_digest(again)
    baseline = evidence({name: words(60, 0.8, seed=9) for name in letters})
    assert gate(run, baseline) == gate(again, baseline)


def test_bootstraps_give_the_same_verdict_twice() -> None:
    seconds = np.random.default_rng(2).exponential(size=80)
    run = served(evidence({"alpha": words(80, 0.8)}), latency_s=seconds)
    rule = {"quantity": "p95_latency", "at_most": 3.0}
    first = gate(run, None, rule)
    _resampled.cache_clear()
    assert gate(run, None, rule) == first


@pytest.mark.nightly
@pytest.mark.slow
def test_error_rates_of_ten_thousand_gates_are_what_they_are_said_to_be() -> None:
    """Nothing changed: a regression in at most 5 %; a loss of the margin: passes in at most 5 %; of 10 points: found in 90 %."""
    n_gates, n_chunks, n_items = 10_000, 200, 3
    rng = np.random.default_rng(0)
    ids = tuple(map(str, range(n_chunks)))
    rule = Rule.model_validate(USABLE)
    found = {}
    for loss in (0.0, 0.05, 0.10):
        outcomes = []
        for _ in range(n_gates):
            own = rng.beta(0.8 * 4, 0.2 * 4, n_chunks)  # items of a chunk correlate with 0.2
            kept = 1 - loss / 0.8
            before, after = rng.binomial(n_items, own), rng.binomial(n_items, own * kept)
            totals = np.full(n_chunks, float(n_items))
            sides = (Counts(ids, hits.astype(float), totals) for hits in (before, after))
            estimate = PairedRates.of(*(both := tuple(sides)))(0.9)
            passes = estimate.low > -(rule.loss or 0)
            worse = estimate.high < 0 and permutation_p_value(*both, below=True) <= 0.05
            outcomes.append("pass" if passes else "regression" if worse else "inconclusive")
        found[loss] = {name: outcomes.count(name) / n_gates for name in ("pass", "regression")}
    assert found[0.0]["regression"] <= 0.05
    assert found[0.05]["pass"] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_gates)
    assert found[0.10]["regression"] >= 0.9
