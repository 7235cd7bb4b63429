"""JSON Schemas of the YAML files that people write, generated from the models that read them, for editors.

A file names its schema in a comment, ``# yaml-language-server: $schema=schemas/gate.json``, relative to itself.
"""

import ast
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from textwrap import dedent
from typing import Any, Final, get_type_hints

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from qaeval.checks.check import Check
from qaeval.checks.claims import Facts
from qaeval.checks.registry import CHECKS, meaning
from qaeval.errors import UsageError, closest
from qaeval.evals.definition import EvalDefinition
from qaeval.evals.rubric import Rubric
from qaeval.gate.policy import QUANTITIES, Policy
from qaeval.registry.config import RegistryFile

_Json = dict[str, Any]


@dataclass(frozen=True)
class SchemaSource:
    """A kind of file and the model that reads it."""

    files: str
    """Pattern of the files."""
    model: type[BaseModel]
    adapt: Callable[[_Json], None] = lambda _: None
    """Changes the schema of the model to that of its file, where the two differ."""


class _FileSchema(GenerateJsonSchema):
    """Schemas with the docstrings of fields, which editors show, and without titles, which repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - pydantic's own signature
        return False

    def model_schema(self, schema: Any) -> _Json:  # noqa: ANN401 - pydantic's own schema
        described = super().model_schema(schema)
        described.pop("title", None)
        for name, text in _field_docstrings(schema["cls"]).items():
            if name in described.get("properties", {}):
                described["properties"][name]["description"] = text
        return described


def _field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the strings under the fields of a model and of the models that it extends."""
    docstrings = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        body = ast.parse(dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)  # noqa: S101 - for mypy: the source of a class is a class
        for field, below in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                text = inspect.cleandoc(str(below.value.value))
                docstrings[field.target.id] = " ".join(text.replace("``", "`").split())
    return docstrings


def _adapt_registry(schema: _Json) -> None:
    entry = schema["$defs"]["ModelSpec"]
    entry["required"].remove("name")  # the key of the entry is its name
    if not entry["required"]:
        del entry["required"]
    entry["properties"]["gpu_metrics"]["anyOf"].append({"type": "string"})


def _adapt_eval(schema: _Json) -> None:
    keys = schema["properties"]
    for name in ("directory", "label_paths"):
        del keys[name]
    for name in ("prompt", "directory"):
        schema["required"].remove(name)
    keys["prompt"] = {
        "type": "string",
        "default": "prompt.md",
        "description": "File of the prompt, in the folder of the eval.",
    }
    names = {"enum": sorted(CHECKS)}
    options = {name: _check_options(name, check) for name, check in sorted(CHECKS.items())}
    with_options = {
        "type": "object",
        "properties": options,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    keys["checks"] = {**keys["checks"], "items": {"anyOf": [names, with_options]}}
    for name in ("CheckSpec", "Prompt"):
        del schema["$defs"][name]


def _check_options(name: str, check: Check) -> _Json:
    """Return the schema of a check's options, by the signature of its function."""
    hints = get_type_hints(check)
    parameters = list(inspect.signature(check).parameters.values())[1:]
    options = {parameter.name: TypeAdapter(hints[parameter.name]).json_schema() for parameter in parameters}
    if "facts" in options:
        options["facts"] = {
            "type": ["string", "object"],
            "description": "File of the facts, in the folder of the eval.",
        }
    types = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Types of the items to check; default: all.",
    }
    return {
        "type": "object",
        "description": meaning(name),
        "properties": {"types": types, **options},
        "additionalProperties": False,
    }


def _adapt_gate(schema: _Json) -> None:
    meanings = [{"const": name, "description": quantity.meaning} for name, quantity in QUANTITIES.items()]
    schema["$defs"]["Rule"]["properties"]["quantity"] = {"anyOf": meanings}


SCHEMAS: Final[Mapping[str, SchemaSource]] = {
    "qaeval": SchemaSource("qaeval.yaml", RegistryFile, _adapt_registry),
    "eval": SchemaSource("evals/*/eval.yaml", EvalDefinition, _adapt_eval),
    "rubric": SchemaSource("rubrics/*.yaml", Rubric),
    "gate": SchemaSource("gate.yaml", Policy, _adapt_gate),
    "facts": SchemaSource("evals/*/facts.yaml", Facts),
}
"""The schemas by name."""

FOLDER: Final = "schemas"
"""Folder of the schemas in a project."""


def schema_text(name: str) -> str:
    """Return a schema as JSON.

    Raises:
        UsageError: no schema has the name.
    """
    if name not in SCHEMAS:
        raise UsageError(f"unknown schema {name!r}.{closest(name, SCHEMAS)} Known: {', '.join(SCHEMAS)}")
    source = SCHEMAS[name]
    schema = source.model.model_json_schema(schema_generator=_FileSchema)
    source.adapt(schema)
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def editor_line(name: str, file: str) -> str:
    """Return the comment by which an editor finds the schema of a file.

    Args:
        name: The schema.
        file: Path of the file in the project.
    """
    up = "../" * (len(PurePosixPath(file).parts) - 1)
    return f"# yaml-language-server: $schema={up}{FOLDER}/{name}.json\n"
