"""qaeval's evals as Inspect tasks: its prompts, parsers, checks and rubrics, asked through Inspect's models."""

from pathlib import Path
from typing import Any, Final

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset
from inspect_ai.dataset import Sample as InspectSample
from inspect_ai.log import HeadlineMetric
from inspect_ai.model import GenerateConfig, Model, ModelOutput, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import collect

from qaeval.chat.protocol import ChatError, ChatRequest, Completion, Sampling
from qaeval.chat.wire import TransientError
from qaeval.corpus.samples import load_samples
from qaeval.corpus.sampling import draw
from qaeval.errors import DataError, UsageError
from qaeval.evals.definition import EvalDefinition
from qaeval.evals.find import find_eval, find_rubric
from qaeval.evals.rubric import Rubric
from qaeval.inspect_bridge.chat import InspectChat, as_chat_messages, read_output
from qaeval.inspect_bridge.scoring import (
    CLUSTER,
    LETTERS,
    USABLE,
    failed,
    letters_score,
    sample_metadata,
    usable_rate,
    usable_score,
)
from qaeval.records import Failure, GenerateRow, Generation, GradeRow, Sample
from qaeval.run import generate as generating
from qaeval.run import grade as grading
from qaeval.run.grade import JudgeMode
from qaeval.run.plan import Plan

FORMAT: Final = 1
"""Layout of what the logs hold for qaeval; an import refuses another one."""
METADATA: Final = "qaeval"
"""Key of the task's metadata under which it stands."""
GRADER: Final = "grader"

_ROW: Final = "qaeval_generation"
"""Key of the sample's store."""
_PATIENCE: Final = GenerateConfig(max_retries=7, timeout=900, attempt_timeout=300)
"""Inspect's own defaults are unlimited retries and no end of an attempt."""


def task_of(
    eval: str | Path,  # noqa: A002 - what the user types: -T eval=…
    *,
    n: int | None = None,
    seed: int = 0,
    rubric: str | None = None,
    judge_mode: JudgeMode = "reason_first",
    lenient: bool = False,
    lenient_judge: bool = False,
    merge_system: bool = False,
) -> Task:
    """Make an eval an Inspect task.

    The sampling parameters are the eval's and are not changed by ``--temperature`` and the like: replies are comparable with
    those of ``qaeval compare``. The judge is the model role ``grader``, which must be given; it is never the candidate
    unless the user says so.

    Args:
        eval: Name or folder.
        n: How many samples to draw; all when left out. Inspect's ``--limit`` takes the first ones instead, and such a log cannot
            be imported.
        seed: Of the draw.
        rubric: Name or file of another rubric than the eval's.
        judge_mode: ``reason_first`` or ``letter``.
        lenient: The candidate's server does not hold replies to a schema: none is sent, and JSON may stand between words.
        lenient_judge: The same of the judge's server.
        merge_system: Put the candidate's system message at the head of its first user turn.

    Raises:
        UsageError: eval or rubric are unknown, or ``n`` is more than there is.
        DataError: a file is not what it has to be.
    """
    definition = find_eval(str(eval))
    judged_by = _rubric(rubric or definition.rubric, definition)
    samples = draw(load_samples(definition), n=n, seed=seed)
    about = {
        **_about(Plan(definition, samples, (), seed), judged_by),
        "candidate": {"structured": not lenient, "merge_system": merge_system},
        "judge": {"structured": not lenient_judge, "judge_mode": judge_mode},
    }
    return Task(
        name=definition.name,
        dataset=MemoryDataset(
            [inspect_sample(one, definition, merge_system=merge_system) for one in samples],
            name=definition.name,
        ),
        solver=ask(str(eval), lenient=lenient, merge_system=merge_system),
        scorer=[
            letters(
                str(eval), rubric=rubric, judge_mode=judge_mode, lenient=lenient, lenient_judge=lenient_judge
            ),
            usable(str(eval), rubric=rubric),
        ],
        config=_PATIENCE,
        headline_metric=HeadlineMetric(scorer=USABLE, metric="usable_rate"),
        version=definition.digest[:12],
        metadata={METADATA: about},
    )


def _about(plan: Plan, rubric: Rubric) -> dict[str, Any]:
    """Say what an import has to know and check."""
    graded_by = {"judge": None, "rubric": {**rubric.model_dump(mode="json"), "sha": rubric.sha}}
    settings = {**plan.settings(), "grading": graded_by}
    return {
        "format": FORMAT,
        "rubric_sha": rubric.sha,
        "sample_set": settings["sample_set"]["digest"],
        "settings": settings,
    }


def inspect_sample(
    sample: Sample, definition: EvalDefinition, *, merge_system: bool = False
) -> InspectSample:
    """Write a sample as Inspect has it; its id pairs candidates, and is what an interrupted eval is resumed by."""
    request = generating.build_request(sample, definition, Sampling())
    return InspectSample(
        id=sample.sample_id,
        input=as_chat_messages(request, merge_system=merge_system),
        metadata=sample_metadata(sample),
    )


@solver
def ask(eval: str, lenient: bool = False, merge_system: bool = False) -> Solver:  # noqa: A002 - as `task_of` calls it
    """Ask the candidate for its items, as qaeval's generate stage does; what failed is kept with its reason."""
    definition = find_eval(eval)

    async def solve(state: TaskState, generate: Generate) -> TaskState:  # noqa: ARG001 - sends no schema of qaeval's own
        grader()  # before the candidate is asked for anything
        chat = InspectChat(get_model(), structured=not lenient, merge_system=merge_system)
        row = await _generated(chat, state, definition, lenient=lenient)
        state.store.set(_ROW, {"row": row.model_dump(mode="json"), "host": chat.host})
        if chat.output is not None:
            state.output = chat.output
            state.messages += [choice.message for choice in chat.output.choices[:1]]
        return state

    return solve


@scorer(name=LETTERS, metrics=[mean(), stderr(cluster=CLUSTER)])
def letters(
    eval: str,  # noqa: A002 - as `task_of` calls it
    rubric: str | None = None,
    judge_mode: JudgeMode = "reason_first",
    lenient: bool = False,
    lenient_judge: bool = False,
) -> Scorer:
    """Grade every item of a reply with the model role ``grader``; the score is the mean of the letters (A=1, B=0.5, C=0)."""
    definition = find_eval(eval)
    judged_by = _rubric(rubric or definition.rubric, definition)
    instructions = grading.Instructions.of(judged_by, grading.SAMPLING, judge_mode)

    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001 - there is no target
        judge = grader()
        kept = state.store.get(_ROW)
        row = (
            _row(kept["row"])
            if kept
            else await _generated(_Said(state.output), state, definition, lenient=lenient)
        )
        hosts = {str(state.model): kept["host"]} if kept else {}
        if isinstance(row, Failure):
            return letters_score(row, {}, judged_by.letters, hosts=hosts)

        async def graded(one: grading.GradeTask) -> GradeRow:
            chat = InspectChat(judge, structured=not lenient_judge)
            hosts[str(judge)] = chat.host
            return await grading.grade_one(chat, one, instructions, lenient=lenient_judge)

        asked = grading.tasks(str(judge), _sample(state), [row])
        grades = await collect(*(graded(one) for one in asked))
        return letters_score(row, {str(one.item_id): one for one in grades}, judged_by.letters, hosts=hosts)

    return score


@scorer(name=USABLE, metrics=[usable_rate(), stderr(cluster=CLUSTER), failed()])
def usable(eval: str, rubric: str | None = None) -> Scorer:  # noqa: A002 - as `task_of` calls it
    """Share of the expected items with the best letter, read off the score ``letters``, which must stand before this one."""
    definition = find_eval(eval)
    best = _rubric(rubric or definition.rubric, definition).letters[0]

    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001 - there is no target
        found = (state.scores or {}).get(LETTERS)
        if found is None:
            raise UsageError(
                "the scorer 'usable' reads what the scorer 'letters' found; put that one before it"
            )
        return usable_score(found, best, definition.items_per_sample)

    return score


def grader() -> Model:
    """Return the model that grades.

    Raises:
        UsageError: none was given; Inspect itself would let the candidate grade its own replies.
    """
    try:
        return get_model(role=GRADER, required=True, config=_PATIENCE)
    except Exception as error:
        raise UsageError(
            f"no usable grader: {error} Name the judge with --model-role grader=openai-api/NAME/MODEL; the candidate does "
            f"not grade its own replies unless you name it there"
        ) from error


class _Said:
    """A model that says what was said already: replies of another solver than `ask`."""

    def __init__(self, output: ModelOutput) -> None:
        self._output = output

    async def complete(self, request: ChatRequest) -> Completion:
        try:
            return read_output(self._output, request, self._output.time or 0.0)
        except TransientError as error:
            raise ChatError(error.reason, error.detail) from None


async def _generated(
    chat: InspectChat | _Said, state: TaskState, definition: EvalDefinition, *, lenient: bool
) -> GenerateRow:
    sample, candidate = _sample(state), str(state.model)
    task = generating.GenerateTask(generating.task_id(candidate, sample.sample_id), candidate, sample)
    sampling = Sampling(**definition.sampling.model_dump())
    return await generating.generate_one(chat, task, definition, sampling, lenient=lenient)


def _sample(state: TaskState) -> Sample:
    if "sample" not in state.metadata:
        raise DataError(
            f"sample {state.sample_id} has no metadata 'sample': it was not made by a task of qaeval's"
        )
    return Sample.model_validate(state.metadata["sample"])


def _row(row: dict[str, Any]) -> GenerateRow:
    return (Failure if row["kind"] == "failure" else Generation).model_validate(row)


def _rubric(name: str, definition: EvalDefinition) -> Rubric:
    """Find a rubric: in ``rubrics/`` beside the eval's ``evals/`` (Inspect changes the directory), else as qaeval does."""
    beside = definition.directory.resolve().parent.parent / "rubrics" / f"{name}.yaml"
    return find_rubric(str(beside) if beside.is_file() else name)
