"""In which order a judge gets the items of candidates that work side by side, and when it stops waiting for one of them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from qaeval.records import Chunk, Failure, GenerateRow, Generation, Item, Sample
from qaeval.run.generate import GenerateTask
from qaeval.run.grade import GradeTask
from qaeval.run.loop import TaskQueue
from qaeval.run.stages import GradingQueue
from qaeval.run.watch import Unwatched
from qaeval.storage.run_directory import GENERATIONS, RunStore

SAMPLES = tuple(Sample.of(Chunk(chunk_id=f"c{number}", text=f"Valve {number}.")) for number in range(6))
LONG_S = 1000.0
"""A patience that no test waits for."""


class Skipped(Unwatched):
    """Counts the items that turned out not to exist."""

    n = 0

    def skip(self, n: int) -> None:
        self.n += n


class Bench:
    """A queue, the candidates that feed it, and a judge that takes what is there."""

    def __init__(self, store: RunStore, *, patience_s: float = LONG_S, max_held: int = 100) -> None:
        self.progress = Skipped()
        self.queue = GradingQueue(
            store, "judge", self.progress, items_per_sample=1, max_held=max_held, patience_s=patience_s
        )
        tasks = self.queue.pending().tasks
        assert isinstance(tasks, TaskQueue)
        self.tasks = tasks

    def begin(self, *candidates: str) -> None:
        for candidate in candidates:
            self.queue.begin(candidate, [False] * len(SAMPLES))

    async def answer(self, candidate: str, *indices: int, answer: str = "") -> None:
        for index in indices:
            await self.put(candidate, index, reply(index, answer or candidate))

    async def put(self, candidate: str, index: int, row: GenerateRow) -> None:
        await self.queue.put(GenerateTask("0", candidate, SAMPLES[index], index=index), row)

    async def taken(self) -> list[str]:
        """Return what the judge gets now: number of the sample, and the item's answer."""
        items = []
        while not self.tasks.is_empty:
            task = await self.tasks.take()
            assert task is not None
            items.append(f"{task.sample.chunk.chunk_id[1:]}{task.item.answer}")
        return items


def reply(index: int, answer: str) -> Generation:
    sample_id = SAMPLES[index].sample_id
    item = Item.of(sample_id, 0, type="factual", question="When?", answer=answer)
    return Generation(
        task_id="0", candidate=answer, sample_id=sample_id, items=(item,), text="", latency_s=1.0
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore.create(tmp_path / "run", {"format": 1}, SAMPLES, resume=False) as opened:
        yield opened


async def test_items_of_a_sample_follow_each_other_whichever_candidate_is_ahead(store: RunStore) -> None:
    bench = Bench(store)
    bench.begin("a", "b", "c")
    await bench.answer("a", 0, 1, 2)
    await bench.answer("b", 1, 0)
    assert await bench.taken() == []
    await bench.answer("c", 0, 1)
    assert await bench.taken() == ["0a", "0b", "0c", "1a", "1b", "1c"]


async def test_a_candidate_alone_is_graded_as_it_answers(store: RunStore) -> None:
    bench = Bench(store)
    bench.begin("a")
    await bench.answer("a", 2, 0)
    assert await bench.taken() == ["2a", "0a"]


async def test_a_reply_that_failed_is_not_waited_for(store: RunStore) -> None:
    bench = Bench(store)
    bench.begin("a", "b")
    failure = Failure(
        task_id="0",
        stage="generate",
        model="b",
        sample_id=SAMPLES[0].sample_id,
        reason="invalid_json",
        detail="",
    )
    await bench.answer("a", 0)
    await bench.put("b", 0, failure)
    await bench.put("b", 1, failure)
    await bench.answer("a", 1)
    assert await bench.taken() == ["0a", "1a"]
    assert bench.progress.n == 2


async def test_a_candidate_that_ended_is_not_waited_for(store: RunStore) -> None:
    bench = Bench(store)
    bench.begin("a", "b")
    await bench.answer("a", 0, 1)
    bench.queue.end("b")
    await bench.answer("a", 2)
    assert await bench.taken() == ["0a", "1a", "2a"]


async def test_what_an_earlier_session_answered_is_not_waited_for(store: RunStore) -> None:
    bench = Bench(store)
    bench.begin("a")
    bench.queue.begin("b", [True, False, True, True, True, True])
    await bench.answer("a", 0, 1, 2)
    assert await bench.taken() == ["0a", "2a"]


async def test_an_equal_item_of_two_candidates_is_one_task_whether_or_not_they_wait(store: RunStore) -> None:
    bench = Bench(store)
    bench.begin("a", "b")
    await bench.answer("a", 0, answer="same")
    await bench.answer("b", 0, answer="same")
    bench.queue.end("b")
    await bench.answer("a", 1, answer="same")
    bench.begin("b")
    await bench.answer("b", 1, answer="same")
    assert await bench.taken() == ["0same", "1same"]
    assert bench.progress.n == 2


async def test_a_candidate_far_ahead_is_held_up_to_a_bound_and_then_graded_from_the_start(
    store: RunStore,
) -> None:
    bench = Bench(store, max_held=2)
    bench.begin("a", "b")
    await bench.answer("a", 0, 1, 2, 3)
    assert await bench.taken() == ["0a", "1a"]
    await bench.answer("b", 0, 1, 2)
    assert await bench.taken() == ["0b", "1b", "2a", "2b"]


async def test_an_idle_judge_waits_for_a_candidate_once_and_again_after_its_next_answer(
    store: RunStore,
) -> None:
    bench = Bench(store, patience_s=0.01)
    bench.begin("a", "b")
    idle = asyncio.ensure_future(bench.tasks.take())
    await bench.answer("a", 0, 1)
    first = await asyncio.wait_for(idle, 30)
    assert isinstance(first, GradeTask)
    assert first.sample == SAMPLES[0]
    assert await bench.taken() == ["1a"]
    await bench.answer("a", 2)  # b has answered nothing since
    assert await bench.taken() == ["2a"]
    await bench.answer("b", 0)
    await bench.answer("a", 3)
    assert await bench.taken() == ["0b"]
    await bench.answer("b", 3)
    assert await bench.taken() == ["3a", "3b"]


async def test_a_judge_at_work_waits_for_no_candidate_and_nothing_is_passed_on_early(store: RunStore) -> None:
    bench = Bench(store, patience_s=0.001)
    bench.begin("a", "b")
    await bench.answer("a", 0)
    await asyncio.sleep(0.02)  # many times the patience, and no worker of the judge asks for a task
    assert await bench.taken() == []
    await bench.answer("b", 0)
    assert await bench.taken() == ["0a", "0b"]
    bench.queue.close()


async def test_other_work_goes_on_while_the_replies_of_an_earlier_session_are_read(store: RunStore) -> None:
    with store.writer(GENERATIONS) as writer:
        for index in range(len(SAMPLES)):
            writer.append(reply(index, f"answer {index}").model_copy(update={"task_id": f"{index:016x}"}))
    bench = Bench(store)
    reading = asyncio.create_task(bench.queue.put_stored())
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    await reading
    assert turns >= len(SAMPLES)
    assert len(await bench.taken()) == len(SAMPLES)
