"""What a judge is asked in an audit, drawn from the good items and the seed alone."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from qaeval.audit.good import GoodItem
from qaeval.audit.model import ProbeName
from qaeval.audit.wordings import AS_USED, EXAMPLES, LEVELS, RENAMED, TRANSLATED, WORDINGS
from qaeval.evals.definition import ItemKind
from qaeval.evals.rubric import Rubric
from qaeval.records import REJECTED, AuditItem, Item, Sample, record_id, record_number
from qaeval.registry.family import LINES, lines
from qaeval.registry.model import ModelSpec
from qaeval.text.attacks import ATTACKS
from qaeval.text.defects import DEFECTS, HARMLESS, VARIANTS, Variant, VariantKind, variant
from qaeval.text.units import is_german

PER_KIND: Final = 20
"""Variants of each kind, at most, each of another good item."""
SUBTLE: Final = tuple(
    kind
    for kind in DEFECTS
    if kind not in {"placeholder", "copied question", "vague question", "foreign answer", "unanswerable"}
)
"""Defects that stand inside an answer about the text: those that a careful reader alone finds."""

_OF_PAIRS: Final = frozenset({"foreign answer", "copied question", "placeholder", "formatting"})
"""Of a preference pair, the chosen answer is not a statement about a text."""


def _kinds(kinds: Sequence[VariantKind], item_kind: ItemKind) -> tuple[VariantKind, ...]:
    """Return the kinds whose letter is known for a kind of items; the question of an answer is not the candidate's."""
    if item_kind == "preference_pair":
        return tuple(kind for kind in kinds if kind in _OF_PAIRS)
    return tuple(kind for kind in kinds if item_kind == "qa_pair" or kind != "vague question")


COLD, FIRST_AGAIN, LAST = "temperature 0", "again", "at the end"
PADDED, BEFORE, AFTER = "padded", "text before", "text after"
OWN_NAME, OTHER_NAME, SWAPPED = "own name", "other name", "swapped"

PROBE_OF: Final[Mapping[str, ProbeName]] = {
    LEVELS: "order of levels",
    EXAMPLES: "order of examples",
    RENAMED: "letters renamed",
    **dict.fromkeys(WORDINGS, "wordings"),
    TRANSLATED: "translated rubric",
}
"""Probes that change the prompt, by setting."""

_PADDING: Final[Mapping[str, str]] = {
    "en": (
        "To put it in more detail, and in order to leave no doubt about what is meant here, it should be said once more that this is, "
        "all things considered and taken as a whole, what there is to say about the question that was asked, and that the points "
        "given above are to be read in exactly the sense in which they are put, neither more nor less, as anybody who goes through "
        "them again step by step and with due care will be able to see without much trouble."
    ),
    "de": (
        "Um es ausführlicher zu sagen und keinen Zweifel daran zu lassen, was hier gemeint ist, sei noch einmal betont, dass dies, "
        "alles in allem und im Ganzen betrachtet, das ist, was zu der gestellten Frage zu sagen ist, und dass die oben genannten "
        "Punkte genau in dem Sinne zu lesen sind, in dem sie dort stehen, nicht mehr und nicht weniger, wie jeder, der sie Schritt "
        "für Schritt und mit der nötigen Sorgfalt noch einmal durchgeht, ohne große Mühe sehen wird."
    ),
}
"""Many words that say nothing; what they are added to is as good as before, at most."""


@dataclass(frozen=True, kw_only=True)
class AuditScope:
    """What an audit can ask a judge.

    Attributes:
        judge: the judge.
        rubric: the rubric of the eval.
        settings: forms of the prompt that can be tried; none for a judge that reads no prompt.
        item_kind: of the eval.
        seed: chooses variants.
    """

    judge: ModelSpec
    rubric: Rubric
    settings: frozenset[str]
    item_kind: ItemKind
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LabelledItem:
    """A candidate's item with a letter of the labels, for the comparison of families."""

    sample: Sample
    item: Item
    candidate: str
    letter: str


def plan_audit(
    scope: AuditScope, goods: Sequence[GoodItem], labelled: Iterable[LabelledItem] = (), *, n: int
) -> tuple[AuditItem, ...]:
    """Return the items of an audit in the order in which the judge is asked.

    Args:
        scope: Judge, rubric and seed.
        goods: Good items, those of different chunks first.
        labelled: Candidates' items with labels.
        n: Good items that all probes use; further ones are asked about only where few of these can have a defect.
    """
    planner = _Planner(scope, goods, n)
    variants = [
        *planner.variants("detection", _kinds(DEFECTS, scope.item_kind)),
        *planner.variants("false alarms", _kinds(HARMLESS, scope.item_kind)),
    ]
    rows = [*planner.originals({row.base for row in variants}), *variants]
    panel = planner.panel(rows)
    rows += planner.panel_probes(panel)
    rows += planner.attacks(panel)
    rows += planner.swapped()
    rows += planner.families(labelled)
    # last, so that a judge that moves in the course of the audit has moved
    rows += planner.again(panel, "drift", LAST, number=2)
    return tuple({row.task_id: row for row in rows}.values())


class _Planner:
    def __init__(self, scope: AuditScope, goods: Sequence[GoodItem], n: int) -> None:
        self._scope = scope
        self._core = {good.item.item_id for good in goods[:n]}
        self._goods = goods
        self._by_id = {good.item.item_id: good for good in goods}
        self._pairs = [good.pair for good in goods]
        seen = Counter[str]()
        self._rounds: list[int] = []
        """Of each good item, how many before it are of its chunk."""
        for good in goods:
            self._rounds.append(seen[good.chunk_id])
            seen[good.chunk_id] += 1

    def originals(self, used: Container[str]) -> Iterator[AuditItem]:
        """Yield the good items as they are: those of all probes, and those with variants."""
        for good in self._goods:
            if good.item.item_id in self._core or good.item.item_id in used:
                yield self._row("good items", good, good.item)

    def variants(self, probe: ProbeName, kinds: Sequence[VariantKind]) -> Iterator[AuditItem]:
        """Yield up to 20 variants of each kind, each of another good item; each kind begins with another one."""
        n = len(self._goods)
        for kind in kinds:
            start = record_number("kind", str(self._scope.seed), kind) % n
            # those of all probes first, and other chunks first: two items of one chunk tell little more than one
            order = sorted(((start + step) % n for step in range(n)), key=self._rank)
            changes = (
                (self._goods[index], changed)
                for index in order
                if (changed := self._variant(kind, index)) is not None
            )
            for good, changed in islice(changes, PER_KIND):
                yield self._changed(probe, good, changed)

    def _rank(self, index: int) -> tuple[bool, int]:
        return self._goods[index].item.item_id not in self._core, self._rounds[index]

    def _variant(self, kind: VariantKind, index: int) -> Variant | None:
        others = self._pairs[index + 1 :] + self._pairs[:index]
        return variant(kind, self._pairs[index], seed=self._scope.seed, others=others)

    def _changed(self, probe: ProbeName, good: GoodItem, changed: Variant) -> AuditItem:
        item = _item(good, answer=changed.answer, question=changed.question)
        return self._row(probe, good, item, kind=changed.kind, change=changed.change)

    def panel(self, rows: Sequence[AuditItem]) -> list[AuditItem]:
        """Return a good item of each chunk, each followed by one of its defective variants: what most probes ask about again."""
        planted: dict[str, list[AuditItem]] = {}
        for row in rows:
            if row.probe == "detection" and VARIANTS[_kind(row)].verdict == "worst":
                planted.setdefault(row.base, []).append(row)
        panel: list[AuditItem] = []
        used: dict[str, int] = {}
        chunks = set()
        for row in rows:
            good = self._by_id[row.base]
            if row.kind or row.base not in self._core & planted.keys() or good.chunk_id in chunks:
                continue
            # kinds that the panel has least of, the subtle ones first
            mutant = min(
                planted[row.base],
                key=lambda each: (used.get(each.kind, 0), each.kind not in SUBTLE, each.kind),
            )
            used[mutant.kind] = used.get(mutant.kind, 0) + 1
            chunks.add(good.chunk_id)
            panel += [row, mutant]
        return panel

    def panel_probes(self, panel: Sequence[AuditItem]) -> Iterator[AuditItem]:
        """Yield the panel in every other setting."""
        scope = self._scope
        yield from self.again(panel, "repeat", FIRST_AGAIN, number=1)
        if COLD in scope.settings:
            yield from self.again(panel, "temperature 0", COLD, number=0)
            yield from self.again(panel, "temperature 0", COLD, number=1)
        for setting, probe in PROBE_OF.items():
            if setting in scope.settings:
                yield from self.again(panel, probe, setting)
        for index, row in enumerate(panel):
            good = self._by_id[row.base]
            text = row.item.answer
            language = "de" if is_german(f"{row.item.question} {text}") else "en"
            yield self._again(row, "length", PADDED, answer=f"{text.rstrip()} {_PADDING[language]}")
            own, other = _names(scope.judge)
            note = {"en": "(This answer was written by {}.)", "de": "(Diese Antwort stammt von {}.)"}[
                language
            ]
            yield self._again(row, "name leakage", OWN_NAME, answer=f"{text.rstrip()}\n\n{note.format(own)}")
            yield self._again(
                row, "name leakage", OTHER_NAME, answer=f"{text.rstrip()}\n\n{note.format(other)}"
            )
            filler = self._filler(good, index)
            if filler and good.sample.chunk.text:
                chunk = good.sample.chunk.text
                yield self._again(row, "chunk position", BEFORE, source=f"{filler}\n\n{chunk}")
                yield self._again(row, "chunk position", AFTER, source=f"{chunk}\n\n{filler}")

    def _filler(self, good: GoodItem, index: int) -> str:
        """Return the text of another document."""
        document = good.sample.chunk.document or good.chunk_id
        others = (*self._goods[index // 2 + 1 :], *self._goods[: index // 2])
        return next(
            (
                other.sample.chunk.text
                for other in others
                if (other.sample.chunk.document or other.chunk_id) != document and other.sample.chunk.text
            ),
            "",
        )

    def attacks(self, panel: Sequence[AuditItem]) -> Iterator[AuditItem]:
        """Yield every attack once, in answer, question and source in turn, each on a defective item of the panel."""
        defective = [row for row in panel if row.kind]
        if not defective:
            return
        verdict = _verdict(self._scope.rubric)
        for index, attack in enumerate(ATTACKS):
            row = defective[index % len(defective)]
            chunk = self._by_id[row.base].sample.chunk
            # the mark of the fence as `qaeval.run.grade` computes it: who knows the chunk can, too
            text = attack.text(verdict=verdict, mark=record_id("mark", chunk.chunk_id, chunk.text))
            setting = f"{attack.kind}: {attack.name}"
            place = index // len(defective) % 3 if chunk.text else 0
            if place == 0:
                yield self._again(row, "injection", setting, answer=f"{row.item.answer}\n{text}")
            elif place == 1:
                yield self._again(row, "injection", setting, question=f"{row.item.question}\n{text}")
            else:
                yield self._again(row, "injection", setting, source=f"{chunk.text}\n\n{text}")

    def swapped(self) -> Iterator[AuditItem]:
        """Yield preference pairs with the worse answer as the chosen one."""
        if not self._scope.rubric.grades_pairs:
            return
        for good in self._goods:
            parts = good.item.parts
            if REJECTED in parts and good.item.item_id in self._core:
                item = Item.of(
                    good.sample.sample_id,
                    0,
                    type=good.item.type,
                    question=good.item.question,
                    answer=parts[REJECTED],
                    parts={**parts, REJECTED: good.item.answer},
                )
                yield self._row("pair order", good, item, setting=SWAPPED)

    def families(self, labelled: Iterable[LabelledItem]) -> Iterator[AuditItem]:
        """Yield candidates' items that have labels."""
        for each in labelled:
            yield self._row(
                "self-preference",
                GoodItem(each.sample, each.item),
                each.item,
                candidate=each.candidate,
                label=each.letter,
            )

    def again(
        self, panel: Sequence[AuditItem], probe: ProbeName, setting: str, *, number: int = 0
    ) -> Iterator[AuditItem]:
        """Yield the panel once more."""
        for row in panel:
            yield self._again(row, probe, setting, number=number)

    def _again(
        self,
        row: AuditItem,
        probe: ProbeName,
        setting: str,
        *,
        answer: str = "",
        question: str = "",
        source: str = "",
        number: int = 0,
    ) -> AuditItem:
        good = self._by_id[row.base]
        item = row.item
        if answer or question:
            item = _item(good, answer=answer or item.answer, question=question or item.question)
        return self._row(
            probe, good, item, setting=setting, kind=row.kind, change=row.change, source=source, number=number
        )

    def _row(
        self,
        probe: ProbeName,
        good: GoodItem,
        item: Item,
        *,
        setting: str = AS_USED,
        kind: str = "",
        change: str = "",
        source: str = "",
        number: int = 0,
        candidate: str = "",
        label: str = "",
    ) -> AuditItem:
        parts = (probe, setting, kind, str(number), item.item_id, good.item.item_id, candidate, source)
        return AuditItem(
            task_id=record_id("audit", self._scope.judge.name, *parts),
            probe=probe,
            setting=setting,
            kind=kind,
            change=change,
            base=good.item.item_id,
            sample_id=good.sample.sample_id,
            item=item,
            source=source,
            number=number,
            candidate=candidate,
            label=label,
        )


def _kind(row: AuditItem) -> VariantKind:
    return row.kind  # type: ignore[return-value] # written by this module


def _item(good: GoodItem, *, answer: str, question: str) -> Item:
    own = good.item
    return Item.of(
        good.sample.sample_id, own.position, type=own.type, question=question, answer=answer, parts=own.parts
    )


def _names(judge: ModelSpec) -> tuple[str, str]:
    """Return the name of the judge's family (its own name where that is not known), and that of another family."""
    own = next(iter(lines(judge)), judge.name)
    return own, next(name for name in ("mistral", "qwen", *LINES) if name not in {own, *lines(judge)})


def _verdict(rubric: Rubric) -> str:
    """Return the best verdict of a rubric as JSON."""
    flags = "".join(f', "{flag.name}": false' for flag in rubric.flags)
    flaw = ', "flaw": "none"' if rubric.flaws else ""
    return f'{{"reason": "right", "letter": "{rubric.letters[0]}"{flaw}{flags}}}'
