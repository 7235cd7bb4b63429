"""Results of promptfoo: ``promptfoo eval --output results.json`` (versions 2 and 3), or ``results.jsonl``.

Format: https://www.promptfoo.dev/docs/configuration/outputs and, with the fields of `EvaluateResult` and `GradingResult`,
https://www.promptfoo.dev/docs/configuration/reference. A result is a cell of the grid: a test case, a prompt and a provider.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from qaeval.errors import DataError
from qaeval.importing.formats.rows import (
    CONTEXT,
    EXPECTED,
    QUESTION,
    HarnessRow,
    Rows,
    SourceRow,
    first_of,
    last_question,
    passed,
    scored_note,
    text_of,
)

_VERSIONS: Final = (2, 3)
_ERROR: Final = 2
"""`failureReason` of a request that failed; 1 is an assertion that failed, whose reason is in `error` too."""
_MAX_LABEL: Final = 40


def unpack(document: Mapping[str, Any], where: str) -> list[Any] | None:
    """Return the results of a file; None where it is no file of promptfoo.

    Raises:
        DataError: it is of another version, or holds no list of results.
    """
    summary = document.get("results")
    if "evalId" not in document and not (
        isinstance(summary, Mapping) and {"stats", "version"} & summary.keys()
    ):
        return None
    version = summary.get("version") if isinstance(summary, Mapping) else None
    if version not in _VERSIONS:
        raise DataError(
            f"{where}: results of promptfoo of version {version!r:.20}; expected version 2 or 3, as `promptfoo eval --output "
            "results.json` writes them"
        )
    results = summary.get("results") if isinstance(summary, Mapping) else None
    if not isinstance(results, list):
        raise DataError(f"{where}: results of promptfoo without the list results.results")
    return results


def is_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a result of promptfoo."""
    return (
        "provider" in row and "vars" in row and bool({"gradingResult", "promptIdx", "success"} & row.keys())
    )


def read(rows: Rows, path: Path | None) -> Iterator[SourceRow]:
    """Yield the answers of results."""
    del path
    prompts: dict[str, dict[str, str]] = {}
    for _, result in rows():
        labels = prompts.setdefault(_provider(result), {})
        labels.setdefault(_prompt_key(result), _prompt_label(result, len(labels) + 1))
    for where, result in rows():
        provider = _provider(result)
        labels = prompts[provider]
        candidate = provider if len(labels) == 1 else f"{provider}@{labels[_prompt_key(result)]}"
        yield where, _row(result, candidate)


def _row(result: Mapping[str, Any], candidate: str) -> HarnessRow:
    case = result.get("testCase")
    variables = result.get("vars") or (case.get("vars") if isinstance(case, Mapping) else None) or {}
    response, prompt = result.get("response"), result.get("prompt")
    answer = text_of(response.get("output") if isinstance(response, Mapping) else response)
    failed = result.get("failureReason", _ERROR if not answer else 0) == _ERROR
    error = result.get("error") or (response.get("error") if isinstance(response, Mapping) else None)
    question = first_of(variables, QUESTION)
    if question is None:
        question = _rendered(prompt.get("raw") if isinstance(prompt, Mapping) else prompt)
    metadata = result.get("metadata")
    return HarnessRow(
        question=text_of(question),
        answer=answer,
        context=first_of(variables, CONTEXT) or first_of(metadata, CONTEXT),
        expected=first_of(variables, EXPECTED),
        candidate=candidate,
        error=text_of(error) if failed else "",
        scores=_scores(result.get("gradingResult")),
        source={"vars": variables, "metadata": metadata},
    )


def _rendered(prompt: Any) -> str:  # noqa: ANN401 - a JSON value
    """Return a rendered prompt; of a chat in JSON the last user message."""
    text = text_of(prompt)
    try:
        return last_question(json.loads(text)) or text if text.lstrip().startswith("[") else text
    except (ValueError, RecursionError):
        return text


def _scores(grading: Any) -> Iterator[tuple[str, Any, str]]:  # noqa: ANN401 - a JSON value
    """Yield a score for each assertion, of sets of assertions each of their own."""
    if not isinstance(grading, Mapping):
        return
    components = grading.get("componentResults")
    if isinstance(components, list) and components:
        for component in components:
            yield from _scores(component)
        return
    assertion = grading.get("assertion")
    if isinstance(assertion, Mapping):
        name = text_of(assertion.get("metric") or assertion.get("type"))
        yield (
            f"promptfoo-{name}",
            passed(grading.get("pass")),
            scored_note(grading.get("score"), grading.get("reason")),
        )


def _provider(result: Mapping[str, Any]) -> str:
    provider = result.get("provider")
    return text_of(
        (provider.get("label") or provider.get("id")) if isinstance(provider, Mapping) else provider
    )


def _prompt_key(result: Mapping[str, Any]) -> str:
    prompt = result.get("prompt")
    label = prompt.get("label") if isinstance(prompt, Mapping) else prompt
    return text_of(result.get("promptId") or result.get("promptIdx") or label)


def _prompt_label(result: Mapping[str, Any], number: int) -> str:
    """Return the label of a prompt; promptfoo takes the whole prompt where the user gives none."""
    prompt = result.get("prompt")
    label = text_of(prompt.get("label") if isinstance(prompt, Mapping) else None).strip()
    is_name = 0 < len(label) <= _MAX_LABEL and label.isprintable() and "{{" not in label
    return label if is_name else f"prompt-{number}"
