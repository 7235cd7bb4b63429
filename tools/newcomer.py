"""Play a newcomer: qaeval from its wheel in a fresh environment, twenty Markdown files in an empty folder, no manual step.

    make test-newcomer                # build, install, init, compare, view, label, gate
    make test-newcomer ARGS=--hold    # and fail where it takes more than three minutes after the installation

Python and playwright are those of the developer's environment, which plays the browser; qaeval is the wheel alone.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
LIMIT_S = 180.0
DOCUMENTS = 20
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\S*")


class StepFailedError(Exception):
    """A command ended with another exit code than expected, or a page shows something else."""


class Newcomer:
    """A folder with documents, an environment with qaeval, and the commands typed there."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self.wheel = wheel
        self.project = folder / "handbook-eval"
        self.python = folder / "venv/bin/python"
        # nothing of the developer's environment: neither its packages nor its cache
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "QAEVAL", "VIRTUAL_ENV"))
        } | {"PATH": f"{folder / 'venv/bin'}:{os.environ['PATH']}", "COLUMNS": "80"}

    def install(self) -> None:
        """Install the wheel, with the locked versions, into a fresh environment."""
        pip = ("-m", "pip", "--disable-pip-version-check", "--quiet")
        self.run([sys.executable, "-m", "venv", self.folder / "venv"])
        self.run([self.python, *pip, "install", "--require-hashes", "-r", ROOT / "requirements/run.lock"])
        self.run([self.python, *pip, "install", "--no-deps", self.wheel])

    def write_documents(self) -> None:
        """Write the texts of the shipped eval about self-hosting as twenty Markdown files."""
        lines = (ROOT / "evals/qa_pairs/chunks.jsonl").read_text(encoding="utf-8").splitlines()
        chunks = [chunk for chunk in map(json.loads, lines) if chunk["stratum"] == "self-hosting"]
        handbook = self.folder / "handbook"
        handbook.mkdir()
        for number in range(DOCUMENTS):
            part = chunks[number::DOCUMENTS]
            sections = [
                f"## {chunk.get('title') or chunk['chunk_id']}\n\n{chunk['text']}\n" for chunk in part
            ]
            (handbook / f"page-{number + 1:02}.md").write_text(
                "\n".join([f"# Page {number + 1}\n", *sections]), encoding="utf-8"
            )
        expect(len([*handbook.glob("*.md")]) == DOCUMENTS, f"{DOCUMENTS} documents")

    def type(self, command: str, *, code: int = 0, folder: Path | None = None) -> str:
        """Type a command in the project; return what it prints."""
        print(f"  $ {command}", flush=True)
        return self.run(command.split(), code=code, folder=folder or self.project)

    def run(self, words: Sequence[object], *, code: int = 0, folder: Path | None = None) -> str:
        """Run a command and check its exit code."""
        done = subprocess.run(
            [*map(str, words)],
            cwd=folder or self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != code:
            raise StepFailedError(
                f"{' '.join(map(str, words))}: expected exit code {code}, got {done.returncode}\n{done.stdout}{done.stderr}"
            )
        if "Traceback" in done.stderr:
            raise StepFailedError(f"{' '.join(map(str, words))}: a traceback\n{done.stderr}")
        return done.stdout

    def init(self) -> None:
        """Create the project, and type the commands that it prints."""
        printed = self.type(
            "qaeval init handbook-eval --documents handbook --language en", folder=self.folder
        )
        commands = [line.strip() for line in printed.partition("next:\n")[2].splitlines()]
        expect(commands[0] == "cd handbook-eval", "init names the folder")
        expect(len(commands) == 4, "init prints the folder and three commands")
        self.type(commands[1])
        expect((self.project / "results/first/report.html").is_file(), "compare writes a report")

    def view(self) -> None:
        """Look at the report, and label three items by keyboard from there."""
        with self.page("qaeval view results/first --no-browser") as page:
            page.locator("#decision").wait_for()
            page.get_by_role("link", name="Label items").click()
            page.get_by_label("Your name").fill("newcomer")
            page.get_by_role("button", name="Start or continue").click()
            shown = ""
            for key in "abc":
                # the id of the item that the page shows; empty while one is loaded, when keys do nothing
                page.wait_for_function(
                    "shown => ![undefined, '', shown].includes(document.body.dataset.ready)", arg=shown
                )
                shown = page.evaluate("document.body.dataset.ready")
                page.keyboard.press(key)
            page.locator("#progress", has_text="3 of").wait_for()
        rows = (self.project / "results/first/labels/newcomer.jsonl").read_text(encoding="utf-8").splitlines()
        letters = [row["letter"] for row in map(json.loads, rows) if "letter" in row]
        expect(letters == ["A", "B", "C"], f"three labels, found {letters}")
        self.type("qaeval report results/first")

    @contextmanager
    def page(self, command: str) -> Iterator[Page]:
        """Start a command that serves a local page, and open it in Chromium; nothing else is loaded."""
        print(f"  $ {command}", flush=True)
        server = subprocess.Popen(
            command.split(),
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            address = next(
                (match[0] for line in server.stdout or () if (match := ADDRESS.search(line))), None
            )
            expect(address is not None, f"{command} prints the address of its page")
            with sync_playwright() as playwright:
                chromium = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                page = chromium.new_page()
                complaints: list[str] = []
                page.on("console", lambda message: complaints.append(message.text))
                page.on("pageerror", lambda error: complaints.append(str(error)))
                page.on(
                    "request",
                    lambda request: (
                        None if request.url.startswith("http://127.0.0.1") else complaints.append(request.url)
                    ),
                )
                page.goto(str(address))
                yield page
                chromium.close()
            expect(complaints == [], f"a page without complaints, found {complaints}")
            server.send_signal(signal.SIGINT)
            expect(server.wait(20) == 0, f"{command} ends with 0")
        finally:
            server.kill()
            server.wait()

    def gate(self) -> None:
        """Gate an equal run and a worse one."""
        self.type("qaeval compare embedded-salient --out results/release")
        self.type("qaeval baseline set results/release")
        self.type("qaeval compare embedded-salient --out results/equal")
        self.type("qaeval gate results/equal")
        self.type("qaeval compare embedded-lead --out results/worse")
        self.type("qaeval gate results/worse --candidate embedded-lead=embedded-salient", code=1)


def expect(condition: bool, text: str) -> None:
    """Check something that is not an exit code."""
    if not condition:
        raise StepFailedError(f"expected: {text}")


def main() -> int:
    """Run all steps and print their seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, required=True, help="the wheel, as `make dist` builds it")
    parser.add_argument(
        "--hold", action="store_true", help=f"fail above {LIMIT_S:g} s after the installation"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder, and print its name")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qaeval-newcomer-"))
    newcomer = Newcomer(folder, arguments.wheel.resolve())
    try:
        timed("install the wheel", newcomer.install)
        newcomer.write_documents()
        steps = (
            ("init and compare", newcomer.init),
            ("view and label", newcomer.view),
            ("gate", newcomer.gate),
        )
        seconds = sum(timed(name, step) for name, step in steps)
    except StepFailedError as error:
        print(f"newcomer: {error}", file=sys.stderr)
        return 1
    finally:
        if arguments.keep:
            print(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"newcomer: {seconds:.0f} s after the installation, the limit is {LIMIT_S:g} s")
    return int(arguments.hold and seconds > LIMIT_S)


def timed(name: str, step: Callable[[], None]) -> float:
    """Run a step; print and return its seconds."""
    began = time.perf_counter()
    step()
    seconds = time.perf_counter() - began
    print(f"{name}: {seconds:.0f} s", flush=True)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
