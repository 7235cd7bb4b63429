"""Items that are known to be good: what planted defects are planted in."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

from qaeval.agreement.label_files import read_labels
from qaeval.agreement.label_rows import with_settled
from qaeval.audit.model import GoodSource
from qaeval.checks.answers import refuses
from qaeval.comparison.run_data import require_labels
from qaeval.errors import DataError
from qaeval.evals.definition import EvalDefinition
from qaeval.evals.rubric import Rubric
from qaeval.records import REJECTED, Item, Label, Sample, label_names, record_id
from qaeval.report.numbers import listed
from qaeval.text.defects import Pair
from qaeval.text.units import content_words, is_german, units

MIN_GOOD: Final = 10
"""Good items that an audit needs: with fewer chunks no interval is given."""
_EXPECTED: Final = "expected"
"""Field of a sample with the answer that is right."""


@dataclass(frozen=True, slots=True)
class GoodItem:
    """An item whose letter is the best one."""

    sample: Sample
    item: Item

    @property
    def chunk_id(self) -> str:
        """Its cluster."""
        return self.sample.chunk.chunk_id

    @property
    def pair(self) -> Pair:
        """Its texts."""
        answer = self.item.answer
        return Pair(
            source=self.sample.chunk.text,
            question=self.item.question,
            answer=answer,
            declines=refuses(answer),
        )


@dataclass(frozen=True, kw_only=True)
class GoodItems:
    """The good items of an eval, and where they come from."""

    items: tuple[GoodItem, ...]
    source_of: Mapping[str, GoodSource]
    """Where an item comes from, by its id."""
    raters: tuple[str, ...] = ()


def find_good(
    definition: EvalDefinition,
    rubric: Rubric,
    samples: Sequence[Sample],
    *,
    labels: Sequence[Path] = (),
    seed: int,
) -> GoodItems:
    """Find good items: labelled with the best letter, or expected by the eval; without enough of these, statements of its chunks.

    Items of different chunks come first, in an order that depends on the seed alone.

    Args:
        definition: The eval.
        rubric: Has the best letter, and the name that labels state.
        samples: All samples of the eval.
        labels: Label files; none: those of the eval, which may be without any good item.
        seed: Orders them.

    Raises:
        DataError: a label file is not readable or of another eval, or there are fewer than 10 good items.
    """
    require_labels(labels)
    rows = [label for path in labels or definition.label_paths for label in read_labels(path)]
    labelled, raters = _labelled(definition, rubric, samples, rows)
    if labels and rows and not labelled and not _is_about(rows, samples):
        chunks = listed(sorted({label.chunk_id for label in rows if label.chunk_id})[:3])
        raise DataError(
            f"{listed([str(path) for path in labels])}: no label is about an item of the eval {definition.name}"
            f"{f' (they are about {chunks}, …)' if chunks else ''}; name its labels with --labels, or their eval with --eval"
        )
    expected = [*_expected(samples)] if definition.item_kind == "answer" and not labels else []
    known = {good.item.item_id for good in labelled}
    by_source: dict[GoodSource, list[GoodItem]] = {
        "labels": labelled,
        "expected answers": [good for good in expected if good.item.item_id not in known],
    }
    if sum(map(len, by_source.values())) < MIN_GOOD and definition.item_kind == "qa_pair" and not labels:
        by_source["statements"] = [
            good for good in _statements(samples, definition) if good.item.item_id not in known
        ]
    items = [good for goods in by_source.values() for good in goods]
    if len(items) < MIN_GOOD:
        counts = ", ".join(f"{len(goods)} from {source}" for source, goods in by_source.items())
        raise DataError(
            f"eval {definition.name}: an audit plants defects in at least {MIN_GOOD} good items, found {counts}; label more items "
            f"with {rubric.letters[0]} (`qaeval label`), or name label files with --labels"
        )
    return GoodItems(
        items=tuple(_spread(items, seed)),
        source_of={good.item.item_id: source for source, goods in by_source.items() for good in goods},
        raters=raters,
    )


def _spread(items: Iterable[GoodItem], seed: int) -> list[GoodItem]:
    """Order items by a hash, one of each chunk first, then the second of each; refusals, which few defects fit, last."""
    by_chunk: dict[tuple[bool, str], list[GoodItem]] = {}
    order = sorted(items, key=lambda good: record_id("good", str(seed), good.item.item_id))
    for good in sorted(order, key=lambda good: good.pair.declines):
        by_chunk.setdefault((good.pair.declines, good.chunk_id), []).append(good)
    return [good for round_ in zip_longest(*by_chunk.values()) for good in round_ if good is not None]


def _is_about(rows: Iterable[Label], samples: Iterable[Sample]) -> bool:
    chunk_ids = {sample.chunk.chunk_id for sample in samples}
    return any(not label.chunk_id or label.chunk_id in chunk_ids for label in rows)


def _labelled(
    definition: EvalDefinition, rubric: Rubric, samples: Sequence[Sample], rows: Iterable[Label]
) -> tuple[list[GoodItem], tuple[str, ...]]:
    """Return the items to which all raters gave the best letter, and the raters."""
    names = label_names(rubric.name, rubric.version, rubric.labels_from)
    letters: dict[str, set[str]] = {}
    texts: dict[str, Label] = {}
    counted = [label for label in with_settled(rows) if not label.rubric or label.rubric in names]
    for label in counted:
        letters.setdefault(label.item_id, set()).add(label.letter)
        if label.question and label.answer:
            texts[label.item_id] = label
    by_key = _samples_by_key(definition, samples)
    items = []
    for item_id, label in texts.items():
        sample = by_key.get(_key(definition, label.chunk_id, label.question))
        if letters[item_id] == {rubric.letters[0]} and sample is not None:
            parts = {REJECTED: label.rejected} if label.rejected else {}
            item = Item.of(
                sample.sample_id,
                0,
                type=sample.type or definition.item_types[0],
                question=label.question,
                answer=label.answer,
                parts=parts,
            )
            items.append(GoodItem(sample, item))
    best = {good.item.item_id for good in items}
    return items, tuple(sorted({label.rater for label in counted if label.item_id in best}))


def _samples_by_key(definition: EvalDefinition, samples: Iterable[Sample]) -> Mapping[str, Sample]:
    return {_key(definition, sample.chunk.chunk_id, sample.question): sample for sample in samples}


def _key(definition: EvalDefinition, chunk_id: str, question: str) -> str:
    """Return what tells samples apart: the chunk, or the question about it."""
    return record_id(chunk_id, question) if definition.item_kind == "answer" else chunk_id


def _expected(samples: Iterable[Sample]) -> Iterator[GoodItem]:
    """Yield the expected answers of samples; of samples of the last type of the eval, which are not answerable, there are none."""
    for sample in samples:
        answer = sample.given.get(_EXPECTED)
        if isinstance(answer, str) and answer.strip() and sample.type not in _WITHOUT_ANSWER:
            item = Item.of(
                sample.sample_id, 0, type=sample.type, question=sample.question, answer=answer.strip()
            )
            yield GoodItem(sample, item)


_WITHOUT_ANSWER: Final = frozenset({"unanswerable", "partly", "conflict"})
"""Types of samples whose `expected` describes the right answer and is not one itself."""

_DEFINITION: Final = re.compile(
    r"(?P<subject>(?:(?:The|A|An) )?[A-Z`][\w`.-]*(?: [\w`.-]+){0,4}?) (?P<verb>is|are) (?:an?|the) (?P<rest>[^?!]{20,200})\."
)
_DEFINITION_DE: Final = re.compile(
    r"(?P<subject>(?:Der|Die|Das|Ein|Eine) [A-ZÄÖÜ][\wäöüß-]*) (?P<verb>ist|sind) (?:eine?|der|die|das) (?P<rest>[A-ZÄÖÜ][^?!]{20,200})(?<!\w(?:en|rn))\."
)
_VERBS: Final = (
    "accept", "allow", "contain", "convert", "create", "define", "describe", "determine", "disable", "enable", "exclude", "forbid",
    "guarantee", "ignore", "include", "mean", "measure", "need", "offer", "permit", "prevent", "produce", "protect", "provide", "receive",
    "reduce", "refuse", "reject", "remove", "replace", "require", "reserve", "return", "send", "store", "support",
)  # fmt: skip
"""Verbs whose object a question can ask for: `What does … need?`."""
_STATEMENT: Final = re.compile(
    r"(?P<subject>(?:(?:The|A|An|Each|Every) )?[\w`./-]+(?: [\w`./-]+){0,4}?) "
    rf"(?P<verb>{'|'.join(f'{verb}s' for verb in _VERBS)}|need|require|contain|accept|mean|support) (?P<rest>[^?!]{{15,220}})\."
)
_VERBS_DE: Final = (
    "benötigt", "begrenzt", "bestimmt", "betrifft", "braucht", "enthält", "erfordert", "erhält", "erlaubt", "ersetzt",
    "erzeugt", "liefert", "misst", "regelt", "schützt", "speichert", "umfasst", "verarbeitet", "verlangt", "verwendet",
    "verhindert", "zeigt", "benötigen", "brauchen", "enthalten", "erfordern", "liefern", "speichern", "verwenden", "zeigen",
)  # fmt: skip
_STATEMENT_DE: Final = re.compile(
    rf"(?P<subject>(?:Der|Die|Das|Ein|Eine|Jede|Jeder|Jedes) [A-ZÄÖÜ][\wäöüß-]*(?: (?:der|des|für|von) (?:\w+ )?[A-ZÄÖÜ][\wäöüß-]*)?) "
    rf"(?P<verb>{'|'.join(_VERBS_DE)}) (?P<rest>[^?!]{{15,220}})\."
)
_NO_SUBJECT: Final = re.compile(
    r"(?:What|Which|Who|How|The [a-z]+$|An? \w+er\b|This|That|These|Those|It|They|There|Here|Such|Both|Another|Other|One|Its|Their|You|We|If|When"
    r"|\d|Between|While|Above|Below|Under|Over|Without|Within|Before|After|Until|Since|Consider|To|In|On|At|By|For|From|With|As|But|And|Or|So|Then|Only|Dies\w*|Es|Sie|Andere\w*)\b|.*\b(?:that|which|who|and|or|not|only|other|same|next|first"
    r"|last|above|following|then|also|therefore|it|this|these|below|set|when|if|while|is|are|was|has|can|must|may|will|should|to|und)\b",
    re.DOTALL,
)
_LEANING: Final = re.compile(
    r"^das\b|\b(?:this|these|those|it|its|they|their|them|such|here|dies\w*|ihr\w*|sein\w*|er|sie|es|dazu|damit|dabei)\b",
    re.IGNORECASE,
)


def _statements(samples: Iterable[Sample], definition: EvalDefinition) -> Iterator[GoodItem]:
    """Yield questions about single sentences of the chunks, with the sentence as the answer."""
    for sample in samples:
        german = is_german(sample.chunk.text)
        for unit in units(sample.chunk.text):
            question = (
                _question(unit.text, sample.chunk.text, german=german) if unit.kind == "sentence" else ""
            )
            if question and unit.text in sample.chunk.text:
                item = Item.of(
                    sample.sample_id, 0, type=definition.item_types[0], question=question, answer=unit.text
                )
                yield GoodItem(sample, item)


def _question(sentence: str, source: str, *, german: bool) -> str:
    """Return a question that a sentence answers by itself; empty where it leans on others, or none is found."""
    defines = (_DEFINITION_DE if german else _DEFINITION).fullmatch(sentence)
    match = defines or (_STATEMENT_DE if german else _STATEMENT).fullmatch(sentence)
    if match is None or _NO_SUBJECT.match(match["subject"]) or _LEANING.search(match["rest"]):
        return ""
    if len(content_words(match["rest"])) < 3 or len(content_words(match["subject"])) < 1:
        return ""
    subject, verb = match["subject"], match["verb"]
    article, _, noun = subject.partition(" ")
    if noun and article in _ARTICLES:
        subject = f"{article.lower()} {noun}"
    elif re.search(rf"(?<!\w){re.escape(subject[:1].lower() + article[1:])}(?!\w)", source):
        subject = subject[:1].lower() + subject[1:]  # its capital is that of the sentence
    if german:
        return f"Was {verb} {subject}?"
    if defines:
        return f"What {verb} {subject}?"
    base = next(base for base in _VERBS if verb in {base, f"{base}s"})
    return f"What {'do' if verb == base else 'does'} {subject} {base}?"


_ARTICLES: Final = frozenset(
    {"The", "A", "An", "Each", "Every", "Jede", "Jeder", "Jedes", "Der", "Die", "Das", "Ein", "Eine"}
)
