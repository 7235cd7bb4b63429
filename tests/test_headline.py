"""Sentences of a verdict: one for each way in which a comparison can end, from the verdict alone."""

from typing import Any

import pytest

from qaeval.comparison.headline import doubt_clause, verdict_basis, verdict_sentence
from qaeval.comparison.model import Reason, Verdict

BETTER = Reason(code="better", candidates=("beta",))
MANY_BETTER = Reason(code="better", candidates=("beta", "gamma", "delta"))


def undecided(*reasons: Reason) -> Verdict:
    return Verdict(kind="undecided", leader="alpha", reasons=reasons)


def open_for(n: int | None) -> Reason:
    return Reason(code="not_enough_data", candidates=("beta",), n_more_chunks=n)


def labels(code: str = "labelled", *raters: str, n: int = 40, candidates: int = 1) -> Reason:
    names = ("beta", "gamma", "delta", "epsilon")[:candidates]
    return Reason(code=code, raters=raters or ("anna",), n_chunks=n, candidates=names)


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (
            {"condition": "shown", "reasons": (BETTER,)},
            "Use alpha: it writes more usable items than beta.",
        ),
        (
            {"condition": "shown", "reasons": (Reason(code="better", candidates=("beta", "gamma")),)},
            "Use alpha: it writes more usable items than beta and gamma.",
        ),
        (
            {"condition": "shown", "reasons": (MANY_BETTER,)},
            "Use alpha: it writes more usable items than the others.",
        ),
        (
            {"condition": "if_judge_right", "reasons": (BETTER,)},
            "Use alpha if the judge is right: more usable than beta.",
        ),
        (
            {
                "condition": "if_judge_right",
                "reasons": (Reason(code="better", candidates=("beta", "gamma")),),
            },
            "Use alpha if the judge is right: more usable than the others.",
        ),
    ],
)
def test_a_winner_is_named_with_those_it_beats(facts: dict[str, Any], sentence: str) -> None:
    assert verdict_sentence(Verdict(kind="use", candidate="alpha", leader="alpha", **facts)) == sentence


@pytest.mark.parametrize(
    ("n", "condition", "sentence"),
    [
        (2, "shown", "Use c0 or c1, whichever costs less: no difference that matters."),
        (3, "shown", "Use c0, c1 or c2, whichever costs less: no difference that matters."),
        (4, "shown", "Use the cheapest of 4: no difference that matters."),
        (2, "if_judge_right", "Use c0 or c1 if the judge is right: equally usable."),
        (4, "if_judge_right", "Use the cheapest of 4 if the judge is right: equally usable."),
    ],
)
def test_equal_candidates_are_named_up_to_three(n: int, condition: Any, sentence: str) -> None:
    names = tuple(f"c{number}" for number in range(n))
    assert verdict_sentence(Verdict(kind="equal", candidates=names, condition=condition)) == sentence


@pytest.mark.parametrize(
    ("reasons", "sentence"),
    [
        (
            (Reason(code="too_few_chunks"),),
            "No winner yet: an interval needs at least 10 chunks.",
        ),
        ((open_for(30),), "No winner yet: about 30 more chunks decide."),
        ((open_for(1),), "No winner yet: about 1 more chunk decide."),
        ((open_for(101),), "No winner yet: about 110 more chunks decide."),
        ((open_for(10_000),), "No winner yet: about 10,000 more chunks decide."),
        ((open_for(10_001),), "No winner yet: alpha leads, but not by enough."),
        ((open_for(None),), "No winner yet: alpha leads, but not by enough."),
        ((open_for(30), labels()), "No winner yet: labels of about 30 more chunks decide."),
        ((open_for(30), labels("few_labels")), "No winner yet: labels of about 30 more chunks decide."),
        # labels decide about another candidate than the one that is open: chunks do, with their letters
        (
            (Reason(code="not_enough_data", candidates=("gamma",), n_more_chunks=30), labels()),
            "No winner yet: about 30 more chunks decide.",
        ),
        (
            (Reason(code="not_enough_data", candidates=("beta", "gamma"), n_more_chunks=30), labels()),
            "No winner yet: alpha leads, but not by enough.",
        ),
        (
            (open_for(None), Reason(code="ungraded", candidates=("beta",))),
            "No winner yet: items without a letter could change the comparison with beta.",
        ),
        ((Reason(code="level", candidates=("beta", "gamma")),), "No winner yet: alpha and beta are level."),
        ((), "No winner yet: alpha leads, but not by enough."),
    ],
)
def test_an_open_comparison_says_what_would_decide(reasons: tuple[Reason, ...], sentence: str) -> None:
    assert verdict_sentence(undecided(*reasons)) == sentence


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (
            Reason(code="judge_refuted", raters=("anna", "bert", "cleo")),
            "No verdict: anna's and bert's labels do not support the judge.",
        ),
        (
            Reason(code="judge_tells_nothing_apart"),
            "No verdict: the judge cannot tell good items from bad.",
        ),
        (Reason(code="one_candidate"), "No verdict: alpha is the only candidate."),
        (Reason(code="nothing_graded"), "No verdict: no item was graded."),
        (
            Reason(code="nothing_graded", failure="context_overflow"),
            "No verdict: no item was graded (context overflow).",
        ),
        (Reason(code="nothing_usable"), "No verdict: no candidate wrote a usable item."),
        (Reason(code="embedded_only"), "No verdict: no language model was measured."),
        (Reason(code="of_a_later_version"), "No verdict: see the report."),
    ],
)
def test_no_verdict_has_its_reason(reason: Reason, sentence: str) -> None:
    assert verdict_sentence(Verdict(kind="none", leader="alpha", reasons=(reason,))) == sentence


@pytest.mark.parametrize(
    ("reasons", "condition", "text"),
    [
        ((), None, ""),
        ((labels(),), "shown", "The verdict rests on anna's labels of 40 chunks."),
        (
            (labels("labelled", "anna", "bert", candidates=2),),
            "shown",
            "The verdict rests on anna's and bert's labels of at least 40 chunks.",
        ),
        ((labels("few_labels", n=12),), None, "The verdict rests on anna's labels of 12 chunks."),
        (
            (labels("few_labels", n=12),),
            "if_judge_right",
            "The verdict rests on anna's labels of 12 chunks; from 30 labelled chunks on, the verdict has no condition.",
        ),
        (
            (labels(), Reason(code="raters_differ", raters=("bert",)), Reason(code="judge_differs")),
            "shown",
            (
                "The verdict rests on anna's labels of 40 chunks. But bert's labels show something else. "
                "The judge's letters alone would say otherwise."
            ),
        ),
        ((Reason(code="nothing_graded"),), None, ""),
    ],
)
def test_the_labels_that_decide_and_those_that_contradict_are_named(
    reasons: tuple[Reason, ...], condition: Any, text: str
) -> None:
    assert verdict_basis(Verdict(kind="use", candidate="alpha", condition=condition, reasons=reasons)) == text


def test_the_most_frequent_failure_is_named_with_its_meaning() -> None:
    reason = Reason(code="nothing_graded", failure="context_overflow")
    text = verdict_basis(Verdict(kind="none", reasons=(reason,)))
    assert text.startswith("The most frequent failure is context overflow: ")
    unknown = Reason(code="nothing_graded", failure="of_a_later_version")
    assert (
        verdict_basis(Verdict(kind="none", reasons=(unknown,)))
        == "The most frequent failure is of a later version."
    )


def test_a_doubt_names_the_raters_or_what_the_controls_show() -> None:
    refuted = Reason(code="judge_refuted", raters=("anna", "bert"))
    assert doubt_clause([Reason(code="not_labelled"), refuted]).startswith("by anna's and bert's labels, ")
    assert doubt_clause([Reason(code="not_labelled")]) == "the judge tells nothing apart"
