"""Graded items as rows for supervised fine-tuning and preference optimisation, in the format of TRL."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from string import Template
from typing import Any, Final, TypeAlias

from qaeval.export.dedup import ComparedText
from qaeval.export.select import GradedItem
from qaeval.export.split import SplitKey
from qaeval.records import REJECTED, record_id

Row: TypeAlias = dict[str, Any]
Turn: TypeAlias = dict[str, str]

PAIRS_PER_SAMPLE: Final = 3
"""Default maximum of preference pairs per sample, so that no sample outweighs the others."""
_SINGLE_PAIR_PROMPT: Final = (
    "Of these pairs, write the one of type {type} alone, as one JSON object with the keys type, question "
    "and answer."
)
"""A candidate writes all pairs of a chunk in one reply. A row compares single pairs, so its prompt asks for
one."""


@dataclass(frozen=True)
class Example:
    """A row with the data for its split and for deduplication."""

    row: Row
    split_key: SplitKey
    text: ComparedText
    items: tuple[GradedItem, ...]
    """The items of the row; in a pair the better one first."""

    @property
    def letter(self) -> str:
        """Letter of the item to learn from."""
        return self.items[0].letter


def sft_examples(items: Iterable[GradedItem], *, with_context: bool) -> Iterator[Example]:
    """Yield a conversation per item: question and answer, or prompt and chosen answer.

    Args:
        items: The items.
        with_context: Put the chunk before the question; no effect on preference pairs, whose prompt is
            self-contained.
    """
    return (_sft_example(item, with_context=with_context) for item in items)


def dpo_examples(
    items: Iterable[GradedItem],
    *,
    best: str,
    scale: Sequence[str],
    prompt: Callable[[str], Mapping[str, str]],
    chosen: Callable[[GradedItem], bool],
    per_sample: int,
) -> Iterator[Example]:
    """Yield preference pairs: an item with the best letter and a worse one of the same sample and type.

    Pairs with the widest gap between letters come first, and pairs of unused items precede the others. An
    item that is itself a preference pair becomes a row, whatever its letter.

    Args:
        items: All items with a letter, including those that can only be rejected.
        best: Letter of chosen items that are no pairs themselves.
        scale: Letters, best first.
        prompt: Templates ``system`` and ``user`` of a candidate, the prompt of question/answer pairs. A row has the prompt of
            the candidate that wrote the chosen item.
        chosen: Whether an item passed the filters: it can be the chosen one, or is a pair to export.
        per_sample: Maximum number of pairs per sample.
    """
    for _, sample_items in groupby(items, key=lambda item: item.sample.sample_id):
        # the same text of several candidates is one item
        distinct = list({item.item.item_id: item for item in reversed(list(sample_items))}.values())[::-1]
        passed = [item for item in distinct if chosen(item)]
        good = [item for item in passed if item.letter == best]
        candidates = [_preference_pair_example(item) for item in passed if REJECTED in item.item.parts]
        candidates += [
            _dpo_example(*pair, prompt(pair[0].candidate)) for pair in _pairs(good, distinct, scale)
        ]
        yield from candidates[:per_sample]


def _sft_example(graded: GradedItem, *, with_context: bool) -> Example:
    item, chunk = graded.item, graded.sample.chunk
    context = with_context and REJECTED not in item.parts
    prompt = f"{chunk.text}\n\n{item.question}" if context else item.question
    row = {
        "messages": [_turn("user", prompt), _turn("assistant", item.answer)],
        "id": item.item_id,
        "chunk_id": chunk.chunk_id,
        "document": chunk.document,
        "candidate": graded.candidate,
        "letter": graded.letter,
        "type": item.type,
    }
    return Example(row, _split_key(graded), ComparedText(item.question, item.answer), (graded,))


def _pairs(
    good: Sequence[GradedItem], items: Sequence[GradedItem], scale: Sequence[str]
) -> list[tuple[GradedItem, GradedItem]]:
    """Pair each good item with each worse one of its type; wide gaps and unused items first."""
    rank = {letter: index for index, letter in enumerate(scale)}
    pairs = [
        (better, worse)
        for better in good
        for worse in items
        if REJECTED not in better.item.parts
        and REJECTED not in worse.item.parts
        and better.item.type == worse.item.type
        and rank.get(worse.letter, -1) > rank[better.letter]
    ]
    pairs.sort(key=lambda pair: rank[pair[0].letter] - rank[pair[1].letter])
    first_uses: list[tuple[GradedItem, GradedItem]] = []
    repeated: list[tuple[GradedItem, GradedItem]] = []
    used: set[str] = set()
    for pair in pairs:
        ids = {item.item.item_id for item in pair}
        if ids & used:
            repeated.append(pair)
        else:
            first_uses.append(pair)
            used |= ids
    return first_uses + repeated


def _dpo_example(better: GradedItem, worse: GradedItem, prompt: Mapping[str, str]) -> Example:
    chunk = better.sample.chunk
    if better.sample.question:
        prompt_turns = [_turn("user", f"{chunk.text}\n\n{better.sample.question}")]
        replies = better.item.answer, worse.item.answer
    else:
        prompt_turns = _rendered(better, prompt)
        replies = _as_json(better), _as_json(worse)
    return Example(
        _dpo_row(prompt_turns, replies, (better, worse)),
        _split_key(better, worse),
        ComparedText(
            better.item.question, f"{better.item.answer}\n{worse.item.question}\n{worse.item.answer}"
        ),
        (better, worse),
    )


def _preference_pair_example(graded: GradedItem) -> Example:
    item = graded.item
    replies = item.answer, item.parts[REJECTED]
    row = _dpo_row([_turn("user", item.question)], replies, (graded,))
    return Example(row, _split_key(graded), ComparedText(item.question, "\n".join(replies)), (graded,))


def _dpo_row(prompt: list[Turn], replies: tuple[str, str], items: Sequence[GradedItem]) -> Row:
    better, worse = items[0], items[-1]
    is_single_item = better is worse
    return {
        "prompt": prompt,
        "chosen": [_turn("assistant", replies[0])],
        "rejected": [_turn("assistant", replies[1])],
        "id": better.item.item_id
        if is_single_item
        else record_id("pair", better.item.item_id, worse.item.item_id),
        "chunk_id": better.sample.chunk.chunk_id,
        "document": better.sample.chunk.document,
        "type": better.item.type,
        "candidate_chosen": better.candidate,
        "candidate_rejected": worse.candidate,
        "letter_chosen": better.letter,
        # a preference pair has one letter, for the pair; its rejected answer has none
        "letter_rejected": "" if is_single_item else worse.letter,
    }


def _rendered(graded: GradedItem, prompt: Mapping[str, str]) -> list[Turn]:
    """Render the candidate's prompt from the run's settings, with the request for a single pair."""
    chunk = graded.sample.chunk
    values = {
        **graded.sample.given,
        "chunk": chunk.text,
        "title": chunk.title,
        "question": graded.sample.question,
    }
    turns = [(role, prompt.get(role) or "") for role in ("system", "user")]
    rendered = [_turn(role, Template(text).safe_substitute(values)) for role, text in turns if text]
    instruction = _SINGLE_PAIR_PROMPT.format(type=graded.item.type)
    return [*rendered[:-1], _turn("user", f"{rendered[-1]['content']}\n\n{instruction}")]


def _as_json(graded: GradedItem) -> str:
    item = graded.item
    return json.dumps(
        {"type": item.type, "question": item.question, "answer": item.answer}, ensure_ascii=False
    )


def _split_key(*items: GradedItem) -> SplitKey:
    chunk = items[0].sample.chunk
    questions = tuple(dict.fromkeys(item.item.question for item in items))
    return SplitKey(chunk.chunk_id, chunk.document, questions, chunk.text)


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}
