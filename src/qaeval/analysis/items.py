"""Every item with its letter, its reason and its labels, chunk by chunk, to be read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from qaeval.analysis.letters import GRADED, flag_column
from qaeval.analysis.support import split_parts, supporting_parts
from qaeval.records import FAILURES, Label, Sample
from qaeval.report.items import CandidateItems, ChunkItems, ItemView


def gather_items(
    table: pd.DataFrame,
    samples: Sequence[Sample],
    labels: Iterable[Label],
    *,
    candidates: Sequence[str],
    flags: Sequence[str],
) -> tuple[ChunkItems, ...]:
    """Gather the items by sample, in the order of the sample set."""
    given: dict[str, list[tuple[str, str]]] = {}
    for label in sorted(labels, key=lambda label: label.rater):
        given.setdefault(label.item_id, []).append((label.rater, label.letter))
    views: dict[tuple[str, str], list[ItemView]] = {}
    parts = {sample.sample_id: split_parts(sample.chunk.text) for sample in samples}
    for row in table.to_dict("records"):
        own = views.setdefault((row["sample_id"], row["candidate"]), [])
        own.append(_view(row, given, flags, parts[row["sample_id"]]))
    return tuple(
        ChunkItems(
            chunk_id=sample.chunk.chunk_id,
            sample_id=sample.sample_id,
            title=sample.chunk.title,
            stratum=sample.chunk.stratum,
            document=sample.chunk.document,
            text=sample.chunk.text,
            parts=parts[sample.sample_id],
            candidates=tuple(
                CandidateItems(candidate=name, items=tuple(views[sample.sample_id, name]))
                for name in candidates
            ),
        )
        for sample in samples
    )


def _view(
    row: Mapping[Any, Any],
    given: Mapping[str, list[tuple[str, str]]],
    flags: Sequence[str],
    parts: Sequence[str],
) -> ItemView:
    why = row["why"] if row["status"] == GRADED else f"{FAILURES[row['failure']]}: {row['detail']}"
    return ItemView(
        item_id=row["item_id"],
        position=row["position"],
        status=row["status"],
        type=row["type"],
        question=row["question"],
        answer=row["answer"],
        letter=row["letter"],
        flags=tuple(flag for flag in flags if row[flag_column(flag)]),
        reason=why,
        labels=tuple(given.get(row["item_id"], ())),
        sure=None if pd.isna(row["sure"]) else float(row["sure"]),
        support=supporting_parts(parts, row["answer"]),
    )
