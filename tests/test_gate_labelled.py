"""Rules of a gate about a usable rate that labels correct: which rule they decide, and what old policies and files keep."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gate_runs import TODAY, evidence, run_data
from qaeval.errors import DataError
from qaeval.gate.baseline import read_baseline, write_baseline
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


def labels(words: Sequence[str], truth: Sequence[str], n: int, **more: str) -> tuple[Label, ...]:
    """Label the first n chunks of alpha."""
    return labels_of(case({"alpha": words}, items_per_sample=SIZE), {"alpha": truth}, range(n), **more)


def run(words: Sequence[str], truth: Sequence[str], n_labelled: int, **more: Any) -> Evidence:
    return evidence({"alpha": words}, labels=labels(words, truth, n_labelled), **more)


def verdict(inputs_run: Evidence, baseline: Evidence | None, **rule: Any) -> RuleVerdict:
    policy = Policy.model_validate({"rules": [{"quantity": "usable_rate", **rule}]})
    inputs = GateInputs(policy=policy, run=inputs_run, baseline=baseline, candidates={}, today=TODAY)
    (result,) = verdicts_of(cases_of(inputs), policy.alpha)
    return result


def test_a_limit_is_held_by_the_labels_and_not_by_a_lenient_judge() -> None:
    today = run(["AA"] * N, TRUTH, N)
    assert verdict(today, None, at_least=0.7).verdict == "pass"
    corrected = verdict(today, None, at_least=0.7, corrected=True)
    assert (corrected.verdict, corrected.labelled_by, corrected.n_labelled_chunks) == (
        "regression",
        "anna",
        N,
    )
    assert corrected.current is not None
    assert corrected.current.value == approx(0.5)


@pytest.mark.slow
def test_a_loss_that_the_judge_does_not_see_is_a_regression_by_labels() -> None:
    before = run(TRUTH, TRUTH, N, name="main")
    today = run(TRUTH, ["AC", "CC", "CC", "AC"] * 10, N)
    assert verdict(today, before, margin=0.1).verdict == "pass"
    corrected = verdict(today, before, margin=0.1, corrected=True)
    assert corrected.verdict == "regression"
    assert corrected.change is not None
    assert corrected.change.value == approx(-0.25)


def test_labels_that_refute_the_judge_leave_its_letters_no_pass_and_decide_themselves() -> None:
    # the judge gives an A to everything, and half of it is a C
    refuted = run(["AA"] * N, TRUTH, N)

    def outcome(**rule: Any) -> str:
        policy = Policy.model_validate({"rules": [{"quantity": "usable_rate", "margin": 0.3, **rule}]})
        inputs = GateInputs(policy=policy, run=refuted, baseline=refuted, candidates={}, today=TODAY)
        report = decide(inputs)
        assert ("anna's labels" in report.headline) is (report.outcome == "untrusted")
        return report.outcome

    assert [outcome(), outcome(corrected=True), outcome(corrected="auto")] == ["untrusted", "pass", "pass"]


@pytest.mark.slow
@pytest.mark.parametrize(("n_run", "n_baseline"), [(9, N), (N, 9), (0, N)])
def test_few_labels_on_either_side_cannot_be_evaluated_or_leave_it_to_the_judge(
    n_run: int, n_baseline: int
) -> None:
    before, today = run(TRUTH, TRUTH, n_baseline, name="main"), run(TRUTH, TRUTH, n_run)
    strict = verdict(today, before, margin=0.1, corrected=True)
    assert (strict.verdict, strict.change, strict.labelled_by) == ("inconclusive", None, "")
    automatic = verdict(today, before, margin=0.1, corrected="auto")
    assert automatic == verdict(today, before, margin=0.1)


def test_auto_takes_labels_where_there_are_enough_in_both() -> None:
    before, today = run(TRUTH, TRUTH, 20, name="main"), run(TRUTH, TRUTH, 20)
    assert verdict(today, before, margin=0.1, corrected="auto") == verdict(
        today, before, margin=0.1, corrected=True
    )


def test_other_samples_are_compared_by_two_corrected_rates() -> None:
    before = run(TRUTH, TRUTH, N, name="main", identity={"samples_digest": "o" * 64})
    corrected = verdict(run(LENIENT, TRUTH, N), before, margin=0.1, corrected=True)
    assert corrected.change is not None
    assert corrected.change.value == approx(0.0)
    assert corrected.change.method.startswith("unpaired")


def test_people_decide_before_models() -> None:
    by_model = labels(TRUTH, LENIENT, N, rater="model", rater_kind="model")
    today = evidence({"alpha": TRUTH}, labels=(*by_model, *labels(TRUTH, TRUTH, 12)))
    assert verdict(today, None, at_least=0.3, corrected=True).labelled_by == "anna"


def test_a_baseline_file_keeps_the_labels(tmp_path: Path) -> None:
    before = run(TRUTH, TRUTH, 20, name="main")
    write_baseline(before, tmp_path / "baseline.json")
    read = read_baseline(tmp_path / "baseline.json")
    assert isinstance(read, Evidence)
    assert read.labels[0].letters == before.labels[0].letters
    today = run(LENIENT, TRUTH, 20)
    assert verdict(today, read, margin=0.1, corrected=True) == verdict(
        today, before, margin=0.1, corrected=True
    )


@pytest.mark.slow
def test_a_baseline_of_an_earlier_version_has_no_labels_by_item() -> None:
    before = run(TRUTH, TRUTH, N, name="main")
    old = replace(before, labels=tuple(replace(rater, letters={}) for rater in before.labels))
    assert verdict(run(TRUTH, TRUTH, N), old, margin=0.1, corrected=True).verdict == "inconclusive"
    assert verdict(run(TRUTH, TRUTH, N), old, margin=0.1, corrected="auto").verdict == "pass"


def test_old_policies_keep_their_hash() -> None:
    rule = {"quantity": "usable_rate", "margin": 0.05}
    old = Policy.model_validate({"rules": [rule]})
    assert "corrected" not in old.model_dump(mode="json")["rules"][0]
    assert old.digest == Policy.model_validate({"rules": [{**rule, "corrected": False}]}).digest
    assert old.digest != Policy.model_validate({"rules": [{**rule, "corrected": "auto"}]}).digest


def test_labels_correct_the_usable_rate_alone_and_no_sequential_gate() -> None:
    with pytest.raises(ValueError, match="corrected"):
        Policy.model_validate({"rules": [{"quantity": "success_rate", "margin": 0.05, "corrected": True}]})
    policy = Policy.model_validate(
        {"rules": [{"quantity": "usable_rate", "margin": 0.05, "corrected": "auto"}]}
    )
    with pytest.raises(DataError, match="corrected"):
        require_sequential(policy)


def test_a_tuned_judge_is_not_measured_on_the_labels_that_it_was_tuned_on() -> None:
    given = labels(LENIENT, TRUTH, N)
    tuning, other = given[:30], given[30:]
    split = tuple(label.model_copy(update={"split": "tuning"}) for label in tuning) + other
    data = run_data({"alpha": LENIENT}, labels=split)
    side = evidence({"alpha": LENIENT}).source
    seen = {
        tuned: evidence_of(replace(data, judge_tuned=tuned), side, machines={}).labels[0].letters
        for tuned in (True, False)
    }
    assert set(seen[True]) == {label.item_id for label in other}
    assert set(seen[False]) == {label.item_id for label in given}


@pytest.mark.slow
def test_labels_have_a_digest_of_rater_item_letter_and_flags_in_any_order() -> None:
    given = labels(LENIENT, TRUTH, N)

    def digest_of(*rows: Label) -> str:
        return evidence({"alpha": LENIENT}, labels=rows).labels_digest

    whole = digest_of(*given)
    assert digest_of(*reversed(given)) == whole
    assert digest_of() == ""
    changes = ({"letter": "B"}, {"flags": ("hallucination",)}, {"rater": "bert"})
    changed = {digest_of(*given[1:], given[0].model_copy(update=change)) for change in changes}
    assert len({whole, *changed, digest_of(*given[1:])}) == 5
    assert digest_of(*given[1:], given[0].model_copy(update={"note": "why"})) == whole
