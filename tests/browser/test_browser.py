"""The report in a real browser, opened from disk without a network."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from replay.server import LoopbackServer

# one worker: one browser, and two runs for it to look at
pytestmark = pytest.mark.slow

QAEVAL = Path(sys.executable).with_name("qaeval")
WIDTHS = {"desk": 1280, "phone": 390}
HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\"> \ud800".encode(
    "utf-8", "replace"
).decode()


def compare(out: Path, *words: str | Path) -> Path:
    subprocess.run([QAEVAL, "compare", *words, "--out", out], check=True, capture_output=True, timeout=300)
    return out / "report.html"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compare(tmp_path_factory.mktemp("run") / "run", "embedded-lead", "embedded-salient")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four served candidates, one of which fails often, and one of whose chunks would like to run."""
    folder = tmp_path_factory.mktemp("four")
    names = ("mistral", "qwen", "llama", "ministral")
    rows = [
        {
            "chunk_id": f"c{n:02}",
            "text": f"{HOSTILE if n == 0 else ''} Section {n}. The valve opens at {n} bar. It shuts after {n} s.",
        }
        for n in range(24)
    ]
    (folder / "chunks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    price = "{gpu: L4, gpu_watts: 72, price_per_hour: 1.2, as_of: 2020-01-01, source: an offer}"
    (folder / "ours.yaml").write_text(f"hardware: {{ours: {price}}}")
    with LoopbackServer(names) as server, LoopbackServer(["gpt-oss"]) as judge:
        server.fail("truncated", 12)
        endpoints = [word for name in names for word in ("--endpoint", f"{name}={server.url}")]
        more = [
            "--endpoint",
            f"gpt-oss={judge.url}",
            "--config",
            folder / "ours.yaml",
            "--hardware",
            "ours",
        ]
        return compare(folder / "run", *names, "--chunks", folder / "chunks.jsonl", *endpoints, *more)


@pytest.fixture(params=["embedded", "four"])
def report(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which every request and every complaint is an error of the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, wrong = context.new_page(), []
    page.on(
        "request",
        lambda one: (
            wrong.append(one.url) if not one.url.startswith(("file:", "data:image/svg+xml")) else None
        ),
    )
    page.on("console", lambda one: wrong.append(one.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    assert wrong == []


def opened(page: Page, report: Path, fragment: str = "") -> Page:
    page.goto(f"file://{report}{fragment}")
    return page


def shown(page: Page) -> int:
    return int((page.text_content("#shown") or "").split()[0])


def rows_of(report: Path) -> list[dict[str, str]]:
    command = [QAEVAL, "report", report.parent, "--format", "csv"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return list(csv.DictReader(io.StringIO(printed)))


# ---------------------------------------------------------------------------- what is there


def test_every_section_of_the_report_is_drawn(page: Page, report: Path) -> None:
    opened(page, report)
    written = re.findall(r"^## (.+)$", (report.parent / "report.md").read_text(), re.MULTILINE)
    assert page.locator("main h2").all_inner_texts() == [
        "Difference in usable rate",
        *(["Why an item is not A"] if page.locator("table.flaws").count() else []),
        "What this rests on",
        "Items",
        *written[1:],
    ]
    page.evaluate("document.querySelectorAll('details.fold').forEach(fold => { fold.open = true; })")
    sections = page.locator("main section").all()
    assert len(sections) >= len(written)
    for section in sections:
        assert section.bounding_box()["height"] > 40  # type: ignore[index]
    anchors = [link.get_attribute("href") for link in page.locator("nav a").all()]
    assert anchors
    assert all(page.locator(str(anchor)).count() == 1 for anchor in anchors)


def test_the_verdict_is_seen_without_scrolling(page: Page, report: Path) -> None:
    opened(page, report)
    box = page.locator(".verdict").bounding_box()
    assert box
    assert box["y"] + box["height"] < 450


def test_charts_are_drawn_in_both_looks(page: Page, four: Path) -> None:
    opened(page, four)
    pictures = page.locator("figure img")
    assert pictures.count() == 2
    light = pictures.evaluate_all("all => all.map(one => [one.naturalWidth, one.currentSrc])")
    page.emulate_media(color_scheme="dark")
    dark = pictures.evaluate_all("all => all.map(one => [one.naturalWidth, one.currentSrc])")
    assert all(width > 100 for width, _ in (*light, *dark))
    assert all(one[1] != other[1] for one, other in zip(light, dark, strict=True))
    assert all(pictures.nth(place).get_attribute("alt") for place in range(2))


def test_text_of_chunks_is_shown_and_does_not_run(page: Page, four: Path) -> None:
    opened(page, four)
    assert page.title().startswith("mistral, qwen, llama and ministral")
    assert HOSTILE.split()[0] in (page.locator(".source").first.text_content() or "")
    assert page.locator("img[src=x]").count() == 0


# ---------------------------------------------------------------------------- items


def differ(rows: list[dict[str, str]]) -> int:
    by_chunk: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        by_chunk.setdefault(row["chunk_id"], {}).setdefault(row["candidate"], []).append(
            row["letter"] or row["status"]
        )
    letters = {chunk: {tuple(sorted(own)) for own in names.values()} for chunk, names in by_chunk.items()}
    return sum(len(letters[row["chunk_id"]]) > 1 for row in rows)


FILTERS: dict[str, Callable[[list[dict[str, str]]], int]] = {
    "": len,
    "#items?show=different": differ,
    "#items?show=failed": lambda rows: sum(row["status"] != "graded" for row in rows),
    "#items?show=mismatch": lambda rows: sum(
        any(given.rpartition(":")[2] != row["letter"] for given in row["labels"].split()) for row in rows
    ),
    "#items?stratum=self-hosting&type=factual": lambda rows: sum(
        (row["stratum"], row["type"]) == ("self-hosting", "factual") for row in rows
    ),
    "#items?without=A+B": lambda rows: sum(row["letter"] == "C" or row["status"] == "failed" for row in rows),
}


@pytest.mark.parametrize("fragment", [one for one in FILTERS if "stratum" not in one])
def test_the_address_says_which_items_are_shown(page: Page, report: Path, fragment: str) -> None:
    assert shown(opened(page, report, fragment)) == FILTERS[fragment](rows_of(report))


def test_strata_and_types_are_found(page: Page, embedded: Path) -> None:
    fragment = "#items?stratum=self-hosting&type=factual"
    count = shown(opened(page, embedded, fragment))
    assert count == FILTERS[fragment](rows_of(embedded)) > 0


def test_typing_filters_and_is_remembered_in_the_address(page: Page, four: Path) -> None:
    opened(page, four)
    page.get_by_label("Words").fill("section 17.")
    assert 0 < shown(page) < 24
    assert page.url.endswith("#items?words=section+17.")
    again = shown(page)
    page.reload()
    assert shown(page) == again


@pytest.mark.parametrize("order", ["worst", "apart", "unsure"])
def test_chunks_are_put_in_order(page: Page, four: Path, order: str) -> None:
    rank = {"A": 0, "B": 1, "C": 2, "ungraded": 3, "failed": 4}
    opened(page, four)
    before = page.locator("details.chunk").evaluate_all("all => all.map(one => one.id)")
    page.locator("select[name=order]").select_option(order)
    after = page.locator("details.chunk").evaluate_all(
        """all => all.map(one => Array.from(one.querySelectorAll(".columns > div")).map(column =>
             Array.from(column.querySelectorAll(".item")).map(item => [item.dataset.letter, Number(item.dataset.sure ?? 2)])))"""
    )

    def means(chunk: list[list[list[object]]]) -> list[float]:
        return [sum(rank[str(letter)] for letter, _ in column) / len(column) for column in chunk]

    keys = {
        "worst": [-sum(means(chunk)) for chunk in after],
        "apart": [min(means(chunk)) - max(means(chunk)) for chunk in after],
        "unsure": [min(float(str(sure)) for column in chunk for _, sure in column) for chunk in after],
    }[order]
    keys = [round(key, 9) for key in keys]  # the page adds up in another order
    assert keys == sorted(keys)
    page.locator("select[name=order]").select_option("")
    assert page.locator("details.chunk").evaluate_all("all => all.map(one => one.id)") == before


def test_a_link_to_a_chunk_opens_it(page: Page, report: Path) -> None:
    ids = re.findall(r'id="(chunk-[0-9a-f]+)"', report.read_text())
    opened(page, report, f"#{ids[5]}")
    assert page.locator("details.chunk[open]").evaluate_all("all => all.map(one => one.id)") == [ids[5]]


def test_keys_open_a_chunk_and_mark_where_an_answer_stands(page: Page, embedded: Path) -> None:
    opened(page, embedded)
    chunk = page.locator("details.chunk").first
    chunk.locator("summary").focus()
    page.keyboard.press("Enter")
    assert chunk.get_attribute("open") is not None
    for _ in range(3):  # the link, the source, the first item
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "item"
    marked = chunk.locator(".stands")
    assert marked.count() > 0
    answer = page.evaluate("document.activeElement.querySelectorAll('p')[1].textContent")
    words = set(re.findall(r"\w{5,}", answer.lower()))
    assert words & set(re.findall(r"\w{5,}", " ".join(marked.all_inner_texts()).lower()))


def test_letters_move_between_chunks_and_to_the_words(page: Page, embedded: Path) -> None:
    opened(page, embedded)
    chunks = page.locator("details.chunk")
    for key in "jjko":
        page.keyboard.press(key)
    assert chunks.nth(0).get_attribute("open") is not None
    assert page.locator("details.chunk.current").evaluate("node => node.id") == chunks.nth(0).get_attribute(
        "id"
    )
    page.keyboard.press("o")
    assert chunks.nth(0).get_attribute("open") is None
    page.keyboard.press("/")
    page.keyboard.type("jo")  # typed into the field, not understood as keys
    assert page.get_by_label("Words").input_value() == "jo"


def test_filters_without_a_match_are_reset(page: Page, embedded: Path) -> None:
    opened(page, embedded)
    n_items = shown(page)
    page.get_by_label("Words").fill("no such words anywhere")
    assert shown(page) == 0
    page.get_by_role("button", name="Show everything").click()
    assert shown(page) == n_items
    assert page.get_by_label("Words").input_value() == ""


def test_long_lists_are_drawn_step_by_step(page: Page, embedded: Path) -> None:
    opened(page, embedded)
    chunks = page.locator("details.chunk")
    visible = "all => all.filter(node => !node.hidden).length"
    n_chunks = chunks.count()
    assert chunks.evaluate_all(visible) == min(25, n_chunks)
    while page.locator("#more").is_visible():
        page.locator("#more").click()
    assert chunks.evaluate_all(visible) == n_chunks


def test_a_way_on_shows_as_many_items_as_it_says(page: Page, four: Path) -> None:
    opened(page, four)
    way = page.locator(".ways a", has_text="failed or without letter")
    way.click()
    assert shown(page) == int(way.inner_text().split()[0])


def test_a_link_to_a_folded_section_opens_it(page: Page, report: Path) -> None:
    opened(page, report)
    table = page.get_by_role("region", name="Eval and rubric")
    assert not table.is_visible()
    page.get_by_role("navigation").get_by_role("link", name="Provenance").click()
    table.wait_for()


def test_the_weights_are_applied_in_the_page(page: Page, four: Path) -> None:
    opened(page, four)
    made = json.loads((four.parent / "report.json").read_text())["timing"]["choice"]
    assert page.text_content("#weighed") == " · ".join(
        f"{one['candidate']} {one['mean']:.2f}" for one in made
    )
    page.locator("#hosting").click()
    for field in page.locator("#weights input").all():
        field.fill("1" if field.get_attribute("name") == "licence" else "0")
    assert (page.text_content("#weighed") or "").split(" · ")[
        -1
    ] == "ministral 0.00"  # its licence is restricted


# ---------------------------------------------------------------------------- looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
def test_axe_finds_nothing_serious(page: Page, report: Path, scheme: str, device: str) -> None:
    page.set_viewport_size({"width": WIDTHS[device], "height": 900})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    opened(page, report)
    page.locator("details.chunk summary").first.click()
    found = Axe().run(page).response["violations"]
    grave = [one for one in found if one["impact"] in {"serious", "critical"}]
    assert [(one["id"], one["nodes"][0]["html"]) for one in grave] == []


@pytest.mark.parametrize("device", WIDTHS)
def test_the_page_fits_its_window(page: Page, report: Path, device: str, tmp_path: Path) -> None:
    page.set_viewport_size({"width": WIDTHS[device], "height": 900})
    opened(page, report)
    page.locator("details.chunk summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[device]
    picture = page.screenshot(path=tmp_path / f"{device}.png", full_page=True)
    assert len(picture) > 100_000  # a blank page is far smaller


def test_dark_is_dark(page: Page, report: Path) -> None:
    opened(page, report)

    def lightness() -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    page.emulate_media(color_scheme="light")
    light = lightness()
    page.emulate_media(color_scheme="dark")
    assert lightness() < 150
    assert light > 600


def test_print_has_the_sections_and_not_the_controls(page: Page, report: Path) -> None:
    opened(page, report)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for hidden in ("nav", "#weights", "#items"):
        assert not page.locator(hidden).is_visible()
    assert page.locator(".verdict").is_visible()
    assert len(page.pdf(format="A4", print_background=True)) > 30_000
