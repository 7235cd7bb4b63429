"""The generate stage: a sample becomes a prompt, a reply becomes items, or a failure with a reason.

Building messages and parsing replies are pure; the one effect is the call of the model.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from string import Template
from types import MappingProxyType
from typing import Any

from qaeval.chat.protocol import ChatError, ChatModel, ChatRequest, Completion, Message, Sampling
from qaeval.chat.reply import ReplyError, extract_json
from qaeval.evaldef import EvalDefinition, item_schema
from qaeval.records import Failure, FailureReason, GenerateRow, Generation, Item, Sample, record_id

_FIELDS = ("type", "question", "answer")


@dataclass(frozen=True, slots=True)
class GenerateTask:
    """One sample to be asked of one candidate."""

    task_id: str
    candidate: str
    sample: Sample


def tasks(candidate: str, samples: Iterable[Sample], done: Container[str] = ()) -> Iterator[GenerateTask]:
    """Yield what has to be asked of a candidate and is not done, in the order of the samples."""
    for sample in samples:
        key = task_id(candidate, sample.sample_id)
        if key not in done:
            yield GenerateTask(key, candidate, sample)


def task_id(candidate: str, sample_id: str) -> str:
    """Name the task; the run's settings fix everything else that the reply depends on."""
    return record_id("generate", candidate, sample_id)


def build_request(sample: Sample, definition: EvalDefinition, sampling: Sampling) -> ChatRequest:
    """Render the eval's prompt for one sample. The chunk goes in whole; nothing is ever cut."""
    values = {"chunk": sample.chunk.text, "title": sample.chunk.title}
    messages = [Message("user", Template(definition.prompt.user).substitute(values))]
    if definition.prompt.system:
        messages.insert(0, Message("system", Template(definition.prompt.system).substitute(values)))
    return ChatRequest(
        messages=tuple(messages),
        schema=item_schema(definition),
        sampling=sampling,
        inputs=MappingProxyType(values),
    )


def parse_reply(text: str, sample_id: str, definition: EvalDefinition, *, lenient: bool) -> tuple[Item, ...]:
    """Read the items from a reply.

    Args:
        text: the reply.
        sample_id: becomes part of each item's id.
        definition: says how many items and which types are expected.
        lenient: the server did not enforce the schema, so JSON may stand in a code fence or between words.

    Raises:
        ReplyError: the reply as a whole fails; nothing is invented, dropped or padded.
    """
    value = extract_json(text, lenient=lenient)
    pairs = value.get("pairs") if isinstance(value, dict) else value
    if not isinstance(pairs, list):
        raise ReplyError("missing_field", f"expected an object with a list 'pairs', got {_kind(value)}")
    if len(pairs) != definition.items_per_sample:
        raise ReplyError(
            "wrong_item_count", f"expected {definition.items_per_sample} pairs, got {len(pairs)}"
        )
    return tuple(_item(pair, place, sample_id, definition) for place, pair in enumerate(pairs))


def _item(pair: Any, position: int, sample_id: str, definition: EvalDefinition) -> Item:  # noqa: ANN401 - parsed JSON
    if not isinstance(pair, dict):
        raise ReplyError("missing_field", f"pair {position + 1}: expected an object, got {_kind(pair)}")
    if unknown := sorted(set(pair) - set(_FIELDS)):
        raise ReplyError(
            "missing_field", f"pair {position + 1}: unknown field {unknown[0]!r}; expected {list(_FIELDS)}"
        )
    fields = {name: _text(pair, name, position) for name in _FIELDS}
    if fields["type"] not in definition.item_types:
        known = list(definition.item_types)
        raise ReplyError("missing_field", f"pair {position + 1}: type {fields['type']!r} is none of {known}")
    return Item.of(sample_id, position, **fields)


def _text(pair: Mapping[str, Any], name: str, position: int) -> str:
    value = pair.get(name)
    if not isinstance(value, str) or not value.strip():
        came = "nothing" if name not in pair else repr(value)[:60]
        raise ReplyError("missing_field", f"pair {position + 1}: expected text in {name!r}, got {came}")
    return value.strip()


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
    return names.get(type(value), repr(value)[:40])


async def generate_one(
    model: ChatModel, task: GenerateTask, definition: EvalDefinition, sampling: Sampling, *, lenient: bool
) -> GenerateRow:
    """Ask the candidate once and turn what comes into a row; only bugs raise."""
    request = build_request(task.sample, definition, sampling)
    try:
        completion = await model.complete(request)
    except ChatError as error:
        return _failure(task, error.reason, error.detail)
    if completion.finish_reason == "length":
        detail = f"the reply reached max_tokens={sampling.max_tokens} before its end"
        return _failure(task, "truncated", detail, completion)
    if completion.finish_reason == "abort":
        return _failure(
            task, "interrupted", "the server stopped the reply (finish_reason 'abort')", completion
        )
    try:
        items = parse_reply(completion.text, task.sample.sample_id, definition, lenient=lenient)
    except ReplyError as error:
        return _failure(task, error.reason, error.detail, completion)
    return Generation(
        task_id=task.task_id,
        candidate=task.candidate,
        sample_id=task.sample.sample_id,
        items=items,
        text=completion.text,
        usage=completion.usage,
        latency_s=completion.latency_s,
        cached=completion.cached,
    )


def _failure(
    task: GenerateTask, reason: FailureReason, detail: str, completion: Completion | None = None
) -> Failure:
    return Failure(
        task_id=task.task_id,
        stage="generate",
        model=task.candidate,
        sample_id=task.sample.sample_id,
        reason=reason,
        detail=detail,
        text=completion.text if completion else "",
        usage=completion.usage if completion else None,
        latency_s=completion.latency_s if completion else 0.0,
    )
