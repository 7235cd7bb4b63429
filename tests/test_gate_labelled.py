"""Gate rules on a usable rate corrected by labels: which rules they decide, and compatibility with old policies and files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gate_runs import TODAY, evidence, run_data
from qaeval.errors import DataError
from qaeval.gate.baseline import read_baseline, write_baseline
from qaeval.gate.correction import labelled_estimate
from qaeval.gate.decide import decide
from qaeval.gate.evidence import Evidence, evidence_of
from qaeval.gate.model import RuleVerdict
from qaeval.gate.policy import Policy
from qaeval.gate.rules import GateInputs, cases_of, verdicts_of
from qaeval.gate.sequential import require_sequential
from qaeval.records import Label
from report_builders import case
from test_labelled import labels_of

approx = pytest.approx

N, SIZE = 40, 2
TRUTH = ["AA", "AC", "CC", "AC"] * 10
"""Half of the items are usable."""
LENIENT = ["AA", "AA", "CC", "AA"] * 10
"""The judge gives an A to half of the items that are not usable: 75 %."""


def label_first_chunks(
    letters: Sequence[str], truth: Sequence[str], n_labelled: int, **label_fields: str
) -> tuple[Label, ...]:
    """Label the first n chunks of alpha."""
    return labels_of(
        case({"alpha": letters}, items_per_sample=SIZE), {"alpha": truth}, range(n_labelled), **label_fields
    )


def make_evidence(
    letters: Sequence[str], truth: Sequence[str], n_labelled: int, **evidence_options: Any
) -> Evidence:
    return evidence(
        {"alpha": letters}, labels=label_first_chunks(letters, truth, n_labelled), **evidence_options
    )


def gate_verdict(inputs_run: Evidence, baseline: Evidence | None, **rule: Any) -> RuleVerdict:
    policy = Policy.model_validate({"rules": [{"quantity": "usable_rate", **rule}]})
    inputs = GateInputs(policy=policy, run=inputs_run, baseline=baseline, candidates={}, today=TODAY)
    (result,) = verdicts_of(cases_of(inputs), policy.alpha)
    return result


def test_a_corrected_limit_is_decided_by_labels_not_by_a_lenient_judge() -> None:
    lenient_run = make_evidence(["AA"] * N, TRUTH, N)
    assert gate_verdict(lenient_run, None, at_least=0.7).verdict == "pass"
    corrected = gate_verdict(lenient_run, None, at_least=0.7, corrected=True)
    assert (corrected.verdict, corrected.labelled_by, corrected.n_labelled_chunks) == (
        "regression",
        "anna",
        N,
    )
    assert corrected.current is not None
    assert corrected.current.value == approx(0.5)


@pytest.mark.slow
def test_a_loss_the_judge_misses_is_a_regression_by_labels() -> None:
    baseline = make_evidence(TRUTH, TRUTH, N, name="main")
    current = make_evidence(TRUTH, ["AC", "CC", "CC", "AC"] * 10, N)
    assert gate_verdict(current, baseline, margin=0.1).verdict == "pass"
    corrected = gate_verdict(current, baseline, margin=0.1, corrected=True)
    assert corrected.verdict == "regression"
    assert corrected.change is not None
    assert corrected.change.value == approx(-0.25)


def test_labels_that_refute_the_judge_prevent_a_pass_by_its_letters() -> None:
    # the judge gives an A to everything, and half of it is a C
    refuted = make_evidence(["AA"] * N, TRUTH, N)

    def outcome(**rule: Any) -> str:
        policy = Policy.model_validate({"rules": [{"quantity": "usable_rate", "margin": 0.3, **rule}]})
        inputs = GateInputs(policy=policy, run=refuted, baseline=refuted, candidates={}, today=TODAY)
        report = decide(inputs)
        assert ("anna's labels" in report.headline) is (report.outcome == "untrusted")
        return report.outcome

    assert [outcome(), outcome(corrected=True), outcome(corrected="auto")] == ["untrusted", "pass", "pass"]


@pytest.mark.slow
@pytest.mark.parametrize(("n_run", "n_baseline"), [(9, N), (N, 9), (0, N)])
def test_too_few_labels_are_inconclusive_or_fall_back_to_the_judge(n_run: int, n_baseline: int) -> None:
    baseline, current = (
        make_evidence(TRUTH, TRUTH, n_baseline, name="main"),
        make_evidence(TRUTH, TRUTH, n_run),
    )
    strict = gate_verdict(current, baseline, margin=0.1, corrected=True)
    assert (strict.verdict, strict.change, strict.labelled_by) == ("inconclusive", None, "")
    automatic = gate_verdict(current, baseline, margin=0.1, corrected="auto")
    assert automatic == gate_verdict(current, baseline, margin=0.1)


def test_auto_uses_labels_when_both_runs_have_enough() -> None:
    baseline, current = make_evidence(TRUTH, TRUTH, 20, name="main"), make_evidence(TRUTH, TRUTH, 20)
    assert gate_verdict(current, baseline, margin=0.1, corrected="auto") == gate_verdict(
        current, baseline, margin=0.1, corrected=True
    )


def test_different_samples_are_compared_by_two_corrected_rates() -> None:
    baseline = make_evidence(TRUTH, TRUTH, N, name="main", identity={"samples_digest": "o" * 64})
    corrected = gate_verdict(make_evidence(LENIENT, TRUTH, N), baseline, margin=0.1, corrected=True)
    assert corrected.change is not None
    assert corrected.change.value == approx(0.0)
    assert corrected.change.method.startswith("unpaired")


def test_gate_and_report_correct_a_rate_alike() -> None:
    """All items below A are labelled and a quarter of the others, without probabilities: both estimate these from the letters."""
    judged = case({"alpha": LENIENT}, items_per_sample=SIZE)
    labels = label_first_chunks(LENIENT, TRUTH, N)
    letters = "".join(LENIENT)
    some = tuple(
        label
        for index, label in enumerate(labels)
        if letters[index] != "A" or letters[:index].count("A") % 4 == 0
    )
    (rate,) = (
        rate for rate in judged.with_rows(labels=some).report().labelled_rates if rate.name == "usable"
    )
    run = evidence({"alpha": LENIENT}, labels=some)
    estimate = labelled_estimate([(run, run.candidates[0])], None)
    assert estimate is not None
    assert estimate.deciding is not None
    by_gate = estimate.deciding(0.95)
    assert (by_gate.value, by_gate.low, by_gate.high) == approx(
        (rate.rate.value, rate.rate.low, rate.rate.high)
    )


def test_human_labels_take_precedence_over_model_labels() -> None:
    by_model = label_first_chunks(TRUTH, LENIENT, N, rater="model", rater_kind="model")
    current = evidence({"alpha": TRUTH}, labels=(*by_model, *label_first_chunks(TRUTH, TRUTH, 12)))
    assert gate_verdict(current, None, at_least=0.3, corrected=True).labelled_by == "anna"


def test_a_baseline_file_keeps_the_labels(tmp_path: Path) -> None:
    baseline = make_evidence(TRUTH, TRUTH, 20, name="main")
    write_baseline(baseline, tmp_path / "baseline.json")
    stored = read_baseline(tmp_path / "baseline.json")
    assert isinstance(stored, Evidence)
    assert stored.labels[0].letters == baseline.labels[0].letters
    current = make_evidence(LENIENT, TRUTH, 20)
    assert gate_verdict(current, stored, margin=0.1, corrected=True) == gate_verdict(
        current, baseline, margin=0.1, corrected=True
    )


@pytest.mark.slow
def test_a_baseline_of_an_earlier_version_has_no_labels_by_item() -> None:
    baseline = make_evidence(TRUTH, TRUTH, N, name="main")
    old_baseline = replace(baseline, labels=tuple(replace(rater, letters={}) for rater in baseline.labels))
    assert (
        gate_verdict(make_evidence(TRUTH, TRUTH, N), old_baseline, margin=0.1, corrected=True).verdict
        == "inconclusive"
    )
    assert (
        gate_verdict(make_evidence(TRUTH, TRUTH, N), old_baseline, margin=0.1, corrected="auto").verdict
        == "pass"
    )


def test_old_policies_keep_their_digest() -> None:
    rule = {"quantity": "usable_rate", "margin": 0.05}
    old = Policy.model_validate({"rules": [rule]})
    assert "corrected" not in old.model_dump(mode="json")["rules"][0]
    assert old.digest == Policy.model_validate({"rules": [{**rule, "corrected": False}]}).digest
    assert old.digest != Policy.model_validate({"rules": [{**rule, "corrected": "auto"}]}).digest


def test_correction_is_refused_for_other_rates_and_sequential_gates() -> None:
    with pytest.raises(ValueError, match="corrected"):
        Policy.model_validate({"rules": [{"quantity": "success_rate", "margin": 0.05, "corrected": True}]})
    policy = Policy.model_validate(
        {"rules": [{"quantity": "usable_rate", "margin": 0.05, "corrected": "auto"}]}
    )
    with pytest.raises(DataError, match="corrected"):
        require_sequential(policy)


def test_a_tuned_judge_is_not_measured_on_its_tuning_labels() -> None:
    all_labels = label_first_chunks(LENIENT, TRUTH, N)
    tuning, held_out = all_labels[:30], all_labels[30:]
    split = tuple(label.model_copy(update={"split": "tuning"}) for label in tuning) + held_out
    data = run_data({"alpha": LENIENT}, labels=split)
    side = evidence({"alpha": LENIENT}).source
    letters_by_tuned = {
        tuned: evidence_of(replace(data, judge_tuned=tuned), side, machines={}).labels[0].letters
        for tuned in (True, False)
    }
    assert set(letters_by_tuned[True]) == {label.item_id for label in held_out}
    assert set(letters_by_tuned[False]) == {label.item_id for label in all_labels}


@pytest.mark.slow
def test_the_labels_digest_covers_rater_item_letter_and_flags_in_any_order() -> None:
    all_labels = label_first_chunks(LENIENT, TRUTH, N)

    def digest_of(*rows: Label) -> str:
        return evidence({"alpha": LENIENT}, labels=rows).labels_digest

    full_digest = digest_of(*all_labels)
    assert digest_of(*reversed(all_labels)) == full_digest
    assert digest_of() == ""
    changes = ({"letter": "B"}, {"flags": ("hallucination",)}, {"rater": "bert"})
    changed_digests = {
        digest_of(*all_labels[1:], all_labels[0].model_copy(update=change)) for change in changes
    }
    assert len({full_digest, *changed_digests, digest_of(*all_labels[1:])}) == 5
    assert digest_of(*all_labels[1:], all_labels[0].model_copy(update={"note": "why"})) == full_digest
