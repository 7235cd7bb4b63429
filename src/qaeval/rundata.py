"""What a run directory holds, as the analysis takes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import pandas as pd

from qaeval.analysis.summary import RunRows, table_of
from qaeval.checks.registry import meaning
from qaeval.documents import read_csv, validated
from qaeval.errors import DataError
from qaeval.records import Label, Session, digest
from qaeval.report.facts import CheckFacts, EvalFacts, Meaning, ModelFacts, RubricFacts
from qaeval.rowfiles import read_rows
from qaeval.store import RunStore

FILES: Final = "files sha-256 (names, sizes, settings; weights not read)"
"""How a report names the hash of a model's folder."""


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Rows and facts of a graded run."""

    rows: RunRows
    eval_facts: EvalFacts
    rubric: RubricFacts
    judge: ModelFacts
    candidates: tuple[ModelFacts, ...]
    judge_tuned: bool
    """Whether the judge was tuned on labels of this eval."""

    @classmethod
    def read(
        cls, store: RunStore, *, label_paths: Sequence[Path], grading: Mapping[str, Any] | None = None
    ) -> "RunData":
        """Read a run and the labels of its items.

        Args:
            store: The run.
            label_paths: Files of labels.
            grading: Who is going to grade, of a run that nobody grades yet.

        Raises:
            DataError: the run is not graded, or a label file is not readable.
        """
        settings = store.settings()
        if "shard" in settings:
            one = settings["shard"]
            raise DataError(
                f"{store.path}: shard {one['index']}/{one['of']} of a run; `qaeval merge` puts all of them together first"
            )
        grading = settings.get("grading") or grading
        if grading is None:
            raise DataError(f"{store.path}: not graded yet; `qaeval grade {store.path}` comes first")
        facts = eval_facts_of(settings)
        sessions = store.sessions()
        return cls(
            rows=RunRows(
                samples=store.samples(),
                generations=store.generations(),
                grades=store.grades(),
                sessions=sessions,
                readings=store.readings(),
                labels=tuple(label for path in label_paths for label in read_labels(path)),
            ),
            eval_facts=facts,
            rubric=_rubric_facts(grading["rubric"]),
            judge=_served(_model_facts(grading["judge"]["name"], grading["judge"]), "grade", sessions),
            candidates=tuple(
                _served(_model_facts(name, about), "generate", sessions)
                for name, about in settings["candidates"].items()
            ),
            judge_tuned=facts.name in (grading["judge"].get("tuned_on") or ()),
        )

    def table(self) -> pd.DataFrame:
        """Join the rows into the table of letters.

        Raises:
            DataError: rows are missing, doubled or foreign.
        """
        names = [facts.name for facts in self.candidates]
        return table_of(self.rows, self.eval_facts, self.rubric, self.judge, names)


def require_labels(paths: Sequence[Path]) -> None:
    """Read label files before the first request is sent, so that a mistake in them costs nothing.

    Raises:
        DataError: one of them is not readable.
    """
    for path in paths:
        read_labels(path)


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read a file of labels: JSONL of labels or of a sheet that was filled in, or CSV with ``item_id`` and ``label``.

    A row of CSV or of a sheet may have ``rater`` (else the file's name is it), ``rater_kind`` (else a person), ``rubric`` and
    ``note``; those without a label are skipped. So a sheet of ``qaeval export --to labels``, and the output of ``qaeval
    report --format csv`` with a column more, can be used as they are.

    Raises:
        DataError: the file is not readable, a column is missing, or a row is not a label.
    """
    if path.suffix not in {".csv", ".tsv"}:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        return tuple(
            label for label in read_rows(path, lambda line: _label(line, path.stem)) if label is not None
        )
    rows = read_csv(path)
    if missing := {"item_id", "label"} - set(rows[0]):
        raise DataError(
            f"{path}: expected the columns item_id and label, {' and '.join(sorted(missing))} is missing; it has {', '.join(rows[0])}"
        )
    return tuple(
        validated(
            Label,
            {
                "item_id": row["item_id"],
                "letter": row["label"],
                "rater": row.get("rater") or path.stem,
                "rater_kind": row.get("rater_kind") or "human",
                "rubric": row.get("rubric", ""),
                "note": row.get("note", ""),
            },
            f"{path}: item {row['item_id']}",
        )
        for row in rows
        if row["label"]
    )


def _label(line: bytes, rater: str) -> Label | None:
    """Read a line of labels or of a sheet; None where a row of a sheet has no label yet."""
    row = orjson.loads(line)
    if not isinstance(row, dict) or "label" not in row:
        return Label.model_validate_json(line)
    letter = row["label"].strip() if isinstance(row["label"], str) else row["label"]
    if letter is None or letter == "":
        return None
    own = {name: value for name, value in row.items() if name in Label.model_fields}
    who = {"rater": row.get("rater") or rater, "rater_kind": row.get("rater_kind") or "human"}
    return Label.model_validate({**own, **who, "letter": letter})


def eval_facts_of(settings: Mapping[str, Any]) -> EvalFacts:
    """Say what was asked, from a run's settings."""
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
        item_kind=definition.get("item_kind", "qa_pair"),
        item_types=tuple(definition["item_types"]),
        checks=tuple(
            CheckFacts(name=check["name"], meaning=meaning(check["name"]), types=tuple(check["types"]))
            for check in definition.get("checks", ())
        ),
    )


def _rubric_facts(rubric: Mapping[str, Any]) -> RubricFacts:
    return RubricFacts(
        name=rubric["name"],
        version=rubric["version"],
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
        released=about.get("released") or "",
        sampling={key: value for key, value in about.get("sampling", {}).items() if value is not None},
    )


def _served(facts: ModelFacts, stage: str, sessions: Sequence[Session]) -> ModelFacts:
    """Add what the servers said of themselves; where sessions differ, all of it."""
    found = [
        one.endpoint for one in sessions if (one.stage, one.model) == (stage, facts.name) and one.endpoint
    ]

    def said(name: str) -> str:
        return " and ".join(sorted({str(one[name]) for one in found if one.get(name)}))

    lengths = [one["max_model_len"] for one in found if one.get("max_model_len")]
    more = {"served from": said("root"), FILES: said("files_sha256")}
    return facts.model_copy(
        update={
            "server": f"vllm {version}" if (version := said("version")) else facts.server,
            "max_model_len": min(lengths, default=facts.max_model_len),
            "more": {**facts.more, **{name: text for name, text in more.items() if text}},
        }
    )
