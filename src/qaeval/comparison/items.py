"""Items of a run by chunk, each with its letter, reason and labels, as the page and the CSV show them.

They are not part of ``report.json``. The marked parts of a chunk, in which an answer stands, help the reader and do not grade.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import pandas as pd

from qaeval.analysis.letters import GRADED, flag_column
from qaeval.comparison.report import ReviewCounts
from qaeval.records import FAILURES, Label, Sample
from qaeval.report.facts import Part
from qaeval.text.units import content_words, sentences


class ItemView(Part):
    """One expected item for the reader."""

    item_id: str = ""
    """Id that labels refer to; empty if there is no item."""
    position: int
    status: Literal["graded", "ungraded", "failed"]
    type: str = ""
    question: str = ""
    answer: str = ""
    rejected: str = ""
    """Of a preference pair."""
    findings: tuple[tuple[str, str], ...] = ()
    """Check and what it found."""
    letter: str = ""
    flags: tuple[str, ...] = ()
    flaw: str = ""
    """The flaw that the judge names; empty for the best letter."""
    reason: str = ""
    """The judge's reason, or why there is no item or no letter."""
    labels: tuple[tuple[str, str], ...] = ()
    """Rater and letter."""
    sure: float | None = None
    """The judge's probability of its letter; None where the server gives none."""
    support: tuple[int, ...] = ()
    """Parts of the chunk in which the answer stands, by position."""


class CandidateItems(Part):
    """Items of one candidate about one chunk."""

    candidate: str
    items: tuple[ItemView, ...]


class ChunkItems(Part):
    """A chunk with all items about it."""

    chunk_id: str
    sample_id: str
    question: str = ""
    """Question to all candidates; empty if they write the questions."""
    title: str
    stratum: str
    document: str
    text: str
    parts: tuple[str, ...]
    """The text, cut after sentences and at line ends."""
    candidates: tuple[CandidateItems, ...]


def gather_items(
    table: pd.DataFrame,
    samples: Iterable[Sample],
    labels: Iterable[Label],
    *,
    candidates: Sequence[str],
    flags: Sequence[str],
    max_items: int | None,
    marked: bool,
) -> tuple[ChunkItems, ...]:
    """Gather the items by sample, in the order of the sample set; arguments as in `comparison.analysis.Analysis.items`."""
    letters_by_item = _labels_by_item(labels)
    if max_items is not None and len(table) > max_items:
        table = table[table["sample_id"].isin(_most_informative(table, letters_by_item, max_items))]
    written = set(table["sample_id"])
    shown = {sample.sample_id: sample for sample in samples if sample.sample_id in written}
    parts = {name: split_parts(sample.chunk.text) for name, sample in shown.items()}
    words = {name: part_words(chunk_parts) if marked else () for name, chunk_parts in parts.items()}
    views: dict[tuple[str, str], list[ItemView]] = {}
    columns = list(table.columns)
    for values in zip(*(table[name] for name in columns), strict=True):
        row = dict(zip(columns, values, strict=True))
        candidate_views = views.setdefault((row["sample_id"], row["candidate"]), [])
        candidate_views.append(_view(row, letters_by_item, flags, words[row["sample_id"]]))
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
                CandidateItems(candidate=candidate, items=tuple(views[name, candidate]))
                for candidate in candidates
            ),
        )
        for name, sample in shown.items()
    )


def _most_informative(
    table: pd.DataFrame, letters_by_item: Mapping[str, list[tuple[str, str]]], max_items: int
) -> set[str]:
    """Pick the samples whose items tell most, as many as fit."""
    marks = _marks(table, letters_by_item)
    samples = marks.groupby("sample_id", sort=False)
    rank = (
        8 * samples["lost"].any()
        + 4 * samples["mismatched"].any()
        + 2 * _apart(marks)
        + samples["unsure"].any()
    )
    order = rank.sort_values(ascending=False, kind="stable").index
    sizes = samples.size()[order].cumsum()
    return set(order[sizes <= max_items])


def count_review(table: pd.DataFrame, labels: Iterable[Label]) -> ReviewCounts:
    """Count what there is to look at.

    Args:
        table: The table of letters.
        labels: Labels of the run's rubric, all raters.
    """
    marks = _marks(table, _labels_by_item(labels))
    return ReviewCounts(
        n_chunks_different=int(_apart(marks).sum()),
        n_unsure=int(marks["unsure"].sum()),
        n_mismatched=int(marks["mismatched"].sum()),
        n_labelled=int((marks["labelled"] & ~marks["lost"]).sum()),
        n_lost=int(marks["lost"].sum()),
        n_with_findings=int(table["findings"].notna().sum()),
    )


def _labels_by_item(labels: Iterable[Label]) -> dict[str, list[tuple[str, str]]]:
    by_item: dict[str, list[tuple[str, str]]] = {}
    for label in sorted(labels, key=lambda label: label.rater):
        by_item.setdefault(label.item_id, []).append((label.rater, label.letter))
    return by_item


def _marks(table: pd.DataFrame, labels_by_item: Mapping[str, list[tuple[str, str]]]) -> pd.DataFrame:
    """Mark the rows that are lost, that a label contradicts, and of which the judge is unsure."""
    labelled = {item: {letter for _, letter in labels} for item, labels in labels_by_item.items()}
    return pd.DataFrame(
        {
            "sample_id": table["sample_id"],
            "candidate": table["candidate"],
            "outcome": table["letter"].where(table["status"] == GRADED, table["status"]),
            "lost": table["status"] != GRADED,
            "labelled": table["item_id"].isin(labelled.keys()),
            "mismatched": [
                bool(letter) and bool(letters := labelled.get(item)) and letters != {letter}
                for item, letter in zip(table["item_id"], table["letter"], strict=True)
            ],
            "unsure": table["sure"] < UNSURE,
        }
    )


def _apart(marks: pd.DataFrame) -> "pd.Series[bool]":
    """Return for each sample whether the candidates' letters differ, whatever their order."""
    written = marks.groupby(["sample_id", "candidate"], sort=False)["outcome"].agg(
        lambda outcomes: "\n".join(sorted(outcomes))
    )
    return written.groupby("sample_id", sort=False).nunique() > 1  # noqa: PD101 - of each sample


def _view(
    row: Mapping[Any, Any],
    letters_by_item: Mapping[str, list[tuple[str, str]]],
    flags: Sequence[str],
    words: Sequence[frozenset[str]],
) -> ItemView:
    reason = row["why"] if row["status"] == GRADED else f"{FAILURES[row['failure']]}: {row['detail']}"
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
        flaw=row["flaw"],
        reason=reason,
        labels=tuple(letters_by_item.get(row["item_id"], ())),
        sure=None if pd.isna(row["sure"]) else float(row["sure"]),
        support=supporting_parts(words, row["answer"]) if words else (),
    )


_PART: Final = re.compile(r".+?(?:[.!?…][\"”’»)\]]*\s+|\n+|$)", re.DOTALL)
_LEAST: Final = 0.5
"""Share of a sentence's content words from which a part of the chunk supports it."""


def split_parts(text: str) -> tuple[str, ...]:
    """Cut a text after sentences and at line ends; the parts put together are the text."""
    return tuple(_PART.findall(text))


def part_words(parts: Sequence[str]) -> tuple[frozenset[str], ...]:
    """Return the content words of each part, for all answers about the chunk."""
    return tuple(frozenset(content_words(part)) for part in parts)


def supporting_parts(words: Sequence[frozenset[str]], answer: str) -> tuple[int, ...]:
    """Find the part that each sentence of an answer has most words in common with, if it is at least half of them.

    Args:
        words: From `part_words`.
        answer: Any text.

    Returns:
        Positions of parts, ascending; empty where nothing of the answer stands in the chunk.
    """
    positions = set()
    for sentence in sentences(answer):
        content = set(content_words(sentence))
        if not content:
            continue
        shares = [len(content & part) / len(content) for part in words]
        best = max(range(len(shares)), key=lambda index: shares[index], default=None)
        if best is not None and shares[best] >= _LEAST:
            positions.add(best)
    return tuple(sorted(positions))


UNSURE: Final = 0.8
"""Below this probability of its letter the judge counts as unsure."""
