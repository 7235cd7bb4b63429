"""From the columns of a row to what it says: whose it is, about which chunk, with which items, or which error."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from qaeval.errors import DataError, UsageError, closest
from qaeval.evals.definition import ItemKind
from qaeval.evals.rubric import Rubric
from qaeval.files.yaml import LONE_SURROGATE
from qaeval.importing.formats import HARNESS_NAMES
from qaeval.importing.formats.rows import HarnessRow, Score, SourceRow
from qaeval.records import FAILURES, TRANSIENT_REASONS, FailureReason

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "candidate": ("candidate", "model", "generator"),
    "chunk_id": ("chunk_id", "card_id", "passage_id", "context_id", "doc_id"),
    "text": (
        "text",
        "chunk",
        "chunk_text",
        "context",
        "contexts",
        "passage",
        "source_text",
        "page_content",
        "content",
    ),
    "stratum": ("stratum", "topic", "service", "category", "section"),
    "document": ("document", "source", "url", "path"),
    "title": ("title", "heading"),
    "language": ("language", "lang"),
    "question": ("question", "query", "instruction", "prompt"),
    "answer": ("answer", "response", "output", "completion"),
    "expected": ("expected", "expected_output", "ground_truth"),
    "prompt": ("prompt", "question", "query", "instruction"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "type": ("type", "question_type"),
    "position": ("position",),
    "items": ("items", "pairs", "qa_pairs"),
    "reply": ("reply", "raw", "raw_reply", "raw_text", "raw_response"),
    "error": ("error", "exception", "error_message"),
}
"""Accepted columns of each field; the first one with a value counts. Other columns are ignored."""

CHUNK_FIELDS: Final = ("text", "stratum", "document", "title", "language")
"""Fields of the chunk; with a chunk file they are those of its rows."""

_ITEM_FIELDS: Final[Mapping[ItemKind, tuple[str, ...]]] = {
    "qa_pair": ("question", "answer"),
    "answer": ("question", "answer"),
    "preference_pair": ("prompt", "chosen", "rejected"),
}
_OWN_FIELD: Final[Mapping[ItemKind, str]] = {
    "qa_pair": "answer",
    "answer": "answer",
    "preference_pair": "chosen",
}
"""Field that only a row with an item of the kind has."""
_KIND_NAMES: Final[Mapping[ItemKind, str]] = {
    "qa_pair": "question/answer pairs",
    "answer": "answers",
    "preference_pair": "preference pairs",
}

_NO_TEXT: Final = frozenset({"nan", "<na>"})
"""What tables write for a missing value, beside an empty cell."""
_NO_LETTER: Final = frozenset({"", "nan", "<na>", "na", "n/a", "none", "null", "-"})
_NO_ERROR: Final = frozenset({"false", "0", "no", "none", "null"})
_EXCERPT: Final = 60
_MAX_NAMES: Final = 12
_MAX_POSITION: Final = 999_999
"""Positions only order the items of a chunk, of which there are far fewer."""


@dataclass(slots=True)
class Slot:
    """An item of an entry, or the reason why it is lost."""

    question: str = ""
    answer: str = ""
    rejected: str = ""
    type: str = ""
    position: int | None = None
    """Position among the items of the reply, where the file gives one."""
    reason: FailureReason | None = None
    detail: str = ""
    letters: dict[str, str] = field(default_factory=dict)
    """Letter by column of a judge or rater; a column without a letter is left out."""


@dataclass(slots=True)
class Entry:
    """A row that was read.

    Attributes:
        where: File and line.
        candidate: Name from a column; empty without one.
        chunk_id: Id of the chunk; empty without one.
        chunk: Fields of a chunk that the row holds itself.
        question: Question of the sample, in an eval of answers.
        type: Type of the sample, in an eval of answers.
        expected: What a right answer contains, in an eval of answers.
        slots: Items; empty where the row is a raw reply or an error.
        reply: Raw reply of the model, to be read.
        raw: Raw reply from which the items of the row were read elsewhere.
        error: Message of the error, where the row has no item.
        reason: Reason of the failure that the message describes.
        letters: Letters of a raw reply's only item, by column.
        scores: What scorers of another harness say of the row's only item, by rater.
    """

    where: str
    candidate: str
    chunk_id: str
    chunk: dict[str, str]
    question: str = ""
    type: str = ""
    expected: str = ""
    slots: list[Slot] = field(default_factory=list)
    reply: str = ""
    raw: str = ""
    error: str = ""
    reason: FailureReason = "reported"
    letters: dict[str, str] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)


class EntryReader:
    """Reads entries from rows.

    Args:
        kind: Kind of the eval's items.
        eval_name: Name of the eval, for messages.
        rubric: Rubric of the letters.
        fields: Column by field name, of columns that have another name than `COLUMNS`.
        letter_columns: Columns with letters of judges and raters.
        candidate_field: Column of the candidate; None: one of `COLUMNS`, if there is any.
        chunks_given: Whether the chunks are in a file of their own, which the fields of chunks are then about.

    Raises:
        UsageError: ``fields`` has an unknown field.
    """

    def __init__(
        self,
        kind: ItemKind,
        *,
        eval_name: str,
        rubric: Rubric,
        fields: Mapping[str, str],
        letter_columns: Sequence[str] = (),
        candidate_field: str | None = None,
        chunks_given: bool = False,
    ) -> None:
        for name in fields:
            if name not in COLUMNS:
                raise UsageError(
                    f"--field {name}: unknown field.{closest(name, COLUMNS)} Known: {', '.join(COLUMNS)}"
                )
        self._kind = kind
        self._eval_name = eval_name
        self._fields = fields
        named = dict(fields) if candidate_field is None else {**fields, "candidate": candidate_field}
        taken = {*named.values(), *letter_columns}
        self._columns = {
            name: (named[name],)
            if name in named
            else tuple(column for column in columns if column not in taken)
            for name, columns in COLUMNS.items()
        }
        own = [column for name, column in fields.items() if not (chunks_given and name in CHUNK_FIELDS)]
        self._dotted = frozenset(column for column in taken if "." in column)
        self._required = [*own, *letter_columns, *([candidate_field] if candidate_field else [])]
        self._letter_columns = letter_columns
        self._letters = letters_of(rubric)
        self._rubric = rubric

    def require_columns(self, names: Iterable[str], source: object) -> None:
        """Refuse a file without the columns that options name; nested names are those of items.

        Raises:
            DataError: a column is missing; the message has the closest one.
        """
        present = list(names)
        for column in self._required:
            if column not in present:
                shown = ", ".join(present[:_MAX_NAMES]) + (", …" if len(present) > _MAX_NAMES else "")
                raise DataError(f"{source}: no column {column!r}.{closest(column, present)} It has {shown}")

    def columns_of(self, row: SourceRow) -> Iterator[str]:
        """Yield the columns of a row and of the items that it holds as a list."""
        _, values = row
        yield from values
        yield from (column for column in self._dotted if self._cell(values, column) is not None)
        nested = self._value(values, "items")
        if isinstance(nested, list):
            for item in nested:
                if isinstance(item, Mapping):
                    yield from item

    def read(self, row: SourceRow) -> Entry:
        """Read a row.

        Raises:
            DataError: it is of another kind than the eval's items, lacks all columns of items, or a value has
                the wrong type.
        """
        where, values = row
        self._require_kind(where, values)
        entry = Entry(
            where,
            self._text(values, "candidate", where),
            self._text(values, "chunk_id", where),
            {name: text for name in CHUNK_FIELDS if (text := self._chunk_text(values, name, where))},
            error=self._error(values),
            scores=values.scores if isinstance(values, HarnessRow) else {},
        )
        if self._kind == "answer":
            entry.question = self._text(values, "question", where)
            entry.type = self._text(values, "type", where)
            entry.expected = self._chunk_text(values, "expected", where)
            if not entry.question:
                raise DataError(
                    f"{where}: no question: an answer is about a chunk and a question; expected one of the columns "
                    f"{', '.join(self._columns['question'])}. {self._present(values, 'question')}"
                )
        entry.reason = reason_of(entry.error)
        nested = self._nested(values, where)
        if nested is not None:
            entry.slots = [
                self._slot(value, f"{where}: item {number}") for number, value in enumerate(nested, start=1)
            ]
            self._share_letters(entry.slots, values, where)
        elif self._value(values, _OWN_FIELD[self._kind]) is not None:
            entry.slots = [self._slot(values, where)]
        else:
            entry.reply = self._raw(values)
            entry.letters = self._row_letters(values, where)
            if not entry.reply and not entry.error:
                entry.slots = [self._lost(values, where)]
        if entry.slots:
            entry.raw = self._raw(values)
        if entry.slots and entry.error:
            entry.slots = [_lost_slot(entry.error, slot) for slot in entry.slots]
        return entry

    # ---------------------------------------------------------------- items

    def _require_kind(self, where: str, values: Mapping[str, Any]) -> None:
        other: ItemKind = "qa_pair" if self._kind == "preference_pair" else "preference_pair"
        if (
            self._value(values, _OWN_FIELD[other]) is not None
            and self._value(values, _OWN_FIELD[self._kind]) is None
        ):
            raise DataError(
                f"{where}: expected {_KIND_NAMES[self._kind]} for the eval {self._eval_name}, got one of the "
                f"{_KIND_NAMES[other]}; put items of one kind into one file, and name their eval with --eval"
            )

    def _nested(self, values: Mapping[str, Any], where: str) -> list[Mapping[str, Any]] | None:
        """Return the items of a row that holds a list, or JSON in a cell; None for other rows."""
        value = self._value(values, "items")
        if value is None:
            return None
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{where}: {self._column(values, 'items')!r}: expected a list of items as JSON, got "
                    f"{value[:_EXCERPT]!r}: {error}"
                ) from error
        if isinstance(value, dict) and len(value) == 1:
            value = next(iter(value.values()))
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise DataError(
                f"{where}: {self._column(values, 'items')!r}: expected a list of objects with "
                f"{' and '.join(_ITEM_FIELDS[self._kind])}, got {_shown(value)}"
            )
        return value or None

    def _slot(self, values: Mapping[str, Any], where: str) -> Slot:
        slot = Slot(
            type="" if self._kind == "answer" else self._text(values, "type", where),
            position=self._position(values, where),
            letters=self._row_letters(values, where),
        )
        texts = {name: self._text(values, name, where) for name in _ITEM_FIELDS[self._kind]}
        question, answer, *rest = texts.values()
        slot.question, slot.answer, slot.rejected = question, answer, rest[0] if rest else ""
        if error := self._error(values):
            return _lost_slot(error, slot)
        if self._kind == "answer":
            del texts["question"]  # of the sample
        if missing := [name for name, text in texts.items() if not text]:
            slot.reason, slot.detail = "missing_field", f"{where}: no {' and no '.join(missing)}"
        return slot

    def _lost(self, values: Mapping[str, Any], where: str) -> Slot:
        """Return the slot of a row without an item, a reply or an error: its cells are empty, or it is no item."""
        names = (*_ITEM_FIELDS[self._kind], "items", "reply", "error")
        own = (_OWN_FIELD[self._kind], "items", "reply", "error")
        if not any(column in values for name in own for column in self._columns[name]):
            self.require_columns(self.columns_of((where, values)), where)
            expected = ", ".join(dict.fromkeys(self._columns[name][0] for name in names))
            raise DataError(
                f"{where}: no item: expected the columns {expected} (an item, a list of items, a raw reply or an "
                f"error). {self._present(values, *names)}"
            )
        slot = self._slot(values, where)
        if slot.reason is None:
            slot.reason, slot.detail = "missing_field", f"{where}: no {_OWN_FIELD[self._kind]}"
        return slot

    def _share_letters(self, slots: list[Slot], values: Mapping[str, Any], where: str) -> None:
        """Give letters of the row, a list or a single one, to its items."""
        for column in self._letter_columns:
            value = self._cell(values, column)
            if value is None:
                continue
            listed = value if isinstance(value, list) else [value]
            if len(listed) != len(slots):
                raise DataError(
                    f"{where}: {column!r}: expected a letter for each of {len(slots)} items, got {_shown(value)}"
                )
            for slot, letter in zip(slots, listed, strict=True):
                if read := self._letter(letter, column, where):
                    slot.letters[column] = read

    # ---------------------------------------------------------------- letters

    def _row_letters(self, values: Mapping[str, Any], where: str) -> dict[str, str]:
        letters = {
            column: self._letter(self._cell(values, column), column, where) for column in self._letter_columns
        }
        return {column: letter for column, letter in letters.items() if letter}

    def _letter(self, value: object, column: str, where: str) -> str:
        """Return a letter of the rubric by letter or name in any case; empty where there is none."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        text = str(value).strip().casefold()
        if text in self._letters:
            return self._letters[text]
        if text in _NO_LETTER:
            return ""
        allowed = ", ".join(f"{level.letter} ({level.name})" for level in self._rubric.scale)
        raise DataError(
            f"{where}: {column!r}: letter {_shown(value)} is not on the scale of {self._rubric.name}: expected "
            f"{allowed}, or an empty cell; map the letters, or name the rubric with --rubric"
        )

    # ---------------------------------------------------------------- values

    def _value(self, values: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - a value of a row
        for column in self._columns[name]:
            value = self._cell(values, column)
            if not _is_missing(value):
                return value
        return None

    def _cell(self, values: Mapping[str, Any], column: str) -> Any:  # noqa: ANN401 - a value of a row
        """Return the value of a column; of ``metadata.id`` without such a column, the value inside an object."""
        if column not in self._dotted or column in values:
            return values.get(column)
        value: Any = values
        for part in column.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def _column(self, values: Mapping[str, Any], name: str) -> str:
        return next(
            (column for column in self._columns[name] if not _is_missing(self._cell(values, column))),
            self._columns[name][0],
        )

    def _text(self, values: Mapping[str, Any], name: str, where: str) -> str:
        value = self._value(values, name)
        return "" if value is None else _as_text(value, self._column(values, name), where).strip()

    def _chunk_text(self, values: Mapping[str, Any], name: str, where: str) -> str:
        value = self._value(values, name)
        if value is None:
            return ""
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = "\n\n".join(value)
        text = _as_text(value, self._column(values, name), where)
        return text if name == "text" else text.strip()

    def _error(self, values: Mapping[str, Any]) -> str:
        value = self._value(values, "error")
        if not value or (isinstance(value, str) and value.strip().casefold() in _NO_ERROR):
            return ""
        if value is True:
            return "error"
        return str(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

    def _raw(self, values: Mapping[str, Any]) -> str:
        """Return the raw reply; an object in its place is a reply that was read already."""
        value = self._value(values, "reply")
        if value is None:
            return ""
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

    def _position(self, values: Mapping[str, Any], where: str) -> int | None:
        value = self._value(values, "position")
        if value is None:
            return None
        try:
            position = int(str(_whole(value)))
        except ValueError:
            position = -1
        if not 0 <= position <= _MAX_POSITION:
            raise DataError(
                f"{where}: {self._column(values, 'position')!r}: expected a whole number from 0 to {_MAX_POSITION:,}, got {_shown(value)}"
            )
        return position

    def _present(self, values: Mapping[str, Any], *names: str) -> str:
        present = list(map(str, values))
        shown = ", ".join(present[:_MAX_NAMES]) + (", …" if len(present) > _MAX_NAMES else "")
        accepted = {column for columns in self._columns.values() for column in columns}
        unknown = [column for column in present if column not in accepted]
        advice = ""
        if present and len(unknown) == len(present):
            advice = f" It is of no harness that is read ({HARNESS_NAMES})"
        for name in names:
            if not any(column in present for column in self._columns[name]):
                pairs = ((column, get_close_matches(column, self._columns[name], n=1)) for column in unknown)
                if match := next((column for column, matches in pairs if matches), ""):
                    advice = f" `--field {name}={match}` maps the closest one"
                    break
        return f"The row has {shown or 'no column'}.{advice}"


def letters_of(rubric: Rubric) -> dict[str, str]:
    """Return the letter of a rubric by each folded text that means it: the letter itself, and the name of its level."""
    names = {level.name.casefold(): level.letter for level in rubric.scale}
    return names | {level.letter.casefold(): level.letter for level in rubric.scale}


def _lost_slot(error: str, slot: Slot) -> Slot:
    return Slot(position=slot.position, reason=reason_of(error), detail=error, letters={}, type=slot.type)


def reason_of(error: str) -> FailureReason:
    """Return the reason of a failure that a file reports: one of qaeval's own, else ``reported``."""
    name = error.strip()
    if name in FAILURES and name not in TRANSIENT_REASONS:
        return name  # type: ignore[return-value] # a key of FAILURES
    return "reported"


def _is_missing(value: object) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and (not value.strip() or value.strip().casefold() in _NO_TEXT)


def _whole(value: object) -> object:
    """Turn 12.0, which tables make of 12 in a column with a gap, into 12."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_text(value: object, column: str, where: str) -> str:
    if isinstance(value, str):
        if not value.isascii() and (half := LONE_SURROGATE.search(value)):
            raise DataError(
                f"{where}: {column!r}: \\u{ord(half[0]):04x} is half a character (a lone surrogate); export the text again "
                "as valid UTF-8"
            )
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}: {column!r}: expected text, got {_shown(value)}")
    return str(_whole(value))


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…"
