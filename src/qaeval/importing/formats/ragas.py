"""Results of Ragas: ``result.to_pandas().to_csv("ragas.csv")``, or the table itself.

Format: the fields of `SingleTurnSample` in https://docs.ragas.io/en/stable/concepts/components/eval_sample/ and a column of numbers
for each metric. Before 0.2 the columns are `question`, `contexts`, `answer` and `ground_truth`.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from qaeval.importing.formats.rows import (
    HarnessRow,
    Rows,
    SourceRow,
    first_of,
    last_answer,
    last_question,
    text_of,
)

_FIELDS: Final = frozenset(
    {
        *(
            "user_input",
            "retrieved_contexts",
            "reference_contexts",
            "response",
            "multi_responses",
            "reference",
        ),
        *(
            "rubrics",
            "rubric",
            "retrieved_context_ids",
            "reference_context_ids",
            "persona_name",
            "query_style",
        ),
        *("query_length", "synthesizer_name", "reference_tool_calls", "reference_topics", "style"),
        *("question", "contexts", "answer", "ground_truth", "ground_truths"),
        *("id", "index", "model", "candidate", "chunk_id", "metadata", "evolution_type", "episode_done"),
    }
)
"""Columns that are no metric."""
_METRICS: Final = frozenset(
    {
        *("faithfulness", "answer_relevancy", "answer_relevance", "context_precision", "context_recall"),
        *(
            "context_relevancy",
            "answer_correctness",
            "answer_similarity",
            "context_entity_recall",
            "harmfulness",
        ),
    }
)
"""Metrics by which a table of the earlier names is known."""
_LITERAL: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


def is_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row is one of a table of Ragas."""
    if "user_input" in row:
        return "response" in row
    return {"question", "answer", "contexts"} <= row.keys() and bool(_METRICS & row.keys())


def read(rows: Rows, path: Path | None) -> Iterator[SourceRow]:
    """Yield the answers of a table."""
    del path
    for where, row in rows():
        asked = row.get("user_input", row.get("question"))
        chat = asked if isinstance(asked, list) else None
        yield (
            where,
            HarnessRow(
                question=last_question(chat) if chat else text_of(asked),
                answer=text_of(row.get("response", row.get("answer"))) or last_answer(chat or ""),
                context=_texts(
                    row.get("retrieved_contexts", row.get("contexts")) or row.get("reference_contexts")
                ),
                expected=_texts(first_of(row, ("reference", "ground_truth", "ground_truths"))),
                candidate=text_of(row.get("candidate") or row.get("model")),
                scores=_scores(row),
                source={key: row[key] for key in ("chunk_id", "metadata") if row.get(key)},
            ),
        )


def _scores(row: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    for name, value in row.items():
        if name.casefold() in _FIELDS or not name.strip() or name.startswith("Unnamed"):
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        yield f"ragas-{name}", number, ""


def _texts(value: Any) -> Any:  # noqa: ANN401 - a JSON value
    """Return the texts of a list that a table wrote as one cell, by Python or by numpy, which writes no commas."""
    if not isinstance(value, str) or not value.startswith("[") or not value.rstrip().endswith("]"):
        return value
    inner = value.strip()[1:-1]
    if _LITERAL.sub("", inner).replace(",", "").strip():
        return value
    try:
        return [ast.literal_eval(literal) for literal in _LITERAL.findall(inner)]
    except (ValueError, SyntaxError):
        return value
