"""Labels decide: corrected differences and rates of a run, the verdict that follows, and labels that do not fit."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qaeval.cli import run as qaeval
from qaeval.comparison.correction import correct_differences
from qaeval.comparison.decision import decide
from qaeval.comparison.differences import compare_candidates
from qaeval.comparison.headline import verdict_sentence
from qaeval.comparison.html import render_html
from qaeval.comparison.markdown import render_markdown
from qaeval.comparison.model import Difference, LabelledDifference
from qaeval.comparison.report import Report
from qaeval.comparison.terminal import overview_text
from qaeval.errors import DataError
from qaeval.records import Label
from qaeval.report.numbers import difference
from report_builders import Case, case, items_of, label_of

approx = pytest.approx

ITEMS = 2


def labels_of(
    run: Case, truth: Mapping[str, Sequence[str]], chunks: Iterable[int], **more: Any
) -> tuple[Label, ...]:
    """Label every item of the chunks: a word of letters for each chunk and candidate, as in `case`."""
    labels = []
    for name, words in truth.items():
        items = {chunk: word for chunk, word in enumerate(words) if word != "x"}
        places = [(chunk, letter) for chunk, word in items.items() for letter in word]
        wanted = set(chunks)
        for item, (chunk, letter) in zip(items_of(run, name), places, strict=True):
            if chunk in wanted:
                labels.append(label_of(item, letter, **more))
    return tuple(labels)


def of_pair(report: Report) -> LabelledDifference:
    (pair,) = report.differences
    assert pair.labelled
    return pair.labelled[0]


N = 40
TRUTH = {"alpha": ["AA", "AC", "CC", "AC"] * 10, "beta": ["AC", "AA", "AC", "CC"] * 10}
"""No difference: both have 40 usable items of 80."""
JUDGED = {"alpha": TRUTH["alpha"], "beta": ["AC", "AA", "AA", "AC"] * 10}
"""The judge favours beta by a usable item in two of four chunks: 25 points."""


def favoured(n_labelled: int, **more: str) -> Case:
    run = case(JUDGED, items_per_sample=ITEMS)
    return run.with_rows(labels=labels_of(run, TRUTH, range(n_labelled), **more))


# ------------------------------------------------------------------------------ the estimates


@pytest.mark.slow
def test_the_differential_error_is_worked_by_hand() -> None:
    # each four chunks: judged differences of beta (-1, 1, 2, 0)/2, labelled (-1, 1, 1, -1)/2: errors 0, 0, 1/2, 1/2
    labelled = of_pair(favoured(20).report())
    assert (labelled.n_chunks, labelled.labels.value) == (20, approx(0.0))
    assert labelled.error.value == approx(0.25)
    assert labelled.p_error == approx(2 / 2**10)  # 10 chunks differ, all of one sign


def test_the_differential_error_weights_chunks_by_their_probability() -> None:
    """Chunks in which the judge errs are all labelled, of the others a quarter: 25 points, not 40."""
    run = case(JUDGED, items_per_sample=ITEMS)
    errs = [chunk for chunk in range(N) if chunk % 4 >= 2]
    others = [chunk for chunk in range(N) if chunk % 4 < 2][::4]
    labels = [
        label
        for chunks, probability in ((errs, 1.0), (others, 0.25))
        for label in labels_of(run, TRUTH, chunks, inclusion=probability, chunk_inclusion=probability)
    ]
    labelled = of_pair(run.with_rows(labels=tuple(labels)).report())
    assert labelled.n_chunks == 25
    assert labelled.error.value == approx(0.25)
    # five chunks of great weight without an error prove little, and an exact test of unequal draws does not exist
    assert labelled.error.low is not None
    assert labelled.p_error is not None
    assert (labelled.error.low > 0) == (labelled.p_error < 0.05)


@pytest.mark.slow
def test_with_everything_labelled_the_labels_speak_alone() -> None:
    run = case(TRUTH, items_per_sample=ITEMS)
    (judged,) = run.report().differences
    labelled = of_pair(favoured(N).report())
    assert labelled.basis == "all labelled"
    assert (labelled.difference.value, labelled.difference.low, labelled.difference.high) == (
        approx(judged.difference.value),
        approx(judged.difference.low),
        approx(judged.difference.high),
    )
    assert labelled.p == approx(judged.p)


@pytest.mark.slow
def test_a_chunk_counts_only_if_all_items_of_both_candidates_are_labelled() -> None:
    run = favoured(20)
    some = [label for label in run.rows.labels if label.item_id != items_of(run, "beta")[0].item_id]
    assert of_pair(run.with_rows(labels=tuple(some)).report()).n_chunks == 19


@pytest.mark.slow
def test_failed_items_are_known_without_a_label() -> None:
    truth = {"alpha": ["AC"] * 20, "beta": ["x"] * 5 + ["AA"] * 15}
    run = case(truth, items_per_sample=ITEMS)
    run = run.with_rows(labels=labels_of(run, truth, range(20)))
    labelled = of_pair(run.report())
    assert (labelled.n_chunks, labelled.basis) == (20, "all labelled")
    assert labelled.difference.value == approx((15 * 0.5 - 5 * 0.5) / 20)


@pytest.mark.slow
def test_chunks_in_which_both_failed_are_no_draw_of_the_rater() -> None:
    # 8 of 32 chunks have nothing; the 12 labelled ones stand for the 24 others alone: 24/32 of their mean of 1/2
    truth = {"alpha": ["AC"] * 24 + ["x"] * 8, "beta": ["AA"] * 24 + ["x"] * 8}
    run = case(truth, items_per_sample=ITEMS)
    labelled = of_pair(run.with_rows(labels=labels_of(run, truth, range(12))).report())
    assert labelled.n_chunks == 12
    assert labelled.difference.value == approx(0.5 * 24 / 32)


@pytest.mark.slow
def test_corrected_rates_are_near_the_labels_and_not_the_judge() -> None:
    rates = {(rate.candidate, rate.name): rate for rate in favoured(20).report().labelled_rates}
    beta = rates["beta", "usable"]
    assert (beta.n_items, beta.n_chunks, beta.judged) == (40, 20, approx(0.75))
    assert beta.rate.value == approx(0.5)  # the labelled chunks are like the others
    assert rates["beta", "A or B"].rate.value == approx(0.5)


@pytest.mark.slow
def test_a_flag_is_corrected_where_the_rater_raises_it() -> None:
    run = favoured(20)
    assert {rate.name for rate in run.report().labelled_rates} == {"usable", "A or B"}
    first, *rest = run.rows.labels
    labels = (first.model_copy(update={"flags": ("hallucination",)}), *rest)
    flags = [
        rate for rate in run.with_rows(labels=labels).report().labelled_rates if rate.name == "hallucination"
    ]
    assert [(rate.candidate, rate.labels.value) for rate in flags] == [
        ("alpha", approx(1 / 40)),
        ("beta", approx(0.0)),
    ]


def test_a_sheet_drawn_by_letter_is_weighed_by_letter() -> None:
    # 60 chunks of 2: the judge gives 90 A and 30 C; anna labels 15 of the A and all C: half of the A are usable, a third of the C
    words = ["AA"] * 45 + ["CC"] * 15
    run = case({"alpha": words}, items_per_sample=ITEMS)
    items = items_of(run, "alpha")
    by_anna = [(item, "AC"[index % 2]) for index, item in enumerate(items[:90:6])]
    by_anna += [(item, "ACC"[index % 3]) for index, item in enumerate(items[90:])]
    labels = tuple(label_of(item, letter) for item, letter in by_anna)
    usable = run.with_rows(labels=labels).report().labelled_rates[0]
    assert usable.name == "usable"
    weighed = 0.75 * 8 / 15 + 0.25 * 10 / 30
    assert usable.labels.value == approx(weighed)
    assert usable.rate.value == approx(weighed)


# ------------------------------------------------------------------------------ several raters


@pytest.mark.slow
def test_people_decide_before_models_and_more_labels_before_fewer() -> None:
    run = case(JUDGED, items_per_sample=ITEMS)
    labels = (
        *labels_of(run, TRUTH, range(30), rater="model", rater_kind="model"),
        *labels_of(run, TRUTH, range(12), rater="anna"),
        *labels_of(run, TRUTH, range(14), rater="bert"),
        *labels_of(run, TRUTH, range(5), rater="carl"),
    )
    (pair,) = run.with_rows(labels=labels).report().differences
    assert [labelled.rater for labelled in pair.labelled] == ["bert", "anna", "model", "carl"]
    assert pair.deciding is pair.labelled[0]
    assert [labelled.p_holm is not None for labelled in pair.labelled] == [True, False, False, False]


@pytest.mark.slow
def test_labels_of_enough_chunks_decide_before_a_persons_few() -> None:
    run = case(JUDGED, items_per_sample=ITEMS)
    labels = (
        *labels_of(run, TRUTH, range(30), rater="model", rater_kind="model"),
        *labels_of(run, TRUTH, range(9), rater="anna"),
    )
    (pair,) = run.with_rows(labels=labels).report().differences
    assert pair.deciding is not None
    assert pair.deciding.rater == "model"


@pytest.mark.slow
def test_raters_of_one_kind_that_contradict_each_other_leave_the_condition() -> None:
    judged = {"alpha": ["CC", "AC", "CC", "AC"] * 10, "beta": ["AC"] * N}
    same = ["CC", "AC", "AC", "AC"] * 10
    run = case(judged, items_per_sample=ITEMS)
    by_anna = labels_of(run, judged, range(N))
    by_bert = labels_of(run, {"alpha": same, "beta": same}, range(N - 1), rater="bert")
    assert run.with_rows(labels=by_anna).report(margin=0.15).verdict.condition == "shown"
    verdict = run.with_rows(labels=(*by_anna, *by_bert)).report(margin=0.15).verdict
    assert (verdict.kind, verdict.candidate, verdict.condition) == ("use", "beta", "if_judge_right")
    differ = verdict.reason("raters_differ")
    assert differ is not None
    assert (differ.candidates, differ.raters) == (("alpha",), ("bert",))


# ------------------------------------------------------------------------------ the verdict


def better(n_labelled: int) -> Case:
    truth = {"alpha": ["AC", "CC"] * 20, "beta": ["AA", "AC"] * 20}
    run = case(truth, items_per_sample=ITEMS)
    return run.with_rows(labels=labels_of(run, truth, range(n_labelled)))


@pytest.mark.parametrize(
    ("n_labelled", "condition", "code"),
    [
        (0, "if_judge_right", "not_labelled"),
        (8, "if_judge_right", "not_labelled"),
        (20, "if_judge_right", "few_labels"),
        (29, "if_judge_right", "few_labels"),
        (30, "shown", "labelled"),
        (40, "shown", "labelled"),
    ],
)
@pytest.mark.slow
def test_labels_of_30_chunks_lift_the_condition(n_labelled: int, condition: str, code: str) -> None:
    verdict = better(n_labelled).report().verdict
    assert (verdict.kind, verdict.candidate, verdict.condition) == ("use", "beta", condition)
    assert verdict.reasons[-1].code == code
    assert verdict.reasons[-1].n_chunks == (n_labelled if n_labelled >= 10 else None)


@pytest.mark.slow
def test_equal_candidates_are_shown_equal_by_labels() -> None:
    truth = {"alpha": ["AA", "AC"] * 20, "beta": ["AA", "AC"] * 20}
    judged = {"alpha": truth["alpha"], "beta": ["AA"] * N}
    run = case(judged, items_per_sample=ITEMS)
    assert run.report(margin=0.1).verdict.kind == "use"
    verdict = run.with_rows(labels=labels_of(run, truth, range(36))).report(margin=0.1).verdict
    assert (verdict.kind, set(verdict.candidates), verdict.condition) == ("equal", {"alpha", "beta"}, "shown")
    assert verdict.reason("judge_differs") is not None


@pytest.mark.slow
def test_labels_turn_the_verdict_round() -> None:
    truth = {"alpha": ["AA"] * 20 + ["CC"] * 20, "beta": ["AC"] * 20 + ["CC"] * 20}
    judged = {"alpha": ["AC", "AA"] * 10 + ["CC"] * 20, "beta": ["AA"] * 20 + ["CC"] * 20}
    run = case(judged, items_per_sample=ITEMS)
    assert run.report().verdict.leader == "beta"
    verdict = run.with_rows(labels=labels_of(run, truth, range(N))).report().verdict
    assert (verdict.kind, verdict.candidate, verdict.condition) == ("use", "alpha", "shown")
    assert verdict.reason("judge_differs") is not None


@pytest.mark.slow
def test_holm_is_over_all_pairs() -> None:
    truth = {"alpha": ["AC", "CC"] * 20, "beta": ["AA", "AC"] * 20, "gamma": ["AC", "CC"] * 20}
    run = case(truth, items_per_sample=ITEMS)
    report = run.with_rows(labels=labels_of(run, truth, range(N))).report()
    pairs: dict[tuple[str, str], Difference] = {(pair.a, pair.b): pair for pair in report.differences}
    first = pairs["alpha", "beta"].deciding
    assert first is not None
    assert first.p is not None
    assert first.p_holm == approx(3 * first.p)


@pytest.mark.slow
def test_costs_and_choice_take_the_usable_rate_by_labels() -> None:
    report = favoured(20).report()
    rates = report.usable_rates()
    assert rates["beta"].value == approx(0.5)
    scores = {choice.candidate: choice.criteria[0].score for choice in report.timing.choice}
    assert scores == {"alpha": approx(1.0), "beta": approx(1.0)}
    only_quality = dict.fromkeys(
        ("reliability", "cost", "speed", "licence", "maintenance", "sovereignty"), 0.0
    )
    decision = decide(better(20).report(), {"quality": 1, **only_quality})
    assert decision.choice == "beta"
    assert decision.rivals[0].difference == of_pair(better(20).report()).difference


# ------------------------------------------------------------------------------ the story


def story(n_labelled: int, seed: int) -> Case:
    """Generate a run in which labels show no difference and the judge favours beta by 30 points."""
    rng = np.random.default_rng(seed)
    good = {name: rng.random((N, ITEMS)) < 0.6 for name in ("alpha", "beta")}
    judged = {**good, "beta": good["beta"] | (rng.random((N, ITEMS)) < 0.75)}

    def words(letters: np.ndarray) -> list[str]:
        return ["".join("A" if hit else "C" for hit in row) for row in letters]

    run = case({name: words(letters) for name, letters in judged.items()}, items_per_sample=ITEMS)
    chosen = rng.choice(N, n_labelled, replace=False).tolist()
    return run.with_rows(
        labels=labels_of(run, {name: words(letters) for name, letters in good.items()}, chosen)
    )


@pytest.mark.parametrize("n_labelled", [0, 10, 19, 35, 40])
@pytest.mark.slow
def test_a_candidate_that_only_the_judge_favours_is_never_used_without_a_condition(n_labelled: int) -> None:
    for seed in range(2):
        verdict = story(n_labelled, seed).report().verdict
        assert (verdict.kind, verdict.condition) != ("use", "shown")
        assert n_labelled or (verdict.kind, verdict.candidate) == ("use", "beta")


@pytest.mark.slow
def test_the_judges_favour_is_seen_and_taken_off() -> None:
    labelled = of_pair(story(35, 0).report())
    assert labelled.error.low is not None
    assert labelled.error.low > 0.1
    assert (labelled.p_error or 1) < 0.01
    assert labelled.difference.low is not None
    assert labelled.difference.high is not None
    assert labelled.difference.low < 0 < labelled.difference.high


@pytest.mark.slow
def test_the_headline_has_the_corrected_difference_before_the_judges() -> None:
    report = story(19, 0).report()
    (pair,) = report.differences
    first = pair.deciding
    assert first is not None
    assert [sentence.text for sentence in report.headline[:2]] == [
        verdict_sentence(report.verdict),
        pair.sentence,
    ]
    corrected, judged = difference(first.difference), difference(pair.difference)
    assert 0 < pair.sentence.index(corrected) < pair.sentence.index(judged)
    for view in (render_markdown(report), render_html(report), str(overview_text(report))):
        assert 0 < view.index(corrected) < view.index(judged)


# ------------------------------------------------------------------------------ labels that do not fit


@pytest.mark.slow
def test_perfect_agreement_is_not_called_imperfect() -> None:
    truth = {"alpha": ["AC", "CC"] * 20, "beta": ["AA", "AC"] * 20}
    run = case(truth, items_per_sample=ITEMS)
    (perfect,) = _trust(run.with_rows(labels=labels_of(run, truth, range(N))).report())
    other = {**truth, "beta": ["AA"] * 4 + truth["beta"][4:]}
    (imperfect,) = _trust(run.with_rows(labels=labels_of(run, other, range(N))).report())
    assert "perfectly" not in perfect
    assert "not perfectly" in imperfect


def _trust(report: Report) -> list[str]:
    return [note.text for note in report.headline if note.kind == "note" and "agrees with" in note.text]


@pytest.mark.slow
def test_a_favour_of_the_judge_is_claimed_only_where_its_test_shows_it() -> None:
    truth = {"alpha": ["AC", "CC"] * 20, "beta": ["AA", "AC"] * 20}
    for n_wrong, is_shown in ((1, False), (12, True)):
        judged = {**truth, "alpha": [*["AA"] * n_wrong, *truth["alpha"][n_wrong:]]}
        run = case(judged, items_per_sample=ITEMS)
        report = run.with_rows(labels=labels_of(run, truth, range(N))).report()
        p_error = of_pair(report).p_error
        assert p_error is not None
        assert (p_error <= 0.05) is is_shown
        assert ("the judge favours alpha" in report.differences[0].sentence) is is_shown


@pytest.mark.slow
def test_labels_of_one_candidate_correct_its_rate_and_no_difference() -> None:
    run = favoured(20)
    alphas = {item.item_id for item in items_of(run, "alpha")}
    labels = tuple(label for label in run.rows.labels if label.item_id in alphas)
    report = run.with_rows(labels=labels).report()
    assert report.differences[0].labelled == ()
    assert {rate.candidate for rate in report.labelled_rates} == {"alpha"}
    assert (
        report.usable_rates()["alpha"] == report.candidates[0].usable
    )  # both by the judge, or both by labels
    assert report.verdict.reason("not_labelled") is not None


@pytest.mark.slow
def test_difference_by_the_judge_beside_rates_by_labels_is_marked() -> None:
    run = favoured(20)
    assert ", by the judge" not in render_markdown(run.report())
    alphas, betas = (labels_of(run, {name: TRUTH[name]}, chunks) for name, chunks in APART)
    report = run.with_rows(labels=(*alphas, *betas)).report()
    assert report.has_labelled_rates
    assert report.differences[0].deciding is None
    (table,) = re.findall(r"Quality, time and cost.*?\n\n(.*?)\n\n", render_markdown(report), re.DOTALL)
    header, _, _, behind = table.splitlines()
    assert "Usable, corrected by labels" in header
    assert re.search(r"points \[.*?\], by the judge \|", behind)


APART = (("alpha", range(15)), ("beta", range(20, 35)))
"""Chunks whose items are labelled: of no chunk those of both candidates."""


@pytest.mark.slow
def test_labels_of_items_that_no_longer_exist_are_counted_and_correct_nothing() -> None:
    run = favoured(20)
    gone = label_of(items_of(run, "alpha")[0], "A").model_copy(update={"item_id": "gone"})
    report = run.with_rows(labels=(*run.rows.labels, gone)).report()
    assert report.agreement[0].n_not_in_run == 1
    assert of_pair(report) == of_pair(run.report())


@pytest.mark.slow
def test_two_labels_of_one_rater_for_one_item_are_refused_by_name() -> None:
    run = favoured(20)
    first = run.rows.labels[0]
    other = first.model_copy(update={"letter": "B"})
    with pytest.raises(DataError, match=rf"{first.item_id} \(anna: A and B\)"):
        run.with_rows(labels=(*run.rows.labels, other)).report()
    # the same letter twice is no contradiction
    assert of_pair(run.with_rows(labels=(*run.rows.labels, first)).report()) == of_pair(run.report())


@pytest.mark.slow
def test_labels_of_another_rubric_version_are_counted_and_correct_nothing() -> None:
    run = favoured(20)
    old = tuple(
        label.model_copy(update={"rubric": "qa_quality/0", "letter": "X"}) for label in run.rows.labels
    )
    both = run.with_rows(labels=(*run.rows.labels, *old)).report()
    assert both.agreement[0].n_other_rubric == len(old)
    assert of_pair(both) == of_pair(run.report())
    alone = run.with_rows(labels=old).report()
    assert alone.labelled_rates == ()
    assert alone.differences[0].labelled == ()


EXAMPLE = Path(__file__).parents[1] / "results" / "example"


@pytest.mark.slow
def test_agreement_with_labels_of_another_rubric_version_names_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [json.loads(line) for line in (EXAMPLE / "generations.jsonl").read_text().splitlines()]
    ids = [item["item_id"] for row in items for item in row["items"]][:12]
    sheet = tmp_path / "old.csv"
    sheet.write_text("item_id,label,rubric\n" + "".join(f"{item_id},A,qa_pair_abc/0\n" for item_id in ids))
    assert qaeval(["agreement", str(EXAMPLE), "--labels", str(sheet)]) == 65
    message = capsys.readouterr().err
    assert "qa_pair_abc/0" in message
    assert "qa_pair_abc/3" in message


@pytest.mark.slow
def test_a_label_file_of_another_run_is_named_under_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, sheet = tmp_path / "run", tmp_path / "anna.csv"
    shutil.copytree(EXAMPLE, run)
    for item_id, is_named in (("0" * 16, True), (_first_item(run), False)):
        sheet.write_text(f"item_id,label\n{item_id},A\n")
        assert qaeval(["report", str(run), "--labels", str(sheet)]) == 0
        assert ("anna" in capsys.readouterr().err) is is_named


def _first_item(run: Path) -> str:
    return str(json.loads((run / "grades.jsonl").read_text().splitlines()[0])["item_id"])


def test_two_runs_of_the_same_items_have_no_difference_by_labels_whatever_their_letters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("before", "after"):
        shutil.copytree(EXAMPLE, tmp_path / name)
    grades = [json.loads(line) for line in (EXAMPLE / "grades.jsonl").read_text().splitlines()]
    ids = sorted({row["item_id"] for row in grades})
    changed = [
        {**row, "letter": "A" if row["letter"] == "B" else row["letter"], "flags": []} for row in grades
    ]
    (tmp_path / "after" / "grades.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    sheet = tmp_path / "anna.csv"
    sheet.write_text(
        "item_id,label\n" + "".join(f"{item_id},{'ABC'[index % 3]}\n" for index, item_id in enumerate(ids))
    )
    runs = [str(tmp_path / "before"), str(tmp_path / "after")]
    assert qaeval(["compare-runs", *runs, "--labels", str(sheet), "--json"]) == 0
    pairs = json.loads(capsys.readouterr().out)["pairs"]
    assert len(pairs) == 2
    for pair in pairs:
        (labelled,) = pair["difference"]["labelled"]
        assert pair["difference"]["difference"]["value"] > 0
        assert (labelled["n_chunks"], labelled["basis"]) == (12, "all labelled")
        assert labelled["difference"]["value"] == 0


def test_contradicting_labels_end_a_comparison_before_the_first_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(EXAMPLE.parents[1])
    sheet = tmp_path / "anna.csv"
    sheet.write_text("item_id,label\none,A\none,B\n")
    words = [
        "compare",
        "embedded-lead",
        "embedded-salient",
        "--labels",
        str(sheet),
        "--out",
        str(tmp_path / "run"),
    ]
    assert qaeval(words) == 65
    assert "one (anna: A and B)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_chunks_for_which_one_candidate_has_no_item_are_left_out() -> None:
    run = favoured(20)
    table = run.data().table()
    gone = (table["candidate"] == "beta") & table["cluster"].isin(table["cluster"].unique()[:3])
    table = table[~gone]
    judged = compare_candidates(table, candidates=["alpha", "beta"], best="A", margin=0.05)
    (pair,) = correct_differences(
        judged, table, run.rows.labels, rubric=run.rubric, margin=0.05, judge_tuned=False
    )
    assert (pair.labelled[0].n_chunks, pair.labelled[0].difference.n) == (17, N - 3)
