"""Repeats: further replies to the same samples and further letters for the same items.

They show how much of a run is the candidate's own noise and the judge's. Their rows lie in files of their own, so that
no rate, interval, gate, export or sheet reads them: the first reply and the first letter are the run. They may be added
at any time, and a larger number adds to a smaller one.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from qaeval.chat.protocol import ChatModel, Sampling
from qaeval.errors import UsageError
from qaeval.evals.definition import EvalDefinition
from qaeval.records import GenerateRow, GradeRow
from qaeval.registry.config import ModelSpec
from qaeval.run import generate, grade
from qaeval.run.generate import GenerateTask
from qaeval.run.grade import GradeTask, Instructions
from qaeval.run.plan import Judging
from qaeval.run.stages import PendingTasks, Stage
from qaeval.storage.run_directory import GENERATION_REPEATS, GRADE_REPEATS, RunStore

MAX_REPEATS: Final = 100
"""Beyond it the intervals of the noise narrow by less than a percent."""
_SEEDS: Final = 1000
"""Seeds between two replies, so that no letter of one has the seed of a letter of another."""


def checked_repeats(repeat: int | None, name: str) -> int:
    """Return a number of repeats, the first included; 1 where none is wanted.

    Raises:
        UsageError: it is not from 2 to 100.
    """
    if repeat is None:
        return 1
    if not 2 <= repeat <= MAX_REPEATS:
        raise UsageError(
            f"{name}: expected a number from 2 to {MAX_REPEATS}, got {repeat!r}; it counts the run itself, so 2 is the run and "
            f"one repeat, and a run without repeats needs no {name}"
        )
    return repeat


class GenerateRepeats(Stage[GenerateTask, GenerateRow]):
    """A candidate answers the samples of a run again.

    Args:
        spec: The candidate.
        definition: The eval.
        store: The open run directory.
        repeat: Replies to each sample, that of the run included.
        alongside: Whether another stage runs at the same time.
    """

    name = "generate repeats"
    file = GENERATION_REPEATS
    uses_cache = False

    def __init__(
        self,
        spec: ModelSpec,
        definition: EvalDefinition,
        store: RunStore,
        *,
        repeat: int,
        alongside: bool = False,
    ) -> None:
        self.spec = spec
        self.alongside = alongside
        self._definition = generate.definition_for(spec, definition)
        self._store = store
        self._numbers = range(1, repeat)
        self._sampling = spec.sampled(Sampling(**definition.sampling.model_dump()))
        self._lenient = spec.structured == "off"

    def pending(self) -> PendingTasks[GenerateTask]:
        """Return the replies that are missing."""
        done, name = self._store.finished(self.file), self.spec.name
        is_done = [
            generate.task_id(name, sample_id, number) in done
            for sample_id in self._store.sample_ids()
            for number in self._numbers
        ]
        tasks = generate.tasks(name, self._store.samples(), done, reply_numbers=self._numbers)
        return PendingTasks(len(is_done), sum(is_done), tasks)

    async def ask(self, model: ChatModel, task: GenerateTask) -> GenerateRow:
        """Ask for the items of one sample, with a seed of the repeat's own."""
        sampling = _reseeded(self._sampling, task.reply_number)
        return await generate.generate_one(model, task, self._definition, sampling, lenient=self._lenient)


class GradeRepeats(Stage[GradeTask, GradeRow]):
    """The judge grades the items of a run again, and the items of the candidates' further replies once.

    Args:
        judging: Judge and rubric.
        store: The open run directory.
        repeat: Letters for each item of the run, the first included.
    """

    name = "grade repeats"
    file = GRADE_REPEATS
    uses_cache = False

    def __init__(self, judging: Judging, store: RunStore, *, repeat: int) -> None:
        self.spec = judging.judge
        self._store = store
        self._numbers = range(1, repeat)
        self._instructions = Instructions.for_judge(
            judging.rubric, self.spec, sees=grade.judge_sees(store.settings())
        )
        self.prompt_sha = grade.prompt_sha(self.spec)
        self._lenient = self.spec.structured == "off"

    def pending(self) -> PendingTasks[GradeTask]:
        """Return the letters that are missing."""
        n_done = len(self._store.finished(self.file))
        n_pending = sum(1 for _ in self._tasks())
        return PendingTasks(n_done + n_pending, n_done, self._tasks())

    def _tasks(self) -> Iterator[GradeTask]:
        done = self._store.finished(self.file)
        with ExitStack() as stack:
            repeats = stack.enter_context(self._store.replies(GENERATION_REPEATS))
            if not (len(repeats) or self._numbers):
                return
            replies = stack.enter_context(self._store.replies())
            for sample in self._store.samples():
                generations = [*replies.of(sample.sample_id), *repeats.of(sample.sample_id)]
                yield from grade.repeated_tasks(
                    self.spec.name, sample, generations, done, letter_numbers=self._numbers
                )

    async def ask(self, model: ChatModel, task: GradeTask) -> GradeRow:
        """Ask for the grade of one item, with a seed of the repeat's own."""
        sampling = _reseeded(self._instructions.sampling, task.reply_number * _SEEDS + task.letter_number)
        instructions = replace(self._instructions, sampling=sampling)
        return await grade.grade_one(model, task, instructions, lenient=self._lenient)


def _reseeded(sampling: Sampling, number: int) -> Sampling:
    """Move the seed: with the seed of the first a server would only repeat itself."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + number)


def deterministic_note(spec: ModelSpec, sampling: Sampling) -> str | None:
    """Say that repeats of a model at temperature 0 measure its server alone; None at another temperature."""
    if spec.kind == "embedded":
        return f"{spec.name} is no language model: it gives the same reply in every repeat"
    if spec.sampled(sampling).temperature > 0:
        return None
    return (
        f"{spec.name} is asked at temperature 0: its repeats measure the server alone (batches, kernels), not the model's "
        f"noise; `sampling: {{temperature: 0.7}}` of its entry in qaeval.yaml, in a new run, measures that"
    )
