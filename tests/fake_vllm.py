"""Stands in for ``vllm`` where a test needs its process and not its model: same commands, options, log lines and routes.

``fake_vllm.py serve MODEL --served-model-name NAME --port N …``; what MODEL ends with says how it behaves:

``ok`` · ``slow`` loads for a second, shard by shard · ``oom`` dies of memory · ``stubborn`` ignores SIGTERM ·
``crashes-after-N`` ends without a word after N replies, the first time it is started in its working directory ·
``always-crashes-after-N`` does so every time · ``child`` has a child process
"""

import os
import re
import signal
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path

from replay.server import RECORDED, LoopbackServer


def main(arguments: list[str]) -> None:
    if arguments[1] == "--help=all":
        say((RECORDED / "serve-options.txt").read_text())
        return
    kind = arguments[1].rpartition("/")[2]
    say(f"INFO Starting to load model {arguments[1]}")
    say(f"ENV {[name for name in ('VLLM_NO_USAGE_STATS', 'DO_NOT_TRACK') if os.environ.get(name)]}")
    prepare(kind)
    name = value_of(arguments, "--served-model-name")
    server = LoopbackServer(
        [name],
        port=int(value_of(arguments, "--port")),
        api_key=os.environ.get("VLLM_API_KEY"),
        adapters=dict.fromkeys(adapters_of(arguments), name),
        die_after=crash_after(kind),
        latency_s=0.1,
    )
    with server:
        say("INFO:     Application startup complete.")
        while server.alive:
            time.sleep(0.05)
    os._exit(1)


def prepare(kind: str) -> None:
    """Do what the model's name says happens before it is ready."""
    if kind == "oom":
        say("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB.")
        sys.exit(1)
    if kind == "slow":
        for shard in range(1, 4):
            say(f"Loading safetensors checkpoint shards:  {33 * shard}% Completed | {shard}/3 [00:01<00:00]")
            time.sleep(0.4)
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if kind == "child":
        say(f"CHILD {subprocess.Popen(['sleep', '300']).pid}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def adapters_of(arguments: list[str]) -> list[str]:
    if "--lora-modules" not in arguments:
        return []
    after = arguments[arguments.index("--lora-modules") + 1 :]
    return [word.partition("=")[0] for word in takewhile(lambda word: not word.startswith("--"), after)]


def value_of(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def crash_after(kind: str) -> int | None:
    match = re.search(r"crashes-after-(\d+)$", kind)
    if not match:
        return None
    once = Path(f"{kind}.crashed")
    if not kind.startswith("always") and once.exists():
        return None
    once.touch()
    return int(match.group(1))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(sys.argv[1:])
