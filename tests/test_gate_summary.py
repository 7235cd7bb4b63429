"""What people read of a gate on GitHub and GitLab: the job's summary and the comment."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from gate_builders import EVERY, HOSTILE, NOT_COMPARABLE, PASS, REGRESSION, UNTRUSTED, gate, measure, rule
from qaeval.comparison.overview import build_overview
from qaeval.errors import UsageError
from qaeval.gate.messages import change, level, safe
from qaeval.gate.model import GateReport
from qaeval.gate.views import MARKER, MAX_COMMENT, to_comment, to_markdown
from qaeval.testing import make_run

GITHUB = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
"""HTML goes through, as it does on GitHub before its sanitiser: our own must be all there is."""


class Page(HTMLParser):
    """Collects tags and text."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.words = ""
        self.feed(GITHUB.render(markdown))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        self.words += data


OURS = {
    "h2",
    "h3",
    "p",
    "strong",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "ul",
    "li",
    "blockquote",
    "br",
}


@pytest.mark.parametrize("name", EVERY)
def test_the_summary_renders_with_a_row_for_each_rule(name: str) -> None:
    report = EVERY[name]
    page = Page(to_markdown(report))
    assert page.tags.count("tr") == len(report.rules) + bool(report.rules)
    assert page.tags.count("td") == 7 * len(report.rules)
    assert report.headline in page.words
    assert set(page.tags) <= OURS


def test_the_summary_says_what_the_gate_rests_on() -> None:
    words = Page(to_markdown(UNTRUSTED)).words
    for data in (
        ("run: today", "2026-11-21 10:00 UTC", "commit cccccccccccc"),
        ("baseline: main", "2026-11-01 10:00 UTC"),
        ("eval: qa_pairs", "200 samples"),
        ("judge: judge-7b", "qa_pair_abc/1", "qaeval certify"),
        ("error rate: ", "5 %"),
    ):
        assert all(datum in words for datum in data)


def test_the_comment_is_found_by_its_marker_and_shows_what_moved() -> None:
    body = to_comment(REGRESSION, "https://ci.example/runs/1")
    assert body.splitlines()[0] == MARKER
    shown, folded = body.split("<details>")
    assert "−12.0\u00a0points [−16.0,\u00a0−8.0]" in shown
    assert "success" not in shown
    assert "success_rate" in folded
    assert "Judge: judge-7b with rubric" in folded
    assert Page(body).links == ["https://ci.example/runs/1"]


def test_a_rule_that_passed_but_moved_is_shown() -> None:
    better = rule(change=measure(0.04, 0.01, 0.07))
    assert "+4.0\u00a0points" in to_comment(gate("pass", better))
    assert "<details>" not in to_comment(gate("pass", better))


def test_a_gate_without_rules_says_why() -> None:
    words = Page(to_comment(NOT_COMPARABLE)).words
    assert "not comparable" in words
    assert "rubric: qa_pair_abc/1 and qa_pair_abc/2" in words


@pytest.mark.parametrize("write", [to_markdown, to_comment])
def test_what_others_wrote_stays_text(write: "type[str]") -> None:
    identity = PASS.run.identity.model_copy(update={"judge": HOSTILE, "rubric": HOSTILE, "eval": HOSTILE})
    run = PASS.run.model_copy(update={"name": HOSTILE, "identity": identity})
    hostile = rule(verdict="regression", id=HOSTILE, candidate=HOSTILE, sentence=HOSTILE)
    made: GateReport = gate(
        "regression", hostile, run=run, headline=HOSTILE, notes=(HOSTILE,), policy=HOSTILE
    )
    page = Page(write(made))
    assert set(page.tags) <= OURS
    assert page.links == []
    assert page.tags.count("td") == 7
    assert "a|b `x` @" in page.words
    assert not re.search(r"@acme|#12|https://|www\.", page.words)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("@acme/owners", "@&#8203;acme/owners"),
        ("see #12 and !34 and GH-5", "see #&#8203;12 and !&#8203;34 and GH-&#8203;5"),
        ("a | b\n\x1b[31m", r"a \| b ␛[31m"),
        ("\u202egnp.exe", "[U+202E]gnp.exe"),
        ("usable_rate", "usable_rate"),
        ("50 % < 60 %", "50 % < 60 %"),
    ],
)
def test_text_is_made_harmless_and_stays_readable(text: str, written: str) -> None:
    assert safe(text) == written


@pytest.mark.slow
@pytest.mark.parametrize(
    "rules",
    [
        [rule(f"rule{n}", verdict="regression", sentence="<&@" * 500) for n in range(400)],
        [rule(f"rule{n}", candidate="<&@" * 300) for n in range(400)],
    ],
)
def test_a_comment_of_any_gate_is_short_enough_and_says_what_it_leaves_out(rules: list[object]) -> None:
    long = "<&@" * 3000
    body = to_comment(gate("regression", *rules, headline=long, notes=(long,) * 50, policy=long))  # type: ignore[arg-type]
    assert len(body) < MAX_COMMENT
    assert re.search(r"\d+ more rules", body)
    assert body.count("<details>") == body.count("</details>")


def test_an_address_that_is_no_web_address_is_refused() -> None:
    with pytest.raises(UsageError, match="http or https"):
        to_comment(PASS, "javascript:alert(1)")
    assert Page(to_comment(PASS, "https://x.example/a b)<i>")).links == ["https://x.example/a%20b%29%3Ci%3E"]


def test_numbers_with_a_unit_keep_it() -> None:
    assert level(measure(0.412, 0.38, 0.45), "s") == "0.412 s [0.38, 0.45]"
    assert change(measure(-1.5, -2.25, 0.5), "EUR") == "−1.50 EUR [−2.25, +0.5]"
    assert level(measure(None), "EUR") == "undefined"
    assert level(None, "") == "–"


def test_a_sequential_gate_says_what_it_saved() -> None:
    found = {
        "chunks_looked_at": 80.0,
        "chunks": 200.0,
        "items_graded": 480.0,
        "items": 1200.0,
        "share_saved": 0.6,
    }
    words = Page(to_markdown(gate("pass", rule(), sequential=found))).words
    assert all(datum in words for datum in ("80 of 200 chunks", "480 of 1,200 items", "60.0 %"))


@pytest.mark.slow
def test_the_comment_has_the_first_screen_of_the_runs_report_folded_and_harmless(tmp_path: Path) -> None:
    words = {"alpha": ["AAB"] * 12, "beta": ["ABB"] * 12}
    screen = build_overview(make_run(tmp_path / "run", words).report)
    evil = replace(screen, verdict="@everyone see www.evil.example <img src=x> #1")
    body = to_comment(PASS, screen=evil)
    folded = body.partition("<summary>The run")[2].partition("</details>")[0]
    assert "alpha" in folded
    assert "66.7 %" in folded
    assert "@everyone" not in folded
    assert "img" not in Page(body).tags
    assert Page(body).links == []
    assert "<summary>The run" not in to_comment(PASS)
