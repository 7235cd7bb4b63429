"""The documents against the repository: links and anchors, commands and options, make targets, extras, file names."""

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


def list_leaf_commands() -> dict[tuple[str, ...], set[str]]:
    """List every command, as a tuple of words, with its options."""
    options_by_command = {}
    for name, command in typer.main.get_command(app).commands.items():
        subcommands = getattr(command, "commands", None)
        for words, leaf in (
            {(name, subname): subcommand for subname, subcommand in subcommands.items()}.items()
            if subcommands
            else [((name,), command)]
        ):
            options_by_command[words] = {
                option for parameter in leaf.params for option in (*parameter.opts, *parameter.secondary_opts)
            }
    return options_by_command


COMMANDS = list_leaf_commands()


def heading_anchors(path: Path) -> set[str]:
    """The anchors that GitHub generates for the headings of a page."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code_spans(text: str) -> list[str]:
    """Text between backticks outside code blocks."""
    return SPAN.findall(FENCE.sub("", text))


def documented_commands(text: str) -> list[str]:
    """The qaeval commands in a document, in code blocks and between backticks."""
    blocks = [line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()[1:-1]]
    pieces = (
        piece.strip() for line in (*blocks, *code_spans(text)) for piece in re.split(r"&&|;|\||\s#", line)
    )
    return [piece for piece in pieces if re.match(r"qaeval\s+[a-z]", piece)]


def find_unknown_words(command: str) -> list[str]:
    """List what qaeval does not have of a command: the command itself, or its options."""
    words = command.split()[1:]
    leaf = next((names for names in (tuple(words[:2]), tuple(words[:1])) if names in COMMANDS), None)
    if leaf is None:
        group = any(words[0] == names[0] for names in COMMANDS)
        return [] if group and len(words) == 1 else words[:2]
    options = {match[0] for word in words if (match := re.match(r"--[a-z][a-z-]*", word))}
    return sorted(options - COMMANDS[leaf] - {"--help"})


@each_document
def test_every_relative_link_resolves(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in heading_anchors(target), link


@each_document
def test_every_command_in_a_document_exists_with_its_options(path: Path) -> None:
    unknown = {
        command: words
        for command in documented_commands(path.read_text())
        if (words := find_unknown_words(command))
    }
    assert not unknown


def test_unknown_commands_and_options_are_detected() -> None:
    assert documented_commands("```\nqaeval compare a b --no-such 1   # so\n```\n`qaeval bogus x`") == [
        "qaeval compare a b --no-such 1",
        "qaeval bogus x",
    ]
    assert find_unknown_words("qaeval compare a b --no-such 1 --seed 7") == ["--no-such"]
    assert find_unknown_words("qaeval bogus x") == ["bogus", "x"]
    assert find_unknown_words("qaeval baseline sat x") == ["baseline", "sat"]


@each_document
def test_every_make_target_and_extra_exists(path: Path) -> None:
    text = path.read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    assert set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", text, re.MULTILINE)) <= targets
    assert {
        extra for names in re.findall(r"qaeval\[([a-z0-9,-]+)\]", text) for extra in names.split(",")
    } <= extras


@each_document
def test_every_repository_path_named_in_a_document_exists(path: Path) -> None:
    path_pattern = re.compile(
        rf"(?!evals/handbook/)(?:{FOLDERS})/[\w./-]+"
    )  # readers of the tutorials create this folder
    paths = [span for span in code_spans(path.read_text()) if path_pattern.fullmatch(span)]
    roots = (ROOT, ROOT / "src/qaeval")
    assert [name for name in paths if not any((root / name).exists() for root in roots)] == []


def test_architecture_document_lists_the_real_layers_and_modules() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0][
        "layers"
    ]
    block = next(fence for fence in FENCE.findall(text) if "pytest_plugin" in fence)
    assert [line.split("   ")[0] for line in block.splitlines()[1:-1] if not line.startswith(" ")] == layers
    modules = {span for span in code_spans(text) if re.fullmatch(r"[\w/]+\.py", span)}
    assert [
        name for name in modules if not any((root / name).exists() for root in (ROOT, ROOT / "src/qaeval"))
    ] == []


@each_document
def test_no_document_names_a_machine_or_a_package_index(path: Path) -> None:
    matches = re.findall(
        r"/work/|/root/|/home/\w+|pythonhosted|pypi\.org|npmjs\.org|proxy\.golang", path.read_text()
    )
    assert matches == []


def test_readme_and_index_link_every_page() -> None:
    def links(page: Path) -> set[Path]:
        targets = (link.partition("#")[0] for link in LINK.findall(page.read_text()))
        return {(page.parent / target).resolve() for target in targets if not re.match(r"[a-z]+:", target)}

    pages = {page for folder in ("docs", "docs/tutorials") for page in (ROOT / folder).glob("*.md")}
    index = ROOT / "docs/README.md"
    assert index in links(ROOT / "README.md")
    assert pages - links(index) == {index}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 900


def test_help_lists_every_command_once_without_truncation_at_80_columns(
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
