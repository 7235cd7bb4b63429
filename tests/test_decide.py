"""Who comes first by the user's weights, and how far each weight can move: by hand, and against a search."""

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

HALF, ALL = ["AB"] * 12, ["AA"] * 12
ONLY = {"reliability": 0.0, "cost": 0.0, "speed": 0.0, "maintenance": 0.0, "sovereignty": 0.0}
"""Leaves quality and licence."""


def open_and_good() -> Case:
    """Alpha is open and half as good; beta is restricted and good."""
    return case(
        {"alpha": HALF, "beta": ALL},
        items_per_sample=2,
        alpha=candidate("alpha", openness="open source"),
        beta=candidate("beta", openness="restricted"),
    )


def ranges(found: Decision) -> dict[str, WeightRange]:
    return {one.criterion: one for one in found.ranges}


def said(found: Decision) -> str:
    return " ".join(
        text for section in write_decision(found) for text in (section.title, *section.paragraphs)
    )


def test_the_turn_of_a_weight_is_worked_by_hand() -> None:
    # beta leads on quality by 0.5, alpha on licence by 1: with weights 4 and 1 the sums are 4 and 3
    found = decide(open_and_good().report(), {**ONLY, "quality": 4, "licence": 1})
    assert found.choice == "beta"
    quality, licence = ranges(found)["quality"], ranges(found)["licence"]
    assert (quality.low, quality.below, quality.high) == (approx(2), "alpha", None)  # 2 x 0.5 = 1 x 1
    assert (licence.high, licence.above, licence.low) == (approx(2), "alpha", None)  # 4 x 0.5 = 2 x 1
    assert quality.is_given
    assert "(−50.0 %)" in said(found)


def test_an_interval_by_the_judge_does_not_decide_about_scores_by_labels() -> None:
    letters = {"alpha": ["AAB"] * 40, "beta": ["ABB"] * 40}
    run = case(letters)
    # one item of each chunk: enough for the rates, in no chunk enough for the difference
    labels = tuple(
        label_of(item, letters[name][0][place % 3])
        for name in letters
        for place, item in enumerate(items_of(run, name))
        if place // 3 % 3 == place % 3
    )
    report = run.with_rows(labels=labels).report()
    assert report.usable_rates()["alpha"] is not report.candidates[0].usable
    assert report.differences[0].deciding is None
    (rival,) = decide(report, {**ONLY, "quality": 4, "licence": 1}).rivals
    assert (rival.standing, rival.difference and rival.difference.low) == ("not known", None)
    assert "too few chunks are labelled" in (rival.reason or "")


def test_a_weight_of_zero_that_would_change_the_choice_is_named() -> None:
    # alpha is half as good and open: without a weight of quality it comes first
    text = said(decide(open_and_good().report(), {**ONLY, "quality": 0, "licence": 1}))
    assert "with a weight of quality above 2 in place of 0, beta comes first" in text
    assert "No single weight" not in text


def test_a_turn_that_is_far_away_is_told_as_a_multiple() -> None:
    # beta leads on quality by 0.5 and alpha on licence by 1: 40 x 0.5 = 20 x 1, twenty times its weight
    found = decide(open_and_good().report(), {**ONLY, "quality": 40, "licence": 1})
    assert found.choice == "beta"
    quality, licence = ranges(found)["quality"], ranges(found)["licence"]
    assert (quality.low, licence.high) == (approx(2), approx(20))
    assert "(−95.0 %)" in said(found)
    assert "(20 times)" in said(found.model_copy(update={"ranges": (licence,)}))


def test_just_beyond_the_turn_another_comes_first() -> None:
    report = open_and_good().report()
    weights = {**ONLY, "quality": 4, "licence": 1}
    assert decide(report, {**weights, "quality": 2.001}).choice == "beta"
    assert decide(report, {**weights, "quality": 1.999}).choice == "alpha"
    tied = decide(report, {**weights, "quality": 2})
    assert (tied.choice, set(tied.tied), tied.ranges, tied.rivals) == (None, {"alpha", "beta"}, (), ())
    assert "tied" in said(tied)


SCORES = st.fixed_dictionaries({name: st.integers(0, 4).map(lambda n: n / 4) for name in ("a", "b", "c")})
WEIGHTS = st.fixed_dictionaries({name: st.integers(0, 5).map(float) for name in ("a", "b", "c")})


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(SCORES, min_size=2, max_size=4), WEIGHTS, st.sampled_from("abc"))
def test_a_range_is_that_which_a_search_finds(
    scores: list[dict[str, float]], weights: dict[str, float], criterion: str
) -> None:
    named = {f"m{place}": one for place, one in enumerate(scores)}

    def sums(weight: float) -> dict[str, float]:
        moved = {**weights, criterion: weight}
        return {name: sum(moved[key] * value for key, value in own.items()) for name, own in named.items()}

    def leads(weight: float) -> bool:
        found = sums(weight)
        return all(found["m0"] > other + 1e-9 for name, other in found.items() if name != "m0")

    assume(leads(weights[criterion]))
    found = weight_range(criterion, "m0", named, weights)
    for weight in (0.003 + 0.11 * step for step in range(400)):  # roots are quarters: never on this grid
        inside = (found.low is None or weight > found.low) and (found.high is None or weight < found.high)
        assert leads(weight) == inside, (weight, found)
    for end, to in ((found.low, found.below), (found.high, found.above)):
        if end is not None:
            assert sums(end)["m0"] == approx(sums(end)[to])


@pytest.mark.slow
def test_what_is_not_known_for_one_weighs_for_nobody_and_is_said() -> None:
    made = open_and_good()
    known = replace(made, candidates=(candidate("alpha", openness="open source"), candidate("beta")))
    found = decide(known.report(), {"quality": 5, "licence": 100})
    (licence,) = [one for one in found.left_out if one.criterion == "licence"]
    assert licence.unknown == ("beta",)
    assert licence.could_win == ("alpha",)  # beta may have the worst licence of all
    assert found.choice == "beta"
    assert "alpha could come first" in said(found)
    light = decide(known.report(), {"quality": 5, "licence": 0.1})
    assert [one.could_win for one in light.left_out if one.criterion == "licence"] == [()]


def test_a_criterion_that_is_not_known_may_break_a_tie() -> None:
    report = open_and_good().report()
    tied = {**ONLY, "quality": 2, "licence": 1}

    def maintenance(weight: float) -> tuple[tuple[str, ...], str]:
        found = decide(report, {**tied, "maintenance": weight})
        assert set(found.tied) == {"alpha", "beta"}
        return next(one.could_win for one in found.left_out if one.criterion == "maintenance"), said(found)

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
def test_a_third_breaks_a_tie_of_two_only_with_a_better_score(
    openness: str, weight: float, could_win: tuple[str, ...]
) -> None:
    words = {"alpha": ALL, "beta": ALL, "gamma": ["BB"] * 12}
    known = {name: candidate(name, openness=openness) for name in ("alpha", "beta")}
    report = case(words, items_per_sample=2, **known, gamma=candidate("gamma")).report()
    found = decide(report, {**ONLY, "quality": 4, "licence": weight})
    (licence,) = [one for one in found.left_out if one.criterion == "licence"]
    assert (set(found.tied), licence.unknown) == ({"alpha", "beta"}, ("gamma",))
    assert licence.could_win == could_win


def test_a_refused_choice_says_nothing_of_what_a_criterion_could_change() -> None:
    report = case({"alpha": HALF, "beta": ALL}, items_per_sample=2).report()
    blind = JudgeDiscrimination(outcome="tells nothing apart")
    found = decide(report.model_copy(update={"controls": blind}), {"maintenance": 3})
    assert found.refused
    assert "counts for no candidate." in said(found)
    assert "could" not in " ".join(
        text for text in write_decision(found)[0].paragraphs if text.startswith("maintenance")
    )


@pytest.mark.parametrize("licence", [0.67, 1.68, 1.995])
def test_a_lead_is_the_difference_of_the_means_in_the_table(licence: float) -> None:
    found = decide(open_and_good().report(), {**ONLY, "quality": 4, "licence": licence})
    (section,) = write_decision(found)
    beta, alpha = (Decimal(cell) for cell in section.tables[0].rows[-1][2:])
    lead = f"by {beta - alpha}" if beta != alpha else "by less than 0.01"
    assert section.paragraphs[0].startswith(f"It leads alpha {lead}, ")


def test_the_uncertainty_of_quality_is_held_against_the_choice() -> None:
    report = open_and_good().report()
    sure = decide(report, {**ONLY, "quality": 4, "licence": 0})
    (rival,) = sure.rivals
    assert (rival.candidate, rival.needed, rival.standing) == ("alpha", approx(0), "stands")
    assert rival.difference is not None
    assert rival.difference.value == approx(0.5)  # beta minus alpha
    # licence 1.9 of 4: alpha gains 1.9, so beta must be 0.475 ahead; the interval of the difference decides
    (close,) = decide(report, {**ONLY, "quality": 4, "licence": 1.9}).rivals
    assert close.needed == approx(0.475)
    assert close.difference is not None
    assert close.difference.low is not None
    assert close.standing == ("stands" if close.difference.low > 0.475 else "open")


def uncertain() -> Report:
    """Beta has one usable item more in some chunks, fewer in others: the difference is small, its interval wide."""
    words = {"alpha": ["AB", "BB", "AA", "BB"] * 5, "beta": ["AA", "AB", "AB", "BB"] * 5}
    return case(words, items_per_sample=2).report()


@pytest.mark.slow
def test_a_choice_by_a_difference_that_may_not_be_there_is_open() -> None:
    found = decide(uncertain(), {"quality": 5})
    assert found.choice == "beta"
    assert [one.standing for one in found.rivals] == ["open"]
    assert "alpha may" in said(found)


def test_the_difference_is_turned_round_where_the_first_named_is_the_choice() -> None:
    words = {"alpha": ALL, "beta": HALF}
    (rival,) = decide(case(words, items_per_sample=2).report(), {"quality": 5}).rivals
    assert rival.difference is not None
    assert (rival.candidate, rival.difference.value) == ("beta", approx(0.5))
    assert (rival.difference.low or 0) <= 0.5 <= (rival.difference.high or 0)


def test_too_few_chunks_leave_the_standing_unknown_with_the_reason() -> None:
    found = decide(case({"alpha": ["AA"] * 5, "beta": ["AB"] * 5}, items_per_sample=2).report(), {})
    (rival,) = found.rivals
    assert rival.standing == "not known"
    assert "fewer than 10" in (rival.reason or "")
    assert "chunks: no interval" in said(found)


@pytest.mark.slow
def test_without_a_weight_quality_decides_nothing() -> None:
    (rival,) = decide(open_and_good().report(), {**ONLY, "quality": 0, "licence": 1}).rivals
    assert (rival.needed, rival.standing, rival.reason) == (None, "stands", "quality has no weight")


@pytest.mark.slow
def test_nothing_usable_at_all_leaves_quality_unknown() -> None:
    made = case(
        {"alpha": ["CC"] * 12, "beta": ["CC"] * 12},
        items_per_sample=2,
        alpha=candidate("alpha", openness="open source"),
        beta=candidate("beta", openness="restricted"),
    )
    found = decide(made.report(), {})
    (rival,) = found.rivals
    assert (found.choice, rival.standing, rival.needed) == ("alpha", "not known", None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"qualty": 5.0}, "Did you mean 'quality'"),
        ({"quality": -1.0}, "0 or more"),
        ({**ONLY, "quality": 0.0, "licence": 0.0}, "has the weight 0"),
    ],
)
def test_weights_that_mean_nothing_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decide(open_and_good().report(), given)


def test_one_candidate_is_no_choice() -> None:
    with pytest.raises(UsageError, match="nothing to decide"):
        decide(case({"alpha": ALL}, items_per_sample=2).report(), {})


@pytest.mark.slow
def test_floors_are_not_weighed_against_two_that_can_be_hosted() -> None:
    words = {"alpha": HALF, "beta": ALL, "floor": HALF}
    made = case(words, items_per_sample=2, floor=candidate("floor", kind="embedded"))
    choices = made.report().timing.choice
    assert {one.candidate for one in choices} == {"alpha", "beta"}
    assert all(one.counts for choice in choices for one in choice.criteria if one.name == "cost")


def test_a_candidate_without_a_usable_item_costs_most_and_hides_no_cost_of_others() -> None:
    made = case({"alpha": ["CC"] * 12, "beta": ALL}, items_per_sample=2)
    scores = {
        choice.candidate: [one.score for one in choice.criteria if one.name == "cost"]
        for choice in made.report().timing.choice
    }
    assert scores == {"alpha": [0.0], "beta": [1.0]}


@pytest.mark.slow
def test_the_command_weighs_a_run_and_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    made = qaeval("compare", "embedded-lead", "embedded-salient", "--n", "12", "--out", "run", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    text = qaeval("decide", "run", "--weight", "quality=5", cwd=tmp_path)
    assert text.returncode == 0, text.stderr
    assert "embedded-salient comes first." in text.stdout
    assert "counts for no candidate" in text.stdout
    found = json.loads(qaeval("decide", "run", "--weight", "quality=7", "--json", cwd=tmp_path).stdout)
    assert (found["choice"], found["weights"]["quality"]) == ("embedded-salient", 7.0)
    for typed in ("quality=much", "quality=nan", "quality=-1", "quality"):
        refused = qaeval("decide", "run", "--weight", typed, cwd=tmp_path)
        assert refused.returncode == 64
        assert "--weight" in refused.stderr
