"""qaeval's evals as Inspect tasks, with the same prompts, parsers, checks and rubrics."""

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
from qaeval.evals.rubric import GradeMode, Rubric
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
from qaeval.registry.family import relation
from qaeval.registry.model import ModelSpec
from qaeval.run import generate as generating
from qaeval.run import grade as grading
from qaeval.run.plan import Plan

FORMAT: Final = 1
"""Format of qaeval's metadata in logs; imports refuse other formats."""
METADATA: Final = "qaeval"
"""Key of qaeval's metadata in the metadata of a task."""
GRADER: Final = "grader"

_GENERATION_KEY: Final = "qaeval_generation"
"""Key of the generation in a sample's store."""
_REQUEST_CONFIG: Final = GenerateConfig(max_retries=7, timeout=900, attempt_timeout=300)
"""Inspect's defaults are unlimited retries and no timeout."""


def task_of(
    eval: str | Path,  # noqa: A002 - the name on the command line: -T eval=…
    *,
    n: int | None = None,
    seed: int = 0,
    rubric: str | None = None,
    judge_mode: GradeMode = "reason_first",
    lenient: bool = False,
    lenient_judge: bool = False,
    merge_system: bool = False,
    allow_same_family: bool = False,
) -> Task:
    """Return an eval as an Inspect task.

    Sampling parameters are those of the eval, regardless of ``--temperature`` and similar options, so that
    replies are comparable with those of ``qaeval compare``. The judge is the model role ``grader``, which
    is required. It is refused where it is the candidate, or its name states the candidate's family
    (`qaeval.registry.family`).

    Args:
        eval: Name or folder of the eval.
        n: Number of samples to draw; default: all. Inspect's ``--limit`` takes the first samples instead,
            and such a log cannot be imported.
        seed: Seed of the draw.
        rubric: Name or file of the rubric; default: that of the eval.
        judge_mode: ``reason_first`` or ``letter``.
        lenient: Send no schema to the candidate's server, and accept JSON within other text.
        lenient_judge: The same for the judge's server.
        merge_system: Put the candidate's system message at the start of its first user turn.
        allow_same_family: Allow a judge of the candidate's family, or the candidate itself.

    Raises:
        UsageError: eval or rubric is unknown, or ``n`` exceeds the number of samples.
        DataError: a file is invalid.
    """
    definition = find_eval(str(eval))
    rubric_definition = _rubric(rubric or definition.rubric, definition)
    samples = draw(load_samples(definition), n=n, seed=seed)
    metadata = {
        **_log_metadata(Plan(definition, samples, (), seed), rubric_definition),
        "candidate": {"structured": not lenient, "merge_system": merge_system},
        "judge": {"structured": not lenient_judge, "judge_mode": judge_mode},
    }
    return Task(
        name=definition.name,
        dataset=MemoryDataset(
            [inspect_sample(sample, definition, merge_system=merge_system) for sample in samples],
            name=definition.name,
        ),
        solver=ask(
            str(eval), lenient=lenient, merge_system=merge_system, allow_same_family=allow_same_family
        ),
        scorer=[
            letters(
                str(eval),
                rubric=rubric,
                judge_mode=judge_mode,
                lenient=lenient,
                lenient_judge=lenient_judge,
                allow_same_family=allow_same_family,
            ),
            usable(str(eval), rubric=rubric),
        ],
        config=_REQUEST_CONFIG,
        headline_metric=HeadlineMetric(scorer=USABLE, metric="usable_rate"),
        version=definition.digest[:12],
        metadata={METADATA: metadata},
    )


def _log_metadata(plan: Plan, rubric: Rubric) -> dict[str, Any]:
    """Return the metadata that an import reads and checks."""
    graded_by = {"rubric": {**rubric.model_dump(mode="json"), "sha": rubric.sha}}
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
    """Convert a sample to Inspect's; its id pairs candidates and identifies it when an eval is resumed."""
    request = generating.build_request(sample, definition, Sampling())
    return InspectSample(
        id=sample.sample_id,
        input=as_chat_messages(request, merge_system=merge_system),
        metadata=sample_metadata(sample),
    )


@solver
def ask(
    eval: str,  # noqa: A002 - as in `task_of`
    lenient: bool = False,
    merge_system: bool = False,
    allow_same_family: bool = False,
) -> Solver:
    """Generate the candidate's items like qaeval's generate stage; failures are kept with their reason."""
    definition = find_eval(eval)

    # Inspect's `generate` cannot send a schema
    async def solve(state: TaskState, generate: Generate) -> TaskState:  # noqa: ARG001 - Inspect's signature
        # a judge that is missing or related is an error before any request to the candidate
        _require_foreign(grader(), str(state.model), allowed=allow_same_family)
        chat = InspectChat(get_model(), structured=not lenient, merge_system=merge_system)
        row = await _generate_row(chat, state, definition, lenient=lenient)
        state.store.set(_GENERATION_KEY, {"row": row.model_dump(mode="json"), "host": chat.host})
        if chat.output is not None:
            state.output = chat.output
            state.messages += [choice.message for choice in chat.output.choices[:1]]
        return state

    return solve


@scorer(name=LETTERS, metrics=[mean(), stderr(cluster=CLUSTER)])
def letters(
    eval: str,  # noqa: A002 - as in `task_of`
    rubric: str | None = None,
    judge_mode: GradeMode = "reason_first",
    lenient: bool = False,
    lenient_judge: bool = False,
    allow_same_family: bool = False,
) -> Scorer:
    """Grade every item by the model role ``grader``; the score is the mean letter (A=1, B=0.5, C=0)."""
    definition = find_eval(eval)
    rubric_definition = _rubric(rubric or definition.rubric, definition)
    instructions = grading.Instructions.of(
        rubric_definition, grading.SAMPLING, judge_mode, sees=definition.judge_sees
    )

    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001 - there is no target
        judge = grader()
        _require_foreign(judge, str(state.model), allowed=allow_same_family)
        stored = state.store.get(_GENERATION_KEY)
        row = (
            _row(stored["row"])
            if stored
            else await _generate_row(_RecordedReply(state.output), state, definition, lenient=lenient)
        )
        hosts = {str(state.model): stored["host"]} if stored else {}
        if isinstance(row, Failure):
            return letters_score(row, {}, rubric_definition.letters, hosts=hosts)

        async def graded(task: grading.GradeTask) -> GradeRow:
            chat = InspectChat(judge, structured=not lenient_judge)
            hosts[str(judge)] = chat.host
            return await grading.grade_one(chat, task, instructions, lenient=lenient_judge)

        grade_tasks = grading.tasks(str(judge), _sample(state), [row])
        grades = await collect(*(graded(task) for task in grade_tasks))
        by_item = {str(grade.item_id): grade for grade in grades}
        return letters_score(row, by_item, rubric_definition.letters, hosts=hosts)

    return score


@scorer(name=USABLE, metrics=[usable_rate(), stderr(cluster=CLUSTER), failed()])
def usable(eval: str, rubric: str | None = None) -> Scorer:  # noqa: A002 - as in `task_of`
    """Share of the expected items with the best letter, from the score of `letters`, which must come first."""
    definition = find_eval(eval)
    best = _rubric(rubric or definition.rubric, definition).letters[0]

    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001 - there is no target
        letters_of_sample = (state.scores or {}).get(LETTERS)
        if letters_of_sample is None:
            raise UsageError("the scorer 'usable' reads the score of 'letters'; put 'letters' before it")
        return usable_score(letters_of_sample, best, definition.items_per_sample)

    return score


def grader() -> Model:
    """Return the model that grades.

    Raises:
        UsageError: the role is not set; Inspect itself would let the candidate grade its own replies.
    """
    try:
        return get_model(role=GRADER, required=True, config=_REQUEST_CONFIG)
    except Exception as error:
        raise UsageError(
            f"no usable grader: {error} Set the judge with --model-role grader=openai-api/NAME/MODEL"
        ) from error


def _require_foreign(judge: Model, candidate: str, *, allowed: bool) -> None:
    """Refuse a judge that is the candidate, or whose name states the candidate's family.

    Raises:
        UsageError: it is, and that is not allowed.
    """
    shared = relation(ModelSpec(name=str(judge)), ModelSpec(name=candidate))
    if shared and not allowed:
        raise UsageError(
            f"the grader {judge} is related to the candidate {candidate} ({shared}), and judges prefer the words of their "
            f"own family. Set another --model-role grader, or allow it with -T allow_same_family=true"
        )


class _RecordedReply:
    """A model that returns a recorded reply, for solvers other than `ask`."""

    def __init__(self, output: ModelOutput) -> None:
        self._output = output

    async def complete(self, request: ChatRequest) -> Completion:
        try:
            return read_output(self._output, request, self._output.time or 0.0)
        except TransientError as error:
            raise ChatError(error.reason, error.detail) from None


async def _generate_row(
    chat: InspectChat | _RecordedReply, state: TaskState, definition: EvalDefinition, *, lenient: bool
) -> GenerateRow:
    sample, candidate = _sample(state), str(state.model)
    task = generating.GenerateTask(generating.task_id(candidate, sample.sample_id), candidate, sample)
    sampling = Sampling(**definition.sampling.model_dump())
    return await generating.generate_one(chat, task, definition, sampling, lenient=lenient)


def _sample(state: TaskState) -> Sample:
    if "sample" not in state.metadata:
        raise DataError(f"sample {state.sample_id} has no metadata 'sample': it is not from a task of qaeval")
    return Sample.model_validate(state.metadata["sample"])


def _row(row: dict[str, Any]) -> GenerateRow:
    return (Failure if row["kind"] == "failure" else Generation).model_validate(row)


def _rubric(name: str, definition: EvalDefinition) -> Rubric:
    """Find a rubric, first in ``rubrics/`` beside ``evals/``, since Inspect changes the directory."""
    path = definition.directory.resolve().parent.parent / "rubrics" / f"{name}.yaml"
    return find_rubric(str(path) if path.is_file() else name)
