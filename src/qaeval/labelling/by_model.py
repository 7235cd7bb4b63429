"""Labels by a model: it reads what a rater reads, the rubric, chunk and item, and its letters are never pooled with those of people."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from qaeval.chat.protocol import ChatModel
from qaeval.errors import DataError, EndpointError
from qaeval.evals.rubric import Rubric
from qaeval.export.select import GradedItem
from qaeval.labelling.sitting import Sitting
from qaeval.records import TRANSIENT_REASONS, Failure, GradeRow
from qaeval.registry.find import api_key
from qaeval.registry.model import ModelSpec
from qaeval.run.endpoint import connect, resolve
from qaeval.run.grade import GradeTask, Instructions, grade_one, judge_sees
from qaeval.run.loop import for_each
from qaeval.run.pace import FixedLimit
from qaeval.run.watch import Stop, stop_on_signals

_NOTE_CHARS: Final = 2000


@dataclass
class ModelLabels:
    """What came of a sitting of a model.

    Attributes:
        n_labelled: Items that got a letter.
        failures: Items without one, by reason; those of a passing fault are asked again by the same call.
        refusal: Detail of the first failure; empty without any.
    """

    n_labelled: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    refusal: str = ""


def label_items(
    sitting: Sitting,
    spec: ModelSpec,
    *,
    allow_external: frozenset[str],
    concurrency: int,
    on_answer: Callable[[int, int], None] = lambda _done, _total: None,
) -> ModelLabels:
    """Have a model answer the open questions of a sitting; every label is on disk before the next is counted.

    Args:
        sitting: Of the model, as its rater.
        spec: The model, with consent if it is hosted.
        allow_external: Hosts outside the network that may be asked.
        concurrency: Requests in flight, at least 1.
        on_answer: Called with the number of answered questions and of all.

    Raises:
        UsageError: The model has no server, or consent is missing.
        EndpointError: The server cannot be used, or no question got an answer.
        DataError: No reply had a letter.
        StoreError: The file of labels cannot be written.
    """
    labels = ModelLabels()
    asyncio.run(_ask(sitting, spec, allow_external, concurrency, labels, on_answer))
    if labels.failures and not labels.n_labelled:
        reason, n = labels.failures.most_common(1)[0]
        kind = EndpointError if reason in TRANSIENT_REASONS else DataError
        raise kind(
            f"{spec.name} labelled no item ({n} × {reason}: {labels.refusal}); the same command asks again"
        )
    return labels


async def _ask(
    sitting: Sitting,
    spec: ModelSpec,
    allow_external: frozenset[str],
    concurrency: int,
    labels: ModelLabels,
    on_answer: Callable[[int, int], None],
) -> None:
    key, stop = api_key(spec), Stop()
    questions = sitting.open_items()
    instructions = _instructions(sitting.rubric, spec, sitting)
    endpoint = await resolve(spec, api_key=key, allow_external=allow_external)
    with stop_on_signals(stop):
        async with connect(endpoint, api_key=key) as model:

            async def ask(question: tuple[str, GradedItem]) -> tuple[GradeRow, float]:
                started = perf_counter()
                row = await _graded(model, question[1], spec, instructions)
                return row, perf_counter() - started

            async def write(question: tuple[str, GradedItem], answer: tuple[GradeRow, float]) -> None:
                row, seconds = answer
                if not isinstance(row, Failure):
                    labels.n_labelled += 1
                    sitting.record(question[0], row.letter, row.flags, row.reason[:_NOTE_CHARS], seconds)
                else:
                    labels.failures[row.reason] += 1
                    labels.refusal = labels.refusal or row.detail
                    if row.reason not in TRANSIENT_REASONS:
                        sitting.skip(question[0], f"{row.reason}: {row.detail}"[:_NOTE_CHARS], seconds)
                on_answer(labels.n_labelled + labels.failures.total(), len(questions))

            await for_each(questions, ask, write, limit=FixedLimit(concurrency), stop=stop)


def _instructions(rubric: Rubric, spec: ModelSpec, sitting: Sitting) -> Instructions:
    return Instructions.for_judge(rubric, spec, sees=judge_sees(sitting.settings))


async def _graded(
    model: ChatModel, graded: GradedItem, spec: ModelSpec, instructions: Instructions
) -> GradeRow:
    task = GradeTask(graded.item.item_id, spec.name, graded.sample, graded.item)
    return await grade_one(model, task, instructions, lenient=spec.structured == "off")
