"""The choice under the user's weights and the range of each weight, against hand-computed values and a grid search."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from command import qaeval
from qaeval.agreement.model import JudgeDiscrimination
from qaeval.comparison.decision import Decision, WeightRange, decide, weight_range, write_decision
from qaeval.comparison.report import Report
from qaeval.errors import UsageError
from report_builders import Case, candidate, case, items_of, label_of

approx = pytest.approx

HALF_USABLE, ALL_USABLE = ["AB"] * 12, ["AA"] * 12
QUALITY_AND_LICENCE_ONLY = {
    "reliability": 0.0,
    "cost": 0.0,
    "speed": 0.0,
    "maintenance": 0.0,
    "sovereignty": 0.0,
}
"""Weights that leave only quality and licence."""


def open_against_good() -> Case:
    """Alpha is open and half as good; beta is restricted and good."""
    return case(
        {"alpha": HALF_USABLE, "beta": ALL_USABLE},
        items_per_sample=2,
        alpha=candidate("alpha", openness="open source"),
        beta=candidate("beta", openness="restricted"),
    )


def ranges_by_criterion(decision: Decision) -> dict[str, WeightRange]:
    return {entry.criterion: entry for entry in decision.ranges}


def decision_text(decision: Decision) -> str:
    return " ".join(
        text for section in write_decision(decision) for text in (section.title, *section.paragraphs)
    )


def test_the_range_of_a_weight_matches_a_hand_computation() -> None:
    # beta leads on quality by 0.5, alpha on licence by 1: with weights 4 and 1 the sums are 4 and 3
    decision = decide(open_against_good().report(), {**QUALITY_AND_LICENCE_ONLY, "quality": 4, "licence": 1})
    assert decision.choice == "beta"
    quality, licence = ranges_by_criterion(decision)["quality"], ranges_by_criterion(decision)["licence"]
    assert (quality.low, quality.below, quality.high) == (approx(2), "alpha", None)  # 2 x 0.5 = 1 x 1
    assert (licence.high, licence.above, licence.low) == (approx(2), "alpha", None)  # 4 x 0.5 = 2 x 1
    assert quality.is_given
    assert "(−50.0 %)" in decision_text(decision)


def test_a_judge_based_interval_does_not_decide_between_label_based_scores() -> None:
    letters = {"alpha": ["AAB"] * 40, "beta": ["ABB"] * 40}
    judged_case = case(letters)
    # one labelled item per chunk: enough for the rates, not enough in any chunk for the difference
    labels = tuple(
        label_of(item, letters[name][0][index % 3])
        for name in letters
        for index, item in enumerate(items_of(judged_case, name))
        if index // 3 % 3 == index % 3
    )
    report = judged_case.with_rows(labels=labels).report()
    assert report.usable_rates()["alpha"] is not report.candidates[0].usable
    assert report.differences[0].deciding is None
    (rival,) = decide(report, {**QUALITY_AND_LICENCE_ONLY, "quality": 4, "licence": 1}).rivals
    assert (rival.standing, rival.difference and rival.difference.low) == ("not known", None)
    assert "too few chunks are labelled" in (rival.reason or "")


def test_a_weight_of_zero_that_would_change_the_choice_is_named() -> None:
    # alpha is half as good and open: without a weight for quality it comes first
    text = decision_text(
        decide(open_against_good().report(), {**QUALITY_AND_LICENCE_ONLY, "quality": 0, "licence": 1})
    )
    assert "with a weight of quality above 2 in place of 0, beta comes first" in text
    assert "No single weight" not in text


def test_a_distant_bound_is_shown_as_a_multiple() -> None:
    # beta leads on quality by 0.5 and alpha on licence by 1: 40 x 0.5 = 20 x 1, twenty times the weight of licence
    decision = decide(open_against_good().report(), {**QUALITY_AND_LICENCE_ONLY, "quality": 40, "licence": 1})
    assert decision.choice == "beta"
    quality, licence = ranges_by_criterion(decision)["quality"], ranges_by_criterion(decision)["licence"]
    assert (quality.low, licence.high) == (approx(2), approx(20))
    assert "(−95.0 %)" in decision_text(decision)
    assert "(20 times)" in decision_text(decision.model_copy(update={"ranges": (licence,)}))


def test_crossing_the_bound_of_a_weight_changes_the_choice() -> None:
    report = open_against_good().report()
    weights = {**QUALITY_AND_LICENCE_ONLY, "quality": 4, "licence": 1}
    assert decide(report, {**weights, "quality": 2.001}).choice == "beta"
    assert decide(report, {**weights, "quality": 1.999}).choice == "alpha"
    tied = decide(report, {**weights, "quality": 2})
    assert (tied.choice, set(tied.tied), tied.ranges, tied.rivals) == (None, {"alpha", "beta"}, (), ())
    assert "tied" in decision_text(tied)


SCORES = st.fixed_dictionaries({name: st.integers(0, 4).map(lambda n: n / 4) for name in ("a", "b", "c")})
WEIGHTS = st.fixed_dictionaries({name: st.integers(0, 5).map(float) for name in ("a", "b", "c")})


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(SCORES, min_size=2, max_size=4), WEIGHTS, st.sampled_from("abc"))
def test_a_range_matches_a_grid_search(
    scores: list[dict[str, float]], weights: dict[str, float], criterion: str
) -> None:
    scores_by_model = {f"m{index}": model_scores for index, model_scores in enumerate(scores)}

    def sums(weight: float) -> dict[str, float]:
        new_weights = {**weights, criterion: weight}
        return {
            name: sum(new_weights[key] * value for key, value in model_scores.items())
            for name, model_scores in scores_by_model.items()
        }

    def leads(weight: float) -> bool:
        totals = sums(weight)
        return all(totals["m0"] > rival_sum + 1e-9 for name, rival_sum in totals.items() if name != "m0")

    assume(leads(weights[criterion]))
    allowed = weight_range(criterion, "m0", scores_by_model, weights)
    for weight in (0.003 + 0.11 * step for step in range(400)):  # roots are quarters: never on this grid
        is_inside = (allowed.low is None or weight > allowed.low) and (
            allowed.high is None or weight < allowed.high
        )
        assert leads(weight) == is_inside, (weight, allowed)
    for bound, rival in ((allowed.low, allowed.below), (allowed.high, allowed.above)):
        if bound is not None:
            assert sums(bound)["m0"] == approx(sums(bound)[rival])


@pytest.mark.slow
def test_a_criterion_unknown_for_one_candidate_is_left_out_and_reported() -> None:
    both_known = open_against_good()
    beta_unknown = replace(
        both_known, candidates=(candidate("alpha", openness="open source"), candidate("beta"))
    )
    decision = decide(beta_unknown.report(), {"quality": 5, "licence": 100})
    (licence,) = [criterion for criterion in decision.left_out if criterion.criterion == "licence"]
    assert licence.unknown == ("beta",)
    assert licence.could_win == ("alpha",)  # beta may have the worst licence of all
    assert decision.choice == "beta"
    assert "alpha could come first" in decision_text(decision)
    light = decide(beta_unknown.report(), {"quality": 5, "licence": 0.1})
    assert [criterion.could_win for criterion in light.left_out if criterion.criterion == "licence"] == [()]


def test_an_unknown_criterion_may_break_a_tie() -> None:
    report = open_against_good().report()
    tied_weights = {**QUALITY_AND_LICENCE_ONLY, "quality": 2, "licence": 1}

    def maintenance(weight: float) -> tuple[tuple[str, ...], str]:
        decision = decide(report, {**tied_weights, "maintenance": weight})
        assert set(decision.tied) == {"alpha", "beta"}
        return next(
            criterion.could_win for criterion in decision.left_out if criterion.criterion == "maintenance"
        ), decision_text(decision)

    could_win, text = maintenance(3)
    assert set(could_win) == {"alpha", "beta"}
    assert "it could break the tie: beta or alpha could come first" in text
    could_win, text = maintenance(0)
    assert could_win == ()
    assert "could not break the tie" in text


@pytest.mark.parametrize(
    ("openness", "weight", "could_win"),
    [("open source", 100, ()), ("restricted", 3, ()), ("restricted", 5, ("gamma",))],
)
def test_a_third_candidate_breaks_a_tie_only_with_a_better_score(
    openness: str, weight: float, could_win: tuple[str, ...]
) -> None:
    letters = {"alpha": ALL_USABLE, "beta": ALL_USABLE, "gamma": ["BB"] * 12}
    known_licences = {name: candidate(name, openness=openness) for name in ("alpha", "beta")}
    report = case(letters, items_per_sample=2, **known_licences, gamma=candidate("gamma")).report()
    decision = decide(report, {**QUALITY_AND_LICENCE_ONLY, "quality": 4, "licence": weight})
    (licence,) = [criterion for criterion in decision.left_out if criterion.criterion == "licence"]
    assert (set(decision.tied), licence.unknown) == ({"alpha", "beta"}, ("gamma",))
    assert licence.could_win == could_win


def test_a_refused_choice_does_not_speculate_about_unknown_criteria() -> None:
    report = case({"alpha": HALF_USABLE, "beta": ALL_USABLE}, items_per_sample=2).report()
    blind_judge = JudgeDiscrimination(outcome="tells nothing apart")
    decision = decide(report.model_copy(update={"controls": blind_judge}), {"maintenance": 3})
    assert decision.refused
    assert "counts for no candidate." in decision_text(decision)
    assert "could" not in " ".join(
        text for text in write_decision(decision)[0].paragraphs if text.startswith("maintenance")
    )


@pytest.mark.parametrize("licence", [0.67, 1.68, 1.995])
def test_the_lead_is_the_difference_of_the_means_in_the_table(licence: float) -> None:
    decision = decide(
        open_against_good().report(), {**QUALITY_AND_LICENCE_ONLY, "quality": 4, "licence": licence}
    )
    (section,) = write_decision(decision)
    beta, alpha = (Decimal(cell) for cell in section.tables[0].rows[-1][2:])
    lead = f"by {beta - alpha}" if beta != alpha else "by less than 0.01"
    assert section.paragraphs[0].startswith(f"It leads alpha {lead}, ")


def test_the_choice_stands_only_beyond_the_uncertainty_of_quality() -> None:
    report = open_against_good().report()
    clear_decision = decide(report, {**QUALITY_AND_LICENCE_ONLY, "quality": 4, "licence": 0})
    (rival,) = clear_decision.rivals
    assert (rival.candidate, rival.needed, rival.standing) == ("alpha", approx(0), "stands")
    assert rival.difference is not None
    assert rival.difference.value == approx(0.5)  # beta minus alpha
    # licence 1.9, quality 4: alpha gains 1.9, so beta must be 0.475 ahead; the interval of the difference decides
    (close_rival,) = decide(report, {**QUALITY_AND_LICENCE_ONLY, "quality": 4, "licence": 1.9}).rivals
    assert close_rival.needed == approx(0.475)
    assert close_rival.difference is not None
    assert close_rival.difference.low is not None
    assert close_rival.standing == ("stands" if close_rival.difference.low > 0.475 else "open")


def uncertain_report() -> Report:
    """Beta has one usable item more in some chunks and fewer in others: a small difference with a wide interval."""
    letters = {"alpha": ["AB", "BB", "AA", "BB"] * 5, "beta": ["AA", "AB", "AB", "BB"] * 5}
    return case(letters, items_per_sample=2).report()


@pytest.mark.slow
def test_a_choice_by_an_uncertain_difference_is_open() -> None:
    decision = decide(uncertain_report(), {"quality": 5})
    assert decision.choice == "beta"
    assert [rival.standing for rival in decision.rivals] == ["open"]
    assert "alpha may" in decision_text(decision)


@pytest.mark.parametrize(("n_better", "standing"), [(6, "stands"), (5, "open")])
def test_a_choice_by_quality_alone_agrees_with_the_verdict(n_better: int, standing: str) -> None:
    """One item more in 6 of 20 chunks: the sign-flip test decides (p = 2/64), and the lower end of the interval is 0; 5 do not (2/32)."""
    letters = {"alpha": ["AAB"] * 20, "beta": ["AAA"] * n_better + ["AAB"] * (20 - n_better)}
    decision = decide(case(letters).report(), {**QUALITY_AND_LICENCE_ONLY, "quality": 1, "licence": 0})
    (rival,) = decision.rivals
    assert rival.difference is not None
    assert (decision.choice, rival.needed, rival.standing) == ("beta", approx(0), standing)
    assert (rival.difference.low == 0) == (standing == "stands")
    assert decision.verdict.kind == ("use" if standing == "stands" else "undecided")


def test_the_difference_is_reversed_when_the_first_candidate_is_the_choice() -> None:
    letters = {"alpha": ALL_USABLE, "beta": HALF_USABLE}
    (rival,) = decide(case(letters, items_per_sample=2).report(), {"quality": 5}).rivals
    assert rival.difference is not None
    assert (rival.candidate, rival.difference.value) == ("beta", approx(0.5))
    assert (rival.difference.low or 0) <= 0.5 <= (rival.difference.high or 0)


def test_too_few_chunks_leave_the_standing_unknown_with_the_reason() -> None:
    decision = decide(case({"alpha": ["AA"] * 5, "beta": ["AB"] * 5}, items_per_sample=2).report(), {})
    (rival,) = decision.rivals
    assert rival.standing == "not known"
    assert "fewer than 10" in (rival.reason or "")
    assert "chunks: no interval" in decision_text(decision)


@pytest.mark.slow
def test_without_a_weight_quality_decides_nothing() -> None:
    (rival,) = decide(
        open_against_good().report(), {**QUALITY_AND_LICENCE_ONLY, "quality": 0, "licence": 1}
    ).rivals
    assert (rival.needed, rival.standing, rival.reason) == (None, "stands", "quality has no weight")


@pytest.mark.slow
def test_quality_is_unknown_when_no_item_is_usable() -> None:
    unusable_case = case(
        {"alpha": ["CC"] * 12, "beta": ["CC"] * 12},
        items_per_sample=2,
        alpha=candidate("alpha", openness="open source"),
        beta=candidate("beta", openness="restricted"),
    )
    decision = decide(unusable_case.report(), {})
    (rival,) = decision.rivals
    assert (decision.choice, rival.standing, rival.needed) == ("alpha", "not known", None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"qualty": 5.0}, "Did you mean 'quality'"),
        ({"quality": -1.0}, "0 or more"),
        ({**QUALITY_AND_LICENCE_ONLY, "quality": 0.0, "licence": 0.0}, "has the weight 0"),
    ],
)
def test_invalid_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decide(open_against_good().report(), weights)


def test_a_single_candidate_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to decide"):
        decide(case({"alpha": ALL_USABLE}, items_per_sample=2).report(), {})


@pytest.mark.slow
def test_floors_are_not_weighed_against_hosted_candidates() -> None:
    letters = {"alpha": HALF_USABLE, "beta": ALL_USABLE, "floor": HALF_USABLE}
    floor_case = case(letters, items_per_sample=2, floor=candidate("floor", kind="embedded"))
    choices = floor_case.report().timing.choice
    assert {entry.candidate for entry in choices} == {"alpha", "beta"}
    assert all(entry.counts for choice in choices for entry in choice.criteria if entry.name == "cost")


def test_a_candidate_without_usable_items_scores_0_on_cost_and_others_keep_theirs() -> None:
    unusable_case = case({"alpha": ["CC"] * 12, "beta": ALL_USABLE}, items_per_sample=2)
    scores = {
        choice.candidate: [criterion.score for criterion in choice.criteria if criterion.name == "cost"]
        for choice in unusable_case.report().timing.choice
    }
    assert scores == {"alpha": [0.0], "beta": [1.0]}


@pytest.mark.slow
def test_the_command_weighs_a_run_and_refuses_malformed_weights(tmp_path: Path) -> None:
    comparison = qaeval(
        "compare", "embedded-lead", "embedded-salient", "--n", "12", "--out", "run", cwd=tmp_path
    )
    assert comparison.returncode == 0, comparison.stderr
    decision = qaeval("decide", "run", "--weight", "quality=5", cwd=tmp_path)
    assert decision.returncode == 0, decision.stderr
    assert "embedded-salient comes first." in decision.stdout
    assert "counts for no candidate" in decision.stdout
    document = json.loads(qaeval("decide", "run", "--weight", "quality=7", "--json", cwd=tmp_path).stdout)
    assert (document["choice"], document["weights"]["quality"]) == ("embedded-salient", 7.0)
    for weight in ("quality=much", "quality=nan", "quality=-1", "quality"):
        refused = qaeval("decide", "run", "--weight", weight, cwd=tmp_path)
        assert refused.returncode == 64
        assert "--weight" in refused.stderr
