"""The token of the letter is found in the bytes of a reply; other tokens are not parsed."""

import json
import math
import re
from typing import Any

import orjson
import pytest

from qaeval.chat.logprobs import NOT_READABLE, alternatives, load_reply
from qaeval.chat.wire import read_completion

LETTER = re.compile(r'"letter"\s*:\s*"([A-Z])')
PIECES = [
    '{"',
    "reason",
    '": "',
    "The",
    " letter",
    ' \\"',
    "A",
    '\\" ]}]',
    '",',
    ' "letter',
    '": "',
    "B",
    '"}',
    "",
]


def token_entry(text: str, *others: tuple[str, float], logprob: float = -0.5) -> dict[str, Any]:
    candidates = [(text, logprob), *others]
    tokens = [{"token": token, "logprob": value, "bytes": [*token.encode()]} for token, value in candidates]
    return {**tokens[0], "top_logprobs": tokens}


def reply_bytes(pieces: list[str], *, swapped: bool = False, spaced: bool = False, **letter: Any) -> bytes:
    entries = [token_entry(piece, ("x", -2.0), ("]}]", -3.0)) for piece in pieces]
    letter_index = len(pieces) - 3
    entries[letter_index] = {**token_entry("B", ("A", -1.0), ("C", -9999.0)), **letter}
    message = {"role": "assistant", "content": "".join(pieces)}
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": {"content": entries}}
    if swapped:
        choice = {"index": 0, "logprobs": {"content": entries}, "message": message}
    reply = {"id": "x", "choices": [{**choice, "finish_reason": "stop"}], "usage": None, "model": "m"}
    return json.dumps(reply).encode() if spaced else orjson.dumps(reply)


@pytest.mark.parametrize(
    "layout", [{}, {"swapped": True}, {"spaced": True}], ids=["vllm", "swapped", "spaced"]
)
@pytest.mark.parametrize("n_before", [0, 200])
def test_alternatives_of_the_last_letter_are_read_from_any_reply_layout(
    layout: dict[str, bool], n_before: int
) -> None:
    pieces = [*PIECES[:3], *["word "] * n_before, *PIECES[3:]]
    completion = read_completion(reply_bytes(pieces, **layout), latency_s=0, max_tokens=512, pattern=LETTER)
    letter_alternatives = completion.alternatives
    assert letter_alternatives is not None
    assert (letter_alternatives.token, letter_alternatives.at) == ("B", 0)
    assert letter_alternatives.top == {"B": -0.5, "A": -1.0, "C": -9999.0}
    assert completion.text == "".join(pieces)
    assert completion.remark == ""


def test_letter_far_from_the_end_is_found() -> None:
    pieces = [*PIECES[:-2], *[" "] * 60]
    entries = [token_entry(piece, ("x", -2.0)) for piece in pieces]
    tokens = orjson.dumps(entries)[1:-1]
    letter_alternatives = alternatives(None, tokens, LETTER)
    assert letter_alternatives is not None
    assert letter_alternatives.top == {"B": -0.5, "x": -2.0}


def test_tokens_before_the_end_of_a_reply_are_not_parsed() -> None:
    # the finest pieces that tokenizers make of the end of a reply with flags
    end = [
        '"',
        "letter",
        '"',
        ":",
        " ",
        '"',
        "B",
        '"',
        ",",
        " ",
        '"',
        "flaw",
        '"',
        ":",
        " ",
        '"',
        "none",
        '"',
        "}",
    ]
    read = orjson.dumps([token_entry(piece) for piece in [*[" word"] * 5, *end]])[1:-1]
    unreadable = b'{"token":"unreadable,"logprob":-0.5,"bytes":[],"top_logprobs":[]},' * 80
    letter_alternatives = alternatives(None, unreadable + read, LETTER)
    assert letter_alternatives is not None
    assert letter_alternatives.top == {"B": -0.5}


def test_letter_in_the_last_token_is_found() -> None:
    tokens = orjson.dumps([token_entry(piece) for piece in ('{"letter": "', "C")])[1:-1]
    letter_alternatives = alternatives(None, tokens, LETTER)
    assert letter_alternatives is not None
    assert (letter_alternatives.token, letter_alternatives.top) == ("C", {"C": -0.5})


def test_a_reply_without_a_letter_has_no_alternatives() -> None:
    tokens = orjson.dumps([token_entry(piece) for piece in PIECES[:8]])[1:-1]
    assert alternatives(None, tokens, LETTER) is None


def test_tokens_without_the_letter_are_not_parsed() -> None:
    content = reply_bytes(PIECES)
    reply, tokens = load_reply(content)
    assert reply["choices"][0]["logprobs"] == {"content": []}
    assert len(orjson.dumps(reply)) + len(tokens) == len(content)
    content = reply_bytes([*PIECES[:4], *["word "] * 30, *PIECES[4:]])
    broken = content.replace(b'"token":"The","logprob":-0.5', b'"token":"The","logprob":NaN')
    assert broken != content
    completion = read_completion(broken, latency_s=0, max_tokens=512, pattern=LETTER)
    assert completion.alternatives is not None


@pytest.mark.parametrize("logprob", [None, "-0.1", True, 1e9], ids=["null", "text", "flag", "huge"])
def test_invalid_probability_of_the_letter_drops_only_the_alternatives(logprob: Any) -> None:
    completion = read_completion(
        reply_bytes(PIECES, logprob=logprob), latency_s=0, max_tokens=512, pattern=LETTER
    )
    assert completion.text == "".join(PIECES)
    assert completion.alternatives is None
    assert completion.remark == "log-probabilities in another form"


@pytest.mark.parametrize(
    "logprobs",
    ['{"content":[1,2]}', '{"content":"]}]"}', '{"content":[{"token":1,"top_logprobs":[]}]}', "[]", '"x"'],
)
def test_malformed_log_probabilities_keep_the_text(logprobs: str) -> None:
    content = f'{{"choices":[{{"message":{{"content":"{{}}"}},"logprobs":{logprobs},"finish_reason":"stop"}}]}}'.encode()
    completion = read_completion(content, latency_s=0, max_tokens=512, pattern=LETTER)
    assert (completion.text, completion.alternatives) == ("{}", None)
    assert completion.remark == ("log-probabilities in another form" if logprobs != "[]" else "")


@pytest.mark.parametrize(
    "text",
    [
        '","logprobs":{"content":[',
        '"letter": "A"',
        "]}]",
        '{"token":"',
        ',"top_logprobs":[',
        "\\",
        '\\"',
        "\u2028",
        "]}]},",
    ],
)
def test_text_that_resembles_the_reply_layout_is_read_as_text(text: str) -> None:
    pieces = [*PIECES[:3], text, *PIECES[3:8], text, *PIECES[8:]]
    for swapped in (False, True):
        content = reply_bytes(pieces, swapped=swapped)
        completion = read_completion(content, latency_s=0, max_tokens=512, pattern=LETTER)
        assert completion.text == "".join(pieces)
        assert completion.alternatives is not None
        assert completion.alternatives.top == {"B": -0.5, "A": -1.0, "C": -9999.0}


def test_bytes_and_parsed_list_give_equal_alternatives_for_any_tokenisation() -> None:
    text = '{"reason": "He said \\"letter\\": \\"A\\", and more.", "letter": "B", "flaw": "none"}'
    for size in range(1, 12):
        entries = [
            token_entry(text[start : start + size], ("y", -4.0)) for start in range(0, len(text), size)
        ]
        by_bytes = alternatives(None, orjson.dumps(entries)[1:-1], LETTER)
        assert by_bytes == alternatives({"content": entries}, b"", LETTER)
        assert by_bytes is not None
        assert by_bytes.token[by_bytes.at] == "B"


def test_damaged_list_raises_only_not_readable_errors() -> None:
    tokens = orjson.dumps([token_entry(piece) for piece in PIECES])[1:-1]
    n_refused = 0
    for index in range(0, len(tokens), 7):
        try:
            alternatives(None, tokens[:index] + b"!" + tokens[index + 1 :], LETTER)
        except NOT_READABLE:
            n_refused += 1
    assert n_refused > 10


def test_probabilities_of_tokens_with_equal_text_are_summed() -> None:
    tokens = orjson.dumps([token_entry('{"letter": "'), token_entry("B", ("B", -1.0))])[1:-1]
    letter_alternatives = alternatives(None, tokens, LETTER)
    assert letter_alternatives is not None
    assert math.exp(letter_alternatives.top["B"]) == pytest.approx(math.exp(-0.5) + math.exp(-1.0))
