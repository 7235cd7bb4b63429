"""Progress: what is told in plain lines, and that two stages side by side leave no bar behind."""

import io

from rich.console import Console

from qaeval.cli.progress import BarProgress, PlainProgress, progress_for
from qaeval.records import Failure


def failure() -> Failure:
    return Failure(
        task_id="t", stage="generate", model="m", sample_id="s", reason="empty", detail="nothing came"
    )


def test_plain_lines_say_what_was_done_failed_and_known_later() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    stage = progress.stage("grade", "judge", total=2, done=1)
    stage.more(3)
    stage.row(failure())
    stage.end()
    stage.end()
    progress.note("a server started")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert {"judge:", "2/5,", "1", "failed,"} <= set(lines[0].split())
    assert lines[1] == "a server started"


def test_bars_stop_when_the_last_stage_ended() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    progress = progress_for(console)
    assert isinstance(progress, BarProgress)
    first, second = (
        progress.stage("generate", "m", total=1, done=0),
        progress.stage("grade", "j", total=0, done=0),
    )
    first.row(failure())
    first.end()
    assert progress.is_drawing
    second.more(1)
    second.end()
    second.end()
    assert not progress.is_drawing
    assert "generate" in console.file.getvalue()  # type: ignore[attr-defined]
