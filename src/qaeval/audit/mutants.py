"""The planted items of an audit as a run, so that a person can label them: a defect may by chance do no harm."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qaeval.agreement.label_files import read_labels
from qaeval.agreement.label_rows import with_settled
from qaeval.corpus.sampling import sample_set_digest
from qaeval.errors import DataError
from qaeval.records import AuditItem, Generation, Grade, record_id
from qaeval.run.grade import task_id
from qaeval.storage.run_directory import GENERATIONS, GRADES, PURPOSE, RunStore
from qaeval.storage.runs import way_on
from qaeval.text.defects import VARIANTS, Verdict

FOLDER: Final = "mutants"
"""Folder of the run in the directory of its audit."""
_PURPOSE_OF_ITEMS: Final = "the planted items of an audit"
_CANDIDATE: Final = "planted"
_LABELS: Final = "labels"


@dataclass(frozen=True, slots=True)
class MutantCheck:
    """What people say of the planted items.

    Attributes:
        n_labelled: items with a label.
        refuted: ids of defective items with the best letter, of honest refusals with the worst, and of other harmless ones with
            another than the best.
        raters: who labelled.
    """

    n_labelled: int
    refuted: frozenset[str]
    raters: tuple[str, ...]


def write_mutants(audit: Path) -> Path:
    """Write the planted items and their originals as a run, unless it is there; return its directory.

    Args:
        audit: Directory of a finished audit.

    Raises:
        DataError: there is no audit, it is not finished, or nothing in it is graded.
        StoreError: the directory cannot be written.
    """
    path = audit / FOLDER
    with RunStore.open(audit, is_audit=True) as store:
        if n := sum(row.is_pending for row in store.audit_items()):
            raise DataError(
                f"{audit}: the audit is not finished, {n:,} of its items wait for the judge: {way_on(audit)}"
            )
        settings = store.settings()
        by_sample: dict[str, dict[str, AuditItem]] = {}
        for row in _planted(store):
            by_sample.setdefault(row.sample_id, {})[row.item.item_id] = row
        samples = tuple(sample for sample in store.samples() if sample.sample_id in by_sample)
    if not samples:
        raise DataError(f"{audit}: the judge graded no planted item, so there is none to check")
    most = max(map(len, by_sample.values()))
    run_settings = {
        **{name: settings[name] for name in ("format", "grading")},
        "eval": {**settings["eval"], "items_per_sample": most},
        "sample_set": {"n": len(samples), "seed": None, "digest": sample_set_digest(samples)},
        "candidates": {_CANDIDATE: {"kind": "imported"}},
    }
    exists = path.is_dir()
    with RunStore.create(path, run_settings, samples, resume=exists) as run:
        run.write_text(PURPOSE, f"{_PURPOSE_OF_ITEMS}\n")
        if exists and run.finished(GENERATIONS):
            return path
        judge = settings["grading"]["judge"]["name"]
        with run.writer(GENERATIONS) as generations, run.writer(GRADES) as grades:
            for sample_id, rows in by_sample.items():
                # sorted by id, so that the order does not tell originals from variants
                items = [
                    row.item.model_copy(update={"position": position, "item_id": item_id})
                    for position, (item_id, row) in enumerate(sorted(rows.items()))
                ]
                generations.append(
                    Generation(
                        task_id=record_id("generate", _CANDIDATE, sample_id),
                        candidate=_CANDIDATE,
                        sample_id=sample_id,
                        items=tuple(items),
                        lost=(),
                        text="",
                        latency_s=0.0,
                    )
                )
                for row in rows.values():
                    assert isinstance(row.grade, Grade)  # noqa: S101 - `_planted` yields no others
                    grades.append(row.grade.model_copy(update={"task_id": task_id(judge, row.item.item_id)}))
    return path


def _planted(store: RunStore) -> Iterator[AuditItem]:
    """Yield the graded originals, defects and harmless variants."""
    for row in store.audit_items():
        if row.probe in {"good items", "detection", "false alarms"} and isinstance(row.grade, Grade):
            yield row


def checked_mutants(store: RunStore) -> MutantCheck | None:
    """Return what people say of the planted items of an audit; None where nobody labelled any.

    Args:
        store: The open directory of the audit.
    """
    scale = store.settings()["grading"]["rubric"]["scale"]
    best, worst = scale[0]["letter"], scale[-1]["letter"]
    files = sorted((store.path / FOLDER / _LABELS).glob("*.jsonl"))
    labels = [label for path in files for label in read_labels(path)]
    if not labels:
        return None
    verdicts = {row.item.item_id: VARIANTS[row.kind].verdict for row in _planted(store) if row.kind}  # type: ignore[index]
    checked = [label for label in with_settled(labels) if label.item_id in verdicts]
    return MutantCheck(
        n_labelled=len({label.item_id for label in checked}),
        refuted=frozenset(
            label.item_id
            for label in checked
            if not _fits(label.letter, verdicts[label.item_id], best, worst)
        ),
        raters=tuple(sorted({label.rater for label in labels})),
    )


def _fits(letter: str, verdict: Verdict, best: str, worst: str) -> bool:
    """Return whether a letter is right for a verdict; a defect in the details may be as bad as one in the main point."""
    if verdict == "not worst":
        return letter != worst
    return (letter == best) == (verdict == "best")
