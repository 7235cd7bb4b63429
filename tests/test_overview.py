"""First screen of a report: the verdict's sentence, the number behind it, badges, ways on."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from qaeval.comparison.findings import gather_findings
from qaeval.comparison.headline import verdict_sentence
from qaeval.comparison.html import render_html
from qaeval.comparison.markdown import overview_lines
from qaeval.comparison.model import Reason, Verdict
from qaeval.comparison.overview import Badge, Overview, build_overview
from qaeval.comparison.report import CheckGroup, CheckRate, Report
from qaeval.comparison.terminal import overview_text
from qaeval.report.facts import CheckFacts
from report_builders import Case, candidate, case, items_of, label_of, rich_case


def labelled(run: Case, letters: dict[str, str], n_chunks: int, **more: Any) -> Case:
    """Add labels of the first chunks: for each candidate the letters, repeated over its items."""
    labels = [
        label_of(item, letters[name][index % len(letters[name])], **more)
        for name in letters
        for index, item in enumerate(items_of(run, name)[: n_chunks * run.items_per_sample])
    ]
    return run.with_rows(labels=(*run.rows.labels, *labels))


def screen(run: Case, **options: Any) -> Overview:
    return build_overview(run.report(**options))


def badge(shown: Overview, kind: str) -> Badge:
    return next(badge for badge in shown.badges if badge.kind == kind)


def better(n: int = 40) -> Case:
    return case({"alpha": ["AB"] * n, "beta": ["AA"] * n}, items_per_sample=2)


def every_verdict() -> list[Verdict]:
    names = ("alpha", "beta", "gamma", "delta")
    more = {"n_chunks": 31, "raters": ("anna", "bert")}
    better_than = Reason(code="better", candidates=names[1:])
    open_ = Reason(code="not_enough_data", candidates=names[1:], n_more_chunks=1234)
    return [
        *(
            Verdict(kind="use", candidate="alpha", condition=condition, reasons=(better_than, *basis))
            for condition, basis in (("shown", (Reason(code="labelled", **more),)), ("if_judge_right", ()))
        ),
        *(
            Verdict(kind="equal", candidates=names[:n], condition=condition)
            for n in (2, 3, 4)
            for condition in ("shown", "if_judge_right")
        ),
        Verdict(kind="undecided", leader="alpha", reasons=(open_,)),
        Verdict(kind="undecided", leader="alpha", reasons=(open_, Reason(code="few_labels", **more))),
        Verdict(kind="undecided", leader="alpha", reasons=(Reason(code="not_enough_data"),)),
        Verdict(kind="undecided", leader="alpha", reasons=(Reason(code="too_few_chunks"),)),
        *(
            Verdict(
                kind="none", leader="alpha", reasons=(Reason(code=code, raters=("anna", "bert", "cleo")),)
            )
            for code in (
                "one_candidate",
                "nothing_graded",
                "nothing_usable",
                "judge_refuted",
                "judge_tells_nothing_apart",
                "embedded_only",
            )
        ),
    ]


@pytest.mark.parametrize("verdict", every_verdict(), ids=str)
def test_a_verdict_has_twelve_words_at_most(verdict: Verdict) -> None:
    assert len(verdict_sentence(verdict).split()) <= 12


@pytest.mark.slow
def test_the_corrected_difference_comes_first_and_the_gap_names_whom_the_judge_favours() -> None:
    # the judge sees 50 points, the labels of all 40 chunks 25: it is 25 points kinder to beta
    shown = screen(labelled(better(), {"alpha": "AB", "beta": "AAAB"}, 40))
    corrected, judge = shown.differences
    assert (corrected.source, judge.source) == ("corrected", "judge alone")
    assert corrected.pair == "beta − alpha"
    assert corrected.measure.value == pytest.approx(0.25)
    assert judge.measure.value == pytest.approx(0.5)
    assert shown.number.startswith("+25.0 points")
    assert "+50.0" in shown.gap
    assert "25.0 points kinder to beta" in shown.gap
    assert [line.rate.value for line in shown.candidates] == pytest.approx([0.75, 0.5])


@pytest.mark.slow
def test_the_leader_comes_first_whatever_the_order_of_the_run() -> None:
    run = case({"beta": ["AA"] * 40, "alpha": ["AB"] * 40}, items_per_sample=2)
    shown = screen(run)
    assert [line.name for line in shown.candidates] == ["beta", "alpha"]
    (line,) = shown.differences
    assert (line.pair, line.measure.value) == ("beta − alpha", pytest.approx(0.5))


# ------------------------------------------------------------------------------ badges


@pytest.mark.slow
def test_a_judge_is_trusted_by_labels_of_people_only() -> None:
    run = case({"alpha": ["AB"] * 40, "beta": ["AA", "CB"] * 20}, items_per_sample=2)
    letters = {"alpha": "AB", "beta": "AACB"}
    by_anna, by_model = labelled(run, letters, 30), labelled(run, letters, 30, rater="m", rater_kind="model")
    states = [badge(screen(made), "judge").state for made in (run, by_model, by_anna)]
    assert states == ["open", "open", "good"]
    assert badge(screen(rich_case()), "judge").state == "bad"


@pytest.mark.slow
def test_data_that_left_or_came_from_elsewhere_is_not_green() -> None:
    report = better().report()
    left = report.model_copy(update={"data_left": ("api.example",)})
    items = report.candidates[0].facts.model_copy(update={"kind": "imported"})
    first = report.candidates[0].model_copy(update={"facts": items})
    imported = report.model_copy(update={"candidates": (first, report.candidates[1])})
    states = [badge(build_overview(made), "data").state for made in (report, left, imported)]
    assert states == ["good", "bad", "open"]
    assert "api.example" in badge(build_overview(left), "data").text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "title"),
    [
        (better(), "Nothing stands out"),
        (case({"alpha": ["AA", "x"] * 20, "beta": ["AA"] * 40}, items_per_sample=2), "Items were lost"),
        (case({"alpha": ["AA"] * 5, "beta": ["AA"] * 5}, items_per_sample=2), "Too few chunks"),
        (
            case({"alpha": ["AA!"] * 40, "beta": ["AA"] * 40}, items_per_sample=2),
            "Letters contradict flags",
        ),
    ],
    ids=["nothing", "lost", "few", "flags"],
)
def test_the_third_badge_names_what_most_needs_a_look(run: Case, title: str) -> None:
    look = badge(screen(run), "look")
    assert (look.title, look.state) == (title, "good" if title == "Nothing stands out" else "open")


def test_flaws_have_the_shares_of_each_candidate_the_most_frequent_first() -> None:
    # B is an omission, C is wrong: alpha has 12 and 4 of 40 graded items, beta 4 and 16 of 40
    run = case({"alpha": ["AABB", "ABCA"] * 4 + ["AAAA"] * 2, "beta": ["CCAA", "CCAB"] * 4 + ["AAAA"] * 2})
    shown = screen(replace(run, items_per_sample=4))
    assert [line.name for line in shown.candidates] == ["alpha", "beta"]
    shares = {flaw.name: [count.share.value for count in flaw.counts] for flaw in shown.flaws}
    assert list(shares) == ["wrong", "omission"]
    assert shares["omission"] == pytest.approx([12 / 40, 4 / 40])
    assert shares["wrong"] == pytest.approx([4 / 40, 16 / 40])


def with_check(shares: tuple[float, float]) -> Report:
    report = better().report()
    rates = tuple(
        CheckRate(
            candidate=name,
            n_checked=100,
            n_found=round(100 * share),
            share=report.candidates[0].usable.model_copy(update={"value": share}),
        )
        for name, share in zip(("alpha", "beta"), shares, strict=True)
    )
    group = CheckGroup(check=CheckFacts(name="stock_phrase"), rates=rates, examples=())
    return report.model_copy(update={"checks": (group,)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ((0.6, 0.1), "stock phrase: alpha 60 %, beta 10 %"),
        ((0.04, 0.11), "stock phrase: beta 11 %, alpha 4 %"),
        ((0.04, 0.0), "no loss, no frequent finding"),
    ],
)
def test_a_check_with_findings_is_named_once_in_words(shares: tuple[float, float], text: str) -> None:
    assert badge(build_overview(with_check(shares)), "look").text == text


# ------------------------------------------------------------------------------ ways on


@pytest.mark.slow
def test_ways_on_count_what_the_filters_of_the_page_show() -> None:
    run = rich_case()
    report = run.report()
    page = render_html(report, run.items()).partition("<script>")[0]
    review = report.review
    assert review is not None
    assert review.n_mismatched == page.count("data-mismatch")
    assert review.n_chunks_different == page.count(" data-different")
    assert review.n_lost == page.count('data-letter="failed"') + page.count('data-letter="ungraded"')
    counts = {way.target: way.n for way in build_overview(report).ways}
    assert counts["items?show=mismatch"] == review.n_mismatched
    assert counts["items?show=failed"] == review.n_lost
    n_labelled = sum(
        bool(item.letter and item.labels)
        for chunk in run.items()
        for candidate in chunk.candidates
        for item in candidate.items
    )
    assert review.n_mismatched < n_labelled == review.n_labelled
    assert f"where judge and label differ, of {n_labelled} labelled" in page
    assert 'href="#items?show=mismatch"' in page


@pytest.mark.slow
def test_more_labels_promise_an_interval_as_wide_as_their_number_gives() -> None:
    shown = screen(labelled(better(60), {"alpha": "ABBA", "beta": "AAAB"}, 40))
    low, high = shown.differences[0].measure.low, shown.differences[0].measure.high
    assert low is not None
    assert high is not None
    way = shown.ways[-1].text
    half = 100 * (high - low) / 2 * (40 / 60) ** 0.5
    assert way.endswith(f"±{half:.1f}")


# ------------------------------------------------------------------------------ three views


def embedded_run() -> Case:
    names = ("embedded-lead", "embedded-salient")
    facts = {name.replace("-", "_"): candidate(name, kind="embedded", hf_id="") for name in names}
    return case({names[0]: ["AB"] * 20, names[1]: ["AA"] * 20}, items_per_sample=2, **facts)


@pytest.mark.slow
def test_a_run_of_embedded_models_is_a_rehearsal() -> None:
    shown = screen(embedded_run())
    assert shown.is_rehearsal
    assert "`qaeval compare MODEL MODEL`" in shown.number
    assert not screen(better()).is_rehearsal


@pytest.mark.parametrize("run", [better(), rich_case(), embedded_run()], ids=["use", "none", "embedded"])
@pytest.mark.slow
def test_page_terminal_and_markdown_have_the_same_blocks(run: Case) -> None:
    report: Report = run.report()
    shown = build_overview(report)
    assert shown.badges
    assert len(shown.candidates) == len(report.candidates) > 1
    assert shown.ways
    page = render_html(report, run.items()).replace("&#39;", "'").replace("\u00a0", " ")
    text = "\n".join(line.mark + line.text for line in overview_text(report))
    lines = "\n".join(overview_lines(shown))
    for view in (page, text, lines):
        assert shown.verdict in view
        assert all(badge.title in view and badge.text in view for badge in shown.badges)
        assert all(line.name in view for line in shown.candidates)
        assert all(way.text in view for way in shown.ways)


def test_a_report_of_an_earlier_version_has_a_first_screen_without_counts() -> None:
    report = better().report()
    shown = build_overview(report.model_copy(update={"review": None}))
    assert [way.n for way in shown.ways] == [None]
    assert replace(shown, ways=()) == replace(build_overview(report), ways=())


def test_a_check_of_some_types_counts_their_items_alone() -> None:
    table = pd.DataFrame(
        {
            "candidate": "alpha",
            "status": ["graded", "graded", "graded", "failed"],
            "type": ["fact", "fact", "why", "fact"],
            "findings": [{"short": "2 words"}, None, None, None],
            "cluster": ["c0", "c1", "c2", "c3"],
            "item_id": ["i0", "i1", "i2", "i3"],
            "question": "q",
            "answer": "a",
            "weight": 1.0,
        }
    )
    counts = [
        (rate.n_checked, rate.n_found)
        for types in ((), ("fact",), ("why",))
        for group in gather_findings(table, [CheckFacts(name="short", types=types)], ["alpha"])
        for rate in group.rates
    ]
    assert counts == [(3, 1), (2, 1), (1, 0)]
