"""Labels of labelling tools: Label Studio, Argilla, Prodigy and doccano, as rows like those of a sheet.

A row of a sheet has `item_id`, `label`, and optionally `rater`, `note`, `seconds` and `time`. Documentation of the formats:
labelstud.io/guide/export, docs.argilla.io (export), prodi.gy/docs/api-interfaces, doccano.github.io/doccano.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

READ: Final = "a label file of qaeval or a sheet with item_id and label, or an export of Label Studio, Argilla, Prodigy or doccano"
"""What is read, for error messages."""

_ITEM: Final = "item_id"
_INNER: Final = ("data", "meta", "metadata", "fields", "inputs")
"""Objects of a tool's row in which the fields of the labelled item are."""
_LETTER: Final = ("label", "letter", "grade", "rating", "score", "choice", "verdict", "annotation")
"""Names of the column of letters, the first that is there."""
_NOTE: Final = ("note", "notes", "comment", "comments")
_TOOL: Final = frozenset(
    {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "inner_id"}
)
"""Columns that Label Studio adds to a flat export."""
_KNOWN: Final = _TOOL | {_ITEM, *_NOTE, "rater", "rater_kind", "rubric", "chunk_id"}
"""Columns that hold no letter."""
_OTHERS: Final = _TOOL | {"_input_hash", "_task_hash"}
"""Columns that qaeval's own rows never have."""
_MAX_LETTER: Final = 12
"""Longer text is no letter of a scale."""


def rows_of_table(cells: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the rows of a CSV file with the names of a sheet, whatever the case of its header."""
    rows = [{_named(name): value for name, value in row.items()} for row in cells]
    if "label" not in rows[0] and (column := _letter_column(rows)):
        rows = [{**row, "label": row[column]} for row in rows]
    return [_flat(row) for row in rows]


def is_own(value: Any) -> bool:  # noqa: ANN401 - a JSON value
    """Return whether a JSON value is a row of qaeval's own files: a label, a row of a sheet or of a sitting."""
    if not isinstance(value, dict):
        return True  # and no label: reading it says so
    has_letter = "letter" in value or isinstance(value.get("label", ""), str | None)
    return value.get("kind") in {"draw", "skip", "undo"} or (
        _ITEM in value and has_letter and not _OTHERS & value.keys()
    )


def rows_of_json(values: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a labelling tool's JSON objects as rows of a sheet; without an item or letter these are empty."""
    objects = [value for value in values if isinstance(value, dict)]
    column = _letter_column(objects) if objects else ""
    for value in objects:
        if isinstance(value.get("annotations"), list):
            yield from _label_studio(value)
        elif "responses" in value or {"annotation", "inputs"} <= value.keys():
            yield from _argilla(value)
        elif any(key.endswith(".responses") for key in value):
            yield from _argilla_flat(value)
        elif "_input_hash" in value or {"accept", "answer"} <= value.keys():
            yield from _prodigy(value)
        else:
            yield _plain(value, column)


def _named(name: str) -> str:
    known = name.strip().casefold().replace(" ", "_").replace("-", "_")
    return known if known in _KNOWN or known in _LETTER else name


def _flat(row: Mapping[str, str]) -> dict[str, str]:
    """Rename what Label Studio calls otherwise."""
    result = dict(row)
    for name, other in (("seconds", "lead_time"), ("time", "created_at")):
        if other in result and name not in result:
            result[name] = result[other]
    return result


def _letter_column(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the column of letters, of which the first row has the names: by its name, or the only one whose texts are all short."""
    if by_name := next((name for name in _LETTER if name in rows[0]), ""):
        return by_name
    others = _KNOWN | {"question", "answer", "text"}
    short = [
        name
        for name in rows[0]
        if name not in others and all(0 < len(_letter(row.get(name))) <= _MAX_LETTER for row in rows)
    ]
    return short[0] if len(short) == 1 else ""


def _letter(value: Any) -> str:  # noqa: ANN401 - a JSON value
    """Return the letter of a choice: a text, a list with one, or an object of either."""
    if isinstance(value, dict):
        value = value.get("choices") or value.get("value") or value.get("rating") or value.get("label")
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else ""
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _item(row: Mapping[str, Any]) -> str:
    """Return the id of the item, of the row or of an object in it; an empty string where it has none."""
    for fields in (row, *(row[key] for key in _INNER if isinstance(row.get(key), dict))):
        if isinstance(fields.get(_ITEM), str):
            return str(fields[_ITEM])
    external = row.get("external_id")
    return external if isinstance(external, str) else ""


def _row(row: Mapping[str, Any], letter: str, rater: Any = "", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    given = {"item_id": _item(row), "label": letter, "rater": str(rater or ""), **fields}
    return {
        name: value
        for name, value in given.items()
        if (value != "" and value is not None) or name in {"item_id", "label"}
    }


def _label_studio(task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each annotation of a task that was not skipped."""
    for annotation in task["annotations"]:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        results = [result for result in annotation.get("result") or () if isinstance(result, dict)]
        letters = [
            _letter(result.get("value")) for result in results if result.get("type") in {"choices", "rating"}
        ]
        notes = [_text(result["value"]) for result in results if result.get("type") == "textarea"]
        by = annotation.get("completed_by")
        yield _row(
            task,
            letters[0] if len(letters) == 1 else "",
            (by.get("email") or by.get("id")) if isinstance(by, dict) else by,
            seconds=annotation.get("lead_time"),
            time=annotation.get("created_at"),
            note=" ".join(notes),
        )


def _text(value: Mapping[str, Any]) -> str:
    """Return the content of a text area: a text, or a list of lines."""
    text = value.get("text") or ""
    return text if isinstance(text, str) else " ".join(text)


def _argilla(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each submitted response of a record, of both generations of the format."""
    if "responses" not in record:  # one annotation in place of responses
        yield _row(record, _letter(record.get("annotation")), record.get("annotation_agent"))
        return
    responses = record["responses"]
    if isinstance(responses, dict):  # question -> responses of the users
        for name, answers in responses.items():
            if name not in _NOTE:
                for answer in answers or ():
                    if isinstance(answer, dict):
                        yield _row(record, _letter(answer.get("value")), answer.get("user_id"))
        return
    for response in responses or ():
        if isinstance(response, dict) and response.get("status", "submitted") == "submitted":
            values = response.get("values") or {}
            letters = [_letter(value) for name, value in values.items() if name not in _NOTE]
            note = next((_letter(values[name]) for name in _NOTE if name in values), "")
            yield _row(record, letters[0] if len(letters) == 1 else "", response.get("user_id"), note=note)


def _argilla_flat(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key, answers in record.items():
        if key.endswith(".responses") and key.removesuffix(".responses") not in _NOTE:
            users = record.get(f"{key}.users") or [""] * len(answers or ())
            for answer, user in zip(answers or (), users, strict=False):
                yield _row(record, _letter(answer), user)


def _prodigy(task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row of an accepted task; of a rejected or ignored one the letter is missing."""
    letter = _letter(task.get("accept", task.get("label"))) if task.get("answer") == "accept" else ""
    yield _row(task, letter, task.get("_annotator_id") or task.get("_session_id"))


def _plain(row: Mapping[str, Any], column: str) -> dict[str, Any]:
    """Return the row of doccano or of Label Studio's JSON-MIN: the fields of the item beside the letter."""
    note = next((_letter(row[key]) for key in _NOTE if key in row), "")
    return _row(
        row,
        _letter(row.get(column)),
        row.get("annotator"),
        seconds=row.get("lead_time"),
        time=row.get("created_at"),
        note=note,
    )
