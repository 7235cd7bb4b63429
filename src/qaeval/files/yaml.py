"""Files that people write: text, YAML and CSV, validated, with errors that name the line or key."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import NoneType
from typing import Any, Final, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from qaeval.errors import DataError, closest
from qaeval.files.kinds import refuse_document

ModelT = TypeVar("ModelT", bound=BaseModel)

_BOM: Final = b"\xef\xbb\xbf"
LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""Half a character: it can come from an escape like ``\\ud83d`` and cannot be encoded as UTF-8."""

_SEPARATOR_LINE: Final = re.compile(r'\ufeff?"?sep=(?P<separator>[,;\t|])"?\n', re.IGNORECASE)
"""First line of a CSV file that a spreadsheet wrote."""

MAX_PROBLEMS: Final = 20
"""Problems of a file that a message lists: a screen."""

_MAX_VALUES: Final = 1_000_000
"""Values of a YAML file; aliases that refer to themselves have no end, and a few nested ones make billions."""
_MAX_EXCERPT: Final = 60
"""Characters of a wrong value that a message shows."""

_KINDS: Final = {
    "string_type": "text (put it in quotes)",
    "string_too_short": "text that is not empty",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
}


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Explain why a file that a user named cannot be read.

    Raises:
        DataError: the file is missing, a directory or not readable.
    """
    try:
        yield
    except FileNotFoundError as error:
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file.{closest(path.name, siblings)}") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: expected a file, this is a directory") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_text(path: Path) -> str:
    """Read a UTF-8 file; drop a byte order mark, and turn line ends into line feeds.

    Raises:
        DataError: the file is missing, a directory, not readable or not UTF-8.
    """
    with readable(path):
        raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        at = error.start + (len(_BOM) if raw.startswith(_BOM) else 0)
        raise _not_utf8(path, raw[:at].count(b"\n") + 1, raw[at], at) from error


def read_lines(path: Path) -> Iterator[str]:
    """Read a UTF-8 file line by line, each with its line feed; drop a byte order mark, and turn line ends into line feeds.

    Raises:
        DataError: as in `read_text`, when the line is reached.
    """
    at = 0
    with readable(path), path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = raw.removeprefix(_BOM) if at == 0 else raw
            at += len(raw)
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                start = at - len(line) + error.start
                raise _not_utf8(path, number, line[error.start], start) from error
            yield text.replace("\r\n", "\n")


def _not_utf8(path: Path, line: int, byte: int, at: int) -> DataError:
    return DataError(f"{path}:{line}: not UTF-8: byte 0x{byte:02x} at offset {at}; save the file as UTF-8")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values, so that `off`, `no` and `2026-01-01` stay text; keys are unique text."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - the library's own class attribute
    source: str = "YAML"

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        text = str(super().construct_scalar(node))
        if half := LONE_SURROGATE.search(text):
            line = node.start_mark.line + 1
            raise DataError(
                f"{self.source}:{line}: \\u{ord(half[0]):04x} is half a character (a lone surrogate)"
            )
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise DataError(
                    f"{self.source}:{line}: expected a text key, got {_excerpt(key)}; put it in quotes, or "
                    f"write a number like 1,5 as 1.5"
                )
            if key in lines:
                raise DataError(f"{self.source}:{line}: duplicate key {key!r}, first on line {lines[key]}")
            lines[key] = line
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _whole_number(_: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value)  # 012 is twelve in YAML 1.2; PyYAML reads YAML 1.1, where it is ten


_Loader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in {"null", "bool", "float", "str", "seq", "map"}
}
_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def _n_values(data: object) -> int:
    """Count the values of a document, those behind aliases each time, in time linear in its text.

    Above `_MAX_VALUES`, and for a document with an alias to what it is in, the result is `_MAX_VALUES` + 1.
    """
    sizes: dict[int, int] = {}
    pending = [data]
    while pending:
        value = pending[-1]
        children = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        if id(value) in sizes:
            pending.pop()
            size = 1 + sum(sizes.get(id(child), 1) for child in children)  # a scalar is one value
            sizes[id(value)] = min(size, _MAX_VALUES + 1)
        else:
            sizes[id(value)] = _MAX_VALUES + 1  # for an alias from inside
            pending += [
                child for child in children if isinstance(child, dict | list) and id(child) not in sizes
            ]
    return sizes[id(data)]


def read_yaml(path: Path, *, allow_empty: bool = False) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Args:
        path: The file.
        allow_empty: Whether a file of nothing or comments alone is an empty mapping.

    Raises:
        DataError: the file is missing, not UTF-8, not YAML, not a mapping, or has a duplicate key.
    """
    refuse_document(path, "YAML")
    text = read_text(path)
    loader = None
    try:
        loader = _Loader(text)
        loader.source = str(path)
        data = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise DataError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DataError(
            f"{path}:{line}: not valid YAML: character {error.character!r} is not allowed"
        ) from error
    except RecursionError as error:
        raise DataError(f"{path}: not usable YAML: nested too deeply") from error
    except ValueError as error:
        raise DataError(
            f"{path}: not usable YAML: a number that cannot be read: {str(error)[:_MAX_EXCERPT]}"
        ) from error
    finally:
        if loader is not None:
            loader.dispose()
    if _n_values(data) > _MAX_VALUES:
        raise DataError(
            f"{path}: not usable YAML: an alias refers to what it is in, or aliases make more than {_MAX_VALUES:,} values"
        )
    if data is None and allow_empty:
        return {}
    if not isinstance(data, dict):
        got = "an empty file" if data is None else _excerpt(data)
        raise DataError(f"{path}: expected a mapping (key: value) at the top level, got {got}")
    return data


def validated(
    model_cls: type[ModelT], data: Mapping[str, Any], source: Path | str, found: Sequence[str] = ()
) -> ModelT:
    """Validate parsed data as a model.

    A validator of the model that finds several problems puts each on a line of its `ValueError` (`refuse`).

    Args:
        model_cls: the model.
        data: the parsed data.
        source: origin of the data; messages begin with it.
        found: problems that are known already; they are reported with those of the data.

    Raises:
        DataError: every problem: key, what was expected and what was found.
    """
    try:
        model = model_cls.model_validate(data)
    except ValidationError as error:
        # a mistyped key is reported first, as it explains others
        problems = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        sentences = [
            line
            for alternatives in _by_value(problems, data)
            for line in _sentence(model_cls, alternatives).split("\n")
        ]
        raise DataError(listed(source, [*found, *sentences])) from error
    if found:
        raise DataError(listed(source, found))
    return model


def refuse(problems: Iterable[str]) -> None:
    """End a validator of a model with all problems that it found, if any.

    Raises:
        ValueError: each problem on a line.
    """
    if lines := "\n".join(problems):
        raise ValueError(lines)


def listed(source: Path | str, problems: Sequence[str]) -> str:
    """Return the message of the problems of a file: one in a sentence, several as a list of at most 20."""
    if len(problems) == 1:
        return f"{source}: {problems[0]}"
    more = [f"and {len(problems) - MAX_PROBLEMS:,} more"] if len(problems) > MAX_PROBLEMS else []
    return "\n  ".join((f"{source}: {len(problems):,} problems:", *problems[:MAX_PROBLEMS], *more))


def _by_value(problems: Sequence[Any], data: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield the problems of each value.

    A value that may have one of several types has a problem for each, under its key and the name of the type. A mistyped key is
    also reported as missing, which is left out.
    """
    unknown: dict[tuple[str | int, ...], list[str]] = {}
    by_key: dict[object, list[Any]] = {}
    for problem in problems:
        loc, kind = problem["loc"], problem["type"]
        if kind == "extra_forbidden":
            unknown.setdefault(loc[:-1], []).append(str(loc[-1]))
        if kind == "missing" and closest(str(loc[-1]), unknown.get(loc[:-1], ())):
            continue
        is_type = kind not in {"extra_forbidden", "missing"} and loc and _value_at(data, loc) is _ABSENT
        by_key.setdefault(loc[:-1] if is_type else loc, []).append(problem)
    for key, alternatives in by_key.items():
        yield [{**problem, "loc": key} for problem in alternatives]


_ABSENT: Final = object()


def _value_at(data: Any, loc: Sequence[str | int]) -> object:  # noqa: ANN401 - parsed YAML
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return _ABSENT
    return data


def _sentence(model_cls: type[BaseModel], alternatives: Sequence[Any]) -> str:
    problem = alternatives[0]
    loc, kind = problem["loc"], problem["type"]
    where = _key_path(loc)
    if kind == "extra_forbidden":
        keys = _keys_at(model_cls, loc[:-1])
        return f"unknown key {where!r}.{closest(str(loc[-1]), keys)} Known: {', '.join(keys)}"
    if kind == "missing":
        return f"missing key {where!r}"
    if kind == "value_error":
        text = str(problem["ctx"]["error"])
        return f"{where}: {text}" if where else text
    expected = " or ".join(dict.fromkeys(map(_expected, alternatives)))
    hints = "".join(_closest_literal(each) for each in alternatives if each["type"] == "literal_error")
    return f"{where}: expected {expected}, got {_excerpt(problem['input'])}{hints}"


def _expected(problem: Any) -> str:  # noqa: ANN401 - pydantic's own dict
    if problem["type"] == "literal_error":
        values = problem["ctx"]["expected"]
        return f"one of {values}" if " or " in values else str(values)
    if problem["type"] == "string_pattern_mismatch":
        return f"text of the form {problem['ctx']['pattern']}"
    message = str(problem["msg"]).removeprefix("Input should be ").removeprefix("a valid ")
    return _KINDS.get(problem["type"], message)


def _closest_literal(problem: Any) -> str:  # noqa: ANN401 - pydantic's own dict
    values = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    hint = closest(problem["input"], values) if isinstance(problem["input"], str) else ""
    return f".{hint}" if hint else ""


def _key_path(loc: Sequence[str | int]) -> str:
    text = ""
    for part in loc:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _keys_at(model_cls: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Return the keys of the model at a path inside another one, through lists and mappings."""
    at: Any = model_cls
    for part in loc:
        if _is_model(at):
            at = at.model_fields[str(part)].annotation
        else:
            at = [inner for inner in get_args(at) if inner is not Ellipsis][-1]
        # an optional model
        at = next((inner for inner in get_args(at) if _is_model(inner) and NoneType in get_args(at)), at)
    return sorted(at.model_fields) if _is_model(at) else []


def _is_model(annotation: Any) -> bool:  # noqa: ANN401 - any annotation
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _excerpt(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_EXCERPT else f"{text[:_MAX_EXCERPT]}…"


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file, or a TSV file by its name, as `read_csv_cells` does.

    Raises:
        DataError: as `read_csv_cells`.
    """
    header, rows = read_csv_cells(path)
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_csv_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """Read header and rows of a CSV file, or a TSV file by its name; blank lines are skipped, cells stripped.

    The delimiter is a semicolon where the header has one and no comma: spreadsheets write such files in
    countries with a decimal comma. A first line ``sep=;``, which some of them write, names it.

    Raises:
        DataError: the file cannot be read, has no row, two columns of one name, or a row of another length.
    """
    refuse_document(path, "a table: CSV or TSV")
    text = read_text(path)
    if "\0" in text:
        raise DataError(f"{path}: holds a NUL character; expected a text table")
    first = text.lstrip("\ufeff\r\n").partition("\n")[0]
    delimiter = "\t" if path.suffix == ".tsv" else ";" if ";" in first and "," not in first else ","
    named = _SEPARATOR_LINE.match(text)
    if named is not None:
        delimiter = named["separator"]
        text = "\n" + text[named.end() :]  # a blank line in its place keeps the numbers of the others
    reader = csv.reader(StringIO(text), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows = []
    try:
        for cells in reader:
            row = list(map(str.strip, cells))
            if not any(row):
                continue
            if not header:
                header = row
            elif len(row) != len(header):
                raise DataError(
                    f"{path}:{reader.line_num}: expected {len(header)} cells as in the header, got {len(row)}"
                )
            else:
                rows.append(row)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not a CSV row: {error}") from error
    if not rows:
        raise DataError(f"{path}: expected a header and at least one row")
    if len(set(header)) < len(header):
        raise DataError(f"{path}:1: two columns have the same name: {', '.join(header)}")
    return header, rows
