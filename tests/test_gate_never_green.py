"""Results that must not become a pass or a loss: failures, missing letters, unpaired times, mismatched files."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy

from gate_runs import TODAY, draw_letters, evidence, with_server, write_run
from qaeval.errors import DataError
from qaeval.gate.baseline import EvidenceReader
from qaeval.gate.certificate import age_hours
from qaeval.gate.decide import decide
from qaeval.gate.estimates import Counts, PairedRates, permutation_p_value
from qaeval.gate.evidence import Evidence
from qaeval.gate.model import GateReport
from qaeval.gate.policy import Policy, default_margins, default_policy
from qaeval.gate.rules import GateInputs
from qaeval.registry.config import Config
from qaeval.report.numbers import age

USABLE = {"quantity": "usable_rate", "margin": 0.05}
HALLUCINATION = {"quantity": "hallucination_rate", "margin": 0.03}
P95 = {"quantity": "p95_latency", "margin": "20%"}


def gate(run: Evidence, baseline: Evidence | None, *rules: Mapping[str, Any], **policy: Any) -> GateReport:
    policy_model = Policy.model_validate({"rules": rules, **policy})
    return decide(GateInputs(policy=policy_model, run=run, baseline=baseline, candidates={}, today=TODAY))


def timed_run(n: int, seconds: Any) -> Evidence:
    """Return a run of n chunks with these latencies."""
    return with_server(evidence({"alpha": draw_letters(n, 0.8)}), latency_s=np.array(seconds, dtype=float))


# -------------------------------------------------------------------- the default policy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "size"),
    [(20, 3), (78, 3), *(pytest.param(*size, marks=pytest.mark.nightly) for size in ((78, 1), (200, 3)))],
)
def test_default_policy_passes_most_equal_runs_and_no_worse_run(n: int, size: int) -> None:
    margin, _ = default_margins(n, size)

    def outcomes(best: float, first_seed: int, n_runs: int) -> Counter[str]:
        seeds = range(first_seed, first_seed + 2 * n_runs, 2)
        pairs = [
            (
                evidence({"alpha": draw_letters(n, best, size=size, flagged_share=0.03, seed=seed)}),
                evidence({"alpha": draw_letters(n, 0.8, size=size, flagged_share=0.03, seed=seed + 1)}),
            )
            for seed in seeds
        ]
        return Counter(gate_by_default(*pair).outcome for pair in pairs)

    equal, worse = outcomes(0.8, 1000, 10), outcomes(0.8 - min(0.7, 2 * margin), 2000, 10)
    assert equal["pass"] >= 7
    assert equal["regression"] <= 1
    assert worse["pass"] == 0
    assert worse["regression"] >= 7


def gate_by_default(run: Evidence, baseline: Evidence) -> GateReport:
    policy = default_policy(run.flags, len(run.chunk_names), run.items_per_chunk)
    return decide(GateInputs(policy=policy, run=run, baseline=baseline, candidates={}, today=TODAY))


def test_a_candidate_that_is_37_points_better_passes_the_default_policy() -> None:
    # 20 chunks of 3 items: 24 of 60 items are an A, then 46 of 60
    baseline = evidence({"alpha": ["ABB"] * 16 + ["AAB"] * 4})
    run = evidence({"alpha": ["AAB"] * 14 + ["AAA"] * 6})
    report = gate_by_default(run, baseline)
    assert report.outcome == "pass"
    assert report.rules[0].change.value == pytest.approx(22 / 60)


def test_baseline_age_is_counted_in_hours() -> None:
    evening, morning = "2026-01-04T23:59:00+00:00", "2026-01-05T00:01:00+00:00"
    assert age_hours(evening, morning) == pytest.approx(2 / 60)
    assert age_hours("2026-01-05T10:00:00+02:00", "2026-01-05T10:00:00") == pytest.approx(2)
    assert age_hours("yesterday", morning) is None
    assert [age(hours) for hours in (0.4, 1.9, 47.9, 48)] == ["under 1 hour", "1 hour", "47 hours", "2 days"]
    baseline = evidence({"alpha": draw_letters(100, 0.8)})
    baseline = replace(
        baseline, source=baseline.source.model_copy(update={"created": "2025-12-31T11:00:00+00:00"})
    )
    run = evidence({"alpha": draw_letters(100, 0.8, seed=1)})
    # 19 days and 23 hours, then an hour more than 19 days
    assert not [note for note in gate(run, baseline, USABLE, stale_after_days=20).notes if "days old" in note]
    assert [note for note in gate(run, baseline, USABLE, stale_after_days=19).notes if "19 days old" in note]


# -------------------------------------------------------------------- failures


@pytest.mark.slow
@pytest.mark.parametrize("rule", [HALLUCINATION, {"quantity": "hallucination_rate", "at_most": 0.3}])
@pytest.mark.parametrize("failed_letters", ["x", "---"])
def test_hallucination_rate_is_inconclusive_if_most_items_failed(
    rule: Mapping[str, Any], failed_letters: str
) -> None:
    baseline = evidence({"alpha": draw_letters(300, 0.8, flagged_share=0.05)})
    run = evidence({"alpha": ["AAA"] * 60 + [failed_letters] * 240})
    report = gate(run, baseline if "margin" in rule else None, rule, inconclusive="warn")
    assert (report.outcome, report.exit_code) == ("inconclusive", 2)
    assert "20.0 %" in report.rules[0].sentence


@pytest.mark.parametrize("others", ["x", "AAA"])
def test_a_candidate_that_failed_on_every_item_is_a_regression(others: str) -> None:
    run = evidence({"alpha": ["x"] * 39 + [others], "beta": ["AAA"] * 40})
    baseline = evidence({"alpha": ["AAA"] * 40, "beta": ["AAA"] * 40})
    quantities = ("usable_rate", "success_rate", "valid_rate")
    rules = [{"quantity": name, "margin": 0.1, "candidates": ["alpha"]} for name in quantities]
    report = gate(run, baseline, *rules, {**HALLUCINATION, "candidates": ["alpha"]})
    assert [rule.verdict for rule in report.rules] == ["regression"] * 3 + ["inconclusive"]
    assert gate(run, None, {"quantity": "valid_rate", "at_least": 0.9}).outcome == "regression"


def test_a_paired_rate_uses_the_smaller_number_of_graded_chunks() -> None:
    # 9 chunks are graded in each candidate of the run, 18 in the baseline
    run = evidence({"alpha": ["AAA"] * 9 + ["x"] * 9})
    rule = gate(run, evidence({"alpha": ["AAA"] * 18}), HALLUCINATION).rules[0]
    assert (rule.verdict, rule.change.n_clusters, rule.change.has_interval) == ("inconclusive", 9, False)


def test_failures_without_a_rule_are_noted() -> None:
    baseline, run = evidence({"alpha": ["AAA"] * 200}), evidence({"alpha": ["AAA"] * 140 + ["x"] * 60})
    report = gate(run, baseline, HALLUCINATION)
    assert [
        note for note in report.notes if "success_rate" in note and "70.0 %" in note and "100.0 %" in note
    ]
    report_with_rule = gate(run, baseline, HALLUCINATION, {"quantity": "success_rate", "margin": 0.03})
    assert not any("success_rate" in note for note in report_with_rule.notes)
    assert report_with_rule.outcome == "regression"


# -------------------------------------------------------------------- items without a letter


def test_ungraded_baseline_items_do_not_hide_a_loss() -> None:
    # every letter of the baseline is an A, every second item has none; 56 % of the run are A
    baseline = evidence({"alpha": ["AA-"] * 150 + ["---"] * 100 + ["AAA"] * 50})
    run = evidence({"alpha": ["AAB"] * 200 + ["ABB"] * 100})
    rule = gate(run, baseline, USABLE).rules[0]
    assert (rule.verdict, rule.n_more_chunks) == ("inconclusive", None)
    assert rule.change.value == pytest.approx(500 / 900 - 450 / 900)
    assert "50.0 %" in rule.sentence
    assert " 0.0 %" in rule.sentence


def test_ungraded_items_of_the_run_lower_the_success_rate_only() -> None:
    baseline, run = evidence({"alpha": ["AAA"] * 200}), evidence({"alpha": ["AAA"] * 140 + ["---"] * 60})
    report = gate(run, baseline, USABLE, {"quantity": "success_rate", "margin": 0.03})
    assert [rule.verdict for rule in report.rules] == ["inconclusive", "regression"]


def test_equally_many_ungraded_items_on_both_sides_pass() -> None:
    run = evidence({"alpha": ["AA-"] * 100})
    rule = gate(run, run, USABLE).rules[0]
    assert rule.verdict == "pass"
    assert "no letter" not in rule.sentence


def test_two_runs_that_the_judge_mostly_left_without_a_letter_are_not_compared() -> None:
    # two thirds of both have no letter: nobody knows what they are
    run, baseline = evidence({"alpha": ["-A-"] * 100}), evidence({"alpha": ["A--"] * 100}, name="before")
    report = gate(run, baseline, USABLE, inconclusive="warn")
    assert (report.outcome, report.exit_code) == ("inconclusive", 2)
    assert "only 33.3 % of the delivered items of alpha were graded in run" in report.rules[0].sentence
    # what failed is a loss, however much it is
    lost = evidence({"alpha": ["x"] * 80 + ["AAA"] * 20})
    assert gate(lost, evidence({"alpha": ["AAA"] * 100}), USABLE).outcome == "regression"


def test_a_judge_that_failed_on_the_run_violates_no_limit_of_usable_items() -> None:
    # every letter is an A, a third of the items has none
    run = evidence({"alpha": ["AA-"] * 100})
    rule = gate(run, None, {"quantity": "usable_rate", "at_least": 0.8}).rules[0]
    assert (rule.verdict, rule.n_more_chunks) == ("inconclusive", None)
    assert "no letter to 33.3 % of the items:" in rule.sentence
    # with the items without a letter two thirds would be usable, which is too few
    worse = evidence({"alpha": ["AB-"] * 100})
    assert gate(worse, None, {"quantity": "usable_rate", "at_least": 0.8}).rules[0].verdict == "regression"
    kept = evidence({"alpha": ["AAA"] * 95 + ["AA-"] * 5})
    assert gate(kept, None, {"quantity": "usable_rate", "at_least": 0.8}).rules[0].verdict == "pass"


def test_a_judge_that_failed_makes_no_item_dearer_or_cheaper() -> None:
    def timed_use(letters: list[str], name: str = "run") -> Evidence:
        return with_server(evidence({"alpha": letters}, name=name), work_s=60.0)

    rule = {"quantity": "seconds_per_1000_usable", "margin": "10%"}
    whole, third = timed_use(["AAA"] * 100, "before"), timed_use(["AA-"] * 100)
    for run, baseline in ((third, whole), (timed_use(["AAB"] * 100), third)):
        rule_verdict = gate(run, baseline, rule).rules[0]
        assert rule_verdict.verdict == "inconclusive"
        assert "the judge gave no letter to" in rule_verdict.sentence.lower()
    # 60 seconds for 300 items: 200 for 1,000 usable ones, 300 where a third of them has no letter
    limit = {"quantity": "seconds_per_1000_usable", "at_most": 250}
    assert [gate(run, None, limit).rules[0].verdict for run in (whole, third)] == ["pass", "inconclusive"]
    most = timed_use(["A--"] * 100)
    assert "only 33.3 % of the delivered items" in gate(most, most, rule).rules[0].sentence


# -------------------------------------------------------------------- nothing changed


def test_sign_permutations_give_the_exact_p_value() -> None:
    # differences in items -1, -1, -2 and +1: of 16 patterns of signs -5 and -3 (three of them: the sum is -3 or less) are as low
    # -1-1-2-1 = -5, -1-1-2+1 = -3, +1-1-2-1 = -3, -1+1-2-1 = -3: 4 of 16
    names, totals = tuple("abcd"), np.full(4, 3.0)
    before, after = (
        Counts(names, np.array([3.0, 3, 3, 0]), totals),
        Counts(names, np.array([2.0, 2, 1, 1]), totals),
    )
    assert permutation_p_value(before, after, below=True) == pytest.approx(4 / 16)
    # -3 or more: all but -5
    assert permutation_p_value(before, after, below=False) == pytest.approx(15 / 16)


def test_a_regression_also_requires_the_exact_test() -> None:
    # 15 chunks lost an item and 7 won one: t says p = 0.049, of all patterns of signs 0.067 are as low
    names, totals = tuple(map(str, range(40))), np.full(40, 3.0)
    changes = np.array([-1.0] * 15 + [1.0] * 7 + [0.0] * 18)
    before, after = Counts(names, np.full(40, 2.0), totals), Counts(names, 2.0 + changes, totals)
    assert PairedRates.of(before, after)(0.9).high < 0
    assert permutation_p_value(before, after, below=True) == pytest.approx(0.0669, abs=1e-4)
    marks = {2: "AAB", 1: "ABB", 3: "AAA"}
    run = evidence({"alpha": [marks[int(n_best)] for n_best in after.hits]})
    rule = gate(run, evidence({"alpha": ["AAB"] * 40}), USABLE).rules[0]
    assert (rule.verdict, rule.p_worse) == ("inconclusive", pytest.approx(0.0669, abs=1e-4))
    assert "p = 0.067" in rule.sentence


def test_few_differing_chunks_widen_the_interval_for_any_chunk_sizes() -> None:
    # 100 chunks of 1 to 5 items; three lost an item. Two chunks of +1 and -1 have a standard error of sqrt(2/101/102) alone
    totals = np.resize([1.0, 2, 3, 4, 5], 100)
    hits = totals.copy()
    hits[[4, 44, 84]] -= 1
    names = tuple(map(str, range(100)))
    interval = PairedRates.of(Counts(names, totals, totals), Counts(names, hits, totals))(0.9)
    assert interval.high - interval.low > 2 * scipy.stats.t.ppf(0.95, 101) * np.sqrt(2 / 101 / 102)


def test_intervals_without_losses_match_the_exact_zero_event_bound() -> None:
    # 0.05^(1/60) = 0.9513: of 60 chunks none is lost with a probability of 5 % where 4.87 % are
    names, ones = tuple(map(str, range(60))), np.ones(60)
    all_hits, no_hits = Counts(names, ones, ones), Counts(names, 0 * ones, ones)
    assert PairedRates.of(all_hits, all_hits)(0.9).low == pytest.approx(0.05 ** (1 / 60) - 1)
    interval = PairedRates.of(no_hits, no_hits, higher_is_better=False)(0.9)
    assert interval.high == pytest.approx(1 - 0.05 ** (1 / 60))
    assert interval.low > -interval.high


# -------------------------------------------------------------------- times


@pytest.mark.parametrize(("n", "is_known"), [(58, False), (59, True)])
def test_p95_latency_needs_at_least_59_replies(n: int, is_known: bool) -> None:
    # the slowest of 58 replies is below the p95 with a probability of 0.95^58 = 0.051, of 59 with 0.0485
    seconds = np.random.default_rng(1).exponential(size=n)
    rule = gate(timed_run(n, seconds), None, {"quantity": "p95_latency", "at_most": 100.0}).rules[0]
    assert (rule.verdict == "pass", rule.current.has_interval) == (is_known, is_known)
    assert ("takes 59" in rule.sentence) is not is_known


@pytest.mark.slow
def test_latency_is_compared_on_samples_timed_on_both_sides() -> None:
    # the slow half was known from an earlier run, the others take twice as long
    baseline_seconds = np.random.default_rng(0).lognormal(0, 0.3, 200)
    baseline_seconds[:100] *= 10
    run_seconds = np.where(np.arange(200) < 100, np.nan, 2 * baseline_seconds)
    rule = gate(timed_run(200, run_seconds), timed_run(200, baseline_seconds), P95).rules[0]
    p95 = np.quantile(baseline_seconds[100:], 0.95)
    assert rule.verdict == "regression"
    assert (rule.baseline.value, rule.change.value) == pytest.approx((p95, p95))


def test_different_price_dates_are_stated_beside_a_cost() -> None:
    def priced_run(text: str) -> Evidence:
        run = evidence({"alpha": draw_letters(60, 0.8)})
        return with_server(run, work_s=60.0, price=0.1, currency="EUR", price_basis=text)

    rule = {"quantity": "cost_per_1000_usable", "margin": "20%"}
    recent, earlier = (
        priced_run("EUR 6.00 per hour, l4, as of 2026-01-01"),
        priced_run("EUR 5.00 per hour, l4, as of 2025-01-01"),
    )
    sentence = "Priced at EUR 6.00 per hour, l4, as of 2026-01-01, the baseline at EUR 5.00"
    assert [sentence in gate(recent, baseline, rule).rules[0].sentence for baseline in (earlier, recent)] == [
        True,
        False,
    ]


def test_an_alpha_below_the_resampling_resolution_is_reported() -> None:
    run = timed_run(200, np.random.default_rng(0).lognormal(0, 0.3, 200))
    rule = gate(run, run, P95, alpha=0.0001).rules[0]
    assert (rule.verdict, "4,000 resamples" in rule.sentence) == ("inconclusive", True)


# -------------------------------------------------------------------- evidence that does not match


def test_a_baseline_whose_chunks_do_not_match_its_digest_is_refused() -> None:
    run, smaller_run = evidence({"alpha": draw_letters(100, 0.8)}), evidence({"alpha": draw_letters(90, 0.8)})
    baseline = replace(smaller_run, source=run.source.model_copy(update={"name": "before"}))
    with pytest.raises(DataError, match=r"before: .* run.*\(10 differ"):
        gate(run, baseline, USABLE)


def test_a_run_without_candidates_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"alpha": draw_letters(20, 0.8)})
    settings = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps({**settings, "candidates": {}}))
    for name in ("generations.jsonl", "grades.jsonl"):
        (run / name).write_text("")
    with pytest.raises(DataError, match=r"run: .*no candidate"):
        EvidenceReader(config=Config()).run(run)


def test_a_stratum_missing_from_the_run_is_inconclusive() -> None:
    baseline = evidence({"alpha": ["AAA"] * 200}, identity={"samples_digest": "0" * 64})
    run = evidence({"alpha": ["AAA"] * 200})
    run = replace(run, strata=np.full(200, "valves"))
    report = gate(run, baseline, {**USABLE, "by": "stratum"}, samples="may differ")
    assert {rule.id: rule.verdict for rule in report.rules} == {
        "usable_rate[pumps]": "inconclusive",
        "usable_rate[valves]": "pass",
    }


def test_a_run_against_itself_is_noted() -> None:
    run = evidence({"alpha": draw_letters(100, 0.8)})
    (note,) = gate(run, run, USABLE).notes
    assert "same run" in note


# -------------------------------------------------------------------- wording of results


def test_the_headline_says_how_many_more_chunks_an_interval_needs() -> None:
    report = gate(evidence({"alpha": ["AAA"] * 9}), evidence({"alpha": ["AAA"] * 9}), USABLE)
    assert "1 more chunk" in report.headline


def test_a_rough_interval_names_its_number_of_clusters() -> None:
    report = gate(evidence({"alpha": ["AAA"] * 12}), None, {"quantity": "usable_rate", "at_least": 0.5})
    assert (report.outcome, "12 clusters" in report.rules[0].sentence) == ("pass", True)
