"""Progress: what is told in plain lines, and that two stages side by side leave no bar behind."""

import io

from rich.console import Console

from qaeval.cli.progress import BarProgress, Pace, PlainProgress, progress_for
from qaeval.records import Failure


def failure() -> Failure:
    return Failure(
        task_id="t", stage="generate", model="m", sample_id="s", reason="empty", detail="nothing came"
    )


def test_plain_lines_say_what_was_done_and_failed_of_a_total_that_stays() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    stage = progress.stage("grade", "judge", total=5, done=1)
    stage.skip(2)
    stage.row(failure())
    stage.end()
    stage.end()
    progress.note("a server started")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert {"judge:", "4/5,", "1", "failed,"} <= set(lines[0].split())
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
    second.skip(1)
    second.end()
    second.end()
    assert not progress.is_drawing
    assert "generate" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_rate_below_one_a_second_is_in_tasks_a_minute() -> None:
    times = iter([0.0, 4.0, 4.0, 4.0])
    pace = Pace(lambda: next(times))
    pace.row()
    assert pace.rate == "15.0/min"
    times = iter([0.0, 0.5, 0.5])
    pace = Pace(lambda: next(times))
    pace.row()
    assert pace.rate == "2.0/s"


def test_the_time_left_is_estimated_after_three_rounds() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    now = 10.0  # the first of four requests in flight
    for _ in range(8):
        pace.row()
    assert pace.left(100) == ""
    now = 30.0  # 12 tasks in 30 s: 100 more take 250 s
    for _ in range(4):
        pace.row()
    assert pace.left(100) == "4 min 10 s left"
    assert pace.left(0) == ""
