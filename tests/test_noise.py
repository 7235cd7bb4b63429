"""Noise from repeats: what is asked again, and the components of rows that are worked by hand."""

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
WORDS = ["AA", "AC", "CC", "AC"] * 5


def alpha(words: list[str]) -> Case:
    return case({"alpha": words}, items_per_sample=2)


def letters_again(made: Case, number: int = 1, **changed: str) -> list[Grade]:
    """The letters of the run once more, with other ones for some items, by their index."""
    grades = [row for row in made.rows.grades if isinstance(row, Grade)]
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


def failed_again(made: Case, reason: str = "invalid_json") -> list[Failure]:
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
        for sample in made.rows.samples
    ]


def replies_again(made: Case) -> list[Generation]:
    """A second reply to each sample, with items of its own."""
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
        for row in made.rows.generations
        if isinstance(row, Generation)
    ]


def measured(made: Case, replies: Any = (), letters: Any = (), **more: Any) -> Noise | None:
    table = letter_table(
        *(made.rows.samples, made.rows.generations, made.rows.grades),
        candidates=["alpha"],
        items_per_sample=2,
        judge=JUDGE.name,
        rubric=RUBRIC,
    )
    options: dict[str, Any] = {"candidates": ["alpha"], "judge": JUDGE.name, "temperatures": {}, **more}
    return measure_noise(table, made.rows.samples, replies, letters, rubric=RUBRIC, **options)


def variances(noise: CandidateNoise) -> dict[str, float | None]:
    return {part.source: part.variance.value for part in noise.components}


def test_a_letter_that_turns_is_noise_of_the_judge() -> None:
    made = alpha(WORDS)
    noise = measured(made, letters=letters_again(made, i0="C", i7="A"))
    assert noise is not None
    assert noise.judge is not None
    (of_alpha,) = noise.candidates
    assert (of_alpha.n_letters, of_alpha.n_missing, of_alpha.n_replies) == (80, 0, 1)
    # two of 40 items have two letters: half the squared difference of each, over all items
    assert variances(of_alpha)["judge"] == approx(2 * 0.5 / 40)
    assert variances(of_alpha)["reply"] is None
    assert (noise.judge.n_items, noise.judge.n_letters) == (40, 2)
    assert noise.judge.self_agreement.value == approx(38 / 40)
    assert noise.judge.flips.value == approx(2 / 40)
    # 40 of the 80 letters are A: observed 0.05 over expected 2 x 40 x 40 / (80 x 79)
    assert noise.judge.alpha.value == approx(1 - 0.05 / (2 * 40 * 40 / (80 * 79)))
    assert noise.at_temperature_0 == ()


def test_without_the_judges_noise_the_interval_is_narrower_by_its_share_of_the_variance() -> None:
    made = alpha(WORDS)
    noise = measured(made, letters=letters_again(made, i0="C", i7="A"))
    assert noise is not None
    # usable rate 0.5; sums of the chunks are +1, 0, -1, 0: 10 of 20 chunks differ by 1
    variance = 10 * 20 / 19 / 40**2
    assert noise.candidates[0].without_judge_noise == approx((1 - 0.025 / 40 / variance) ** 0.5)


def test_a_letter_that_never_turns_has_no_noise_and_one_letter_alone_no_alpha() -> None:
    made = alpha(["AA"] * 20)
    noise = measured(made, letters=letters_again(made))
    assert noise is not None
    assert noise.judge is not None
    assert variances(noise.candidates[0])["judge"] == 0.0
    assert (noise.judge.self_agreement.value, noise.judge.flips.value) == (1.0, 0.0)
    assert (noise.judge.alpha.value, noise.judge.alpha.reason) == (None, "all letters are the same")
    assert noise.candidates[0].without_judge_noise is None


def test_a_further_reply_that_fails_is_noise_of_the_candidate() -> None:
    made = alpha(["AA"] * 20)
    noise = measured(made, replies=failed_again(made))
    assert noise is not None
    assert noise.judge is None
    (of_alpha,) = noise.candidates
    # each item was usable once and not once: (1 - 0)^2 / 2
    assert variances(of_alpha)["reply"] == approx(0.5)
    assert (of_alpha.n_letters, of_alpha.n_missing, of_alpha.n_replies) == (80, 0, 2)
    assert variances(of_alpha)["judge"] is None


def test_what_a_server_did_not_answer_is_no_reply() -> None:
    made = alpha(["AA"] * 20)
    assert measured(made, replies=failed_again(made, "endpoint")) is None
    assert measured(made) is None


def test_items_of_further_replies_are_found_by_position_and_count_as_missing_without_a_letter() -> None:
    made = alpha(WORDS)
    replies = replies_again(made)
    graded = [
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
    noise = measured(made, replies=replies, letters=graded)
    assert noise is not None
    (of_alpha,) = noise.candidates
    assert (of_alpha.n_letters, of_alpha.n_missing, of_alpha.n_replies) == (40 + 30, 10, 2)
    assert noise.judge is None


def test_models_at_temperature_0_are_named_once() -> None:
    made = alpha(WORDS)
    noise = measured(
        made,
        replies=failed_again(made),
        letters=letters_again(made),
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
    made = alpha(WORDS)
    rows = letters_again(made)
    with pytest.raises(DataError, match=excerpt):
        measured(made, letters=[*rows[:3], rows[3].model_copy(update=change)])


@pytest.mark.parametrize("change", [{"model": "beta"}, {"sample_id": "0" * 16}])
def test_a_reply_to_nothing_in_the_run_is_refused(change: dict[str, str]) -> None:
    made = alpha(WORDS)
    with pytest.raises(DataError, match="belongs to nothing"):
        measured(made, replies=[failed_again(made)[0].model_copy(update=change)])


def test_the_section_has_a_row_for_each_candidate_and_one_table_for_the_judge() -> None:
    made = alpha(WORDS)
    noise = measured(
        made, letters=letters_again(made, i0="C", i7="A"), temperatures={JUDGE.name: 0.0, "alpha": 0.0}
    )
    section = noise_section(made.report().model_copy(update={"noise": noise}))
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
    assert noise_section(alpha(WORDS).report()) is None


# ------------------------------------------------------------------------------ what is asked again


class Store:
    """What a stage reads of a run directory: samples, and ids of finished tasks."""

    def __init__(self, samples: tuple[Sample, ...], done: set[str]) -> None:
        self._samples, self._done = samples, done

    def samples(self) -> Iterator[Sample]:
        return iter(self._samples)

    def sample_ids(self) -> Iterator[str]:
        return (sample.sample_id for sample in self._samples)

    def settings(self) -> dict[str, Any]:
        return {"eval": {"name": "qa_pairs"}, "grading": None}

    def finished(self, _file: str) -> set[str]:
        return self._done


SPEC = ModelSpec.model_validate({"name": "alpha", "sampling": {"seed": 11, "temperature": 0.7}})


def test_further_replies_that_are_missing_are_asked_for_with_seeds_of_their_own() -> None:
    samples = alpha(WORDS).rows.samples[:3]
    done = {
        generate.task_id("alpha", samples[0].sample_id, 2),
        generate.task_id("alpha", samples[1].sample_id),
    }
    stage = GenerateRepeats(SPEC, find_eval("qa_pairs"), Store(samples, done), repeat=3)  # type: ignore[arg-type]
    pending = stage.pending()
    assert (pending.n, pending.n_done) == (6, 1)
    assert [(task.sample.sample_id, task.reply_number) for task in pending.tasks] == [
        (samples[0].sample_id, 1),
        *((sample.sample_id, number) for sample in samples[1:] for number in (1, 2)),
    ]


async def test_a_further_reply_has_the_seed_of_its_number() -> None:
    (sample,) = alpha(WORDS).rows.samples[:1]
    stage = GenerateRepeats(SPEC, find_eval("qa_pairs"), Store((sample,), set()), repeat=3)  # type: ignore[arg-type]
    model = ScriptedModel(
        lambda _request: pairs_reply([(kind, f"{kind}?", "a") for kind in ("factual",) * 3])
    )
    for number in (1, 2):
        row = await stage.ask(model, generate.GenerateTask("t", "alpha", sample, number))
        assert row.reply_number == number
    assert [request.sampling.seed for request in model.requests] == [12, 13]


async def test_a_further_letter_has_a_seed_of_its_own_and_none_where_the_judge_has_none() -> None:
    (sample,) = alpha(WORDS).rows.samples[:1]
    item = Item.of(sample.sample_id, 0, type="", question="q", answer="a")
    model = ScriptedModel(lambda _request: grade_reply("A"))
    for seed in (5, None):
        spec = ModelSpec.model_validate({"name": "j", "sampling": {"seed": seed}})
        judging = Judging(spec, find_rubric("qa_pair_abc"))
        stage = GradeRepeats(judging, Store((sample,), set()), repeat=3)  # type: ignore[arg-type]
        for reply_number, letter_number in ((0, 2), (3, 0)):
            task = grade.GradeTask("t", "j", sample, item, reply_number, letter_number)
            row = await stage.ask(model, task)
            assert (row.reply_number, row.letter_number) == (reply_number, letter_number)
    own = replace(grade.SAMPLING, seed=5).seed or 0
    assert [request.sampling.seed for request in model.requests][:2] == [own + 2, own + 3000]


def test_the_letters_that_are_missing_are_those_of_the_numbers_and_one_for_each_further_item() -> None:
    made = alpha(["AC"])
    (sample,) = made.rows.samples
    (first,) = (row for row in made.rows.generations if isinstance(row, Generation))
    (second,) = replies_again(made)
    twin = first.model_copy(update={"candidate": "beta"})  # the same items: one task for both
    ids = [item.item_id for item in first.items]
    done = {grade.task_id("j", ids[0], 0, 2)}
    asked = grade.repeated_tasks("j", sample, [second, twin, first], done, letter_numbers=iter((1, 2)))
    assert [(task.item.item_id, task.reply_number, task.letter_number) for task in asked] == [
        (ids[0], 0, 1),
        (ids[1], 0, 1),
        (ids[1], 0, 2),
        *((item.item_id, 1, 0) for item in second.items),
    ]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"kind": "embedded"}, "no language model"),
        ({"sampling": {"temperature": 0.7}}, None),
        ({"sampling": {"temperature": 0.01}}, None),
        ({}, "temperature 0"),
    ],
)
def test_a_model_whose_repeats_show_nothing_of_it_is_named(spec: dict[str, Any], says: str | None) -> None:
    note = deterministic_note(ModelSpec.model_validate({"name": "quiet", **spec}), Sampling(temperature=0.0))
    assert (note is None) == (says is None)
    assert note is None or ("quiet" in note and says is not None and says in note)


def test_the_run_of_the_builders_has_two_items_a_sample() -> None:
    assert len(items_of(alpha(WORDS), "alpha")) == 40
