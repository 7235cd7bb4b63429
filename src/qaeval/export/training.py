"""Graded items as rows for supervised fine-tuning and for preference optimisation, in the form that TRL reads."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from string import Template
from typing import Any, Final, TypeAlias

from qaeval.export.dedup import Text
from qaeval.export.select import GradedItem
from qaeval.export.split import Place
from qaeval.records import REJECTED, record_id

Row: TypeAlias = dict[str, Any]
Turn: TypeAlias = dict[str, str]

PER_SAMPLE: Final = 3
"""Preference pairs of one sample, unless said otherwise: one sample must not outweigh the others."""
_ALONE: Final = "Of these pairs, write the one of type {type} alone, as one JSON object with the keys type, question and answer."
"""The candidate wrote all pairs of a chunk in one reply; a row prefers one pair to another, so its prompt asks for one."""


@dataclass(frozen=True)
class Example:
    """A row with what decides where it goes and whether it is a duplicate."""

    row: Row
    place: Place
    text: Text
    items: tuple[GradedItem, ...]
    """What it was made of; of a pair the better one first."""

    @property
    def letter(self) -> str:
        """Of the item that is learned from."""
        return self.items[0].letter


def sft_examples(items: Iterable[GradedItem], *, with_context: bool) -> list[Example]:
    """Make one conversation of each item: the question, then the answer; of a preference pair the chosen one.

    The loss belongs on the assistant's turn alone.

    Args:
        items: What is learned from.
        with_context: Put the chunk before the question; not for preference pairs, whose prompt stands on its own.
    """
    return [_sft_example(one, with_context=with_context) for one in items]


def dpo_examples(
    items: Iterable[GradedItem],
    *,
    best: str,
    scale: Sequence[str],
    prompt: Mapping[str, str],
    chosen: Callable[[GradedItem], bool],
    per_sample: int,
) -> list[Example]:
    """Make preference pairs: of one sample and type, an item with the best letter before one with a worse letter.

    The widest gaps between letters come first, and no item is taken twice before each was taken once. An item that is a
    preference pair itself becomes a row where it has the best letter.

    Args:
        items: All items with a letter, those that may only be rejected among them.
        best: The letter of what is chosen.
        scale: Letters, best first.
        prompt: The eval's templates ``system`` and ``user``: what the candidates were asked for question/answer pairs.
        chosen: Whether an item may be the chosen one.
        per_sample: Most pairs of one sample.
    """
    found: list[Example] = []
    for _, own in groupby(items, key=lambda one: one.sample.sample_id):
        # the same words by several candidates are one item
        different = list({one.item.item_id: one for one in reversed(list(own))}.values())[::-1]
        good = [one for one in different if one.letter == best and chosen(one)]
        ready = [_own_pair(one) for one in good if REJECTED in one.item.parts]
        ready += [_dpo_example(*pair, prompt) for pair in _pairs(good, different, scale)]
        found += ready[:per_sample]
    return found


def _sft_example(one: GradedItem, *, with_context: bool) -> Example:
    item, chunk = one.item, one.sample.chunk
    context = with_context and REJECTED not in item.parts
    asked = f"{chunk.text}\n\n{item.question}" if context else item.question
    row = {
        "messages": [_turn("user", asked), _turn("assistant", item.answer)],
        "id": item.item_id,
        "chunk_id": chunk.chunk_id,
        "document": chunk.document,
        "candidate": one.candidate,
        "letter": one.letter,
        "type": item.type,
    }
    return Example(row, _place(one), Text(item.question, item.answer), (one,))


def _pairs(
    good: Sequence[GradedItem], items: Sequence[GradedItem], scale: Sequence[str]
) -> list[tuple[GradedItem, GradedItem]]:
    """Pair each good item with each worse one of its type; the pairs with the widest gap and of fresh items first."""
    rank = {letter: place for place, letter in enumerate(scale)}
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
    fresh: list[tuple[GradedItem, GradedItem]] = []
    again: list[tuple[GradedItem, GradedItem]] = []
    used: set[str] = set()
    for pair in pairs:
        ids = {one.item.item_id for one in pair}
        if ids & used:
            again.append(pair)
        else:
            fresh.append(pair)
            used |= ids
    return fresh + again


def _dpo_example(better: GradedItem, worse: GradedItem, prompt: Mapping[str, str]) -> Example:
    chunk = better.sample.chunk
    if better.sample.question:
        asked = [_turn("user", f"{chunk.text}\n\n{better.sample.question}")]
        replies = better.item.answer, worse.item.answer
    else:
        asked = _rendered(better, prompt)
        replies = _as_json(better), _as_json(worse)
    return Example(
        _dpo_row(asked, replies, (better, worse)),
        _place(better, worse),
        Text(better.item.question, f"{better.item.answer}\n{worse.item.question}\n{worse.item.answer}"),
        (better, worse),
    )


def _own_pair(one: GradedItem) -> Example:
    item = one.item
    replies = item.answer, item.parts[REJECTED]
    row = _dpo_row([_turn("user", item.question)], replies, (one,))
    return Example(row, _place(one), Text(item.question, "\n".join(replies)), (one,))


def _dpo_row(asked: list[Turn], replies: tuple[str, str], items: Sequence[GradedItem]) -> Row:
    better, worse = items[0], items[-1]
    own = better is worse
    return {
        "prompt": asked,
        "chosen": [_turn("assistant", replies[0])],
        "rejected": [_turn("assistant", replies[1])],
        "id": better.item.item_id if own else record_id("pair", better.item.item_id, worse.item.item_id),
        "chunk_id": better.sample.chunk.chunk_id,
        "document": better.sample.chunk.document,
        "type": better.item.type,
        "candidate_chosen": better.candidate,
        "candidate_rejected": worse.candidate,
        "letter_chosen": better.letter,
        # a pair that was graded as one has a letter for the pair, none for its worse side
        "letter_rejected": "" if own else worse.letter,
    }


def _rendered(one: GradedItem, prompt: Mapping[str, str]) -> list[Turn]:
    """Render what the candidate was asked, as the run's settings have it, and which of its pairs the replies hold."""
    chunk = one.sample.chunk
    values = {**one.sample.given, "chunk": chunk.text, "title": chunk.title, "question": one.sample.question}
    turns = [(role, prompt.get(role) or "") for role in ("system", "user")]
    asked = [_turn(role, Template(text).safe_substitute(values)) for role, text in turns if text]
    alone = _ALONE.format(type=one.item.type)
    return [*asked[:-1], _turn("user", f"{asked[-1]['content']}\n\n{alone}")]


def _as_json(one: GradedItem) -> str:
    item = one.item
    return json.dumps(
        {"type": item.type, "question": item.question, "answer": item.answer}, ensure_ascii=False
    )


def _place(*items: GradedItem) -> Place:
    chunk = items[0].sample.chunk
    questions = tuple(dict.fromkeys(one.item.question for one in items))
    return Place(chunk.chunk_id, chunk.document, questions, chunk.text)


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}
