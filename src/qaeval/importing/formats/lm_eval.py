"""Samples of the LM Evaluation Harness: ``samples_TASK_DATE.jsonl`` of ``lm-eval run --log_samples``.

Format: https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/interface.md (`--log_samples`), with the keys that
`evaluate` in `lm_eval/evaluator.py` writes. A document has a row for each filter; its answer is the first reply, before the filter.
"""

import json
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
    last_question,
    letter_of,
    text_of,
)

_FIELDS: Final = frozenset(
    {
        *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
        *("doc_hash", "prompt_hash", "target_hash", "input", "schema_version"),
    }
)
"""Keys that are no metric."""


def is_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a sample of the harness."""
    return (
        "doc_id" in row
        and bool({"resps", "filtered_resps"} & row.keys())
        and bool({"doc", "arguments"} & row.keys())
    )


def read(rows: Rows, path: Path | None) -> Iterator[SourceRow]:
    """Yield an answer for each document.

    Raises:
        DataError: the task compares the likelihood of texts, and has no answers.
    """
    filters = {str(row.get("filter", "none")) for _, row in rows()}
    scores: dict[str, list[tuple[str, Any, str]]] = {}
    for _, row in rows():
        scores.setdefault(_document(row), []).extend(_scores(row, with_filter=len(filters) > 1))
    candidate = "" if path is None else _model(path)
    for where, row in rows():
        # its other filters are further scores of the same answer
        if _document(row) in scores:
            yield where, _row(row, candidate, scores.pop(_document(row)), where)


def _row(
    row: Mapping[str, Any], candidate: str, scores: list[tuple[str, Any, str]], where: str
) -> HarnessRow:
    document = row.get("doc")
    reply = _first(row.get("resps") or row.get("filtered_resps"))
    if isinstance(reply, int | float) or _is_likelihood(row):
        raise DataError(
            f"{where}: a sample of a task that compares the likelihood of given answers, so that there is no answer to import; "
            "expected samples of a generate_until task"
        )
    return HarnessRow(
        question=text_of(first_of(document, QUESTION)) or _prompt(row),
        answer=text_of(reply),
        context=first_of(document, CONTEXT),
        expected=row.get("target"),
        candidate=candidate,
        scores=scores,
        source={"doc": document},
    )


def _document(row: Mapping[str, Any]) -> str:
    return str(row.get("doc_hash") or "") + str(row.get("doc_id"))


def _first(value: Any) -> Any:  # noqa: ANN401 - a JSON value
    while isinstance(value, list):
        value = value[0] if value else ""
    return value


def _is_likelihood(row: Mapping[str, Any]) -> bool:
    """Return whether a request is about a given continuation, and its reply a likelihood and whether it is the likeliest."""
    reply = row.get("resps") or row.get("filtered_resps")
    while isinstance(reply, list) and len(reply) and isinstance(reply[0], list):
        reply = reply[0]
    return isinstance(reply, list) and len(reply) == 2 and str(reply[1]) in {"True", "False"}


def _prompt(row: Mapping[str, Any]) -> str:
    """Return the prompt of the first request, of a chat its last user message."""
    arguments = row.get("arguments")
    if isinstance(arguments, Mapping):
        arguments = next(iter(arguments.values()), None)
        prompt = next(iter(arguments.values()), None) if isinstance(arguments, Mapping) else arguments
        prompt = _first(prompt)
    else:
        prompt = _first(arguments)
    text = text_of(prompt)
    try:
        return last_question(json.loads(text)) or text if text.lstrip().startswith("[{") else text
    except (ValueError, RecursionError):
        return text


def _scores(row: Mapping[str, Any], *, with_filter: bool) -> Iterator[tuple[str, Any, str]]:
    names = row.get("metrics")
    suffix = f",{row.get('filter')}" if with_filter else ""
    for name in names if isinstance(names, list) else [key for key in row if key not in _FIELDS]:
        value = row.get(str(name))
        if isinstance(value, bool | int | float) and letter_of(value):
            yield f"lm-eval-{name}{suffix}", value, ""


def _model(path: Path) -> str:
    """Return the model: of the results of the same date beside the samples, else the folder, which the harness names after it."""
    date = path.stem.rpartition("_")[2]
    try:
        results = json.loads(path.with_name(f"results_{date}.json").read_text(encoding="utf-8"))
        return text_of(results.get("model_name")) or path.resolve().parent.name
    except (OSError, ValueError, AttributeError, RecursionError):
        return path.resolve().parent.name
