"""The load of a sweep: the prompts of a stage, exactly as the stage sends them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from qaeval.chat.protocol import ChatRequest, Sampling
from qaeval.chat.reply import ReplyError
from qaeval.errors import DataError
from qaeval.registry.config import ModelSpec
from qaeval.run import generate as generating
from qaeval.run import grade as grading
from qaeval.run.items import read_items
from qaeval.run.plan import Judging, Plan
from qaeval.storage.run_directory import RunStore

_NOUNS: Final = {"qa_pair": "pair", "answer": "answer", "preference_pair": "preference pair"}


@dataclass(frozen=True)
class LoadPrompt:
    """A request of the load, and the function that counts the items of its reply."""

    sample_id: str
    request: ChatRequest
    count: Callable[[str], int]


@dataclass(frozen=True, kw_only=True)
class Load:
    """The prompts of a stage for one model, in the stage's order."""

    spec: ModelSpec
    stage: Literal["generate", "grade"]
    source: str
    noun: str
    prompts: tuple[LoadPrompt, ...]


def generation_load(plan: Plan) -> Load:
    """Return the prompts of the generate stage for the only candidate of a plan."""
    (spec,) = plan.candidates
    definition = plan.definition.model_copy(update={"checks": ()})
    sampling = spec.sampled(Sampling(**definition.sampling.model_dump()))
    lenient = spec.structured == "off"

    def prompt(task: generating.GenerateTask) -> LoadPrompt:
        def count(text: str) -> int:
            try:
                return len(read_items(text, task.sample, definition, lenient=lenient))
            except ReplyError:
                return 0

        request = generating.build_request(task.sample, definition, sampling)
        return LoadPrompt(task.sample.sample_id, request, count)

    prompts = tuple(map(prompt, generating.tasks(spec.name, plan.samples)))
    noun = _NOUNS[definition.item_kind]
    return Load(spec=spec, stage="generate", source=definition.name, noun=noun, prompts=prompts)


def grading_load(store: RunStore, judging: Judging) -> Load:
    """Return the prompts of the grade stage for a judge and the items of a run.

    Raises:
        DataError: the run has no items.
    """
    spec = judging.judge
    instructions = grading.Instructions.for_judge(
        judging.rubric, spec, sees=grading.judge_sees(store.settings())
    )
    lenient = spec.structured == "off"

    def count(text: str) -> int:
        try:
            grading.parse_reply(text, judging.rubric, lenient=lenient)
        except ReplyError:
            return 0
        return 1

    with store.replies() as replies:
        prompts = tuple(
            LoadPrompt(sample.sample_id, grading.build_request(sample, task.item, instructions), count)
            for sample in store.samples()
            for task in grading.tasks(spec.name, sample, replies.of(sample.sample_id))
        )
    if not prompts:
        raise DataError(f"{store.path}: no items to grade: every generation failed")
    return Load(spec=spec, stage="grade", source=store.name, noun="letter", prompts=prompts)
