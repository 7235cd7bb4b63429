"""Every item with its letter, its reason and its labels, chunk by chunk, to be read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from qaeval.analysis.letters import GRADED, flag_column
from qaeval.analysis.support import part_words, split_parts, supporting_parts
from qaeval.records import FAILURES, Label, Sample
from qaeval.report.items import UNSURE, CandidateItems, ChunkItems, ItemView


def gather_items(
    table: pd.DataFrame,
    samples: Iterable[Sample],
    labels: Iterable[Label],
    *,
    candidates: Sequence[str],
    flags: Sequence[str],
    most: int | None,
    marked: bool,
) -> tuple[ChunkItems, ...]:
    """Gather the items by sample, in the order of the sample set; arguments as in `analysis.summary.Analysis.items`."""
    given: dict[str, list[tuple[str, str]]] = {}
    for label in sorted(labels, key=lambda label: label.rater):
        given.setdefault(label.item_id, []).append((label.rater, label.letter))
    if most is not None and len(table) > most:
        table = table[table["sample_id"].isin(_telling(table, given, most))]
    written = set(table["sample_id"])
    shown = {sample.sample_id: sample for sample in samples if sample.sample_id in written}
    parts = {name: split_parts(sample.chunk.text) for name, sample in shown.items()}
    words = {name: part_words(own) if marked else () for name, own in parts.items()}
    views: dict[tuple[str, str], list[ItemView]] = {}
    columns = list(table.columns)
    for values in zip(*(table[name] for name in columns), strict=True):
        row = dict(zip(columns, values, strict=True))
        own = views.setdefault((row["sample_id"], row["candidate"]), [])
        own.append(_view(row, given, flags, words[row["sample_id"]]))
    return tuple(
        ChunkItems(
            chunk_id=sample.chunk.chunk_id,
            sample_id=name,
            question=sample.question,
            title=sample.chunk.title,
            stratum=sample.stratum,
            document=sample.chunk.document,
            text=sample.chunk.text,
            parts=parts[name],
            candidates=tuple(
                CandidateItems(candidate=one, items=tuple(views[name, one])) for one in candidates
            ),
        )
        for name, sample in shown.items()
    )


def _telling(table: pd.DataFrame, given: Mapping[str, list[tuple[str, str]]], most: int) -> set[str]:
    """Pick the samples whose items tell most, as many as fit."""
    labelled = {item: {letter for _, letter in own} for item, own in given.items()}
    differs = [
        bool(own := labelled.get(item)) and own != {letter}
        for item, letter in zip(table["item_id"], table["letter"], strict=True)
    ]
    rows = pd.DataFrame(
        {
            "sample_id": table["sample_id"],
            "candidate": table["candidate"],
            "letter": table["letter"],
            "lost": table["status"] != GRADED,
            "differs": differs,
            "unsure": table["sure"] < UNSURE,
        }
    )
    samples = rows.groupby("sample_id", sort=False)
    written = rows.groupby(["sample_id", "candidate"], sort=False)["letter"].agg(
        lambda own: "".join(sorted(own))
    )
    apart = written.groupby("sample_id", sort=False).nunique() > 1  # noqa: PD101 - of each sample
    rank = 8 * samples["lost"].any() + 4 * samples["differs"].any() + 2 * apart + samples["unsure"].any()
    order = rank.sort_values(ascending=False, kind="stable").index
    sizes = samples.size()[order].cumsum()
    return set(order[sizes <= most])


def _view(
    row: Mapping[Any, Any],
    given: Mapping[str, list[tuple[str, str]]],
    flags: Sequence[str],
    words: Sequence[frozenset[str]],
) -> ItemView:
    why = row["why"] if row["status"] == GRADED else f"{FAILURES[row['failure']]}: {row['detail']}"
    return ItemView(
        item_id=row["item_id"],
        position=row["position"],
        status=row["status"],
        type=row["type"],
        question=row["question"],
        answer=row["answer"],
        rejected=row["rejected"],
        findings=tuple(row["findings"].items()) if isinstance(row["findings"], dict) else (),
        letter=row["letter"],
        flags=tuple(flag for flag in flags if row[flag_column(flag)]),
        reason=why,
        labels=tuple(given.get(row["item_id"], ())),
        sure=None if pd.isna(row["sure"]) else float(row["sure"]),
        support=supporting_parts(words, row["answer"]) if words else (),
    )
