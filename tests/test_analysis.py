import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qaeval.agreement.analysis import report_of_run
from qaeval.agreement.judges import compare_judges
from qaeval.analysis.candidates import answer_words
from qaeval.analysis.letters import letter_table
from qaeval.analysis.replies import union
from qaeval.comparison.analysis import ReportOptions, analyse
from qaeval.comparison.differences import compare_candidates
from qaeval.comparison.model import LabelledDifference, Reason
from qaeval.comparison.planning import PairPlan, _with_labels
from qaeval.comparison.report import Report
from qaeval.comparison.sections import agreement
from qaeval.errors import DataError
from qaeval.records import Failure, Generation, Grade, Label
from qaeval.report.facts import SAME_FAMILY
from qaeval.report.measure import Measure
from qaeval.stats.labelling import labelled_chunks_needed
from qaeval.stats.planning import Pilot, plan
from report_builders import JUDGE, RUBRIC, RUN, Case, candidate, case, items_of, label_of

approx = pytest.approx


def labelled(made: Case, letters: str, **more: Any) -> tuple[Label, ...]:
    """Label alpha's items in order, one letter each."""
    return tuple(
        label_of(item, letter, **more) for item, letter in zip(items_of(made, "alpha"), letters, strict=False)
    )


def kinds(report: Report, kind: str) -> list[str]:
    return [sentence.text for sentence in report.headline if sentence.kind == kind]


# ------------------------------------------------------------------------------ one candidate


def test_rates_of_a_hand_worked_run() -> None:
    # 12 chunks of 2: 6 x AA, 3 x AB, 1 x BC!, 1 x A-, 1 x failed; 24 expected.
    words = ["AA"] * 6 + ["AB"] * 3 + ["BC!", "A-", "x"]
    one = case({"alpha": words}, items_per_sample=2).report().candidates[0]
    assert (one.n_expected, one.n_valid, one.n_graded) == (24, 22, 21)
    assert [(count.name, count.n) for count in one.letters] == [("A", 16), ("B", 4), ("C", 1)]
    assert one.usable.value == approx(16 / 24)
    assert one.usable_of_graded.value == approx(16 / 21)
    assert one.usable_if_ungraded_were == approx(17 / 24)
    assert one.failed.share.value == approx(2 / 24)
    assert one.flags[0].share.value == approx(1 / 21)
    assert one.failed_by_reason == {"invalid_json": 2}
    assert one.ungraded_by_reason == {"unparseable": 1}


def test_letters_no_letter_and_failed_add_up_to_what_was_expected() -> None:
    one = case({"alpha": ["AB-", "x", "CCA", "-B-"]}).report().candidates[0]
    assert sum(count.n for count in (*one.letters, one.failed, one.ungraded)) == one.n_expected == 12


@pytest.mark.slow
def test_failed_replies_lower_the_primary_rate_and_not_the_conditional_one() -> None:
    whole = case({"alpha": ["AAB"] * 12}).report().candidates[0]
    failing = case({"alpha": ["AAB"] * 12 + ["x"] * 4}).report().candidates[0]
    assert whole.usable.value == approx(24 / 36)
    assert failing.usable.value == approx(24 / 48)
    assert failing.usable_of_graded.value == whole.usable_of_graded.value == approx(2 / 3)


def test_few_chunks_give_a_rate_without_an_interval() -> None:
    report = case({"alpha": ["AAB"] * 9}).report()
    usable = report.candidates[0].usable
    assert usable.value == approx(2 / 3)
    assert (usable.low, usable.high) == (None, None)
    assert "fewer than 10" in (usable.reason or "")
    assert any("Too few chunks for an interval (9" in text for text in kinds(report, "caution"))


def test_without_a_grade_the_conditional_rate_is_null_with_a_reason() -> None:
    one = case({"alpha": ["---"] * 12}).report().candidates[0]
    assert one.usable_of_graded.value is None
    assert one.usable_of_graded.reason == "no item was graded"
    assert one.usable.value == 0.0
    assert one.usable_if_ungraded_were == 1.0


def test_tokens_are_added_over_all_replies_and_the_cache_counts_as_timing() -> None:
    one = case({"alpha": ["AAA"] * 3 + ["x"]}).report().candidates[0]
    assert (one.tokens.prompt, one.tokens.completion) == (4 * 400, 3 * 90 + 120)
    assert one.timing.cached_prompt_tokens == 900
    assert one.timing.wall_s == 60.0
    assert one.timing.items_per_s == approx(9 / 60)


def test_a_model_that_counts_no_tokens_has_null_not_zero() -> None:
    made = case({"alpha": ["AAA"]})
    bare = [row.model_copy(update={"usage": None}) for row in made.rows.generations]
    one = made.with_rows(generations=bare).report().candidates[0]
    assert (one.tokens.prompt, one.tokens.completion, one.timing.cached_prompt_tokens) == (None, None, None)


def test_repeated_questions_question_types_and_answer_words_are_counted() -> None:
    made = case({"alpha": ["AA", "BB"]}, items_per_sample=2)
    first, second = made.rows.generations
    assert isinstance(second, Generation)
    asked = first.items[0].question
    again = [item.model_copy(update={"question": asked, "answer": "w " * 70}) for item in second.items]
    one = (
        made.with_rows(generations=(first, second.model_copy(update={"items": tuple(again)})))
        .report()
        .candidates[0]
    )
    assert one.n_duplicate_questions == 2
    assert one.question_types == {"fact": 2, "why": 2}
    assert (one.answer_words.median, one.answer_words.share_over_60) == (40.5, 0.5)  # 11, 11, 70, 70


def test_strata_have_counts_and_an_interval_only_with_enough_chunks() -> None:
    report = case({"alpha": ["AAB"] * 19}).report()  # even chunks are valves: 10, odd ones pumps: 9
    pumps, valves = report.strata
    assert (pumps.stratum, pumps.n_chunks, pumps.rates[0].n_usable, pumps.rates[0].n_expected) == (
        "pumps",
        9,
        18,
        27,
    )
    assert not pumps.rates[0].usable.has_interval
    assert valves.rates[0].usable.has_interval


# ------------------------------------------------------------------------------ differences


CLEAR = {"alpha": ["AAB"] * 6 + ["ABB"] * 6 + ["AAA"] * 2, "beta": ["AAA"] * 14}


@pytest.mark.slow
def test_a_clear_difference_is_worked_by_hand() -> None:
    # beta is better by 1/3 in 6 chunks and by 2/3 in 6, equal in 2: mean 6/14 and 12 positive signs, p = 2/4096.
    report = case(CLEAR).report()
    (pair,) = report.differences
    assert (pair.a, pair.b, pair.outcome) == ("alpha", "beta", "b is better")
    assert pair.difference.value == approx(6 / 14)
    assert pair.p == approx(2 / 4096)
    assert pair.p_holm == pair.p
    assert (pair.n_chunks_b_better, pair.n_chunks_equal, pair.n_chunks_a_better) == (12, 2, 0)
    assert pair.sentence.startswith(
        "beta is better than alpha: 42.9 points more usable items, 95 % interval "
    )
    assert report.headline[1].text == pair.sentence
    assert (report.verdict.kind, report.verdict.candidate) == ("use", "beta")


@pytest.mark.slow
def test_swapping_the_candidates_changes_the_sign_and_not_the_words() -> None:
    (one,) = case(CLEAR).report().differences
    (other,) = case(dict(reversed(CLEAR.items()))).report().differences
    assert other.difference.value == approx(-(one.difference.value or 0))
    assert other.outcome == "a is better"
    assert other.sentence == one.sentence


def test_the_exact_test_decides_and_the_interval_agrees_with_it() -> None:
    # 10 of 12 chunks show the same step: the exact test is sure (2/1024), the interval for near-ties alone is not.
    (pair,) = case({"alpha": ["AAB"] * 12, "beta": ["AAA"] * 10 + ["AAB"] * 2}).report().differences
    assert pair.p == approx(2 / 1024)
    assert (pair.outcome, pair.difference.low) == ("b is better", 0)


def test_an_interval_does_not_leave_out_0_where_the_exact_test_does_not() -> None:
    # 5 of 10 chunks are won and 5 tied: Student's interval is above 0, and the exact p is 2/32.
    (pair,) = case({"alpha": ["BBB"] * 10, "beta": ["AAA"] * 5 + ["BBB"] * 5}).report().differences
    assert (pair.p, pair.outcome) == (approx(2 / 32), "not enough data")
    assert pair.difference.low == 0


def usable_table(alpha: Sequence[int], beta: Sequence[int], sizes: Sequence[int]) -> pd.DataFrame:
    """Table of letters of two candidates, from their usable items of each chunk."""
    return pd.DataFrame(
        [
            {"cluster": f"chunk {chunk}", "candidate": name, "letter": "A" if item < usable[chunk] else "B"}
            for name, usable in (("alpha", alpha), ("beta", beta))
            for chunk, size in enumerate(sizes)
            for item in range(size)
        ]
    )


def test_chunks_of_unequal_size_have_an_exact_test() -> None:
    # 24 chunks of 1 to 7 items whose sizes have no round mean; the differences in items are these
    rng = np.random.default_rng(4)
    sizes = np.append(rng.integers(1, 8, 23), 5)
    alpha, beta = rng.binomial(sizes, 0.6), rng.binomial(sizes, 0.8)
    (pair,) = compare_candidates(
        usable_table(alpha, beta, sizes), candidates=["alpha", "beta"], best="A", margin=0.05
    )
    law = np.ones(1)
    for step in np.abs(beta - alpha):
        law = np.convolve(law, np.bincount([0, 2 * step], minlength=2 * step + 1) / 2)
    reached = np.arange(len(law)) - (len(law) - 1) / 2
    assert pair.p == approx(law[np.abs(reached) >= abs((beta - alpha).sum())].sum(), rel=1e-9)


@pytest.mark.slow
def test_a_plan_promises_the_power_that_the_verdict_reaches() -> None:
    # A rate 98 %, ICC .2, 20 chunks, a loss of 15 points: the verdict by the interval found it in 30 % of the runs
    rate, icc, n_chunks = 0.98, 0.2, 20
    pilot = Pilot.assumed(rate, icc, 3)
    promised = plan(pilot, 0.15, n_chunks=n_chunks).power
    values, shares = pilot.law(0.15)
    rng = np.random.default_rng(1)
    wins = 0
    for _ in range(100):
        lost = rng.choice(np.round(values * 3).astype(int), n_chunks, p=shares)
        (pair,) = compare_candidates(
            usable_table(3 - np.maximum(lost, 0), 3 + np.minimum(lost, 0), [3] * n_chunks),
            candidates=["alpha", "beta"],
            best="A",
            margin=0.05,
        )
        wins += pair.outcome == "a is better"
    assert wins / 100 == approx(promised, abs=0.12)


NARROW = {"alpha": ["AAB", "ABB"] * 8, "beta": ["ABB", "AAB"] * 7 + ["AAA", "AAA"]}


def test_an_interval_inside_the_margin_shows_no_difference_and_says_what_is_ruled_out() -> None:
    report = case(NARROW).report(margin=0.5)
    (pair,) = report.differences
    assert (pair.outcome, pair.n_more_chunks) == ("no difference shown", None)
    limit = 100 * max(abs(pair.difference.low or 0), abs(pair.difference.high or 0))
    assert (
        f"A difference above {limit:.1f} points either way is ruled out at the 95 % level." in pair.sentence
    )
    assert "better" not in pair.sentence


def test_an_interval_over_0_and_over_the_margin_is_not_enough_data() -> None:
    # 6.25 points seen, interval half-width h: spread h 4/1.96; told from 0 with 80 %: ((1.96 + .8416) spread/.0625)^2
    (pair,) = case(NARROW).report(margin=0.05).differences
    low, high = pair.difference.low or 0, pair.difference.high or 0
    needed = ((1.959964 + 0.841621) * (high - low) / 2 * 4 / 1.959964 / 0.0625) ** 2
    assert pair.outcome == "not enough data"
    assert pair.n_more_chunks == approx(needed - 16, abs=1)
    assert "not enough data" in pair.sentence
    assert "more chunks would decide" in pair.sentence
    assert "better" not in pair.sentence


@pytest.mark.slow
def test_equal_candidates_need_the_chunks_that_rule_out_the_margin() -> None:
    letters = ["AAB", "ABB"] * 20
    (pair,) = case({"alpha": letters, "beta": letters[::-1]}).report(margin=0.05).differences
    assert pair.difference.value == approx(0)
    assert pair.outcome == "not enough data"
    wider = case({"alpha": letters, "beta": letters[::-1]}).report(margin=0.1).differences[0]
    assert wider.outcome == "not enough data"
    # twice the margin: a quarter of the chunks in all
    assert (pair.n_more_chunks or 0) + 40 == approx(4 * ((wider.n_more_chunks or 0) + 40), abs=4)


def test_with_few_chunks_nobody_is_better() -> None:
    (pair,) = case({"alpha": ["CCC"] * 9, "beta": ["AAA"] * 9}).report().differences
    assert pair.outcome == "too few chunks"
    assert "too few chunks for an interval (9)" in pair.sentence


@pytest.mark.slow
def test_three_pairs_are_adjusted_by_holm() -> None:
    # alpha - beta: 6 equal steps of 12 chunks, p = 2/64; the pairs with gamma: 12 steps, p = 2/4096 each.
    letters = {"alpha": ["AAB"] * 12, "beta": ["AAA"] * 6 + ["AAB"] * 6, "gamma": ["CCC"] * 12}
    report = case(letters).report()
    first, second, third = report.differences
    assert first.p == approx(2 / 64)
    assert second.p == approx(2 / 4096)
    assert [pair.p_holm for pair in (first, second, third)] == approx([2 / 64, 6 / 4096, 6 / 4096])
    assert report.verdict.reason("better") == Reason(code="better", candidates=("alpha", "gamma"))


@pytest.mark.slow
def test_an_interval_without_0_is_not_enough_among_many_pairs() -> None:
    letters = {
        "alpha": ["AAB"] * 12,
        "beta": ["AAA"] * 6 + ["AAB"] * 6,
        "gamma": ["AAB"] * 12,
        "delta": ["AAB"] * 12,
    }
    pair = case(letters).report().differences[0]
    assert pair.difference.low is not None
    if pair.difference.low > 0:
        assert "not after correction" in pair.sentence
    assert pair.p_holm == approx(6 * 2 / 64)
    assert pair.outcome == "not enough data"


@pytest.mark.slow
def test_three_candidates_have_an_order_with_intervals() -> None:
    # of 36 chunks beta beats alpha in 18 and loses 9; alpha beats gamma in 27, beta too, and both lose 9
    letters = {
        "alpha": ["AAB"] * 18 + ["ABB"] * 9 + ["AAA"] * 9,
        "beta": ["AAA"] * 18 + ["ABB"] * 9 + ["AAB"] * 9,
        "gamma": ["ABB"] * 18 + ["AAB"] * 9 + ["ABB"] * 9,
    }
    ranking = case(letters).report().ranking
    assert [one.candidate for one in ranking] == ["beta", "alpha", "gamma"]
    assert [one.rank for one in ranking] == [1, 2, 3]
    assert (ranking[0].rank_low, ranking[-1].rank_high) == (1, 3)
    assert sum(one.strength.value or 0 for one in ranking) == approx(0)
    assert all(one.strength.has_interval for one in ranking)


def test_a_candidate_that_never_lost_has_a_reason_instead_of_a_place() -> None:
    letters = {"alpha": ["AAA"] * 12, "beta": ["AAB"] * 12, "gamma": ["ABB"] * 12}
    ranking = case(letters).report().ranking
    assert [one.candidate for one in ranking] == ["alpha", "beta", "gamma"]
    assert all("never lost" in (one.strength.reason or "") for one in ranking)
    assert all(one.rank_low is None for one in ranking)


def test_a_best_letter_with_a_flag_is_a_contradiction_that_is_told() -> None:
    report = case({"alpha": ["A!AB", "C!AA"] * 6, "beta": ["AAB"] * 12}).report()
    assert [one.n_best_flagged for one in report.candidates] == [6, 0]
    (said,) = [text for text in kinds(report, "caution") if "contradict" in text]
    assert "gave A to 6 items of alpha" in said


def test_many_failures_are_a_caution_with_their_kinds() -> None:
    report = case({"alpha": ["AAB"] * 11 + ["x"], "beta": ["AAB"] * 12}).report()
    (said,) = [text for text in kinds(report, "caution") if "failed" in text]
    assert said.startswith("alpha: 3 of 36 items failed (")
    assert "beta" not in said


def test_candidates_are_weighed_by_hand() -> None:
    # alpha: 12 of 24 usable, beta 24 of 24; both fully graded; RESTRICTED licence against open source
    open_source, closed = (
        candidate(name, openness=openness)
        for name, openness in (("alpha", "open source"), ("beta", "restricted"))
    )
    made = case(
        {"alpha": ["AB"] * 12, "beta": ["AA"] * 12}, items_per_sample=2, alpha=open_source, beta=closed
    )
    report = made.report()
    choices = {choice.candidate: choice for choice in report.timing.choice}
    scores = {
        name: {
            one.name: one.score for one in choice.criteria if one.name not in {"speed", "cost", "maintenance"}
        }
        for name, choice in choices.items()
    }
    assert scores["alpha"] == {"quality": 0.5, "reliability": 1.0, "licence": 1.0, "sovereignty": 1.0}
    assert scores["beta"] == {"quality": 1.0, "reliability": 1.0, "licence": 0.0, "sovereignty": 1.0}
    # what is not known, the age of a model, is left out of the mean
    known = [(one.weight, one.score) for one in choices["alpha"].criteria if one.score is not None]
    assert len(known) == len(choices["alpha"].criteria) - 1
    assert choices["alpha"].mean == approx(sum(w * s for w, s in known) / sum(w for w, _ in known))


def test_two_candidates_need_no_ranking() -> None:
    assert case(CLEAR).report().ranking == ()


@pytest.mark.slow
def test_equivalence_is_tested_against_the_margin() -> None:
    (wide,) = case(NARROW).report(margin=0.5).differences
    (narrow,) = case(NARROW).report(margin=0.05).differences
    assert (wide.p_equivalent or 1) < 0.01
    assert (narrow.p_equivalent or 0) > 0.3
    (few,) = case({"alpha": ["CCC"] * 9, "beta": ["AAA"] * 9}).report().differences
    assert few.p_equivalent is None


def test_one_candidate_has_nothing_to_compare() -> None:
    assert case({"alpha": ["AAB"] * 12}).report().differences == ()


# ------------------------------------------------------------------------------ agreement


def agreement_case() -> Case:
    """12 chunks of 2; the judge: 12 A, 6 B, 6 C."""
    return case({"alpha": ["AA"] * 6 + ["BB"] * 3 + ["CC"] * 3}, items_per_sample=2)


def test_agreement_is_worked_by_hand() -> None:
    # rater rows, judge columns: A 10/1/1, B 2/4/0, C 0/1/5 of 24; same letter 19.
    # marginals 12/6/6 and 12/6/6: p_e = 1/4 + 1/16 + 1/16 = 3/8; kappa = (19/24 - 3/8)/(5/8) = 2/3.
    made = agreement_case()
    letters = "A" * 10 + "BB" + "A" + "BBBB" + "C" + "A" + "CCCCC"
    report = made.with_rows(labels=labelled(made, letters)).report()
    (one,) = report.agreement
    assert one.coefficients is not None
    assert one.coefficients.confusion == ((10, 1, 1), (2, 4, 0), (0, 1, 5))
    assert one.coefficients.observed.value == approx(19 / 24)
    assert one.coefficients.kappa.value == approx(2 / 3)
    assert one.coefficients.kappa_max == approx(1.0)
    assert (one.majority_letter, one.majority_baseline) == ("A", 0.5)
    assert one.leniency is not None
    assert one.leniency.value == approx((2 + 0 + 1 - 1 - 1 - 0) / 24)
    assert [(letter.letter, letter.recall.value) for letter in one.letters] == [
        ("A", approx(10 / 12)),
        ("B", approx(4 / 6)),
        ("C", approx(5 / 6)),
    ]
    assert (one.candidates[0].n, one.candidates[0].n_best_by_rater, one.candidates[0].n_best_by_judge) == (
        24,
        12,
        12,
    )


def test_labels_that_do_not_join_are_counted_by_why() -> None:
    made = case({"alpha": ["A-", "AB"] + ["AB"] * 10}, items_per_sample=2)
    strange = Label(item_id="elsewhere", rater="anna", rater_kind="human", letter="A")
    (one,) = made.with_rows(labels=(*labelled(made, "ABAB"), strange)).report().agreement
    assert one.coefficients is not None
    assert (one.n_labels, one.coefficients.n, one.n_ungraded, one.n_not_in_run) == (5, 3, 1, 1)
    (excluded,) = [text for text in one.sentences if text.startswith("Excluded labels")]
    assert "1 of ungraded items" in excluded


@pytest.mark.slow
def test_a_tuned_judge_is_measured_on_held_out_labels_alone() -> None:
    made = agreement_case()
    tuning = labelled(made, "A" * 8, split="tuning")
    held_out = labelled(made, "A" * 12 + "B" * 6 + "C" * 6)[8:]
    made = made.with_rows(labels=(*tuning, *held_out))
    (seen,) = made.report().agreement
    (one,) = made.report(judge_tuned=True).agreement
    assert seen.coefficients is not None
    assert one.coefficients is not None
    assert (seen.coefficients.n, seen.n_tuning_excluded) == (24, 0)
    assert (one.coefficients.n, one.n_tuning_excluded) == (16, 8)
    assert any(text.startswith("Excluded labels: 8 ") for text in one.sentences)


def test_labels_of_a_draw_of_disputed_items_measure_the_judge_on_all_items() -> None:
    """The judge gives 48 items an A, of which 36 are right: 12 disputed items are labelled, and 9 of the others."""
    made = case({"alpha": ["AAA"] * 16})
    labels = [
        label.model_copy(update={"inclusion": 1.0 if label.letter == "B" else 0.25})
        for label in labelled(made, "B" * 12 + "A" * 9)
    ]
    (rater,) = made.with_rows(labels=tuple(labels)).report().agreement
    (unaware,) = made.with_rows(labels=tuple(labelled(made, "B" * 12 + "A" * 9))).report().agreement
    assert rater.coefficients is not None
    assert unaware.coefficients is not None
    assert rater.coefficients.observed.value == pytest.approx(36 / 48)
    assert unaware.coefficients.observed.value == pytest.approx(9 / 21)
    # counts stay those of the labelled items, and the most frequent letter is that of the run
    assert rater.coefficients.confusion == unaware.coefficients.confusion
    assert (rater.majority_letter, unaware.majority_letter) == ("A", "B")
    assert rater.majority_baseline == pytest.approx(36 / 48)
    assert rater.coefficients.alpha.value != unaware.coefficients.alpha.value
    assert (rater.is_weighted, unaware.is_weighted) == (True, False)
    assert "drawn with unequal probabilities" in " ".join(rater.sentences)
    assert "drawn with unequal probabilities" not in " ".join(unaware.sentences)


def test_labels_that_all_belong_elsewhere_leave_the_judge_unchecked() -> None:
    strange = Label(item_id="elsewhere", rater="anna", rater_kind="human", letter="A")
    report = agreement_case().with_rows(labels=(strange,)).report()
    assert report.agreement[0].coefficients is None
    assert report.agreement[0].standing == "no labels joined"
    assert any("was not checked against labels" in text for text in kinds(report, "caution"))
    section = agreement(report)
    assert section.parts == ()
    assert "The labels by anna are of other items" in section.paragraphs[1]


@pytest.mark.slow
def test_labels_of_other_items_stand_in_a_line_beside_those_of_this_run() -> None:
    made = agreement_case()
    strange = Label(item_id="elsewhere", rater="bert", rater_kind="human", letter="A")
    section = agreement(made.with_rows(labels=(*labelled(made, "A" * 24), strange)).report())
    assert section.paragraphs == ("The labels by bert are of other items than this run's and are ignored.",)
    assert [part.title for part in section.parts] == ["anna"]


def test_a_judge_without_labels_is_called_unchecked() -> None:
    assert any(
        "was not checked against labels" in text for text in kinds(agreement_case().report(), "caution")
    )


def test_a_judge_that_always_answers_a_is_not_relied_on() -> None:
    made = case({"alpha": ["AA"] * 12}, items_per_sample=2)
    report = made.with_rows(labels=labelled(made, "AB" * 12)).report()
    (one,) = report.agreement
    assert one.standing == "chance"
    assert one.coefficients is not None
    assert one.coefficients.confusion == ((12, 0, 0), (12, 0, 0), (0, 0, 0))
    assert any("anna's labels" in text and "chance" in text for text in kinds(report, "caution"))


def test_one_letter_throughout_has_no_kappa_and_says_why() -> None:
    made = case({"alpha": ["AA"] * 12}, items_per_sample=2)
    (one,) = made.with_rows(labels=labelled(made, "A" * 24)).report().agreement
    assert one.coefficients is not None
    assert one.coefficients.kappa.value is None
    assert one.coefficients.kappa.reason
    assert one.standing == "chance"
    assert any("cannot show" in text for text in one.sentences)


def test_a_judge_that_beats_chance_and_not_the_commonest_letter_is_told_so() -> None:
    # 21 of 24 the same, but always answering A would match 20.
    made = case({"alpha": ["AA"] * 8 + ["AA", "AB", "AB", "BB"]}, items_per_sample=2)
    letters = "A" * 16 + "AA" + "AA" + "AB" + "BB"
    letters = letters[:14] + "B" + letters[15:]
    (one,) = made.with_rows(labels=labelled(made, letters)).report().agreement
    assert one.standing in {"majority", "chance"}
    assert any(" not show" in text for text in one.sentences)


def test_labels_of_another_rubric_are_counted_and_never_compared() -> None:
    made = agreement_case()
    own = labelled(made, "ABAB", rubric="qa_quality/1")
    other = [
        label.model_copy(update={"letter": "Z", "rater": "bert"})
        for label in labelled(made, "ABAB", rubric="mine/2")
    ]
    report = made.with_rows(labels=(*own, *other)).report()
    anna, bert = report.agreement
    assert anna.coefficients is not None
    assert (anna.coefficients.n, anna.n_other_rubric) == (4, 0)
    assert (bert.coefficients, bert.n_other_rubric) == (None, 4)
    assert any("4 of another rubric" in text for text in bert.sentences)
    assert report.raters == ()


@pytest.mark.slow
def test_a_few_labels_beside_many_are_no_doubt() -> None:
    made = agreement_case()
    many = labelled(made, "A" * 12 + "B" * 6 + "C" * 6)
    few = labelled(made, "ABAB", rater="ben")
    together = made.with_rows(labels=(*many, *few)).report()
    alone = made.with_rows(labels=few).report()
    assert not any("ben's labels" in text for text in kinds(together, "caution"))
    assert any("ben's labels" in text and "too few chunks" in text for text in kinds(alone, "caution"))


def test_labels_by_a_model_alone_are_called_what_they_are() -> None:
    made = agreement_case()
    labels = labelled(made, "A" * 12 + "B" * 6 + "C" * 6, rater="claude", rater_kind="model")
    report = made.with_rows(labels=labels).report()
    assert any("a hosted model" in text for text in report.agreement[0].sentences)
    assert any("no person has labelled" in text for text in kinds(report, "caution"))


def test_flags_are_compared_too() -> None:
    made = case({"alpha": ["AC!"] * 12}, items_per_sample=2)
    first = label_of(items_of(made, "alpha")[0], "A", flags=("hallucination",))
    rest = [label_of(item, "C") for item in items_of(made, "alpha")[1:]]
    (one,) = made.with_rows(labels=(first, *rest)).report().agreement
    (flag,) = one.flags
    assert (flag.n_both, flag.n_rater_only, flag.n_judge_only, flag.n_neither) == (0, 1, 12, 11)
    assert flag.precision.value == 0.0


def test_raters_are_compared_on_the_items_that_both_labelled() -> None:
    made = agreement_case()
    anna = labelled(made, "A" * 12)
    bert = labelled(made, "A" * 9 + "BBB" + "CC", rater="bert")
    (pair,) = made.with_rows(labels=(*anna, *bert)).report().raters
    assert (pair.a, pair.b, pair.coefficients.n) == ("anna", "bert", 12)
    assert pair.coefficients.observed.value == approx(9 / 12)
    assert "ceiling for any judge" not in pair.sentence, "six chunks are too few"


@pytest.mark.slow
def test_only_independent_raters_of_many_chunks_are_called_a_ceiling() -> None:
    made = case({"alpha": ["ABC"] * 30}, items_per_sample=3)
    letters = "ABC" * 30
    anna = labelled(made, letters)
    others = "ABB" * 10 + letters[30:]

    def sentence(rater_kind: str, n: int) -> str:
        bert = labelled(made, others[:n], rater="bert", rater_kind=rater_kind)
        first = [label.model_copy(update={"rater_kind": rater_kind}) for label in anna]
        return made.with_rows(labels=(*first, *bert)).report().raters[0].sentence

    assert "the ceiling for any judge" in sentence("human", 90)
    assert "the ceiling for any judge" not in sentence("human", 87), "29 chunks"
    assert "the ceiling for any judge" not in sentence("model", 90)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"letter": "Z"}, "letters or flags other than A/B/C"),
        ({"flags": ("odd",)}, "letters or flags other than"),
    ],
)
def test_labels_off_the_scale_are_refused(change: dict[str, Any], message: str) -> None:
    made = agreement_case()
    wrong = [label.model_copy(update=change) for label in labelled(made, "A")]
    with pytest.raises(DataError, match=message):
        made.with_rows(labels=wrong).report()


@pytest.mark.slow
def test_two_different_labels_of_one_rater_for_one_item_are_refused() -> None:
    made = agreement_case()
    with pytest.raises(DataError, match="two different labels"):
        made.with_rows(labels=(*labelled(made, "A"), *labelled(made, "B"))).report()
    twice = made.with_rows(labels=labelled(made, "A") * 2).report()
    assert twice.agreement == made.with_rows(labels=labelled(made, "A")).report().agreement


# ------------------------------------------------------------------------------ the whole report


def rich_case() -> Case:
    letters = {"alpha": ["AAB", "x", "A-C!"] * 5, "embedded-lead": ["ABC", "BBB", "A!BC"] * 5}
    made = case(letters, embedded_lead=candidate("embedded-lead", kind="embedded", hf_id=""))
    return made.with_rows(labels=labelled(made, "AABABC"))


def test_embedded_models_are_called_a_floor() -> None:
    (note,) = [text for text in kinds(rich_case().report(), "note") if "floor" in text]
    assert note.startswith("embedded-lead is a floor, not a language model")


def test_a_run_of_embedded_models_alone_says_that_it_decides_nothing() -> None:
    embedded = {name: candidate(name, kind="embedded") for name in ("one", "two")}
    report = case({"one": ["AAA"] * 10, "two": ["AAB"] * 10}, **embedded).report()
    assert any("not which model to host" in text for text in kinds(report, "note"))


def test_an_embedded_judge_is_called_no_language_model() -> None:
    made = replace(rich_case(), judge=JUDGE.model_copy(update={"kind": "embedded"}))
    assert any("is not a language model" in text for text in kinds(made.report(), "caution"))


@pytest.mark.slow
def test_a_judge_of_a_candidates_family_is_named_with_the_option_that_allowed_it() -> None:
    own = {name: candidate(name, family=family) for name, family in (("one", ("qwen",)), ("two", ("llama",)))}
    made = case({"one": ["AAA"] * 10, "two": ["AAB"] * 10}, **own)
    for more in ({}, {SAME_FAMILY: "yes"}):
        judge = JUDGE.model_copy(update={"family": ("mistral", "qwen"), "more": more})
        (caution,) = [
            text for text in kinds(replace(made, judge=judge).report(), "caution") if "family" in text
        ]
        assert "one (mistral and qwen)" in caution
        assert "two" not in caution
        assert ("--allow-same-family" in caution) == bool(more)


def test_spans_that_touch_are_one_and_empty_ones_none() -> None:
    assert union([(3, 4), (1, 2), (2, 3), (5, 5), (6, 8), (6, 7)]) == [(1, 4), (6, 8)]
    assert union([(1, 9), (2, 3), (9, 10)]) == [(1, 10)]
    assert union([]) == []


def test_chunks_are_counted_by_the_usable_items_of_both_candidates() -> None:
    made = case(
        {"one": ["AA", "AB", "BB", "AA", "x"] * 3, "two": ["AB", "AB", "AA", "AB", "AA"] * 3},
        items_per_sample=2,
    )
    (difference,) = made.report().differences
    # rows: usable items of one, columns: of two; one's failed replies have no usable item
    assert difference.chunks == ((0, 0, 6), (0, 3, 0), (0, 6, 0))


def test_lengths_of_answers_are_counted_in_tens_of_words_the_last_without_end() -> None:
    lengths = [0, 9, 10, 60, 61, 99, 100, 110, 300]
    answers = answer_words(pd.Series([" ".join(["w"] * n) for n in lengths]))
    assert (answers.n, answers.median) == (9, 61)
    assert answers.histogram == (2, 1, 0, 0, 0, 0, 2, 0, 0, 1, 3)
    assert answers.mean == approx(sum(lengths) / 9)
    assert answers.share_over_60 == approx(5 / 9)
    none = answer_words(pd.Series([], dtype=str))
    assert (none.n, none.mean, none.share_over_60) == (0, None, None)


@pytest.mark.slow
def test_a_judge_that_grades_its_own_text_is_named() -> None:
    made = replace(
        rich_case(), candidates=(candidate("alpha", hf_id=JUDGE.hf_id), candidate("embedded-lead"))
    )
    assert any("graded by the same model that wrote it" in text for text in kinds(made.report(), "caution"))


@pytest.mark.slow
def test_many_items_without_a_letter_are_bounded_in_the_headline() -> None:
    (text,) = [text for text in kinds(rich_case().report(), "caution") if "got no letter" in text]
    assert text == (
        "alpha: 5 items of 45 got no letter; with A for all of them the usable rate would be 44.4 % instead of 33.3 %."
    )


def test_failures_are_grouped_and_at_most_five_of_a_kind_are_shown() -> None:
    report = case({"alpha": ["x"] * 7 + ["A-B"] * 5}).report()
    lost, unread = report.failures
    assert (lost.stage, lost.reason, lost.n_items, len(lost.examples)) == ("generate", "invalid_json", 21, 5)
    assert (unread.stage, unread.reason, unread.n_items, len(unread.examples)) == (
        "grade",
        "unparseable",
        5,
        5,
    )
    assert len(lost.examples[0].text) == 300
    assert lost.examples[0].item_id is None
    assert unread.examples[0].item_id


@pytest.mark.slow
def test_hosts_outside_are_named_from_sessions() -> None:
    made = rich_case()
    outside = made.rows.sessions[0].model_copy(update={"host": "api.example.com", "external": True})
    made = made.with_rows(sessions=(*made.rows.sessions, outside))
    assert made.report().data_left == ("api.example.com",)
    assert rich_case().report().data_left == ()


def test_the_number_of_samples_must_be_the_evals() -> None:
    made = rich_case()
    wrong = made.eval_facts().model_copy(update={"n_samples": 3})
    with pytest.raises(DataError, match=r"expected 3, .* holds 15"):
        analyse(replace(made.data(), eval_facts=wrong), RUN, ReportOptions())


@pytest.mark.slow
@pytest.mark.parametrize(
    "letters", [["x"] * 3, ["---"] * 12, ["AAA"] * 12, ["AAB"] * 2, ["AAB", "x", "C!-A"] * 5], ids=str
)
def test_json_holds_no_nan_and_reads_back(letters: list[str]) -> None:
    made = case({"alpha": letters, "beta": letters})
    made = made.with_rows(labels=labelled(made, "AAA"))
    text = made.report().model_dump_json()
    json.loads(text, parse_constant=pytest.fail)
    assert Report.model_validate_json(text).model_dump_json() == text


@pytest.mark.slow
def test_equal_runs_give_equal_reports_apart_from_run_and_timing() -> None:
    made = rich_case()
    slower = [row.model_copy(update={"latency_s": 9.9}) for row in reversed(made.rows.generations)]
    later = made.with_rows(
        generations=slower,
        grades=made.rows.grades[::-1],
        sessions=[session.model_copy(update={"seconds": 1.5}) for session in made.rows.sessions],
        labels=made.rows.labels[::-1],
    )
    later = replace(
        later, run=RUN.model_copy(update={"id": "another", "started": "2027-01-01T00:00:00+00:00"})
    )
    one, other = made.report().model_dump(mode="json"), later.report().model_dump(mode="json")
    assert one != other
    assert json.dumps(_without_times(one)) == json.dumps(_without_times(other))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in {"run", "timing"}}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_items_hold_every_candidate_letter_reason_and_label() -> None:
    first = rich_case().items()[0]
    alpha, lead = first.candidates
    assert (alpha.candidate, [item.letter for item in alpha.items]) == ("alpha", ["A", "A", "B"])
    assert alpha.items[0].labels == (("anna", "A"),)
    assert alpha.items[0].reason == "Reads like an A."
    assert [item.letter for item in lead.items] == ["A", "B", "C"]


@pytest.mark.slow
def test_a_failed_item_says_why() -> None:
    failed = rich_case().items()[1].candidates[0].items[0]
    assert failed.status == "failed"
    assert "not JSON" in failed.reason
    assert "Sure! Here" in failed.reason


# ------------------------------------------------------------------------------ judge and labels, further


def letters_of(made: Case) -> pd.DataFrame:
    return letter_table(
        *(made.rows.samples, made.rows.generations, made.rows.grades),
        candidates=[facts.name for facts in made.candidates],
        items_per_sample=made.items_per_sample,
        judge=JUDGE.name,
        rubric=RUBRIC,
    )


def again(made: Case, judge: str, letters: str) -> list[Grade | Failure]:
    """The grades of alpha's items by another judge; a dot is no row."""
    return [
        row.model_copy(update={"judge": judge, "letter": letter})
        for row, letter in zip(made.rows.grades, letters, strict=True)
        if isinstance(row, Grade) and letter != "."
    ]


def test_each_group_is_measured_on_its_own_items() -> None:
    made = agreement_case()
    labels = labelled(made, "ABABABABABAB" + "BABABA" + "CCCCCC")
    options: dict[str, Any] = {"source": "run", "judge": JUDGE.name, "rubric": RUBRIC, "judge_tuned": False}
    report = report_of_run(letters_of(made), labels, by="type", **options)
    # facts: 6 A of the judge are 6 A, 3 B are 3 B, 3 C are 3 C; whys: B, A and C
    figures = {group.group: group.agreement.coefficients for group in report.groups}
    assert list(figures) == ["fact", "why"]
    facts, whys = figures["fact"], figures["why"]
    assert facts is not None
    assert whys is not None
    assert facts.confusion == ((6, 0, 0), (0, 3, 0), (0, 0, 3))
    assert whys.confusion == ((0, 3, 0), (6, 0, 0), (0, 0, 3))
    assert report_of_run(letters_of(made), labels, **options).groups == ()
    assert len(report.agreement) == 1


@pytest.mark.parametrize(
    ("change", "excerpt"),
    [
        (None, "no labels to compare"),
        ({"rubric": "other/7"}, "other/7"),
        ({"item_id": "elsewhere"}, "none of the 1"),
    ],
)
def test_labels_that_cannot_be_compared_are_refused(change: dict[str, str] | None, excerpt: str) -> None:
    made = agreement_case()
    labels = [] if change is None else [labelled(made, "A")[0].model_copy(update=change)]
    with pytest.raises(DataError, match=excerpt):
        report_of_run(
            letters_of(made), labels, source="run", judge=JUDGE.name, rubric=RUBRIC, judge_tuned=False
        )


def test_a_further_judge_is_compared_with_the_first_and_with_labels_on_the_same_items() -> None:
    made = agreement_case()  # 12 A, 6 B, 6 C
    truth = "A" * 12 + "BBBBBB" + "CCCCCC"
    labels = labelled(made, truth)
    other = again(made, "other", "AAAAAABBBBBB" + "BBBBBB" + "CCCC..")
    (further,) = compare_judges(
        letters_of(made), {"other": other}, labels, judge=JUDGE.name, rubric=RUBRIC, tuned=frozenset()
    )
    assert (further.judge, further.n_items, further.n_graded) == ("other", 24, 22)
    assert further.coefficients is not None
    assert further.coefficients.confusion == ((6, 6, 0), (0, 6, 0), (0, 0, 4))
    (change,) = further.kappa_differences
    # of 22 items the first judge has all, the other 16: p_e = (12 x 6 + 6 x 12 + 4 x 4) / 22^2
    chance = (12 * 6 + 6 * 12 + 4 * 4) / 22**2
    assert (change.rater, change.n, change.kappa.value) == ("anna", 22, approx(1.0))
    assert change.kappa_of_other.value == approx((16 / 22 - chance) / (1 - chance))
    assert change.difference.value == approx((change.kappa_of_other.value or 0) - 1)
    assert any("graded 22 of 24" in text for text in further.sentences)
    assert further.sentences[-1].endswith("so neither is shown to agree better.")
    (usable,) = further.candidates
    assert (usable.candidate, usable.n, usable.n_usable, usable.n_usable_by_other) == ("alpha", 24, 12, 6)


RIGHT, WRONG = "A" * 12 + "B" * 6 + "C" * 6, "B" * 12 + "C" * 6 + "A" * 6


@pytest.mark.parametrize(("truth", "better"), [(RIGHT, JUDGE.name), (WRONG, "other")])
def test_the_judge_that_agrees_better_is_named(truth: str, better: str) -> None:
    made = agreement_case()  # its judge gives the letters of RIGHT
    (further,) = compare_judges(
        *(letters_of(made), {"other": again(made, "other", WRONG)}, labelled(made, truth)),
        judge=JUDGE.name,
        rubric=RUBRIC,
        tuned=frozenset(),
    )
    assert further.sentences[-1].endswith(f"so {better} agrees better.")


@pytest.mark.slow
def test_a_tuned_judge_is_compared_without_the_labels_of_its_tuning() -> None:
    made = agreement_case()
    labels = (*labelled(made, "A" * 8, split="tuning"), *labelled(made, "A" * 12 + "B" * 6 + "C" * 6)[8:])
    other = again(made, "other", "A" * 12 + "B" * 6 + "C" * 6)

    def n_compared(*tuned: str) -> int:
        (further,) = compare_judges(
            *(letters_of(made), {"other": other}, labels),
            judge=JUDGE.name,
            rubric=RUBRIC,
            tuned=frozenset(tuned),
        )
        return further.kappa_differences[0].n

    assert (n_compared(), n_compared("other"), n_compared(JUDGE.name)) == (24, 16, 16)


@pytest.mark.slow
@pytest.mark.parametrize(("n_b", "named"), [(9, True), (10, False)])
def test_a_letter_that_a_rater_gave_fewer_than_ten_times_is_named(n_b: int, named: bool) -> None:
    made = case({"alpha": ["AB"] * 20}, items_per_sample=2)
    letters = "B" * n_b + "C" * 10 + "A" * (30 - n_b)
    (rater,) = made.with_rows(labels=labelled(made, letters)).report().agreement
    assert any(f"B to {n_b}" in text for text in rater.sentences) is named


@pytest.mark.slow
def test_letters_are_not_called_rare_among_fewer_than_ten_items() -> None:
    made = case({"alpha": ["AB"] * 20}, items_per_sample=2)
    for n, named in ((9, False), (10, True)):
        (rater,) = made.with_rows(labels=labelled(made, "A" * n)).report().agreement
        assert any("B to none" in text for text in rater.sentences) is named


# ------------------------------------------------------------------------------ labelled chunks of a plan

PAIR = PairPlan(
    a="alpha", b="beta", n_chunks=60, sd=0.5, detectable=0.2, needed=200, power=0.4, sentence="Plan."
)
NONE = Measure(value=None, low=None, high=None, method="", n=0, n_clusters=0)


def with_labels(pair: PairPlan, labelled: LabelledDifference | None, *, trusted: bool = True) -> PairPlan:
    return _with_labels(pair, labelled, 0.3, power=0.8, alpha=0.05, is_judge_trusted=trusted)


def estimate_of(correlation: float | None, sd: float | None) -> LabelledDifference:
    return LabelledDifference(
        rater="anna",
        rater_kind="human",
        n_chunks=12,
        basis="labels alone",
        difference=NONE,
        labels=NONE,
        p=None,
        error=NONE,
        p_error=None,
        tuning=None,
        correlation=correlation,
        sd=sd,
        width_ratio=None,
        outcome="not enough data",
    )


@pytest.mark.parametrize(
    ("estimate", "sd", "correlation"),
    [
        (None, 0.5, 0.0),
        (estimate_of(0.8, 0.45), 0.45, 0.8),
        (estimate_of(-0.4, 0.45), 0.45, 0.0),
        (estimate_of(None, None), 0.5, 0.0),
    ],
)
def test_a_plan_counts_the_labelled_chunks_that_show_the_difference(
    estimate: LabelledDifference | None, sd: float, correlation: float
) -> None:
    planned = with_labels(PAIR, estimate)
    needed = labelled_chunks_needed(0.3, sd=sd, correlation=correlation, n_chunks=60)
    assert needed is not None
    assert (planned.n_labelled, planned.correlation) == (max(needed, 30), correlation)
    assert f"{max(needed, 30)} chunks" in planned.sentence
    assert ("anna" in planned.sentence) == (estimate is not None)


def test_a_plan_says_where_labels_of_all_chunks_are_too_few() -> None:
    for pair in (PAIR.model_copy(update={"sd": 3.0}), PAIR.model_copy(update={"n_chunks": 29})):
        planned = with_labels(pair, None)
        assert planned.n_labelled is None
        assert f"all {pair.n_chunks} chunks would not" in planned.sentence
    assert with_labels(PAIR.model_copy(update={"sd": 0.0}), None).n_labelled is None


def test_a_plan_of_few_chunks_or_by_a_judge_without_trust_has_no_such_number() -> None:
    small = PAIR.model_copy(update={"n_chunks": 9})
    assert with_labels(small, None) == small
    unknown = with_labels(PAIR, None, trusted=False)
    assert (unknown.n_labelled, unknown.correlation) == (None, None)
    assert "Label 10 chunks first" in unknown.sentence
    assert with_labels(PAIR, estimate_of(0.8, 0.45), trusted=False).n_labelled is not None
