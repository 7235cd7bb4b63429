"""Web pages as Markdown: what belongs to the text and what to the site around it."""

from collections import Counter
from pathlib import Path

import pytest

from qaeval.corpus.pages import page_as_markdown
from qaeval.corpus.reading import find_documents


def text_of(body: str) -> str:
    return page_as_markdown(Path("page.html"), f"<html><body><main>{body}</main></body></html>")[2]


@pytest.mark.parametrize(
    "dropped",
    [
        '<p style="display: none">site</p>',
        '<div class="cookie-banner">site</div>',
        '<div id="cookie-consent">site</div>',
        '<img src="data:image/png;base64,AAAA" alt="site">',
    ],
)
def test_hidden_parts_banners_and_embedded_pictures_are_no_text(dropped: str) -> None:
    text = text_of(f"<p>The valve opens at 9 bar.</p>{dropped}")
    assert "The valve opens at 9 bar." in text
    assert "site" not in text
    assert "base64" not in text


def test_parts_with_a_style_a_class_and_an_id_of_their_own_stay() -> None:
    assert "diagram" in text_of('<p>A.</p><p id="parts" style="color: red" class="note">diagram</p>')


def test_the_heading_of_a_page_stays_and_the_header_of_the_site_goes() -> None:
    text = text_of("<header><nav>Home</nav><h1>Valves</h1></header><p>They open.</p>")
    assert "# Valves" in text
    assert "Home" not in text


def test_lists_are_numbered_from_their_start_and_lines_below_are_indented() -> None:
    text = text_of('<ol start="9"><li>Open<p>slowly</p></li><li>Close</li></ol><ul><li>Valve</li></ul>')
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines == ["9. Open", "   slowly", "10. Close", "- Valve"]


def test_a_cell_is_on_one_line_and_its_bars_are_no_columns() -> None:
    cell = '<td colspan="zwei">a|b<pre>c\nd</pre></td>'
    text = text_of(f"<table><tr><th>Head</th></tr><tr>{cell}</tr></table>")
    (row,) = [line for line in text.splitlines() if "a" in line and line.startswith("|") and "b" in line]
    assert r"a\|b" in row
    assert row.count("|") == 3


def test_a_link_out_of_a_folder_is_not_followed_and_one_inside_is_read_once(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "secret.md").write_text("Outside.")
    (docs / "a.md").write_text("Inside.")
    (docs / "b.md").symlink_to(docs / "a.md")
    (docs / "c.md").symlink_to(tmp_path / "secret.md")
    ignored: Counter[str] = Counter()
    assert [name for _, name in find_documents([docs], ignored)] == ["a.md"]
    assert ignored == {"link out of the folder": 1}


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("10<sup>6</sup> requests, 2<sup>12</sup> bits", "10^6 requests, 2^12 bits"),
        ("5 × 10<sup>-3</sup> and 10<sup>\u22123</sup>", "5 × 10^(-3) and 10^(\u22123)"),
        ("<i>x</i><sup>n</sup>, 2<sup>2n</sup>, 2<sup>(n+1)</sup>", "*x*^n, 2^(2n), 2^(n+1)"),
        ("<code>2<sup>10</sup></code>", "`2^10`"),
        ("note<sup>1</sup>", "note^1"),
        ("H<sub>2</sub>O, Na<sup>+</sup>, 1<sup>st</sup>, Brand<sup>TM</sup>, a<sup> </sup>b", "H2O, Na+, 1st, BrandTM, a b"),
        ('a<sup><a href="#fn1">1</a></sup>, b<sup>[<a href="#c2">2</a>, <a href="p.html#c3">3</a>]</sup>.', "a, b."),
        ('a<a href="#fn1"><sup>1</sup></a>.', "a."),
        ('<a href="#powers">10<sup>6</sup></a>', "[10^6](#powers)"),
        ('x<sup><a href="#n">n</a> + 1</sup>', "x^([n](#n) + 1)"),
    ],
)  # fmt: skip
def test_a_superscript_is_a_power_and_no_further_digit(html: str, expected: str) -> None:
    assert text_of(f"<p>{html}</p>").strip() == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            "<tr><th>Plan<th>Region<th>Price<tbody><tr><td rowspan=2><b>Basic</b><td>EU<td>5<tr><td>US<td>6",
            ["| Plan | Region | Price |", "| **Basic** | EU | 5 |", "| **Basic** | US | 6 |"],
        ),
        (
            "<tr><th rowspan=2>Plan<th colspan=2>Price<tr><th>EU<th>US<tr><td>Basic<td>5<td>6",
            ["| Plan | Price | Price |", "| Plan | EU | US |", "| Basic | 5 | 6 |"],
        ),
        ("<tr><td>a<td rowspan=3>b<tr><td>c<tr><tr><td>d", ["| a | b |", "| c | b |", "|  | b |", "| d |"]),
        ("<tr><td rowspan=2 colspan=2>a<td>b<tr><td>c", ["| a | a | b |", "| a | a | c |"]),
        ("<tr><td rowspan=2>a<td>b<tr><td colspan=2>c", ["| a | b |", "| a | c | c |"]),
        ("<tr><td>a<td rowspan=2>b<tr><td colspan=2>c<td>d", ["| a | b |", "| c | c | d |"]),
        ("<tbody><tr><td rowspan=0>a<td>b<tr><td>c<tbody><tr><td>d<td>e", ["| a | b |", "| a | c |", "| d | e |"]),
        ("<tr><td rowspan='²'>a<td>b<tr><td>c", ["| a | b |", "| c |"]),
        (
            "<tr><td rowspan=2>a<table><tr><td>x<tr><td>y</table><td>b<tr><td>c",
            ["| a  | x | | --- | | y | | b |", "| a  | x | | --- | | y | | c |"],
        ),
        (f"<tr><td colspan=2>{'long ' * 200}<tr><td>a<td>b", [f"| {'long ' * 199}long |  |", "| a | b |"]),
    ],
)  # fmt: skip
def test_a_cell_that_spans_rows_or_columns_stands_in_each(rows: str, expected: list[str]) -> None:
    lines = [line for line in text_of(f"<table>{rows}</table>").splitlines() if line.strip()]
    assert [line for line in lines if not line.startswith("| ---")] == expected


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "rows",
    [
        "<tr>" + "<td rowspan=65534>x" * 2_000 + "<tr>" * 2_000,
        "<tr>" + "<td>x" * 2_000 + "<td rowspan=65534>y" + "<tr>" * 2_000,
        ("<tr><td colspan=99 rowspan=99>" + "x" * 90) * 120,
        "<tr><td colspan=9>x<table>" * 60,
    ],
)
def test_spans_repeat_no_more_than_a_page_holds(rows: str) -> None:
    table = f"<table>{rows}"
    assert len(text_of(table)) < 20 * len(table) + 100_000


def visible(page: str) -> str:
    return " ".join(page_as_markdown(Path("page.html"), f"<html><body>{page}</body></html>")[2].split())


TEXT = "<h2>VPN</h2><p>The certificate is valid for 90 days.</p>"


@pytest.mark.parametrize(
    "page",
    [
        f'<form action="./vpn.aspx" id="aspnetForm"><div><h1>IT</h1>{TEXT}<label>Search</label></div></form>',
        f"<form>{TEXT}<form><input></form></form>",
        f"<main><form>{TEXT}</form></main>",
        f"<form>{TEXT}{'<p>The gateway is restarted each night.</p>' * 20}</form>{'<p>The log is kept.</p>' * 80}",
        f'<div>{TEXT}</div><article class="card"><p>Related: printing</p></article>',
        f'<h1>IT</h1>{TEXT}<article class="card"><h2>Printing</h2><p>Ask the desk.</p></article>',
        f'<div class="has-cookie-notice">{TEXT}</div>',
        f'<div class="page onetrust-on"><h1>IT</h1>{TEXT}</div>',
        f'<div id="consent-overlay"><main>{TEXT}</main></div>',
    ],
)
def test_a_part_around_the_text_of_a_page_is_no_boilerplate(page: str) -> None:
    assert "## VPN The certificate is valid for 90 days." in visible(page)


@pytest.mark.parametrize(
    "dropped",
    [
        "<form><h3>Newsletter</h3><p>Subscribe to site news.</p><input><button>Go</button></form>",
        f"<form><label>site</label><select>{'<option>site' * 100}</select></form>",
        "<aside>site</aside>",
        '<main><p>Text.</p><aside class="right-sidebar">site</aside></main>',
        '<div class="js-cookie-banner">site</div>',
    ],
)
def test_forms_sidebars_and_banners_beside_the_text_are_dropped(dropped: str) -> None:
    text = visible(f"<div>{TEXT}</div>{dropped}")
    assert "site" not in text
    assert "90 days" in visible(f"<main>{TEXT}</main>{dropped}")


@pytest.mark.parametrize(
    "page",
    [
        "<main><p>Text.</p><aside>Never restart the node.</aside></main>",
        "<article><h1>A</h1><p>Text.</p><aside>Never restart the node.</aside></article>",
        '<div role="main"><p>Text.</p><aside>Never restart the node.</aside></div>',
        '<p>Text.</p><aside class="starlight-aside--caution"><p>Never restart the node.</p></aside>',
        '<p>Text.</p><aside role="note"><p>Never restart the node.</p></aside>',
    ],
)
def test_an_aside_of_the_text_stays(page: str) -> None:
    assert "Never restart the node." in visible(page)


def test_an_article_with_most_of_the_text_or_the_only_top_heading_is_the_page() -> None:
    menu = '<div class="menu"><a href="a.html">Menu</a> <a href="b.html">Menu</a></div><div>Imprint</div>'
    assert "Imprint" not in visible(f"{menu}<article>{TEXT}</article>")
    assert "Comment" not in visible(f"<article><h1>VPN</h1>Short.</article><p>Comment {'so long ' * 9}</p>")


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("html", "n"), [("<table><tr><td>" + "|<b>x</b>" * 30_000, 30_000), ("x<nav></nav>" * 60_000, 60_000)]
)
def test_many_bars_or_dropped_parts_take_time_that_grows_with_the_page(html: str, n: int) -> None:
    assert text_of(html).count("x") == n  # quadratic time would be two minutes
