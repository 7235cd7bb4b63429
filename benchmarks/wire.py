"""What the client spends on reading a reply of a judge: 95 tokens, with 0, 5 and 20 alternatives at each.

    .venv/bin/python benchmarks/wire.py

The least of many rounds, which other load on the machine disturbs little; beside it the same with the list parsed whole.
"""

import re
import time
from collections.abc import Callable

import orjson

from qaeval.chat.logprobs import alternatives, load_reply
from qaeval.chat.wire import read_completion

ROUNDS, CALLS, TOKENS = 40, 10, 95
LETTER_FIELD = re.compile(r'"letter"\s*:\s*"([A-Z])')
TAIL = [
    '", "',
    "hallucination",
    '": ',
    "false",
    ', "',
    "letter",
    '": "',
    "B",
    '", "',
    "flaw",
    '": "',
    "none",
    '"}',
]


def reply(top: int) -> bytes:
    """Write a reply as vLLM does."""
    texts = ['{"reason": "', *[" word"] * (TOKENS - len(TAIL) - 1), *TAIL]
    tokens = [[_entry(text), *(_entry(f" word{n}") for n in range(1, top))] for text in texts]
    logprobs = {"content": [{**listed[0], "top_logprobs": listed} for listed in tokens]} if top else None
    message = {"role": "assistant", "content": "".join(texts)}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1180, "completion_tokens": TOKENS}
    return orjson.dumps({"id": "x", "model": "bench", "choices": [choice], "usage": usage})


def _entry(text: str) -> dict[str, object]:
    return {"token": text, "logprob": -3.0824191570281982, "bytes": [*text.encode()]}


def least_us(call: Callable[[], object]) -> float:
    """Return the least microseconds of a call over the rounds."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        seconds.append((time.perf_counter() - began) / CALLS)
    return 1e6 * min(seconds)


def parsed_whole(body: bytes) -> object:
    """Read the alternatives of the letter from the list of all tokens."""
    return alternatives(orjson.loads(body)["choices"][0]["logprobs"], b"", LETTER_FIELD)


def main() -> None:
    """Print the table."""
    print("| alternatives | kB | read, µs | list parsed whole, µs |\n|---|---|---|---|")
    for top in (0, 5, 20):
        body = reply(top)
        assert bool(load_reply(body)[1]) == bool(top)
        read = least_us(lambda: read_completion(body, latency_s=0.1, max_tokens=512, pattern=LETTER_FIELD))  # noqa: B023
        whole = f"{least_us(lambda: parsed_whole(body)):.0f}" if top else ""  # noqa: B023
        print(f"| {top} | {len(body) / 1000:.1f} | {read:.0f} | {whole} |")


if __name__ == "__main__":
    main()
