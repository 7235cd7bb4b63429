"""What a stage tells whoever is watching."""

from typing import Protocol

from qaeval.records import GenerateRow, Generation, Grade, GradeRow


class Progress(Protocol):
    """Watches the stages; the command line draws it, tests count with it."""

    def stage(self, name: str, *, total: int, done: int) -> None:
        """Begin a stage with ``total`` tasks, of which ``done`` were finished by an earlier run."""
        ...

    def row(self, row: GenerateRow | GradeRow) -> None:
        """Take note of a finished task, after its row is on disk."""
        ...

    def end(self) -> None:
        """End the stage."""
        ...

    def note(self, text: str) -> None:
        """Pass on what happens between stages: a server that starts, or died."""
        ...


class Quiet:
    """Watches nothing."""

    def stage(self, name: str, *, total: int, done: int) -> None:
        """Ignore it."""

    def row(self, row: Generation | Grade | object) -> None:
        """Ignore it."""

    def end(self) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""
