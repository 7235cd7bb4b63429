"""Builders of runs for the gate tests: from letters (see `report_builders`) to evidence or a run directory."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qaeval.comparison.analysis import RunData
from qaeval.gate.evidence import PENDING, Evidence, evidence_of, identity_of
from qaeval.gate.model import RunIdentity
from qaeval.records import Control, Grade, Item, digest
from qaeval.storage.run_directory import CONTROLS, GENERATIONS, GRADES, SAMPLES, SESSIONS, SETTINGS
from report_builders import JUDGE, RUBRIC, Case, candidate, case

JUDGE_SETTINGS = {"kind": "http", "hf_id": JUDGE.hf_id, "revision": None, "sampling": {}}
TODAY = "2026-01-20T10:00:00+00:00"


def draw_letters(
    n_chunks: int, best_share: float, *, size: int = 3, flagged_share: float = 0.0, seed: int = 0
) -> list[str]:
    """Draw letters of `n_chunks` chunks: A with probability `best_share`, flagged C with `flagged_share`, else B."""
    rng = np.random.default_rng(seed)
    letters = rng.choice(
        ["A", "B", "C!"], p=[best_share, 1 - best_share - flagged_share, flagged_share], size=(n_chunks, size)
    )
    return ["".join(row) for row in letters]


def controls(letters: str = "CCCCCC") -> tuple[Control, ...]:
    """Make planted controls with these letters; by default the judge recognises all of them as defective."""
    return tuple(
        Control(
            task_id=digest(index)[:16],
            defect="placeholder",
            sample_id="s0",
            item=Item(item_id=f"control{index}", position=0, type="", question="Why?", answer="…"),
            grade=Grade(
                task_id=digest(index)[:16],
                judge=JUDGE.name,
                rubric_sha=RUBRIC.sha,
                item_id=f"control{index}",
                letter=letter,
                text="",
                latency_s=0,
            ),
        )
        for index, letter in enumerate(letters)
    )


def run_data(letters: Mapping[str, Sequence[str]], *, embedded: bool = True, **rows: Any) -> RunData:
    size = max(len(reply.replace("!", "")) for replies in letters.values() for reply in replies)
    kinds = {
        name.replace("-", "_"): candidate(name, kind="embedded" if embedded else "http") for name in letters
    }
    rows = {"controls": controls(), **rows}
    source_case: Case = case(letters, items_per_sample=size, **kinds).with_rows(**rows)
    return RunData(
        rows=source_case.rows,
        eval_facts=source_case.eval_facts(),
        rubric=RUBRIC,
        judge=JUDGE,
        candidates=source_case.candidates,
        judge_tuned=False,
    )


def evidence(
    letters: Mapping[str, Sequence[str]],
    *,
    name: str = "run",
    identity: Mapping[str, Any] | None = None,
    machines: Mapping[str, Any] | None = None,
    **data_options: Any,
) -> Evidence:
    data = run_data(letters, **data_options)
    computed_identity = identity_of(
        data, {"eval": {}, "grading": {"judge": {"name": JUDGE.name, **JUDGE_SETTINGS}}}
    )
    run_identity = RunIdentity(
        name=name,
        created="2026-01-05T10:00:00+00:00",
        identity=computed_identity.model_copy(update=dict(identity or {})),
        qaeval_version="0.1.0",
    )
    return evidence_of(data, run_identity, machines=machines or {})


def with_server(run: Evidence, **resources: Any) -> Evidence:
    """Give every candidate a server with times or a price."""
    candidates = [
        replace(candidate, resources=replace(candidate.resources, has_server=True, **resources))
        for candidate in run.candidates
    ]
    return replace(run, candidates=tuple(candidates))


def without_letters(run: Evidence) -> Evidence:
    """Remove all letters, so that every delivered item waits for the judge."""
    candidates = [
        replace(
            candidate,
            letters=np.where(candidate.delivered, PENDING, candidate.letters).astype(np.int8),
            flags={name: np.zeros_like(mask) for name, mask in candidate.flags.items()},
        )
        for candidate in run.candidates
    ]
    return replace(run, candidates=tuple(candidates))


def write_run(
    path: Path,
    letters: Mapping[str, Sequence[str]],
    *,
    rubric_sha: str = RUBRIC.sha,
    samples_digest: str = "d" * 64,
    is_reversed: bool = False,
) -> Path:
    """Write a run directory; with `is_reversed` its rows are in reverse order."""
    data = run_data(letters)
    facts = data.eval_facts
    settings = {
        "format": 1,
        "eval": {
            "name": facts.name,
            "title": "",
            "digest": facts.sha,
            "prompt": {},
            "items_per_sample": facts.items_per_sample,
            "item_types": list(facts.item_types),
            "rubric": RUBRIC.name,
        },
        "sample_set": {"n": facts.n_samples, "seed": 7, "digest": samples_digest},
        "candidates": {entry.name: {"kind": entry.kind, "sampling": {}} for entry in data.candidates},
        "grading": {
            "judge": {"name": JUDGE.name, **JUDGE_SETTINGS},
            "rubric": {
                "name": RUBRIC.name,
                "version": 1,
                "sha": rubric_sha,
                "scale": [{"letter": entry.name, "name": entry.meaning} for entry in RUBRIC.scale],
                "flags": [{"name": entry.name, "meaning": entry.meaning} for entry in RUBRIC.flags],
            },
        },
    }
    path.mkdir(parents=True)
    (path / SETTINGS).write_text(json.dumps(settings))
    grades = [
        row.model_copy(update={"rubric_sha": rubric_sha}) if row.kind == "grade" else row
        for row in data.rows.grades
    ]
    for name, rows in (
        (SAMPLES, data.rows.samples),
        (GENERATIONS, data.rows.generations),
        (GRADES, grades),
        (SESSIONS, data.rows.sessions),
        (CONTROLS, data.rows.controls),
    ):
        lines = [_with_hex_ids(row.model_dump(mode="json")) for row in rows]
        ordered = reversed(lines) if is_reversed and name in {GENERATIONS, GRADES} else lines
        (path / name).write_text("".join(json.dumps(line) + "\n" for line in ordered))
    return path


def _with_hex_ids(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "task_id": digest(row["task_id"])[:16]} if "task_id" in row else row
