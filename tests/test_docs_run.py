"""The first command of every page works, on the embedded models or a loopback server in place of the models it names."""

import csv
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Typed, qaeval
from qaeval.labelling import Sitting
from replay.server import LoopbackServer

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(?:text|console|bash|)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FLOOR = {"mistral": "embedded-lead", "qwen": "embedded-salient"}
NAMES = FLOOR | {"base": "embedded-lead", "tuned": "embedded-salient", "handbook.pdf": ""}


def commands_in(block: str) -> list[str]:
    """Return the commands of qaeval in a block, comments and line ends removed."""
    return [
        re.split(r"\s{2,}(?=\S)|\s#|\s…", line)[0]
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("qaeval ")
    ]


def commands_of(page: Path) -> list[str]:
    """Return the commands of qaeval in the blocks of a page."""
    return [command for block in FENCE.findall(page.read_text()) for command in commands_in(block)]


PAGES = (
    {
        str(page.relative_to(ROOT)): commands[0]
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
        if (commands := commands_of(page))
        and "--backend ray" not in commands[0]  # tests/distributed has a cluster
    }
    | {
        f"README.md {number}": command
        for number, command in enumerate(commands_of(ROOT / "README.md")[1:3], start=2)
    }
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    done = qaeval("compare", *FLOOR.values(), "--n", 20, "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


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
        words = [name for word in words if (name := NAMES.get(word, word))]
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


def typed(words: list[str], folder: Path) -> Typed:
    """Run a command; one that opens a page to label is answered as by a person who presses B."""
    if words[0] != "label":
        return qaeval(*words, cwd=folder)
    with Sitting.open(folder / words[1], words[words.index("--rater") + 1], n=60) as sitting:
        while question := sitting.current():
            sitting.record(question.assignment, "B")
    return Typed(0, "", "")


def test_most_pages_have_a_command() -> None:
    assert len(PAGES) >= 7


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.slow
def test_the_first_command_of_a_page_works(
    page: str, tmp_path: Path, run: Path, server: LoopbackServer
) -> None:
    shutil.copytree(run, tmp_path / "run")
    if not PAGES[page].startswith("qaeval chunk "):
        shutil.copy(ROOT / "evals" / "qa_pairs" / "chunks.jsonl", tmp_path / "chunks.jsonl")
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    shutil.copytree(ROOT / "docs" / "decisions", tmp_path / "handbook")
    shutil.copy(ROOT / "docs" / "cost.md", tmp_path / "docs")
    done = typed(on_the_floor(PAGES[page], server.url), tmp_path)
    expected = 3 if PAGES[page].startswith("qaeval audit ") else 0  # the embedded judge is not trusted
    assert done.returncode == expected, f"{PAGES[page]}\n{done.stderr}"


@pytest.mark.slow
def test_existing_items_are_graded_by_the_first_two_commands_of_the_page(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    commands = FENCE.findall((ROOT / "docs" / "import.md").read_text())[0].splitlines()
    assert len(commands) == 2
    for command in commands:
        done = qaeval(*shlex.split(command)[1:], cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    done = qaeval("report", "results/mine", "--json", cwd=tmp_path)
    (candidate,) = json.loads(done.stdout)["candidates"]
    assert (candidate["n_expected"], candidate["n_valid"]) == (12, 11)


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
@pytest.mark.slow
def test_the_first_python_of_a_page_works(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block, *_) = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(block, page, "exec"), {})  # noqa: S102 - our own document
    assert list(tmp_path.glob("results/*/report.html"))


def handbook(folder: Path, documents: int = 20) -> None:
    """Write Markdown documents of some sections each: the chunks of the shipped eval."""
    lines = (ROOT / "evals" / "qa_pairs" / "chunks.jsonl").read_text().splitlines()
    chunks = [json.loads(line) for line in lines]
    folder.mkdir()
    for i in range(documents):
        sections = [f"## {chunk['title']}\n\n{chunk['text']}\n" for chunk in chunks[i::documents]]
        (folder / f"{i:02}.md").write_text(f"# Part {i}\n\n" + "\n".join(sections))


@pytest.mark.slow
def test_the_commands_of_the_tutorials_work_one_after_the_other(tmp_path: Path) -> None:
    handbook(tmp_path / "handbook")
    for name in ("documents-to-decision", "label-100-items", "gate-a-prompt-change"):
        text = (ROOT / "docs" / "tutorials" / f"{name}.md").read_text()
        n_commands = 0
        for language, block in re.findall(r"^```(yaml|)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if language:
                with (tmp_path / "qaeval.yaml").open("a") as registry:
                    registry.write(block)
            for command in commands_in(block):
                prepare(command, tmp_path)
                done = typed(on_the_floor(command, ""), tmp_path)
                assert done.returncode == 0, f"{command}\n{done.stderr}"
                n_commands += 1
        assert n_commands, name


def prepare(command: str, folder: Path) -> None:
    """Do what the tutorials have the reader do by hand: change the prompt, fill in the sheet."""
    if "better.md" in command:
        prompt = (folder / "evals" / "handbook" / "prompt.md").read_text()
        (folder / "better.md").write_text(prompt + "\n")
    if "bertil.csv" in command:
        fill(folder / "sheet" / "labels.csv", folder / "sheet" / "bertil.csv")


def fill(sheet: Path, labels: Path) -> None:
    """Write the letter B into every row of a sheet."""
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with labels.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": "B"} for row in rows)


@pytest.mark.slow
def test_the_output_in_the_readme_is_that_of_the_demo(tmp_path: Path) -> None:
    shown = re.findall(r"^```text\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[0]
    done = qaeval("compare", *FLOOR.values(), "--out", "demo", cwd=tmp_path)
    lines = [line for line in shown.splitlines() if line != "…" and not line.startswith("report: ")]
    assert len(lines) >= 4
    assert [line for line in lines if line not in done.stdout] == []
