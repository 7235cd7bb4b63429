"""What log-probabilities cost a vLLM server: CPU and bytes of a reply of 95 tokens, in four forms.

    vllm serve MODEL --served-model-name bench --port 8000 --enable-prompt-tokens-details …    (tests/vllm has the options for a CPU)
    .venv/bin/python benchmarks/logprobs_vllm.py http://127.0.0.1:8000/v1 PID

PID is the server's process; its children count. Rounds are interleaved and their ratios paired; prompts come from the prefix cache.
"""

import argparse
import asyncio
import json
import os
import statistics
from pathlib import Path
from typing import Any

import aiohttp

REQUESTS, IN_FLIGHT, TOKENS = 16, 8, 95
PLAIN, FIVE, TWENTY, SECOND = "none", "5 alternatives", "20 alternatives", "one token after the reply"
FORMS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    FIVE: {"logprobs": True, "top_logprobs": 5},
    TWENTY: {"logprobs": True, "top_logprobs": 20},
}


def cpu_s(pid: int) -> float:
    """Return user and system seconds of a process and its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_s(int(child)) for child in children)


def body(form: str, number: int, begun: str) -> dict[str, Any]:
    """Write a request: a reply of fixed length, or the token after one."""
    prompt = " ".join(
        f"Valve {index} of pump {number} opens at {7 * index + number} bar." for index in range(40)
    )
    messages = [{"role": "user", "content": prompt}]
    fields = {"model": "bench", "temperature": 0, "top_p": 1, "seed": 0}
    if form != SECOND:
        length = {"max_tokens": TOKENS, "min_tokens": TOKENS, "ignore_eos": True}
        return {**fields, **length, **FORMS[form], "messages": messages}
    messages.append({"role": "assistant", "content": begun})
    going_on = {"add_generation_prompt": False, "continue_final_message": True, "max_tokens": 1}
    choice = {"structured_outputs": {"choice": ["A", "B", "C"]}}
    return {**fields, **going_on, **choice, **FORMS[TWENTY], "messages": messages}


async def main(url: str, pid: int, rounds: int) -> None:
    """Print the table."""
    limit = asyncio.Semaphore(IN_FLIGHT)
    async with aiohttp.ClientSession() as session:

        async def ask(form: str, number: int, begun: str) -> bytes:
            async with (
                limit,
                session.post(f"{url}/chat/completions", json=body(form, number, begun)) as answer,
            ):
                content = await answer.read()
                assert answer.status == 200, content[:500]
                return content

        async def measured(form: str, begun: list[str]) -> tuple[float, list[bytes]]:
            before = cpu_s(pid)
            replies = await asyncio.gather(*(ask(form, number, begun[number]) for number in range(REQUESTS)))
            return 1000 * (cpu_s(pid) - before) / REQUESTS, replies

        _, first = await measured(PLAIN, [""] * REQUESTS)
        texts = [json.loads(reply)["choices"][0]["message"]["content"] for reply in first]
        begun = [f'{text}", "letter": "' for text in texts]
        await measured(SECOND, begun)
        taken: dict[str, list[float]] = {form: [] for form in (*FORMS, SECOND)}
        n_bytes = {}
        for _ in range(rounds):
            for form, of_form in taken.items():
                milliseconds, replies = await measured(form, begun)
                of_form.append(milliseconds)
                n_bytes[form] = sum(map(len, replies)) // REQUESTS
    print("| log-probabilities | bytes | server CPU, ms | of the plain reply |\n|---|---|---|---|")
    for form, of_form in taken.items():
        extra = taken[PLAIN] if form == SECOND else [0.0] * rounds
        pairs = zip(of_form, extra, taken[PLAIN], strict=True)
        ratio = statistics.median((own + more) / plain for own, more, plain in pairs)
        print(f"| {form} | {n_bytes[form]:,} | {statistics.median(of_form):.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("pid", type=int)
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.url, arguments.pid, arguments.rounds))
