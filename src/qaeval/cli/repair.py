"""`qaeval repair`: move damaged rows of a run aside."""

import shlex
from pathlib import Path
from typing import Annotated, Final

import typer

from qaeval.cli.options import AsJson
from qaeval.cli.terminal import say, say_json

_SHOWN: Final = 10
"""Rejected rows that are listed; all of them are in the file."""


def repair(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")], as_json: AsJson = False
) -> None:
    """Move unreadable rows of a run aside; their tasks run again.

    The rows go to rejected.jsonl in the run directory, with the letters of items whose reply is gone.
    """
    from dataclasses import asdict

    from qaeval.report.numbers import plural
    from qaeval.storage.repair import NO_REPLY, REJECTED
    from qaeval.storage.repair import repair as repair_run
    from qaeval.storage.runs import next_command, way_on

    done = repair_run(run)
    if as_json:
        say_json({"rejected": [asdict(row) for row in done.rejected], "warnings": done.warnings})
        return
    for warning in done.warnings:
        say(warning)
    if not done.rejected:
        say(f"{run}: every row is readable; nothing is changed")
        return
    say(f"{plural(len(done.rejected), 'row')} moved to {run / REJECTED}")
    for row in done.rejected[:_SHOWN]:
        say(f"  {row.file}:{row.line}: {row.reason}")
    if len(done.rejected) > _SHOWN:
        say(f"  and {len(done.rejected) - _SHOWN:,} more")
    replies = sum(row.file.startswith("generation") for row in done.rejected)
    letters = sum(row.file.startswith("grade") for row in done.rejected)
    is_reply_missing = any(row.reason == NO_REPLY for row in done.rejected)
    missing = " and the replies that letters were given to" if is_reply_missing and not replies else ""
    say(f"to ask again: {plural(replies, 'reply', 'replies')}{missing}, {plural(letters, 'letter')}")
    grade = f"qaeval grade {shlex.quote(str(run))}"
    say(f"next: {next_command(run) or way_on(run) if replies or missing else grade}")
