"""What a stage is watched for: rows to write, a server that is gone, a user who asks to stop.

What a stage tells whoever is watching.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from qaeval.errors import EndpointError
from qaeval.records import Failure, GenerateRow, GradeRow, Record

_LOST_AFTER: Final = 64
"""So many tasks in a row without an answer: the server says that it is well and is not."""


async def nobody(_row: Any) -> None:  # noqa: ANN401 - a row of either stage
    """Take note of nothing."""


class Stop:
    """Set by the first Ctrl-C; the second one abandons what is in flight."""

    def __init__(self, on_first: Callable[[], None]) -> None:
        self._asked = False
        self._on_first = on_first

    def is_set(self) -> bool:
        """Return True once the user asked."""
        return self._asked

    def ask(self) -> None:
        """Ask; the second time abandons."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._on_first()


@contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM ask the stages to stop while the block runs."""
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.ask)
    try:
        yield
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(signum)


class StageProgress(Protocol):
    """Watches one stage."""

    def row(self, row: GenerateRow | GradeRow) -> None:
        """Take note of a finished task, after its row is on disk."""
        ...

    def more(self, n: int) -> None:
        """Expect ``n`` tasks more than were known at the beginning."""
        ...

    def end(self) -> None:
        """End the stage; a second time changes nothing."""
        ...


class Watch:
    """Writes each row before anybody hears of it, and notices when a server is gone."""

    def __init__(
        self,
        append: Callable[[Record], None],
        progress: StageProgress,
        *,
        then: Callable[[Any], Awaitable[None]] = nobody,
    ) -> None:
        self._append = append
        self._progress = progress
        self._then = then
        self._lost = 0
        self.n_done = 0

    async def __call__(self, row: Any) -> None:  # noqa: ANN401 - a row of either stage
        """Write a row, tell of it, and count tasks in a row that nobody answered.

        Raises:
            EndpointError: the server is gone.
        """
        self._append(row)
        self._progress.row(row)
        self.n_done += 1
        await self._then(row)
        self._lost = self._lost + 1 if isinstance(row, Failure) and row.reason == "endpoint" else 0
        if self._lost >= _LOST_AFTER:
            raise EndpointError(
                f"{row.model}: the server stopped answering ({self._lost} in a row: {row.detail}); finished rows are kept"
            )


class Progress(Protocol):
    """Watches the stages; the command line draws it, tests count with it. Two stages may run side by side."""

    def stage(self, name: str, model: str, *, total: int, done: int) -> StageProgress:
        """Begin a model's stage with ``total`` tasks, of which ``done`` were finished by an earlier run."""
        ...

    def note(self, text: str) -> None:
        """Pass on what happens between stages: a server that starts, or died."""
        ...
