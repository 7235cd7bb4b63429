"""The pages of `qaeval view` in a real browser."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

from qaeval.web.server import PageServer
from qaeval.web.view import RunPages
from web_client import Client, running

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "results" / "example"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("monday", "tuesday", "night"):
        shutil.copytree(EXAMPLE, tmp_path / name)
    for name in ("manifest.json", "report.json"):
        (tmp_path / "night" / name).unlink()
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Client]:
    pages = RunPages(folder)
    with running(PageServer(pages.routes(), on_message=lambda _: None)) as client:
        yield client
    pages.close()


@pytest.fixture
def page(server: Client) -> Iterator[Page]:
    """A page after the one-time address, on which every complaint and every request elsewhere is an error."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "the browser tests need chromium on the path (Debian: apt-get install chromium)"
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((server.origin, "data:")) else wrong.append(request.url)
            ),
        )
        page.goto(server.server.access.urls()[0])
        page.get_by_role("heading", name="Runs").wait_for()
        yield page
        browser.close()
    assert wrong == []


def no_serious_violation(page: Page) -> bool:
    found = Axe().run(page).response["violations"]
    return [violation["id"] for violation in found if violation["impact"] in {"serious", "critical"}] == []


def test_a_run_is_followed_and_its_report_appears(page: Page, folder: Path) -> None:
    run = folder / "night"
    rows = (run / "grades.jsonl").read_bytes().splitlines(keepends=True)
    (run / "grades.jsonl").write_bytes(b"".join(rows[:30]))
    page.get_by_role("link", name="night", exact=True).click()
    page.get_by_text("30 of at most 72 rows").wait_for()
    with (run / "grades.jsonl").open("ab") as file:
        file.writelines(rows[30:])
    page.get_by_text(f"{len(rows)} of at most 72 rows").wait_for()
    shutil.copy(EXAMPLE / "report.json", run)
    shutil.copy(EXAMPLE / "manifest.json", run)
    page.locator("#decision").wait_for()
    assert page.locator("details.chunk").count() == 12


def test_the_report_of_the_server_looks_and_works_like_the_file(page: Page, server: Client) -> None:
    page.goto(f"{server.origin}/runs/monday#items?show=found")
    assert page.text_content("#shown") == "46 items match"
    widths = (
        page.locator(".bar")
        .first.locator("span")
        .evaluate_all("all => all.map(span => span.getBoundingClientRect().width)")
    )
    # 17 A, 17 B and 2 C of 36
    assert [round(36 * width / sum(widths)) for width in widths] == [17, 17, 2]
    page.get_by_role("link", name="All runs").click()
    page.get_by_role("heading", name="Runs").wait_for()


def test_runs_are_picked_and_compared(page: Page) -> None:
    for name in ("monday", "tuesday"):
        page.get_by_label(f"Compare {name}").check()
    page.get_by_role("button", name="Compare the picked runs").click()
    page.locator("#decision").wait_for()
    assert page.locator(".candidate > .name").count() == 4


def test_a_label_is_given_from_the_report(page: Page, server: Client, folder: Path) -> None:
    page.goto(f"{server.origin}/runs/monday")
    page.get_by_role("link", name="Label items").click()
    page.get_by_label("Your name").fill("anna")
    page.get_by_role("button", name="Start or continue").click()
    page.get_by_role("button", name=re.compile("^A")).click()
    page.locator("#progress", has_text="1 of").wait_for()
    assert "anna" in (folder / "monday" / "labels" / "anna.jsonl").read_text()


def test_a_sitting_of_the_server_ends_with_its_summary(
    page: Page, server: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qaeval.web.view._N_LABELS", 3)
    page.goto(f"{server.origin}/label/monday")
    page.get_by_label("Your name").fill("Anna Müller+2")  # as --rater takes it
    page.get_by_role("button", name="Start or continue").click()
    ready = ""
    while ready != "end":
        page.wait_for_function(
            "before => document.body.dataset.ready && document.body.dataset.ready !== before", arg=ready
        )
        ready = page.evaluate("document.body.dataset.ready")
        page.keyboard.press("a")
    page.get_by_role("heading", name="The sitting is over").wait_for()
    assert page.locator("#error").is_hidden()
    assert (folder / "monday" / "labels" / "Anna Müller+2.jsonl").is_file()


def test_axe_finds_nothing_serious(page: Page, server: Client) -> None:
    for path in ("/", "/runs/night", "/runs/monday", "/history", "/label/monday"):
        page.goto(f"{server.origin}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert no_serious_violation(page), (path, scheme)
