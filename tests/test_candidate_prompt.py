"""What a candidate is asked: the language in words, a type for each position, and fewer pairs about a few words."""

import json
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

import qaeval
from qaeval.chat.protocol import ChatRequest
from qaeval.chat.reply import ReplyError
from qaeval.chat.wire import encode
from qaeval.errors import DataError
from qaeval.evals.definition import EvalDefinition, item_schema
from qaeval.evals.find import find_eval
from qaeval.records import Chunk, Sample
from qaeval.run.generate import Sampling, build_request, language_in_words
from qaeval.run.items import read_items
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply, registered
from qaeval.text.language import language_name, language_of

PAIRS: Final = find_eval("qa_pairs")
TYPES: Final = ("factual", "conceptual", "comparison")
SHORT: Final = Chunk(chunk_id="c", text="Der Filter wird nach 500 Stunden gewechselt.")
LONG: Final = Chunk(chunk_id="c", text="The filter is changed after 500 hours. " * 5)


def sample_of(text: str, question: str = "", language: str = "") -> Sample:
    return Sample.of(Chunk(chunk_id="c", text=text, language=language), question)


# ------------------------------------------------------------------------------ language


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (sample_of("The filter is changed after 500 hours."), "English"),
        (sample_of("Der Filter wird nach 500 Stunden gewechselt."), "German"),
        (sample_of("Der Filter wird gewechselt.", language="fr-CA"), "French"),
        (sample_of("Der Filter wird gewechselt.", "When is the filter changed?", "de"), "English"),
        (sample_of("500", "500?", "de"), "German"),
        (sample_of("500", language="tlh"), "the language of the source text"),
        (sample_of("500", "500?"), "the language of the question"),
    ],
)
def test_the_language_is_that_of_the_question_or_else_of_the_chunk(sample: Sample, words: str) -> None:
    assert language_in_words(sample) == words


@pytest.mark.parametrize("name", ["qa_pairs", "rag_qa", "dpo_pairs"])
def test_every_shipped_prompt_names_the_language_right_before_the_form_of_the_reply(name: str) -> None:
    sample = sample_of("Der Filter wird nach 500 Stunden gewechselt.", "Wann wird der Filter gewechselt?")
    message = build_request(sample, find_eval(name), Sampling()).messages[-1].content
    before, _, reply = message.rpartition("\nReply with one JSON object")
    assert reply
    assert before.splitlines()[-1].endswith("in German.")


def test_codes_of_languages_are_read_with_their_country_and_unknown_ones_have_no_name() -> None:
    assert [language_name(code) for code in ("de", "de-AT", "pt_BR", "EN", "tlh", "")] == [
        "German",
        "German",
        "Portuguese",
        "English",
        "",
        "",
    ]
    assert [language_of(text) for text in ("the and of", "der und ist", "500")] == ["en", "de", ""]


# ------------------------------------------------------------------------------ types by position


def test_the_type_of_each_position_is_fixed_where_there_are_as_many_types_as_pairs() -> None:
    pairs = item_schema(PAIRS)["properties"]["pairs"]
    assert [pair["properties"]["type"]["enum"] for pair in pairs["prefixItems"]] == [[kind] for kind in TYPES]
    assert pairs["items"]["properties"]["type"]["enum"] == list(TYPES)
    five = PAIRS.model_copy(update={"items_per_sample": 5})
    assert "prefixItems" not in item_schema(five)["properties"]["pairs"]


def test_a_server_that_does_not_know_positions_gets_the_schema_without_them() -> None:
    request = build_request(Sample.of(LONG), PAIRS, Sampling())

    def schema(*, prefix_items: bool) -> dict[str, Any]:
        body = encode(
            request,
            model="m",
            structured=True,
            merge_system=False,
            max_top_logprobs=0,
            extra_body={},
            prefix_items=prefix_items,
        )
        sent: dict[str, Any] = orjson.loads(body)["response_format"]["json_schema"]["schema"]
        return sent["properties"]["pairs"]  # type: ignore[no-any-return]

    known, unknown = schema(prefix_items=True), schema(prefix_items=False)
    assert known.pop("prefixItems")
    assert known == unknown
    assert unknown["minItems"] == unknown["maxItems"] == 3


# ------------------------------------------------------------------------------ fewer pairs


def reply(n: int) -> str:
    return pairs_reply([(kind, f"What is {kind} about it?", f"It is {kind}.") for kind in TYPES[:n]])


def test_a_chunk_of_a_few_words_may_have_fewer_pairs_and_no_other() -> None:
    assert PAIRS.fewer_allowed == 25
    assert len(LONG.text.split()) > 25 > len(SHORT.text.split())
    for n in (1, 2, 3):
        assert len(read_items(reply(n), Sample.of(SHORT), PAIRS, lenient=False)) == n
    for chunk, n in ((SHORT, 0), (LONG, 2), (LONG, 0)):
        with pytest.raises(ReplyError) as caught:
            read_items(reply(n), Sample.of(chunk), PAIRS, lenient=False)
        assert caught.value.reason == "wrong_item_count"
    assert item_schema(PAIRS, SHORT)["properties"]["pairs"]["minItems"] == 1
    assert item_schema(PAIRS, LONG)["properties"]["pairs"]["minItems"] == 3


@pytest.mark.parametrize(
    "text",
    [
        "该证书的有效期为九十天，到期之前必须通过服务台门户网站续订。合同工只有三十天的访问权限。",
        "契約社員は30日間のみアクセスできます。証明書は90日間有効で、期限の前に更新します。",
        "ใบรับรองมีอายุเก้าสิบวันและต้องต่ออายุผ่านพอร์ทัลของฝ่ายบริการก่อนหมดอายุ" * 2,
    ],
)
def test_a_full_chunk_in_a_script_without_spaces_takes_all_pairs(text: str) -> None:
    chunk = Chunk(chunk_id="c", text=text)
    assert PAIRS.fewest_items(chunk) == 3
    assert item_schema(PAIRS, chunk)["properties"]["pairs"]["minItems"] == 3
    assert PAIRS.fewest_items(Chunk(chunk_id="c", text=text[:9])) == 1


def test_fewer_pairs_are_for_pairs_alone() -> None:
    content = {**find_eval("rag_qa").model_dump(), "directory": Path(), "fewer_allowed": 25}
    with pytest.raises((DataError, ValueError), match="fewer_allowed"):
        EvalDefinition.model_validate(content)


@pytest.mark.slow
def test_pairs_that_were_not_asked_for_are_no_failures_in_the_report(tmp_path: Path) -> None:
    chunks = tmp_path / "chunks.jsonl"
    texts = [
        f"Valve {n} opens at {n + 2} bar. {'It closes at once, in any case. ' * (5 * (n % 2))}"
        for n in range(8)
    ]
    chunks.write_text(
        "".join(json.dumps({"chunk_id": f"c{n}", "text": text}) + "\n" for n, text in enumerate(texts))
    )

    def write(request: ChatRequest) -> str:
        n = int(request.inputs["chunk"].split()[1])
        kinds = TYPES if n % 2 else TYPES[:1]
        return pairs_reply(
            [(kind, f"{kind}: when does valve {n} open?", f"At {n + 2} bar.") for kind in kinds]
        )

    judge = ScriptedModel(lambda _request: grade_reply("A"))
    with registered("writer", ScriptedModel(write)), registered("judge", judge):
        run = qaeval.compare("writer", judge="judge", chunks=chunks, out=tmp_path / "run", cache=False)
    (candidate,) = run.report.candidates
    assert candidate.failed_by_reason == {}
    assert (candidate.n_valid, candidate.usable.value) == (4 * 3 + 4, 1.0)
    assert qaeval.load_run(run.path).report.candidates == run.report.candidates
