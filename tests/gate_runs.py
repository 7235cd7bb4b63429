"""Runs for the tests of the gate: letters in (see `report_builders`), evidence or a run directory out."""

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


def words(n: int, best: float, *, size: int = 3, flagged: float = 0.0, seed: int = 0) -> list[str]:
    """Draw letters of n chunks: A with this probability, else B; flagged ones are C with the flag."""
    rng = np.random.default_rng(seed)
    marks = rng.choice(["A", "B", "C!"], p=[best, 1 - best - flagged, flagged], size=(n, size))
    return ["".join(row) for row in marks]


def controls(letters: str = "CCCCCC") -> tuple[Control, ...]:
    """Make planted controls with these letters: by default a judge that tells them apart from good items."""
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
    size = max(len(word.replace("!", "")) for own in letters.values() for word in own)
    kinds = {
        name.replace("-", "_"): candidate(name, kind="embedded" if embedded else "http") for name in letters
    }
    rows = {"controls": controls(), **rows}
    made: Case = case(letters, items_per_sample=size, **kinds).with_rows(**rows)
    return RunData(
        rows=made.rows,
        eval_facts=made.eval_facts(),
        rubric=RUBRIC,
        judge=JUDGE,
        candidates=made.candidates,
        judge_tuned=False,
    )


def evidence(
    letters: Mapping[str, Sequence[str]],
    *,
    name: str = "run",
    identity: Mapping[str, Any] | None = None,
    machines: Mapping[str, Any] | None = None,
    **more: Any,
) -> Evidence:
    data = run_data(letters, **more)
    own = identity_of(data, {"eval": {}, "grading": {"judge": {"name": JUDGE.name, **JUDGE_SETTINGS}}})
    side = RunIdentity(
        name=name,
        created="2026-01-05T10:00:00+00:00",
        identity=own.model_copy(update=dict(identity or {})),
        qaeval_version="0.1.0",
    )
    return evidence_of(data, side, machines=machines or {})


def served(made: Evidence, **use: Any) -> Evidence:
    """Give every candidate a server, and times or a price."""
    candidates = [
        replace(candidate, resources=replace(candidate.resources, has_server=True, **use))
        for candidate in made.candidates
    ]
    return replace(made, candidates=tuple(candidates))


def pending(made: Evidence) -> Evidence:
    """Take all letters away: every delivered item waits for the judge."""
    candidates = [
        replace(
            candidate,
            letters=np.where(candidate.delivered, PENDING, candidate.letters).astype(np.int8),
            flags={name: np.zeros_like(mask) for name, mask in candidate.flags.items()},
        )
        for candidate in made.candidates
    ]
    return replace(made, candidates=tuple(candidates))


def write_run(
    path: Path,
    letters: Mapping[str, Sequence[str]],
    *,
    rubric_sha: str = RUBRIC.sha,
    samples_digest: str = "d" * 64,
    backwards: bool = False,
) -> Path:
    """Write a run directory; with `backwards` its rows stand in the opposite order."""
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
        "candidates": {one.name: {"kind": one.kind, "sampling": {}} for one in data.candidates},
        "grading": {
            "judge": {"name": JUDGE.name, **JUDGE_SETTINGS},
            "rubric": {
                "name": RUBRIC.name,
                "version": 1,
                "sha": rubric_sha,
                "scale": [{"letter": one.name, "name": one.meaning} for one in RUBRIC.scale],
                "flags": [{"name": one.name, "meaning": one.meaning} for one in RUBRIC.flags],
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
        ordered = reversed(lines) if backwards and name in {GENERATIONS, GRADES} else lines
        (path / name).write_text("".join(json.dumps(line) + "\n" for line in ordered))
    return path


def _with_hex_ids(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "task_id": digest(row["task_id"])[:16]} if "task_id" in row else row
