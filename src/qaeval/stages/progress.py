"""What a stage tells whoever is watching."""

from typing import Protocol

from qaeval.records import GenerateRow, GradeRow


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


class Progress(Protocol):
    """Watches the stages; the command line draws it, tests count with it. Two stages may run side by side."""

    def stage(self, name: str, model: str, *, total: int, done: int) -> StageProgress:
        """Begin a model's stage with ``total`` tasks, of which ``done`` were finished by an earlier run."""
        ...

    def note(self, text: str) -> None:
        """Pass on what happens between stages: a server that starts, or died."""
        ...
