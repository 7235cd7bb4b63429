"""The first command of every page works, on the embedded models or a loopback server in place of the models it names."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import qaeval
from qaeval.testing import make_run
from replay.server import LoopbackServer

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(?:text|console|bash|)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FLOOR = {"mistral": "embedded-lead", "qwen": "embedded-salient"}


def first_command(page: Path) -> str | None:
    """Return the first command of qaeval in a block of a page, comments and line ends removed."""
    for block in FENCE.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("qaeval "):
                return re.split(r"\s{2,}(?=\S)|\s#|\s…", line)[0]
    return None


PAGES = {
    str(page.relative_to(ROOT)): command
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if (command := first_command(page)) is not None
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_run(tmp_path_factory.mktemp("docs") / "run", {"alpha": ["AAB"] * 12, "beta": ["ABB"] * 12})
    return made.write_report()


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(["mistral", "qwen", "selene"]) as running:
        yield running


def on_the_floor(command: str, url: str) -> list[str]:
    """Put what this machine has in place of servers, models, ports and file names."""
    words = shlex.split(command)[1:]
    if words[0] == "sweep":
        words = [re.sub(r"=https?://\S+", f"={url}", word) for word in words]
    else:
        words = [FLOOR.get(word, word) for word in words]
        while "--endpoint" in words:
            at = words.index("--endpoint")
            del words[at : at + 2]
    words = ["run" if re.fullmatch(r"RUN|<run>|results/<run>|run", word) else word for word in words]
    if words[0] == "compare" and "--n" in words:
        words[words.index("--n") + 1] = "12"
    if "--metrics-port" in words:
        words[words.index("--metrics-port") + 1] = "0"
    if words[0] == "sweep":
        words += ["--concurrency", "1,2", "--requests", "4", "--repeats", "1"]
    return words


def test_most_pages_have_a_command() -> None:
    assert len(PAGES) >= 7


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.slow
def test_the_first_command_of_a_page_works(
    page: str, tmp_path: Path, run: Path, server: LoopbackServer
) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(ROOT / "evals" / "qa_pairs" / "chunks.jsonl", tmp_path / "chunks.jsonl")
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    done = qaeval(*on_the_floor(PAGES[page], server.url), cwd=tmp_path)
    assert done.returncode == 0, f"{PAGES[page]}\n{done.stderr}"


def test_what_exists_already_is_graded_by_the_two_commands_of_the_readme(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    _, _, section = (ROOT / "README.md").read_text().partition("## Grade what you already have")
    commands = FENCE.findall(section)[0].splitlines()
    assert len(commands) == 2
    for command in commands:
        done = qaeval(*shlex.split(command)[1:], cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    done = qaeval("report", "results/mine", "--json", cwd=tmp_path)
    (candidate,) = json.loads(done.stdout)["candidates"]
    assert (candidate["n_expected"], candidate["n_valid"]) == (12, 11)


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_the_first_python_of_a_page_works(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block, *_) = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(block, page, "exec"), {})  # noqa: S102 - our own document
    assert list(tmp_path.glob("results/*/report.html"))
