"""From a finished run directory to its reports and its manifest."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from qaeval.analysis.summary import build_items, build_report
from qaeval.report.document import Report
from qaeval.report.facts import RunFacts
from qaeval.report.render_html import render_html
from qaeval.report.render_markdown import render_markdown
from qaeval.rundata import RunData
from qaeval.store import GENERATIONS, GRADES, MANIFEST, SAMPLES, SETTINGS, RunStore, model_json

REPORTS: Final = ("report.json", "report.md", "report.html")

_PACKAGES: Final = ("aiohttp", "numpy", "pandas", "pydantic", "scipy")


def publish(store: RunStore, run: RunFacts, *, label_paths: Sequence[Path], margin: float) -> Report:
    """Write report.json, report.md, report.html and, last, manifest.json.

    Raises:
        DataError: the run is not finished, or a label file is not readable.
    """
    data = RunData.read(store, label_paths=label_paths)
    report = build_report(
        rows=data.rows,
        run=run,
        eval_facts=data.eval_facts,
        rubric=data.rubric,
        judge=data.judge,
        candidates=data.candidates,
        margin=margin,
        judge_tuned=data.judge_tuned,
    )
    items = build_items(
        rows=data.rows,
        eval_facts=data.eval_facts,
        rubric=data.rubric,
        judge=data.judge,
        candidates=data.candidates,
    )
    documents = (model_json(report), render_markdown(report), render_html(report, items))
    for name, text in zip(REPORTS, documents, strict=True):
        store.write_text(name, text)
    store.write_text(MANIFEST, json.dumps(_manifest(store, run), indent=1, ensure_ascii=False) + "\n")
    return report


def _manifest(store: RunStore, run: RunFacts) -> dict[str, Any]:
    sessions = store.sessions()
    files = (SETTINGS, SAMPLES, GENERATIONS, GRADES, *REPORTS)
    return {
        "run": run.model_dump(mode="json"),
        "packages": {name: version(name) for name in _PACKAGES},
        "data_left": sorted({session.host for session in sessions if session.external}),
        "sessions": [session.model_dump(mode="json") for session in sessions],
        "sha256": {name: hashlib.sha256((store.path / name).read_bytes()).hexdigest() for name in files},
    }
