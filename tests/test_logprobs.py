"""The token of the letter is found in the bytes of a reply; what nobody reads is never built."""

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


def entry(text: str, *others: tuple[str, float], logprob: float = -0.5) -> dict[str, Any]:
    listed = [(text, logprob), *others]
    tokens = [{"token": token, "logprob": value, "bytes": [*token.encode()]} for token, value in listed]
    return {**tokens[0], "top_logprobs": tokens}


def body(pieces: list[str], *, swapped: bool = False, spaced: bool = False, **letter: Any) -> bytes:
    entries = [entry(piece, ("x", -2.0), ("]}]", -3.0)) for piece in pieces]
    at = len(pieces) - 3
    entries[at] = {**entry("B", ("A", -1.0), ("C", -9999.0)), **letter}
    message = {"role": "assistant", "content": "".join(pieces)}
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": {"content": entries}}
    if swapped:
        choice = {"index": 0, "logprobs": {"content": entries}, "message": message}
    reply = {"id": "x", "choices": [{**choice, "finish_reason": "stop"}], "usage": None, "model": "m"}
    return json.dumps(reply).encode() if spaced else orjson.dumps(reply)


@pytest.mark.parametrize("form", [{}, {"swapped": True}, {"spaced": True}], ids=["vllm", "swapped", "spaced"])
@pytest.mark.parametrize("n_before", [0, 200])
def test_the_alternatives_of_the_last_letter_are_read_in_any_form_of_the_reply(
    form: dict[str, bool], n_before: int
) -> None:
    pieces = [*PIECES[:3], *["word "] * n_before, *PIECES[3:]]
    completion = read_completion(body(pieces, **form), latency_s=0, max_tokens=512, pattern=LETTER)
    found = completion.alternatives
    assert found is not None
    assert (found.token, found.at) == ("B", 0)
    assert found.top == {"B": -0.5, "A": -1.0, "C": -9999.0}
    assert completion.text == "".join(pieces)
    assert completion.remark == ""


def test_a_letter_far_from_the_end_is_found() -> None:
    pieces = [*PIECES[:-2], *[" "] * 60]
    entries = [entry(piece, ("x", -2.0)) for piece in pieces]
    tokens = orjson.dumps(entries)[1:-1]
    found = alternatives(None, tokens, LETTER)
    assert found is not None
    assert found.top == {"B": -0.5, "x": -2.0}


def test_a_letter_at_the_very_end_is_found() -> None:
    tokens = orjson.dumps([entry(piece) for piece in ('{"letter": "', "C")])[1:-1]
    found = alternatives(None, tokens, LETTER)
    assert found is not None
    assert (found.token, found.top) == ("C", {"C": -0.5})


def test_a_reply_without_a_letter_has_no_alternatives() -> None:
    tokens = orjson.dumps([entry(piece) for piece in PIECES[:8]])[1:-1]
    assert alternatives(None, tokens, LETTER) is None


def test_what_stands_at_tokens_that_nobody_reads_is_not_parsed() -> None:
    content = body(PIECES)
    reply, tokens = load_reply(content)
    assert reply["choices"][0]["logprobs"] == {"content": []}
    assert len(orjson.dumps(reply)) + len(tokens) == len(content)
    content = body([*PIECES[:4], *["word "] * 30, *PIECES[4:]])
    broken = content.replace(b'"token":"The","logprob":-0.5', b'"token":"The","logprob":NaN')
    assert broken != content
    completion = read_completion(broken, latency_s=0, max_tokens=512, pattern=LETTER)
    assert completion.alternatives is not None


@pytest.mark.parametrize("odd", [None, "-0.1", True, 1e9], ids=["null", "text", "flag", "huge"])
def test_an_odd_probability_of_the_letter_costs_the_alternatives_alone(odd: Any) -> None:
    completion = read_completion(body(PIECES, logprob=odd), latency_s=0, max_tokens=512, pattern=LETTER)
    assert completion.text == "".join(PIECES)
    assert completion.alternatives is None
    assert completion.remark == "log-probabilities in another form"


@pytest.mark.parametrize(
    "logprobs",
    ['{"content":[1,2]}', '{"content":"]}]"}', '{"content":[{"token":1,"top_logprobs":[]}]}', "[]", '"x"'],
)
def test_log_probabilities_of_another_form_leave_the_text(logprobs: str) -> None:
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
def test_no_text_of_the_model_is_taken_for_the_form(text: str) -> None:
    pieces = [*PIECES[:3], text, *PIECES[3:8], text, *PIECES[8:]]
    for swapped in (False, True):
        content = body(pieces, swapped=swapped)
        completion = read_completion(content, latency_s=0, max_tokens=512, pattern=LETTER)
        assert completion.text == "".join(pieces)
        assert completion.alternatives is not None
        assert completion.alternatives.top == {"B": -0.5, "A": -1.0, "C": -9999.0}


def test_bytes_and_list_give_the_same_on_any_split_of_a_reply_into_tokens() -> None:
    text = '{"reason": "He said \\"letter\\": \\"A\\", and more.", "letter": "B", "flaw": "none"}'
    for size in range(1, 12):
        entries = [entry(text[at : at + size], ("y", -4.0)) for at in range(0, len(text), size)]
        by_bytes = alternatives(None, orjson.dumps(entries)[1:-1], LETTER)
        assert by_bytes == alternatives({"content": entries}, b"", LETTER)
        assert by_bytes is not None
        assert by_bytes.token[by_bytes.at] == "B"


def test_not_even_a_damaged_list_raises_anything_else() -> None:
    tokens = orjson.dumps([entry(piece) for piece in PIECES])[1:-1]
    for at in range(0, len(tokens), 7):
        try:
            alternatives(None, tokens[:at] + b"!" + tokens[at + 1 :], LETTER)
        except NOT_READABLE:
            continue


def test_probabilities_add_up_over_tokens_of_the_same_text() -> None:
    tokens = orjson.dumps([entry('{"letter": "'), entry("B", ("B", -1.0))])[1:-1]
    found = alternatives(None, tokens, LETTER)
    assert found is not None
    assert math.exp(found.top["B"]) == pytest.approx(math.exp(-0.5) + math.exp(-1.0))
