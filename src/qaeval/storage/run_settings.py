"""The keys of `settings.json` that every command reads: a damaged file is refused where it is read, with its key."""

from typing import Any

from pydantic import BaseModel, ValidationError

from qaeval.errors import DataError
from qaeval.files.rows import problem_of


class _Eval(BaseModel):
    name: str
    title: str
    digest: str
    items_per_sample: int
    item_types: list[str]
    rubric: str


class _SampleSet(BaseModel):
    n: int
    seed: int | None
    digest: str


class _Model(BaseModel):
    kind: str


class _Judge(_Model):
    name: str


class _Level(BaseModel):
    letter: str
    name: str


class _Flag(BaseModel):
    name: str
    meaning: str


class _Rubric(BaseModel):
    name: str
    version: int
    sha: str
    scale: list[_Level]
    flags: list[_Flag]


class Grading(BaseModel):
    """Who graded, and by which rubric."""

    judge: _Judge
    rubric: _Rubric


class Settings(BaseModel):
    """The settings of a run."""

    eval: _Eval
    sample_set: _SampleSet
    candidates: dict[str, _Model]
    grading: Grading | None = None


def require_keys(value: dict[str, Any], form: type[BaseModel], name: str) -> dict[str, Any]:
    """Return what was read from a file of a run, with all its keys.

    Args:
        value: The content.
        form: `Settings` or `Grading`.
        name: Path of the file.

    Raises:
        DataError: A key is missing or has a value of another type; the message names the file and the key.
    """
    try:
        form.model_validate(value)
    except ValidationError as error:
        raise DataError(
            f"{name}: damaged, or of another version of qaeval: {problem_of(error)}; restore it from a copy"
        ) from error
    return value
