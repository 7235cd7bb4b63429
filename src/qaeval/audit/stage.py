"""The stage of an audit: every item is graded in its setting."""

from dataclasses import replace

from qaeval.audit.plan import COLD
from qaeval.audit.wordings import RENAMED, instructions_for
from qaeval.chat.protocol import ChatModel
from qaeval.evals.rubric import Rubric
from qaeval.records import AuditItem, Grade
from qaeval.run import grade
from qaeval.run.grade import GradeTask, Instructions
from qaeval.run.plan import Judging
from qaeval.run.stages import PendingTasks, Stage
from qaeval.storage.run_directory import AUDIT, RunStore


class AuditStage(Stage[AuditItem, AuditItem]):
    """The judge grades the items of an audit.

    Args:
        judging: Judge and rubric.
        store: The open run directory; it holds the items.
        translated: The rubric in another language, if there is one.
    """

    name = "grade"
    file = AUDIT
    uses_cache = False

    def __init__(self, judging: Judging, store: RunStore, translated: Rubric | None = None) -> None:
        self.spec = judging.judge
        self.prompt_sha = grade.prompt_sha(self.spec)
        self._store = store
        self._translated = translated
        self._samples = {sample.sample_id: sample for sample in store.samples()}
        self._used = Instructions.for_judge(
            judging.rubric, self.spec, sees=grade.judge_sees(store.settings())
        )
        self._instructions = {"": self._used}
        self._lenient = self.spec.structured == "off"

    def pending(self) -> PendingTasks[AuditItem]:
        """Return the items without a grade, in the order of the plan."""
        items = self._store.audit_items()
        tasks = [item for item in items if item.is_pending]
        return PendingTasks(len(items), len(items) - len(tasks), tasks)

    async def ask(self, model: ChatModel, task: AuditItem) -> AuditItem:
        """Ask for the grade of one item; letters of a renamed scale become those of the rubric."""
        instructions = self._of(task)
        sample = self._samples[task.sample_id]
        if task.source:
            chunk = sample.chunk.model_copy(update={"text": task.source})
            sample = sample.model_copy(update={"chunk": chunk})
        grading = GradeTask(task.task_id, self.spec.name, sample, task.item, letter_number=task.number)
        row = await grade.grade_one(model, grading, instructions, lenient=self._lenient)
        if isinstance(row, Grade) and task.setting == RENAMED:
            index = instructions.rubric.letters.index(row.letter)
            row = row.model_copy(update={"letter": self._used.rubric.letters[index], "probabilities": None})
        return task.model_copy(update={"grade": row})

    def _of(self, task: AuditItem) -> Instructions:
        setting = task.setting
        if setting not in self._instructions:
            self._instructions[setting] = instructions_for(setting, self._used, self._translated)
        sampling = self._used.sampling
        if setting == COLD:
            sampling = replace(sampling, temperature=0.0)
        elif task.number and sampling.seed is not None:
            # with the seed of the first a server would only repeat itself
            sampling = replace(sampling, seed=sampling.seed + task.number)
        return replace(self._instructions[setting], sampling=sampling)
