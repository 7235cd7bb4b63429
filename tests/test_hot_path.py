"""Calls of the engine for a sample and for an item: a regression of the hot path fails here, a busy machine does not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CALLS = {"generate": 4300, "grade": 385}
"""At most, for a sample and for an item. A change that needs more raises them and says why; seconds are in `make bench`.

The shipped chunks have twice the words of earlier ones, which checks read piece by piece; a prompt also has the language of its sample,
and a judge's prompt the title. A grade has one form of the prompt more around it (judge mode `cascade`).
"""


def counted(folder: Path) -> dict[str, float]:
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
    subprocess.run([sys.executable, HERE / "count_calls.py", folder], env=env, check=True, timeout=100)
    calls: dict[str, float] = json.loads((folder / "calls.json").read_text())
    return calls


@pytest.mark.slow
def test_a_sample_and_an_item_cost_no_more_calls_than_before(tmp_path: Path) -> None:
    calls = counted(tmp_path)
    assert {stage: n for stage, n in calls.items() if n > CALLS[stage]} == {}
    # a bar far above the count holds nothing
    assert {stage: n for stage, n in calls.items() if n < 0.8 * CALLS[stage]} == {}
