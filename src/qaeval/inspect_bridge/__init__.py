"""Inspect AI: qaeval's evals as Inspect tasks, and logs in both directions.

::

    inspect eval qaeval/qa_pairs --model openai-api/NAME/MODEL --model-role grader=openai-api/NAME/JUDGE -T
    n=20

This module is the entry point of Inspect (``[project.entry-points.inspect_ai]``). It is the only one that
imports ``inspect_ai``, which takes a second or more.
"""

from typing import Any

from inspect_ai import Task, task

from qaeval.inspect_bridge.chat import recorded
from qaeval.inspect_bridge.exporting import export_logs
from qaeval.inspect_bridge.importing import import_log
from qaeval.inspect_bridge.scoring import failed, usable_rate
from qaeval.inspect_bridge.tasks import ask, letters, task_of, usable

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
def qa_pairs(**options: Any) -> Task:  # noqa: ANN401 - the parameters of `task_of`
    """Write question/answer pairs about chunks of documentation; parameters of `task_of`: ``-T n=20``."""
    return task_of("qa_pairs", **options)


@task
def rag_qa(**options: Any) -> Task:  # noqa: ANN401 - the parameters of `task_of`
    """Answer questions from a given context only; parameters of `task_of`."""
    return task_of("rag_qa", **options)


@task
def dpo_pairs(**options: Any) -> Task:  # noqa: ANN401 - the parameters of `task_of`
    """Write preference pairs from topic cards; parameters of `task_of`."""
    return task_of("dpo_pairs", **options)
