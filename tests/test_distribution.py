"""The name under which qaeval is installed: on the index, `qaeval` is another project."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

import qaeval
from qaeval.errors import DISTRIBUTION, install_command

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OTHER_PROJECT = re.compile(
    r"\b(?:pip3?|pipx|uv)\b[^\n`]*\binstall\b[^\n`]*[\s'\"]qaeval(?=[\s'\"`\[=<>~)]|$)|\bqaeval\[[a-z]|\bqaeval=="
)
"""An installer that is given the name of the other project, or a requirement of it."""


def names_another_project(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if OTHER_PROJECT.search(line)]


def test_the_project_file_and_the_package_agree() -> None:
    assert (PROJECT["name"], PROJECT["version"]) == (DISTRIBUTION, qaeval.__version__)
    assert PROJECT["scripts"] == {"qaeval": "qaeval.cli:main"}


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (None, "pip install 'qaeval-harness[s3]'"),
        (
            {"url": "file:///src/qaeval", "dir_info": {}},
            "pip install 'qaeval-harness[s3] @ file:///src/qaeval'",
        ),
        ({"url": "file:///my%20src", "dir_info": {"editable": True}}, "pip install -e '/my src[s3]'"),
        (
            {"url": "file:///q.whl", "archive_info": {}},
            "pip install 'qaeval-harness[s3] @ file:///q.whl'",
        ),
    ],
)
def test_extra_is_installed_from_where_qaeval_came(
    record: dict[str, object] | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = SimpleNamespace(read_text=lambda _name: None if record is None else json.dumps(record))
    monkeypatch.setattr("importlib.metadata.distribution", lambda _name: installed)
    assert install_command("s3") == command


def test_nothing_in_the_repository_installs_the_other_project_of_the_name() -> None:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    wrong = {}
    for name in names.stdout.split("\0")[:-1]:
        path = ROOT / name
        if path.is_file() and path != Path(__file__) and path.suffix not in {".png", ".parquet", ".bin"}:
            wrong[name] = names_another_project(path.read_text(encoding="utf-8", errors="replace"))
    assert len(wrong) > 100
    assert {name: lines for name, lines in wrong.items() if lines} == {}


def test_the_search_finds_every_form_of_a_wrong_name() -> None:
    for line in (
        "pip install qaeval",
        "pip install 'qaeval[s3]'",
        "uv tool install qaeval",
        "qaeval==0.2.0",
        "pipx install -q qaeval",
    ):
        assert names_another_project(line) == [line]
    for line in (
        "pip install qaeval-harness",
        "uv tool install ./qaeval_harness-0.2.0-py3-none-any.whl",
        "make install  # install qaeval into .venv",
    ):
        assert names_another_project(line) == []


def test_the_tags_of_the_image_are_the_version() -> None:
    texts = [
        path.read_text() for path in (ROOT / "Containerfile", *(ROOT / "k8s").rglob("*")) if path.is_file()
    ]
    tags = [
        tag
        for text in texts
        for tag in re.findall(r"/qaeval:(\d[\w.]*)|newTag: (\d+\.\d+\.\d+)$", text, re.MULTILINE)
    ]
    assert len(tags) > 10
    assert {first or second for first, second in tags} == {qaeval.__version__}


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").iterdir()), ids=lambda path: path.name)
def test_every_requirement_that_is_installed_has_a_hash(path: Path) -> None:
    requirements = re.findall(r"^[A-Za-z0-9][^\n]*(?:\n(?=\s)[^\n]*)*", path.read_text(), re.MULTILINE)
    assert requirements
    assert [text for text in requirements if "==" not in text or "--hash=sha256:" not in text] == []


def test_every_installation_of_the_makefile_demands_hashes() -> None:
    lines = re.findall(r"^.*(?:pip .*install|\$\(PIP\)).*$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = [line for line in lines if "-r requirements/" in line]
    assert len(commands) >= 5
    assert [line for line in commands if "--require-hashes" not in line] == []
    named = {name for line in lines for name in re.findall(r"\s([a-z0-9-]+==[\d.]+)", line)}
    assert named == set()
