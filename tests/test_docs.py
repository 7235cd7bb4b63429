"""The documents against the house: links and anchors, commands and their options, targets of make, extras, files that they name."""

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from command import qaeval
from qaeval.cli.app import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "k8s/*.md", "results/README.md", "evals/*/*.md")
    for path in ROOT.glob(pattern)
)
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
FOLDERS = "benchmarks|ci|docs|evals|k8s|rubrics|src|tests|tools"
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)


def leaf_commands() -> dict[tuple[str, ...], set[str]]:
    """Every command, as its words, with the options that it takes."""
    found = {}
    for name, one in typer.main.get_command(app).commands.items():
        below = getattr(one, "commands", None)
        for words, leaf in (
            {(name, sub): two for sub, two in below.items()}.items() if below else [((name,), one)]
        ):
            found[words] = {
                option for parameter in leaf.params for option in (*parameter.opts, *parameter.secondary_opts)
            }
    return found


COMMANDS = leaf_commands()


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def spans(text: str) -> list[str]:
    """What stands between backticks in the running text."""
    return SPAN.findall(FENCE.sub("", text))


def typed(text: str) -> list[str]:
    """The commands of qaeval in a document, one a line, in blocks and between backticks."""
    blocks = [line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()[1:-1]]
    pieces = (piece.strip() for line in (*blocks, *spans(text)) for piece in re.split(r"&&|;|\||\s#", line))
    return [piece for piece in pieces if re.match(r"qaeval\s+[a-z]", piece)]


def unknown_words(command: str) -> list[str]:
    """What a command names that qaeval does not have: the command itself, or options."""
    words = command.split()[1:]
    leaf = next((taken for taken in (tuple(words[:2]), tuple(words[:1])) if taken in COMMANDS), None)
    if leaf is None:
        group = any(words[0] == names[0] for names in COMMANDS)
        return [] if group and len(words) == 1 else words[:2]
    options = {match[0] for word in words if (match := re.match(r"--[a-z][a-z-]*", word))}
    return sorted(options - COMMANDS[leaf] - {"--help"})


@each_document
def test_every_relative_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_document
def test_every_command_in_a_document_exists_with_its_options(path: Path) -> None:
    wrong = {command: words for command in typed(path.read_text()) if (words := unknown_words(command))}
    assert not wrong


def test_a_command_that_does_not_exist_would_be_found() -> None:
    assert typed("```\nqaeval compare a b --no-such 1   # so\n```\n`qaeval bogus x`") == [
        "qaeval compare a b --no-such 1",
        "qaeval bogus x",
    ]
    assert unknown_words("qaeval compare a b --no-such 1 --seed 7") == ["--no-such"]
    assert unknown_words("qaeval bogus x") == ["bogus", "x"]
    assert unknown_words("qaeval baseline sat x") == ["baseline", "sat"]


@each_document
def test_every_target_of_make_and_every_extra_exists(path: Path) -> None:
    text = path.read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    assert set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", text, re.MULTILINE)) <= targets
    assert {
        extra for names in re.findall(r"qaeval\[([a-z0-9,-]+)\]", text) for extra in names.split(",")
    } <= extras


@each_document
def test_every_file_of_the_house_that_is_named_is_there(path: Path) -> None:
    spelt = re.compile(
        rf"(?!evals/handbook/)(?:{FOLDERS})/[\w./-]+"
    )  # the tutorials' project is the reader's
    named = [span for span in spans(path.read_text()) if spelt.fullmatch(span)]
    roots = (ROOT, ROOT / "src/qaeval")
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


def test_the_architecture_has_the_layers_and_modules_of_the_house() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0][
        "layers"
    ]
    block = next(fence for fence in FENCE.findall(text) if "pytest_plugin" in fence)
    assert [line.split("   ")[0] for line in block.splitlines()[1:-1] if not line.startswith(" ")] == layers
    modules = {span for span in spans(text) if re.fullmatch(r"[\w/]+\.py", span)}
    assert [
        name for name in modules if not any((root / name).exists() for root in (ROOT, ROOT / "src/qaeval"))
    ] == []


@each_document
def test_no_document_names_a_machine_or_a_package_index(path: Path) -> None:
    found = re.findall(
        r"/work/|/root/|/home/\w+|pythonhosted|pypi\.org|npmjs\.org|proxy\.golang", path.read_text()
    )
    assert found == []


def test_readme_and_index_lead_to_every_page_of_the_documents() -> None:
    def links(page: Path) -> set[Path]:
        targets = (link.partition("#")[0] for link in LINK.findall(page.read_text()))
        return {(page.parent / target).resolve() for target in targets if not re.match(r"[a-z]+:", target)}

    pages = {page for folder in ("docs", "docs/tutorials") for page in (ROOT / folder).glob("*.md")}
    index = ROOT / "docs/README.md"
    assert index in links(ROOT / "README.md")
    assert pages - links(index) == {index}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 900


def test_the_help_lists_every_command_once_and_cuts_no_line_at_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for group in ((), *{(words[0],) for words in COMMANDS if len(words) == 2}):
        help_page = qaeval(*group, "--help", cwd=tmp_path).stdout
        commands = re.split(r"(?:Commands|Run):\n", help_page)[1]
        lines = [line for line in commands.splitlines() if line.startswith("  ")]
        names = [line.split()[0] for line in lines]
        assert sorted(names) == sorted(
            {words[len(group)] for words in COMMANDS if words[: len(group)] == group}
        )
        assert [line for line in lines if line.endswith("...")] == []
