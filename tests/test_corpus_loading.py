import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from qaeval.corpus.loading import MAX_CHUNK_WORDS, load_chunks
from qaeval.errors import DataError, UsageError
from qaeval.files.yaml import read_lines, read_text
from qaeval.records import Chunk

File: TypeAlias = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> File:
    def file(*lines: object) -> Path:
        path = tmp_path / "chunks.jsonl"
        path.write_text(
            "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), "utf-8"
        )
        return path

    return file


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_chunks(path)
    return str(caught.value)


def test_every_spelling_of_a_field_is_understood(file: File) -> None:
    row = {
        "uid": 7,
        "body": " Text. ",
        "topic": "kv",
        "source": "a.md",
        "heading": "T",
        "lang": "en",
        "n_tokens": [1],
    }
    assert load_chunks(file(row)) == (
        Chunk(chunk_id="7", text=" Text. ", stratum="kv", document="a.md", title="T", language="en"),
    )


def test_the_first_spelling_with_a_value_counts(file: File) -> None:
    (chunk,) = load_chunks(
        file({"chunk_id": "c", "id": "d", "text": "", "content": "x", "stratum": None, "topic": "t"})
    )
    assert (chunk.chunk_id, chunk.text, chunk.stratum) == ("c", "x", "t")


def test_optional_fields_have_defaults(file: File) -> None:
    assert load_chunks(file({"id": "a", "text": "x", "topic": " "})) == (Chunk(chunk_id="a", text="x"),)


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "chunks.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "a", "text": "x"}\r\n\r\n  \r\n{"id": "b", "text": "y"}')
    assert [chunk.chunk_id for chunk in load_chunks(path)] == ["a", "b"]


def test_a_unicode_line_separator_does_not_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "chunks.jsonl"
    path.write_text('{"id": "a", "text": "one\u2028two\u0085three"}\n', "utf-8")
    assert load_chunks(path)[0].text == "one\u2028two\u0085three"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"id": "a", "txt": "x"},
            ":1: no text: expected one of text, content, body, chunk, page_content; the keys are 'id', 'txt'.",
        ),
        ({}, ":1: no text: "),
        ({"id": "a", "text": " \n "}, ":1: 'text' is blank"),
        ({"id": "", "text": "x"}, ":1: 'id' is blank"),
        ({"id": True, "text": "x"}, ":1: 'id': expected text, got true"),
        ({"id": "a", "text": ["x"]}, ":1: 'text': expected text, got [\"x\"]"),
        ({"id": "a", "text": "x", "topic": {"a": 1}}, ":1: 'topic': expected text, got {"),
        ({"id": "a", "text": "ab\0"}, ":1: 'text': a NUL character at position 3"),
        ('{"id": "a", "text": "x\\ud83d"}', ":1: 'text': \\ud83d is a lone surrogate"),
        ('{"id": "a", "text": "x", }', ":1:26: not JSON: "),
        ('{"id": "a"', ":1:11: not JSON: "),
        ('"text"', ':1: expected a JSON object, got "text"'),
        ("null", ":1: expected a JSON object, got null"),
        ('{"id": ' + "9" * 5000 + "}", ":1: unreadable JSON"),
        ('{"id": ' + "[" * 100_000, ":1: unreadable JSON"),
        ('[{"id": "a", "text": "x"}, {"id": "b"}]', ": element 2: no text: "),
        ('[{"id": "a", "text": "x"}, "y"]', ": element 2: expected a JSON object"),
        ('[{"id": "a"', ":2:1: not JSON: "),
        ("[]", ": the array is empty"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_with_its_number(file: File, row: object, words: str) -> None:
    path = file(row)
    assert refusal(path).startswith(f"{path}{words}")


def test_a_duplicate_id_names_both_lines(file: File) -> None:
    path = file({"id": 1, "text": "x"}, "", {"id": "1", "text": "y"})
    assert refusal(path).startswith(f"{path}:3: duplicate id '1'")


def test_a_whole_document_is_refused_with_its_size(file: File) -> None:
    load_chunks(file({"id": "a", "text": "w " * MAX_CHUNK_WORDS}))
    message = refusal(file({"id": "a", "text": "w " * (MAX_CHUNK_WORDS + 1)}))
    assert "20,001 words" in message
    assert "`qaeval chunk`" in message
    assert "20,001 words" in refusal(file({"id": "a", "text": "天" * (MAX_CHUNK_WORDS + 1)}))


def test_twenty_problems_are_listed_and_all_are_counted(file: File) -> None:
    path = file(*[{"id": str(n)} for n in range(23)], {"id": "a", "text": "x"})
    lines = refusal(path).split("\n")
    assert lines[0].startswith(f"{path}: 23 lines ")
    assert [line.split(" no text")[0] for line in lines[1:]] == [
        f"  {path}:{number}:" for number in range(1, 21)
    ]


def test_two_problems_are_both_listed(file: File) -> None:
    path = file({"id": "a"}, "x")
    summary, *problems = refusal(path).split("\n")
    assert summary.startswith(f"{path}: 2 lines ")
    assert [problem.split(": ")[:2] for problem in problems] == [
        [f"  {path}:1", "no text"],
        [f"  {path}:2:1", "not JSON"],
    ]


@pytest.mark.parametrize("lines", [(), ("", "  ")])
def test_an_empty_file_is_refused(file: File, lines: tuple[str, ...]) -> None:
    assert "the file is empty" in refusal(file(*lines))


@pytest.mark.parametrize("name", ["handbook.md", "handbook.pdf", "docs"])
def test_documents_in_place_of_chunks_name_the_command_that_reads_them(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    document = path / "a.html" if name == "docs" else path
    document.parent.mkdir(exist_ok=True)
    document.write_text("# Title")
    assert f"`qaeval chunk {path}`" in refusal(path)


def test_rows_are_read_whatever_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "chunks.txt"
    path.write_text('\ufeff{"id": "a", "text": "x"}\n')
    assert [chunk.chunk_id for chunk in load_chunks(path)] == ["a"]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.jsonl") == f"{tmp_path / 'none.jsonl'}: no such file."
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b'{"id": "a", "text": "x"}\n{"id": "b", "text": "\xe4"}\n')
    assert refusal(bad).startswith(f"{bad}:2: not UTF-8")
    assert "0xe4" in refusal(bad)
    assert "offset 46" in refusal(bad)


CASES = Path(__file__).parent / "data" / "cases"


def langchain(kwargs: dict[str, object]) -> dict[str, object]:
    return {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "document", "Document"],
        "kwargs": kwargs,
    }


@pytest.mark.parametrize(
    ("row", "chunk"),
    [
        (  # LangChain: Document.model_dump(), and dumps()
            {
                "id": None,
                "page_content": "x",
                "metadata": {"source": "a.md", "start_index": 0},
                "type": "Document",
            },
            {"document": "a.md"},
        ),
        (
            langchain({"id": "7", "page_content": "x", "metadata": {"source": "a.md", "title": "T"}}),
            {"chunk_id": "7", "document": "a.md", "title": "T"},
        ),
        (  # LlamaIndex: TextNode.to_dict()
            {
                "id_": "n1",
                "embedding": None,
                "metadata": {"file_path": "d/a.pdf", "page_label": "3"},
                "relationships": {"1": {"node_id": "d1", "metadata": {}}},
                "text": "x",
                "class_name": "TextNode",
            },
            {"chunk_id": "n1", "document": "d/a.pdf"},
        ),
        (  # Haystack: Document.to_dict(flatten=False)
            {
                "id": "h",
                "content": "x",
                "blob": None,
                "meta": {"file_path": "a.txt", "language": "de"},
                "score": None,
            },
            {"chunk_id": "h", "document": "a.txt", "language": "de"},
        ),
        (  # Unstructured: an element
            {
                "type": "NarrativeText",
                "element_id": "e",
                "text": "x",
                "metadata": {"filename": "a.docx", "languages": ["eng"], "page_number": 1},
            },
            {"chunk_id": "e", "document": "a.docx", "language": "eng"},
        ),
        ({"_id": "b", "title": "T", "text": "x", "metadata": {}}, {"chunk_id": "b", "title": "T"}),  # BEIR
        (
            {"id": "m", "text": "x", "metadata": {"service": "GATE", "tags": {}, "n": None}},
            {"stratum": "GATE"},
        ),
        ({"id": "m", "text": "x", "metadata": "free text"}, {"stratum": "all"}),
    ],
)
def test_fields_of_other_tools_are_recognised(file: File, row: object, chunk: dict[str, str]) -> None:
    (loaded,) = load_chunks(file(row))
    assert loaded.text == "x"
    assert {name: getattr(loaded, name) for name in chunk} == chunk


def test_an_array_of_unstructured_elements_is_read(tmp_path: Path) -> None:
    path = tmp_path / "elements.json"
    elements = [{"element_id": str(n), "text": f"text {n}", "metadata": {}} for n in range(3)]
    path.write_text(json.dumps(elements, indent=2))
    assert [chunk.chunk_id for chunk in load_chunks(path)] == ["0", "1", "2"]


def test_a_chunk_without_an_id_has_one_of_its_text(file: File) -> None:
    first, second = load_chunks(file({"text": "x"}, {"text": "y", "id": None}))
    (moved,) = load_chunks(file({"text": "y"}))
    assert len({first.chunk_id, second.chunk_id}) == 2
    assert moved.chunk_id == second.chunk_id


def test_ids_in_metadata_count_without_options() -> None:
    chunks = load_chunks(CASES / "chunks_id_in_metadata.jsonl")
    assert [chunk.chunk_id for chunk in chunks] == ["faq-0", "faq-1", "faq-2"]
    assert (chunks[0].stratum, chunks[0].document) == ("GATE", "faq.html")


def test_a_dotted_field_name_is_a_path(file: File) -> None:
    path = file({"id": "a", "text": "x", "extra": {"deep": {"key": "k", "list": [1]}}, "a.b": "literal"})
    assert load_chunks(path, {"chunk_id": "extra.deep.key"})[0].chunk_id == "k"
    assert load_chunks(path, {"title": "a.b"})[0].title == "literal"
    with pytest.raises(DataError, match="expected text"):
        load_chunks(path, {"title": "extra.deep.list"})


def test_a_field_name_that_no_object_has_is_an_error() -> None:
    with pytest.raises(UsageError) as refused:
        load_chunks(CASES / "chunks_with_stratum.jsonl", {"stratum": "stratm"})
    assert "'stratm'" in str(refused.value)
    assert "'stratum'" in str(refused.value)


def test_an_id_that_is_there_twice_is_refused_or_numbered() -> None:
    path = CASES / "chunks_id_twice.jsonl"
    message = refusal(path)
    assert message.startswith(f"{path}:3: ")
    assert "line 1" in message
    assert "--duplicate-ids number" in message
    assert [chunk.chunk_id for chunk in load_chunks(path, duplicate_ids="number")] == [
        "data-1",
        "food-1",
        "data-1-2",
    ]


def test_a_numbered_id_is_never_one_of_the_file(file: File) -> None:
    rows = [{"id": name, "text": f"{name} {n}"} for n, name in enumerate(["a", "a-2", "a", "a"])]
    ids = [chunk.chunk_id for chunk in load_chunks(file(*rows), duplicate_ids="number")]
    assert ids == ["a", "a-2", "a-3", "a-4"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xef\xbb\xbf",
        b"a",
        b"a\r\nb\n\n",
        b"\xef\xbb\xbfa\r\r\nb\r",
        "ü\u2028\x85\n€".encode(),
        b"a\r\n\xff\n",
        b"\xef\xbb\xbfa\xe2\x82\n",
        b"a\n\xe2\x82",
        b"\xef\xbb\n",
    ],
)
def test_a_file_read_by_line_is_that_which_is_read_whole(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(raw)

    def outcome(read: Callable[[Path], str]) -> str:
        try:
            return read(path)
        except DataError as error:
            return str(error)

    assert outcome(lambda path: "".join(read_lines(path))) == outcome(read_text)
