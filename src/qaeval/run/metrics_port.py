"""`--metrics-port`: what the progress reports is counted for a Prometheus as well."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qaeval.errors import UsageError
from qaeval.records import GenerateRow, GradeRow
from qaeval.report.facts import MachineFacts
from qaeval.run.watch import Progress, StageProgress
from qaeval.serving.exporter import Exporter, StageCounts

_LOOPBACK: Final = "127.0.0.1"


@contextmanager
def metrics_served(
    port: int | None,
    host: str | None,
    *,
    run: Path,
    settings: Mapping[str, Any],
    machines: Mapping[str, MachineFacts],
    note: Callable[[str], None],
) -> Iterator[Exporter | None]:
    """Serve the metrics of a run while the block runs.

    Args:
        port: 0 takes a free one; None: no metrics, and the block gets None.
        host: Address to listen at; default: 127.0.0.1.
        run: The run directory.
        settings: Settings of the run.
        machines: Machine of each model, by the model's name.
        note: Takes the address, for the user.

    Raises:
        UsageError: The port is taken, or a host is given without a port.
    """
    if port is None:
        if host is not None:
            raise UsageError("--metrics-host needs --metrics-port")
        yield None
        return
    name = settings["eval"]["name"]
    with Exporter(host or _LOOPBACK, port, run=run.name, eval_name=name, machines=machines) as exporter:
        note(f"metrics: {exporter.url}")
        yield exporter


@dataclass(frozen=True)
class Metered:
    """A progress whose rows are counted."""

    progress: Progress
    exporter: Exporter

    def stage(self, name: str, model: str, *, total: int, done: int) -> "MeteredStage":
        """Begin a stage; after the restart of a server it keeps its counts."""
        counts = self.exporter.counts(name, model)
        counts.n_planned, counts.n_finished = total, done
        return MeteredStage(self.progress.stage(name, model, total=total, done=done), counts)

    def note(self, text: str) -> None:
        """Pass a message on."""
        self.progress.note(text)


@dataclass(frozen=True)
class MeteredStage:
    """The progress of a stage whose rows are counted."""

    progress: StageProgress
    counts: StageCounts

    def row(self, row: GenerateRow | GradeRow) -> None:
        """Count a finished task."""
        self.counts.row(row)
        self.progress.row(row)

    def skip(self, n: int) -> None:
        """Take tasks that do not exist off the planned ones."""
        self.counts.n_planned -= n
        self.progress.skip(n)

    def end(self) -> None:
        """End the stage; its counts stay, since they are read until the process ends."""
        self.progress.end()
