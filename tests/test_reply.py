import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qaeval.chat.reply import ReplyError, extract_json

TEXT = st.text(st.characters(codec="utf-8"))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=4)
PROSE = st.text(st.characters(codec="utf-8", exclude_characters="[]{}"))


def reason(text: str, *, lenient: bool) -> str:
    with pytest.raises(ReplyError) as raised:
        extract_json(text, lenient=lenient)
    return raised.value.reason


def lenient(text: str) -> Any:
    return extract_json(text, lenient=True)


# ---- both modes


@given(VALUES, st.booleans(), st.booleans())
def test_json_is_read_as_it_stands(value: Any, ascii_only: bool, is_lenient: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert extract_json(text, lenient=is_lenient) == value


@pytest.mark.parametrize("is_lenient", [True, False])
@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_no_text_is_empty(text: str, is_lenient: bool) -> None:
    assert reason(text, lenient=is_lenient) == "empty"


@pytest.mark.parametrize("is_lenient", [True, False])
def test_raw_control_characters_are_kept(is_lenient: bool) -> None:
    assert extract_json('{"a": "x\ty\nz\x0e"}', lenient=is_lenient) == {"a": "x\ty\nz\x0e"}


@pytest.mark.parametrize("is_lenient", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        '{"letter": "A", "letter": "B"}',
        '{"a": {"b": 1, "b": 1}}',
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": "\\ud800"}',
        '{"a": "\ud800"}',
        '{"a": "b"',
        '{"a": "b}',
        '{"a" "b"}',
        "{'a': 'b'}",
        '{"a": 1"}',
        '{"a": tr ue}',
        "[,]",
        '{"a":,}',
        '{"a": 1,,}',
        '[1,, "b"]',
        '{"a": [1, "x"}',
        "just words",
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "[" * 101 + '"x"' + "]" * 101,
    ],
)
def test_what_is_not_one_sound_value_is_invalid(text: str, is_lenient: bool) -> None:
    assert reason(text, lenient=is_lenient) == "invalid_json"


def test_the_deepest_nesting_that_is_read() -> None:
    text = "[" * 100 + '"x"' + "]" * 100
    assert json.dumps(extract_json(text, lenient=False)) == text


# ---- strict


@pytest.mark.parametrize(
    "text", ['```json\n{"a": 1}\n```', 'Sure: {"a": 1}', '{"a": 1,}', r'{"a": "\_"}', '\ufeff{"a": 1}']
)
def test_strict_mode_mends_nothing(text: str) -> None:
    assert reason(text, lenient=False) == "invalid_json"


def test_the_detail_shows_what_came() -> None:
    with pytest.raises(ReplyError) as raised:
        extract_json("Sure: {}", lenient=False)
    assert "'Sure: {}'" in raised.value.detail


# ---- lenient


@given(
    OBJECTS,
    PROSE,
    PROSE,
    st.sampled_from(["{}", "```json\n{}\n```", "```\n{}```", "**{}**", "\ufeff{}"]),
    st.booleans(),
)
@example({}, "", "", "{}", True)
@example({}, "Infinity", "", "{}", True)
@example({}, "1e999 ", "", "{}", True)
@example({"a": "```"}, "Here: ", " Done!", "```json\n{}\n```", True)
def test_an_object_between_words_is_recovered_equal(
    value: dict[str, Any], before: str, after: str, fence: str, ascii_only: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=1)
    assert lenient(before + fence.replace("{}", text) + after) == value


@pytest.mark.slow
@given(st.lists(OBJECTS, min_size=1))
def test_a_list_of_objects_is_recovered_equal(value: list[Any]) -> None:
    assert lenient(f"Here you are:\n{json.dumps(value)}\nBye.") == value


@given(
    TEXT.filter(lambda text: '"' not in text and "\\" not in text),
    st.sampled_from("_$acdeghijklmopqsvwxyz (*#-."),
)
def test_a_backslash_that_escapes_nothing_is_kept(words: str, escaped: str) -> None:
    assert lenient(f'{{"a": "{words}\\{escaped}"}}') == {"a": f"{words}\\{escaped}"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"$\alpha \times \beta$", r"$\alpha \times \beta$"),
        (r"\frac{1}{2} \cdot \nabla", r"\frac{1}{2} \cdot \nabla"),
        (r"C:\Users\x", r"C:\Users\x"),
        (r"a\_b\nnext", "a\\_b\nnext"),
        (r"\$5 \\ \" \u00e9 \/", '\\$5 \\ " é /'),
        (r"tab\tonly", "tab\tonly"),
        (r"\\alpha", r"\alpha"),
    ],
)
def test_latex_and_escapes_are_told_apart(written: str, meant: str) -> None:
    assert lenient(f'{{"a": "{written}"}}') == {"a": meant}


@pytest.mark.slow
@given(OBJECTS)
def test_trailing_commas_change_nothing(value: dict[str, Any]) -> None:
    text = json.dumps({"a": value, "b": [value]})[:-2]
    assert lenient(f"{text},\n ], }}") == {"a": value, "b": [value]}


def test_commas_and_brackets_inside_strings_stay() -> None:
    assert lenient('x {"a": ",]}", "b": [",}",],}') == {"a": ",]}", "b": [",}"]}


@pytest.mark.parametrize(
    "text",
    [
        'As the text says [1], and [see 2]: {"a": 1}',
        'Use {placeholder} or \\frac{1}{2}. {"a": 1} [3]',
        '{"a": 1} (a set {1, 2} and {})',
    ],
)
def test_brackets_of_plain_words_are_words(text: str) -> None:
    assert lenient(text) == {"a": 1}


@pytest.mark.parametrize(("text", "value"), [("It is [1, 2].", [1, 2]), ("So: {}", {}), ("[1] {}", {})])
def test_a_small_value_counts_where_there_is_no_other(text: str, value: Any) -> None:
    assert lenient(text) == value


@pytest.mark.slow
@given(OBJECTS.filter(bool), OBJECTS.filter(bool), PROSE)
def test_two_objects_are_ambiguous(first: dict[str, Any], second: dict[str, Any], between: str) -> None:
    assert reason(f"{json.dumps(first)}{between}{json.dumps(second)}", lenient=True) == "invalid_json"


@pytest.mark.parametrize(
    "text",
    [
        '{"letter": "A"} no wait, {"letter": "B"}',
        '[{"a": 1}] or [{"a": 2}]',
        '{"note": "x"} [{"a": 1}]',
        "[1] or [2]",
        'Here: {"pairs": [{"a": 1}, {"a": 2}',
        '{"pairs": [{"a": 1}] "x"}',
        "{'pairs': [{'a': 1}]}",
        'Here {"a": 1, "a": 2}',
        'Here: {"a": NaN}',
    ],
)
def test_nothing_is_guessed(text: str) -> None:
    assert reason(text, lenient=True) == "invalid_json"


@pytest.mark.slow
@given(OBJECTS.filter(bool), st.data())
def test_a_reply_that_was_cut_is_never_a_value(value: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(value)
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    assert reason(cut, lenient=True) == "invalid_json"


@given(st.text(st.sampled_from('{}[]",:\\ab1 \n')))
def test_any_text_is_a_value_or_a_reply_error(text: str) -> None:
    for is_lenient in (False, True):
        try:
            json.dumps(extract_json(text, lenient=is_lenient))
        except ReplyError as error:
            assert error.reason in {"empty", "invalid_json"}  # noqa: PT017 - either is right


def test_long_replies_take_linear_time() -> None:
    for text in (
        "[a] " * 50_000,
        "{" * 200_000,
        '"' * 200_000,
        "[" + "\\" * 200_000,
        '{"a": "' + "\\_" * 100_000,
    ):
        assert reason(text, lenient=True) == "invalid_json"
