"""Draws of items to label: the stated probabilities are those of the draw, and estimates that weigh with them are unbiased."""

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gate_runs import evidence
from qaeval.agreement.label_files import read_labels
from qaeval.agreement.label_rows import LabelRow, replay
from qaeval.comparison.correction import correct_differences, correct_rates
from qaeval.comparison.differences import compare_candidates
from qaeval.export import write_export
from qaeval.export.draw import draw_items
from qaeval.export.select import GradedItem
from qaeval.export.sheets import SPREADSHEETS
from qaeval.gate.baseline import read_baseline, write_baseline
from qaeval.gate.correction import labelled_estimate
from qaeval.labelling.rater_file import RaterFile
from qaeval.records import Chunk, Item, Label, LabelDraw, Sample
from qaeval.stats.correction import corrected_difference
from qaeval.stats.labelling import draw_chunks, inclusion_probabilities
from qaeval.storage.run_directory import RunStore
from qaeval.testing import make_run
from report_builders import RUBRIC, case
from test_labelled import labels_of

approx = pytest.approx

# ------------------------------------------------------------------------------ the draw


def graded_items(words: Sequence[str], candidates: Sequence[str] = ("alpha", "beta")) -> list[GradedItem]:
    """Make items with the judge's letters: one word per chunk, the same for each candidate."""
    items = []
    for number, word in enumerate(words):
        sample = Sample.of(Chunk(chunk_id=f"c{number:02}", text=f"Text {number}."))
        for name in candidates:
            for position, letter in enumerate(word):
                item = Item.of(
                    sample.sample_id,
                    position,
                    type="fact",
                    question=f"{name} {number} {position}?",
                    answer="x",
                )
                probability = {"A": 0.95, "B": 0.6, "C": 0.8}[letter]
                items.append(GradedItem(sample, name, item, letter, "grade", probability, (), ""))
    return items


ITEMS = graded_items(["AAA", "AAB", "ABC", "CCC", "A", "BC"] * 4)


def label_of(item: GradedItem, letter: str = "A", rater: str = "anna") -> Label:
    return Label(
        item_id=item.item.item_id,
        chunk_id=item.sample.chunk.chunk_id,
        rater=rater,
        rater_kind="human",
        letter=letter,
    )


EARLIER = [label_of(item, "C" if item.letter == "B" else "A", "zoe") for item in ITEMS[::3]]
"""Labels that make B of beta and alpha look uncertain."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"by": "plan", "rater": "anna"},
        {"by": "chunks", "rater": "anna"},
        {"by": "random", "rater": "anna"},
        {"by": "uncertain", "rater": "anna"},
        {"by": "stratified", "rater": "anna"},
        {"by": "disagree", "rater": "anna"},
        {"by": "plan", "drawn_by_others": {label.item_id for label in EARLIER[:8]}, "rater": "anna"},
        {"by": "stratified", "drawn_by_others": {label.item_id for label in EARLIER[:8]}, "rater": "anna"},
    ],
    ids=lambda how: f"{how['by']}-{len(how)}",
)
def test_each_unit_is_drawn_as_often_as_its_probability_says(how: dict[str, Any]) -> None:
    opinions = {item.item.item_id: {"A", "C"} for item in ITEMS[:9]}
    n_draws, counts, stated = 400, Counter[str](), {}
    for seed in range(n_draws):
        drawn = draw_items(ITEMS, EARLIER, n=24, seed=seed, scale="ABC", opinions=opinions, **how)
        units = {
            item.sample.chunk.chunk_id if drawn.unit == "chunk" else item.item.item_id for item in drawn.items
        }
        counts.update(units)
        stated = {unit: drawn.probabilities.get(unit, drawn.probability) for unit in counts}
    assert stated
    for unit, probability in stated.items():
        error = 4.5 * np.sqrt(probability * (1 - probability) / n_draws)
        assert counts[unit] / n_draws == approx(probability, abs=error + 1e-9), unit


def test_units_in_doubt_are_drawn_more_often() -> None:
    drawn = draw_items(ITEMS, EARLIER, by="plan", n=24, seed=0, scale="ABC", rater="anna")
    probability = {unit: drawn.probabilities.get(unit, drawn.probability) for unit in ("c00", "c02", "c04")}
    assert probability["c04"] < probability["c00"]  # one item of each instead of three
    assert len({round(value, 6) for value in drawn.probabilities.values()}) > 1


def test_every_letter_of_every_candidate_gets_labels() -> None:
    drawn = draw_items(ITEMS, [], by="stratified", n=36, seed=0, scale="ABC", rater="anna")
    counts = Counter((item.candidate, item.letter) for item in drawn.items)
    assert min(counts[name, letter] for name in ("alpha", "beta") for letter in "ABC") >= 5


# ------------------------------------------------------------------------------ stored probabilities


def draw_row(items: Sequence[GradedItem], **more: Any) -> LabelDraw:
    facts = {"draw_id": "d", "rater": "anna", "by": "chunks", "n": 6, "seed": 0, "rubric": "abc/1"}
    ids = tuple(item.item.item_id for item in items)
    return LabelDraw(**{**facts, "unit": "chunk", "probability": 0.25, "items": ids, **more})


def test_two_draws_are_taken_together_and_one_that_was_left_early_counts_in_part() -> None:
    first, second = ITEMS[:6], ITEMS[6:12]
    rows = [
        draw_row(first),
        *map(label_of, first),
        draw_row(second, draw_id="e", probability=0.5, probabilities={"c00": 0.8}),
        *map(label_of, second[:3]),  # half of it
    ]
    labels = replay(rows).labels
    chunk_0 = [label.chunk_inclusion for label in labels if label.chunk_id == "c00"]
    chunk_1 = [label.inclusion for label in labels if label.chunk_id == "c01"]
    assert chunk_0 == approx([1 - (1 - 0.25) * (1 - 0.5 * 0.8)] * 6)
    assert chunk_1 == approx([1 - (1 - 0.25) * (1 - 0.5 * 0.5)] * 3)


def test_items_drawn_one_by_one_have_no_probability_of_their_chunk() -> None:
    rows = [draw_row(ITEMS[:2], unit="item", by="random"), *map(label_of, ITEMS[:2])]
    assert [(label.inclusion, label.chunk_inclusion) for label in replay(rows).labels] == [(0.25, None)] * 2


def test_an_item_that_no_draw_could_hold_has_no_known_probability() -> None:
    draw = draw_row(ITEMS[:2], unit="item", by="random", probabilities={ITEMS[2].item.item_id: 0.0})
    assert [label.inclusion for label in replay([draw, *map(label_of, ITEMS[:3])]).labels] == [
        0.25,
        0.25,
        None,
    ]


def test_a_draw_says_nothing_of_labels_by_another_rater() -> None:
    rows = [draw_row(ITEMS[:1]), label_of(ITEMS[0]), label_of(ITEMS[0], rater="bert")]
    assert [label.inclusion for label in replay(rows).labels] == [0.25, None]


def inclusions(labels: Sequence[Label]) -> list[tuple[str, float | None]]:
    return [(label.item_id, label.inclusion) for label in labels]


def test_a_draw_is_not_counted_again_in_a_probability_that_a_label_states() -> None:
    first, second = ITEMS[:2]
    draw = draw_row([first, second], unit="item", by="random")
    stated = label_of(first).model_copy(update={"inclusion": 0.2})
    assert inclusions(replay([draw, stated, label_of(second)]).labels) == [
        (first.item.item_id, approx(0.2)),
        (second.item.item_id, 0.25),
    ]
    elsewhere = draw_row([second], unit="item", by="random")
    assert replay([elsewhere, stated, label_of(second)]).labels[0].inclusion == approx(1 - 0.8 * 0.75)


@pytest.mark.parametrize("rubric", ["", "abc/1", "abc/2"])
def test_a_label_whose_draw_follows_replaces_the_one_that_stated_its_probability(
    tmp_path: Path, rubric: str
) -> None:
    probabilities = {ITEMS[0].item.item_id: 0.2, ITEMS[1].item.item_id: 0.9}
    draw = draw_row(ITEMS[:2], unit="item", by="random", probabilities=probabilities)
    aa, bb = (label_of(item).model_copy(update={"rubric": rubric}) for item in ITEMS[:2])
    (stated,) = replay([draw.model_copy(update={"rubric": rubric or draw.rubric}), aa]).labels
    rows: tuple[LabelRow, ...] = (draw, aa, bb)
    with RaterFile(tmp_path / "labels" / "anna.jsonl") as file:
        for batch in ((stated,), rows, rows, (stated,)):
            for row in file.missing(batch):
                file.append(row)
        read = file.rows.labels
    expected = [(bb.item_id, None), (aa.item_id, stated.inclusion)] if rubric == "abc/2" else []
    assert sorted(inclusions(read)) == sorted(expected or inclusions(replay(rows).labels))
    assert stated.inclusion == approx(0.1)


# ------------------------------------------------------------------------------ estimates

N, SIZE = 60, 2
RNG = np.random.default_rng(7)
HARD = RNG.random(N) < 0.4
"""Chunks in which beta is worse, and which are drawn more often."""
TRUTH = {
    "alpha": ["AA" if RNG.random() < 0.7 else "AC" for _ in range(N)],
    "beta": ["CC" if hard else "AA" for hard in HARD],
}
JUDGED = {name: ["AA" if RNG.random() < 0.5 else word for word in words] for name, words in TRUTH.items()}
SPREADS = np.where(HARD, 1.5, 0.2)
USABLE = {name: np.array([word.count("A") / SIZE for word in words]) for name, words in TRUTH.items()}
DIFFERENCE = float((USABLE["beta"] - USABLE["alpha"]).mean())


def drawn_labels(seed: int, *, with_probabilities: bool = True, n: int = 24) -> tuple[Label, ...]:
    """Label a draw of chunks with unequal probabilities."""
    p = inclusion_probabilities(SPREADS, n)
    run = case(JUDGED, items_per_sample=SIZE)
    chunks = np.flatnonzero(draw_chunks(p, np.random.default_rng(seed))).tolist()
    return tuple(
        label.model_copy(update={"inclusion": p[chunk], "chunk_inclusion": p[chunk]})
        if with_probabilities
        else label
        for chunk in chunks
        for label in labels_of(run, TRUTH, [chunk], chunk_id=f"doc-{chunk:03}")
    )


@cache
def judged() -> tuple[Any, Any]:
    """Return the table of letters, and the pair of candidates by the judge."""
    table = case(JUDGED, items_per_sample=SIZE).data().table()
    return table, compare_candidates(table, candidates=list(TRUTH), best="A", margin=0.05)


def difference(labels: tuple[Label, ...]) -> Any:
    table, pairs = judged()
    (pair,) = correct_differences(pairs, table, labels, rubric=RUBRIC, margin=0.05, judge_tuned=False)
    return pair.labelled[0]


@pytest.mark.slow
def test_an_unequal_draw_gives_the_unbiased_difference_and_its_interval_covers() -> None:
    n_draws = 60
    weighted = [difference(drawn_labels(seed)) for seed in range(n_draws)]
    plain = [difference(drawn_labels(seed, with_probabilities=False)) for seed in range(20)]
    for name in ("difference", "labels"):
        values = np.array([getattr(one, name).value for one in weighted])
        error = values.std(ddof=1) / np.sqrt(n_draws)
        assert values.mean() == approx(DIFFERENCE, abs=3 * error + 0.005)
    # unweighted, the chunks that are drawn more often would count more
    assert np.mean([one.labels.value for one in plain]) < DIFFERENCE - 0.1
    covered = [one.difference.low <= DIFFERENCE <= one.difference.high for one in weighted]
    assert np.mean(covered) >= 0.93


def test_a_report_weighs_each_chunk_with_its_probability() -> None:
    labels = drawn_labels(1)
    values = {label.chunk_id: 1 / label.inclusion for label in labels if label.inclusion}
    numbers = np.array([int(chunk.removeprefix("doc-")) for chunk in values])
    weights = np.array(list(values.values()))
    own = (USABLE["beta"] - USABLE["alpha"])[numbers]
    assert difference(labels).labels.value == approx(float((weights * own).sum() / weights.sum()))


@pytest.mark.slow
def test_rates_weigh_too() -> None:
    run = case(JUDGED, items_per_sample=SIZE)
    labels = drawn_labels(2)
    (rate,) = [
        rate
        for rate in correct_rates(
            run.data().table(), labels, candidates=list(TRUTH), rubric=run.rubric, judge_tuned=False
        )
        if (rate.candidate, rate.name) == ("beta", "usable")
    ]
    beta = [label for label in labels if label.item_id in {item.item_id for item in run_items(run, "beta")}]
    weights = np.array([1 / (label.inclusion or 1) for label in beta])
    hits = np.array([label.letter == "A" for label in beta])
    assert rate.labels.value == approx(float((weights * hits).sum() / weights.sum()))


def run_items(run: Any, name: str) -> list[Item]:
    return [item for row in run.rows.generations if row.candidate == name for item in row.items]


@pytest.mark.slow
def test_a_gate_weighs_with_the_stored_probabilities_and_so_does_its_baseline_file(tmp_path: Path) -> None:
    labels = drawn_labels(3)
    weighted, plain = (
        evidence(JUDGED, labels=own) for own in (labels, drawn_labels(3, with_probabilities=False))
    )
    (candidate,) = [own for own in weighted.candidates if own.name == "beta"]
    estimates = []
    for run in (weighted, plain):
        estimate = labelled_estimate([(run, candidate)], None)
        assert estimate is not None
        assert estimate.deciding is not None
        estimates.append(estimate.deciding(0.95).value)
    assert estimates[0] == approx(float(USABLE["beta"].mean()), abs=0.08)
    assert estimates[0] > estimates[1] + 0.05
    path = tmp_path / "baseline.json"
    write_baseline(weighted, path)
    read = read_baseline(path)
    assert read.labels[0].inclusion == approx(dict(weighted.labels[0].inclusion))
    assert read.labels[0].is_by_chunk


@pytest.mark.slow
def test_a_change_is_paired_with_the_probability_that_both_sides_are_labelled() -> None:
    before = evidence({"alpha": JUDGED["beta"]}, name="main", labels=alpha_labels(4))
    today = evidence({"alpha": JUDGED["beta"]}, labels=alpha_labels(4))
    sides = [(today, today.candidates[0]), (before, before.candidates[0])]
    estimate = labelled_estimate(sides, None)
    assert estimate is not None
    assert estimate.deciding is not None
    assert estimate.deciding(0.95).value == approx(0.0)  # the same items with the same labels


def alpha_labels(seed: int) -> tuple[Label, ...]:
    p = inclusion_probabilities(SPREADS, 24)
    chunks = np.flatnonzero(draw_chunks(p, np.random.default_rng(seed))).tolist()
    run = case({"alpha": JUDGED["beta"]}, items_per_sample=SIZE)
    return tuple(
        label.model_copy(update={"inclusion": p[chunk], "chunk_inclusion": p[chunk]})
        for chunk in chunks
        for label in labels_of(run, {"alpha": TRUTH["beta"]}, [chunk])
    )


# ------------------------------------------------------------------------------ sheets


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    letters = {"alpha": ["AAA", "AB!C"] * 6, "beta": ["ABB", "x"] * 6}
    return make_run(tmp_path_factory.mktemp("runs") / "run", letters).path


def sheet(run: Path, out: Path, **options: Any) -> Path:
    with RunStore.open(run) as store:
        write_export(store, "labels", out, **options)
    return out


@pytest.mark.parametrize("spreadsheet", ["", "en", "de"])
@pytest.mark.parametrize("first_line", [False, True])
def test_a_sheet_is_read_back_in_every_language_with_its_probabilities(
    run: Path, tmp_path: Path, spreadsheet: str, first_line: bool
) -> None:
    out = sheet(run, tmp_path / "out", n=12, seed=3, spreadsheet=spreadsheet)
    raw = (out / "labels.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf") == bool(spreadsheet)
    text = raw.decode("utf-8-sig")
    separator = SPREADSHEETS.get(spreadsheet, ",")
    head, *rows = text.splitlines()
    assert head.split(separator)[:4] == ["item_id", "label", "flag hallucination", "note"]
    assert "A = suitable as is; B = usable with a minor issue; C = not usable" in text
    filled = [row.replace(separator * 3, f"{separator}B{separator}x{separator}", 1) for row in rows]
    named = f"sep={separator}\n" if first_line else ""
    path = out / "anna.csv"
    path.write_text(named + "\n".join([head, *filled]), encoding="utf-8-sig" if spreadsheet else "utf-8")
    labels = read_labels(path)
    assert [(label.letter, label.flags, label.rater) for label in labels] == [
        ("B", ("hallucination",), "anna")
    ] * 12
    draw = json.loads((out / "draw.json").read_text())
    assert {label.item_id: label.inclusion for label in labels} == {
        label.item_id: approx(draw["probabilities"].get(label.item_id, draw["probability"]))
        for label in labels
    }


def test_the_next_sheet_draws_by_the_plan_and_stores_its_draw(run: Path, tmp_path: Path) -> None:
    out = sheet(run, tmp_path / "out", n=12, next_=True)
    draw = LabelDraw.model_validate_json((out / "draw.json").read_text())
    rows = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    assert (draw.unit, draw.by, draw.items) == ("chunk", "plan", tuple(row["item_id"] for row in rows))
    path = out / "anna.jsonl"
    path.write_text("".join(json.dumps({**row, "label": "A"}) + "\n" for row in rows))
    labels = read_labels(path)
    assert len(labels) == len(rows) > 0
    for label in labels:
        assert label.chunk_inclusion == approx(draw.probability_of(label.chunk_id))


def test_a_sheet_without_its_draw_is_read_without_probabilities(run: Path, tmp_path: Path) -> None:
    out = sheet(run, tmp_path / "out", n=3)
    (out / "draw.json").unlink()
    path = out / "anna.jsonl"
    rows = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "label": "A"}) + "\n" for row in rows))
    assert [label.inclusion for label in read_labels(path)] == [None] * 3


def test_the_probabilities_are_of_the_sheet_that_is_filled_in(run: Path, tmp_path: Path) -> None:
    out = sheet(run, tmp_path / "out", n=3)
    other = Label(item_id="0" * 16, rater="anna", rater_kind="human", letter="A", rubric="qa_pair_abc/2")
    (out / "other.jsonl").write_text(other.model_dump_json() + "\n")
    assert [label.inclusion for label in read_labels(out / "other.jsonl")] == [None]


# ------------------------------------------------------------------------------ several draws


def beta_minus_alpha(values: Sequence[float]) -> np.ndarray:
    """Return the difference of usable rates by chunk, of a value for each of `ITEMS`."""
    chunks = np.array([int(item.sample.chunk.chunk_id[1:]) for item in ITEMS])
    sign = np.array([1 if item.candidate == "beta" else -1 for item in ITEMS])
    return np.asarray(np.bincount(chunks, np.array(values) * sign) / np.bincount(chunks) * 2)


TRUE_LETTERS = {
    item.item.item_id: "A" if letter == "A" else "C"
    for item, letter in zip(
        ITEMS, np.random.default_rng(3).permutation([item.letter for item in ITEMS]), strict=True
    )
}
TRUE_BY_CHUNK = beta_minus_alpha([TRUE_LETTERS[item.item.item_id] == "A" for item in ITEMS])


def sit(rows: list[Any], given: Sequence[Label], seed: int, **how: Any) -> list[Any]:
    """Draw, label everything by the true letters, and return all rows of the file."""
    drawn = draw_items(
        ITEMS, given, seed=seed, scale="ABC", **{"rater": "anna", "by": "plan", "n": 40, **how}
    )
    facts = {name: getattr(drawn, name) for name in ("unit", "probability", "probabilities")}
    row = draw_row(drawn.items, draw_id=f"draw {len(rows)}", rater=how.get("rater", "anna"), **facts)
    labels = [label_of(item, TRUE_LETTERS[item.item.item_id], row.rater) for item in drawn.items]
    return [*rows, row, *labels]


@pytest.mark.slow
@pytest.mark.parametrize("is_second_rater", [False, True])
def test_further_draws_that_go_by_earlier_labels_are_unbiased_too(is_second_rater: bool) -> None:
    values, covered, n_draws = [], [], 150
    judged = beta_minus_alpha([item.letter == "A" for item in ITEMS])
    for seed in range(n_draws):
        first = sit([], [], seed, by="chunks")
        given = replay(first).labels
        held = {label.item_id for label in given}
        rows = (
            sit([], given, seed + 1000, rater="bert", n=80, drawn_by_others=held)
            if is_second_rater
            else sit(first, given, seed + 1000)
        )
        probability = {int(label.chunk_id[1:]): label.chunk_inclusion or 0 for label in replay(rows).labels}
        chosen = sorted(probability)
        labelled, inclusion = np.full(len(judged), np.nan), np.ones(len(judged))
        labelled[chosen], inclusion[chosen] = TRUE_BY_CHUNK[chosen], [probability[chunk] for chunk in chosen]
        estimate = corrected_difference(judged, labelled, inclusion=inclusion).estimate
        values.append(estimate.value)
        covered.append(estimate.low <= TRUE_BY_CHUNK.mean() <= estimate.high)
    error = np.std(values, ddof=1) / np.sqrt(n_draws)
    assert np.mean(values) == approx(TRUE_BY_CHUNK.mean(), abs=3 * error + 0.005)
    assert np.mean(covered) >= 0.93
