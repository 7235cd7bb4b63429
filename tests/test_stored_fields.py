"""The fields of every stored document and configuration file: name, type, bounds and default.

Files are promised to stay readable: a change of `golden/stored_fields.txt` is a change of a format, and is reviewed like one.
`QAEVAL_GOLDEN=write` renews it.
"""

import importlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import models_json_schema

import qaeval
from qaeval.records import Record

GOLDEN = Path(__file__).parent / "golden" / "stored_fields.txt"
READ_BY_PEOPLE = frozenset({"title", "description", "examples"})


def test_fields_of_stored_documents_have_the_types_bounds_and_defaults_that_files_rely_on() -> None:
    lines = list(fields(models()))
    if os.environ.get("QAEVAL_GOLDEN") == "write":
        GOLDEN.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert lines == GOLDEN.read_text(encoding="utf-8").splitlines()


def test_a_field_that_is_left_out_of_a_file_is_left_out_at_its_default() -> None:
    left_out = [
        (model, name, field)
        for model in models()
        for name, field in model.model_fields.items()
        if field.exclude_if
    ]
    assert len(left_out) > 30
    for model, name, field in left_out:
        assert field.exclude_if(field.get_default(call_default_factory=True, validated_data={})), (
            model,
            name,
        )


def models() -> list[type[BaseModel]]:
    """Return the records of the package, in alphabetical order."""
    root = Path(str(qaeval.__file__)).parent
    for path in sorted(root.rglob("*.py")):
        if "(Record)" in (text := path.read_text(encoding="utf-8")) or "(Part)" in text:
            importlib.import_module(".".join(("qaeval", *path.relative_to(root).with_suffix("").parts)))
    known = {f"{model.__module__}.{model.__qualname__}": model for model in _below(Record)}
    return [model for name, model in sorted(known.items()) if name.startswith("qaeval.")]


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for other in model.__subclasses__():
        yield other
        yield from _below(other)


def fields(named: Sequence[type[BaseModel]]) -> Iterator[str]:
    """Return a line for each field of the records."""
    references, schemas = models_json_schema([(model, "validation") for model in named], by_alias=False)
    for model in named:
        reference = references[model, "validation"]["$ref"].removeprefix("#/$defs/")
        properties = schemas["$defs"][reference].get("properties", {})
        for name, field in model.model_fields.items():
            schema = plain(properties.get(name, "in no schema"))
            text = json.dumps(schema, sort_keys=True, ensure_ascii=False)
            yield f"{model.__module__}.{model.__qualname__}.{name}: {text}{left_out(field)}"


def plain(schema: Any) -> Any:
    """Return a schema without what only readers see."""
    match schema:
        case dict():
            return {key: plain(part) for key, part in schema.items() if key not in READ_BY_PEOPLE}
        case list():
            return [plain(part) for part in schema]
        case _:
            return schema


def left_out(field: FieldInfo) -> str:
    """Say whether a field at its default is left out of a file."""
    return " left out" if field.exclude_if else ""
