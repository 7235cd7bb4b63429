"""Drafts of pairs: the questions that a sentence, a list item or a table row can answer, each with a value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from qaeval.text.units import Unit, content_words
from qaeval_floor import contrast
from qaeval_floor.english import parse
from qaeval_floor.lexicon import BE, ENGLISH_STOP, GERMAN_STOP, MODALS
from qaeval_floor.questions import Context, PairType, ask, finish, is_presentable

_LABEL = re.compile(r"^([^\s:.,;?!][^:.,;?!]{0,40}?)(?::| [–—-]) (?=\S)")
_MAX_LABEL_WORDS = 4
_MAX_CELL_WORDS = 6
_BACK_REFERENCE = re.compile(r"^(?:It|They|This|These|That|Those|Such|He|She|However|Therefore|But|So|Thus|Hence|Otherwise|Es|Sie|Er|Dies|Diese|Dieser|Dadurch|Deshalb)\b")  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A quotable unit of a chunk with what it is worth."""

    unit: Unit
    position: int
    answer: str
    score: float

    @property
    def sentence(self) -> str:
        """The unit's text, cut where no rule looks any more."""
        return self.unit.text[:1000]

    @property
    def label(self) -> str:
        """The term that a list item such as ``Token: a secret`` explains; empty for anything else."""
        match = _LABEL.match(self.sentence) if self.unit.kind == "item" else None
        label = match.group(1).strip("*` ") if match else ""
        tokens = label.casefold().split()
        named = re.fullmatch(r"[\w`][\w`./ +#-]*", label) is not None
        plain = named and 0 < len(tokens) <= _MAX_LABEL_WORDS and tokens[0] not in ENGLISH_STOP | GERMAN_STOP
        return label if plain and not set(tokens) & (BE | MODALS) else ""


@dataclass(frozen=True)
class QuestionDraft:
    """A pair that could be chosen."""

    question: str
    answer: str
    focus: PairType
    value: float


def from_source(source: Source, previous: Source | None, context: Context) -> Iterator[QuestionDraft]:
    """Draft the pairs of a single unit.

    Args:
        source: The unit.
        previous: The unit before it, for pronouns that point back.
        context: Language and vocabulary of the chunk.

    Yields:
        Drafts of every type that the unit can answer.
    """
    if source.unit.kind == "code":
        return
    if source.unit.kind == "row":
        yield from _from_row(source, context)
        return
    if source.label:
        yield from _from_label(source, context)
        return
    sentence, answer, value = source.sentence, source.answer, source.score
    neighbour = previous if previous is not None and previous.unit.block == source.unit.block else None
    if neighbour is not None and _BACK_REFERENCE.match(sentence):
        answer = f"{neighbour.unit.text} {answer}"
        sentence, value = _resolved(sentence, neighbour.sentence, context), value - 0.5
    for question in [*ask(sentence, context), *contrast.compare(sentence, context)]:
        yield QuestionDraft(question.text, answer, question.focus, question.quality + value)


def from_rows(first: Source, second: Source, context: Context) -> Iterator[QuestionDraft]:
    """Draft a comparison of two table rows or two labelled list items that follow each other.

    Args:
        first: A unit.
        second: The unit after it.
        context: Language and vocabulary of the chunk.

    Yields:
        At most one draft.
    """
    answer = f"{first.unit.text.rstrip(' .;')}. {second.unit.text}"
    value = (first.score + second.score) / 2
    names = _keys(first, second)
    if names is None:
        return
    if context.german:
        question = f"Worin unterscheiden sich „{names[0]}“ und „{names[1]}“"
    else:
        question = f"How do {names[0]} and {names[1]} differ"
    if is_presentable(finish(question)):
        yield QuestionDraft(finish(question), answer, "comparison", 1.7 + value)


def _keys(first: Source, second: Source) -> tuple[str, str] | None:
    """The names of two things that are told apart side by side."""
    if first.unit.kind == second.unit.kind == "row" and first.unit.block == second.unit.block:
        names = first.unit.cells[0][1], second.unit.cells[0][1]
        comparable = first.unit.cells[1:] != second.unit.cells[1:]
    else:
        names = first.label, second.label
        related = set(content_words(first.sentence)) & set(content_words(second.sentence))
        comparable = second.unit.block == first.unit.block + 1 and bool(related)
    short = all(name and len(name.split()) <= _MAX_LABEL_WORDS for name in names)
    return names if comparable and short and names[0] != names[1] else None


def _from_row(source: Source, context: Context) -> Iterator[QuestionDraft]:
    cells = source.unit.cells
    if len(cells) < 2 or len(cells[0][1].split()) > _MAX_CELL_WORDS:
        return
    key = cells[0][1]
    for column, value in cells[1:]:
        numeric = 0.3 * any(character.isdigit() for character in value)
        if not column or len(column.split()) > _MAX_CELL_WORDS:
            continue
        if context.german:
            question = f"Was nennt die Tabelle für „{key}“ unter „{column}“"
        else:
            question = f"What does the table list under “{column}” for {key}"
        if is_presentable(finish(question)):
            yield QuestionDraft(finish(question), source.answer, "factual", 1.6 + numeric + source.score)


def _from_label(source: Source, context: Context) -> Iterator[QuestionDraft]:
    label = source.label
    question = (
        f"Was sagt der Text über „{label}“"
        if context.german
        else f"What does the text say about {_common(label)}"
    )
    if is_presentable(finish(question)):
        yield QuestionDraft(finish(question), source.answer, "factual", 1.0 + source.score)


def _common(name: str) -> str:
    """A column name or label as it stands inside a sentence: ``Default value`` in lower case, ``TTL`` as it is."""
    plain = name[:1].isupper() and name[1:].islower()
    return name.lower() if plain else name


def _resolved(sentence: str, previous: str, context: Context) -> str:
    """The sentence with an opening *it* or *they* replaced by the subject of the sentence before."""
    match = re.match(r"^(It|They) (?=\w)", sentence)
    if match is None or context.german:
        return sentence
    before = parse(previous, context.lower)
    if before is None or before.subject == "you":
        return sentence
    plural = before.aux in {"are", "were", "do", "have"}
    singular = before.aux in BE | {"does", "has"} and not plural
    if (match.group(1) == "They") != plural or (match.group(1) == "It" and not singular):
        return sentence
    subject = before.subject[:1].upper() + before.subject[1:]
    return f"{subject} {sentence[match.end() :]}"
