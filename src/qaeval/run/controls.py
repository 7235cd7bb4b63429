"""Planted controls: items of the run with a defect, which show whether the judge tells anything apart.

A control is a real item whose answer is dots, or the answer to an item of another chunk (of a preference pair:
the chosen answer). The judge grades it with the prompt of every other item, after these. The draw depends on the
run's items alone, and is written down before the first request: a resumed run grades the same controls.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final, Self

from qaeval.analysis.letters import cluster_of
from qaeval.chat.protocol import ChatModel
from qaeval.checks.answers import refuses
from qaeval.files.rows import ReplyIndex
from qaeval.records import Control, ControlDefect, Item, Sample, record_id
from qaeval.run import grade
from qaeval.run.grade import GradeTask, Instructions
from qaeval.run.items import is_dots
from qaeval.run.plan import Judging
from qaeval.run.stages import PendingTasks, Stage
from qaeval.storage.run_directory import CONTROLS, RunStore
from qaeval.text.defects import Pair, variant

N_CONTROLS: Final = 10
"""At most, of a run: what they cost is small, and a judge of recall .8 passes (`agreement.discrimination`)."""

_POOL: Final = 20
"""Samples, and items of these, that controls are made from, in the order of a hash."""


@dataclass(frozen=True, slots=True)
class _Source:
    """An item of the run that controls are made from."""

    sample: Sample
    item: Item
    pair: Pair

    @classmethod
    def of(cls, sample: Sample, item: Item) -> Self:
        """Take the texts of an item and its chunk."""
        declines = refuses(item.answer)
        return cls(
            sample,
            item,
            Pair(source=sample.chunk.text, question=item.question, answer=item.answer, declines=declines),
        )


def draw(judge: str, samples: Iterable[Sample], replies: ReplyIndex) -> tuple[Control, ...]:
    """Draw the controls of a run: half of them with dots, half with another chunk's answer, where there is one.

    Args:
        judge: Name of the judge.
        samples: Samples of the run whose items are used.
        replies: The candidates' replies.
    """
    order = sorted(samples, key=lambda sample: sample.sample_id)
    by_sample = [_sources(sample, replies) for sample in order]
    # one item of each sample, then the second one of each, so that the controls are of as many chunks as there are
    sources = [source for round_ in zip_longest(*by_sample) for source in round_ if source is not None]
    taken = {source.item.item_id for source in sources}
    # last first, so that items with the answers of others are not those with dots
    foreign = _distinct([*_planted(judge, sources[:_POOL], "foreign answer")][::-1], taken)[: N_CONTROLS // 2]
    dotted = _distinct(_planted(judge, sources, "placeholder"), taken)
    return (*dotted[: N_CONTROLS - len(foreign)], *foreign)


def _sources(sample: Sample, replies: ReplyIndex) -> list[_Source]:
    items = {item.item_id: item for row in replies.of(sample.sample_id) for item in row.items}
    order = sorted(items, key=lambda item_id: record_id("control", item_id))
    whole = (items[item_id] for item_id in order)
    return [
        _Source.of(sample, item) for item in whole if not (is_dots(item.answer) or is_dots(item.question))
    ]


def _planted(judge: str, sources: Sequence[_Source], defect: ControlDefect) -> Iterator[Control]:
    """Yield a control for each source with a defect of this kind, which takes the texts of other chunks."""
    for index, source in enumerate(sources):
        donors = (*sources[index + 1 :], *sources[:index])
        others = [donor.pair for donor in donors if cluster_of(donor.sample) != cluster_of(source.sample)]
        changed = variant(defect, source.pair, seed=0, others=others)
        if changed is not None:
            yield _control(judge, source, changed.answer, defect)


def _control(judge: str, source: _Source, answer: str, defect: ControlDefect) -> Control:
    own = source.item
    item = Item.of(
        source.sample.sample_id,
        own.position,
        type=own.type,
        question=own.question,
        answer=answer,
        parts=own.parts,
    )
    return Control(
        task_id=record_id("control", judge, item.item_id),
        defect=defect,
        sample_id=source.sample.sample_id,
        item=item,
    )


def _distinct(controls: Iterable[Control], taken: Iterable[str]) -> list[Control]:
    """Leave out what the run holds as an item, and doubles: two candidates may ask the same question."""
    ids = set(taken)
    return [
        control
        for control in controls
        if not (control.item.item_id in ids or ids.add(control.item.item_id))  # type: ignore[func-returns-value]
    ]


@dataclass(frozen=True, slots=True)
class _ControlTask:
    """A control to be graded."""

    control: Control
    grading: GradeTask


class ControlStage(Stage[_ControlTask, Control]):
    """The judge grades the planted controls of a run.

    Args:
        judging: Judge and rubric.
        store: The open run directory.
        replies: Its replies.
    """

    name = "grade"
    file = CONTROLS
    is_measured = False

    def __init__(self, judging: Judging, store: RunStore, replies: ReplyIndex) -> None:
        self.spec = judging.judge
        self._store, self._replies = store, replies
        self._instructions = Instructions.for_judge(
            judging.rubric, self.spec, sees=grade.judge_sees(store.settings())
        )
        self._lenient = self.spec.structured == "off"

    def pending(self) -> PendingTasks[_ControlTask]:
        """Return the controls without a grade; at the first call of a run draw them, and write them down."""
        controls = self._store.controls()
        if controls:
            samples = self._store.some_samples({control.sample_id for control in controls})
        else:
            samples = self._store.some_samples(self._replies.sample_ids(_POOL))
            controls = self._drawn(samples)
        by_id = {sample.sample_id: sample for sample in samples}
        tasks = [
            _ControlTask(
                control, GradeTask(control.task_id, self.spec.name, by_id[control.sample_id], control.item)
            )
            for control in controls
            if control.is_pending
        ]
        return PendingTasks(len(controls), len(controls) - len(tasks), tasks)

    def _drawn(self, samples: Iterable[Sample]) -> tuple[Control, ...]:
        controls = draw(self.spec.name, samples, self._replies)
        if controls:
            self._store.drop_manifest()
            # at once: a run that was killed half-way through the draw would keep fewer controls
            lines = (control.model_dump_json(exclude_none=True) + "\n" for control in controls)
            self._store.write_text(CONTROLS, "".join(lines))
        return controls

    async def ask(self, model: ChatModel, task: _ControlTask) -> Control:
        """Ask for the grade of one control."""
        row = await grade.grade_one(model, task.grading, self._instructions, lenient=self._lenient)
        return task.control.model_copy(update={"grade": row})
