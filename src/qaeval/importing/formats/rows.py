"""What the readers of other harnesses share: the row that they make, and where such files keep question, context and scores."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

SourceRow: TypeAlias = tuple[str, Mapping[str, Any]]
"""Where a row stands (``pairs.jsonl:12``), and its values by column."""

Rows: TypeAlias = Callable[[], Iterator[SourceRow]]
"""Reads the rows of a file from its beginning."""

Score: TypeAlias = tuple[str, str]
"""What a scorer says of an answer, as a letter, a word or a number, and its note."""

QUESTION: Final = ("question", "query", "input", "user_input", "prompt", "problem", "instruction")
CONTEXT: Final = (
    "context",
    "contexts",
    "retrieved_contexts",
    "passage",
    "chunk",
    "document",
    "documents",
    "article",
    "source_text",
)
EXPECTED: Final = (
    "expected",
    "expected_output",
    "reference",
    "reference_answer",
    "ground_truth",
    "target",
)
"""Names that test cases of these harnesses use; the first with a value counts."""

_TEXT_KEYS: Final = ("text", "content", "page_content")
_MAX_LETTER: Final = 40
"""Longer text is no letter of a scale."""
_MAX_NAME: Final = 100
_UNUSABLE: Final = frozenset("/\\=")


class HarnessRow(dict[str, Any]):
    """An answer from a file of another harness, under the names of qaeval's fields.

    Attributes:
        scores: By rater, which is named after harness and scorer.
    """

    def __init__(
        self,
        *,
        question: str,
        answer: str,
        context: Any = None,  # noqa: ANN401 - a JSON value
        expected: Any = None,  # noqa: ANN401 - a JSON value
        candidate: str = "",
        error: str = "",
        scores: Iterable[tuple[str, Any, str]] = (),
        source: Mapping[str, Any] | None = None,
    ) -> None:
        """Make a row.

        Args:
            question: Question of the test case.
            answer: Reply of the model; empty where there is none.
            context: Text or texts that the answer is about.
            expected: Reference answer, or several.
            candidate: The model; empty: the file is named after it.
            error: What went wrong in place of an answer.
            scores: Rater, value and note.
            source: Objects of the file's row that ``--field text=NAME.KEY`` can name.
        """
        super().__init__(source or {})
        self.update(
            question=question,
            answer=answer,
            text=texts_of(context),
            expected="\n".join(texts_of(expected)),
            candidate=usable_name(candidate),
            error=error,
        )
        self.scores = _named(scores)


def text_of(value: Any) -> str:  # noqa: ANN401 - a JSON value
    """Return a value as text: of an object with a text that text, of another object or a list its JSON."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, Mapping):
        for key in _TEXT_KEYS:
            if isinstance(value.get(key), str):
                return str(value[key])
    if isinstance(value, bool | int | float):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def texts_of(value: Any) -> list[str]:  # noqa: ANN401 - a JSON value
    """Return the texts of a list, or a single one; without those that are blank."""
    values = value if isinstance(value, list | tuple) else [value]
    return [text for text in map(text_of, values) if text.strip()]


def first_of(fields: Any, names: Sequence[str]) -> Any:  # noqa: ANN401 - a JSON value
    """Return the first value of an object under one of the names, in any case; None without one."""
    if not isinstance(fields, Mapping):
        return None
    folded = {str(name).casefold(): value for name, value in fields.items()}
    values = (folded.get(name) for name in names)
    return next((value for value in values if value is not None and value not in ("", [])), None)


def last_question(messages: Any) -> str:  # noqa: ANN401 - a JSON value
    """Return the text of the last user message of a chat, or a text as it is."""
    return _last(messages, "user")


def last_answer(messages: Any) -> str:  # noqa: ANN401 - a JSON value
    """Return the text of the last message of the model in a chat; empty for a text."""
    return "" if isinstance(messages, str) else _last(messages, "assistant")


def _last(messages: Any, role: str) -> str:  # noqa: ANN401 - a JSON value
    if not isinstance(messages, list):
        return text_of(messages)
    texts = [
        message_text(message.get("content"))
        for message in messages
        if isinstance(message, Mapping) and message.get("role") == role
    ]
    return texts[-1] if texts else ""


def message_text(content: Any) -> str:  # noqa: ANN401 - a JSON value
    """Return the text of a message, whose content is a text or a list of parts."""
    if not isinstance(content, list):
        return text_of(content)
    parts = [part for part in content if not isinstance(part, Mapping) or isinstance(part.get("text"), str)]
    return "\n".join(texts_of(parts))


def letter_of(value: Any) -> str:  # noqa: ANN401 - a JSON value
    """Return a score as a letter of some scale: short text, true or false, or a number; empty for anything else."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return "" if not math.isfinite(value) else str(int(value)) if value.is_integer() else repr(value)
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= _MAX_LETTER and text.isprintable() else ""


def passed(value: Any) -> str | None:  # noqa: ANN401 - a JSON value
    """Return a verdict as a word; None where there is none."""
    return {True: "pass", False: "fail"}[value] if isinstance(value, bool) else None


def scored_note(score: Any, reason: Any) -> str:  # noqa: ANN401 - JSON values
    """Return the note beside a verdict: the score, and what the scorer says."""
    return ": ".join(
        part for part in (f"score {letter_of(score)}" * bool(letter_of(score)), text_of(reason)) if part
    )


def usable_name(name: str) -> str:
    """Return a name that a candidate and a file of labels can have."""
    text = "".join("-" if char in _UNUSABLE or not char.isprintable() else char for char in name.strip())
    return text[:_MAX_NAME].strip()


def _named(scores: Iterable[tuple[str, Any, str]]) -> dict[str, Score]:
    """Return scores by rater; a rater that occurs again gets a number, a value that is no letter is left out."""
    by_rater: dict[str, Score] = {}
    taken: set[str] = set()
    for rater, value, note in scores:
        # lower case: `Faithfulness` and `faithfulness` are one file of labels on some systems
        base = usable_name(rater.lower())
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base[: _MAX_NAME - 4]}-{number}"
        taken.add(name)
        if letter := letter_of(value):
            by_rater[name] = (letter, note)
    return by_rater
