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

# slow: one browser opens the reports of two runs
pytestmark = pytest.mark.slow

QAEVAL = Path(sys.executable).with_name("qaeval")
WIDTHS = {"desk": 1280, "phone": 390}
HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\"> \ud800".encode(
    "utf-8", "replace"
).decode()


def compare(out: Path, *arguments: str | Path) -> Path:
    subprocess.run(
        [QAEVAL, "compare", *arguments, "--out", out], check=True, capture_output=True, timeout=300
    )
    return out / "report.html"


@pytest.fixture(scope="module")
def embedded_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compare(tmp_path_factory.mktemp("run") / "run", "embedded-lead", "embedded-salient")


@pytest.fixture(scope="module")
def served_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report on four served candidates; some replies are truncated, and one chunk holds hostile HTML."""
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
        endpoints = [argument for name in names for argument in ("--endpoint", f"{name}={server.url}")]
        options = [
            "--endpoint",
            f"gpt-oss={judge.url}",
            "--config",
            folder / "ours.yaml",
            "--hardware",
            "ours",
        ]
        return compare(folder / "run", *names, "--chunks", folder / "chunks.jsonl", *endpoints, *options)


@pytest.fixture(params=["embedded_report", "served_report"])
def report(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test on any network request, console message or page error."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, problems = context.new_page(), []
    page.on(
        "request",
        lambda request: (
            problems.append(request.url)
            if not request.url.startswith(("file:", "data:image/svg+xml"))
            else None
        ),
    )
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    context.close()
    assert problems == []


def open_report(page: Page, report: Path, fragment: str = "") -> Page:
    page.goto(f"file://{report}{fragment}")
    return page


def count_shown(page: Page) -> int:
    return int((page.text_content("#shown") or "").split()[0])


def read_csv_rows(report: Path) -> list[dict[str, str]]:
    command = [QAEVAL, "report", report.parent, "--format", "csv"]
    stdout = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return list(csv.DictReader(io.StringIO(stdout)))


# ---------------------------------------------------------------------------- sections and charts


def test_every_section_of_the_report_is_rendered(page: Page, report: Path) -> None:
    open_report(page, report)
    headings = re.findall(r"^## (.+)$", (report.parent / "report.md").read_text(), re.MULTILINE)
    assert page.locator("main h2").all_inner_texts() == [
        "Difference in usable rate",
        *(["Why an item is not A"] if page.locator("table.flaws").count() else []),
        "What this rests on",
        "Items",
        *headings[1:],
    ]
    page.evaluate("document.querySelectorAll('details.fold').forEach(fold => { fold.open = true; })")
    sections = page.locator("main section").all()
    assert len(sections) >= len(headings)
    for section in sections:
        assert section.bounding_box()["height"] > 40  # type: ignore[index]
    anchors = [link.get_attribute("href") for link in page.locator("nav a").all()]
    assert anchors
    assert all(page.locator(str(anchor)).count() == 1 for anchor in anchors)


def test_the_verdict_is_visible_without_scrolling(page: Page, report: Path) -> None:
    open_report(page, report)
    box = page.locator(".verdict").bounding_box()
    assert box
    assert box["y"] + box["height"] < 450


def test_charts_follow_the_colour_scheme(page: Page, served_report: Path) -> None:
    open_report(page, served_report)
    images = page.locator("figure img")
    assert images.count() == 2
    light = images.evaluate_all("all => all.map(one => [one.naturalWidth, one.currentSrc])")
    page.emulate_media(color_scheme="dark")
    dark = images.evaluate_all("all => all.map(one => [one.naturalWidth, one.currentSrc])")
    assert all(width > 100 for width, _ in (*light, *dark))
    assert all(light_image[1] != dark_image[1] for light_image, dark_image in zip(light, dark, strict=True))
    assert all(images.nth(index).get_attribute("alt") for index in range(2))


def test_chunk_text_is_escaped(page: Page, served_report: Path) -> None:
    open_report(page, served_report)
    assert page.title().startswith("mistral, qwen, llama and ministral")
    assert HOSTILE.split()[0] in (page.locator(".source").first.text_content() or "")
    assert page.locator("img[src=x]").count() == 0


# ---------------------------------------------------------------------------- items


def count_differing_items(rows: list[dict[str, str]]) -> int:
    by_chunk: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        by_chunk.setdefault(row["chunk_id"], {}).setdefault(row["candidate"], []).append(
            row["letter"] or row["status"]
        )
    letters = {
        chunk: {tuple(sorted(values)) for values in names.values()} for chunk, names in by_chunk.items()
    }
    return sum(len(letters[row["chunk_id"]]) > 1 for row in rows)


FILTERS: dict[str, Callable[[list[dict[str, str]]], int]] = {
    "": len,
    "#items?show=different": count_differing_items,
    "#items?show=failed": lambda rows: sum(row["status"] != "graded" for row in rows),
    "#items?show=mismatch": lambda rows: sum(
        any(label.rpartition(":")[2] != row["letter"] for label in row["labels"].split()) for row in rows
    ),
    "#items?stratum=self-hosting&type=factual": lambda rows: sum(
        (row["stratum"], row["type"]) == ("self-hosting", "factual") for row in rows
    ),
    "#items?without=A+B": lambda rows: sum(row["letter"] == "C" or row["status"] == "failed" for row in rows),
}


@pytest.mark.parametrize("fragment", [fragment for fragment in FILTERS if "stratum" not in fragment])
def test_the_url_fragment_filters_the_items(page: Page, report: Path, fragment: str) -> None:
    assert count_shown(open_report(page, report, fragment)) == FILTERS[fragment](read_csv_rows(report))


def test_items_are_filtered_by_stratum_and_type(page: Page, embedded_report: Path) -> None:
    fragment = "#items?stratum=self-hosting&type=factual"
    count = count_shown(open_report(page, embedded_report, fragment))
    assert count == FILTERS[fragment](read_csv_rows(embedded_report)) > 0


def test_typed_filters_are_stored_in_the_url(page: Page, served_report: Path) -> None:
    open_report(page, served_report)
    page.get_by_label("Words").fill("section 17.")
    assert 0 < count_shown(page) < 24
    assert page.url.endswith("#items?words=section+17.")
    n_shown = count_shown(page)
    page.reload()
    assert count_shown(page) == n_shown


@pytest.mark.parametrize("order", ["worst", "apart", "unsure"])
def test_chunks_are_sorted(page: Page, served_report: Path, order: str) -> None:
    rank = {"A": 0, "B": 1, "C": 2, "ungraded": 3, "failed": 4}
    open_report(page, served_report)
    ids = page.locator("details.chunk").evaluate_all("all => all.map(one => one.id)")
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
    keys = [round(key, 9) for key in keys]  # the page sums in a different order
    assert keys == sorted(keys)
    page.locator("select[name=order]").select_option("")
    assert page.locator("details.chunk").evaluate_all("all => all.map(one => one.id)") == ids


def test_a_link_to_a_chunk_opens_it(page: Page, report: Path) -> None:
    ids = re.findall(r'id="(chunk-[0-9a-f]+)"', report.read_text())
    open_report(page, report, f"#{ids[5]}")
    assert page.locator("details.chunk[open]").evaluate_all("all => all.map(one => one.id)") == [ids[5]]


def test_keys_open_a_chunk_and_highlight_the_source_of_an_answer(page: Page, embedded_report: Path) -> None:
    open_report(page, embedded_report)
    chunk = page.locator("details.chunk").first
    chunk.locator("summary").focus()
    page.keyboard.press("Enter")
    assert chunk.get_attribute("open") is not None
    for _ in range(3):  # the link, the source, the first item
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "item"
    highlights = chunk.locator(".stands")
    assert highlights.count() > 0
    answer = page.evaluate("document.activeElement.querySelectorAll('p')[1].textContent")
    arguments = set(re.findall(r"\w{5,}", answer.lower()))
    assert arguments & set(re.findall(r"\w{5,}", " ".join(highlights.all_inner_texts()).lower()))


def test_letter_keys_move_between_chunks_and_to_the_search_field(page: Page, embedded_report: Path) -> None:
    open_report(page, embedded_report)
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
    page.keyboard.type("jo")  # typed into the field, not handled as shortcuts
    assert page.get_by_label("Words").input_value() == "jo"


def test_filters_without_a_match_are_reset(page: Page, embedded_report: Path) -> None:
    open_report(page, embedded_report)
    n_items = count_shown(page)
    page.get_by_label("Words").fill("no such words anywhere")
    assert count_shown(page) == 0
    page.get_by_role("button", name="Show everything").click()
    assert count_shown(page) == n_items
    assert page.get_by_label("Words").input_value() == ""


def test_long_lists_are_rendered_in_steps(page: Page, embedded_report: Path) -> None:
    open_report(page, embedded_report)
    chunks = page.locator("details.chunk")
    visible = "all => all.filter(node => !node.hidden).length"
    n_chunks = chunks.count()
    assert chunks.evaluate_all(visible) == min(25, n_chunks)
    while page.locator("#more").is_visible():
        page.locator("#more").click()
    assert chunks.evaluate_all(visible) == n_chunks


def test_a_shortcut_shows_as_many_items_as_it_announces(page: Page, served_report: Path) -> None:
    open_report(page, served_report)
    shortcut = page.locator(".ways a", has_text="failed or without letter")
    shortcut.click()
    assert count_shown(page) == int(shortcut.inner_text().split()[0])


def test_a_link_to_a_folded_section_opens_it(page: Page, report: Path) -> None:
    open_report(page, report)
    table = page.get_by_role("region", name="Eval and rubric")
    assert not table.is_visible()
    page.get_by_role("navigation").get_by_role("link", name="Provenance").click()
    table.wait_for()


def test_the_weights_are_applied_in_the_page(page: Page, served_report: Path) -> None:
    open_report(page, served_report)
    choice = json.loads((served_report.parent / "report.json").read_text())["timing"]["choice"]
    assert page.text_content("#weighed") == " · ".join(
        f"{row['candidate']} {row['mean']:.2f}" for row in choice
    )
    page.locator("#hosting").click()
    for field in page.locator("#weights input").all():
        field.fill("1" if field.get_attribute("name") == "licence" else "0")
    assert (page.text_content("#weighed") or "").split(" · ")[
        -1
    ] == "ministral 0.00"  # its licence is restricted


# ---------------------------------------------------------------------------- appearance


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
def test_axe_finds_nothing_serious(page: Page, report: Path, scheme: str, device: str) -> None:
    page.set_viewport_size({"width": WIDTHS[device], "height": 900})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    open_report(page, report)
    page.locator("details.chunk summary").first.click()
    violations = Axe().run(page).response["violations"]
    serious_violations = [
        violation for violation in violations if violation["impact"] in {"serious", "critical"}
    ]
    assert [(violation["id"], violation["nodes"][0]["html"]) for violation in serious_violations] == []


@pytest.mark.parametrize("device", WIDTHS)
def test_the_page_fits_its_window(page: Page, report: Path, device: str, tmp_path: Path) -> None:
    page.set_viewport_size({"width": WIDTHS[device], "height": 900})
    open_report(page, report)
    page.locator("details.chunk summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[device]
    picture = page.screenshot(path=tmp_path / f"{device}.png", full_page=True)
    assert len(picture) > 100_000  # a blank page is far smaller


def test_dark_mode_has_a_dark_background(page: Page, report: Path) -> None:
    open_report(page, report)

    def lightness() -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    page.emulate_media(color_scheme="light")
    light = lightness()
    page.emulate_media(color_scheme="dark")
    assert lightness() < 150
    assert light > 600


def test_print_hides_the_controls(page: Page, report: Path) -> None:
    open_report(page, report)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for hidden in ("nav", "#weights", "#items"):
        assert not page.locator(hidden).is_visible()
    assert page.locator(".verdict").is_visible()
    assert len(page.pdf(format="A4", print_background=True)) > 30_000
