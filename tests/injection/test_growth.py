"""No reply stops the process: the time of every pattern and reader grows with the length of the text, not with its square."""

import json
from collections.abc import Callable
from contextlib import suppress

import orjson
import pytest
from growth import Use, grows_too_fast, pumps, uses

from qaeval.chat.reply import ReplyError, extract_json
from qaeval.chat.wire import is_overflow, read_completion, server_message
from qaeval.evals.find import find_eval, find_rubric
from qaeval.records import Chunk, Sample
from qaeval.run import grade
from qaeval.run.items import read_items
from qaeval.text.control import escape, unknown_pieces

RUBRIC = find_rubric("qa_pair_abc")
EVALS = {name: find_eval(name) for name in ("qa_pairs", "rag_qa", "dpo_pairs")}
SAMPLE = Sample.of(
    Chunk(chunk_id="c", text="The pump starts at 3 bar. The valve closes in 5 seconds.", title="Pump")
)
VERDICT = '{"reason": "r", "letter": "A", "hallucination": false}'

PUMPS = (
    *('\\"', '"', "\\", "{", "[", "}", "]", '{"a":', '{"a":{', "[1],", "[1]", "{a:1}", "<", "<|", "[/", "</", " ", "\n", "\t\n"),
    *("a", "a ", "A", "1", "1.", "1,", ".", "...", "…", "_", "-", "(", ")", "`", "```", "|", "| ", "|\n", "* ", "# ", "- a\n", "'"),
    *('"a": 1,', '"letter": ', '"letter" ', VERDICT, "<think>", "</think>", "\\u0041", "\\ud800", "é", "￿", "\u200b", "“", "ab"),
    *("The pump starts. ", "Is it 3 bar? ", "because ", "https://a.b/", "a@b.c ", "x=1 ", "**a** ", "3 GB ", "the text says "),
)  # fmt: skip


def refuse(read: Callable[[], object]) -> None:
    with suppress(ReplyError):
        read()


def pair(text: str) -> str:
    keys = {"type": "factual", "question": text[: len(text) // 2] or "q", "answer": text or "a"}
    return json.dumps({"pairs": [keys | {"type": kind} for kind in ("factual", "conceptual", "comparison")]})


def body(text: str) -> bytes:
    logprobs = {"content": [{"token": text, "logprob": -1.0, "top_logprobs": []}]}
    choice = {"finish_reason": "stop", "message": {"content": text}, "logprobs": logprobs}
    return orjson.dumps({"choices": [choice]})


READERS: dict[str, Callable[[str], object]] = {
    "strict JSON": lambda text: refuse(lambda: extract_json(text, lenient=False)),
    "lenient JSON": lambda text: refuse(lambda: extract_json(text, lenient=True)),
    "lenient JSON in an object": lambda text: refuse(lambda: extract_json('{"a": "' + text, lenient=True)),
    "a list that never ends": lambda text: refuse(lambda: extract_json("[" + text, lenient=True)),
    "a verdict": lambda text: refuse(
        lambda: grade.parse_reply(text, RUBRIC, lenient=True, shown=(text, VERDICT))
    ),
    "a quoted verdict": lambda text: refuse(
        lambda: grade.parse_reply(VERDICT, RUBRIC, lenient=True, shown=(f"letter {text}",))
    ),
    **{
        f"items of {name}": lambda text, definition=definition: refuse(  # type: ignore[misc]
            lambda: read_items(text, SAMPLE, definition, lenient=True)
        )
        for name, definition in EVALS.items()
    },
    "checked pairs": lambda text: refuse(
        lambda: read_items(pair(text), SAMPLE, EVALS["qa_pairs"], lenient=False)
    ),
    "a checked answer": lambda text: refuse(
        lambda: read_items(json.dumps({"answer": text}), SAMPLE, EVALS["rag_qa"], lenient=False)
    ),
    "a checked preference": lambda text: refuse(
        lambda: read_items(
            json.dumps({"prompt": text, "chosen": text, "rejected": "no"}),
            SAMPLE,
            EVALS["dpo_pairs"],
            lenient=False,
        )
    ),
    "a completion": lambda text: read_completion(
        body(text), latency_s=0.0, max_tokens=10**6, pattern=grade._LETTER
    ),
    "an error": lambda text: (
        server_message(text.encode(errors="replace"), secret=None),
        is_overflow(text.encode(errors="replace")),
    ),
    "special tokens and marks": lambda text: (
        escape(text, ("<a>",), "0123456789abcdef"),
        unknown_pieces.__wrapped__(text),
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", READERS)
def test_the_time_of_a_reader_grows_with_the_text(name: str) -> None:
    slow = {}
    for pump in PUMPS:
        for suffix in ("", '"}', "\x00"):
            if ratio := grows_too_fast(READERS[name], pump, 5_000, suffix=suffix):
                slow[pump, suffix] = round(ratio, 1)
    assert slow == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_time_of_a_pattern_grows_with_the_text() -> None:
    slow: dict[str, list[str]] = {}
    patterns = uses()
    assert len(patterns) > 200
    for use in patterns:
        for pump in pumps(use.pattern):
            for suffix in ("", "\x00"):
                if grows_too_fast(use.apply, pump, 1_500, suffix=suffix):
                    slow.setdefault(f"{use.where}.{use.method}", []).append(pump)
    assert slow == {}


def test_a_pattern_that_grows_too_fast_is_found() -> None:
    import re  # noqa: PLC0415 - one use

    bad = Use("here", re.compile(r"\s+x"), "search")
    assert grows_too_fast(bad.apply, " ", 1_500) > 8
    assert not grows_too_fast(Use("here", re.compile(r"(?<!\s)\s+x"), "search").apply, " ", 1_500)


@pytest.mark.timeout(60)
def test_four_megabytes_of_escaped_quotation_marks_are_read_in_seconds() -> None:
    for text in (
        '{"' + '\\"' * 2**21,
        '[{"a": ' + '\\"' * 2**21,
        '"\\' * 2**21,
        "[" * 2**22,
    ):
        with pytest.raises(ReplyError):
            extract_json(text, lenient=True)
