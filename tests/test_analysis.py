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


def labels_of_alpha(example: Case, letters: str, **fields: Any) -> tuple[Label, ...]:
    """Label alpha's items in order, one letter each."""
    return tuple(
        label_of(item, letter, **fields)
        for item, letter in zip(items_of(example, "alpha"), letters, strict=False)
    )


def headline_texts(report: Report, kind: str) -> list[str]:
    return [sentence.text for sentence in report.headline if sentence.kind == kind]


# ------------------------------------------------------------------------------ one candidate


def test_rates_match_hand_calculation() -> None:
    # 12 chunks of 2: 6 x AA, 3 x AB, 1 x BC!, 1 x A-, 1 x failed; 24 expected.
    letters = ["AA"] * 6 + ["AB"] * 3 + ["BC!", "A-", "x"]
    results = case({"alpha": letters}, items_per_sample=2).report().candidates[0]
    assert (results.n_expected, results.n_valid, results.n_graded) == (24, 22, 21)
    assert [(count.name, count.n) for count in results.letters] == [("A", 16), ("B", 4), ("C", 1)]
    assert results.usable.value == approx(16 / 24)
    assert results.usable_of_graded.value == approx(16 / 21)
    assert results.usable_if_ungraded_were == approx(17 / 24)
    assert results.failed.share.value == approx(2 / 24)
    assert results.flags[0].share.value == approx(1 / 21)
    assert results.failed_by_reason == {"invalid_json": 2}
    assert results.ungraded_by_reason == {"unparseable": 1}


def test_letter_ungraded_and_failed_counts_add_up_to_expected_items() -> None:
    results = case({"alpha": ["AB-", "x", "CCA", "-B-"]}).report().candidates[0]
    assert (
        sum(count.n for count in (*results.letters, results.failed, results.ungraded))
        == results.n_expected
        == 12
    )


@pytest.mark.slow
def test_failed_replies_lower_the_primary_rate_and_not_the_conditional_one() -> None:
    complete = case({"alpha": ["AAB"] * 12}).report().candidates[0]
    failing = case({"alpha": ["AAB"] * 12 + ["x"] * 4}).report().candidates[0]
    assert complete.usable.value == approx(24 / 36)
    assert failing.usable.value == approx(24 / 48)
    assert failing.usable_of_graded.value == complete.usable_of_graded.value == approx(2 / 3)


def test_few_chunks_give_a_rate_without_an_interval() -> None:
    report = case({"alpha": ["AAB"] * 9}).report()
    usable = report.candidates[0].usable
    assert usable.value == approx(2 / 3)
    assert (usable.low, usable.high) == (None, None)
    assert "fewer than 10" in (usable.reason or "")
    assert any("Too few chunks for an interval (9" in text for text in headline_texts(report, "caution"))


def test_conditional_rate_without_grades_is_null_with_a_reason() -> None:
    results = case({"alpha": ["---"] * 12}).report().candidates[0]
    assert results.usable_of_graded.value is None
    assert results.usable_of_graded.reason == "no item was graded"
    assert results.usable.value == 0.0
    assert results.usable_if_ungraded_were == 1.0


def test_tokens_are_summed_over_all_replies() -> None:
    results = case({"alpha": ["AAA"] * 3 + ["x"]}).report().candidates[0]
    assert (results.tokens.prompt, results.tokens.completion) == (4 * 400, 3 * 90 + 120)
    assert results.timing.cached_prompt_tokens == 900
    assert results.timing.wall_s == 60.0
    assert results.timing.items_per_s == approx(9 / 60)


def test_missing_token_counts_are_null_not_zero() -> None:
    example = case({"alpha": ["AAA"]})
    generations = [row.model_copy(update={"usage": None}) for row in example.rows.generations]
    results = example.with_rows(generations=generations).report().candidates[0]
    assert (results.tokens.prompt, results.tokens.completion, results.timing.cached_prompt_tokens) == (
        None,
        None,
        None,
    )


def test_repeated_questions_question_types_and_answer_words_are_counted() -> None:
    example = case({"alpha": ["AA", "BB"]}, items_per_sample=2)
    first, second = example.rows.generations
    assert isinstance(second, Generation)
    question = first.items[0].question
    repeated_items = [
        item.model_copy(update={"question": question, "answer": "w " * 70}) for item in second.items
    ]
    results = (
        example.with_rows(generations=(first, second.model_copy(update={"items": tuple(repeated_items)})))
        .report()
        .candidates[0]
    )
    assert results.n_duplicate_questions == 2
    assert results.question_types == {"fact": 2, "why": 2}
    assert (results.answer_words.median, results.answer_words.share_over_60) == (40.5, 0.5)  # 11, 11, 70, 70


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
def test_clear_difference_matches_hand_calculation() -> None:
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
def test_swapping_candidates_changes_the_sign_but_not_the_sentence() -> None:
    (original,) = case(CLEAR).report().differences
    (swapped,) = case(dict(reversed(CLEAR.items()))).report().differences
    assert swapped.difference.value == approx(-(original.difference.value or 0))
    assert swapped.outcome == "a is better"
    assert swapped.sentence == original.sentence


def test_exact_test_decides_the_outcome() -> None:
    # 10 of 12 chunks show the same step: the exact test is sure (2/1024), the interval for near-ties alone is not.
    (pair,) = case({"alpha": ["AAB"] * 12, "beta": ["AAA"] * 10 + ["AAB"] * 2}).report().differences
    assert pair.p == approx(2 / 1024)
    assert (pair.outcome, pair.difference.low) == ("b is better", 0)


def test_interval_includes_0_where_the_exact_test_is_not_significant() -> None:
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
    distribution = np.ones(1)
    for step in np.abs(beta - alpha):
        distribution = np.convolve(distribution, np.bincount([0, 2 * step], minlength=2 * step + 1) / 2)
    outcomes = np.arange(len(distribution)) - (len(distribution) - 1) / 2
    assert pair.p == approx(distribution[np.abs(outcomes) >= abs((beta - alpha).sum())].sum(), rel=1e-9)


@pytest.mark.slow
def test_planned_power_matches_simulated_power() -> None:
    # A rate 98 %, ICC .2, 20 chunks, a loss of 15 points: the verdict by the interval found it in 30 % of the runs
    rate, icc, n_chunks = 0.98, 0.2, 20
    pilot = Pilot.assumed(rate, icc, 3)
    planned_power = plan(pilot, 0.15, n_chunks=n_chunks).power
    values, shares = pilot.law(0.15)
    rng = np.random.default_rng(1)
    wins = 0
    for _ in range(100):
        lost_items = rng.choice(np.round(values * 3).astype(int), n_chunks, p=shares)
        (pair,) = compare_candidates(
            usable_table(3 - np.maximum(lost_items, 0), 3 + np.minimum(lost_items, 0), [3] * n_chunks),
            candidates=["alpha", "beta"],
            best="A",
            margin=0.05,
        )
        wins += pair.outcome == "a is better"
    assert wins / 100 == approx(planned_power, abs=0.12)


NARROW = {"alpha": ["AAB", "ABB"] * 8, "beta": ["ABB", "AAB"] * 7 + ["AAA", "AAA"]}


def test_interval_inside_the_margin_shows_no_difference() -> None:
    report = case(NARROW).report(margin=0.5)
    (pair,) = report.differences
    assert (pair.outcome, pair.n_more_chunks) == ("no difference shown", None)
    limit = 100 * max(abs(pair.difference.low or 0), abs(pair.difference.high or 0))
    assert (
        f"A difference above {limit:.1f} points either way is ruled out at the 95 % level." in pair.sentence
    )
    assert "better" not in pair.sentence


def test_interval_across_0_and_the_margin_is_not_enough_data() -> None:
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


def test_few_chunks_show_no_better_candidate() -> None:
    (pair,) = case({"alpha": ["CCC"] * 9, "beta": ["AAA"] * 9}).report().differences
    assert pair.outcome == "too few chunks"
    assert "too few chunks for an interval (9)" in pair.sentence


@pytest.mark.slow
def test_p_values_of_three_pairs_are_holm_adjusted() -> None:
    # alpha - beta: 6 equal steps of 12 chunks, p = 2/64; the pairs with gamma: 12 steps, p = 2/4096 each.
    letters = {"alpha": ["AAB"] * 12, "beta": ["AAA"] * 6 + ["AAB"] * 6, "gamma": ["CCC"] * 12}
    report = case(letters).report()
    first, second, third = report.differences
    assert first.p == approx(2 / 64)
    assert second.p == approx(2 / 4096)
    assert [pair.p_holm for pair in (first, second, third)] == approx([2 / 64, 6 / 4096, 6 / 4096])
    assert report.verdict.reason("better") == Reason(code="better", candidates=("alpha", "gamma"))


@pytest.mark.slow
def test_interval_excluding_0_is_not_enough_among_many_pairs() -> None:
    letters = {
        "alpha": ["AAB"] * 12,
        "beta": ["AAA"] * 6 + ["AAB"] * 6,
        "gamma": ["AAB"] * 12,
        "delta": ["AAB"] * 12,
    }
    pair = case(letters).report().differences[0]
    assert pair.difference.low == approx(0.0561, abs=1e-4)
    assert "not after correction" in pair.sentence
    assert pair.p_holm == approx(6 * 2 / 64)
    assert pair.outcome == "not enough data"


@pytest.mark.slow
def test_three_candidates_are_ranked_with_intervals() -> None:
    # of 36 chunks beta beats alpha in 18 and loses 9; alpha beats gamma in 27, beta too, and both lose 9
    letters = {
        "alpha": ["AAB"] * 18 + ["ABB"] * 9 + ["AAA"] * 9,
        "beta": ["AAA"] * 18 + ["ABB"] * 9 + ["AAB"] * 9,
        "gamma": ["ABB"] * 18 + ["AAB"] * 9 + ["ABB"] * 9,
    }
    ranking = case(letters).report().ranking
    assert [rank.candidate for rank in ranking] == ["beta", "alpha", "gamma"]
    assert [rank.rank for rank in ranking] == [1, 2, 3]
    assert (ranking[0].rank_low, ranking[-1].rank_high) == (1, 3)
    assert sum(rank.strength.value or 0 for rank in ranking) == approx(0)
    assert all(rank.strength.has_interval for rank in ranking)


def test_candidate_that_never_lost_has_a_reason_instead_of_a_rank() -> None:
    letters = {"alpha": ["AAA"] * 12, "beta": ["AAB"] * 12, "gamma": ["ABB"] * 12}
    ranking = case(letters).report().ranking
    assert [rank.candidate for rank in ranking] == ["alpha", "beta", "gamma"]
    assert all("never lost" in (rank.strength.reason or "") for rank in ranking)
    assert all(rank.rank_low is None for rank in ranking)


def test_flagged_best_letters_cause_a_caution() -> None:
    report = case({"alpha": ["A!AB", "C!AA"] * 6, "beta": ["AAB"] * 12}).report()
    assert [results.n_best_flagged for results in report.candidates] == [6, 0]
    (caution,) = [text for text in headline_texts(report, "caution") if "contradict" in text]
    assert "gave A to 6 items of alpha" in caution


def test_many_failures_cause_a_caution_with_their_reasons() -> None:
    report = case({"alpha": ["AAB"] * 11 + ["x"], "beta": ["AAB"] * 12}).report()
    (caution,) = [text for text in headline_texts(report, "caution") if "failed" in text]
    assert caution.startswith("alpha: 3 of 36 items failed (")
    assert "beta" not in caution


def test_candidate_scores_match_hand_calculation() -> None:
    # alpha: 12 of 24 usable, beta 24 of 24; both fully graded; RESTRICTED licence against open source
    open_source, closed = (
        candidate(name, openness=openness)
        for name, openness in (("alpha", "open source"), ("beta", "restricted"))
    )
    example = case(
        {"alpha": ["AB"] * 12, "beta": ["AA"] * 12}, items_per_sample=2, alpha=open_source, beta=closed
    )
    report = example.report()
    choices = {choice.candidate: choice for choice in report.timing.choice}
    scores = {
        name: {
            criterion.name: criterion.score
            for criterion in choice.criteria
            if criterion.name not in {"speed", "cost", "maintenance"}
        }
        for name, choice in choices.items()
    }
    assert scores["alpha"] == {"quality": 0.5, "reliability": 1.0, "licence": 1.0, "sovereignty": 1.0}
    assert scores["beta"] == {"quality": 1.0, "reliability": 1.0, "licence": 0.0, "sovereignty": 1.0}
    # the unknown criterion, the age of the model, is excluded from the mean
    weighted_scores = [
        (criterion.weight, criterion.score)
        for criterion in choices["alpha"].criteria
        if criterion.score is not None
    ]
    assert len(weighted_scores) == len(choices["alpha"].criteria) - 1
    assert choices["alpha"].mean == approx(
        sum(weight * score for weight, score in weighted_scores)
        / sum(weight for weight, _ in weighted_scores)
    )


def test_two_candidates_need_no_ranking() -> None:
    assert case(CLEAR).report().ranking == ()


@pytest.mark.slow
def test_equivalence_is_tested_against_the_margin() -> None:
    (wide,) = case(NARROW).report(margin=0.5).differences
    (narrow,) = case(NARROW).report(margin=0.05).differences
    assert (wide.p_equivalent or 1) < 0.01
    assert (narrow.p_equivalent or 0) > 0.3
    (few_chunks,) = case({"alpha": ["CCC"] * 9, "beta": ["AAA"] * 9}).report().differences
    assert few_chunks.p_equivalent is None


def test_one_candidate_has_nothing_to_compare() -> None:
    assert case({"alpha": ["AAB"] * 12}).report().differences == ()


# ------------------------------------------------------------------------------ agreement


def agreement_case() -> Case:
    """12 chunks of 2; the judge: 12 A, 6 B, 6 C."""
    return case({"alpha": ["AA"] * 6 + ["BB"] * 3 + ["CC"] * 3}, items_per_sample=2)


def test_agreement_matches_hand_calculation() -> None:
    # rater rows, judge columns: A 10/1/1, B 2/4/0, C 0/1/5 of 24; same letter 19.
    # marginals 12/6/6 and 12/6/6: p_e = 1/4 + 1/16 + 1/16 = 3/8; kappa = (19/24 - 3/8)/(5/8) = 2/3.
    example = agreement_case()
    letters = "A" * 10 + "BB" + "A" + "BBBB" + "C" + "A" + "CCCCC"
    report = example.with_rows(labels=labels_of_alpha(example, letters)).report()
    (agreement_with_anna,) = report.agreement
    assert agreement_with_anna.coefficients is not None
    assert agreement_with_anna.coefficients.confusion == ((10, 1, 1), (2, 4, 0), (0, 1, 5))
    assert agreement_with_anna.coefficients.observed.value == approx(19 / 24)
    assert agreement_with_anna.coefficients.kappa.value == approx(2 / 3)
    assert agreement_with_anna.coefficients.kappa_max == approx(1.0)
    assert (agreement_with_anna.majority_letter, agreement_with_anna.majority_baseline) == ("A", 0.5)
    assert agreement_with_anna.leniency is not None
    assert agreement_with_anna.leniency.value == approx((2 + 0 + 1 - 1 - 1 - 0) / 24)
    assert [(letter.letter, letter.recall.value) for letter in agreement_with_anna.letters] == [
        ("A", approx(10 / 12)),
        ("B", approx(4 / 6)),
        ("C", approx(5 / 6)),
    ]
    assert (
        agreement_with_anna.candidates[0].n,
        agreement_with_anna.candidates[0].n_best_by_rater,
        agreement_with_anna.candidates[0].n_best_by_judge,
    ) == (
        24,
        12,
        12,
    )


def test_unjoined_labels_are_counted_by_reason() -> None:
    example = case({"alpha": ["A-", "AB"] + ["AB"] * 10}, items_per_sample=2)
    unknown_label = Label(item_id="elsewhere", rater="anna", rater_kind="human", letter="A")
    (agreement_with_anna,) = (
        example.with_rows(labels=(*labels_of_alpha(example, "ABAB"), unknown_label)).report().agreement
    )
    assert agreement_with_anna.coefficients is not None
    assert (
        agreement_with_anna.n_labels,
        agreement_with_anna.coefficients.n,
        agreement_with_anna.n_ungraded,
        agreement_with_anna.n_not_in_run,
    ) == (5, 3, 1, 1)
    (excluded,) = [text for text in agreement_with_anna.sentences if text.startswith("Excluded labels")]
    assert "1 of ungraded items" in excluded


@pytest.mark.slow
def test_tuned_judge_is_measured_on_held_out_labels_only() -> None:
    example = agreement_case()
    tuning = labels_of_alpha(example, "A" * 8, split="tuning")
    held_out = labels_of_alpha(example, "A" * 12 + "B" * 6 + "C" * 6)[8:]
    example = example.with_rows(labels=(*tuning, *held_out))
    (all_labels,) = example.report().agreement
    (held_out_only,) = example.report(judge_tuned=True).agreement
    assert all_labels.coefficients is not None
    assert held_out_only.coefficients is not None
    assert (all_labels.coefficients.n, all_labels.n_tuning_excluded) == (24, 0)
    assert (held_out_only.coefficients.n, held_out_only.n_tuning_excluded) == (16, 8)
    assert any(text.startswith("Excluded labels: 8 ") for text in held_out_only.sentences)


def test_weighted_draw_estimates_agreement_on_all_items() -> None:
    """The judge gives 48 items an A, of which 36 are right: 12 disputed items are labelled, and 9 of the others."""
    example = case({"alpha": ["AAA"] * 16})
    labels = [
        label.model_copy(update={"inclusion": 1.0 if label.letter == "B" else 0.25})
        for label in labels_of_alpha(example, "B" * 12 + "A" * 9)
    ]
    (weighted,) = example.with_rows(labels=tuple(labels)).report().agreement
    (unweighted,) = (
        example.with_rows(labels=tuple(labels_of_alpha(example, "B" * 12 + "A" * 9))).report().agreement
    )
    assert weighted.coefficients is not None
    assert unweighted.coefficients is not None
    assert weighted.coefficients.observed.value == pytest.approx(36 / 48)
    assert unweighted.coefficients.observed.value == pytest.approx(9 / 21)
    # counts stay those of the labelled items, and the most frequent letter is that of the run
    assert weighted.coefficients.confusion == unweighted.coefficients.confusion
    assert (weighted.majority_letter, unweighted.majority_letter) == ("A", "B")
    assert weighted.majority_baseline == pytest.approx(36 / 48)
    assert weighted.coefficients.alpha.value != unweighted.coefficients.alpha.value
    assert (weighted.is_weighted, unweighted.is_weighted) == (True, False)
    assert "drawn with unequal probabilities" in " ".join(weighted.sentences)
    assert "drawn with unequal probabilities" not in " ".join(unweighted.sentences)


def test_labels_of_other_items_leave_the_judge_unchecked() -> None:
    unknown_label = Label(item_id="elsewhere", rater="anna", rater_kind="human", letter="A")
    report = agreement_case().with_rows(labels=(unknown_label,)).report()
    assert report.agreement[0].coefficients is None
    assert report.agreement[0].standing == "no labels joined"
    assert any("was not checked against labels" in text for text in headline_texts(report, "caution"))
    section = agreement(report)
    assert section.parts == ()
    assert "The labels by anna are of other items" in section.paragraphs[1]


@pytest.mark.slow
def test_labels_of_other_items_are_mentioned_in_one_line() -> None:
    example = agreement_case()
    unknown_label = Label(item_id="elsewhere", rater="bert", rater_kind="human", letter="A")
    section = agreement(
        example.with_rows(labels=(*labels_of_alpha(example, "A" * 24), unknown_label)).report()
    )
    assert section.paragraphs == ("The labels by bert are of other items than this run's and are ignored.",)
    assert [part.title for part in section.parts] == ["anna"]


def test_a_judge_without_labels_is_called_unchecked() -> None:
    assert any(
        "was not checked against labels" in text
        for text in headline_texts(agreement_case().report(), "caution")
    )


def test_judge_that_always_answers_a_has_chance_standing() -> None:
    example = case({"alpha": ["AA"] * 12}, items_per_sample=2)
    report = example.with_rows(labels=labels_of_alpha(example, "AB" * 12)).report()
    (agreement_with_anna,) = report.agreement
    assert agreement_with_anna.standing == "chance"
    assert agreement_with_anna.coefficients is not None
    assert agreement_with_anna.coefficients.confusion == ((12, 0, 0), (12, 0, 0), (0, 0, 0))
    assert any("anna's labels" in text and "chance" in text for text in headline_texts(report, "caution"))


def test_single_letter_has_no_kappa_with_a_reason() -> None:
    example = case({"alpha": ["AA"] * 12}, items_per_sample=2)
    (agreement_with_anna,) = example.with_rows(labels=labels_of_alpha(example, "A" * 24)).report().agreement
    assert agreement_with_anna.coefficients is not None
    assert agreement_with_anna.coefficients.kappa.value is None
    assert agreement_with_anna.coefficients.kappa.reason
    assert agreement_with_anna.standing == "chance"
    assert any("cannot show" in text for text in agreement_with_anna.sentences)


def test_judge_that_does_not_beat_the_majority_letter_is_reported() -> None:
    # 22 of 24 the same, but always answering A would match 20
    example = case({"alpha": ["AA"] * 8 + ["AA", "AB", "AB", "BB"]}, items_per_sample=2)
    letters = "A" * 16 + "AA" + "AA" + "AB" + "BB"
    letters = letters[:14] + "B" + letters[15:]
    (agreement_with_anna,) = example.with_rows(labels=labels_of_alpha(example, letters)).report().agreement
    assert agreement_with_anna.standing == "chance"
    assert any("does not show agreement" in text for text in agreement_with_anna.sentences)


def test_labels_of_another_rubric_are_counted_but_not_compared() -> None:
    example = agreement_case()
    same_rubric = labels_of_alpha(example, "ABAB", rubric="qa_quality/1")
    other_rubric = [
        label.model_copy(update={"letter": "Z", "rater": "bert"})
        for label in labels_of_alpha(example, "ABAB", rubric="mine/2")
    ]
    report = example.with_rows(labels=(*same_rubric, *other_rubric)).report()
    anna, bert = report.agreement
    assert anna.coefficients is not None
    assert (anna.coefficients.n, anna.n_other_rubric) == (4, 0)
    assert (bert.coefficients, bert.n_other_rubric) == (None, 4)
    assert any("4 of another rubric" in text for text in bert.sentences)
    assert report.raters == ()


@pytest.mark.slow
def test_few_labels_beside_many_cause_no_caution() -> None:
    example = agreement_case()
    many_labels = labels_of_alpha(example, "A" * 12 + "B" * 6 + "C" * 6)
    few_labels = labels_of_alpha(example, "ABAB", rater="ben")
    combined = example.with_rows(labels=(*many_labels, *few_labels)).report()
    few_only = example.with_rows(labels=few_labels).report()
    assert not any("ben's labels" in text for text in headline_texts(combined, "caution"))
    assert any(
        "ben's labels" in text and "too few chunks" in text for text in headline_texts(few_only, "caution")
    )


def test_labels_by_models_only_cause_a_caution() -> None:
    example = agreement_case()
    labels = labels_of_alpha(example, "A" * 12 + "B" * 6 + "C" * 6, rater="claude", rater_kind="model")
    report = example.with_rows(labels=labels).report()
    assert any("a hosted model" in text for text in report.agreement[0].sentences)
    assert any("no person has labelled" in text for text in headline_texts(report, "caution"))


def test_flags_are_compared() -> None:
    example = case({"alpha": ["AC!"] * 12}, items_per_sample=2)
    first = label_of(items_of(example, "alpha")[0], "A", flags=("hallucination",))
    rest = [label_of(item, "C") for item in items_of(example, "alpha")[1:]]
    (agreement_with_anna,) = example.with_rows(labels=(first, *rest)).report().agreement
    (flag,) = agreement_with_anna.flags
    assert (flag.n_both, flag.n_rater_only, flag.n_judge_only, flag.n_neither) == (0, 1, 12, 11)
    assert flag.precision.value == 0.0


def test_raters_are_compared_on_items_labelled_by_both() -> None:
    example = agreement_case()
    anna = labels_of_alpha(example, "A" * 12)
    bert = labels_of_alpha(example, "A" * 9 + "BBB" + "CC", rater="bert")
    (pair,) = example.with_rows(labels=(*anna, *bert)).report().raters
    assert (pair.a, pair.b, pair.coefficients.n) == ("anna", "bert", 12)
    assert pair.coefficients.observed.value == approx(9 / 12)
    assert "ceiling for any judge" not in pair.sentence, "six chunks are too few"


@pytest.mark.slow
def test_only_human_raters_of_many_chunks_are_called_a_ceiling() -> None:
    example = case({"alpha": ["ABC"] * 30}, items_per_sample=3)
    letters = "ABC" * 30
    anna = labels_of_alpha(example, letters)
    other_letters = "ABB" * 10 + letters[30:]

    def sentence(rater_kind: str, n: int) -> str:
        bert = labels_of_alpha(example, other_letters[:n], rater="bert", rater_kind=rater_kind)
        first = [label.model_copy(update={"rater_kind": rater_kind}) for label in anna]
        return example.with_rows(labels=(*first, *bert)).report().raters[0].sentence

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
    example = agreement_case()
    invalid_labels = [label.model_copy(update=change) for label in labels_of_alpha(example, "A")]
    with pytest.raises(DataError, match=message):
        example.with_rows(labels=invalid_labels).report()


@pytest.mark.slow
def test_conflicting_labels_of_one_rater_are_refused() -> None:
    example = agreement_case()
    with pytest.raises(DataError, match="two different labels"):
        example.with_rows(labels=(*labels_of_alpha(example, "A"), *labels_of_alpha(example, "B"))).report()
    duplicated = example.with_rows(labels=labels_of_alpha(example, "A") * 2).report()
    assert duplicated.agreement == example.with_rows(labels=labels_of_alpha(example, "A")).report().agreement


# ------------------------------------------------------------------------------ the whole report


def rich_case() -> Case:
    letters = {"alpha": ["AAB", "x", "A-C!"] * 5, "embedded-lead": ["ABC", "BBB", "A!BC"] * 5}
    example = case(letters, embedded_lead=candidate("embedded-lead", kind="embedded", hf_id=""))
    return example.with_rows(labels=labels_of_alpha(example, "AABABC"))


def test_embedded_models_are_called_a_floor() -> None:
    (note,) = [text for text in headline_texts(rich_case().report(), "note") if "floor" in text]
    assert note.startswith("embedded-lead is a floor, not a language model")


def test_report_of_embedded_models_only_says_it_decides_nothing() -> None:
    embedded = {name: candidate(name, kind="embedded") for name in ("one", "two")}
    report = case({"one": ["AAA"] * 10, "two": ["AAB"] * 10}, **embedded).report()
    assert any("not which model to host" in text for text in headline_texts(report, "note"))


def test_embedded_judge_causes_a_caution() -> None:
    example = replace(rich_case(), judge=JUDGE.model_copy(update={"kind": "embedded"}))
    assert any("is not a language model" in text for text in headline_texts(example.report(), "caution"))


@pytest.mark.slow
def test_judge_of_a_candidates_family_causes_a_caution() -> None:
    candidates = {
        name: candidate(name, family=family) for name, family in (("one", ("qwen",)), ("two", ("llama",)))
    }
    example = case({"one": ["AAA"] * 10, "two": ["AAB"] * 10}, **candidates)
    for options in ({}, {SAME_FAMILY: "yes"}):
        judge = JUDGE.model_copy(update={"family": ("mistral", "qwen"), "more": options})
        (caution,) = [
            text
            for text in headline_texts(replace(example, judge=judge).report(), "caution")
            if "family" in text
        ]
        assert "one (mistral and qwen)" in caution
        assert "two" not in caution
        assert ("--allow-same-family" in caution) == bool(options)


def test_union_merges_touching_spans_and_drops_empty_ones() -> None:
    assert union([(3, 4), (1, 2), (2, 3), (5, 5), (6, 8), (6, 7)]) == [(1, 4), (6, 8)]
    assert union([(1, 9), (2, 3), (9, 10)]) == [(1, 10)]
    assert union([]) == []


def test_chunks_are_cross_tabulated_by_usable_items_of_both_candidates() -> None:
    example = case(
        {"one": ["AA", "AB", "BB", "AA", "x"] * 3, "two": ["AB", "AB", "AA", "AB", "AA"] * 3},
        items_per_sample=2,
    )
    (difference,) = example.report().differences
    # rows: usable items of one, columns: of two; one's failed replies have no usable item
    assert difference.chunks == ((0, 0, 6), (0, 3, 0), (0, 6, 0))


def test_answer_lengths_have_a_histogram_with_an_open_last_bin() -> None:
    lengths = [0, 9, 10, 60, 61, 99, 100, 110, 300]
    answers = answer_words(pd.Series([" ".join(["w"] * n) for n in lengths]))
    assert (answers.n, answers.median) == (9, 61)
    assert answers.histogram == (2, 1, 0, 0, 0, 0, 2, 0, 0, 1, 3)
    assert answers.mean == approx(sum(lengths) / 9)
    assert answers.share_over_60 == approx(5 / 9)
    empty = answer_words(pd.Series([], dtype=str))
    assert (empty.n, empty.mean, empty.share_over_60) == (0, None, None)


@pytest.mark.slow
def test_judge_that_grades_its_own_text_causes_a_caution() -> None:
    example = replace(
        rich_case(), candidates=(candidate("alpha", hf_id=JUDGE.hf_id), candidate("embedded-lead"))
    )
    assert any(
        "graded by the same model that wrote it" in text
        for text in headline_texts(example.report(), "caution")
    )


@pytest.mark.slow
def test_ungraded_items_are_bounded_in_the_headline() -> None:
    (caution,) = [
        caution for caution in headline_texts(rich_case().report(), "caution") if "got no letter" in caution
    ]
    assert caution == (
        "alpha: 5 items of 45 got no letter; with A for all of them the usable rate would be 44.4 % instead of 33.3 %."
    )


def test_failures_are_grouped_with_at_most_five_examples() -> None:
    report = case({"alpha": ["x"] * 7 + ["A-B"] * 5}).report()
    failed, unparseable = report.failures
    assert (failed.stage, failed.reason, failed.n_items, len(failed.examples)) == (
        "generate",
        "invalid_json",
        21,
        5,
    )
    assert (unparseable.stage, unparseable.reason, unparseable.n_items, len(unparseable.examples)) == (
        "grade",
        "unparseable",
        5,
        5,
    )
    assert len(failed.examples[0].text) == 300
    assert failed.examples[0].item_id is None
    assert unparseable.examples[0].item_id


@pytest.mark.slow
def test_external_hosts_are_reported_from_sessions() -> None:
    example = rich_case()
    external_session = example.rows.sessions[0].model_copy(
        update={"host": "api.example.com", "external": True}
    )
    example = example.with_rows(sessions=(*example.rows.sessions, external_session))
    assert example.report().data_left == ("api.example.com",)
    assert rich_case().report().data_left == ()


def test_sample_count_must_match_the_eval() -> None:
    example = rich_case()
    mismatched = example.eval_facts().model_copy(update={"n_samples": 3})
    with pytest.raises(DataError, match=r"expected 3, .* holds 15"):
        analyse(replace(example.data(), eval_facts=mismatched), RUN, ReportOptions())


@pytest.mark.slow
@pytest.mark.parametrize(
    "letters", [["x"] * 3, ["---"] * 12, ["AAA"] * 12, ["AAB"] * 2, ["AAB", "x", "C!-A"] * 5], ids=str
)
def test_report_json_has_no_nan_and_round_trips(letters: list[str]) -> None:
    example = case({"alpha": letters, "beta": letters})
    example = example.with_rows(labels=labels_of_alpha(example, "AAA"))
    text = example.report().model_dump_json()
    json.loads(text, parse_constant=pytest.fail)
    assert Report.model_validate_json(text).model_dump_json() == text


@pytest.mark.slow
def test_reports_of_equal_runs_differ_only_in_run_and_timing() -> None:
    example = rich_case()
    slower_generations = [
        row.model_copy(update={"latency_s": 9.9}) for row in reversed(example.rows.generations)
    ]
    later = example.with_rows(
        generations=slower_generations,
        grades=example.rows.grades[::-1],
        sessions=[session.model_copy(update={"seconds": 1.5}) for session in example.rows.sessions],
        labels=example.rows.labels[::-1],
    )
    later = replace(
        later, run=RUN.model_copy(update={"id": "another", "started": "2027-01-01T00:00:00+00:00"})
    )
    report, later_report = example.report().model_dump(mode="json"), later.report().model_dump(mode="json")
    assert report != later_report
    assert json.dumps(_without_times(report)) == json.dumps(_without_times(later_report))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(nested) for key, nested in value.items() if key not in {"run", "timing"}}
    return [_without_times(nested) for nested in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_items_include_candidates_letters_reasons_and_labels() -> None:
    first = rich_case().items()[0]
    alpha, lead = first.candidates
    assert (alpha.candidate, [item.letter for item in alpha.items]) == ("alpha", ["A", "A", "B"])
    assert alpha.items[0].labels == (("anna", "A"),)
    assert alpha.items[0].reason == "Reads like an A."
    assert [item.letter for item in lead.items] == ["A", "B", "C"]


@pytest.mark.slow
def test_failed_item_has_a_reason() -> None:
    failed = rich_case().items()[1].candidates[0].items[0]
    assert failed.status == "failed"
    assert "not JSON" in failed.reason
    assert "Sure! Here" in failed.reason


# ------------------------------------------------------------------------------ judge and labels, further


def letter_table_of(example: Case) -> pd.DataFrame:
    return letter_table(
        *(example.rows.samples, example.rows.generations, example.rows.grades),
        candidates=[facts.name for facts in example.candidates],
        items_per_sample=example.items_per_sample,
        judge=JUDGE.name,
        rubric=RUBRIC,
    )


def regraded_alpha(example: Case, judge: str, letters: str) -> list[Grade | Failure]:
    """Return the grades of alpha's items by another judge; a dot omits the row."""
    return [
        row.model_copy(update={"judge": judge, "letter": letter})
        for row, letter in zip(example.rows.grades, letters, strict=True)
        if isinstance(row, Grade) and letter != "."
    ]


def test_each_group_is_measured_separately() -> None:
    example = agreement_case()
    labels = labels_of_alpha(example, "ABABABABABAB" + "BABABA" + "CCCCCC")
    options: dict[str, Any] = {"source": "run", "judge": JUDGE.name, "rubric": RUBRIC, "judge_tuned": False}
    report = report_of_run(letter_table_of(example), labels, by="type", **options)
    # facts: 6 A of the judge are 6 A, 3 B are 3 B, 3 C are 3 C; whys: B, A and C
    coefficients = {group.group: group.agreement.coefficients for group in report.groups}
    assert list(coefficients) == ["fact", "why"]
    fact_coefficients, why_coefficients = coefficients["fact"], coefficients["why"]
    assert fact_coefficients is not None
    assert why_coefficients is not None
    assert fact_coefficients.confusion == ((6, 0, 0), (0, 3, 0), (0, 0, 3))
    assert why_coefficients.confusion == ((0, 3, 0), (6, 0, 0), (0, 0, 3))
    assert report_of_run(letter_table_of(example), labels, **options).groups == ()
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
    example = agreement_case()
    labels = [] if change is None else [labels_of_alpha(example, "A")[0].model_copy(update=change)]
    with pytest.raises(DataError, match=excerpt):
        report_of_run(
            letter_table_of(example), labels, source="run", judge=JUDGE.name, rubric=RUBRIC, judge_tuned=False
        )


def test_second_judge_is_compared_on_the_same_items() -> None:
    example = agreement_case()  # 12 A, 6 B, 6 C
    reference = "A" * 12 + "BBBBBB" + "CCCCCC"
    labels = labels_of_alpha(example, reference)
    grades = regraded_alpha(example, "other", "AAAAAABBBBBB" + "BBBBBB" + "CCCC..")
    (comparison,) = compare_judges(
        letter_table_of(example),
        {"other": grades},
        labels,
        judge=JUDGE.name,
        rubric=RUBRIC,
        tuned=frozenset(),
    )
    assert (comparison.judge, comparison.n_items, comparison.n_graded) == ("other", 24, 22)
    assert comparison.coefficients is not None
    assert comparison.coefficients.confusion == ((6, 6, 0), (0, 6, 0), (0, 0, 4))
    (change,) = comparison.kappa_differences
    # of 22 items the first judge has all, the other 16: p_e = (12 x 6 + 6 x 12 + 4 x 4) / 22^2
    chance = (12 * 6 + 6 * 12 + 4 * 4) / 22**2
    assert (change.rater, change.n, change.kappa.value) == ("anna", 22, approx(1.0))
    assert change.kappa_of_other.value == approx((16 / 22 - chance) / (1 - chance))
    assert change.difference.value == approx((change.kappa_of_other.value or 0) - 1)
    assert any("graded 22 of 24" in text for text in comparison.sentences)
    assert comparison.sentences[-1].endswith("so neither is shown to agree better.")
    (usable,) = comparison.candidates
    assert (usable.candidate, usable.n, usable.n_usable, usable.n_usable_by_other) == ("alpha", 24, 12, 6)


RIGHT, WRONG = "A" * 12 + "B" * 6 + "C" * 6, "B" * 12 + "C" * 6 + "A" * 6


@pytest.mark.parametrize(("reference", "better"), [(RIGHT, JUDGE.name), (WRONG, "other")])
def test_the_judge_that_agrees_better_is_named(reference: str, better: str) -> None:
    example = agreement_case()  # its judge gives the letters of RIGHT
    (comparison,) = compare_judges(
        *(
            letter_table_of(example),
            {"other": regraded_alpha(example, "other", WRONG)},
            labels_of_alpha(example, reference),
        ),
        judge=JUDGE.name,
        rubric=RUBRIC,
        tuned=frozenset(),
    )
    assert comparison.sentences[-1].endswith(f"so {better} agrees better.")


@pytest.mark.slow
def test_tuned_judge_is_compared_without_tuning_labels() -> None:
    example = agreement_case()
    labels = (
        *labels_of_alpha(example, "A" * 8, split="tuning"),
        *labels_of_alpha(example, "A" * 12 + "B" * 6 + "C" * 6)[8:],
    )
    grades = regraded_alpha(example, "other", "A" * 12 + "B" * 6 + "C" * 6)

    def n_compared(*tuned: str) -> int:
        (comparison,) = compare_judges(
            *(letter_table_of(example), {"other": grades}, labels),
            judge=JUDGE.name,
            rubric=RUBRIC,
            tuned=frozenset(tuned),
        )
        return comparison.kappa_differences[0].n

    assert (n_compared(), n_compared("other"), n_compared(JUDGE.name)) == (24, 16, 16)


@pytest.mark.slow
@pytest.mark.parametrize(("n_b", "is_reported"), [(9, True), (10, False)])
def test_rare_letter_of_a_rater_is_reported(n_b: int, is_reported: bool) -> None:
    example = case({"alpha": ["AB"] * 20}, items_per_sample=2)
    letters = "B" * n_b + "C" * 10 + "A" * (30 - n_b)
    (rater,) = example.with_rows(labels=labels_of_alpha(example, letters)).report().agreement
    assert any(f"B to {n_b}" in text for text in rater.sentences) is is_reported


@pytest.mark.slow
def test_letters_are_not_called_rare_among_fewer_than_ten_items() -> None:
    example = case({"alpha": ["AB"] * 20}, items_per_sample=2)
    for n, is_reported in ((9, False), (10, True)):
        (rater,) = example.with_rows(labels=labels_of_alpha(example, "A" * n)).report().agreement
        assert any("B to none" in text for text in rater.sentences) is is_reported


# ------------------------------------------------------------------------------ labelled chunks of a plan

PAIR = PairPlan(
    a="alpha", b="beta", n_chunks=60, sd=0.5, detectable=0.2, needed=200, power=0.4, sentence="Plan."
)
NONE = Measure(value=None, low=None, high=None, method="", n=0, n_clusters=0)


def plan_with_labels(
    pair: PairPlan, estimate: LabelledDifference | None, *, trusted: bool = True
) -> PairPlan:
    return _with_labels(pair, estimate, 0.3, power=0.8, alpha=0.05, is_judge_trusted=trusted)


def labelled_difference(correlation: float | None, sd: float | None) -> LabelledDifference:
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
        (labelled_difference(0.8, 0.45), 0.45, 0.8),
        (labelled_difference(-0.4, 0.45), 0.45, 0.0),
        (labelled_difference(None, None), 0.5, 0.0),
    ],
)
def test_plan_counts_labelled_chunks_needed_for_the_difference(
    estimate: LabelledDifference | None, sd: float, correlation: float
) -> None:
    planned = plan_with_labels(PAIR, estimate)
    needed = labelled_chunks_needed(0.3, sd=sd, correlation=correlation, n_chunks=60)
    assert needed is not None
    assert (planned.n_labelled, planned.correlation) == (max(needed, 30), correlation)
    assert f"{max(needed, 30)} chunks" in planned.sentence
    assert ("anna" in planned.sentence) == (estimate is not None)


def test_plan_says_when_labels_of_all_chunks_are_too_few() -> None:
    for pair in (PAIR.model_copy(update={"sd": 3.0}), PAIR.model_copy(update={"n_chunks": 29})):
        planned = plan_with_labels(pair, None)
        assert planned.n_labelled is None
        assert f"all {pair.n_chunks} chunks would not" in planned.sentence
    assert plan_with_labels(PAIR.model_copy(update={"sd": 0.0}), None).n_labelled is None


def test_plan_with_few_chunks_or_untrusted_judge_has_no_labelled_count() -> None:
    small = PAIR.model_copy(update={"n_chunks": 9})
    assert plan_with_labels(small, None) == small
    untrusted = plan_with_labels(PAIR, None, trusted=False)
    assert (untrusted.n_labelled, untrusted.correlation) == (None, None)
    assert "Label 10 chunks first" in untrusted.sentence
    assert plan_with_labels(PAIR, labelled_difference(0.8, 0.45), trusted=False).n_labelled is not None
