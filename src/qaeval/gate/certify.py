"""Issuing a certificate: labelled items become a run, the judge grades them, labels and letters become the certificate."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from qaeval import __version__
from qaeval.agreement.reference import reference_letters
from qaeval.audit.model import Audit
from qaeval.comparison.run_data import decider, read_run
from qaeval.corpus.sampling import sample_set_digest
from qaeval.environment import now
from qaeval.errors import DataError, UsageError
from qaeval.evals.definition import EvalDefinition
from qaeval.gate.certificate import (
    CertifiedItems,
    CertifiedJudge,
    CertifiedRater,
    JudgeCertificate,
    admitted_labels,
    differs_from_audit,
)
from qaeval.gate.evidence import identity_of
from qaeval.gate.policy import TrustPolicy
from qaeval.gate.trust import LabelledLetters, decide_trust, numbers_of
from qaeval.records import REJECTED, Generation, Grade, Item, Label, Sample
from qaeval.report.facts import RubricFacts
from qaeval.report.numbers import listed, plural
from qaeval.run import generate
from qaeval.run.plan import control_settings
from qaeval.storage.run_directory import GENERATIONS, PURPOSE, RunStore

PURPOSE_OF_ITEMS: Final = "the labelled items of a certificate"
CANDIDATE: Final = "labelled"
"""Candidate of a run that is made of labelled items: who wrote them is not in a label file."""
_KIND: Final = "imported"
_FORMAT: Final = 1
_SHOWN: Final = 3


def require_admitted(
    labels: Sequence[Label],
    paths: Sequence[Path],
    rubric: RubricFacts,
    trust: TrustPolicy,
    *,
    eval_name: str,
    judge_tuned: bool,
) -> dict[str, list[Label]]:
    """Return the labels that count, by rater.

    Args:
        labels: Of all raters.
        paths: Their files, for errors.
        rubric: Rubric of the judge.
        trust: Whether the labels of models count.
        eval_name: Their eval, for errors where there is no file.
        judge_tuned: Whether to leave out the labels that the judge was tuned on.

    Raises:
        DataError: Labels contradict each other, or none counts.
    """
    files = ", ".join(map(str, paths)) or eval_name
    if not labels:
        raise DataError(
            f"{files}: no labels; `qaeval label RUN --rater NAME` or `qaeval export --to labels` makes them"
        )
    admitted = admitted_labels(labels, rubric, trust, judge_tuned=judge_tuned)
    if any(admitted.values()):
        return admitted
    names = sorted({label.rater for label in labels})
    if trust.raters == "people" and all(label.rater_kind == "model" for label in labels):
        raise DataError(
            f"{files}: all {plural(len(labels), 'label')} are of models ({listed(names)}), and a certificate rests on labels by people. "
            f"`trust: {{raters: any}}` in the policy, or --raters any, admits them, and the certificate says so"
        )
    tuned = ", or only those that the judge was tuned on" if judge_tuned else ""
    raise DataError(
        f"{files}: none of the {plural(len(labels), 'label')} counts: none is under {rubric.label_name}{tuned}"
    )


# -------------------------------------------------------------------- labels → a run of their items


def find_labelled(
    labels: Mapping[str, Sequence[Label]], definition: EvalDefinition, samples: Iterable[Sample]
) -> dict[str, tuple[Sample, Item]]:
    """Return sample and item of each labelled item.

    Args:
        labels: By rater.
        definition: The eval.
        samples: Its samples.

    Raises:
        DataError: A label has no text, or no sample of the eval gives its item.
    """
    by_chunk: dict[str, list[Sample]] = {}
    for sample in samples:
        by_chunk.setdefault(sample.chunk.chunk_id, []).append(sample)
    by_item: dict[str, tuple[Sample, Item]] = {}
    without_text, without_sample = [], []
    for label in (label for given in labels.values() for label in given):
        if label.item_id in by_item:
            continue
        if not label.answer:
            without_text.append(label.item_id)
        elif (match := _find(label, by_chunk.get(label.chunk_id, ()))) is None:
            without_sample.append(label.item_id)
        else:
            by_item[label.item_id] = match
    without_text = [item_id for item_id in without_text if item_id not in by_item]
    advice = "or take the letters of a run with the items: --run RUN"
    if without_text:
        raise DataError(
            f"labels: {plural(len(without_text), 'item has', 'items have')} no text ({', '.join(without_text[:_SHOWN])}), so the judge "
            f"cannot grade them. `qaeval labels export RUN --out FILE` writes labels with texts, {advice}"
        )
    if without_sample:
        raise DataError(
            f"labels: {plural(len(without_sample), 'item is', 'items are')} of no chunk of the eval {definition.name} "
            f"({', '.join(without_sample[:_SHOWN])}): labels of another eval, or chunks that changed. Name the chunk file with --chunks, "
            f"{advice}"
        )
    return by_item


def _find(label: Label, samples: Iterable[Sample]) -> tuple[Sample, Item] | None:
    """Return the sample that gives an item its id, which is a hash of both."""
    parts = {REJECTED: label.rejected} if label.rejected else {}
    for sample in samples:
        item = Item.of(
            sample.sample_id, 0, type=sample.type, question=label.question, answer=label.answer, parts=parts
        )
        if item.item_id == label.item_id:
            return sample, item
    return None


def write_items(path: Path, items: Iterable[tuple[Sample, Item]], definition: Mapping[str, Any]) -> None:
    """Write a run of given items, for a judge to grade.

    Args:
        path: Run directory, new or empty.
        items: Sample and item.
        definition: Settings of the eval, with its digest.

    Raises:
        UsageError: `path` holds a run.
        StoreError: It cannot be written.
    """
    by_sample: dict[str, tuple[Sample, list[Item]]] = {}
    for sample, item in items:
        by_sample.setdefault(sample.sample_id, (sample, []))[1].append(item)
    samples = [sample for sample, _ in by_sample.values()]
    settings = {
        "format": _FORMAT,
        "eval": {**definition, "items_per_sample": max(len(own) for _, own in by_sample.values())},
        "sample_set": {"n": len(samples), "seed": 0, "digest": sample_set_digest(samples)},
        "candidates": {CANDIDATE: {"kind": _KIND}},
        "grading": None,
        **control_settings(controls=False),
    }
    rows = [
        Generation(
            task_id=generate.task_id(CANDIDATE, sample.sample_id),
            candidate=CANDIDATE,
            sample_id=sample.sample_id,
            items=tuple(item.model_copy(update={"position": index}) for index, item in enumerate(own)),
            lost=(),
            text="",
            latency_s=0,
        )
        for sample, own in by_sample.values()
    ]
    with RunStore.create(path, settings, samples, resume=False) as store:
        store.write_text(PURPOSE, f"{PURPOSE_OF_ITEMS}\n")
        store.write_text(GENERATIONS, "".join(row.model_dump_json() + "\n" for row in rows))


# -------------------------------------------------------------------- a graded run → a certificate


def issue(
    run: Path, judge: str, label_paths: Sequence[Path], trust: TrustPolicy, audit: Audit | None = None
) -> JudgeCertificate:
    """Issue the certificate of a judge by the labels of a graded run's items.

    Args:
        run: The run directory.
        judge: A judge that graded the run.
        label_paths: Label files.
        trust: Requirements, and whose labels count.
        audit: Audit of the judge; None: without one.

    Raises:
        UsageError: The judge did not grade the run, or the audit is of another judge, rubric or eval.
        DataError: The run or a label file is not readable, or no label that counts is of an item that the judge graded.
    """
    with RunStore.open(run) as store:
        settings = store.settings()
        decider(store, settings, judge)
        grading = store.further_judges().get(judge) or settings["grading"]
        data = read_run(store, label_paths=label_paths, decide_by=judge)
        identity = identity_of(data, {**settings, "grading": grading})
        letters = {row.item_id: row.letter for row in data.rows.grades if isinstance(row, Grade)}
        chunk_of = {sample.sample_id: sample.chunk.chunk_id for sample in data.rows.samples}
        chunks: dict[str, str] = {}
        authors: dict[str, set[str]] = {}
        for reply in (row for row in data.rows.generations if isinstance(row, Generation)):
            for item in reply.items:
                chunks[item.item_id] = chunk_of[reply.sample_id]
                authors.setdefault(item.item_id, set()).add(reply.candidate)
    certified = CertifiedJudge.of(identity)
    if audit is not None and (different := differs_from_audit(certified, audit)):
        raise UsageError(
            f"the audit is of {audit.request.judge} with {audit.request.rubric} on {audit.request.eval}, and differs from the judge of "
            f"{run} in {listed(different)}; audit this judge: `qaeval audit {judge} --eval {certified.eval}`"
        )
    labels = data.rows.labels
    admitted = require_admitted(
        labels,
        label_paths,
        data.rubric,
        trust,
        eval_name=data.eval_facts.name,
        judge_tuned=data.judge_tuned,
    )
    reference = {
        item_id: letter
        for item_id, letter in sorted(reference_letters(admitted, data.rubric.letters).items())
        if item_id in chunks
    }
    joined = [item_id for item_id in reference if item_id in letters]
    if not joined:
        raise DataError(
            f"{run}: no label belongs to an item that {judge} graded; check that these are labels of this eval: "
            f"{', '.join(map(str, label_paths))}"
        )
    names = tuple(settings["candidates"])
    candidates = () if names == (CANDIDATE,) else names
    scale = data.rubric.letters
    codes = {chunk: code for code, chunk in enumerate(dict.fromkeys(chunks[item_id] for item_id in joined))}
    labelled = LabelledLetters(
        scale=scale,
        reference=np.array([scale.index(reference[item_id].letter) for item_id in joined], dtype=np.intp),
        judged=np.array([scale.index(letters[item_id]) for item_id in joined], dtype=np.intp),
        clusters=np.array([codes[chunks[item_id]] for item_id in joined], dtype=np.intp),
        kinds=np.array([reference[item_id].kind for item_id in joined], dtype=np.str_),
        candidates={
            name: np.array([name in authors[item_id] for item_id in joined], dtype=np.bool_)
            for name in candidates
        },
        inclusion=np.array([reference[item_id].inclusion for item_id in joined], dtype=np.float64),
    )
    numbers = numbers_of(labelled)
    if numbers is None:
        raise AssertionError
    return JudgeCertificate(
        certified=certified,
        created=now(),
        qaeval_version=__version__,
        verdict=decide_trust(numbers, trust, audit),
        trust=trust,
        numbers=numbers,
        audit=audit,
        raters=tuple(_raters(admitted, set(joined))),
        label_files=tuple(map(_from_here, label_paths)),
        n_ungraded=len(reference) - len(joined),
        judge_tuned=data.judge_tuned,
        rubric=data.rubric,
        candidates=candidates,
        items=CertifiedItems(item_ids=tuple(joined), letters=labelled).lines(),
        inclusion=_stored([reference[item_id].inclusion for item_id in joined]),
    )


def _stored(inclusion: Sequence[float | None]) -> tuple[float | None, ...]:
    """Return the probabilities as a certificate has them: empty where none is known."""
    return tuple(inclusion) if any(value is not None for value in inclusion) else ()


def _from_here(path: Path) -> str:
    """Return a path from the working directory where it is below that, so that the certificate holds in another checkout."""
    here, absolute = Path.cwd(), path.absolute()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)


def _raters(admitted: Mapping[str, Sequence[Label]], items: set[str]) -> Iterable[CertifiedRater]:
    for rater, labels in admitted.items():
        own = [label for label in labels if label.item_id in items]
        kinds = {label.rater_kind for label in own}
        if own:
            yield CertifiedRater(rater=rater, kind=kinds.pop() if len(kinds) == 1 else "mixed", n=len(own))
