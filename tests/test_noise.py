"""Noise from repeats: the repeated requests, and variance components calculated by hand."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from qaeval.analysis.letters import letter_table
from qaeval.chat.protocol import Sampling
from qaeval.comparison.model import CandidateNoise, Noise
from qaeval.comparison.noise import measure_noise
from qaeval.comparison.noise_section import noise as noise_section
from qaeval.errors import DataError
from qaeval.evals.find import find_eval, find_rubric
from qaeval.records import Failure, Generation, Grade, Item, Sample
from qaeval.registry.model import ModelSpec
from qaeval.run import generate, grade
from qaeval.run.plan import Judging
from qaeval.run.repeats import GenerateRepeats, GradeRepeats, deterministic_note
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply
from report_builders import JUDGE, RUBRIC, Case, case, items_of

approx = pytest.approx
CHUNK_LETTERS = ["AA", "AC", "CC", "AC"] * 5


def make_example(letters: list[str]) -> Case:
    return case({"alpha": letters}, items_per_sample=2)


def repeated_letters(example: Case, number: int = 1, **changed: str) -> list[Grade]:
    """Return second letters of the run, with changes for some items by index."""
    grades = [row for row in example.rows.grades if isinstance(row, Grade)]
    return [
        row.model_copy(
            update={
                "task_id": f"again {number} {row.item_id}",
                "letter_number": number,
                "letter": changed.get(f"i{index}", row.letter),
            }
        )
        for index, row in enumerate(grades)
    ]


def failed_repeats(example: Case, reason: str = "invalid_json") -> list[Failure]:
    return [
        Failure(
            task_id=f"again {sample.sample_id}",
            stage="generate",
            model="alpha",
            sample_id=sample.sample_id,
            reply_number=1,
            reason=reason,  # type: ignore[arg-type]
            detail="",
        )
        for sample in example.rows.samples
    ]


def repeated_replies(example: Case) -> list[Generation]:
    """Return a second reply to each sample, with different items."""
    return [
        row.model_copy(
            update={
                "task_id": f"again {row.sample_id}",
                "reply_number": 1,
                "items": tuple(
                    Item.of(
                        row.sample_id, item.position, type=item.type, question=item.question, answer="Other."
                    )
                    for item in reversed(row.items)
                ),
            }
        )
        for row in example.rows.generations
        if isinstance(row, Generation)
    ]


def measure_example_noise(
    example: Case, replies: Any = (), letters: Any = (), **overrides: Any
) -> Noise | None:
    table = letter_table(
        *(example.rows.samples, example.rows.generations, example.rows.grades),
        candidates=["alpha"],
        items_per_sample=2,
        judge=JUDGE.name,
        rubric=RUBRIC,
    )
    options: dict[str, Any] = {"candidates": ["alpha"], "judge": JUDGE.name, "temperatures": {}, **overrides}
    return measure_noise(table, example.rows.samples, replies, letters, rubric=RUBRIC, **options)


def variances_by_source(noise: CandidateNoise) -> dict[str, float | None]:
    return {component.source: component.variance.value for component in noise.components}


def test_changed_letters_are_judge_noise() -> None:
    example = make_example(CHUNK_LETTERS)
    noise = measure_example_noise(example, letters=repeated_letters(example, i0="C", i7="A"))
    assert noise is not None
    assert noise.judge is not None
    (noise_of_alpha,) = noise.candidates
    assert (noise_of_alpha.n_letters, noise_of_alpha.n_missing, noise_of_alpha.n_replies) == (80, 0, 1)
    # two of 40 items have different letters: half the squared difference of each, over all items
    assert variances_by_source(noise_of_alpha)["judge"] == approx(2 * 0.5 / 40)
    assert variances_by_source(noise_of_alpha)["reply"] is None
    assert (noise.judge.n_items, noise.judge.n_letters) == (40, 2)
    assert noise.judge.self_agreement.value == approx(38 / 40)
    assert noise.judge.flips.value == approx(2 / 40)
    # 40 of the 80 letters are A: observed 0.05 over expected 2 x 40 x 40 / (80 x 79)
    assert noise.judge.alpha.value == approx(1 - 0.05 / (2 * 40 * 40 / (80 * 79)))
    assert noise.at_temperature_0 == ()


def test_interval_narrows_without_judge_noise() -> None:
    example = make_example(CHUNK_LETTERS)
    noise = measure_example_noise(example, letters=repeated_letters(example, i0="C", i7="A"))
    assert noise is not None
    # usable rate 0.5; sums of the chunks are +1, 0, -1, 0: 10 of 20 chunks differ by 1
    variance = 10 * 20 / 19 / 40**2
    assert noise.candidates[0].without_judge_noise == approx((1 - 0.025 / 40 / variance) ** 0.5)


def test_constant_letters_have_no_noise_and_undefined_alpha() -> None:
    example = make_example(["AA"] * 20)
    noise = measure_example_noise(example, letters=repeated_letters(example))
    assert noise is not None
    assert noise.judge is not None
    assert variances_by_source(noise.candidates[0])["judge"] == 0.0
    assert (noise.judge.self_agreement.value, noise.judge.flips.value) == (1.0, 0.0)
    assert (noise.judge.alpha.value, noise.judge.alpha.reason) == (None, "all letters are the same")
    assert noise.candidates[0].without_judge_noise is None


def test_failed_repeated_replies_are_candidate_noise() -> None:
    example = make_example(["AA"] * 20)
    noise = measure_example_noise(example, replies=failed_repeats(example))
    assert noise is not None
    assert noise.judge is None
    (noise_of_alpha,) = noise.candidates
    # each item was usable in one of two replies: (1 - 0)^2 / 2
    assert variances_by_source(noise_of_alpha)["reply"] == approx(0.5)
    assert (noise_of_alpha.n_letters, noise_of_alpha.n_missing, noise_of_alpha.n_replies) == (80, 0, 2)
    assert variances_by_source(noise_of_alpha)["judge"] is None


def test_endpoint_failures_are_not_counted_as_replies() -> None:
    example = make_example(["AA"] * 20)
    assert measure_example_noise(example, replies=failed_repeats(example, "endpoint")) is None
    assert measure_example_noise(example) is None


def test_items_of_repeated_replies_are_matched_by_position() -> None:
    example = make_example(CHUNK_LETTERS)
    replies = repeated_replies(example)
    grades = [
        Grade(
            task_id=f"again {item.item_id}",
            judge=JUDGE.name,
            rubric_sha=RUBRIC.sha,
            item_id=item.item_id,
            reply_number=1,
            letter="C" if item.position else "A",
            text="",
            latency_s=0,
        )
        for row in replies[:15]
        for item in row.items
    ]
    noise = measure_example_noise(example, replies=replies, letters=grades)
    assert noise is not None
    (noise_of_alpha,) = noise.candidates
    assert (noise_of_alpha.n_letters, noise_of_alpha.n_missing, noise_of_alpha.n_replies) == (40 + 30, 10, 2)
    assert noise.judge is None


def test_models_at_temperature_0_are_listed() -> None:
    example = make_example(CHUNK_LETTERS)
    noise = measure_example_noise(
        example,
        replies=failed_repeats(example),
        letters=repeated_letters(example),
        temperatures={"alpha": 0.0, JUDGE.name: 0.7, "other": 0.0},
    )
    assert noise is not None
    assert noise.at_temperature_0 == ("alpha",)


@pytest.mark.parametrize(
    ("change", "excerpt"),
    [
        ({"judge": "other"}, "another judge"),
        ({"rubric_sha": "0" * 64}, "another rubric"),
        ({"letter": "Z"}, "another rubric"),
    ],
)
def test_letters_of_another_judge_or_rubric_are_refused(change: dict[str, str], excerpt: str) -> None:
    example = make_example(CHUNK_LETTERS)
    rows = repeated_letters(example)
    with pytest.raises(DataError, match=excerpt):
        measure_example_noise(example, letters=[*rows[:3], rows[3].model_copy(update=change)])


@pytest.mark.parametrize("change", [{"model": "beta"}, {"sample_id": "0" * 16}])
def test_reply_of_an_unknown_candidate_or_sample_is_refused(change: dict[str, str]) -> None:
    example = make_example(CHUNK_LETTERS)
    with pytest.raises(DataError, match="belongs to nothing"):
        measure_example_noise(example, replies=[failed_repeats(example)[0].model_copy(update=change)])


def test_noise_section_has_candidate_rows_and_a_judge_table() -> None:
    example = make_example(CHUNK_LETTERS)
    noise = measure_example_noise(
        example,
        letters=repeated_letters(example, i0="C", i7="A"),
        temperatures={JUDGE.name: 0.0, "alpha": 0.0},
    )
    section = noise_section(example.report().model_copy(update={"noise": noise}))
    assert section is not None
    assert section.anchor == "noise"
    components, judge = section.tables
    (row,) = components.rows
    assert (row[0], row[-2], row[-1]) == ("alpha", "1", "80")
    assert [cells[1].split(" ")[0] for cells in judge.rows] == ["95.0", "5.0", "0.90"]
    text = " ".join(section.paragraphs)
    assert JUDGE.name in text
    assert "narrower" in text
    assert "no letter" not in text


def test_a_run_without_repeats_has_no_section() -> None:
    assert noise_section(make_example(CHUNK_LETTERS).report()) is None


# ------------------------------------------------------------------------------ repeated requests


class FakeStore:
    """A fake run directory with what a stage reads: samples and ids of finished tasks."""

    def __init__(self, samples: tuple[Sample, ...], finished_ids: set[str]) -> None:
        self._samples, self._done = samples, finished_ids

    def samples(self) -> Iterator[Sample]:
        return iter(self._samples)

    def sample_ids(self) -> Iterator[str]:
        return (sample.sample_id for sample in self._samples)

    def settings(self) -> dict[str, Any]:
        return {"eval": {"name": "qa_pairs"}, "grading": None}

    def finished(self, _file: str) -> set[str]:
        return self._done


SPEC = ModelSpec.model_validate({"name": "alpha", "sampling": {"seed": 11, "temperature": 0.7}})


def test_pending_repeats_are_the_missing_replies() -> None:
    samples = make_example(CHUNK_LETTERS).rows.samples[:3]
    finished_ids = {
        generate.task_id("alpha", samples[0].sample_id, 2),
        generate.task_id("alpha", samples[1].sample_id),
    }
    stage = GenerateRepeats(SPEC, find_eval("qa_pairs"), FakeStore(samples, finished_ids), repeat=3)  # type: ignore[arg-type]
    pending = stage.pending()
    assert (pending.n, pending.n_done) == (6, 1)
    assert [(task.sample.sample_id, task.reply_number) for task in pending.tasks] == [
        (samples[0].sample_id, 1),
        *((sample.sample_id, number) for sample in samples[1:] for number in (1, 2)),
    ]


async def test_repeated_reply_has_a_seed_by_its_number() -> None:
    (sample,) = make_example(CHUNK_LETTERS).rows.samples[:1]
    stage = GenerateRepeats(SPEC, find_eval("qa_pairs"), FakeStore((sample,), set()), repeat=3)  # type: ignore[arg-type]
    model = ScriptedModel(
        lambda _request: pairs_reply([(kind, f"{kind}?", "a") for kind in ("factual",) * 3])
    )
    for number in (1, 2):
        row = await stage.ask(model, generate.GenerateTask("t", "alpha", sample, number))
        assert row.reply_number == number
    assert [request.sampling.seed for request in model.requests] == [12, 13]


async def test_repeated_letter_has_a_seed_by_its_number_if_the_judge_has_one() -> None:
    (sample,) = make_example(CHUNK_LETTERS).rows.samples[:1]
    item = Item.of(sample.sample_id, 0, type="", question="q", answer="a")
    model = ScriptedModel(lambda _request: grade_reply("A"))
    for seed in (5, None):
        spec = ModelSpec.model_validate({"name": "j", "sampling": {"seed": seed}})
        judging = Judging(spec, find_rubric("qa_pair_abc"))
        stage = GradeRepeats(judging, FakeStore((sample,), set()), repeat=3)  # type: ignore[arg-type]
        for reply_number, letter_number in ((0, 2), (3, 0)):
            task = grade.GradeTask("t", "j", sample, item, reply_number, letter_number)
            row = await stage.ask(model, task)
            assert (row.reply_number, row.letter_number) == (reply_number, letter_number)
    base_seed = replace(grade.SAMPLING, seed=5).seed or 0
    assert [request.sampling.seed for request in model.requests][:2] == [base_seed + 2, base_seed + 3000]


def test_pending_letters_are_the_missing_numbers_and_items() -> None:
    example = make_example(["AC"])
    (sample,) = example.rows.samples
    (first,) = (row for row in example.rows.generations if isinstance(row, Generation))
    (second,) = repeated_replies(example)
    # the same items: one task for both candidates
    same_items = first.model_copy(update={"candidate": "beta"})
    ids = [item.item_id for item in first.items]
    finished_ids = {grade.task_id("j", ids[0], 0, 2)}
    tasks = grade.repeated_tasks(
        "j", sample, [second, same_items, first], finished_ids, letter_numbers=iter((1, 2))
    )
    assert [(task.item.item_id, task.reply_number, task.letter_number) for task in tasks] == [
        (ids[0], 0, 1),
        (ids[1], 0, 1),
        (ids[1], 0, 2),
        *((item.item_id, 1, 0) for item in second.items),
    ]


@pytest.mark.parametrize(
    ("spec", "excerpt"),
    [
        ({"kind": "embedded"}, "no language model"),
        ({"sampling": {"temperature": 0.7}}, None),
        ({"sampling": {"temperature": 0.01}}, None),
        ({}, "temperature 0"),
    ],
)
def test_note_on_models_with_deterministic_repeats(spec: dict[str, Any], excerpt: str | None) -> None:
    note = deterministic_note(ModelSpec.model_validate({"name": "quiet", **spec}), Sampling(temperature=0.0))
    assert (note is None) == (excerpt is None)
    assert note is None or ("quiet" in note and excerpt is not None and excerpt in note)


def test_example_has_two_items_per_sample() -> None:
    assert len(items_of(make_example(CHUNK_LETTERS), "alpha")) == 40
