import base64
import hashlib
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from qaeval.comparison import sections
from qaeval.comparison.charts import charts, front
from qaeval.comparison.html import render_html
from qaeval.comparison.markdown import render_markdown
from qaeval.comparison.report import Report
from qaeval.comparison.terminal import overview_text
from qaeval.records import Generation
from qaeval.report import numbers
from qaeval.report.chart import DARK, LIGHT, Chart, Theme, x_reach
from qaeval.report.facts import MachineFacts, Meaning, RubricFacts
from qaeval.report.markdown import escape
from qaeval.report.markdown import sentence as markdown_sentence
from qaeval.report.measure import Measure
from qaeval.report.page import prose, sentence
from qaeval.report.tables import Section, Table
from qaeval.stats.estimate import Estimate, undefined
from report_builders import Case, case, items_of, rich_case

ATTACK = "<script>alert('A')</script> | [click](https://evil.example) <img src=x onerror=alert(1)> {{ 7*7 }}"


@cache
def attacked_case() -> Case:
    made = case({"alpha": ["AAB", "x"]})
    reply, lost = made.rows.generations
    assert isinstance(reply, Generation)
    first = reply.items[0].model_copy(update={"question": ATTACK, "answer": ATTACK, "type": ATTACK})
    grade = made.rows.grades[0].model_copy(update={"reason": ATTACK})
    chunk = made.rows.samples[0].chunk.model_copy(
        update={"text": ATTACK, "title": ATTACK, "document": ATTACK}
    )
    return made.with_rows(
        samples=(made.rows.samples[0].model_copy(update={"chunk": chunk}), made.rows.samples[1]),
        generations=(
            reply.model_copy(update={"items": (first, *reply.items[1:])}),
            lost.model_copy(update={"text": ATTACK, "detail": ATTACK}),
        ),
        grades=(grade, *made.rows.grades[1:]),
    )


def html_of(made: Case) -> str:
    return render_html(made.report(), made.items())


@cache
def rich_report() -> Report:
    return rich_case().report()


@cache
def rich_page(*, with_items: bool = True) -> str:
    return render_html(rich_report(), rich_case().items() if with_items else ())


@cache
def attacked_page() -> str:
    return html_of(attacked_case())


class Page(HTMLParser):
    """Collects tags with their attributes, and checks that they nest."""

    VOID = frozenset({"meta", "input", "br", "hr", "img", "source"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


# ------------------------------------------------------------------------------ numbers


def measure(value: float, low: float, high: float) -> Measure:
    return Measure.of(Estimate(value=value, low=low, high=high, method="by hand", n=40, n_clusters=20))


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (numbers.rate(measure(0.6333, 0.521, 0.7318)), "63.3 % [52.1, 73.2]"),
        (numbers.rate(Measure.of(undefined("few", value=0.5))), "50.0 %"),
        (numbers.percent(0.0), "0.0 %"),
        (numbers.percent(1 / 3000), "< 0.1 %"),
        (numbers.percent(2999 / 3000), "> 99.9 %"),
        (numbers.percent(1.0), "100.0 %"),
        (numbers.whole_percent(0.633), "63 %"),
        (numbers.whole_percent(299 / 300), "99.7 %"),
        (numbers.whole_percent(1 / 300), "0.3 %"),
        (numbers.whole_percent(1.0), "100 %"),
        (numbers.whole_percent(None), "undefined"),
        (numbers.whole_interval(measure(0.6333, 0.521, 0.7318)), "52 to 73"),
        (numbers.whole_interval(measure(0.999, 0.9968, 0.9999)), "99.6 to 100"),
        (numbers.whole_interval(measure(0.001, 0.0001, 0.0031)), "0 to 0.4"),
        (numbers.whole_interval(measure(1.0, 0.97, 1.0)), "97 to 100"),
        (numbers.whole_interval(Measure.of(undefined("few", value=0.5))), ""),
        (numbers.rate(Measure.of(undefined("none"))), "undefined"),
        (numbers.difference(measure(0.1, -0.0149, 0.2136)), "+10.0 points [−1.5, +21.4]"),
        (numbers.difference(measure(-0.0001, -0.1, 0.1)), "0.0 points [−10.0, +10.0]"),
        (numbers.difference(Measure.of(undefined("none"))), "undefined"),
        (numbers.coefficient(measure(0.4312, -0.001, 0.66)), "0.43 [0.00, 0.66]"),
        (numbers.coefficient(measure(-0.2, -0.5, 0.1)), "−0.20 [−0.50, 0.10]"),
        (numbers.p_value(0.0004), "p < 0.001"),
        (numbers.p_value(0.0337), "p = 0.034"),
        (numbers.count(1234567), "1,234,567"),
        (numbers.count(None), "not counted"),
        (numbers.count(0), "0"),
        (numbers.seconds(None), "not measured"),
        (numbers.seconds(0.0124), "0.012 s"),
        (numbers.seconds(4.25), "4.2 s"),
        (numbers.seconds(59.6), "1 min 00 s"),
        (numbers.seconds(3725), "1 h 02 min"),
        (numbers.per_second(12.34), "12.3 /s"),
        (numbers.plural(1, "chunk"), "1 chunk"),
        (numbers.plural(2, "reply", "replies"), "2 replies"),
        (numbers.moment("2026-01-05T10:20:30+00:00"), "2026-01-05 10:20 UTC"),
        (numbers.moment("yesterday"), "yesterday"),
    ],
)
def test_numbers_are_printed_one_way(printed: str, expected: str) -> None:
    assert printed == expected


def test_a_measure_refuses_nan() -> None:
    with pytest.raises(ValueError, match="finite"):
        Measure(value=float("nan"), low=None, high=None, method="x", n=1, n_clusters=1)


# ------------------------------------------------------------------------------ markdown


@pytest.mark.slow
@pytest.mark.parametrize("made", [rich_case(), attacked_case()], ids=["rich", "attacked"])
def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_header(made: Case) -> None:
    blocks = re.findall(r"(?:^\|.*\|\n)+", render_markdown(made.report()), flags=re.MULTILINE)
    assert len(blocks) >= 8
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_markdown_neutralises_what_models_wrote() -> None:
    text = render_markdown(attacked_case().report())
    assert r"\<script>" in text
    assert not re.search(r"(?<!\\)<(script|img)", text)
    assert not re.search(r"(?<!\\)\]\(", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a | b\nc", r"a \| b c"),
        ("67.5 % [54.6, 78.2]", "67.5 % [54.6, 78.2]"),
        ("snake_case and _emphasis_", r"snake_case and \_emphasis\_"),
        ("__emphasis__", r"\_\_emphasis\_\_"),
        ("# title", r"\# title"),
        ("+14.6 points", "+14.6 points"),
        ("p < 0.001", "p < 0.001"),
        ("<b>`x`", r"\<b>\`x\`"),
        ("[x](y)", r"[x\](y)"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_markdown_escapes_markup_and_leaves_numbers_readable(text: str, expected: str) -> None:
    assert escape(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("give `idle_watts:`, a | b", r"give `idle_watts:`, a \| b"),
        (r"a\`<b>`[x](y)", r"a\\`<b>`[x\](y)"),
        ("one ` alone, `` two ``", r"one \` alone, \`\` two \`\`"),
        ("`a` &lt; `&lt;`", "`a` &amp;lt; `&lt;`"),
    ],
)
def test_markdown_keeps_code_in_sentences_and_nothing_escapes_through_it(text: str, expected: str) -> None:
    assert markdown_sentence(text) == expected


# ------------------------------------------------------------------------------ HTML


@pytest.mark.slow
def test_html_escapes_everything_that_models_wrote() -> None:
    page = attacked_page()
    assert "&lt;script&gt;" in page
    assert len(re.findall("<script", page)) == 1
    assert all((tag["src"] or "").startswith("data:image/svg+xml;base64,") for tag in Page(page).all("img"))
    assert "{{ 7*7 }}" in page


@pytest.mark.slow
def test_html_loads_nothing() -> None:
    page = Page(attacked_page())
    assert {tag for tag, _ in page.tags} & {
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "svg",
    } == set()
    loads = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in {"src", "srcset", "href", "action"}
    ]
    assert loads
    assert all(value and value.startswith(("#", "data:image/svg+xml;base64,")) for value in loads)
    style = re.search(r"<style>(.*?)</style>", rich_page(), flags=re.DOTALL)
    assert style
    assert not re.search(r"url\(|@import|http", style.group(1))


@pytest.mark.slow
def test_html_allows_only_its_own_style_and_script() -> None:
    text = rich_page()
    (policy,) = [
        tag["content"] or ""
        for tag in Page(text).all("meta")
        if tag.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for name in ("style", "script"):
        (body,) = re.findall(rf"<{name}>(.*?)</{name}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


@pytest.mark.slow
def test_html_has_no_style_or_event_attributes() -> None:
    names = {name for _, attributes in Page(rich_page()).tags for name in attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}


@pytest.mark.slow
def test_html_nests_and_names_its_parts() -> None:
    page = Page(rich_page())
    assert page.open == []
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(tag.get("scope") in {"row", "col"} for tag in page.all("th"))
    ids = [tag["id"] for _, tag in page.tags if "id" in tag]
    assert len(ids) == len(set(ids))
    links = {(tag["href"] or "")[1:].partition("?")[0] for tag in page.all("a")}
    assert links <= set(ids)


def test_html_has_every_item_and_letter() -> None:
    made, text = rich_case(), rich_page()
    page = Page(text)
    assert len([tag for tag in page.all("details") if tag.get("class") == "chunk"]) == len(made.rows.samples)
    shown = [tag["data-letter"] for tag in page.all("div") if tag.get("class") == "item"]
    assert len(shown) == 3 * made.eval_facts().n_expected
    assert {"A", "B", "C", "ungraded", "failed"} == set(shown)
    assert all(item.question in text for item in items_of(made, "beta"))


def test_html_without_items_has_no_list_and_no_link_to_it() -> None:
    page = Page(rich_page(with_items=False))
    assert not [tag for tag in page.all("details") if tag.get("class") == "chunk"]
    assert not [tag for tag in page.all("a") if (tag["href"] or "").startswith("#items")]


def test_html_marks_the_diagonal_of_each_confusion_table() -> None:
    # two raters with three letters; the leader against two others, 0 to 3 usable items of a chunk
    assert rich_page().count('class="diagonal"') == 2 * 3 + 2 * 4


def test_every_difference_stands_on_one_scale_with_the_margin_around_0() -> None:
    page = rich_page(with_items=False).partition('aria-labelledby="differences"')[2]
    strips = re.findall(
        r'<div class="strip"><span class="g(\d+)"></span><span class="in g(\d+)"></span><i></i>', page
    )
    bands = re.findall(
        r'<div class="band"><span class="g(\d+)"></span><span class="margin g(\d+)"></span>', page
    )
    assert len(bands) == 4  # of beta − alpha by labels and by the judge, of the other pairs by the judge
    assert len(set(bands)) == 1
    before, half = map(int, bands[0])
    assert before + half == 500
    # alpha is better than embedded-lead: its whole interval is left of 0
    low, to_value = map(int, strips[2])
    assert low + to_value < 500
    assert "−33.3 points" in page
    assert "alpha is better, by a refuted judge</div>" in page


def test_a_new_section_is_one_function_in_the_tuple(monkeypatch: pytest.MonkeyPatch) -> None:
    def cafeteria(report: Report) -> Section:
        return Section(
            anchor="cafeteria",
            title="Cafeteria",
            paragraphs=(f"{len(report.candidates)} candidates had lunch <b>together</b>.",),
            tables=(Table(caption="Lunch", header=("Who", "What"), rows=(("all", "soup"),)),),
        )

    monkeypatch.setattr(sections, "SECTIONS", (*sections.SECTIONS, cafeteria))
    report = case({"alpha": ["AAB"] * 12, "beta": ["ABB"] * 12}).report()
    page, markdown = render_html(report), render_markdown(report)
    assert '<section aria-labelledby="cafeteria">' in page
    assert "lunch &lt;b&gt;together&lt;/b&gt;." in page
    assert "## Cafeteria" in markdown
    assert "| all | soup |" in markdown


@pytest.mark.slow
def test_the_same_report_renders_to_the_same_text() -> None:
    assert html_of(rich_case()) == rich_page()
    assert render_markdown(rich_case().report()) == render_markdown(rich_report())


@pytest.mark.slow
@pytest.mark.parametrize("letters", [("good", "bad"), ("A", "B", "C", "D", "E", "F", "G")])
def test_html_draws_scales_of_other_lengths(letters: tuple[str, ...]) -> None:
    made = case({"alpha": ["x"] * 10})
    rubric = RubricFacts(name="other", sha="s", scale=tuple(Meaning(name=letter) for letter in letters))
    text = html_of(replace(made, rubric=rubric))
    assert all(f'<input type="checkbox" value="{letter}" checked>' in text for letter in letters)


@pytest.mark.parametrize(
    "made", [case({"alpha": ["x"] * 3}), case({"alpha": ["---"] * 12}), case({"alpha": ["AAA"] * 12})]
)
@pytest.mark.slow
def test_bare_runs_render_everywhere(made: Case) -> None:
    assert html_of(made)
    assert render_markdown(made.report())
    assert [line.text for line in overview_text(made.report()) if line.kind == "candidate"]


@pytest.mark.slow
def test_what_is_undefined_is_printed_with_its_reason() -> None:
    made = case({"alpha": ["---"] * 12})
    reason = made.report().candidates[0].usable_of_graded.reason
    assert f"undefined: {reason}" in html_of(made)
    assert f"undefined: {reason}" in render_markdown(made.report())


def test_tokens_that_nobody_counted_are_not_zero() -> None:
    made = case({"alpha": ["AAA"] * 12})
    bare = [row.model_copy(update={"usage": None}) for row in made.rows.generations]
    assert "not counted" in render_markdown(made.with_rows(generations=bare).report())


@pytest.mark.slow
def test_commands_in_a_sentence_are_code_and_nothing_in_them_is_markup() -> None:
    assert (
        sentence("`qaeval plan` tells, `<b>` not")
        == "<code>qaeval plan</code> tells, <code>&lt;b&gt;</code> not"
    )
    page = html_of(case({"alpha": ["AAA"] * 12, "beta": ["BBB"] * 12}))
    assert "<code>qaeval decide RUN</code>" in page
    assert not re.findall(r"<(?:p|li)\b[^>]*>[^<]*`", page)


def test_a_name_at_the_top_of_the_chart_of_cost_does_not_reach_into_the_title() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - 0.4 s that few tests need
    from matplotlib.figure import Figure  # noqa: PLC0415

    drawn = front(case({"alpha": ["AAA"] * 12, "beta": ["AAB"] * 12}).report())
    assert drawn
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    title = axes.set_title(drawn.title, loc="left")
    drawn.draw(axes, LIGHT)
    canvas.draw()
    names = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert names.keys() == {"alpha", "beta"}
    assert all(box.y1 < title.get_window_extent().y0 for box in names.values())


def test_numbers_stay_with_their_units_at_the_end_of_a_line() -> None:
    assert (
        prose("A 63.3 % [52.1, 73.2] (p = 0.034) <b>")
        == "A 63.3\u00a0% [52.1,\u00a073.2] (p\u00a0=\u00a00.034) &lt;b&gt;"
    )


# ------------------------------------------------------------------------------ terminal


def test_the_terminal_draws_each_candidate_in_a_line_of_at_most_80_columns() -> None:
    lines = overview_text(rich_report())
    drawn = [line.text for line in lines if line.kind == "candidate"]
    assert [line.split()[0] for line in drawn] == ["alpha", "beta", "embedded-lead"]
    assert all(len(line) <= 80 for line in drawn)
    # 40 A, 10 B, 5 C, 5 without a letter and 15 failed of 75, in 20 places: 10.7, 2.7, 1.3, 1.3, 4
    assert drawn[0].split()[1] == "AAAAAAAAAAABBBC·××××"
    assert [line.kind for line in lines if line.kind in {"good", "bad"}] == ["bad", "good"]


@pytest.mark.slow
def test_views_of_a_report_that_was_read_back_are_the_same() -> None:
    report: Any = rich_report()
    again = type(report).model_validate_json(report.model_dump_json())
    assert render_markdown(again) == render_markdown(report)
    assert render_html(again) == rich_page(with_items=False)


# ------------------------------------------------------------------------------ charts


@pytest.mark.slow
def test_charts_are_the_same_bytes_each_time_and_load_nothing() -> None:
    report = rich_report()
    drawn = charts(report)
    assert drawn
    for chart, again in zip(drawn, charts(report), strict=True):
        svg = chart.svg()
        assert svg == again.svg()
        loaded = re.findall(r"(?:href|src)=\"(?!#)([^\"]*)|url\((?!#)|@import", svg)
        assert loaded == []
        assert "<script" not in svg


def test_a_chart_is_drawn_once_and_another_theme_changes_its_colours_alone() -> None:
    drawn: list[Theme] = []

    def draw(axes: Any, theme: Theme) -> None:
        drawn.append(theme)
        axes.plot([0, 1], color=theme.soft)

    chart = Chart("lines", LIGHT.ink, "", draw, 2.0)
    light, dark = chart.svg(), chart.svg(DARK)
    recoloured = {LIGHT.ink: DARK.ink, LIGHT.soft: DARK.soft, LIGHT.paper: DARK.paper}
    assert drawn == [LIGHT]
    assert set(recoloured) <= set(_colours(light))
    assert _colours(dark) == [recoloured.get(colour, colour) for colour in _colours(light)]
    assert f">{LIGHT.ink}</text>" in dark  # a text that reads like a colour stays


def _colours(svg: str) -> list[str]:
    return re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg)


@pytest.mark.parametrize("name", ["mistral-small-3.2-24b@a run of last week " + "x" * 200, "x " * 120])
def test_a_long_name_leaves_room_for_the_axes_of_a_chart(name: str) -> None:
    made = case({f"{name}1": ["AAB"] * 12, f"{name}2": ["ABB"] * 12})
    for chart in charts(made.report()):  # matplotlib would warn of axes without size: an error in tests
        lines = [text for text in _texts(chart.svg()) if "x x" in text or "mistral" in text]
        assert lines
        assert max(map(len, lines)) <= 34


@pytest.mark.slow
def test_names_that_look_like_markup_are_text_in_a_chart() -> None:
    made = case({"alpha@a<b>&$x$": ["AAB"] * 12, "beta": ["ABB"] * 12})
    assert "alpha@a<b>&$x$" in _texts(charts(made.report())[0].svg())


def _texts(svg: str) -> list[str]:
    """Return the lines of text of an SVG; matplotlib writes each line of a label as its own element."""
    nodes = ET.fromstring(svg).iter()  # noqa: S314 - our own
    return [node.text for node in nodes if node.text and node.tag.endswith(("}text", "}tspan"))]


def test_a_document_links_the_charts_that_stand_beside_it() -> None:
    report = rich_report()
    text = render_markdown(report, with_charts=True)
    linked = re.findall(r"^!\[.+\]\(charts/(\w+)\.svg\)$", text, flags=re.MULTILINE)
    assert linked == [chart.name for chart in charts(report)]
    assert "charts/" not in render_markdown(report)


@pytest.mark.slow
def test_a_chart_of_cost_needs_two_costs_in_one_unit() -> None:
    def names(**machines: MachineFacts) -> list[str]:
        made = case({"alpha": ["AAB"] * 12, "beta": ["ABB"] * 12})
        return [chart.name for chart in charts(made.report(machines=machines))]

    euro, dollar = (
        MachineFacts(name=currency, price_per_hour=1.0, currency=currency, as_of="2026-01-01")
        for currency in ("EUR", "USD")
    )
    assert "cost" in names()  # machine time
    assert "cost" in names(alpha=euro, beta=euro)
    assert "cost" not in names(alpha=euro, beta=dollar)


@pytest.mark.parametrize(
    ("bounds", "reach"),
    [
        ((0.25, 0.75), [[25.0], [25.0]]),
        ((0.0, 0.625), [[50.0], [12.5]]),
        ((0.625, 0.75), [[0.0], [25.0]]),  # a corrected estimate may lie outside the interval
        ((0.25, 0.375), [[25.0], [0.0]]),
        ((None, None), None),
    ],
)
def test_an_interval_in_a_chart_reaches_from_the_value_to_its_bounds(
    bounds: tuple[float | None, float | None], reach: list[list[float]] | None
) -> None:
    low, high = bounds
    measure = Measure(value=0.5, low=low, high=high, method="m", n=4, n_clusters=4)
    assert x_reach(measure, 100) == reach
