"""Inspect AI: qaeval's evals as Inspect tasks, and logs in both directions.

::

    inspect eval qaeval/qa_pairs --model openai-api/NAME/MODEL --model-role grader=openai-api/NAME/JUDGE -T
    n=20

This module is the entry point of Inspect (``[project.entry-points.inspect_ai]``). It is the only one that
imports ``inspect_ai``, which takes a second or more.
"""

from pathlib import Path
from typing import Any

from inspect_ai import Task, task

from qaeval.inspect_bridge.chat import recorded
from qaeval.inspect_bridge.exporting import export_logs
from qaeval.inspect_bridge.importing import import_log, is_own_log
from qaeval.inspect_bridge.scoring import failed, usable_rate
from qaeval.inspect_bridge.tasks import ask, letters, task_of, usable

__all__ = [
    "ask",
    "dpo_pairs",
    "export_logs",
    "failed",
    "import_log",
    "is_own_log",
    "letters",
    "qa_pairs",
    "rag_qa",
    "recorded",
    "task_of",
    "usable",
    "usable_rate",
]


def _registered(name: str) -> str:
    """Return the name under which a task is registered, so that Inspect finds it as ``qaeval/NAME``.

    Inspect puts the package's name before it where the package lies in site-packages. It does not for an editable
    installation, whose distribution has another name.
    """
    return name if "site-packages" in Path(__file__).parts else f"qaeval/{name}"


@task(name=_registered("qa_pairs"))
def qa_pairs(**options: Any) -> Task:  # noqa: ANN401 - the parameters of `task_of`
    """Write question/answer pairs about chunks of documentation; parameters of `task_of`: ``-T n=20``."""
    return task_of("qa_pairs", **options)


@task(name=_registered("rag_qa"))
def rag_qa(**options: Any) -> Task:  # noqa: ANN401 - the parameters of `task_of`
    """Answer questions from a given context only; parameters of `task_of`."""
    return task_of("rag_qa", **options)


@task(name=_registered("dpo_pairs"))
def dpo_pairs(**options: Any) -> Task:  # noqa: ANN401 - the parameters of `task_of`
    """Write preference pairs from topic cards; parameters of `task_of`."""
    return task_of("dpo_pairs", **options)
