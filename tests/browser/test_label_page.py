"""The label page in a real browser, on sittings of real runs: keyboard, crashes, two windows, two raters, hostile text."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

import qaeval
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply, registered

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

QAEVAL = Path(sys.executable).with_name("qaeval")
NewContext = Callable[..., BrowserContext]
N = 20
HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\"> \u202enur\u202c \0 \u05d0\u05d1"


@dataclass
class Served:
    """A running `qaeval label`."""

    process: "subprocess.Popen[str]"
    url: str

    def stop(self) -> str:
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=20)[0]


@contextmanager
def labelling(run: Path, rater: str, *options: str) -> Iterator[Served]:
    command = [QAEVAL, "label", run, "--rater", rater, "--n", str(N), "--no-browser", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        url = next(match[1] for line in process.stdout if (match := re.match(r"open (http://127\S+)", line)))
        yield Served(process, url)
    finally:
        process.kill()
        process.communicate()


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
                    (kind, f"{kind.title()}: how {word} is it? {hostile}", f"{request.inputs['chunk'][-60:]}{hostile}")
                    for kind in ("factual", "conceptual", "comparison")
                ]
            )
        )

    with (
        registered("secret-one", candidate("far")),
        registered("secret-two", candidate("near")),
        registered("secret-judge", ScriptedModel(lambda request: grade_reply("B" if "far" in request.inputs["question"] else "A"))),
    ):
        qaeval.compare(
            ["secret-one", "secret-two"], eval_name="qa_pairs", judge="secret-judge", chunks=path / "chunks.jsonl", out=path / "run", cache=False
        )
    return path / "run"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "made", 8)


def opened(context: BrowserContext, served: Served) -> Page:
    page = context.new_page()
    page.goto(served.url)
    ready(page)
    return page


def ready(page: Page, before: str = "") -> str:
    """Wait for the next item; return its id, or ``end``."""
    page.wait_for_function("before => document.body.dataset.ready && document.body.dataset.ready !== before", arg=before)
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
