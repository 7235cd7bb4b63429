"""JSON Schemas of the YAML files: generated from the models, named in each file, and as strict as the readers."""

import json
import re
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from command import qaeval
from qaeval.errors import UsageError
from qaeval.files.yaml import read_yaml
from qaeval.projects.schemas import SCHEMAS, schema_text

ROOT = Path(__file__).parents[1]
EDITOR_LINE = re.compile(r"^# yaml-language-server: \$schema=(\S+)$", re.MULTILINE)
NAMES = {"qaeval.yaml": "qaeval", "eval.yaml": "eval", "gate.yaml": "gate", "facts.yaml": "facts"}


def yaml_files() -> dict[Path, str]:
    """Return the YAML files of the repository that qaeval reads, with the name of their schema."""
    listed = subprocess.run(
        ["git", "ls-files", "*.yaml"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [ROOT / name for name in listed.stdout.split() if not name.startswith("tests/")]
    return {
        path: name
        for path in paths
        if (name := NAMES.get(path.name) or {"rubrics": "rubric"}.get(path.parent.name))
    }


FILES = yaml_files()
each_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])


@lru_cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schema_text(name)))


def problems(name: str, data: Any) -> list[str]:
    return [error.message for error in validator(name).iter_errors(data)]


@pytest.mark.slow
def test_the_schemas_of_the_repository_are_those_of_the_models(tmp_path: Path) -> None:
    done = qaeval("schema", "--out", tmp_path, cwd=tmp_path)
    assert done.returncode == 0
    written = {path.name: path.read_text() for path in tmp_path.glob("*")}
    assert {
        path.name: path.read_text() for path in (ROOT / "schemas").glob("*")
    } == written  # `make docs` renews them


@pytest.mark.slow
@each_file
def test_a_file_names_its_schema_and_is_valid_under_it(path: Path) -> None:
    (target,) = EDITOR_LINE.findall(path.read_text())
    assert (path.parent / target).resolve() == ROOT / "schemas" / f"{FILES[path]}.json"
    assert problems(FILES[path], read_yaml(path)) == []


@pytest.mark.slow
@each_file
def test_a_wrong_key_is_refused_at_every_level(path: Path) -> None:
    data = read_yaml(path)
    assert problems(FILES[path], {**data, "typo": 1})
    n_tried = 0
    for key, value in data.items():
        # an object, or the first of a list of objects
        first = value[0] if isinstance(value, list) and value else value
        if not isinstance(first, dict):
            continue
        for name in first:
            wrong = {**first, name: {"typo": {}}}
            changed = {**data, key: [wrong, *value[1:]] if isinstance(value, list) else wrong}
            assert problems(FILES[path], changed), (key, name)
            n_tried += 1
    assert n_tried


def test_short_forms_that_the_reader_takes_are_valid() -> None:
    model = {
        "url": "http://10.0.0.5:8000/v1",
        "gpu_metrics": "http://10.0.0.5:9400/metrics",
        "vllm_args": ["--seed", 0],
    }
    assert problems("qaeval", {"models": {"ours": model}, "serving": {"env": {"LEVEL": 3}}}) == []
    assert problems("gate", {"rules": [{"quantity": "p95_latency", "margin": "20%"}]}) == []
    assert problems("gate", {"rules": [{"quantity": "usable", "margin": 0.05}]})
    assert problems("gate", {"rules": []})


def test_fields_have_the_docstrings_of_the_models() -> None:
    properties = json.loads(schema_text("qaeval"))["$defs"]["ModelSpec"]["properties"]
    assert properties["served_name"]["description"].startswith("Model name in requests")


@pytest.mark.slow
def test_the_command_lists_prints_and_refuses(tmp_path: Path) -> None:
    assert [line.split()[0] for line in qaeval("schema", cwd=tmp_path).stdout.splitlines()] == [*SCHEMAS]
    assert json.loads(qaeval("schema", "gate", cwd=tmp_path).stdout) == json.loads(schema_text("gate"))
    assert qaeval("schema", "gates", cwd=tmp_path).returncode == 64
    with pytest.raises(UsageError, match="'gate'"):
        schema_text("gates")
