import asyncio
import gzip
import math
import os
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaeval.chat.http import HttpChat
from qaeval.chat.protocol import ChatError, ChatRequest, Message, Sampling
from qaeval.chat.reply import extract_json
from qaeval.chat.wire import retry_after_s, without_thinking
from qaeval.errors import EndpointError, UsageError
from qaeval.records import Usage
from qaeval.serving.probe import probe
from replay.answers import count_tokens
from replay.server import Fault, LoopbackServer, recorded

SECRET = "sk-never-show-this"  # noqa: S105 - made up
GRADE_SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "letter": {"type": "string", "enum": ["A", "B", "C"]}},
    "required": ["reason", "letter"],
    "additionalProperties": False,
}
ASK = ChatRequest((Message("user", "The server waits five seconds before it closes a connection."),))


@pytest.fixture(scope="module")
def running() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def server(running: LoopbackServer) -> LoopbackServer:
    running.requests.clear()
    running.headers.clear()
    running._script.clear()
    running._faults.clear()
    running.latency_s = running.most_in_flight = running.n_counted = 0
    return running


class Naps:
    """A sleep that takes no time and remembers how long it should have been."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


def chat(server: LoopbackServer, **options: Any) -> HttpChat:
    defaults = {"base_url": server.url, "addresses": ("127.0.0.1",), "model": "tiny-gen", "sleep": Naps()}
    return HttpChat(**{**defaults, "rng": random.Random(0), **options})  # noqa: S311 - spreads retries


async def ask(server: LoopbackServer, request: ChatRequest = ASK, **options: Any) -> Any:
    async with chat(server, **options) as model:
        return await model.complete(request)


async def refused(server: LoopbackServer, **options: Any) -> ChatError:
    with pytest.raises(ChatError) as raised:
        await ask(server, **options)
    return raised.value


# ---- what fits the context


@pytest.mark.parametrize(("spare", "n_counted"), [(10, 0), (-10, 1)])
async def test_a_prompt_is_counted_where_its_estimate_is_within_a_tenth_of_the_room(
    server: LoopbackServer, spare: int, n_counted: int
) -> None:
    n_bytes = len(ASK.messages[0].content.encode())
    # before any reply: 2 bytes a token, and 256 tokens of the template
    context = math.ceil((n_bytes / 2 + 256) / 0.9) + ASK.sampling.max_tokens + spare
    assert (await ask(server, context=context)).text
    assert (server.n_counted, len(server.requests)) == (n_counted, 1)


def prompt_of(n_bytes: int) -> ChatRequest:
    return ChatRequest((Message("user", "x" * n_bytes),), sampling=Sampling(max_tokens=512))


async def test_the_size_of_a_token_is_learned_from_replies(server: LoopbackServer) -> None:
    # 24,000 bytes are 6,004 tokens of this server, and 12,256 before it has answered; 7,680 fit
    async with chat(server, context=8192) as model:
        for _ in range(50):
            await model.complete(prompt_of(24_000))
    assert (server.n_counted, len(server.requests)) == (1, 50)


async def test_prompts_far_from_the_limit_are_never_counted(server: LoopbackServer) -> None:
    async with chat(server, context=8192) as model:
        await asyncio.gather(*(model.complete(prompt_of(12_000)) for _ in range(100)))
    assert server.n_counted == 0


async def test_a_prompt_that_the_estimate_lets_through_and_the_context_does_not_is_an_overflow(
    server: LoopbackServer,
) -> None:
    server.answer(200, body_with(usage={"prompt_tokens": 10, "completion_tokens": 5}))
    async with chat(server, context=8192) as model:
        await model.complete(prompt_of(4_000))  # says 400 bytes a token
        with pytest.raises(ChatError) as raised:
            await model.complete(prompt_of(60_000))
    assert raised.value.reason == "context_overflow"
    assert server.n_counted == 0


async def test_a_prompt_that_fits_to_the_token_is_sent_and_one_token_more_is_not(
    server: LoopbackServer,
) -> None:
    n_tokens = count_tokens([{"role": "user", "content": ASK.messages[0].content}])
    context = n_tokens + ASK.sampling.max_tokens
    assert (await ask(server, context=context)).text
    error = await refused(server, context=context - 1)
    assert (error.reason, len(server.requests)) == ("context_overflow", 1)
    assert f"{context - 1:,}" in error.detail
    assert f" {n_tokens:,} tokens" in error.detail


async def test_a_server_that_cannot_count_is_sent_the_prompt(server: LoopbackServer) -> None:
    server.fail("no_tokenizer")
    assert (await ask(server, context=1)).text


# ---- what is sent


async def test_every_sampling_parameter_is_sent(server: LoopbackServer) -> None:
    await ask(server, ChatRequest(ASK.messages, sampling=Sampling(0.7, 0.9, 33, 5)))
    sent = server.requests[0]
    assert [sent[name] for name in ("model", "temperature", "top_p", "max_tokens", "seed")] == [
        "tiny-gen",
        0.7,
        0.9,
        33,
        5,
    ]
    assert not {"response_format", "logprobs", "top_logprobs", "stream"} & set(sent)


async def test_the_schema_travels_as_a_strict_response_format(server: LoopbackServer) -> None:
    schema = MappingProxyType({"type": "object", "properties": MappingProxyType({})})
    await ask(server, ChatRequest(ASK.messages, schema))
    form = server.requests[0]["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"] == {
        "name": "reply",
        "strict": True,
        "schema": {"type": "object", "properties": {}},
    }


async def test_no_schema_is_sent_where_the_server_enforces_none(server: LoopbackServer) -> None:
    await ask(server, ChatRequest(ASK.messages, GRADE_SCHEMA), structured="off")
    assert "response_format" not in server.requests[0]


async def test_the_system_message_is_merged_into_the_first_user_turn(server: LoopbackServer) -> None:
    request = ChatRequest(
        (Message("system", "Be exact."), Message("user", "One?"), Message("assistant", "Two."))
    )
    await ask(server, request, system_role="merge")
    assert server.requests[0]["messages"] == [
        {"role": "user", "content": "Be exact.\n\nOne?"},
        {"role": "assistant", "content": "Two."},
    ]


async def test_a_system_message_alone_becomes_a_user_turn(server: LoopbackServer) -> None:
    await ask(server, ChatRequest((Message("system", "Say hello."),)), system_role="merge")
    assert server.requests[0]["messages"] == [{"role": "user", "content": "Say hello."}]


async def test_extra_fields_are_sent(server: LoopbackServer) -> None:
    await ask(server, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}


def test_extra_fields_may_not_change_what_is_recorded(running: LoopbackServer) -> None:
    with pytest.raises(UsageError, match="temperature"):
        chat(running, extra_body={"temperature": 1})


async def test_fields_have_the_names_that_the_server_takes(server: LoopbackServer) -> None:
    await ask(server, fields={"max_tokens": "max_completion_tokens", "top_p": ""})
    (sent,) = server.requests
    assert sent["max_completion_tokens"] == ASK.sampling.max_tokens
    assert not {"max_tokens", "top_p"} & set(sent)


async def test_prefix_items_are_left_out_where_the_server_does_not_know_them(server: LoopbackServer) -> None:
    schema = {"type": "array", "prefixItems": [{"type": "string"}]}
    await ask(server, ChatRequest(ASK.messages, schema))
    await ask(server, ChatRequest(ASK.messages, schema), prefix_items=False)
    sent = [body["response_format"]["json_schema"]["schema"] for body in server.requests]
    assert sent == [schema, {"type": "array"}]


async def test_no_more_alternatives_are_asked_for_than_the_server_gives(server: LoopbackServer) -> None:
    await ask(server, ChatRequest(ASK.messages, top_logprobs=20), max_top_logprobs=5)
    await ask(server, ChatRequest(ASK.messages, top_logprobs=20), max_top_logprobs=0)
    assert server.requests[0]["top_logprobs"] == 5
    assert "logprobs" not in server.requests[1]


async def test_a_prompt_of_a_megabyte_is_sent_whole(server: LoopbackServer) -> None:
    server.replay("010_chat_basic")
    await ask(server, ChatRequest((Message("user", "wörd " * 300_000),), sampling=Sampling(max_tokens=24)))
    assert len(server.requests[0]["messages"][0]["content"]) == 1_500_000


async def test_half_a_surrogate_pair_in_the_prompt_is_rejected_unsent(server: LoopbackServer) -> None:
    with pytest.raises(ChatError, match="surrogates") as raised:
        await ask(server, ChatRequest((Message("user", "\ud800"),)))
    assert raised.value.reason == "rejected"
    assert server.requests == []


# ---- what is read


async def test_a_recorded_reply_becomes_a_completion(server: LoopbackServer) -> None:
    server.replay("010_chat_basic")
    completion = await ask(server, ChatRequest(ASK.messages, sampling=Sampling(max_tokens=24)))
    assert completion.text.startswith('"".il dateON"')
    assert completion.finish_reason == "length"
    assert completion.usage == Usage(prompt_tokens=39, completion_tokens=24, cached_tokens=0)
    assert completion.latency_s > 0
    assert completion.alternatives is None


async def test_cached_tokens_are_read(server: LoopbackServer) -> None:
    server.replay("102_json_schema_3qa")
    completion = await ask(server)
    assert completion.usage == Usage(prompt_tokens=39, completion_tokens=118, cached_tokens=32)


async def test_a_raw_control_character_from_vllms_grammar_is_no_parse_error(server: LoopbackServer) -> None:
    server.replay("102_json_schema_3qa")  # a string of it holds a raw U+000E
    completion = await ask(server)
    assert "\x0e" in extract_json(completion.text, lenient=False)["items"][1]["question"]


async def test_an_immediate_end_is_an_empty_text(server: LoopbackServer) -> None:
    server.replay("018_empty_content_immediate_eos")
    assert (await ask(server)).text == ""


@pytest.mark.parametrize(
    "usage", [None, {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": None}]
)
async def test_content_and_usage_details_may_be_null(server: LoopbackServer, usage: Any) -> None:
    server.answer(200, body_with(content=None, usage=usage))
    completion = await ask(server)
    assert completion.text == ""
    assert completion.usage == (Usage(prompt_tokens=3, completion_tokens=2) if usage else None)


LETTER = re.compile(r'"letter"\s*:\s*"([A-Z])')
BARE = re.compile(r"([A-C])$")


def asked(pattern: re.Pattern[str]) -> ChatRequest:
    return ChatRequest(ASK.messages, top_logprobs=20, alternatives_at=pattern)


async def test_the_letters_distribution_is_read_from_a_recorded_grade(server: LoopbackServer) -> None:
    server.replay("138_grade_token_logprobs_in_json")
    text = (await ask(server)).text
    server.replay("138_grade_token_logprobs_in_json")
    pattern = re.compile(re.escape(text[: text.index('"B"')]) + '"([A-Z])')
    alternatives = (await ask(server, asked(pattern))).alternatives
    assert alternatives is not None
    assert (alternatives.token, alternatives.at) == ("B", 0)
    # -0.4233, -1.4837 and -2.1343 in the recording: .655 + .227 + .118 = 1
    assert {name: round(math.exp(alternatives.top[name]), 3) for name in "ABC"} == {
        "A": 0.227,
        "B": 0.655,
        "C": 0.118,
    }
    assert alternatives.top['"'] == -9999.0


async def test_alternatives_that_nobody_asked_for_are_not_kept(server: LoopbackServer) -> None:
    server.replay("138_grade_token_logprobs_in_json")
    assert (await ask(server)).alternatives is None


async def test_tokens_that_read_the_same_are_added_up(server: LoopbackServer) -> None:
    twice = [{"token": "A", "logprob": math.log(0.5)}, {"token": "A", "logprob": math.log(0.25)}]
    entry = {"token": "A", "logprob": math.log(0.5), "top_logprobs": twice}
    server.answer(200, body_with(content="A", logprobs={"content": [entry]}))
    alternatives = (await ask(server, asked(BARE))).alternatives
    assert alternatives is not None
    assert math.exp(alternatives.top["A"]) == pytest.approx(0.75)


async def test_the_chosen_token_is_among_the_alternatives(server: LoopbackServer) -> None:
    entry = {"token": "C", "logprob": -3.0, "top_logprobs": [{"token": "A", "logprob": -0.1}]}
    server.answer(200, body_with(content="C", logprobs={"content": [entry]}))
    alternatives = (await ask(server, asked(BARE))).alternatives
    assert alternatives is not None
    assert alternatives.top == {"A": -0.1, "C": -3.0}


async def test_the_last_place_that_fits_counts_and_may_stand_inside_a_token(server: LoopbackServer) -> None:
    pieces = ['{"reason": "', '"letter": "A', '", "letter', '": "B', '"}']
    entries = [{"token": piece, "logprob": -0.1, "top_logprobs": []} for piece in pieces]
    server.answer(200, body_with(content="".join(pieces), logprobs={"content": entries}))
    alternatives = (await ask(server, asked(LETTER))).alternatives
    assert alternatives is not None
    assert (alternatives.token, alternatives.at) == ('": "B', 4)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<think>A? B!</think>\n\n{}", "{}"),
        ("\n<think>\n</think>{}", "{}"),
        ("<think>never closed", ""),
        ("Well, so be it.</think>\n{}", "{}"),
        ('{"a": "</think>"}', '{"a": "</think>"}'),
        ("plain", "plain"),
    ],
)
def test_thinking_is_no_part_of_the_text(content: str, text: str) -> None:
    assert without_thinking(content) == text


@given(st.dictionaries(st.text(), st.text()))
def test_an_object_is_never_taken_for_thinking(value: dict[str, str]) -> None:
    text = orjson.dumps(value).decode()
    assert without_thinking(text) == text


async def test_a_separate_reasoning_field_is_left_alone(server: LoopbackServer) -> None:
    body = body_with(content="{}")
    body["choices"][0]["message"] |= {"reasoning": "hm", "reasoning_content": "hm"}
    server.answer(200, body)
    assert (await ask(server)).text == "{}"


def body_with(**fields: Any) -> dict[str, Any]:
    body = recorded("018_empty_content_immediate_eos")["body"]
    choice = body["choices"][0]
    choice["message"]["content"] = fields.pop("content", "{}")
    body["usage"] = fields.pop("usage", body["usage"])
    choice |= fields
    return body


# ---- what is final


@pytest.mark.parametrize("name", ["200_context_prompt_too_long", "203_context_prompt_too_long_no_max_tokens"])
async def test_a_prompt_over_the_context_is_an_overflow(server: LoopbackServer, name: str) -> None:
    server.replay(name)
    error = await refused(server)
    assert error.reason == "context_overflow"
    assert "maximum context length" in error.detail
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "excerpt",
    [
        "the request exceeds the available context size. try increasing it",  # llama.cpp
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).",  # SGLang
        "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",  # TGI
    ],
)
async def test_other_servers_words_for_an_overflow_are_known(server: LoopbackServer, excerpt: str) -> None:
    server.answer(400, {"error": {"message": excerpt}})
    assert (await refused(server)).reason == "context_overflow"


async def test_a_reply_that_the_context_cut_is_an_overflow_not_a_truncation(server: LoopbackServer) -> None:
    usage = {"prompt_tokens": 411, "completion_tokens": 101}  # vLLM clamps max_tokens silently
    server.answer(200, body_with(finish_reason="length", usage=usage))
    error = await refused(server)
    assert error.reason == "context_overflow"
    assert "411" in error.detail
    assert "101" in error.detail


@pytest.mark.parametrize(
    ("name", "excerpt"),
    [
        ("210_system_role_rejected", "Conversation roles must alternate"),
        ("220_unknown_model", "Valid aliases: tiny-gen"),
        ("224_temperature_string", "float_parsing"),
        ("132_top_logprobs_21_error", "max allowed: 20"),
        ("201_context_prompt_plus_max_tokens", "max_model_len=2048"),
        ("250_not_found_route", "/v1?"),
        ("251_method_not_allowed", "Method Not Allowed"),
        ("260_wrong_api_key", "api_key_env"),
    ],
)
async def test_a_refusal_is_final_and_quotes_the_server(
    server: LoopbackServer, name: str, excerpt: str
) -> None:
    server.replay(name)
    error = await refused(server)
    assert error.reason == "rejected"
    assert excerpt in error.detail
    assert error.detail.startswith(f"{server.url}/chat/completions: ")
    assert str(recorded(name)["status"]) in error.detail
    assert len(server.requests) == 1


async def test_a_refused_key_and_a_missing_key_are_told_apart(server: LoopbackServer) -> None:
    server.replay("260_wrong_api_key", "260_wrong_api_key")
    missing, wrong = await refused(server), await refused(server, api_key=SECRET)
    assert missing.reason == wrong.reason == "rejected"
    assert "api_key_env" in missing.detail
    assert "refused the API key" in wrong.detail


async def test_a_redirect_is_not_followed_and_its_secrets_not_shown(server: LoopbackServer) -> None:
    server.fail("redirect")
    error = await refused(server)
    assert error.reason == "rejected"
    assert "redirect to 'http://example.com'" in error.detail
    assert "secret" not in error.detail


@pytest.mark.parametrize("finish_reason", ["content_filter", "tool_calls"])
async def test_an_end_for_another_reason_is_rejected(server: LoopbackServer, finish_reason: str) -> None:
    server.answer(200, body_with(finish_reason=finish_reason))
    error = await refused(server)
    assert error.reason == "rejected"
    assert finish_reason in error.detail


# ---- what may pass


FAULTS: list[Fault] = ["error_500", "reset", "garbage", "no_choices", "rate_limit"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_may_pass_is_asked_again(server: LoopbackServer, fault: Fault) -> None:
    server.fail(fault, times=2)
    naps = Naps()
    assert (await ask(server, sleep=naps)).finish_reason == "stop"
    assert len(server.requests) == 3
    assert len(naps.taken) == 2


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "rate_limit"])
async def test_what_does_not_pass_in_time_is_an_endpoint_failure(
    server: LoopbackServer, fault: Fault
) -> None:
    server.fail(fault)
    error = await refused(server, max_attempts=3)
    assert error.reason == "endpoint"
    assert "(attempts: 3)" in error.detail
    assert len(server.requests) == 3


async def test_a_request_is_sent_eight_times_where_nothing_else_is_said(server: LoopbackServer) -> None:
    server.fail("error_500", times=7)
    assert (await ask(server, sleep=Naps())).finish_reason == "stop"
    server.fail("error_500", times=8)
    assert "(attempts: 8)" in (await refused(server, sleep=Naps())).detail


async def test_a_busy_server_is_obeyed_beside_the_attempts_and_not_for_ever(server: LoopbackServer) -> None:
    server.fail("rate_limit", times=20)
    naps, asked_for_less = Naps(), []
    completion = await ask(server, max_attempts=3, sleep=naps, on_busy=lambda: asked_for_less.append(1))
    assert completion.finish_reason == "stop"
    assert len(asked_for_less) == 20
    assert len(naps.taken) == 20
    assert all(nap >= 7 for nap in naps.taken)  # what Retry-After says
    server.fail("rate_limit")
    assert "(attempts: 3)" in (await refused(server, max_attempts=3)).detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>gateway</html>",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"finish_reason": "stop"}]}',
        b"\xff\xfe",
    ],
)
async def test_a_body_that_is_no_completion_is_asked_again(server: LoopbackServer, body: bytes) -> None:
    server.answer(200, body)
    assert (await ask(server)).text
    server.answer(200, body)
    error = await refused(server, max_attempts=1)
    assert error.reason == "endpoint"
    assert "chat completion" in error.detail


async def test_odd_counts_of_tokens_cost_no_text(server: LoopbackServer) -> None:
    server.answer(200, body_with(usage={"prompt_tokens": -1, "completion_tokens": "x"}))
    completion = await ask(server)
    assert (bool(completion.text), completion.usage) == (True, None)


async def test_an_overloaded_vllm_is_asked_again(server: LoopbackServer) -> None:
    server.replay("350_overload_503")
    assert (await ask(server)).text
    assert len(server.requests) == 2


async def test_an_aborted_reply_is_asked_again(server: LoopbackServer) -> None:
    server.replay("331_aborted_request_response")
    assert (await ask(server)).finish_reason == "stop"


async def test_a_reply_that_is_always_aborted_is_interrupted(server: LoopbackServer) -> None:
    server.fail("abort")
    error = await refused(server, max_attempts=2)
    assert error.reason == "interrupted"
    assert "'abort'" in error.detail


async def test_a_hanging_server_is_a_timeout(server: LoopbackServer) -> None:
    server.fail("hang")
    error = await refused(server, timeout_s=0.1, max_attempts=2)
    assert error.reason == "endpoint"
    assert "nothing within 0.1" in error.detail


async def test_a_closed_port_ends_the_stage(unused_tcp_port_factory: Callable[[], int]) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port_factory()}/v1"
    async with HttpChat(
        base_url=url, addresses=("127.0.0.1",), model="m", sleep=Naps(), outage_s=0.05
    ) as model:
        with pytest.raises(EndpointError, match="within 0 s") as raised:
            await model.complete(ASK)
    assert url.removesuffix("/v1") in str(raised.value)


async def test_the_waits_grow_are_jittered_and_bounded(server: LoopbackServer) -> None:
    server.fail("error_500")
    naps = Naps()
    await refused(server, sleep=naps, max_attempts=10)
    limits = [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert all(0 <= nap <= limit for nap, limit in zip(naps.taken, limits, strict=True))
    assert len(set(naps.taken)) == 9


class Bounds(random.Random):
    """Draws one end of every range."""

    def __init__(self, *, upper: bool) -> None:
        super().__init__(0)
        self._upper = upper

    def uniform(self, a: float, b: float) -> float:
        return b if self._upper else a


@pytest.mark.parametrize(
    ("upper", "waits"), [(True, [0.5, 1, 2, 4, 8, 16, 30, 30]), (False, [0, 0, 0, 0, 0, 0, 0, 0])]
)
async def test_a_wait_is_between_nothing_and_a_limit_that_doubles_up_to_30_seconds(
    server: LoopbackServer, upper: bool, waits: list[float]
) -> None:
    server.fail("error_500")
    naps = Naps()
    await refused(server, sleep=naps, max_attempts=9, rng=Bounds(upper=upper))
    assert naps.taken == waits


@pytest.mark.parametrize(("upper", "wait"), [(True, 10.5), (False, 7)])
async def test_a_busy_server_waits_as_long_as_it_said_and_up_to_half_more(
    server: LoopbackServer, upper: bool, wait: float
) -> None:
    server.fail("rate_limit", times=1)
    naps = Naps()
    await ask(server, sleep=naps, rng=Bounds(upper=upper))
    assert naps.taken == [wait]


async def test_the_server_says_how_long_to_wait(server: LoopbackServer) -> None:
    server.fail("rate_limit", times=1)
    naps = Naps()
    await ask(server, sleep=naps)
    assert 7 <= naps.taken[0] <= 1.5 * 7


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("86400", 60),
        ("-3", 0),
        ("nan", 0),
        ("inf", 60),
        ("soon", 0),
        ("", 0),
        ("Fri, 20 Nov 2026 20:53:40 GMT", 8),
    ],
)
def test_retry_after_is_read_in_every_form_and_capped(value: str, seconds: float) -> None:
    headers = {"Retry-After": value, "Date": "Fri, 20 Nov 2026 20:53:32 GMT"}
    assert retry_after_s(headers) == seconds


async def test_a_server_that_dies_ends_the_stage_and_does_not_hang() -> None:
    with LoopbackServer(die_after=3) as server:
        async with chat(server, outage_s=0.05) as model:
            results = [await settled(model) for _ in range(3)]
            await asyncio.to_thread(server.join)
            results.append(await settled(model))
    assert results == ["stop", "stop", "stop", "gone"]


async def settled(model: HttpChat) -> str:
    try:
        return (await model.complete(ASK)).finish_reason
    except EndpointError:
        return "gone"


# ---- secrets, sessions, load


@pytest.mark.parametrize("fault", [*FAULTS, "redirect"])
async def test_the_key_is_in_no_message_and_no_traceback(server: LoopbackServer, fault: Fault) -> None:
    server.fail(fault)
    error = await refused(server, api_key=SECRET, max_attempts=1)
    text = "".join(traceback.format_exception(error))
    chain: list[BaseException | None] = [error]
    while chain[-1] is not None:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    assert SECRET not in f"{text}{chain!r}{error.detail}"
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("status", [200, 400, 500])
async def test_a_server_that_echoes_the_key_does_not_leak_it(server: LoopbackServer, status: int) -> None:
    for body in ({"error": {"message": f"bad key {SECRET}"}}, f"{'x' * 190}{SECRET}".encode()):
        server.answer(status, body)
        error = await refused(server, api_key=SECRET, max_attempts=1)
        assert SECRET[:8] not in error.detail


def test_the_key_is_not_in_repr(running: LoopbackServer) -> None:
    assert SECRET not in repr(chat(running, api_key=SECRET))


def test_a_key_that_no_header_may_hold_is_refused_unshown(running: LoopbackServer) -> None:
    with pytest.raises(UsageError) as raised:
        chat(running, api_key=f"{SECRET}\r\nX: y")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000", "ftp://h/v1", "http://", "http://me:pass@h/v1", "me:pass@h", "http://h/v1?key=pass"],
)
def test_a_url_that_is_none_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(EndpointError) as raised:
        HttpChat(base_url=url, addresses=("127.0.0.1",), model="m")
    assert "pass" not in str(raised.value).replace("password", "")


async def test_it_works_only_inside_its_context(server: LoopbackServer) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await chat(server).complete(ASK)


async def test_environment_proxies_are_not_used(server: LoopbackServer) -> None:
    code = (
        "import asyncio; from qaeval.chat.http import *; from qaeval.chat.protocol import *\n"
        "async def main():\n"
        f"    async with HttpChat(base_url={server.url!r}, addresses=('127.0.0.1',), model='tiny-gen', max_attempts=1) as model:\n"
        "        print((await model.complete(ChatRequest((Message('user', 'Hello?'),)))).finish_reason)\n"
        "asyncio.run(main())"
    )
    output = await run_python(
        code, http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9", NO_PROXY=""
    )
    assert output == "stop"


async def run_python(code: str, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env={**os.environ, **environment}
    )
    out, _ = await process.communicate()
    return out.decode().strip()


async def test_64_requests_at_once_share_one_session(server: LoopbackServer) -> None:
    server.latency_s = 0.2
    async with chat(server) as model:
        requests = [ChatRequest((Message("user", f"What is {n} and twenty?"),)) for n in range(64)]
        completions = await asyncio.gather(*map(model.complete, requests))
    assert server.most_in_flight == 64
    assert len({completion.text for completion in completions}) == 64


async def test_a_cancelled_request_leaves_the_session_usable(server: LoopbackServer) -> None:
    server.fail("hang", times=1)
    async with chat(server) as model:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.complete(ASK), 0.1)
        assert (await model.complete(ASK)).finish_reason == "stop"


# ---- the loopback server itself


async def test_the_loopback_server_has_vllms_envelope(server: LoopbackServer) -> None:
    body = {"model": "tiny-gen", "messages": [{"role": "user", "content": "Hello?"}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/chat/completions", json=body) as reply,
    ):
        envelope = await reply.json()
    real = recorded("010_chat_basic")["body"]
    assert envelope.keys() == real.keys()
    assert envelope["choices"][0].keys() == real["choices"][0].keys()
    assert envelope["choices"][0]["message"].keys() == real["choices"][0]["message"].keys()
    assert envelope["usage"].keys() == real["usage"].keys()


async def test_the_loopback_server_grades_by_schema_with_a_distribution(server: LoopbackServer) -> None:
    request = ChatRequest(ASK.messages, GRADE_SCHEMA, top_logprobs=20, alternatives_at=LETTER)
    first, second = await ask(server, request), await ask(server, request)
    letter = extract_json(first.text, lenient=False)["letter"]
    assert first.text == second.text
    alternatives = first.alternatives
    assert alternatives is not None
    assert alternatives.token == letter
    assert sum(math.exp(alternatives.top[name]) for name in "ABC") == pytest.approx(1)
    assert alternatives.top[letter] == max(alternatives.top.values())


@pytest.mark.parametrize(("fault", "count"), [(None, 3), ("wrong_item_count", 2)])
async def test_the_loopback_server_writes_pairs_from_the_prompt(
    server: LoopbackServer, fault: Fault | None, count: int
) -> None:
    item = {"type": "object", "properties": {"question": {"type": "string"}, "answer": {"type": "string"}}}
    pairs = {"type": "array", "minItems": 3, "maxItems": 3, "items": item}
    if fault:
        server.fail(fault)
    completion = await ask(
        server, ChatRequest(ASK.messages, {"type": "object", "properties": {"pairs": pairs}})
    )
    alternatives = extract_json(completion.text, lenient=False)["pairs"]
    assert len(alternatives) == count
    assert all(pair["answer"] in ASK.messages[0].content for pair in alternatives)


async def test_a_reply_that_is_compressed_without_asking_is_read(server: LoopbackServer) -> None:
    server.answer(200, gzip.compress(orjson.dumps(body_with(content="x"))), {"Content-Encoding": "gzip"})
    assert (await ask(server)).text


async def test_a_small_reply_that_unpacks_into_a_huge_one_is_no_completion(server: LoopbackServer) -> None:
    bomb = gzip.compress(b'{"choices": "' + b"x" * 2**26 + b'"}')
    server.answer(200, bomb, {"Content-Encoding": "gzip"})
    error = await refused(server, max_attempts=1)
    assert (error.reason, len(bomb) < 2**20) == ("endpoint", True)


async def test_plain_http_to_a_server_of_tls_names_https() -> None:
    async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listening = await asyncio.start_server(close, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    async with listening:
        with pytest.raises(EndpointError, match="https://"):
            await probe(url, "m", addresses=("127.0.0.1",))


async def test_an_overload_with_status_200_asks_for_fewer_requests(server: LoopbackServer) -> None:
    busy: list[int] = []
    server.answer(200, {"error": {"message": "slow down", "code": 429}})
    assert (await ask(server, on_busy=lambda: busy.append(1))).text
    assert busy == [1]
