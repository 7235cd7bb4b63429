"""From a finished run directory to its reports and its manifest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from qaeval.analysis.summary import RunRows, build_items, build_report
from qaeval.errors import DataError
from qaeval.records import Label, digest
from qaeval.report.document import Report
from qaeval.report.facts import EvalFacts, Meaning, ModelFacts, RubricFacts, RunFacts
from qaeval.report.render_html import render_html
from qaeval.report.render_markdown import render_markdown
from qaeval.store import GENERATIONS, GRADES, MANIFEST, SAMPLES, SETTINGS, RunStore, model_json, read_records

REPORTS: Final = ("report.json", "report.md", "report.html")

_PACKAGES: Final = ("aiohttp", "numpy", "pandas", "pydantic", "scipy")


def publish(store: RunStore, run: RunFacts, *, label_paths: Sequence[Path], margin: float) -> Report:
    """Write report.json, report.md, report.html and, last, manifest.json.

    Raises:
        DataError: the run is not finished, or a label file is not readable.
    """
    settings = store.settings()
    grading = settings.get("grading")
    if grading is None:
        raise DataError(f"{store.path}: not graded yet; `qaeval grade {store.path}` comes first")
    rows = RunRows(
        samples=store.samples(),
        generations=tuple(store.generations().values()),
        grades=tuple(store.grades().values()),
        sessions=store.sessions(),
        labels=tuple(label for path in label_paths for label in read_records(path, Label)),
    )
    eval_facts = _eval_facts(settings)
    rubric = _rubric_facts(grading["rubric"])
    judge = _model_facts(grading["judge"]["name"], grading["judge"])
    candidates = [_model_facts(name, about) for name, about in settings["candidates"].items()]
    report = build_report(
        rows=rows,
        run=run,
        eval_facts=eval_facts,
        rubric=rubric,
        judge=judge,
        candidates=candidates,
        margin=margin,
        judge_tuned=grading["judge"].get("tuned_on") == eval_facts.name,
    )
    items = build_items(rows=rows, eval_facts=eval_facts, rubric=rubric, judge=judge, candidates=candidates)
    documents = (model_json(report), render_markdown(report), render_html(report, items))
    for name, text in zip(REPORTS, documents, strict=True):
        store.write_text(name, text)
    store.write_text(MANIFEST, json.dumps(_manifest(store, run), indent=1, ensure_ascii=False) + "\n")
    return report


def _eval_facts(settings: Mapping[str, Any]) -> EvalFacts:
    definition, drawn = settings["eval"], settings["sample_set"]
    return EvalFacts(
        name=definition["name"],
        title=definition["title"],
        sha=definition["digest"],
        prompt_sha=digest(definition["prompt"]),
        sample_set_digest=drawn["digest"],
        n_samples=drawn["n"],
        seed=drawn["seed"],
        items_per_sample=definition["items_per_sample"],
        item_types=tuple(definition["item_types"]),
    )


def _rubric_facts(rubric: Mapping[str, Any]) -> RubricFacts:
    return RubricFacts(
        name=rubric["name"],
        sha=rubric["sha"],
        scale=tuple(Meaning(name=level["letter"], meaning=level["name"]) for level in rubric["scale"]),
        flags=tuple(Meaning(name=flag["name"], meaning=flag["meaning"]) for flag in rubric["flags"]),
    )


def _model_facts(name: str, about: Mapping[str, Any]) -> ModelFacts:
    return ModelFacts(
        name=name,
        kind=about["kind"],
        hf_id=about.get("hf_id") or "",
        revision=about.get("revision") or "",
        licence=about.get("licence") or "",
        openness=about.get("openness") or "",
        sampling={key: value for key, value in about.get("sampling", {}).items() if value is not None},
    )


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
