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
from command import qaeval as typed
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
class Served:
    """A running `qaeval label`."""

    process: "subprocess.Popen[str] | None"
    url: str

    def stop(self) -> str:
        assert self.process
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=20)[0]


@contextmanager
def labelling(
    run: Path, rater: str, *options: str, command: tuple[str, ...] = ("label",)
) -> Iterator[Served]:
    size = ("--n", str(N)) if command == ("label",) else ()
    arguments = [QAEVAL, *command, run, "--rater", rater, *size, "--no-browser", *options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        url = next(match[1] for line in process.stdout if (match := re.match(r"open (http://127\S+)", line)))
        yield Served(process, url)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def serving_here(run: Path, rater: str, n: int = N) -> Iterator[Served]:
    """The same in a thread of this process, which starts faster."""
    with Sitting.open(run, rater, n=n) as sitting:
        page = LabelPage(
            sitting,
            summarise=lambda language: summary_sections(sitting.summary(), language),
            run="run",
            rater=sitting.rater,
        )
        with serving(page.routes()) as (client, _):
            yield Served(None, client.server.access.urls()[0])


def make_run(path: Path, n_chunks: int, hostile: str = "") -> Path:
    """Make a run of two candidates, whose names and grades no text gives away."""
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

    def candidate(word: str) -> ScriptedModel:
        return ScriptedModel(
            lambda request: pairs_reply(
                [
                    (
                        kind,
                        f"{kind.title()}: how {word} is it? {hostile}",
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
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("label") / "made", 8)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run without labels."""
    return Path(shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns("labels")))


def opened(context: BrowserContext, served: Served) -> Page:
    page = context.new_page()
    page.goto(served.url)
    ready(page)
    return page


def ready(page: Page, before: str = "") -> str:
    """Wait for the next item; return its id, or ``end``."""
    page.wait_for_function(
        "before => document.body.dataset.ready && document.body.dataset.ready !== before", arg=before
    )
    return shown(page)


def shown(page: Page) -> str:
    return str(page.evaluate("document.body.dataset.ready"))


def press(page: Page, *keys: str) -> str:
    """Press keys, the last of which leads to another item."""
    before = shown(page)
    for key in keys:
        page.keyboard.press(key)
    return ready(page, before)


def progress(page: Page) -> tuple[int, int]:
    text = page.text_content("#progress") or ""
    done, total = re.findall(r"\d+", text)[:2]
    return int(done), int(total)


def rows(run: Path, rater: str) -> list[dict[str, object]]:
    file = run / "labels" / f"{rater}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def labels(run: Path, rater: str) -> list[dict[str, object]]:
    return [row for row in rows(run, rater) if "letter" in row]


# ---------------------------------------------------------------------------- a sitting


def test_a_sitting_by_keyboard_alone(run: Path, new_context: NewContext) -> None:
    with labelling(run, "anna") as served:
        page = opened(new_context(), served)
        n_items = progress(page)[1]
        assert n_items >= N
        for number in range(n_items):
            assert progress(page)[0] == number
            press(page, "ABC"[number % 3])
        assert shown(page) == "end"
        assert page.locator("#end").is_visible()
        served.stop()
        assert served.process
        assert served.process.returncode == 0
    stored = labels(run, "anna")
    assert [row["letter"] for row in stored] == [("A", "B", "C")[number % 3] for number in range(n_items)]
    assert {row["rater_kind"] for row in stored} == {"human"}
    assert all(0 < float(str(row["seconds"])) < 60 for row in stored)


def test_every_key_does_what_the_help_says(run: Path, new_context: NewContext) -> None:
    with serving_here(run, "anna") as served:
        page = opened(new_context(), served)
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        page.keyboard.press("a")  # not while the help is open
        page.keyboard.press("Escape")
        assert rows(run, "anna")[-1]["kind"] == "draw"
        page.keyboard.press("m")
        assert page.locator("#source .stands").count() > 0
        page.keyboard.press("h")
        page.keyboard.press("n")
        page.keyboard.type("abc s?")
        press(page, "Escape", "c")
        (label,) = labels(run, "anna")
        assert (label["letter"], label["flags"], label["note"]) == ("C", ["hallucination"], "abc s?")
        assert page.input_value("#note") == ""
        assert page.locator("#flags [aria-pressed=true]").count() == 0
        skipped = shown(page)
        press(page, "s", "4")
        assert rows(run, "anna")[-1]["kind"] == "skip"
        assert press(page, "u") == skipped
        first = press(page, "u")
        assert first == label["assignment"]
        assert page.input_value("#note") == "abc s?"
        assert page.locator("#flags [aria-pressed=true]").count() == 1
        press(page, "b")
    assert [row["letter"] for row in labels(run, "anna")] == ["C", "B"]
    assert [row.get("kind") for row in rows(run, "anna")] == ["draw", None, "skip", "undo", "undo", None]


def test_a_reload_keeps_the_place_the_note_and_the_flag(run: Path, new_context: NewContext) -> None:
    with serving_here(run, "anna") as served:
        page = opened(new_context(), served)
        press(page, "a")
        here = press(page, "a")
        page.keyboard.press("h")
        page.keyboard.press("n")
        page.keyboard.type("wrong unit")
        page.reload()
        assert ready(page) == here
        assert progress(page)[0] == 2
        press(page, "c")
    last = labels(run, "anna")[-1]
    assert (last["letter"], last["flags"], last["note"]) == ("C", ["hallucination"], "wrong unit")


def test_a_killed_server_loses_no_label_and_goes_on(
    run: Path, new_context: NewContext, browser: Browser
) -> None:
    with labelling(run, "anna") as served:
        page = opened(browser.new_context(), served)  # its complaint about the absent server is expected
        for _ in range(7):
            press(page, "a")
        here = shown(page)
        assert served.process
        served.process.kill()
        served.process.wait()
        page.keyboard.press("b")
        page.locator("#error").wait_for()
        assert shown(page) == here
        assert [row["letter"] for row in labels(run, "anna")] == ["A"] * 7
    page.context.close()
    with labelling(run, "anna") as served:
        page = opened(new_context(), served)
        assert shown(page) == here
        total = progress(page)[1]
        for _ in range(total - 7):
            press(page, "b")
        assert shown(page) == "end"
    assert [row["letter"] for row in labels(run, "anna")] == ["A"] * 7 + ["B"] * (total - 7)


def test_two_windows_lose_nothing(run: Path, new_context: NewContext) -> None:
    with serving_here(run, "anna") as served:
        context = new_context()
        page = opened(context, served)
        other = context.new_page()
        other.goto(page.url)
        first = ready(other)
        second = press(page, "a")
        third = press(page, "a")
        assert press(other, "c") == third  # not stored: the item is labelled
        assert press(other, "b") not in {first, second, third}
        assert press(page, "c") == shown(other)
    assert [(row["assignment"], row["letter"]) for row in labels(run, "anna")] == [
        (first, "A"),
        (second, "A"),
        (third, "B"),
    ]


def test_two_raters_at_once(run: Path, new_context: NewContext) -> None:
    with labelling(run, "anna") as one, labelling(run, "bertil") as two:
        pages = [opened(new_context(), one), opened(new_context(), two)]
        for _ in range(5):
            press(pages[0], "a")
            press(pages[1], "b")
        served = labelling_error(run, "anna")
        assert (served.returncode, "anna" in served.stderr) == (74, True)
    for rater, letter in (("anna", "A"), ("bertil", "B")):
        assert [(row["rater"], row["letter"]) for row in labels(run, rater)] == [(rater, letter)] * 5


def labelling_error(run: Path, rater: str, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [QAEVAL, "label", run, "--rater", rater, "--no-browser", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_labels_count_at_once(run: Path, new_context: NewContext) -> None:
    with serving_here(run, "anna", n=48) as served:
        page = opened(new_context(), served)
        while shown(page) != "end":
            press(page, "a" if "far" in (page.text_content("#question") or "") else "b")
    for command in ("agreement", "report"):
        printed = typed(command, run, "--json", cwd=run).stdout
        (agreement,) = [each for each in json.loads(printed)["agreement"] if each["rater"] == "anna"]
        assert (agreement["rater_kind"], agreement["n_labels"]) == ("human", 48)
        assert agreement["coefficients"]["n"] == 48


# ---------------------------------------------------------------------------- blindness and hostile text


def test_the_page_reveals_neither_candidate_nor_grade(run: Path, new_context: NewContext) -> None:
    with serving_here(run, "anna") as served:
        context, texts = new_context(), []
        context.on(
            "response",
            lambda each: texts.append(each.url + each.text()) if "static" not in each.url else None,
        )
        page = opened(context, served)
        for _ in range(6):
            press(page, "a")
            texts.append(page.content())
    assert len(texts) > 12
    assert not [
        text for text in texts if re.search(r"secret|scripted|candidate\W+:|item_id|repeat\W+:", text)
    ]


def test_hostile_text_is_shown_as_text(tmp_path: Path, new_context: NewContext) -> None:
    run = make_run(tmp_path / "made", 4, hostile=HOSTILE + "incomprehensible " * 6000)
    with serving_here(run, "anna") as served:
        page = opened(new_context(), served)
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


# ---------------------------------------------------------------------------- looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_axe_finds_nothing_serious(made: Path, new_context: NewContext, scheme: str, width: int) -> None:
    with serving_here(made, f"{scheme} {width}", n=6) as served:
        page = opened(new_context(viewport={"width": width, "height": 844}, color_scheme=scheme), served)
        states: list[Callable[[], object]] = [
            lambda: page.keyboard.press("m"),
            lambda: page.keyboard.press("?"),
            lambda: (page.keyboard.press("Escape"), page.keyboard.press("s")),
            lambda: page.keyboard.press("Escape"),
            lambda: page.click("#rubric summary"),
            lambda: [press(page, "a") for _ in range(progress(page)[1])],
        ]
        for act in states:
            act()
            violations = Axe().run(page).response["violations"]
            grave = [
                (each["id"], each["nodes"][0]["html"])
                for each in violations
                if each["impact"] in {"serious", "critical"}
            ]
            assert grave == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_speaks_the_language_of_the_browser(made: Path, new_context: NewContext) -> None:
    with serving_here(made, "jörg") as served:
        page = opened(new_context(locale="de-DE"), served)
        assert page.evaluate("document.documentElement.lang") == "de"
        assert "von" in (page.text_content("#progress") or "")
        page.get_by_role("link", name="English").click()
        ready(page)
        assert page.evaluate("document.documentElement.lang") == "en"
        page.goto(page.url.partition("?")[0])
        ready(page)
        assert "of" in (page.text_content("#progress") or "")


@pytest.mark.parametrize("device", ["desk", "phone"])
def test_letters_and_answer_are_in_the_window(made: Path, new_context: NewContext, device: str) -> None:
    size = {"desk": {"width": 1300, "height": 900}, "phone": {"width": 390, "height": 844}}[device]
    with serving_here(made, device) as served:
        page = opened(new_context(viewport=size, has_touch=device == "phone"), served)
        for selector in ("[data-letter=A]", "[data-letter=C]", "#undo", "#question", "#answer"):
            box = page.locator(selector).bounding_box()
            assert box
            assert 0 <= box["y"] < size["height"]
            assert 0 <= box["x"] <= box["x"] + box["width"] <= size["width"]
        before = shown(page)
        page.locator("[data-letter=B]").click()
        ready(page, before)
    assert labels(made, device)[-1]["letter"] == "B"


# ---------------------------------------------------------------------------- who may enter


def test_another_site_can_neither_label_nor_frame_the_page(
    run: Path, new_context: NewContext, browser: object
) -> None:
    with serving_here(run, "anna") as served:
        context = new_context()
        page = opened(context, served)
        origin = page.url.rstrip("/")
        before = rows(run, "anna")
        body = json.dumps({"assignment": shown(page), "letter": "C", "seconds": 1})
        evil = browser.new_context().new_page()  # its complaints are expected
        evil.context.add_cookies(context.cookies())
        evil.route(
            "http://evil.example/",
            lambda route: route.fulfill(body="<iframe></iframe>", content_type="text/html"),
        )
        evil.goto("http://evil.example/")
        sent = "([url, body]) => fetch(url, {method: 'POST', body, mode: 'no-cors', credentials: 'include'}).then(() => 'sent', String)"
        evil.evaluate(sent, [f"{origin}/record", body])
        evil.evaluate("url => { document.querySelector('iframe').src = url; }", origin)
        evil.wait_for_timeout(300)
        assert len(evil.frames) == 2
        assert all(frame.query_selector("#work") is None for frame in evil.frames)
        evil.context.close()
        assert rows(run, "anna") == before


def test_a_wrong_token_and_another_name_of_the_host_are_refused(run: Path, browser: Browser) -> None:
    with serving_here(run, "anna") as served:
        port = re.search(r":(\d+)/", served.url)[1]  # type: ignore[index]
        context = browser.new_context()
        page = context.new_page()
        assert page.goto(f"http://127.0.0.1:{port}/?token=wrong").status == 403
        assert page.goto(f"http://127.0.0.1:{port}/").status == 403
        token = served.url.partition("token=")[2]
        assert page.goto(f"http://localhost.:{port}/?token={token}").status == 421
        assert page.goto(served.url).status == 200  # the token is not used up by the other name
        context.close()
        assert len(rows(run, "anna")) == 1


def test_a_third_person_settles_a_difference_on_the_page(run: Path, new_context: NewContext) -> None:
    for rater, letter in (("anna", "A"), ("bertil", "C")):
        with Sitting.open(run, rater, n=12) as sitting:  # two chunks, of which the raters share one
            while question := sitting.current():
                sitting.record(question.assignment, letter, note=f"note of {letter}")
    with labelling(run, "carol", command=("labels", "adjudicate")) as served:
        page = opened(new_context(), served)
        opinions = page.locator("#opinions li").all_inner_texts()
        assert sorted(opinions) == ["A · note of A", "C · note of C"]
        assert not page.locator("#skip").is_visible()
        press(page, "b")
        assert progress(page)[0] == 1
    assert [(row["letter"], row["settles"]) for row in labels(run, "carol")] == [("B", True)]


def test_the_last_page_says_what_the_labels_show(run: Path, new_context: NewContext) -> None:
    with serving_here(run, "anna", n=48) as served:
        page = opened(new_context(), served)
        while shown(page) != "end":
            press(page, "a")
        page.locator("#end section").first.wait_for()
        assert "κ" in page.locator("#end").inner_text()
        before = shown(page)
        page.keyboard.press("u")
        assert ready(page, before) != "end"
