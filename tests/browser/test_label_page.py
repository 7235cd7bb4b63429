"""The label page in a real browser, on sittings of real runs: keyboard, crashes, two windows, two raters, hostile text."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page

import qaeval
from command import qaeval as run_qaeval
from qaeval.labelling import Sitting
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply, registered
from qaeval.web.label import LabelPage
from qaeval.web.summary import summary_sections
from web_client import serving

pytestmark = pytest.mark.slow

QAEVAL = Path(sys.executable).with_name("qaeval")
NewContext = Callable[..., BrowserContext]
N = 20
HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\"> \u202enur\u202c \u05d0\u05d1 "


@dataclass
class LabelServer:
    """A running `qaeval label`."""

    process: "subprocess.Popen[str] | None"
    url: str

    def stop(self) -> str:
        assert self.process
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=20)[0]


@contextmanager
def run_label_server(
    run: Path, rater: str, *options: str, command: tuple[str, ...] = ("label",)
) -> Iterator[LabelServer]:
    size = ("--n", str(N)) if command == ("label",) else ()
    arguments = [QAEVAL, *command, run, "--rater", rater, *size, "--no-browser", *options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        url = next(match[1] for line in process.stdout if (match := re.match(r"open (http://127\S+)", line)))
        yield LabelServer(process, url)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def serve_in_thread(run: Path, rater: str, n: int = N) -> Iterator[LabelServer]:
    """Run the label page in a thread of this process, which starts faster."""
    with Sitting.open(run, rater, n=n) as sitting:
        page = LabelPage(
            sitting,
            summarise=lambda language: summary_sections(sitting.summary(), language),
            run="run",
            rater=sitting.rater,
        )
        with serving(page.routes()) as (client, _):
            yield LabelServer(None, client.server.access.urls()[0])


def make_run(path: Path, n_chunks: int, hostile: str = "") -> Path:
    """Make a run of two candidates whose names and grades appear in no text."""
    path.mkdir()
    (path / "chunks.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "chunk_id": f"c{index:02}",
                    "title": f"Valve {index}",
                    "text": f"{hostile}Valve {index} opens at {index + 2} bar. It shuts after {index} seconds.",
                }
            )
            + "\n"
            for index in range(n_chunks)
        )
    )

    def candidate(adjective: str) -> ScriptedModel:
        return ScriptedModel(
            lambda request: pairs_reply(
                [
                    (
                        kind,
                        f"{kind.title()}: how {adjective} is it? {hostile}",
                        f"{request.inputs['chunk'][-60:]}{hostile}\0",
                    )
                    for kind in ("factual", "conceptual", "comparison")
                ]
            )
        )

    with (
        registered("secret-one", candidate("far")),
        registered("secret-two", candidate("near")),
        registered(
            "secret-judge",
            ScriptedModel(lambda request: grade_reply("B" if "far" in request.inputs["question"] else "A")),
        ),
    ):
        qaeval.compare(
            ["secret-one", "secret-two"],
            eval_name="qa_pairs",
            judge="secret-judge",
            chunks=path / "chunks.jsonl",
            out=path / "run",
            cache=False,
        )
    return path / "run"


@pytest.fixture(scope="module")
def label_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("label") / "made", 8)


@pytest.fixture
def run(label_run: Path, tmp_path: Path) -> Path:
    """A run without labels."""
    return Path(shutil.copytree(label_run, tmp_path / "run", ignore=shutil.ignore_patterns("labels")))


def open_page(context: BrowserContext, label_server: LabelServer) -> Page:
    page = context.new_page()
    page.goto(label_server.url)
    wait_for_item(page)
    return page


def wait_for_item(page: Page, before: str = "") -> str:
    """Wait for the next item; return its id, or ``end``."""
    page.wait_for_function(
        "before => document.body.dataset.ready && document.body.dataset.ready !== before", arg=before
    )
    return current_item(page)


def current_item(page: Page) -> str:
    return str(page.evaluate("document.body.dataset.ready"))


def press(page: Page, *keys: str) -> str:
    """Press keys and wait for the next item; the last key must lead to it."""
    before = current_item(page)
    for key in keys:
        page.keyboard.press(key)
    return wait_for_item(page, before)


def read_progress(page: Page) -> tuple[int, int]:
    text = page.text_content("#progress") or ""
    n_done, n_total = re.findall(r"\d+", text)[:2]
    return int(n_done), int(n_total)


def read_rows(run: Path, rater: str) -> list[dict[str, object]]:
    file = run / "labels" / f"{rater}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def read_labels(run: Path, rater: str) -> list[dict[str, object]]:
    return [row for row in read_rows(run, rater) if "letter" in row]


# ---------------------------------------------------------------------------- a sitting


def test_a_sitting_by_keyboard_only(run: Path, new_context: NewContext) -> None:
    with run_label_server(run, "anna") as label_server:
        page = open_page(new_context(), label_server)
        n_items = read_progress(page)[1]
        assert n_items >= N
        for number in range(n_items):
            assert read_progress(page)[0] == number
            press(page, "ABC"[number % 3])
        assert current_item(page) == "end"
        assert page.locator("#end").is_visible()
        label_server.stop()
        assert label_server.process
        assert label_server.process.returncode == 0
    stored = read_labels(run, "anna")
    assert [row["letter"] for row in stored] == [("A", "B", "C")[number % 3] for number in range(n_items)]
    assert {row["rater_kind"] for row in stored} == {"human"}
    assert all(0 < float(str(row["seconds"])) < 60 for row in stored)


def test_every_key_works_as_documented_in_the_help(run: Path, new_context: NewContext) -> None:
    with serve_in_thread(run, "anna") as label_server:
        page = open_page(new_context(), label_server)
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        page.keyboard.press("a")  # ignored while the help is open
        page.keyboard.press("Escape")
        assert read_rows(run, "anna")[-1]["kind"] == "draw"
        page.keyboard.press("m")
        assert page.locator("#source .stands").count() > 0
        page.keyboard.press("h")
        page.keyboard.press("n")
        page.keyboard.type("abc s?")
        press(page, "Escape", "c")
        (label,) = read_labels(run, "anna")
        assert (label["letter"], label["flags"], label["note"]) == ("C", ["hallucination"], "abc s?")
        assert page.input_value("#note") == ""
        assert page.locator("#flags [aria-pressed=true]").count() == 0
        skipped = current_item(page)
        press(page, "s", "4")
        assert read_rows(run, "anna")[-1]["kind"] == "skip"
        assert press(page, "u") == skipped
        reopened = press(page, "u")
        assert reopened == label["assignment"]
        assert page.input_value("#note") == "abc s?"
        assert page.locator("#flags [aria-pressed=true]").count() == 1
        press(page, "b")
    assert [row["letter"] for row in read_labels(run, "anna")] == ["C", "B"]
    assert [row.get("kind") for row in read_rows(run, "anna")] == ["draw", None, "skip", "undo", "undo", None]


def test_a_reload_keeps_the_item_the_note_and_the_flag(run: Path, new_context: NewContext) -> None:
    with serve_in_thread(run, "anna") as label_server:
        page = open_page(new_context(), label_server)
        press(page, "a")
        item = press(page, "a")
        page.keyboard.press("h")
        page.keyboard.press("n")
        page.keyboard.type("wrong unit")
        page.reload()
        assert wait_for_item(page) == item
        assert read_progress(page)[0] == 2
        press(page, "c")
    last = read_labels(run, "anna")[-1]
    assert (last["letter"], last["flags"], last["note"]) == ("C", ["hallucination"], "wrong unit")


def test_a_killed_server_loses_no_label_and_can_be_restarted(
    run: Path, new_context: NewContext, browser: Browser
) -> None:
    with run_label_server(run, "anna") as label_server:
        page = open_page(
            browser.new_context(), label_server
        )  # its console error about the absent server is expected
        for _ in range(7):
            press(page, "a")
        item = current_item(page)
        assert label_server.process
        label_server.process.kill()
        label_server.process.wait()
        page.keyboard.press("b")
        page.locator("#error").wait_for()
        assert current_item(page) == item
        assert [row["letter"] for row in read_labels(run, "anna")] == ["A"] * 7
    page.context.close()
    with run_label_server(run, "anna") as label_server:
        page = open_page(new_context(), label_server)
        assert current_item(page) == item
        total = read_progress(page)[1]
        for _ in range(total - 7):
            press(page, "b")
        assert current_item(page) == "end"
    assert [row["letter"] for row in read_labels(run, "anna")] == ["A"] * 7 + ["B"] * (total - 7)


def test_two_windows_lose_nothing(run: Path, new_context: NewContext) -> None:
    with serve_in_thread(run, "anna") as label_server:
        context = new_context()
        page = open_page(context, label_server)
        other_page = context.new_page()
        other_page.goto(page.url)
        first = wait_for_item(other_page)
        second = press(page, "a")
        third = press(page, "a")
        assert press(other_page, "c") == third  # not stored, because the item is already labelled
        assert press(other_page, "b") not in {first, second, third}
        assert press(page, "c") == current_item(other_page)
    assert [(row["assignment"], row["letter"]) for row in read_labels(run, "anna")] == [
        (first, "A"),
        (second, "A"),
        (third, "B"),
    ]


def test_two_raters_at_once(run: Path, new_context: NewContext) -> None:
    with run_label_server(run, "anna") as first_server, run_label_server(run, "bertil") as second_server:
        pages = [open_page(new_context(), first_server), open_page(new_context(), second_server)]
        for _ in range(5):
            press(pages[0], "a")
            press(pages[1], "b")
        process = run_label_command(run, "anna")
        assert (process.returncode, "anna" in process.stderr) == (74, True)
    for rater, letter in (("anna", "A"), ("bertil", "B")):
        assert [(row["rater"], row["letter"]) for row in read_labels(run, rater)] == [(rater, letter)] * 5


def run_label_command(run: Path, rater: str, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [QAEVAL, "label", run, "--rater", rater, "--no-browser", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_labels_are_used_immediately(run: Path, new_context: NewContext) -> None:
    with serve_in_thread(run, "anna", n=48) as label_server:
        page = open_page(new_context(), label_server)
        while current_item(page) != "end":
            press(page, "a" if "far" in (page.text_content("#question") or "") else "b")
    for command in ("agreement", "report"):
        stdout = run_qaeval(command, run, "--json", cwd=run).stdout
        (agreement,) = [rater for rater in json.loads(stdout)["agreement"] if rater["rater"] == "anna"]
        assert (agreement["rater_kind"], agreement["n_labels"]) == ("human", 48)
        assert agreement["coefficients"]["n"] == 48


# ---------------------------------------------------------------------------- blindness and hostile text


def test_the_page_reveals_neither_candidate_nor_grade(run: Path, new_context: NewContext) -> None:
    with serve_in_thread(run, "anna") as label_server:
        context, texts = new_context(), []
        context.on(
            "response",
            lambda response: (
                texts.append(response.url + response.text()) if "static" not in response.url else None
            ),
        )
        page = open_page(context, label_server)
        for _ in range(6):
            press(page, "a")
            texts.append(page.content())
    assert len(texts) > 12
    assert not [
        text for text in texts if re.search(r"secret|scripted|candidate\W+:|item_id|repeat\W+:", text)
    ]


def test_hostile_text_is_shown_as_text(tmp_path: Path, new_context: NewContext) -> None:
    run = make_run(tmp_path / "made", 4, hostile=HOSTILE + "incomprehensible " * 6000)
    with serve_in_thread(run, "anna") as label_server:
        page = open_page(new_context(), label_server)
        for part in ("#source", "#question", "#answer"):
            text = page.text_content(part) or ""
            assert "</script><script>document.title='run'</script><img src=x" in text
            assert "[U+202E]nur[U+202C] \u05d0\u05d1" in text
        assert text.endswith("␀")
        assert len(text) > 100_000
        assert page.title() != "run"
        assert page.locator("img").count() == 0
        assert page.locator(".actions").is_visible()
        press(page, "m", "c")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1300


# ---------------------------------------------------------------------------- appearance


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_axe_finds_nothing_serious(label_run: Path, new_context: NewContext, scheme: str, width: int) -> None:
    with serve_in_thread(label_run, f"{scheme} {width}", n=6) as label_server:
        page = open_page(
            new_context(viewport={"width": width, "height": 844}, color_scheme=scheme), label_server
        )
        states: list[Callable[[], object]] = [
            lambda: page.keyboard.press("m"),
            lambda: page.keyboard.press("?"),
            lambda: (page.keyboard.press("Escape"), page.keyboard.press("s")),
            lambda: page.keyboard.press("Escape"),
            lambda: page.click("#rubric summary"),
            lambda: [press(page, "a") for _ in range(read_progress(page)[1])],
        ]
        for change_state in states:
            change_state()
            violations = Axe().run(page).response["violations"]
            serious = [
                (violation["id"], violation["nodes"][0]["html"])
                for violation in violations
                if violation["impact"] in {"serious", "critical"}
            ]
            assert serious == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_uses_the_language_of_the_browser(label_run: Path, new_context: NewContext) -> None:
    with serve_in_thread(label_run, "jörg") as label_server:
        page = open_page(new_context(locale="de-DE"), label_server)
        assert page.evaluate("document.documentElement.lang") == "de"
        assert "von" in (page.text_content("#progress") or "")
        page.get_by_role("link", name="English").click()
        wait_for_item(page)
        assert page.evaluate("document.documentElement.lang") == "en"
        page.goto(page.url.partition("?")[0])
        wait_for_item(page)
        assert "of" in (page.text_content("#progress") or "")


@pytest.mark.parametrize("device", ["desk", "phone"])
def test_letters_and_answer_are_inside_the_viewport(
    label_run: Path, new_context: NewContext, device: str
) -> None:
    size = {"desk": {"width": 1300, "height": 900}, "phone": {"width": 390, "height": 844}}[device]
    with serve_in_thread(label_run, device) as label_server:
        page = open_page(new_context(viewport=size, has_touch=device == "phone"), label_server)
        for selector in ("[data-letter=A]", "[data-letter=C]", "#undo", "#question", "#answer"):
            box = page.locator(selector).bounding_box()
            assert box
            assert 0 <= box["y"] < size["height"]
            assert 0 <= box["x"] <= box["x"] + box["width"] <= size["width"]
        before = current_item(page)
        page.locator("[data-letter=B]").click()
        wait_for_item(page, before)
    assert read_labels(label_run, device)[-1]["letter"] == "B"


# ---------------------------------------------------------------------------- access, adjudication and the summary


def test_another_site_can_neither_label_nor_frame_the_page(
    run: Path, new_context: NewContext, browser: object
) -> None:
    with serve_in_thread(run, "anna") as label_server:
        context = new_context()
        page = open_page(context, label_server)
        origin = page.url.rstrip("/")
        before = read_rows(run, "anna")
        body = json.dumps({"assignment": current_item(page), "letter": "C", "seconds": 1})
        evil_page = browser.new_context().new_page()  # its console errors are expected
        evil_page.context.add_cookies(context.cookies())
        evil_page.route(
            "http://evil.example/",
            lambda route: route.fulfill(body="<iframe></iframe>", content_type="text/html"),
        )
        evil_page.goto("http://evil.example/")
        script = "([url, body]) => fetch(url, {method: 'POST', body, mode: 'no-cors', credentials: 'include'}).then(() => 'sent', String)"
        evil_page.evaluate(script, [f"{origin}/record", body])
        evil_page.evaluate("url => { document.querySelector('iframe').src = url; }", origin)
        evil_page.wait_for_timeout(300)
        assert len(evil_page.frames) == 2
        assert all(frame.query_selector("#work") is None for frame in evil_page.frames)
        evil_page.context.close()
        assert read_rows(run, "anna") == before


def test_a_wrong_token_and_another_host_name_are_refused(run: Path, browser: Browser) -> None:
    with serve_in_thread(run, "anna") as label_server:
        port = re.search(r":(\d+)/", label_server.url)[1]  # type: ignore[index]
        context = browser.new_context()
        page = context.new_page()
        assert page.goto(f"http://127.0.0.1:{port}/?token=wrong").status == 403
        assert page.goto(f"http://127.0.0.1:{port}/").status == 403
        token = label_server.url.partition("token=")[2]
        assert page.goto(f"http://localhost.:{port}/?token={token}").status == 421
        assert (
            page.goto(label_server.url).status == 200
        )  # the request with the other host name did not use up the token
        context.close()
        assert len(read_rows(run, "anna")) == 1


def test_a_third_rater_settles_a_dispute_on_the_page(run: Path, new_context: NewContext) -> None:
    for rater, letter in (("anna", "A"), ("bertil", "C")):
        with Sitting.open(run, rater, n=12) as sitting:  # two chunks, one of them shared by the raters
            while question := sitting.current():
                sitting.record(question.assignment, letter, note=f"note of {letter}")
    with run_label_server(run, "carol", command=("labels", "adjudicate")) as label_server:
        page = open_page(new_context(), label_server)
        opinions = page.locator("#opinions li").all_inner_texts()
        assert sorted(opinions) == ["A · note of A", "C · note of C"]
        assert not page.locator("#skip").is_visible()
        press(page, "b")
        assert read_progress(page)[0] == 1
    assert [(row["letter"], row["settles"]) for row in read_labels(run, "carol")] == [("B", True)]


def test_the_last_page_summarises_the_labels(run: Path, new_context: NewContext) -> None:
    with serve_in_thread(run, "anna", n=48) as label_server:
        page = open_page(new_context(), label_server)
        while current_item(page) != "end":
            press(page, "a")
        page.locator("#end section").first.wait_for()
        assert "κ" in page.locator("#end").inner_text()
        before = current_item(page)
        page.keyboard.press("u")
        assert wait_for_item(page, before) != "end"
