import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from qaeval.errors import DataError
from qaeval.files.yaml import read_text, read_yaml, validated
from qaeval.records import Record


class Inner(Record):
    letter: str
    count: int = Field(default=1, ge=1)


class Outer(Record):
    title: str
    parts: tuple[Inner, ...] = ()
    named: dict[str, Inner] = Field(default_factory=dict)


def test_plain_values_follow_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: off\nb: no\nc: 2026-01-01\nd: 12:30\ne: 012\nf: true\ng: ~\nh: 0.90\n")
    assert read_yaml(path) == {
        "a": "off",
        "b": "no",
        "c": "2026-01-01",
        "d": "12:30",
        "e": 12,
        "f": True,
        "g": None,
        "h": 0.9,
    }


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1\n", ":2:1: not valid YAML", "expected ',' or ']'"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", ":4: duplicate key 'c'", "line 3"),
        ("a: 1\n1: b\n", ":2: expected", "got 1"),
        ("a: {price: 1,23, b: 2}\n", ":1: expected", "got 23"),
        ("a: \x01\n", ":1: not valid YAML", "not allowed"),
        ("a: !!python/object:os.system x\n", ":1:4: not valid YAML", "tag"),
        ("a: !!timestamp x\n", ":1:4: not valid YAML", "tag"),
        ("a: !!int x\n", ": not usable YAML", "number"),
        (f"a: {'9' * 5000}\n", ": not usable YAML", "number"),
        ("[" * 5000, ": not usable YAML", "nested too deeply"),
        ('a: b\nc: "\\ud83d"\n', ":2: \\ud83d is half a character", "lone surrogate"),
        ("- a\n", ": expected a mapping", "got ['a']"),
        ("", ": expected a mapping", "got an empty file"),
    ],
)
@pytest.mark.slow
def test_what_is_wrong_with_yaml_is_said_with_its_place(
    tmp_path: Path, text: str, line: str, words: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}{line}")
    assert words in str(caught.value)


def test_a_missing_file_names_its_closest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "rubric.yaml").touch()
    with pytest.raises(DataError, match=r"rubrik\.yaml: .*'rubric\.yaml'\?"):
        read_text(tmp_path / "rubrik.yaml")


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a directory"):
        read_text(tmp_path)


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_are_not_utf8_are_named_with_line_and_offset(tmp_path: Path, bom: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(bom + b"ab\nc\xff")
    with pytest.raises(DataError, match=f":2: not UTF-8: .*0xff.*{4 + len(bom)};"):
        read_text(path)


def test_a_byte_order_mark_and_windows_line_ends_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert read_text(path) == "a\nb"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"tittle": "x"}, "unknown key 'tittle'. Did you mean 'title'? Known: named, parts, title"),
        ({}, "missing key 'title'"),
        ({"title": 3}, "title: expected text (put it in quotes), got 3"),
        ({"title": "x", "parts": "y"}, "parts: expected a list, got 'y'"),
        ({"title": "x", "parts": ["y"]}, "parts[1]: expected a mapping (key: value), got 'y'"),
        (
            {"title": "x", "parts": [{"letter": "A", "count": 0}]},
            "parts[1].count: expected greater than or equal to 1, got 0",
        ),
        (
            {"title": "x", "parts": [{"letter": "A"}, {"letter": "B", "leter": "B"}]},
            "unknown key 'parts[2].leter'. Did you mean 'letter'? Known: count, letter",
        ),
        (
            {"title": "x", "named": {"one": {"letter": "B", "cuont": 1}}},
            "unknown key 'named.one.cuont'. Did you mean 'count'? Known: count, letter",
        ),
    ],
)
def test_a_wrong_value_becomes_one_sentence(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=f"^file: {re.escape(sentence)}"):
        validated(Outer, data, "file")


def test_every_problem_is_listed_and_a_long_value_is_cut() -> None:
    with pytest.raises(DataError) as caught:
        validated(Outer, {"title": ["x" * 500], "parts": 1, "named": 2}, "file", ["known before"])
    first, *problems = str(caught.value).split("\n")
    assert first == "file: 4 problems:"
    assert [problem.split(":")[0] for problem in problems] == [
        "  known before",
        "  title",
        "  parts",
        "  named",
    ]
    assert max(map(len, problems)) < 130


def test_more_than_twenty_problems_are_counted() -> None:
    with pytest.raises(DataError) as caught:
        validated(Outer, {f"key{number}": 1 for number in range(30)}, "file")
    lines = str(caught.value).split("\n")
    assert (len(lines), lines[-1]) == (22, "  and 11 more")


def test_problems_that_are_known_already_refuse_valid_data() -> None:
    with pytest.raises(DataError, match=r"^file: known before$"):
        validated(Outer, {"title": "x"}, "file", ["known before"])
