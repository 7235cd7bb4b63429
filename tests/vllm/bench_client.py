"""`vllm bench serve`, many times in one process: a line of arguments in, a line when it is done. Runs in vLLM's environment."""

import argparse
import contextlib
import json
import sys

from vllm.benchmarks.serve import add_cli_args, main


def serve() -> None:
    """Work through the lines of stdin."""
    parser = argparse.ArgumentParser()
    add_cli_args(parser)
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            main(parser.parse_args(json.loads(line)))
        print("done", flush=True)  # noqa: T201 - what the test waits for


if __name__ == "__main__":
    serve()
