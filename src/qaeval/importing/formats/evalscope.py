"""Reviews of EvalScope 1.0 and later: ``outputs/DATE/reviews/MODEL/BENCHMARK_SUBSET.jsonl``.

Format: https://modelscope.github.io/evalscope/zh/visualization (output folder), with the fields of `ReviewResult` in
`evalscope/api/evaluator/cache.py` and `Score` in `evalscope/api/metric/scorer.py` of https://github.com/modelscope/evalscope.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from qaeval.errors import DataError
from qaeval.importing.formats.rows import (
    CONTEXT,
    QUESTION,
    HarnessRow,
    Rows,
    SourceRow,
    first_of,
    last_answer,
    last_question,
    text_of,
)

_ROLE: Final = re.compile(r"(?m)^\*\*(\w+)\*\*: *\n?")
"""Heading of a message in an input that is written as Markdown."""


def is_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a review of EvalScope."""
    choices = row.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return "index" in row and ("sample_score" in row or (isinstance(first, Mapping) and "review" in first))


def read(rows: Rows, path: Path | None) -> Iterator[SourceRow]:
    """Yield the answers of reviews.

    Raises:
        DataError: a review is one of an earlier version.
    """
    # the folder of the reviews is named after the model
    candidate = "" if path is None else path.resolve().parent.name
    for where, row in rows():
        sample = row.get("sample_score")
        score = sample.get("score") if isinstance(sample, Mapping) else None
        if not isinstance(score, Mapping):
            raise DataError(
                f"{where}: a review of EvalScope without sample_score.score; expected the reviews of version 1.0 or later"
            )
        metadata = sample.get("sample_metadata") if isinstance(sample, Mapping) else None
        chat = row.get("messages") or row.get("input")
        question = first_of(metadata, QUESTION) or _question(row.get("input") or chat)
        answer = score.get("prediction") or last_answer(chat) or score.get("extracted_prediction")
        yield (
            where,
            HarnessRow(
                question=text_of(question),
                answer=text_of(answer),
                context=first_of(metadata, CONTEXT),
                expected=row.get("target"),
                candidate=candidate,
                scores=_scores(score),
                source={"sample_score": sample},
            ),
        )


def _question(value: Any) -> str:  # noqa: ANN401 - a JSON value
    """Return the question of an input: a chat, a text, or a chat as Markdown."""
    if not isinstance(value, str):
        return last_question(value)
    parts = _ROLE.split(value)
    by_role = list(zip(parts[1::2], parts[2::2], strict=True))
    users = [text.strip() for role, text in by_role if role.casefold() == "user"]
    return users[-1] if users else value


def _scores(score: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    values = score.get("value")
    named = values if isinstance(values, Mapping) else {"score": values}
    for name, value in named.items():
        yield f"evalscope-{name}", value, text_of(score.get("explanation"))
