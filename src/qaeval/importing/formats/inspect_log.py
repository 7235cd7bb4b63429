"""Logs of Inspect of any task: ``.eval`` or ``.json``, with model and scores.

Format: https://inspect.aisi.org.uk/eval-logs.html and https://inspect.aisi.org.uk/reference/inspect_ai.log.html (`EvalLog`,
`EvalSample`); read by Inspect itself. The words of its scores are in https://inspect.aisi.org.uk/scoring.html: C is correct, I incorrect,
P partly correct, N no answer.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qaeval.errors import DataError, UsageError, install_command
from qaeval.importing.formats.rows import CONTEXT, HarnessRow, SourceRow, first_of, text_of

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

OWN: Final = "qaeval"
"""Key of the metadata in logs of qaeval's own tasks, which are read as runs."""
_WORDS: Final = {"C": "correct", "I": "incorrect", "P": "partly correct", "N": "no answer"}
"""What the values of Inspect's own scorers mean; on a rubric's scale, C would be another letter."""


def read(path: Path) -> Iterator[SourceRow]:
    """Yield the answers of a log.

    Raises:
        DataError: the log cannot be read, is unfinished, or is a run of qaeval's.
    """
    log = _log(path)
    if OWN in (log.eval.metadata or {}):
        raise DataError(f"{path}: a log of qaeval's tasks among files of items; import it by itself")
    if log.status != "success":
        raise DataError(
            f"{path}: the eval did not finish ({log.status}); continue with `inspect eval-retry {path}`"
        )
    samples = log.samples or []
    own_words = _own_words(samples)
    for sample in samples:
        yield (
            f"{path.name}: sample {sample.id}, epoch {sample.epoch}",
            _row(sample, log.eval.model, own_words),
        )


def _log(path: Path, *, header_only: bool = False) -> "EvalLog":
    try:
        from inspect_ai.log import read_eval_log  # noqa: PLC0415 - an optional package that takes seconds
    except ImportError as error:
        raise UsageError(f"Inspect AI is not installed here: {install_command('inspect')}") from error
    try:
        return read_eval_log(str(path), header_only=header_only, resolve_attachments=not header_only)
    except Exception as error:  # the reader raises many types for invalid files
        raise DataError(f"{path}: not an Inspect log: {type(error).__name__}: {error}") from error


def _own_words(samples: "list[EvalSample]") -> set[str]:
    """Return the scorers whose values are all those of Inspect's own scorers."""
    values: dict[str, set[str]] = {}
    for sample in samples:
        for name, value, _ in _values(sample):
            values.setdefault(name, set()).add(str(value))
    return {name for name, given in values.items() if given <= _WORDS.keys()}


def _row(sample: "EvalSample", model: str, own_words: set[str]) -> HarnessRow:
    question = sample.input if isinstance(sample.input, str) else ""
    if not isinstance(sample.input, str):
        question = next((message.text for message in reversed(sample.input) if message.role == "user"), "")
    if sample.choices:
        lines = (f"{chr(65 + n)}) {choice}" for n, choice in enumerate(sample.choices))
        question = "\n".join((question, *lines))
    return HarnessRow(
        question=question,
        answer=sample.output.completion,
        context=first_of(sample.metadata, CONTEXT),
        expected=sample.target,
        candidate=model,
        error=sample.error.message or "error" if sample.error else text_of(sample.output.error),
        scores=(
            (f"inspect-{name}", _WORDS[str(value)] if name in own_words else value, note)
            for name, value, note in _values(sample)
        ),
        source={"metadata": sample.metadata},
    )


def _values(sample: "EvalSample") -> Iterator[tuple[str, Any, str]]:
    """Yield the values of all scorers; of a scorer with several each under its name."""
    for name, score in (sample.scores or {}).items():
        note = score.explanation or ""
        if isinstance(score.value, Mapping):
            for key, value in score.value.items():
                yield f"{name}-{key}", value, note
        elif isinstance(score.value, str | bool | int | float):
            yield name, score.value, note
