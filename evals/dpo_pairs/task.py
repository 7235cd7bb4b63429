"""This eval for Inspect: `inspect eval evals/dpo_pairs/task.py --model openai-api/NAME/MODEL --model-role grader=…`."""
# ruff: noqa: INP001 - an eval is a folder, not a package

from pathlib import Path
from typing import Any

from inspect_ai import Task, task

from qaeval.inspect_bridge import task_of


@task
def dpo_pairs(**options: Any) -> Task:  # noqa: ANN401 - those of `task_of`, as `-T n=20`
    """The eval of this folder; the parameters are those of `task_of`."""
    return task_of(Path(__file__).parent, **options)
