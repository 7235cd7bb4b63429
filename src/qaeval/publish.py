"""From a finished run directory to its reports and its manifest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from qaeval.analysis.summary import Analysis, analyse_rows
from qaeval.records import hosts_outside
from qaeval.report.charts import charts
from qaeval.report.document import Report
from qaeval.report.facts import HostedFacts, MachineFacts, RunFacts
from qaeval.report.render_csv import render_csv
from qaeval.report.render_html import render_html
from qaeval.report.render_markdown import CHARTS, render_markdown
from qaeval.rundata import RunData
from qaeval.store import GENERATIONS, GRADES, MANIFEST, SAMPLES, SETTINGS, RunStore, model_json

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
