"""Fit what each fault weighs for the lexical judge, on the tuning half of the labels; report the held-out half.

    .venv/bin/python tools/tune_lexical.py

Begins with the judge's weights and changes one at a time while linear weighted kappa on the tuning half gains at least
a hundredth. A kind of fault that the fit weighs 0 is taken out of the judge. The split is by chunk and stands in the
labels. The held-out half has no part in the fit; its figures are those that may be quoted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qaeval.corpus.loading import load_chunks
from qaeval.records import Label
from qaeval.stats.reliability import cohen_kappa, confusion_matrix, kappa_interval
from qaeval_floor.faults import Kind
from qaeval_floor.lexical import WEIGHTS, judge

EVAL = Path("evals/qa_pairs")
LETTERS = "ABC"
STEPS = (0.0, 0.5, 1.0, 1.5, 2.0)
GAIN = 0.01


def main() -> None:
    """Fit and print."""
    chunks = {chunk.chunk_id: chunk.text for chunk in load_chunks(EVAL / "chunks.jsonl")}
    # where two readings differ, the letter that settles it
    files = [EVAL / "labels" / name for name in ("claude-1.jsonl", "claude-3.jsonl")]
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    labels = list({label.item_id: label for label in map(Label.model_validate_json, lines)}.values())
    tuning = [label for label in labels if label.split == "tuning"]
    held_out = [label for label in labels if label.split == "held-out"]
    fitted = fit(chunks, tuning)
    print("| fault | in the judge | fitted |\n|---|---|---|")
    for kind, weight in fitted.items():
        print(f"| {kind} | {WEIGHTS[kind]:g} | {weight:g} |")
    for half, rows in (("tuning", tuning), ("held-out", held_out)):
        print(f"\n{half}: {report(chunks, rows, WEIGHTS)}")


def fit(chunks: Mapping[str, str], labels: Sequence[Label]) -> dict[Kind, float]:
    """Return the weights that coordinate ascent finds, in the order of the judge's."""
    weights = dict(WEIGHTS)
    best = agreement(chunks, labels, weights)
    while True:
        tried = [{**weights, kind: step} for kind in weights for step in STEPS if step != weights[kind]]
        scores = [agreement(chunks, labels, trial) for trial in tried]
        if max(scores) < best + GAIN:
            return weights
        best = max(scores)
        weights = tried[scores.index(best)]


def letters(
    chunks: Mapping[str, str], labels: Sequence[Label], weights: Mapping[Kind, float]
) -> tuple[list[int], list[int]]:
    """Return the codes of the labels and of the judge."""
    given = [LETTERS.index(label.letter) for label in labels]
    judged = [
        LETTERS.index(
            judge(
                chunks[label.chunk_id or ""], label.question or "", label.answer or "", weights=weights
            ).letter
        )
        for label in labels
    ]
    return given, judged


def agreement(chunks: Mapping[str, str], labels: Sequence[Label], weights: Mapping[Kind, float]) -> float:
    """Linear weighted kappa of the judge with the labels."""
    given, judged = letters(chunks, labels, weights)
    return cohen_kappa(given, judged, n_levels=len(LETTERS), weights="linear")


def report(chunks: Mapping[str, str], labels: Sequence[Label], weights: Mapping[Kind, float]) -> str:
    """Agreement, kappa with its interval by chunk, and the confusion matrix, labels in rows."""
    given, judged = letters(chunks, labels, weights)
    table = confusion_matrix(given, judged, len(LETTERS))
    interval = kappa_interval(given, judged, [label.chunk_id for label in labels], n_levels=len(LETTERS))
    return (
        f"{len(labels)} items, {np.trace(table) / table.sum():.3f} alike, always the commonest letter "
        f"{table.sum(axis=1).max() / table.sum():.3f}, kappa {interval.value:.2f} "
        f"[{interval.low:.2f}, {interval.high:.2f}], weighted "
        f"{agreement(chunks, labels, weights):.2f}, A B C in rows by label: {table.tolist()}"
    )


if __name__ == "__main__":
    main()
