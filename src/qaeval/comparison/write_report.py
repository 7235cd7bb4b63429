"""Reports of finished run directories: of one run with its files, or of several side by side."""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Any, Final, Literal, TypeAlias

from qaeval import __version__
from qaeval.comparison.analysis import Analysis, ReportOptions, RunData, analyse
from qaeval.comparison.charts import charts
from qaeval.comparison.csv import render_csv
from qaeval.comparison.html import PageLinks, render_html
from qaeval.comparison.markdown import CHARTS, render_markdown
from qaeval.comparison.report import Report
from qaeval.comparison.run_data import join_runs, read_run
from qaeval.environment import git_commit, now
from qaeval.errors import UsageError
from qaeval.files.rows import file_sha256
from qaeval.records import Session, hosts_outside
from qaeval.report.chart import Chart
from qaeval.report.facts import RunFacts, judge_prompt_change
from qaeval.storage.run_directory import (
    CONTROLS,
    GENERATION_REPEATS,
    GENERATIONS,
    GRADE_REPEATS,
    GRADES,
    MANIFEST,
    SAMPLES,
    SETTINGS,
    RunStore,
    further_files,
    model_json,
)

Format: TypeAlias = Literal["html", "md", "json", "csv"]
"""``csv`` has a row for each item; the others are the report."""

REPORTS: Final = ("report.json", "report.md", "report.html")

_PACKAGES: Final = ("aiohttp", "matplotlib", "numpy", "pandas", "pydantic", "scipy")
"""Packages whose version can change a number or a picture of a report."""
_MAX_PAGE_ITEMS: Final = 20_000
"""Items of a page; a browser reads and filters so many without a pause."""


def write_report(store: RunStore, options: ReportOptions) -> Analysis:
    """Analyse a run; write report.json, report.md with its charts, report.html and, last, manifest.json.

    Raises:
        DataError: the run is not finished, or a label file is not readable.
    """
    analysis = read_report([store], options)
    drawn = charts(analysis.report)
    for name in REPORTS:
        store.write_text(name, render(analysis, name.rpartition(".")[2], drawn))  # type: ignore[arg-type]
    pictures = {f"{CHARTS}/{chart.name}.svg": chart.svg() for chart in drawn}
    for name, svg in pictures.items():
        store.write_text(name, svg)
    manifest = _manifest(store, analysis.report, (*REPORTS, *pictures))
    store.write_text(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return analysis


def read_report(stores: Sequence[RunStore], options: ReportOptions) -> Analysis:
    """Analyse a finished run, or several of the same eval, samples, rubric and judge side by side; write nothing.

    Raises:
        NotComparableError: several runs differ in more than their candidates.
        DataError: a run is not finished, or a label file is not readable.
    """
    runs = {
        store.name: read_run(
            store, label_paths=options.label_paths, decide_by=options.decide_by, panel=options.panel
        )
        for store in stores
    }
    if len(runs) < len(stores):
        raise UsageError(
            "two of the run directories have the same name; rename one, it tells candidates apart"
        )
    data = join_runs(runs)
    facts = RunFacts(
        id=" and ".join(runs),
        **_times(data.rows.sessions),
        qaeval_version=__version__,
        git_commit=git_commit(),
        python=platform.python_version(),
        platform=platform.platform(),
        command="; ".join(dict.fromkeys(line for store in stores for line in store.commands()))
        or options.command,
        warnings=(*(text for store in stores for text in store.warnings), *_judge_prompts(runs)),
    )
    if len(stores) == 1:
        return analyse(data, facts, options)
    # a candidate that two runs have is called NAME@RUN in the later one, and runs on the machine of NAME
    names = [model.name for model in (*data.candidates, data.judge)]
    models = {name: name if name in options.machines else name.rpartition("@")[0] for name in names}
    machines = {name: options.machines[model] for name, model in models.items() if model in options.machines}
    return replace(analyse(data, facts, replace(options, machines=machines)), has_charts=False)


def render(analysis: Analysis, format_: Format, drawn: Sequence[Chart] | None = None) -> str:
    """Render a report in one of the formats; the same analysis gives the same text.

    Args:
        analysis: The report and its rows.
        format_: Of the text.
        drawn: The charts of the report, where the caller has them.
    """
    if format_ == "html":
        items = analysis.items(max_items=_MAX_PAGE_ITEMS, marked=True)
        return render_html(analysis.report, items, drawn=drawn)
    if format_ == "md":
        return render_markdown(analysis.report, with_charts=analysis.has_charts)
    return render_csv(analysis.items()) if format_ == "csv" else model_json(analysis.report)


def render_page(analysis: Analysis, links: PageLinks) -> str:
    """Render a report as a page of a local server, with links to its other pages."""
    items = analysis.items(max_items=_MAX_PAGE_ITEMS, marked=True)
    return render_html(analysis.report, items, links=links)


def _judge_prompts(runs: Mapping[str, RunData]) -> Iterator[str]:
    """Name each run whose judge had another prompt than in the first one."""
    (first_name, first), *others = runs.items()
    for name, run in others:
        change = judge_prompt_change(
            run.judge.name, run.judge.prompt_sha, first.judge.prompt_sha, run=name, earlier=first_name
        )
        if change:
            yield change


def _times(sessions: Sequence[Session]) -> dict[str, str]:
    """Return start and end of the sessions; without any, as in an import, the present time."""
    if not sessions:
        return dict.fromkeys(("started", "finished"), now())
    ends = (
        datetime.fromisoformat(session.started) + timedelta(seconds=session.seconds) for session in sessions
    )
    return {
        "started": min(session.started for session in sessions),
        "finished": max(ends).isoformat(timespec="seconds"),
    }


def _manifest(store: RunStore, report: Report, reports: Sequence[str]) -> dict[str, Any]:
    sessions = store.sessions()
    # a further judge whose server never answered has settings and no rows
    further = [name for judge in store.further_judges() for name in further_files(judge)]
    # without an item there is nothing to grade, and no file of grades
    optional = (GRADES, *further, CONTROLS, GENERATION_REPEATS, GRADE_REPEATS)
    more = [name for name in optional if (store.path / name).is_file()]
    files = (SETTINGS, SAMPLES, GENERATIONS, *more, *reports)
    stopping = report.stopping
    return {
        "run": report.run.model_dump(mode="json"),
        **(
            {}
            if stopping is None
            else {"stopping": stopping.model_dump(mode="json", exclude={"looks", "timing"})}
        ),
        "packages": {name: version(name) for name in _PACKAGES},
        "data_left": sorted(hosts_outside(sessions)),
        "sessions": [session.model_dump(mode="json") for session in sessions],
        "sha256": {name: file_sha256(store.path / name) for name in files},
    }
