"""A question to a rater: what is shown, and which answers are valid."""

from collections.abc import Sequence
from dataclasses import dataclass

from qaeval.comparison.items import part_words, split_parts, supporting_parts
from qaeval.errors import UsageError
from qaeval.evals.rubric import Flag, Level, Rubric, rater_text, shown_mode
from qaeval.export.select import GradedItem, Grading
from qaeval.files.yaml import LONE_SURROGATE
from qaeval.records import REJECTED


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a rater is shown: it reveals neither candidate nor judge's letter."""

    assignment: str
    """Id of the question; `Sitting.record` takes it."""
    number: int
    """Position in the sitting, from 1."""
    title: str
    """Of the chunk; may be empty."""
    parts: tuple[str, ...]
    """Text of the chunk, cut after sentences and at line ends; joined they are the text."""
    support: tuple[int, ...]
    """Positions of the parts that support the answer."""
    question: str
    answer: str
    rejected: str
    """The worse answer of a preference pair; empty for other items."""
    rubric: str
    """The text that the judge gets."""
    scale: tuple[Level, ...]
    """Letter, name and meaning of each level, best first."""
    flags: tuple[Flag, ...]

    @property
    def text(self) -> str:
        """The whole chunk."""
        return "".join(self.parts)

    @property
    def letters(self) -> tuple[str, ...]:
        """Letters of the scale, best first."""
        return tuple(level.letter for level in self.scale)


def rubric_of(grading: Grading) -> tuple[Rubric, str]:
    """Return the rubric of a run, and the text that its judge gets."""
    about = grading.settings["grading"]
    rubric = Rubric.model_validate({key: value for key, value in about["rubric"].items() if key != "sha"})
    return rubric, rater_text(rubric, mode=shown_mode(about["judge"].get("judge_mode") or "reason_first"))


def as_question(
    graded: GradedItem, *, assignment: str, number: int, rubric: Rubric, rubric_text: str
) -> Question:
    """Return an item as a question."""
    item, chunk = graded.item, graded.sample.chunk
    parts = split_parts(chunk.text)
    return Question(
        assignment=assignment,
        number=number,
        title=chunk.title,
        parts=parts,
        support=supporting_parts(part_words(parts), item.answer),
        question=item.question,
        answer=item.answer,
        rejected=item.parts.get(REJECTED, ""),
        rubric=rubric_text,
        scale=rubric.scale,
        flags=rubric.flags,
    )


def checked_answer(
    rubric: Rubric, letter: str, flags: Sequence[str], note: str
) -> tuple[tuple[str, ...], str]:
    """Check a letter and flags; return the flags in the order of the rubric, and the note as it can be stored.

    Raises:
        UsageError: The letter or a flag does not exist.
    """
    if letter not in rubric.letters:
        raise UsageError(f"letter {letter!r}: expected one of {', '.join(rubric.letters)}")
    names = [flag.name for flag in rubric.flags]
    if unknown := sorted(set(flags) - set(names)):
        raise UsageError(f"flag {unknown[0]!r}: expected any of {', '.join(names) or 'none'}")
    return tuple(name for name in names if name in flags), storable(note)


def storable(text: str) -> str:
    """Replace half characters, which UTF-8 cannot hold."""
    return LONE_SURROGATE.sub("\ufffd", text)
