"""From a finished run directory to its reports and its manifest.

From finished runs to reports: one run with its files written, or several side by side.
"""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from qaeval import __version__
from qaeval.comparison.analysis import Analysis, analyse_rows
from qaeval.comparison.charts import charts
from qaeval.comparison.csv import render_csv
from qaeval.comparison.html import render_html
from qaeval.comparison.markdown import CHARTS, render_markdown
from qaeval.comparison.report import Report
from qaeval.comparison.run_data import RunData, join_runs
from qaeval.environment import git_commit, now
from qaeval.errors import UsageError
from qaeval.records import Session, hosts_outside
from qaeval.report.facts import HostedFacts, MachineFacts, RunFacts
from qaeval.storage.run_directory import (
    GENERATIONS,
    GRADES,
    MANIFEST,
    SAMPLES,
    SETTINGS,
    RunStore,
    model_json,
)

Format: TypeAlias = Literal["html", "md", "json", "csv"]
"""``csv`` has a row for each item; the others are the report."""

REPORTS: Final = ("report.json", "report.md", "report.html")

_PACKAGES: Final = ("aiohttp", "matplotlib", "numpy", "pandas", "pydantic", "scipy")


_MOST_ITEMS: Final = 20_000
"""Items of a page; a browser reads and filters so many without a pause."""


@dataclass(frozen=True)
class Written:
    """A report with the table behind it, to be rendered."""

    analysis: Analysis
    has_charts: bool = True
    """Whether charts stand beside the documents; of runs side by side nothing is written."""

    @property
    def report(self) -> Report:
        """The report as data."""
        return self.analysis.report

    def render(self, format_: Format) -> str:
        """Render it in one of the formats."""
        if format_ == "html":
            return render_html(self.report, self.analysis.items(most=_MOST_ITEMS, marked=True))
        if format_ == "md":
            return render_markdown(self.report, with_charts=self.has_charts)
        return render_csv(self.analysis.items()) if format_ == "csv" else model_json(self.report)


def publish(
    store: RunStore,
    run: RunFacts,
    *,
    label_paths: Sequence[Path],
    margin: float,
    machines: Mapping[str, MachineFacts],
    offers: Sequence[HostedFacts] = (),
) -> Written:
    """Write report.json, report.md with its charts, report.html and, last, manifest.json.

    Raises:
        DataError: the run is not finished, or a label file is not readable.
    """
    data = RunData.read(store, label_paths=label_paths)
    written = analyse(data, run, margin=margin, machines=machines, offers=offers)
    for name in REPORTS:
        store.write_text(name, written.render(name.rpartition(".")[2]))  # type: ignore[arg-type]
    drawn = {f"{CHARTS}/{chart.name}.svg": chart.svg() for chart in charts(written.report)}
    for name, svg in drawn.items():
        store.write_text(name, svg)
    manifest = _manifest(store, run, (*REPORTS, *drawn))
    store.write_text(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return written


def analyse(
    data: RunData,
    run: RunFacts,
    *,
    margin: float,
    machines: Mapping[str, MachineFacts],
    offers: Sequence[HostedFacts] = (),
) -> Written:
    """Analyse the rows of a run, or of several that were joined; write nothing.

    Raises:
        DataError: rows are missing, doubled or foreign.
    """
    analysis = analyse_rows(
        rows=data.rows,
        run=run,
        eval_facts=data.eval_facts,
        rubric=data.rubric,
        judge=data.judge,
        candidates=data.candidates,
        margin=margin,
        machines=machines,
        offers=offers,
        judge_tuned=data.judge_tuned,
    )
    return Written(analysis)


def _manifest(store: RunStore, run: RunFacts, reports: Sequence[str]) -> dict[str, Any]:
    sessions = store.sessions()
    files = (SETTINGS, SAMPLES, GENERATIONS, GRADES, *reports)
    return {
        "run": run.model_dump(mode="json"),
        "packages": {name: version(name) for name in _PACKAGES},
        "data_left": sorted(hosts_outside(sessions)),
        "sessions": [session.model_dump(mode="json") for session in sessions],
        "sha256": {name: hashlib.sha256((store.path / name).read_bytes()).hexdigest() for name in files},
    }


def write_report(
    store: RunStore,
    *,
    label_paths: Sequence[Path],
    margin: float,
    machines: Mapping[str, MachineFacts],
    command: str,
    offers: Sequence[HostedFacts] = (),
) -> Written:
    """Analyse a run, write its reports, and mark it complete with the manifest.

    Args:
        store: The run.
        label_paths: Files of labels, one or more raters each.
        margin: Smallest difference of usable rates that matters.
        machines: What each model runs on, by its name.
        command: What the user typed.
        offers: What other people's APIs take for tokens.

    Raises:
        DataError: the run is not finished, or a label file is not readable.
    """
    facts = _facts(store.path.name, store.sessions(), command=command, warnings=store.warnings)
    return publish(store, facts, label_paths=label_paths, margin=margin, machines=machines, offers=offers)


def read_report(
    stores: Sequence[RunStore],
    *,
    label_paths: Sequence[Path],
    margin: float,
    machines: Mapping[str, MachineFacts],
    command: str,
    offers: Sequence[HostedFacts] = (),
) -> Written:
    """Analyse a finished run, or several side by side; write nothing.

    Raises:
        NotComparableError: several runs differ in more than their candidates.
        DataError: a run is not finished, or a label file is not readable.
    """
    if len(stores) > 1:
        return join_reports(
            stores, label_paths=label_paths, margin=margin, machines=machines, command=command, offers=offers
        )
    (store,) = stores
    facts = _facts(store.path.name, store.sessions(), command=command, warnings=store.warnings)
    return analyse(
        RunData.read(store, label_paths=label_paths), facts, margin=margin, machines=machines, offers=offers
    )


def join_reports(
    stores: Sequence[RunStore],
    *,
    label_paths: Sequence[Path],
    margin: float,
    machines: Mapping[str, MachineFacts],
    command: str,
    offers: Sequence[HostedFacts] = (),
) -> Written:
    """Analyse several runs of the same eval, samples, rubric and judge side by side; write nothing.

    Raises:
        NotComparableError: they differ in more than their candidates.
        DataError: a run is not finished, or a label file is not readable.
    """
    runs = {store.path.name: RunData.read(store, label_paths=label_paths) for store in stores}
    if len(runs) < len(stores):
        raise UsageError(
            "two of the run directories have the same name; rename one, it tells candidates apart"
        )
    data = join_runs(runs)
    warnings = [text for store in stores for text in store.warnings]
    facts = _facts(" and ".join(runs), data.rows.sessions, command=command, warnings=warnings)
    known = {one.name: one.name.partition("@")[0] for one in (*data.candidates, data.judge)}
    named = {name: machines[model] for name, model in known.items() if model in machines}
    return replace(analyse(data, facts, margin=margin, machines=named, offers=offers), has_charts=False)


def _facts(name: str, sessions: Sequence[Session], *, command: str, warnings: Sequence[str]) -> RunFacts:
    return RunFacts(
        id=name,
        started=min((session.started for session in sessions), default=now()),
        finished=now(),
        qaeval_version=__version__,
        git_commit=git_commit(),
        python=platform.python_version(),
        platform=platform.platform(),
        command=command,
        warnings=tuple(warnings),
    )
