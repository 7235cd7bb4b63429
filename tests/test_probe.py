from collections.abc import Callable, Iterator
from typing import Literal

import pytest

from qaeval.errors import EndpointError
from qaeval.serving.probe import EndpointFacts, ServedModel, probe, reach
from replay.server import LoopbackServer, recorded

KEY = "sk-never-show-this"


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    models = {"tiny-gen": 2048, "tiny-judge": 512}
    with LoopbackServer(models, adapters={"tiny-lora": "tiny-gen"}) as running:
        yield running


async def test_everything_is_found_out_about_a_vllm_server(server: LoopbackServer) -> None:
    facts = await probe(server.url, "tiny-gen", addresses=("127.0.0.1",))
    assert facts == EndpointFacts(
        base_url=server.url,
        model="tiny-gen",
        version="0.32.0",
        served=(
            ServedModel(name="tiny-gen", max_model_len=2048, root="models/tiny-gen"),
            ServedModel(name="tiny-judge", max_model_len=512, root="models/tiny-judge"),
            ServedModel(name="tiny-lora", adapter_of="tiny-gen", root="models/tiny-lora"),
        ),
        root="models/tiny-gen",
        model_found=True,
        max_model_len=2048,
        system_role=True,
        structured_output=True,
        max_logprobs=20,
        repetition_detection=True,
        tokenizer=True,
        metrics=True,
    )
    assert facts.adapters == ("tiny-lora",)
    assert len(server.requests) == 5  # a plain one first


@pytest.mark.parametrize("repetition", ["ignored", "refused"])
async def test_a_server_that_ignores_or_refuses_unknown_fields_ends_no_repetition(
    repetition: Literal["ignored", "refused"],
) -> None:
    with LoopbackServer(repetition=repetition) as server:
        assert (await probe(server.url, "tiny-gen", addresses=("127.0.0.1",))).repetition_detection is False


async def test_an_adapter_has_the_context_of_its_base_model(server: LoopbackServer) -> None:
    assert (await probe(server.url, "tiny-lora", addresses=("127.0.0.1",))).max_model_len == 2048


async def test_a_refused_system_role_is_found_by_the_tokenizer(server: LoopbackServer) -> None:
    server.fail("reject_system")
    assert (await probe(server.url, "tiny-gen", addresses=("127.0.0.1",))).system_role is False


async def test_a_dropped_system_message_is_found_by_its_missing_tokens(server: LoopbackServer) -> None:
    server.fail("drop_system")
    assert (await probe(server.url, "tiny-gen", addresses=("127.0.0.1",))).system_role is False


@pytest.mark.parametrize("refuses", [True, False])
async def test_without_a_tokenizer_a_request_tells_about_the_system_role(
    server: LoopbackServer, refuses: bool
) -> None:
    server.fail("no_tokenizer")
    if refuses:
        server.fail("reject_system")
    facts = await probe(server.url, "tiny-gen", addresses=("127.0.0.1",))
    assert facts.system_role is not refuses
    assert facts.tokenizer is False


async def test_a_server_that_ignores_the_schema_is_found_out(server: LoopbackServer) -> None:
    server.fail("ignore_schema")
    assert (await probe(server.url, "tiny-gen", addresses=("127.0.0.1",))).structured_output is False


async def test_a_lower_logprob_limit_is_found() -> None:
    with LoopbackServer(max_logprobs=5) as server:
        assert (await probe(server.url, "tiny-gen", addresses=("127.0.0.1",))).max_logprobs == 5


async def test_what_a_server_that_is_not_vllm_does_not_tell_is_unknown(server: LoopbackServer) -> None:
    server.fail("not_vllm")
    facts = await probe(server.url, "tiny-gen", addresses=("127.0.0.1",))
    assert facts.version is None
    assert (facts.tokenizer, facts.metrics) == (False, False)
    assert (facts.model_found, facts.system_role, facts.structured_output) == (True, True, True)


@pytest.mark.slow
async def test_a_failing_model_leaves_its_facts_unknown(server: LoopbackServer) -> None:
    server.fail("error_500")
    facts = await probe(server.url, "tiny-gen", addresses=("127.0.0.1",))
    assert (facts.structured_output, facts.max_logprobs) == (None, None)
    assert facts.system_role is True


@pytest.mark.parametrize(
    ("text", "finish", "fact"), [("", "length", None), ('{"wo', "length", None), ("quokka", "stop", False)]
)
async def test_only_a_whole_reply_proves_a_schema(
    server: LoopbackServer, text: str, finish: str, fact: bool | None
) -> None:
    body = recorded("018_empty_content_immediate_eos")["body"]
    body["choices"][0] |= {"finish_reason": finish, "message": {"role": "assistant", "content": text or None}}
    server.answer(200, body)
    server.answer(200, body)
    assert (await probe(server.url, "tiny-gen", addresses=("127.0.0.1",))).structured_output is fact


@pytest.mark.parametrize(
    ("text", "finish", "fact"),
    [('{"word": "quokka-7319"}', "stop", True), ("hello", "stop", False), (None, "length", None)],
)
async def test_a_schema_is_proved_by_the_text_of_a_reply_in_parts(
    server: LoopbackServer, text: str | None, finish: str, fact: bool | None
) -> None:
    body = recorded("018_empty_content_immediate_eos")["body"]
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "A word."}]}]
    parts += [] if text is None else [{"type": "text", "text": text}]
    body["choices"][0] |= {"finish_reason": finish, "message": {"role": "assistant", "content": parts}}
    server.answer(200, body)
    server.answer(200, body)
    assert (await probe(server.url, "tiny-gen", addresses=("127.0.0.1",))).structured_output is fact


async def test_a_model_that_is_not_served_is_an_error_with_the_names(server: LoopbackServer) -> None:
    with pytest.raises(EndpointError, match="Did you mean 'tiny-gen'") as raised:
        await probe(server.url, "tiny-gem", addresses=("127.0.0.1",))
    assert "tiny-judge" in str(raised.value)


async def test_a_missing_v1_is_named(server: LoopbackServer) -> None:
    with pytest.raises(EndpointError, match="/v1"):
        await probe(server.root, "tiny-gen", addresses=("127.0.0.1",))


async def test_nothing_at_the_port_is_an_error_with_the_url(
    unused_tcp_port_factory: Callable[[], int],
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port_factory()}/v1"
    with pytest.raises(EndpointError, match="is the server up") as raised:
        await probe(url, "m", addresses=("127.0.0.1",))
    assert url in str(raised.value)


async def test_a_wanted_key_is_named_in_words_and_never_shown() -> None:
    with LoopbackServer(api_key=KEY) as server:
        assert (
            await probe(server.url, "tiny-gen", api_key=KEY, addresses=("127.0.0.1",))
        ).structured_output is True
        with pytest.raises(EndpointError, match="api_key_env") as raised:
            await probe(server.url, "tiny-gen", api_key=f"{KEY}-wrong", addresses=("127.0.0.1",))
    assert KEY not in f"{raised.value}{raised.value.__cause__!r}{raised.value.__context__!r}"


async def test_reach_lists_the_models(server: LoopbackServer) -> None:
    answer = await reach(server.url, addresses=("127.0.0.1",))
    assert answer.ok
    assert answer.models == ("tiny-gen", "tiny-judge", "tiny-lora")
    assert server.requests == []


async def test_reach_says_what_is_wrong(unused_tcp_port_factory: Callable[[], int]) -> None:
    answer = await reach(f"http://127.0.0.1:{unused_tcp_port_factory()}/v1", addresses=("127.0.0.1",))
    assert not answer.ok
    assert answer.detail == "no connection (connection refused)"


async def test_reach_without_the_right_key_is_not_ok() -> None:
    with LoopbackServer(api_key=KEY) as server:
        assert "401" in (await reach(server.url, addresses=("127.0.0.1",))).detail
        assert not (await reach(server.url, addresses=("127.0.0.1",))).ok
        assert (await reach(server.url, addresses=("127.0.0.1",), api_key=KEY)).ok
