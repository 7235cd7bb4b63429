"""Replies of real servers and gateways, each with what must become of it (`tests/data/cases`)."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from qaeval import api
from qaeval.agreement.label_files import read_labels
from qaeval.chat.http import HttpChat
from qaeval.chat.logprobs import load_reply
from qaeval.chat.protocol import Completion, Sampling
from qaeval.chat.wire import read_completion
from qaeval.errors import DataError, EndpointError
from qaeval.evals.rubric import Rubric
from qaeval.records import Chunk, Failure, Grade, GradeRow, Item, Sample
from qaeval.run.grade import GradeTask, Instructions, grade_one
from qaeval.serving.probe import probe
from replay.cases import CASES, CaseServer

LEVELS = {"A": "right", "B": "nearly right", "C": "wrong"}
RUBRIC = Rubric.model_validate(
    {
        "name": "plain",
        "version": 1,
        "title": "Grading pairs",
        "task": "Grade the pair.",
        "scale": [{"letter": letter, "name": text, "meaning": text} for letter, text in LEVELS.items()],
        "criteria": [{"name": "support", "text": "The text supports the answer."}],
        "flags": [{"name": "hallucination", "meaning": "Something is invented."}],
        "decision_rules": ["Take the lower letter when torn."],
        "examples": [
            {
                "chunk": "It is 3.",
                "question": "What is it?",
                "answer": "3.",
                "letter": letter,
                "reason": "It is.",
            }
            for letter in LEVELS
        ],
    }
)
CHUNK = Chunk(chunk_id="c", text="The gate opens at six.")


@pytest.fixture(scope="module")
def server() -> Iterator[CaseServer]:
    with CaseServer() as running:
        yield running


async def no_wait(_seconds: float) -> None:
    """A sleep that takes no time."""


async def graded(server: CaseServer, case: str, *, structured: bool = True) -> GradeRow:
    sample = Sample.of(CHUNK)
    item = Item.of(sample.sample_id, 0, type="factual", question="When?", answer="At six.")
    task = GradeTask("task", "m", sample, item)
    instructions = Instructions.of(RUBRIC, Sampling(max_tokens=512), "reason_first")
    async with HttpChat(
        base_url=server.url(case),
        addresses=("127.0.0.1",),
        model="m",
        structured="json_schema" if structured else "off",
        sleep=no_wait,
        rng=random.Random(0),  # noqa: S311 - spreads retries
    ) as judge:
        return await grade_one(judge, task, instructions, lenient=not structured)


@pytest.mark.parametrize(
    ("case", "structured"),
    [
        ("logprob-null", True),
        ("usage-half", True),
        ("usage-nulls", True),
        ("fence", False),
        ("prose-fence", False),
        ("think-with-other-letter", True),
        ("finish-eos", True),
        ("content-in-parts", True),
    ],
)
async def test_an_odd_extra_costs_no_letter(server: CaseServer, case: str, structured: bool) -> None:
    row = await graded(server, case, structured=structured)
    assert isinstance(row, Grade), row
    assert (row.letter, row.probabilities) == ("B", None)
    assert bool(row.remark) == case.startswith(("usage", "logprob"))
    assert (row.usage is None) == case.startswith("usage")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("error-in-200", "endpoint"),
        ("error-in-200-overflow", "context_overflow"),
        ("reply-in-reasoning", "empty"),
        ("thinking-ate-the-limit", "truncated"),
        ("thinking-part-ate-the-limit", "truncated"),
        ("reasoning-counted-apart", "truncated"),
        ("parts-of-another-type", "endpoint"),
        ("other-model", "rejected"),
        ("all-fenced-though-schema", "invalid_json"),
        ("think-never-closed", "empty"),
        ("lower-case", "unparseable"),
        ("a-minus", "unparseable"),
        ("two-letters", "invalid_json"),
        ("list-of-two", "unparseable"),
        ("nan", "invalid_json"),
        ("half-a-surrogate", "invalid_json"),
        ("letter-in-a-tool-call", "invalid_json"),
        ("stopped-by-filter", "rejected"),
        ("finish-null", "interrupted"),
        ("sign-in-page", "endpoint"),
    ],
)
async def test_what_is_no_letter_is_a_failure_with_its_reason(
    server: CaseServer, case: str, reason: str
) -> None:
    row = await graded(server, case)
    assert isinstance(row, Failure), row
    assert row.reason == reason


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("error-in-200", ["the model behind the gateway is overloaded"]),
        ("error-in-200-overflow", ["9000 > 8192"]),
        ("reply-in-reasoning", ["reasoning_content", "thinking: false"]),
        ("thinking-ate-the-limit", ["thinking: false", "max_tokens"]),
        ("thinking-part-ate-the-limit", ["thinking: false", "max_tokens"]),
        ("other-model", ["'m'", "'some-fallback-7b'", "reply_names"]),
        ("sign-in-page", ["Sign in to the gateway"]),
    ],
)
async def test_the_words_of_the_server_and_the_way_on_are_in_the_failure(
    server: CaseServer, case: str, words: list[str]
) -> None:
    row = await graded(server, case)
    assert isinstance(row, Failure)
    assert [word for word in words if word not in row.detail] == []
    assert ("OpenAI-compatible" in row.detail) == (case == "sign-in-page")


async def test_a_context_overflow_is_asked_once(server: CaseServer) -> None:
    before = server.n_asked("error-in-200-overflow")
    await graded(server, "error-in-200-overflow")
    assert server.n_asked("error-in-200-overflow") == before + 1


async def test_a_server_that_fails_every_third_request_costs_no_item(server: CaseServer) -> None:
    rows = [await graded(server, "every-third-502") for _ in range(9)]
    assert all(isinstance(row, Grade) for row in rows)


async def test_another_limit_of_tokens_is_found_by_the_probe(server: CaseServer) -> None:
    facts = await probe(server.url("refuses-max-tokens"), "m", addresses=("127.0.0.1",))
    assert facts.fields == {"max_tokens": "max_completion_tokens"}
    assert facts.structured_output is True


async def test_a_schema_that_is_refused_is_not_called_ignored(server: CaseServer) -> None:
    facts = await probe(server.url("refuses-response-format"), "m", addresses=("127.0.0.1",))
    assert facts.structured_output is False
    assert "must be 'json_object' or 'text'" in facts.schema_refusal


def registry(folder: Path, server: CaseServer, **entries: tuple[str, str]) -> Path:
    path = folder / "cases.yaml"
    lines = [
        f"{group}:\n  {case}: {{url: {server.url(case)}, served_name: m}}" for group, case in entries.values()
    ]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_a_refused_schema_ends_the_run_with_the_words_of_the_server(
    server: CaseServer, tmp_path: Path
) -> None:
    config = registry(tmp_path, server, judge=("judges", "refuses-response-format"))
    with pytest.raises(EndpointError, match="json_object") as refused:
        api.compare(
            ["embedded-lead"], judge="refuses-response-format", n=1, config=config, out=tmp_path / "run"
        )
    assert "ignores" not in str(refused.value)


@pytest.mark.slow
def test_one_odd_reply_of_many_costs_no_item(server: CaseServer, tmp_path: Path) -> None:
    config = registry(tmp_path, server, judge=("judges", "logprob-null-once"))
    rubric = tmp_path / "plain.yaml"
    rubric.write_text(json.dumps(RUBRIC.model_dump(mode="json", exclude_defaults=True)))
    run = api.compare(
        ["embedded-lead"],
        judge="logprob-null-once",
        rubric=rubric,
        n=10,
        config=config,
        controls=False,
        out=tmp_path / "run",
    )
    assert server.n_asked("logprob-null-once") == 30
    assert set(run.letters["letter"]) == {"A", "B"}


@pytest.mark.slow
def test_a_run_in_which_all_replies_fail_alike_is_no_success(server: CaseServer, tmp_path: Path) -> None:
    config = registry(tmp_path, server, judge=("judges", "all-fenced-though-schema"))
    with pytest.raises(DataError, match="invalid_json"):
        api.compare(
            ["embedded-lead"], judge="all-fenced-though-schema", n=2, config=config, out=tmp_path / "run"
        )


def test_every_case_is_tried() -> None:
    text = Path(__file__).read_text("utf-8")
    assert [case for case in CASES if f'"{case}"' not in text] == []


@pytest.mark.parametrize(
    "usage", [{}, [], "none", {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": 1.5}]
)
def test_a_usage_without_counts_is_unknown(usage: object) -> None:
    completion = read({"usage": usage})
    assert completion.usage is None
    assert completion.remark


def test_a_usage_of_other_names_is_read() -> None:
    usage = read({"usage": {"input_tokens": 7, "output_tokens": 3, "prompt_tokens_details": None}}).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 3)


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
def test_reasoning_that_only_the_total_holds_counts_as_part_of_the_reply(separators: tuple[str, str]) -> None:
    usage = {
        "prompt_tokens": 32,
        "completion_tokens": 9,
        "total_tokens": 135,
        "completion_tokens_details": {"reasoning_tokens": 94},
    }
    token = {"token": "x", "logprob": -0.1, "top_logprobs": [{"token": "x", "logprob": -0.1}]}
    choice = {"finish_reason": "length", "logprobs": {"content": [token]}, "message": {"content": "x"}}
    body = json.dumps({"choices": [choice], "usage": usage}, separators=separators).encode()
    assert bool(load_reply(body)[1]) == (separators == (",", ":"))  # of vLLM's form, the tokens stay bytes
    completion = read_completion(body, latency_s=0.0, max_tokens=103)
    assert completion.finish_reason == "length"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (32, 103)


@pytest.mark.parametrize("total", [None, True, "135", -1, 2**40, 30, 41])
def test_a_total_that_adds_nothing_leaves_the_count(total: object) -> None:
    usage = read({"usage": {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": total}}).usage
    assert usage is not None
    assert usage.completion_tokens == 9


@pytest.mark.parametrize(
    ("content", "text", "n_thinking"),
    [
        ([{"type": "thinking", "thinking": "abc"}, {"type": "output_text", "text": "x"}], "x", 3),
        (
            [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "ab"}]},
                {"type": "text", "text": "x"},
            ],
            "x",
            2,
        ),
        ([{"type": "thinking", "thinking": [None, {"text": 1}, {"text": "abcd"}, []]}], "", 4),
        ([{"type": "thinking"}, {"type": "thinking", "thinking": {"text": "a"}}], "", 0),
        ([], "", 0),
    ],
)
def test_content_in_parts_is_its_text_without_thinking(content: object, text: str, n_thinking: int) -> None:
    completion = read({}, content)
    assert (completion.text, completion.n_thinking) == (text, n_thinking)


@pytest.mark.parametrize(
    "content",
    [
        {"type": "text", "text": "x"},
        7,
        ["x"],
        [None],
        [{}],
        [{"type": "text"}],
        [{"type": "text", "text": ["x"]}],
        [{"type": ["text"], "text": "x"}],
        [{"type": "text", "text": "x"}, {"type": "image_url"}],
    ],
)
def test_content_of_another_shape_is_no_text(content: object) -> None:
    with pytest.raises(TypeError, match="content is not text"):
        read({}, content)


def read(fields: dict[str, object], content: object = "x") -> Completion:
    choice = {"finish_reason": "stop", "message": {"content": content}}
    body = json.dumps({"choices": [choice], **fields}).encode()
    return read_completion(body, latency_s=0.0, max_tokens=10)


@pytest.mark.slow
def test_a_control_character_in_an_answer_leaves_a_csv_that_is_read_back(
    server: CaseServer, tmp_path: Path
) -> None:
    config = registry(tmp_path, server, candidate=("models", "nul-in-answer"))
    run = api.compare(["nul-in-answer"], judge="embedded-lexical", n=2, config=config, out=tmp_path / "run")
    header, *rows = run.render("csv").splitlines()
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("\n".join([f"{header},label", *(f"{row},C" for row in rows)]), "utf-8")
    assert {label.item_id for label in read_labels(sheet)} == set(run.letters["item_id"])


@pytest.mark.slow
def test_a_stage_whose_first_tasks_fail_alike_ends_and_goes_on_when_it_is_resumed(
    server: CaseServer, tmp_path: Path
) -> None:
    config = registry(tmp_path, server, judge=("judges", "a-minus"))
    rubric = tmp_path / "plain.yaml"
    rubric.write_text(json.dumps(RUBRIC.model_dump(mode="json", exclude_defaults=True)))

    def compare(*, resume: bool) -> None:
        api.compare(
            ["embedded-lead"],
            judge="a-minus",
            rubric=rubric,
            n=40,
            config=config,
            controls=False,
            concurrency=4,
            out=tmp_path / "run",
            resume=resume,
        )

    with pytest.raises(DataError, match="unparseable"):
        compare(resume=False)
    rows = (tmp_path / "run" / "grades.jsonl").read_text().splitlines()
    assert 64 <= len(rows) <= 68
    with pytest.raises(DataError, match="gave no item a letter"):
        compare(resume=True)
    assert len((tmp_path / "run" / "grades.jsonl").read_text().splitlines()) == 120
