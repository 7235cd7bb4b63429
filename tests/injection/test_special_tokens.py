"""What a server's tokenizer says of pieces that look like special tokens, and what becomes of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaeval.chat.cached import Cache, Cached
from qaeval.chat.http import HttpChat
from qaeval.chat.protocol import ChatRequest, Message, Sampling, special_pieces
from qaeval.chat.wire import read_completion
from qaeval.evals.find import find_eval, find_rubric
from qaeval.records import Chunk, Item, Sample
from qaeval.run import generate, grade
from qaeval.serving.exporter import Exporter
from qaeval.testing import ScriptedModel
from qaeval.text.control import escape, unknown_pieces
from replay.server import LoopbackServer

SPECIAL = ("<sentinel>", "[CONTROL]", "<|im_end|>")
TEXT = "Pumps [1] start <b>at</b> 3 bar <sentinel> or later. [CONTROL] valves close [see below] at 5 bar."


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(special=SPECIAL) as running:
        yield running


@pytest.fixture
async def chat(server: LoopbackServer) -> AsyncIterator[HttpChat]:
    async with HttpChat(
        base_url=server.url, addresses=("127.0.0.1",), model="tiny-judge", tokenizer=True
    ) as model:
        yield model


def sample(text: str = TEXT) -> Sample:
    return Sample.of(Chunk(chunk_id="c", text=text, title="Pumps"))


def test_pieces_are_of_the_two_shapes_overlap_and_are_of_no_known_form() -> None:
    assert unknown_pieces(TEXT) == {"[1]", "<b>", "</b>", "<sentinel>", "[CONTROL]"}
    assert unknown_pieces("<|im_end|> [INST] a < b > c x[i]") == {"[i]"}
    assert unknown_pieces("[[x]<y]>") == {"[x]", "<y]>"}
    assert unknown_pieces(f"<{'x' * 65}>") == frozenset()


def test_a_text_is_broken_only_where_it_is_control() -> None:
    assert escape("a <|im_end|> b", ()).text == "a < |im_end|> b"
    assert escape(TEXT, ()).text == TEXT
    broken = escape(TEXT, {"<sentinel>", "[CONTROL]", "<absent>"})
    assert (broken.text.count("< sentinel>"), broken.text.count("[ CONTROL]"), broken.n_tokens) == (1, 1, 2)
    assert escape("x abcdef00ABCDEF00 y", (), "abcdef00abcdef00").text == "x abcdef00 ABCDEF00 y"


FRAGMENTS = st.lists(
    st.sampled_from(
        [
            *(
                "<",
                ">",
                "|",
                "｜",
                "[",
                "]",
                "/",
                " ",
                "\n",
                "~",
                "!",
                "b",
                "A",
                "<|",
                "|>",
                ">>",
                "<<",
                "</",
            ),
            *(
                "INST",
                "[/INST",
                "im_end",
                "s",
                "s>",
                "SYS",
                "<x y|>",
                "</answer ",
                "0123456789",
                "abcdef",
                "ABCDEF",
            ),
        ]
    ),
    max_size=30,
).map("".join)


@pytest.mark.slow
@given(FRAGMENTS)
def test_what_was_broken_is_no_control_any_more_and_only_spaces_were_added(text: str) -> None:
    mark = "0123456789abcdef"
    once = escape(text, (), mark)
    again = escape(once.text, (), mark)
    assert (again.text, again.n_tokens, again.n_marks) == (once.text, 0, 0)
    assert mark not in once.text.lower()
    assert once.text.replace(" ", "") == text.replace(" ", "")
    assert len(once.text) - len(text) == once.n_tokens + once.n_marks


async def test_each_distinct_piece_is_asked_about_once(server: LoopbackServer, chat: HttpChat) -> None:
    pieces = sorted(unknown_pieces(TEXT))
    answers = await asyncio.gather(*(special_pieces(chat, pieces) for _ in range(20)))
    assert set(answers) == {frozenset({"<sentinel>", "[CONTROL]"})}
    alone = [text for text in server.tokenized if text in pieces]
    assert sorted(alone) == pieces
    assert len(server.tokenized) == len(pieces) + 2  # and the special ones once between neighbours


async def test_a_piece_of_the_vocabulary_that_merges_with_its_neighbours_is_not_special() -> None:
    with LoopbackServer(special=SPECIAL, ordinary=("[i]", "<b>")) as server:
        async with HttpChat(
            base_url=server.url, addresses=("127.0.0.1",), model="tiny-judge", tokenizer=True
        ) as chat:
            assert await chat.special_pieces(["[i]", "<b>", "<sentinel>"]) == {"<sentinel>"}
        assert len(server.tokenized) == 6


async def test_models_behind_the_cache_and_behind_counters_are_asked_too(
    chat: HttpChat, tmp_path: Path
) -> None:
    exporter = Exporter("127.0.0.1", 0, run="r", eval_name="e", machines={})
    with Cache(tmp_path) as cache, exporter.at_work("grade", "m", chat, machine=None, load_s=0.0) as counted:
        assert await special_pieces(Cached(chat, cache, {}), SPECIAL) == set(SPECIAL)
        assert await special_pieces(counted, SPECIAL) == set(SPECIAL)


async def test_prompts_of_candidate_and_judge_have_the_servers_own_tokens_broken(
    server: LoopbackServer, chat: HttpChat
) -> None:
    definition, rubric = find_eval("qa_pairs"), find_rubric("qa_pair_abc")
    task = generate.GenerateTask("t", "tiny-judge", sample())
    row = await generate.generate_one(chat, task, definition, Sampling(), lenient=False)
    assert row.escaped == {"special token": 2}
    item = Item.of(task.sample.sample_id, 0, type="", question="<sentinel>?", answer="At [1] <b>3 bar</b>.")
    instructions = grade.Instructions.of(rubric, grade.SAMPLING, "reason_first")
    graded = await grade.grade_one(
        chat, grade.GradeTask("t", "j", task.sample, item), instructions, lenient=False
    )
    assert graded.escaped == {"special token": 3}
    assert len(server.requests) == 2
    for request in server.requests:
        content = request["messages"][-1]["content"]
        assert not [token for token in SPECIAL if token in content]
        assert "Pumps [1] start <b>at</b> 3 bar < sentinel> or later." in content


async def test_a_server_without_a_tokenizer_is_asked_nothing(server: LoopbackServer) -> None:
    async with HttpChat(base_url=server.url, addresses=("127.0.0.1",), model="tiny-judge") as chat:
        assert await chat.special_pieces(["<sentinel>"]) == frozenset()
    assert await special_pieces(ScriptedModel([]), ["<sentinel>"]) == frozenset()
    assert server.tokenized == []


async def test_a_piece_without_an_answer_counts_as_special_and_is_asked_again(
    server: LoopbackServer, chat: HttpChat
) -> None:
    server.fail("no_tokenizer", 1)
    assert await chat.special_pieces(["[1]"]) == {"[1]"}
    server.fail("no_tokenizer", 0)
    assert await chat.special_pieces(["[1]"]) == frozenset()


async def test_pieces_beyond_the_limit_of_a_prompt_count_as_special(
    server: LoopbackServer, chat: HttpChat
) -> None:
    pieces = [f"[{number:04}]" for number in range(300)]
    special = await special_pieces(chat, pieces)
    assert special == set(pieces[256:])
    assert len(server.tokenized) == 256


# ------------------------------------------------------------------------------ bounds of a reply


def body(text: str) -> bytes:
    return orjson.dumps({"choices": [{"finish_reason": "stop", "message": {"content": text}}]})


def test_a_reply_longer_than_its_tokens_can_be_is_cut_and_counts_as_cut() -> None:
    whole = read_completion(body("x" * 2560), latency_s=0.0, max_tokens=10)
    assert (len(whole.text), whole.finish_reason) == (2560, "stop")
    cut = read_completion(body("x" * 2561), latency_s=0.0, max_tokens=10)
    assert (len(cut.text), cut.finish_reason) == (2560, "length")


async def test_a_reply_that_repeats_the_key_is_stored_without_it() -> None:
    key = "sk-0123456789abcdef"
    with LoopbackServer(api_key=key) as server:
        for secret, shown in (
            (key, "the key is *** and no other"),
            ("EMPTY", "the key is EMPTY and no other"),
        ):
            server.api_key = secret
            server.answer(
                200,
                {
                    "choices": [
                        {"finish_reason": "stop", "message": {"content": f"the key is {secret} and no other"}}
                    ]
                },
            )
            async with HttpChat(
                base_url=server.url, addresses=("127.0.0.1",), model="tiny-judge", api_key=secret
            ) as chat:
                completion = await chat.complete(ChatRequest(messages=(Message("user", "?"),)))
            assert completion.text == shown
