import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaeval.text.units import (
    content_words,
    count_words,
    has_no_spaces,
    is_german,
    named_terms,
    numbers,
    sentences,
    stem,
    units,
    words,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "Use a broker, e.g. RabbitMQ, for Dr. Lee. It works, i.e. It queues.",
            ["Use a broker, e.g. RabbitMQ, for Dr. Lee.", "It works, i.e. It queues."],
            id="abbreviations do not end a sentence",
        ),
        pytest.param(
            "Nutzen Sie z. B. PostgreSQL. Am 3. Mai endet der Support, d. h. Updates entfallen.",
            ["Nutzen Sie z. B. PostgreSQL.", "Am 3. Mai endet der Support, d. h. Updates entfallen."],
            id="nor do German ones and dates",
        ),
        pytest.param(
            "Python 3.11.2 needs 1.5 GB. Version 2.0 needs more.",
            ["Python 3.11.2 needs 1.5 GB.", "Version 2.0 needs more."],
            id="decimals and versions stay whole",
        ),
        pytest.param(
            "Steps:\n\n1. Stop the server\n2. Copy the files\n   to the disk\n- [x] Start it",
            ["Steps:", "Stop the server", "Copy the files to the disk", "Start it"],
            id="list items are units",
        ),
        pytest.param(
            "| Code | Meaning | Retry |\n|---|:-:|---|\n| 429 | too many | yes |\n| 401 | no token | |",
            ["429: Meaning too many; Retry yes", "401: Meaning no token"],
            id="table rows name their columns",
        ),
        pytest.param(
            "| a | b |\n| c | d |", ["a: b", "c: d"], id="a table without a rule keeps its first row"
        ),
        pytest.param(
            "**Never** use [the old API](https://x.example/a) or `my_flag_*`.",
            ["Never use the old API or `my_flag_*`."],
            id="emphasis and links are removed, code is kept",
        ),
    ],
)
def test_text_is_split_into_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_code_blocks_and_headings_are_not_sentences() -> None:
    text = "# Title. With dot\n\nRun it.\n\n```bash\nmake. Not prose. ok\n```\nThen wait."
    assert sentences(text) == ["Run it.", "Then wait."]
    assert [unit.kind for unit in units(text)] == ["heading", "sentence", "code", "sentence"]


def test_units_have_their_heading() -> None:
    parsed_units = units("# One\nA b.\n## Two\nC d.")
    assert [(unit.text, unit.heading) for unit in parsed_units if unit.kind == "sentence"] == [
        ("A b.", "One"),
        ("C d.", "Two"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "The low-rank `max_tokens` is 24GB, 5% of utf-8.",
            ["the", "low-rank", "max_tokens", "is", "24gb", "5%", "of", "utf-8"],
        ),
    ],
)
def test_words_keep_hyphens_units_and_identifiers(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The caches are cached by caching a cache", {"cach"}),
        ("Der Server und die Server", {"server"}),
    ],
)
def test_content_words_join_inflections_and_drop_stop_words(text: str, expected: set[str]) -> None:
    assert set(content_words(text)) == expected


def test_content_words_repeat() -> None:
    assert content_words("Server, die Server") == ["server", "server"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,000 of 1,5 and 5 % in three steps of v2 with utf-8", ["1000", "1.5", "5%", "3"]),
        ("between 10-20 and 3.11.2", ["10", "20", "3.11.2"]),
    ],
)
def test_numbers_have_one_spelling(text: str, expected: list[str]) -> None:
    assert numbers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "The gateway sends JSON to PostgreSQL. Requests use OAuth and `retry`. Ask Grafana.",
            ["JSON", "PostgreSQL", "OAuth", "retry", "Grafana"],
            id="not words at the start of a sentence",
        ),
        pytest.param(
            "Der Server ist mit der Datenbank und mit vLLM verbunden.", ["vLLM"], id="not German nouns"
        ),
    ],
)
def test_named_terms(text: str, expected: list[str]) -> None:
    assert named_terms(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Der Server startet nicht, wenn der Speicher voll ist.", True),
        ("The server does not start when the disk is full.", False),
        ("", False),
    ],
)
def test_language_is_detected_by_common_words(text: str, expected: bool) -> None:
    assert is_german(text) is expected


@pytest.mark.slow
@given(st.text())
def test_sentences_add_no_letters(text: str) -> None:
    # A stray `|` or `*` may join or part tokens, so the letters are compared, not the tokens.
    letters = set(text.casefold())
    assert all(
        set(word) <= letters | set("-_.'’:/@%") for sentence in sentences(text) for word in words(sentence)
    )


@given(st.text(alphabet="abcdefginrsty", min_size=1))
def test_a_stem_is_never_longer_than_its_word(word: str) -> None:
    assert len(stem(word)) <= len(word)
    assert stem(word)


def test_spelled_numbers_count_like_digits_in_both_languages() -> None:
    english = "two three four five six seven eight nine ten eleven twelve"
    german = "zwei drei vier fünf sechs sieben acht neun zehn elf zwölf"
    for spelled in (english, german):
        for value, word in enumerate(spelled.split(), 2):
            assert numbers(f"It has {word} parts.") == numbers(f"It has {value} parts."), word


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("", 0),
        ("The port is 8000.", 4),
        ("Für\u00a0alle – gültig\nab heute.", 6),
        ("合同工只有三十天", 8),
        ("VPN 证书的有效期是 90 天", 10),
        ("契約社員は30日間です。", 11),
        ("ใบรับรองมีอายุเก้าสิบวัน", 6),
        ("인증서는 90일 동안 유효하다", 4),  # Korean has spaces
    ],
)
def test_words_are_counted_in_scripts_without_spaces_too(text: str, n: int) -> None:
    assert count_words(text) == n


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("合同工使用 VPN 需要申请吗？", True),
        ("ใบรับรอง VPN", True),
        ("The Chinese word 关系 (guanxi) has no exact translation.", False),
        ("인증서는 90일 동안 유효하다", False),
        ("", False),
    ],
)
def test_a_text_has_no_spaces_by_its_script(text: str, expected: bool) -> None:
    assert has_no_spaces(text) is expected
