"""The generate stage: a sample becomes a prompt, a reply becomes items, or a failure with a reason.

Building messages and parsing replies are pure; the one effect is the call of the model.
"""

import json
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from string import Template
from types import MappingProxyType

from qaeval.chat.protocol import (
    ChatError,
    ChatModel,
    ChatRequest,
    Completion,
    Message,
    Sampling,
    special_pieces,
)
from qaeval.chat.reply import ReplyError
from qaeval.evals.definition import EvalDefinition, item_schema
from qaeval.records import ControlText, Failure, FailureReason, GenerateRow, Generation, Sample, record_id
from qaeval.registry.model import ModelSpec, PromptedModel
from qaeval.run.items import read_items
from qaeval.text.control import escape, unknown_pieces
from qaeval.text.language import language_name, language_to_write


@dataclass(frozen=True, slots=True)
class GenerateTask:
    """One sample for one candidate."""

    task_id: str
    candidate: str
    sample: Sample
    reply_number: int = 0
    index: int = 0
    """Position of the sample among those of the stage."""


def tasks(
    candidate: str,
    samples: Iterable[Sample],
    done: Container[str] = (),
    *,
    reply_numbers: Iterable[int] = (0,),
) -> Iterator[GenerateTask]:
    """Yield a candidate's tasks that are not done, in the order of the samples."""
    numbers = tuple(reply_numbers)
    for index, sample in enumerate(samples):
        for number in numbers:
            sample_task = task_id(candidate, sample.sample_id, number)
            if sample_task not in done:
                yield GenerateTask(sample_task, candidate, sample, number, index)


def task_id(candidate: str, sample_id: str, reply_number: int = 0) -> str:
    """Return the id of a task; the run's settings fix everything else that the reply depends on."""
    repeat = (f"reply {reply_number}",) if reply_number else ()
    return record_id("generate", candidate, sample_id, *repeat)


def definition_for(spec: ModelSpec, definition: EvalDefinition) -> EvalDefinition:
    """Return the eval with the candidate's own prompt, if it has one."""
    own = {"prompt": spec.prompt} if isinstance(spec, PromptedModel) else {}
    return definition.model_copy(update=own)


def build_request(
    sample: Sample, definition: EvalDefinition, sampling: Sampling, special: Collection[str] = ()
) -> ChatRequest:
    """Render the eval's prompt for one sample, with the whole chunk.

    Args:
        sample: its texts are put into the prompt, with their special tokens broken.
        definition: has the prompt.
        sampling: temperature, top_p, max_tokens, seed.
        special: pieces of the texts that are special tokens of the model besides those of known chat templates.
    """
    inputs = {"chunk": sample.chunk.text, "title": sample.chunk.title, "question": sample.question}
    values, n_tokens = {"language": language_in_words(sample)}, 0
    for name, text in inputs.items():
        escaped = escape(text, special)
        values[name] = escaped.text
        n_tokens += escaped.n_tokens
    messages = [Message("user", Template(definition.prompt.user).substitute(values))]
    if definition.prompt.system:
        messages.insert(0, Message("system", Template(definition.prompt.system).substitute(values)))
    return ChatRequest(
        messages=tuple(messages),
        schema=item_schema(definition, sample.chunk) if definition.enforce_schema else None,
        sampling=sampling,
        inputs=MappingProxyType(
            {**inputs, "kind": definition.item_kind, "given": json.dumps(dict(sample.given))}
        ),
        escaped={"special token": n_tokens} if n_tokens else {},
    )


def language_in_words(sample: Sample) -> str:
    """Return the language that a candidate is to write in, that of the question or else of the chunk, as words of a prompt."""
    chunk = sample.chunk
    code = language_to_write(
        question=sample.question, chunk=chunk.language, text=f"{chunk.title}\n{chunk.text}"
    )
    return language_name(code) or f"the language of the {'question' if sample.question else 'source text'}"


async def generate_one(
    model: ChatModel, task: GenerateTask, definition: EvalDefinition, sampling: Sampling, *, lenient: bool
) -> GenerateRow:
    """Ask the candidate once and turn the reply into a row; only bugs raise."""
    sample = task.sample
    texts = (sample.chunk.text, sample.chunk.title, sample.question)
    special = await special_pieces(model, unknown_pieces("\n".join(texts)))
    request = build_request(sample, definition, sampling, special)
    try:
        completion = await model.complete(request)
    except ChatError as error:
        return failed_reply(task, error.reason, error.detail, escaped=request.escaped)
    if completion.finish_reason == "length":
        detail = (
            f"the reply reached max_tokens={sampling.max_tokens} before its end{completion.lost_to_thinking}"
        )
        return failed_reply(task, "truncated", detail, completion, request.escaped)
    if completion.finish_reason == "repetition":
        return failed_reply(task, "repetition", completion.repeated, completion, request.escaped)
    if completion.finish_reason == "abort":
        detail = "the server stopped the reply (finish_reason 'abort')"
        return failed_reply(task, "interrupted", detail, completion, request.escaped)
    try:
        items = read_items(completion.text, task.sample, definition, lenient=lenient)
    except ReplyError as error:
        detail = f"{error.detail}{completion.lost_to_thinking}"
        return failed_reply(task, error.reason, detail, completion, request.escaped)
    return Generation(
        task_id=task.task_id,
        candidate=task.candidate,
        sample_id=task.sample.sample_id,
        reply_number=task.reply_number,
        items=items,
        lost=None if len(items) == definition.items_per_sample else (),
        remark=completion.remark,
        text=completion.text,
        usage=completion.usage,
        latency_s=completion.latency_s,
        cached=completion.cached,
        escaped=request.escaped,
    )


def failed_reply(
    task: GenerateTask,
    reason: FailureReason,
    detail: str,
    completion: Completion | None = None,
    escaped: Mapping[ControlText, int] = MappingProxyType({}),
) -> Failure:
    """Return the row of a task without a usable reply."""
    return Failure(
        task_id=task.task_id,
        stage="generate",
        model=task.candidate,
        sample_id=task.sample.sample_id,
        reply_number=task.reply_number,
        reason=reason,
        detail=detail,
        text=completion.text if completion else "",
        usage=completion.usage if completion else None,
        latency_s=completion.latency_s if completion else 0.0,
        escaped=escaped,
    )
