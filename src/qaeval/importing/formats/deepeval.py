"""Test runs of DeepEval: ``test_run_*.json`` of ``DEEPEVAL_RESULTS_FOLDER``, ``.deepeval/.latest_test_run.json``.

Format: https://deepeval.com/docs/evaluation-test-cases, with the names of `TestRun` and `LLMApiTestCase` in `deepeval/test_run/` of
https://github.com/confident-ai/deepeval. It has no version; runs before 1.0 call `metricsData` `metricsMetadata`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qaeval.errors import DataError
from qaeval.importing.formats.rows import (
    HarnessRow,
    Rows,
    SourceRow,
    passed,
    scored_note,
    text_of,
)


def unpack(document: Mapping[str, Any], where: str) -> list[Any] | None:
    """Return the test cases of a run, each with the run's model; None where it is no run of DeepEval.

    Raises:
        DataError: it holds no test case of one question.
    """
    run = document.get("testRunData", document)
    if not isinstance(run, Mapping) or not {"testCases", "conversationalTestCases"} & run.keys():
        return None
    cases = run.get("testCases")
    if not isinstance(cases, list) or not cases:
        conversations = run.get("conversationalTestCases")
        n = len(conversations) if isinstance(conversations, list) else 0
        raise DataError(
            f"{where}: a test run of DeepEval without a list of test cases of one question and answer (testCases)"
            f"{f'; {n} conversations cannot be imported' if n else ''}"
        )
    parameters = run.get("hyperparameters")
    model = text_of(parameters.get("model")) if isinstance(parameters, Mapping) else ""
    return [{**case, "_model": model} if isinstance(case, Mapping) else case for case in cases]


def is_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a test case of DeepEval."""
    return "input" in row and bool({"actualOutput", "metricsData", "metricsMetadata"} & row.keys())


def read(rows: Rows, path: Path | None) -> Iterator[SourceRow]:
    """Yield the answers of test cases."""
    del path
    for where, case in rows():
        yield (
            where,
            HarnessRow(
                question=text_of(case.get("input")),
                answer=text_of(case.get("actualOutput")),
                # what was retrieved is what the model saw; `context` is the ideal
                context=case.get("retrievalContext") or case.get("context"),
                expected=case.get("expectedOutput"),
                candidate=text_of(case.get("_model")),
                scores=_scores(case.get("metricsData") or case.get("metricsMetadata")),
                source={"metadata": case.get("metadata") or case.get("additionalMetadata")},
            ),
        )


def _scores(metrics: Any) -> Iterator[tuple[str, Any, str]]:  # noqa: ANN401 - a JSON value
    for metric in metrics if isinstance(metrics, list) else ():
        if isinstance(metric, Mapping) and not metric.get("error"):
            name = text_of(metric.get("name") or metric.get("metric"))
            note = scored_note(metric.get("score"), metric.get("reason"))
            yield f"deepeval-{name}", passed(metric.get("success")), note
