"""The two extractive candidates: three question/answer pairs from a chunk, without any model."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

from qaeval.text.units import Unit, content_words, is_german, numbers, units
from qaeval_floor import contrast, fallback
from qaeval_floor.proposals import QuestionDraft, Source, from_rows, from_source
from qaeval_floor.questions import Context, PairType, ask

__all__ = ["Pair", "lead", "salient"]

TYPES: tuple[PairType, PairType, PairType] = ("factual", "conceptual", "comparison")
_MAX_ANSWER_WORDS = 90
_MAX_LIST_ITEMS = 8
_MAX_SOURCES = 60
_MAX_CONTEXT_CHARACTERS = 50_000
_IDEAL_WORDS = (7, 40)
_DEFINES = re.compile(r"^\S+(?: \S+){0,4} (?:is|are|ist|sind) (?:a|an|the|ein|eine|der|die|das) ")
_SIMPLE = re.compile(r"^(?:What (?:is|are|was|were)|Was (?:ist|sind)) ")
_RELATES = re.compile(r"^(?:What happens|Why|Under what circumstances|Was passiert|Warum|Wozu|Wovon) ")
_EXPLAINS = re.compile(r"\b(?:because|so that|therefore|since|in order to|due to|weil|damit|deshalb)\b")


@dataclass(frozen=True)
class Pair:
    """One question with its answer from the chunk."""

    question: str
    answer: str
    type: PairType


def lead(text: str) -> tuple[Pair, Pair, Pair]:
    """The baseline: the first three sentences in their order, with the simplest question on each.

    Args:
        text: A documentation chunk.

    Returns:
        A factual, a conceptual and a comparison pair; the sentences begin again where there are fewer than three.

    Raises:
        ValueError: If the text is empty or blank.
    """
    sources, context = _read(text)
    used: set[str] = set()
    pairs: list[Pair] = []
    for index, focus in enumerate(TYPES):
        source = sources[index % len(sources)]
        simple = [question.text for question in ask(source.sentence, context) if _SIMPLE.match(question.text)]
        questions = [
            *(simple[:1] if focus == "factual" else []),
            *fallback.lead_questions(focus, source, sources[0], context),
        ]
        question = next(question for question in questions if question not in used)
        used.add(question)
        pairs.append(Pair(question, _clip(source.answer), focus))
    return pairs[0], pairs[1], pairs[2]


def salient(text: str) -> tuple[Pair, Pair, Pair]:
    """The better candidate: for each type the sentence that answers such a question best.

    A sentence is worth more when its words are frequent in the chunk, when it defines, counts, explains or contrasts,
    and when a well-formed question can be made of it.

    Args:
        text: A documentation chunk.

    Returns:
        A factual, a conceptual and a comparison pair. Where the chunk compares nothing, the last one says so.

    Raises:
        ValueError: If the text is empty or blank.
    """
    sources, context = _read(text)
    drafts = _drafts(sources, context)
    selected: dict[PairType, QuestionDraft] = {}
    for focus in reversed(TYPES):  # contrasts are the rarest: they choose first
        fitting = [draft for draft in drafts if draft.focus == focus and not _repeats(draft, selected)]
        free = [draft for draft in fitting if not _overlaps(draft, selected)] or fitting
        if free:
            selected[focus] = max(free, key=lambda draft: draft.value)
    if "comparison" not in selected:  # cause and effect is a relationship too
        effects = [
            draft for draft in drafts if _RELATES.match(draft.question) and not _overlaps(draft, selected)
        ]
        if effects:
            selected["comparison"] = max(effects, key=lambda draft: draft.value)
    for focus in TYPES:
        if focus not in selected:
            selected[focus] = fallback.last_resort(focus, sources, context, list(selected.values()))
    pairs = [Pair(selected[focus].question, _clip(selected[focus].answer), focus) for focus in TYPES]
    return pairs[0], pairs[1], pairs[2]


def _read(text: str) -> tuple[list[Source], Context]:
    if not text.strip():
        raise ValueError(f"a chunk needs text, got {text[:20]!r}")
    all_units = units(text) or [Unit("sentence", text.strip(), 0, "")]
    quotable = [unit for unit in all_units if unit.kind not in {"heading", "code"}]
    quotable = quotable or [unit for unit in all_units if unit.kind == "code"] or all_units
    excerpt = text[:_MAX_CONTEXT_CHARACTERS]
    lower = frozenset(re.findall(r"(?<![\w`/.-])[a-zäöüß][a-zäöüß-]+", excerpt))
    context = Context(
        is_german(excerpt), lower, next((unit.text for unit in all_units if unit.kind == "heading"), "")
    )
    scores = _scores(quotable)
    sources: list[Source] = []
    for index, unit in enumerate(quotable):
        sources.append(Source(unit, index, _answer(quotable, index), scores[index]))
    return sources, context


def _answer(quotable: list[Unit], index: int) -> str:
    """The text that answers a question on a unit: with its list when it announces one."""
    unit = quotable[index]
    if not unit.text.endswith(":"):
        return unit.text
    items: list[str] = []
    for following in quotable[index + 1 : index + 1 + _MAX_LIST_ITEMS]:
        if following.kind != "item":
            break
        items.append(following.text.rstrip(" .;,"))
    return f"{unit.text} {'; '.join(items)}." if items else f"{unit.text[:-1]}."


def _scores(quotable: list[Unit]) -> list[float]:
    """Salience of each unit: frequency of its words in the chunk, signs of a definition or a cause, position."""
    stems = [set(content_words(unit.text)) for unit in quotable]
    frequency = Counter(stem for unit in stems for stem in unit)
    top = math.log1p(max(frequency.values(), default=1))
    scores = []
    for position, (unit, unit_stems) in enumerate(zip(quotable, stems, strict=True)):
        # fsum: the order of a set differs from process to process, and a rounded sum with it
        central = (
            math.fsum(math.log1p(frequency[stem]) for stem in unit_stems) / (top * len(unit_stems))
            if unit_stems
            else 0.0
        )
        length = len(unit.text.split())
        fitting = 1.0 if _IDEAL_WORDS[0] <= length <= _IDEAL_WORDS[1] else 0.5
        head = unit.text[:2000]
        signs = (
            0.3 * bool(_DEFINES.match(head)) + 0.2 * bool(numbers(head)) + 0.3 * bool(_EXPLAINS.search(head))
        )
        scores.append(central * fitting + signs + 0.3 / (1 + position))
    return scores


def _drafts(sources: list[Source], context: Context) -> list[QuestionDraft]:
    best = sorted(sources, key=lambda source: -source.score)[:_MAX_SOURCES]
    drafts: list[QuestionDraft] = []
    for source in sorted(best, key=lambda source: source.position):
        previous = sources[source.position - 1] if source.position else None
        drafts.extend(from_source(source, previous, context))
        if previous is None:
            continue
        drafts.extend(from_rows(previous, source, context))
        if previous.unit.block == source.unit.block:
            joined = f"{previous.unit.text} {source.unit.text}"
            value = (previous.score + source.score) / 2
            drafts.extend(
                QuestionDraft(question.text, joined, "comparison", question.quality + value)
                for question in contrast.compare_two(previous.sentence, source.sentence, context)
            )
    return drafts


def _repeats(draft: QuestionDraft, selected: dict[PairType, QuestionDraft]) -> bool:
    return any(
        draft.question.casefold() == taken.question.casefold() or draft.answer == taken.answer
        for taken in selected.values()
    )


def _overlaps(draft: QuestionDraft, selected: dict[PairType, QuestionDraft]) -> bool:
    return any(draft.answer in taken.answer or taken.answer in draft.answer for taken in selected.values())


def _clip(answer: str) -> str:
    """The answer, cut after a number of words that no reader needs more of."""
    tokens = answer[: _MAX_ANSWER_WORDS * 40].split()
    if len(tokens) <= _MAX_ANSWER_WORDS and len(answer) <= _MAX_ANSWER_WORDS * 40:
        return answer
    head = " ".join(tokens[:_MAX_ANSWER_WORDS])
    ends = [match.start() for match in re.finditer(r"[.;!?](?= )", head) if match.start() > len(head) // 2]
    return f"{head[: ends[-1]]}." if ends else head
