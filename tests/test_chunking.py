import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from figures import Bar
from qaeval.corpus.chunking import (
    DocumentChunk,
    _sentences,
    _units,
    chunk_documents,
    tokenizer_counter,
    words_counter,
)
from qaeval.corpus.documents import cut_documents
from qaeval.corpus.loading import load_chunks
from qaeval.corpus.reading import Document, Line, find_documents, read_document
from qaeval.errors import DataError, UsageError
from qaeval.records import Chunk

ReadText: TypeAlias = Callable[..., Document]


def count_words(text: str) -> int:
    """Count one token per word, so that expected sizes can be counted by eye."""
    return len(text.split())


@pytest.fixture
def read_text(tmp_path: Path) -> ReadText:
    def read_text(content: str | bytes, name: str = "guide.md") -> Document:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_document(path)

    return read_text


def markdown_document(text: str, name: str = "guide.md") -> Document:
    lines = tuple(Line(line, number) for number, line in enumerate(text.split("\n"), start=1))
    return Document(Path(name), name, "guide", lines, "lines", markdown=True)


def make_chunks(document: Document | str, size: int = 1000, **options: Any) -> list[DocumentChunk]:
    if isinstance(document, str):
        document = markdown_document(document)
    return list(chunk_documents([document], size=size, **{"count": count_words, **options}))


def chunk_texts(document: Document | str, size: int = 1000, **options: Any) -> list[str]:
    return [chunk.text for chunk in make_chunks(document, size, **options)]


def visible_lines(document: Document) -> list[str]:
    return [line.text for line in document.lines if line.text.strip()]


def pdf_bytes(*pages: Sequence[str]) -> bytes:
    """Return a PDF with these lines of text on each page."""
    bodies = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    bodies.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    page_references = []
    for lines in pages:
        operators = " ".join(f"({line}) Tj T*" for line in lines)
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {operators} ET"
        page_references.append(f"{len(bodies) + 1} 0 R")
        resources = f"/Resources << /Font << /F1 3 0 R >> >> /Contents {len(bodies) + 2} 0 R"
        bodies.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {resources} >>")
        bodies.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    bodies[1] = f"<< /Type /Pages /Kids [{' '.join(page_references)}] /Count {len(page_references)} >>"
    body_text, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(bodies, start=1):
        offsets.append(len(body_text))
        body_text += f"{number} 0 obj\n{body}\nendobj\n"
    entries = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    table = f"xref\n0 {len(bodies) + 1}\n0000000000 65535 f \n{entries}"
    trailer = f"trailer\n<< /Size {len(bodies) + 1} /Root 1 0 R >>\nstartxref\n{len(body_text)}\n%%EOF\n"
    return (body_text + table + trailer).encode("cp1252")


# --- chunks checked by hand


def test_long_enough_sections_become_chunks_with_their_heading_path() -> None:
    text = (
        "# Guide\n\nOne two three.\n\n## Install\n\nFour five six.\n\n### From source\n\nSeven eight nine.\n"
    )
    chunks = make_chunks(text, size=20, min_tokens=3)
    expected = [
        "# Guide\n\nOne two three.",
        "## Install\n\nFour five six.",
        "### From source\n\nSeven eight nine.",
    ]
    assert [chunk.text for chunk in chunks] == expected
    titles = ["Guide", "Guide > Install", "Guide > Install > From source"]
    assert [chunk.title for chunk in chunks] == titles
    assert [chunk.place for chunk in chunks] == [{"lines": [1, 3]}, {"lines": [5, 7]}, {"lines": [9, 11]}]
    assert [chunk.n_tokens for chunk in chunks] == [5, 5, 6]


def test_short_sections_share_a_chunk_with_their_common_title() -> None:
    (chunk,) = make_chunks("# Guide\n\n## A\n\nOne.\n\n## B\n\nTwo.\n", min_tokens=50)
    assert chunk.title == "Guide"


def test_chunks_without_a_top_heading_use_the_document_title() -> None:
    assert [chunk.title for chunk in make_chunks("Intro.\n\n## A\n\nOne.\n", min_tokens=1)] == [
        "guide",
        "guide > A",
    ]


def test_heading_stays_with_its_text_even_above_the_size() -> None:
    parts = chunk_texts("Before it.\n\n# A\n\n## B\n\none two three four five six\n", size=6, min_tokens=0)
    expected = ["Before it.", "# A\n\n## B\n\none two three four five six"]
    assert parts == expected


def test_headings_without_text_are_kept() -> None:
    parts = chunk_texts("# A\n\n## B\n\n## C\n\nText.\n\n## D\n", size=4, min_tokens=0)
    assert "\n".join(parts).split() == ["#", "A", "##", "B", "##", "C", "Text.", "##", "D"]


def test_blocks_that_fit_are_not_split() -> None:
    parts = chunk_texts("a b c d e f.\n\ng h i. j k l.\n\nm n.\n", size=10, min_tokens=1)
    expected = ["a b c d e f.", "g h i. j k l.\n\nm n."]
    assert parts == expected


def test_large_paragraph_is_split_at_sentence_ends() -> None:
    parts = chunk_texts(
        "One two three. Four five\nsix. Seven eight nine! Ten eleven?\n", size=6, min_tokens=0
    )
    expected = ["One two three. Four five\nsix.", "Seven eight nine! Ten eleven?"]
    assert parts == expected


def test_oversized_sentence_is_a_chunk_of_its_own() -> None:
    long_sentence = " ".join(f"W{number}" for number in range(50)) + "."
    assert chunk_texts(f"Short one. {long_sentence} Short two.", size=10) == [
        "Short one.",
        long_sentence,
        "Short two.",
    ]


def test_single_huge_line_is_split_only_at_sentence_ends() -> None:
    line = " ".join(f"Sentence number {number} is here." for number in range(2000))
    parts = chunk_texts(line, size=100)
    assert " ".join(parts) == line
    assert max(map(count_words, parts)) <= 100
    unbroken = "x" * 100_000
    assert chunk_texts(unbroken, size=10) == [unbroken]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("word " * 100_000, "a.txt"),
        ("# " + "word " * 100_000 + "\n\nText.", "a.md"),
        ("iVBORw0KGgo" * 20_000, "a.txt"),
        (
            "A pump. ![](data:image/png;base64," + "iVBORw0KGgo" * 20_000 + ") It stops. " + "word " * 9,
            "a.md",
        ),
        ("漢字" * 30_000, "a.md"),
    ],
)
def test_what_is_far_above_the_size_is_cut_and_complete(read_text: ReadText, text: str, name: str) -> None:
    for size in (20, 400):
        chunks = make_chunks(read_text(text, name), size, count=words_counter())
        assert max(chunk.n_tokens for chunk in chunks) <= size
        assert max(len(chunk.text) for chunk in chunks) <= 2_000 + 5 * size
        assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())
        assert all(chunk.text in text for chunk in chunks)
        assert max(len(chunk.title) for chunk in chunks) <= 1_000


def test_pieces_of_a_long_line_of_code_or_row_stand_below_their_fence_or_header() -> None:
    line = " ".join(f"w{number}" for number in range(5_000))
    fenced = chunk_texts(f"```sh\n{line}\n```", size=400)
    assert {(text[:6], text[-4:]) for text in fenced} == {("```sh\n", "\n```")}
    assert drawn_words("\n".join(fenced)) == line.split()
    rows = chunk_texts(f"| h |\n|---|\n| {line} |\n", size=400)
    assert all(text.startswith("| h |\n|---|\n") and count_words(text) <= 400 for text in rows)
    assert drawn_words("\n".join(rows)) == line.split()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["!" * 20_000, ". " * 10_000, "x" + " " * 20_000 + "y.", "` " * 10_000])
def test_long_runs_of_punctuation_and_spaces_are_fast(read_text: ReadText, text: str) -> None:
    assert "".join("".join(chunk_texts(read_text(text))).split()) == "".join(text.split())


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("<!--" * 50_000, "a.md"),
        ("<!--" * 50_000, "a.html"),
        ("<!--" * 50_000 + "-->", "a.html"),
        ("<!-- x\n" * 28_000, "a.md"),
        ("<!-- x\n" * 28_000, "a.html"),
        ("# a" + " " * 200_000 + "b", "a.md"),
        ("# a" + " {#" * 66_000, "a.md"),
        ("! ( " * 50_000, "a.md"),
        ("! ( " * 50_000, "a.txt"),
        ("---\ntitle: a" + " " * 200_000 + "b\n---\n", "a.md"),
        ("- [a](#a)\n\n* [b](#b)\n\n" * 8_000, "a.md"),
        (" ".join("`" * n for n in range(1, 630)), "a.md"),
        (" ".join("`" * n for n in range(1, 630)), "a.txt"),
    ],
)
@pytest.mark.slow
def test_pathological_text_of_200_kb_is_fast(read_text: ReadText, text: str, name: str, bar: Bar) -> None:
    started = process_time()
    make_chunks(read_text(text, name), size=400, count=words_counter())
    bar(f"{text[:20]!r} in {name}, CPU s", process_time() - started, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Use e.g. Redis. Then go.", ["Use e.g. Redis.", "Then go."]),
        ("See `a. B` now. Next.", ["See `a. B` now.", "Next."]),
        ("J. Smith et al. Wrote it. Then.", ["J. Smith et al. Wrote it.", "Then."]),
        ("Version 3.5 is out. 4 is not.", ["Version 3.5 is out.", "4 is not."]),
        ("1. First. Second.", ["1. First.", "Second."]),
        ("He left … and came. Yes?! No.", ["He left … and came.", "Yes?!", "No."]),
        ("Costs . . . . . 12. Then.", ["Costs . . . . .", "12. Then."]),
        ("这是一。那是二！", ["这是一。", "那是二！"]),
        ('She said "go." Then he went.', ['She said "go."', "Then he went."]),
        ("See [x](a.b?c=d. e). Next.", ["See [x](a.b?c=d. e).", "Next."]),
    ],
)
def test_sentence_boundaries(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in _sentences(text)] == expected


def test_large_table_is_split_between_rows_with_its_header_repeated() -> None:
    table = "| h | i |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n"
    header = "| h | i |\n|---|---|\n"
    parts = chunk_texts(table, size=16)
    expected = [f"{header}| 1 | 2 |\n| 3 | 4 |", f"{header}| 5 | 6 |"]
    assert parts == expected
    assert [chunk.place for chunk in make_chunks(table, size=16)] == [{"lines": [1, 4]}, {"lines": [5, 5]}]


def test_large_fence_is_split_between_lines_with_its_markers_repeated() -> None:
    parts = chunk_texts("~~~py title\na b c\n\nd e f\ng h i\n~~~\n", size=8)
    expected = ["~~~py title\na b c\n~~~", "~~~py title\nd e f\n~~~", "~~~py title\ng h i\n~~~"]
    assert parts == expected


def test_table_header_and_fence_end_are_never_separate_chunks() -> None:
    blocks = ["a b c d e", "|h|\n|-|\n|a b c d|\n|e f|"]
    assert chunk_texts("\n\n".join(blocks), size=8, min_tokens=8) == blocks
    first, last = "```\na b\n```", "```\nc d e f\n```"
    parts = chunk_texts("```\na b\nc d e f\n```\n", size=6)
    assert parts == [first, last]


def test_fence_at_the_end_of_the_document_is_one_block() -> None:
    blocks = ["a b c", "```\nd\ne\n```"]
    assert chunk_texts("\n\n".join(blocks), size=6, min_tokens=1) == blocks


def test_a_fence_in_a_list_is_repeated_without_the_marker_of_the_list() -> None:
    parts = chunk_texts("- ```sh\n  a b c\n  d e f\n  ```\n", size=5)
    expected = ["- ```sh\n  a b c\n  ```", "  ```sh\n  d e f\n  ```"]
    assert parts == expected


def test_lines_with_hashes_in_a_fence_are_not_headings() -> None:
    chunks = make_chunks("# Guide\n\nText.\n\n```sh\n# install it\nmake\n## and go\n```\n", min_tokens=1)
    assert len(chunks) == 1
    assert chunks[0].title == "Guide"


def test_unclosed_fence_is_kept_unchanged() -> None:
    assert chunk_texts("```\na\nb\n", size=100) == ["```\na\nb"]


def test_nested_lists_are_split_at_the_outermost_item() -> None:
    text = "- a one\n  - b two\n  - c three\n- d four\n\n  More of d.\n  1. e five\n- f six\n"
    expected = [
        "- a one\n  - b two\n  - c three",
        "- d four\n\n  More of d.\n  1. e five\n- f six",
    ]
    assert chunk_texts(text, size=12, min_tokens=3) == expected


def test_listing_without_sentences_is_split_between_lines() -> None:
    listing = "\n".join(f"entry{number} a b" for number in range(20))
    assert "\n".join(chunk_texts(listing, size=9)) == listing


def test_overlap_repeats_whole_sentences_of_the_same_section() -> None:
    text = "# A\n\nOne two. Three four. Five six. Seven eight.\n\n# B\n\nNine ten.\n"
    expected = [
        "# A\n\nOne two. Three four.",
        "Three four. Five six. Seven eight.",
        "# B\n\nNine ten.",
    ]
    assert chunk_texts(text, size=6, overlap=2, min_tokens=1) == expected


def test_overlap_never_repeats_a_heading() -> None:
    parts = chunk_texts("# A\n\nOne two.\n\nThree four. Five six.", size=7, overlap=4, min_tokens=1)
    expected = ["# A\n\nOne two.", "One two.\n\nThree four. Five six."]
    assert parts == expected


def test_overlap_is_omitted_where_new_text_needs_the_space() -> None:
    sentences = ["One aa bb cc.", "Two aa bb cc.", "Three aa bb cc."]
    assert chunk_texts(" ".join(sentences), size=6, overlap=5) == sentences


def test_overlap_in_a_table_repeats_a_complete_row_below_the_header() -> None:
    parts = chunk_texts("|h|\n|-|\n|a|\n|b|\n|c|\n|d|\n", size=5, overlap=3)
    expected = ["|h|\n|-|\n|a|\n|b|\n|c|", "|h|\n|-|\n|c|\n|d|"]
    assert parts == expected


def test_link_targets_and_raw_html_are_kept() -> None:
    text = "See [a].\n\n[a]: http://x\n[b]: http://y\n\n<details>\n<p>z</p>\n</details>"
    assert chunk_texts(text) == [text]


def test_stratum_is_the_top_folder_or_the_document_name() -> None:
    assert make_chunks(markdown_document("Text.", "guide/deep/a.md"))[0].stratum == "guide"
    assert make_chunks(markdown_document("Text.", "install.md"))[0].stratum == "install"


def test_ids_contain_document_number_and_text_hash() -> None:
    ids = [chunk.chunk_id for chunk in make_chunks(markdown_document("a b.\n\nc d.", "g/i.md"), size=2)]
    assert len(ids) == 2
    assert all(
        re.fullmatch(rf"g/i\.md#00{number}-[0-9a-f]{{8}}", chunk_id) for number, chunk_id in enumerate(ids, 1)
    )


def test_ids_are_unique_and_stable_when_a_document_is_added() -> None:
    first, second = markdown_document("Same.\n\n# X\n\nSame.", "a.md"), markdown_document("Same.", "b.md")
    options: dict[str, Any] = {"size": 2, "count": count_words}
    ids_of_second = [chunk.chunk_id for chunk in chunk_documents([second], **options)]
    ids_of_both = [chunk.chunk_id for chunk in chunk_documents([first, second], **options)]
    assert ids_of_both[-1:] == ids_of_second
    assert len(set(ids_of_both)) == len(ids_of_both)


def test_duplicate_document_names_are_refused() -> None:
    with pytest.raises(DataError, match=r"duplicate document name 'guide\.md'"):
        list(chunk_documents([markdown_document("a"), markdown_document("b")], size=5, count=count_words))


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 5, "overlap": 5}, {"size": 5, "min_tokens": 6}])
def test_contradictory_sizes_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"size {options['size']}, overlap"):
        list(chunk_documents([], count=count_words, **options))


def test_rows_are_read_back_as_chunks(tmp_path: Path) -> None:
    (chunk,) = make_chunks(markdown_document("# A\n\nText.", "g/a.md"))
    path = tmp_path / "chunks.jsonl"
    path.write_text(json.dumps(chunk.row()) + "\n", "utf-8")
    assert load_chunks(path) == (
        Chunk(chunk_id=chunk.chunk_id, text="# A\n\nText.", stratum="g", document="g/a.md", title="A"),
    )
    assert chunk.row()["place"] == {"lines": [1, 3]}


# --- properties


words = st.integers(1, 4)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Draw Markdown of the words w0, w1, … in order, a few in each sentence, row, item or line of code."""
    n_words = 0

    def next_words() -> str:
        nonlocal n_words
        new = [f"w{n_words + number}" for number in range(draw(words))]
        n_words += len(new)
        return " ".join(new)

    blocks = []
    for kind in draw(
        st.lists(st.sampled_from(["heading", "text", "list", "table", "code", "quote"]), max_size=12)
    ):
        repeats = range(draw(st.integers(1, 8)))
        if kind == "heading":
            blocks.append(f"{'#' * draw(st.integers(1, 4))} {next_words()}")
        elif kind == "text":
            blocks.append(
                "".join(f"W {next_words()}.{draw(st.sampled_from([' ', chr(10)]))}" for _ in repeats).rstrip()
            )
        elif kind == "list":
            blocks.append("\n".join(f"{draw(st.sampled_from(['', '  ']))}- {next_words()}" for _ in repeats))
        elif kind == "table":
            rows = [f"| {next_words()} | {next_words()} |" for _ in repeats]
            blocks.append("\n".join(["| h | i |", "|---|---|", *rows]))
        elif kind == "code":
            blocks.append("\n".join(["```sh", *(f"# {next_words()}" for _ in repeats), "```"]))
        else:
            blocks.append("\n".join(f"> {next_words()}." for _ in repeats))
    return "\n\n".join(blocks)


def drawn_words(text: str) -> list[str]:
    return re.findall(r"\bw\d+\b", text)


@pytest.mark.slow
@given(documents(), st.integers(40, 90), st.integers(0, 40))
def test_without_overlap_each_word_is_in_one_chunk_in_order(text: str, size: int, min_tokens: int) -> None:
    assert drawn_words("\n".join(chunk_texts(text, size, min_tokens=min_tokens))) == drawn_words(text)


@pytest.mark.slow
@given(documents(), st.integers(40, 90), st.integers(0, 39), st.integers(0, 40))
def test_chunks_respect_the_size_and_never_end_with_a_heading(
    text: str, size: int, overlap: int, min_tokens: int
) -> None:
    lines = text.split("\n")
    for chunk in make_chunks(text, size, overlap=overlap, min_tokens=min_tokens):
        # four headings and the first row of a table have 37 tokens
        assert chunk.n_tokens == count_words(chunk.text) <= size
        last = chunk.place["lines"][1]
        following_lines = [line for line in lines[last:] if line.strip()]
        if re.match("#+ w", lines[last - 1]) and following_lines and not chunk.text.endswith("```"):
            level, next_heading = lines[last - 1].index(" "), re.match("#+ ", following_lines[0])
            assert next_heading
            assert len(next_heading[0]) - 1 <= level, (
                "a heading may only end a chunk when nothing stands below it"
            )


@pytest.mark.slow
@given(documents(), st.integers(1, 60), st.data())
def test_table_rows_and_code_lines_are_never_split(text: str, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    lines = {line for part in chunk_texts(text, size, overlap=overlap) for line in part.split("\n")}
    for line in text.split("\n"):
        if line.startswith(("|", "# ", "```")):
            assert line in lines
    assert {line for line in lines if line.startswith(("|", "# ", "```"))} <= set(text.split("\n"))


@pytest.mark.slow
@given(documents(), st.integers(10, 60), st.integers(0, 9))
def test_overlap_repeats_only_the_end_of_the_previous_chunk(text: str, size: int, overlap: int) -> None:
    previous: list[str] = []
    for part in chunk_texts(text, size, overlap=overlap):
        new = drawn_words(part)
        repeated = [word for word in new if word in previous]
        assert repeated == new[: len(repeated)] == previous[len(previous) - len(repeated) :]
        assert len(repeated) <= overlap
        previous += new[len(repeated) :]
    assert previous == drawn_words(text)


messy = st.text(st.sampled_from("ab #`~|-*>.!?\n\n\t:[]()<1\u00a0。é\x0c"), max_size=200)


@given(messy, st.booleans())
def test_units_cover_all_visible_text_once(text: str, is_markdown: bool) -> None:
    lines = tuple(Line(line, number) for number, line in enumerate(text.split("\n"), start=1))
    document = Document(Path("a"), "a", "a", lines, "lines", markdown=is_markdown)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line.text) + 1)
    position = 0
    for unit in _units(document, text, offsets):
        assert position <= unit.start < unit.end
        assert not text[position : unit.start].strip()
        assert text[unit.start : unit.end].strip()
        position = unit.end
    assert not text[position:].strip()


@given(messy, st.integers(1, 12), st.data())
def test_chunks_of_arbitrary_text_are_deterministic_and_valid(
    text: str, size: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    chunks = make_chunks(text, size, overlap=overlap, count=words_counter())
    assert chunks == make_chunks(text, size, overlap=overlap, count=words_counter())
    assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)
    for chunk in chunks:
        assert chunk.text.strip()
        first, last = chunk.place["lines"]
        assert 1 <= first <= last <= text.count("\n") + 1


# --- counters


def test_words_counter_counts_four_tokens_for_three_words() -> None:
    counter = words_counter()
    assert [counter(text) for text in ("", "one", "one two three", "a b c d", "東京都")] == [0, 2, 4, 6, 4]
    assert [counter(text) for text in ("ใบรับรองมี", "서버 설정")] == [
        4,
        6,
    ]  # four letters of Thai, a syllable of Korean


def test_tokenizer_counter_loads_from_a_file_or_folder(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106 - no secret
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer_counter(tmp_path)("a b, c") == 4
    assert tokenizer_counter(tmp_path / "tokenizer.json")("") == 0


def test_missing_or_broken_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json: no such file"):
        tokenizer_counter(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(DataError, match=r"not a tokenizer\.json"):
        tokenizer_counter(tmp_path)


# --- reading


def test_markdown_boilerplate_is_removed_and_line_numbers_are_kept(read_text: ReadText) -> None:
    document = read_text(
        """\
---
title: "The guide: all of it"
tags:
  - a
---
[![build](http://x/b.svg)](http://x) ![logo](l.png)

<!-- a comment
of two lines -->

## Contents

- [Install](#install)
  - [`x` and y](#x)

# Guide

Text <!-- hidden --> with `<!-- code -->`.

```html
<!-- shown -->
![shown](x)
```
- [not only anchors](other.md)
"""
    )
    expected = "The guide: all of it"
    assert document.title == expected
    lines = [
        (16, "# Guide"),
        (18, "Text with `<!-- code -->`."),
        (20, "```html"),
        (21, "<!-- shown -->"),
        (22, "![shown](x)"),
        (23, "```"),
        (24, "- [not only anchors](other.md)"),
    ]
    assert [(line.place, line.text) for line in document.lines if line.text.strip()] == lines
    assert make_chunks(document)[0].place == {"lines": [16, 24]}


def test_text_between_two_rules_is_not_front_matter(read_text: ReadText) -> None:
    assert visible_lines(read_text("---\n\nJust text.\n\n---\n")) == ["---", "Just text.", "---"]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# a | b\n|---|---|\n| 1 | 2 |\n\n# Real\n", "Real"),  # the next line makes it a table
        ("```\n# comment\n```\n\nReal\n===\n", "Real"),
        ("Long\ntitle\n===\n\n# Second\n", "Long title"),
        ("# See [Pumps][p]\n\nText.\n\n[p]: https://example.org\n", "See Pumps"),  # a later reference
        ("- # in a list\n\n> # quoted\n\nText.\n", "doc"),
    ],
)
def test_title_detection(tmp_path: Path, text: str, title: str) -> None:
    path = tmp_path / "doc.md"
    path.write_text(text + "\nMore text.\n" * 3)
    assert read_document(path).title == title


def test_title_is_the_first_top_heading_or_the_file_name(read_text: ReadText) -> None:
    document = read_text("## a\n\n# B `c` [d](e) {#f}\n")
    assert document.title == "B c d"
    assert read_text("# [1.0]\n\n[1.0]: http://x\n").title == "1.0"
    assert read_text("text").title == "guide"


def test_line_endings_and_byte_order_mark_are_ignored(read_text: ReadText) -> None:
    text = "# A\n\nOne two. Three.\n\n| h |\n|---|\n| x |\n\n```\na\n\nb\n```\n"
    expected = make_chunks(read_text(text), size=5)
    assert make_chunks(read_text(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()), size=5) == expected
    assert make_chunks(read_text(text.replace("\n", "\r")), size=5) == expected


@pytest.mark.parametrize("name", ["a.md", "a.txt", "a.html", "a.rst"])
@pytest.mark.parametrize("content", ["", "\n \n\n"])
def test_an_empty_document_has_no_chunks(read_text: ReadText, name: str, content: str) -> None:
    assert make_chunks(read_text(content, name)) == []


@pytest.mark.parametrize("name", ["a.md", "a.txt", "a.html"])
def test_invalid_utf8_is_refused_with_file_and_line(read_text: ReadText, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name}:2: not UTF-8"):
        read_text(b"one\n\xff\xfe", name)
    with pytest.raises(DataError, match=rf"{name}:2: a NUL character"):
        read_text(b"one\n\0", name)


def test_html_may_declare_its_encoding(read_text: ReadText) -> None:
    assert visible_lines(
        read_text('<meta charset="iso-8859-1"><p>Grüße</p>'.encode("latin-1"), "a.html")
    ) == ["Grüße"]
    with pytest.raises(DataError, match=r"a\.html: .*'klingon'"):
        read_text(b'<meta charset="klingon"><p>\xfc</p>', "a.html")


def test_plain_text_and_restructured_text_are_read_unchanged(read_text: ReadText) -> None:
    document = read_text("# no heading\n\n<!-- kept -->\n", "notes.rst")
    assert (document.markdown, document.title) == (False, "notes")
    expected = ["# no heading\n\n<!-- kept -->"]
    assert chunk_texts(document) == expected


PAGE = """<!DOCTYPE html><html><head><title>Site - Page</title><style>x{}</style></head><body>
<header><h1>Site</h1></header><nav>Navigation</nav><div role="search">Search</div>
<main><article><header><h1>Page<a class="headerlink" href="#page">¶</a></h1></header>
<a href="/edit">Edit this page</a><p>Some <em>text</em> in snake_case.</p>
<h2><a href="#code">Code</a><a href="#code">#</a></h2>
<div class="highlight-python"><div class="highlight"><pre><span>import x
# ```
</span></pre></div><button>Copy</button></div>
<table><tr><th>h</th><th>i</th></tr><tr><td>a|b</td><td>1<br>2</td></tr></table>
<div id="cookie-banner">Accept</div><section id="cookies"><p>About cookies.</p></section>
<p hidden>Hidden</p><p style="display: none">Hidden</p><script>s()</script><form>f</form>
</article></main><aside>Aside</aside><footer>Footer</footer></body></html>"""


def test_main_part_of_a_page_is_converted_to_markdown(read_text: ReadText) -> None:
    document = read_text(PAGE, "page.html")
    assert document.title == "Page"
    expected = [
        "# Page",
        "Some *text* in snake_case.",
        "## Code",
        "````python",
        "import x",
        "# ```",
        "````",
        "| h | i |",
        "| --- | --- |",
        r"| a\|b | 1 2 |",
        "About cookies.",
    ]
    assert visible_lines(document) == expected
    assert [(chunk.title, chunk.place) for chunk in make_chunks(document, min_tokens=5)] == [
        ("Page", {"blocks": [1, 2]}),
        ("Page > Code", {"blocks": [3, 6]}),
    ]


def test_page_without_main_part_or_heading_uses_its_title_element(read_text: ReadText) -> None:
    document = read_text("<title>T</title><main> </main><body><nav>n</nav><p>Text.</p></body>", "a.html")
    assert (document.title, visible_lines(document)) == ("T", ["Text."])


def test_carriage_returns_in_a_page_break_lines(read_text: ReadText) -> None:
    assert visible_lines(read_text("<pre>a&#13;b</pre><p>c</p>", "a.html")) == ["```", "a", "b", "```", "c"]


def test_deeply_nested_page_is_refused(read_text: ReadText) -> None:
    with pytest.raises(DataError, match=r"a\.html: .*nested too deeply"):
        read_text("<div>" * 20_000 + "x", "a.html")


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>a <b>b<p>c<h2>d</h2><div>e</div>f", ["a **b**", "c", "## d", "e", "f"]),
        ("<ul><li>a<ul><li>b<li>c</ul><li>d</ul>", ["- a", "  - b", "  - c", "- d"]),
        ("<ol start=9><li>a<p>b<li><li>c</ol><ol start='²'><li>d", ["9. a", "   b", "11. c", "1. d"]),
        ("<table><tr><th>h<th>i<tr><td>1<p>2<td>3</table>", ["| h | i |", "| --- | --- |", "| 1 2 | 3 |"]),
        ("<table><thead><tr><th>h<tbody><tr><td colspan='²'>1</table>", ["| h |", "| --- |", "| 1 |"]),
        ("<p>a<table><tr><td><p>b<td>c</table>d", ["a", "| b | c |", "| --- | --- |", "d"]),
        ("<dl><dt>a<dd>b<p>c<dt>d<dd>e</dl>", ["a", ":   b", "    c", "d", ":   e"]),
        ("<select><option>a <option>b</select>", ["a b"]),
    ],
)
def test_optional_html_end_tags_are_implied(read_text: ReadText, html: str, expected: list[str]) -> None:
    assert visible_lines(read_text(html, "a.html")) == expected


@pytest.mark.timeout(110)
@pytest.mark.parametrize(
    ("opening", "unclosed"),
    [
        ("", "<p>x"),
        ("<ul>", "<li>x\n"),
        ("<ol>", "<li>x"),
        ("<table>", "<tr><td>x"),
        ("<table><tr>", "<td>x"),
        ("<dl>", "<dt>x"),
        ("<dl>", "<dd>x"),
    ],
)
@pytest.mark.slow
def test_8_000_elements_without_end_tags_are_read(
    read_text: ReadText, opening: str, unclosed: str, bar: Bar
) -> None:
    started = process_time()
    document = read_text(opening + unclosed * 8_000, "a.html")
    bar(f"{unclosed} 8,000 times, CPU s", process_time() - started, 4)  # quadratic time would be twenty
    assert "".join(visible_lines(document)).count("x") == 8_000


def test_unfinished_tag_is_text_and_broken_section_is_refused(read_text: ReadText) -> None:
    assert visible_lines(read_text("<p>a < b", "a.html")) == ["a < b"]
    with pytest.raises(DataError, match=r"a\.html: invalid HTML"):
        read_text("<![foo[ <p>x", "a.html")


def test_self_links_in_headings_are_replaced_by_their_text(read_text: ReadText) -> None:
    source = "# [Error `Handling`](#e)\n\n[X [y]](#x)\n===\n\n## [a](b.md#c)\n\n## [a](#a) b\n\n[p](#p)\n"
    document = read_text(source)
    assert document.title == "Error Handling"
    assert visible_lines(document) == [
        "# Error `Handling`",
        "X [y]",
        "===",
        "## [a](b.md#c)",
        "## [a](#a) b",
        "[p](#p)",
    ]
    heading = '<h1 id="e"><a class="header" href="#e">Error</a></h1>'
    assert visible_lines(read_text(f"{heading}<p>x</p>", "new.html")) == ["# Error", "x"]
    heading = '<a class="header" href="#e" id="e"><h1>Error</h1></a>'
    assert visible_lines(read_text(f"{heading}<p>x</p>", "old.html")) == ["# Error", "x"]


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("title:", "T"),
        ("title: 'a: b' ", "a: b"),
        ('"title" = "a \'b\'"', "a 'b'"),
        ("title: \"a' b", "\"a' b"),
    ],
)
def test_front_matter_title(read_text: ReadText, line: str, title: str) -> None:
    document = read_text(f"---\n{line}\nlayout: post\n---\n# T\n")
    assert document.title == title


def page(attributes: str) -> str:
    return f"<!doctype html><html {attributes}><body><p>Text</p></body></html>"


@pytest.mark.parametrize(
    ("content", "name", "language"),
    [
        (page('lang="de-DE"'), "a.html", "de"),
        (page('xml:lang="FR"'), "a.html", "fr"),
        (page(""), "a.html", ""),
        (page("lang"), "a.html", ""),
        ("<p lang='fr'>Text</p>", "a.html", ""),  # a paragraph of another page
        ("---\nlang: pt_BR\n---\nText\n", "a.md", "pt"),
        ("---\ntitle: T\nlanguage: 'nl'\n---\nText\n", "a.md", "nl"),
        ('+++\nlanguage = "sv"\n+++\nText\n', "a.md", "sv"),
        ("---\nlanguage: python\n---\nText\n", "a.md", ""),
        ("---\nauthor:\n  lang: fr\n---\nText\n", "a.md", ""),  # of the author
        ("lang: fr\n", "a.md", ""),
        (pdf_bytes(["Text"]).replace(b"/Catalog", b"/Catalog /Lang (it-CH)"), "a.pdf", "it"),
        (pdf_bytes(["Text"]), "a.pdf", ""),
    ],
)
def test_the_language_that_a_document_states_is_that_of_its_chunks(
    tmp_path: Path, content: str | bytes, name: str, language: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert [row["language"] for row in cut_documents([tmp_path], size=400).rows] == [language]
    assert [row["language"] for row in cut_documents([tmp_path], size=400, language="en").rows] == ["en"]


def test_pdf_is_read_by_page_without_headers_footers_and_hyphenation(read_text: ReadText) -> None:
    bodies = [["A first exam-", "ple goes"], ["on here. Two."], ["Three."], ["Four."]]
    document = read_text(
        pdf_bytes(
            *(["The manual", *body, f"Page {number} of 4"] for number, body in enumerate(bodies, start=1))
        ),
        "m.pdf",
    )
    assert [(line.place, line.text) for line in document.lines if line.text.strip()] == [
        (1, "A first example"),
        (1, "goes"),
        (2, "on here. Two."),
        (3, "Three."),
        (4, "Four."),
    ]
    expected = [
        ("A first example\ngoes\non here.", {"pages": [1, 2]}),
        ("Two.\n\nThree.\n\nFour.", {"pages": [2, 4]}),
    ]
    assert [(chunk.text, chunk.place) for chunk in make_chunks(document, size=6, min_tokens=0)] == expected


def test_pages_of_the_same_form_keep_their_numbers(read_text: ReadText) -> None:
    pages = [[f"Server {n}", f"CPU: {4 * n} cores", f"Price: {7 * n} EUR"] for n in range(1, 7)]
    document = read_text(pdf_bytes(*pages), "servers.pdf")
    assert visible_lines(document) == [line for page in pages for line in page]
    with_edges = [["Price list 2026", *page, f"Page {n} of 6"] for n, page in enumerate(pages, start=1)]
    assert visible_lines(read_text(pdf_bytes(*with_edges), "list.pdf")) == visible_lines(document)


def test_a_page_number_in_a_header_is_dropped_and_no_page_is_emptied(read_text: ReadText) -> None:
    texts = ["One.", "Two.", "", "Four.", "Five."]
    pages = [[f"User manual {n + 9}", "Acme 2026", text] for n, text in enumerate(texts)]
    assert visible_lines(read_text(pdf_bytes(*pages), "m.pdf")) == [
        "One.",
        "Two.",
        "User manual 11",
        "Acme 2026",
        "Four.",
        "Five.",
    ]


def test_lines_shared_by_only_three_pages_are_kept(read_text: ReadText) -> None:
    assert (
        visible_lines(read_text(pdf_bytes(["Same", "a."], ["Same", "b."], ["Same", "c."]), "m.pdf")).count(
            "Same"
        )
        == 3
    )


def test_pdf_without_text_is_refused(read_text: ReadText) -> None:
    with pytest.raises(DataError, match=r"scan\.pdf: .*no text.*OCR"):
        read_text(pdf_bytes([], []), "scan.pdf")


@pytest.mark.parametrize("content", [b"", b"no pdf", b"%PDF-1.4\n1 0 obj\n<<"])
@pytest.mark.filterwarnings("ignore")
def test_a_broken_pdf_is_refused(read_text: ReadText, content: bytes) -> None:
    with pytest.raises(DataError, match=r"m\.pdf: "):
        read_text(content, "m.pdf")


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.md", "no such file"), ("a.pdf", "cannot be read"), ("a.docx", r"expected a document \(\.md")],
)
def test_unreadable_file_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"{name}: {message}"):
        read_document(tmp_path / name)


# --- finding


def test_documents_are_found_below_folders_in_order(tmp_path: Path) -> None:
    for name in (
        "b.md",
        "a/z.HTML",
        "a/a.txt",
        ".git/x.md",
        "node_modules/y.md",
        "a/.hidden.md",
        "logo.png",
        "x/c.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x", "utf-8")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "c.md").symlink_to(tmp_path / "b.md")
    ignored: Counter[str] = Counter()
    documents_found = find_documents([tmp_path, tmp_path / "b.md"], ignored)
    assert [name for _, name in documents_found] == ["a/a.txt", "a/z.HTML", "b.md"]
    assert all(path == tmp_path / name for path, name in documents_found)
    assert ignored == {".png": 1, ".py": 1}


def test_document_name_is_the_given_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    Path("docs/a.md").write_text("x", "utf-8")
    assert find_documents([Path("docs/a.md")]) == [(Path("docs/a.md"), "docs/a.md")]
    assert find_documents([tmp_path / "docs/a.md"]) == [(tmp_path / "docs/a.md", "a.md")]


def test_missing_or_ambiguous_documents_are_refused(tmp_path: Path) -> None:
    for name in ("a/i.md", "b/i.md", "x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x", "utf-8")
    with pytest.raises(DataError, match=r"b/i\.md: .*'i\.md'.* .*a/i\.md"):
        find_documents([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(DataError, match="none: no such file"):
        find_documents([tmp_path / "none"])
    with pytest.raises(DataError, match=r"x\.png: expected a document"):
        find_documents([tmp_path / "x.png"])


def test_file_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.md")).write_text("x", "utf-8")
    with pytest.raises(DataError, match=r"caf\\xe9\.md: .*UTF-8"):
        find_documents([tmp_path])


def test_links_out_of_a_folder_are_skipped_and_counted(tmp_path: Path) -> None:
    docs, outside = tmp_path / "docs", tmp_path / "docs-private"
    docs.mkdir()
    outside.mkdir()
    (docs / "b.md").write_text("x", "utf-8")
    (outside / "secret.md").write_text("x", "utf-8")
    (docs / "file.md").symlink_to(outside / "secret.md")
    (docs / "folder").symlink_to(outside)
    (docs / "inside.md").symlink_to("b.md")
    (tmp_path / "alias").symlink_to(docs)
    for root in (docs, tmp_path / "alias"):
        ignored: Counter[str] = Counter()
        assert [name for _, name in find_documents([root], ignored)] == ["b.md"]
        expected = {"link out of the folder": 2}
        assert ignored == expected
    assert [name for _, name in find_documents([docs / "file.md"])] == ["file.md"]


def test_default_minimum_is_a_quarter_of_the_size() -> None:
    text = "\n\n".join(f"## H{n}\n\n" + " ".join(["word"] * n) + "." for n in range(1, 24))
    by_default = chunk_texts(text, size=40)
    assert by_default == chunk_texts(text, size=40, min_tokens=10)
    assert all(by_default != chunk_texts(text, size=40, min_tokens=min_tokens) for min_tokens in (8, 13))


@pytest.mark.slow
def test_documents_read_in_processes_give_the_chunks_and_messages_of_one_process(tmp_path: Path) -> None:
    script = f"<script>{'x' * 600_000}</script>"
    for name, n_paragraphs in (("a", 300), ("c", 1)):  # the first takes the longest
        paragraphs = "".join(f"<p>The {name} valve {n} opens.</p>" for n in range(n_paragraphs))
        (tmp_path / f"{name}.html").write_text(f"<html><body>{script}{paragraphs}</body></html>")
    for name in ("b", "d"):
        (tmp_path / f"{name}.html").write_bytes(b"<p>\xff</p>")
    in_one, in_two = (
        cut_documents([tmp_path], size=400, skip_unreadable=True, processes=processes) for processes in (1, 2)
    )
    assert in_two == in_one
    assert [row["document"] for row in in_two.rows][:: len(in_two.rows) - 1] == ["a.html", "c.html"]
    assert in_two.unreadable.index("b.html") < in_two.unreadable.index("d.html")
