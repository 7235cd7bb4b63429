"""qaeval and Inspect AI: the same evals as Inspect tasks, and logs in both directions.

::

    inspect eval qaeval/qa_pairs --model openai-api/NAME/MODEL --model-role grader=openai-api/NAME/JUDGE -T n=20

This is Inspect's entry point into qaeval (``[project.entry-points.inspect_ai]``). Importing it imports ``inspect_ai``, which takes
a second or more: nothing else in qaeval does.
"""

from pathlib import Path

from inspect_ai import Task, task

from qaeval.inspect_bridge.chat import recorded
from qaeval.inspect_bridge.exporting import export_logs
from qaeval.inspect_bridge.importing import import_log
from qaeval.inspect_bridge.scoring import failed, usable_rate
from qaeval.inspect_bridge.tasks import ask, letters, task_of, usable
from qaeval.stages.grade import JudgeMode

__all__ = [
    "ask",
    "dpo_pairs",
    "export_logs",
    "failed",
    "import_log",
    "letters",
    "qa_pairs",
    "rag_qa",
    "recorded",
    "task_of",
    "usable",
    "usable_rate",
]


@task
def qa_pairs(
    eval: str | Path = "qa_pairs",  # noqa: A002 - what the user types: -T eval=…
    n: int | None = None,
    seed: int = 0,
    rubric: str | None = None,
    judge_mode: JudgeMode = "reason_first",
    lenient: bool = False,
    lenient_judge: bool = False,
    merge_system: bool = False,
) -> Task:
    """Write question/answer pairs about chunks of documentation; the parameters are those of `task_of`."""
    return task_of(
        eval,
        n=n,
        seed=seed,
        rubric=rubric,
        judge_mode=judge_mode,
        lenient=lenient,
        lenient_judge=lenient_judge,
        merge_system=merge_system,
    )


@task
def rag_qa(
    eval: str | Path = "rag_qa",  # noqa: A002 - what the user types: -T eval=…
    n: int | None = None,
    seed: int = 0,
    rubric: str | None = None,
    judge_mode: JudgeMode = "reason_first",
    lenient: bool = False,
    lenient_judge: bool = False,
    merge_system: bool = False,
) -> Task:
    """Answer questions from a given context alone; the parameters are those of `task_of`."""
    return task_of(
        eval,
        n=n,
        seed=seed,
        rubric=rubric,
        judge_mode=judge_mode,
        lenient=lenient,
        lenient_judge=lenient_judge,
        merge_system=merge_system,
    )


@task
def dpo_pairs(
    eval: str | Path = "dpo_pairs",  # noqa: A002 - what the user types: -T eval=…
    n: int | None = None,
    seed: int = 0,
    rubric: str | None = None,
    judge_mode: JudgeMode = "reason_first",
    lenient: bool = False,
    lenient_judge: bool = False,
    merge_system: bool = False,
) -> Task:
    """Write preference pairs from topic cards; the parameters are those of `task_of`."""
    return task_of(
        eval,
        n=n,
        seed=seed,
        rubric=rubric,
        judge_mode=judge_mode,
        lenient=lenient,
        lenient_judge=lenient_judge,
        merge_system=merge_system,
    )
