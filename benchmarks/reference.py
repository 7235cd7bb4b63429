"""The yardstick: the least that grades items over HTTP and keeps the letters. reference.py REQUESTS OUT URL IN_FLIGHT."""

import asyncio
import sys
from pathlib import Path
from typing import Literal

import aiohttp
import orjson
from pydantic import BaseModel


class Reply(BaseModel):
    """What the judge is to say."""

    reason: str = ""  # of a reply with the letter alone
    letter: Literal["A", "B", "C"]
    hallucination: bool


async def ask(session: aiohttp.ClientSession, url: str, line: dict[str, str]) -> dict[str, object]:
    """Ask until an answer can be read, five times at most."""
    messages = [{"role": role, "content": line[role]} for role in ("system", "user")]
    body = {"model": "bench", "messages": messages, "temperature": 0, "max_tokens": 512}
    for attempt in range(5):
        try:
            async with session.post(url, data=orjson.dumps(body)) as answer:
                content = await answer.read()
                if answer.status == 200:
                    reply = orjson.loads(content)
                    letter = Reply.model_validate_json(reply["choices"][0]["message"]["content"])
                    return {"id": line["id"], **letter.model_dump(), "usage": reply["usage"]}
        except (aiohttp.ClientError, TimeoutError, ValueError):
            pass
        await asyncio.sleep(0.1 * 2**attempt)
    return {"id": line["id"], "failed": True}


async def main(requests: str, out: str, url: str, in_flight: int) -> None:
    """Work through the file with so many workers on one iterator."""
    with Path(requests).open("rb") as lines, Path(out).open("wb", buffering=0) as rows:
        headers = {"content-type": "application/json"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

            async def worker() -> None:
                for line in lines:
                    row = await ask(session, f"{url}/chat/completions", orjson.loads(line))
                    rows.write(orjson.dumps(row) + b"\n")

            await asyncio.gather(*(worker() for _ in range(in_flight)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
