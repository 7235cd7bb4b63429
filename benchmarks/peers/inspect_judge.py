"""Inspect AI on the same items: answers that are there, graded by a scorer. REQUESTS OUT URL IN_FLIGHT."""

import json
import os
import re
import sys
from pathlib import Path

requests, out, url, in_flight = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
os.environ.update(BENCH_API_KEY="x", BENCH_BASE_URL=url, INSPECT_LOG_DIR=out)

from inspect_ai import Task, eval  # noqa: A004, E402
from inspect_ai.dataset import MemoryDataset, Sample  # noqa: E402
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ModelOutput, get_model  # noqa: E402
from inspect_ai.scorer import Score, accuracy, scorer  # noqa: E402
from inspect_ai.solver import solver  # noqa: E402

VALUES = {"A": 1.0, "B": 0.5, "C": 0.0}


@solver
def written():
    """Take the answer that is there."""

    async def solve(state, generate):
        state.output = ModelOutput.from_content("written", state.metadata["answer"])
        state.completed = True
        return state

    return solve


@scorer(metrics=[accuracy()])
def judge():
    """Ask the judge and read the letter."""

    async def score(state, target):
        line = state.metadata
        asked = [ChatMessageSystem(content=line["system"]), ChatMessageUser(content=line["user"])]
        text = (await get_model().generate(asked)).completion
        letter = re.search(r"GRADE: ([ABC])", text)
        return Score(value=VALUES[letter.group(1)] if letter else 0.0, explanation=text)

    return score


lines = [json.loads(line) for line in Path(requests).read_text().splitlines()]
samples = [Sample(id=line["id"], input=line["question"], target="A", metadata=line) for line in lines]
log = eval(
    Task(MemoryDataset(samples), solver=written(), scorer=judge(), name="judge"),
    model="openai-api/bench/bench",
    display="none",
    max_connections=in_flight,
    max_samples=in_flight,
    log_dir=out,
    log_level="error",
    temperature=0,
    max_tokens=512,
)[0]
print(log.status, log.results.completed_samples if log.results else 0)
sys.exit(log.status != "success")
