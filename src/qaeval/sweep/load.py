"""What a model is asked in a sweep: the prompts of a stage, exactly as the stage sends them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from qaeval.chat.protocol import ChatRequest, Sampling
from qaeval.chat.reply import ReplyError
from qaeval.errors import DataError
from qaeval.registry.config import ModelSpec
from qaeval.run import generate as generating
from qaeval.run import grade as grading
from qaeval.run.items import read_items
from qaeval.run.plan import Judging, Plan
from qaeval.run.stages import StageName
from qaeval.storage.run_directory import RunStore

_NOUNS: Final = {"qa_pair": "pair", "answer": "answer", "preference_pair": "preference pair"}


@dataclass(frozen=True)
class Prompt:
    """One request of the load, and how the items of its reply are counted."""

    sample_id: str
    request: ChatRequest
    count: Callable[[str], int]


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a model is asked: the prompts of a stage, in its order."""

    spec: ModelSpec
    stage: StageName
    source: str
    noun: str
    prompts: tuple[Prompt, ...]


def generation_load(plan: Plan) -> Load:
    """Return the prompts that the generate stage sends to a plan's one candidate."""
    (spec,) = plan.candidates
    definition = plan.definition.model_copy(update={"checks": ()})
    sampling = spec.sampled(Sampling(**definition.sampling.model_dump()))
    lenient = spec.structured == "off"

    def prompt(task: generating.GenerateTask) -> Prompt:
        def count(text: str) -> int:
            try:
                return len(read_items(text, task.sample, definition, lenient=lenient))
            except ReplyError:
                return 0

        request = generating.build_request(task.sample, definition, sampling)
        return Prompt(task.sample.sample_id, request, count)

    prompts = tuple(map(prompt, generating.tasks(spec.name, plan.samples)))
    noun = _NOUNS[definition.item_kind]
    return Load(spec=spec, stage="generate", source=definition.name, noun=noun, prompts=prompts)


def grading_load(store: RunStore, judging: Judging) -> Load:
    """Return the prompts that the grade stage sends to a judge for a run's items.

    Raises:
        DataError: the run has no items.
    """
    spec = judging.judge
    instructions = grading.Instructions.of(judging.rubric, spec.sampled(grading.SAMPLING), spec.judge_mode)
    lenient = spec.structured == "off"

    def count(text: str) -> int:
        try:
            grading.parse_reply(text, judging.rubric, lenient=lenient)
        except ReplyError:
            return 0
        return 1

    with store.replies() as replies:
        prompts = tuple(
            Prompt(sample.sample_id, grading.build_request(sample, task.item, instructions), count)
            for sample in store.samples()
            for task in grading.tasks(spec.name, sample, replies.of(sample.sample_id))
        )
    if not prompts:
        raise DataError(f"{store.path}: no generation succeeded, so there is nothing to grade")
    return Load(spec=spec, stage="grade", source=store.path.name, noun="letter", prompts=prompts)
