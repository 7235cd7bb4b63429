"""Draws of items to label: stated inclusion probabilities are correct, and weighted estimates are unbiased."""

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
from qaeval.agreement.label_rows import LabelRow, replay, uneven_inclusion
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


def graded_items(
    letters_by_chunk: Sequence[str], candidates: Sequence[str] = ("alpha", "beta")
) -> list[GradedItem]:
    """Make items with the judge's letters: one word per chunk, the same for each candidate."""
    items = []
    for number, chunk_letters in enumerate(letters_by_chunk):
        sample = Sample.of(Chunk(chunk_id=f"c{number:02}", text=f"Text {number}."))
        for name in candidates:
            for position, letter in enumerate(chunk_letters):
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
"""Labels that make the letter B uncertain."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
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
    ids=lambda options: f"{options['by']}-{len(options)}",
)
def test_draw_frequency_matches_the_stated_probability(options: dict[str, Any]) -> None:
    opinions = {item.item.item_id: {"A", "C"} for item in ITEMS[:9]}
    n_draws, counts, stated = 400, Counter[str](), {}
    for seed in range(n_draws):
        drawn = draw_items(ITEMS, EARLIER, n=24, seed=seed, scale="ABC", opinions=opinions, **options)
        units = {
            item.sample.chunk.chunk_id if drawn.unit == "chunk" else item.item.item_id for item in drawn.items
        }
        counts.update(units)
        stated = {unit: drawn.probabilities.get(unit, drawn.probability) for unit in counts}
    assert stated
    for unit, probability in stated.items():
        error = 4.5 * np.sqrt(probability * (1 - probability) / n_draws)
        assert counts[unit] / n_draws == approx(probability, abs=error + 1e-9), unit


def test_uncertain_units_are_drawn_more_often() -> None:
    drawn = draw_items(ITEMS, EARLIER, by="plan", n=24, seed=0, scale="ABC", rater="anna")
    probability = {unit: drawn.probabilities.get(unit, drawn.probability) for unit in ("c00", "c02", "c04")}
    assert probability["c04"] < probability["c00"]  # one item of each instead of three
    assert len({round(value, 6) for value in drawn.probabilities.values()}) > 1


def test_stratified_draw_covers_every_letter_of_every_candidate() -> None:
    drawn = draw_items(ITEMS, [], by="stratified", n=36, seed=0, scale="ABC", rater="anna")
    counts = Counter((item.candidate, item.letter) for item in drawn.items)
    assert min(counts[name, letter] for name in ("alpha", "beta") for letter in "ABC") >= 5


# ------------------------------------------------------------------------------ stored probabilities


def draw_row(items: Sequence[GradedItem], **fields: Any) -> LabelDraw:
    defaults = {"draw_id": "d", "rater": "anna", "by": "chunks", "n": 6, "seed": 0, "rubric": "abc/1"}
    ids = tuple(item.item.item_id for item in items)
    return LabelDraw(**{**defaults, "unit": "chunk", "probability": 0.25, "items": ids, **fields})


def test_inclusion_combines_draws_and_counts_incomplete_ones_in_part() -> None:
    first, second = ITEMS[:6], ITEMS[6:12]
    rows = [
        draw_row(first),
        *map(label_of, first),
        draw_row(second, draw_id="e", probability=0.5, probabilities={"c00": 0.8}),
        *map(label_of, second[:3]),  # half of the draw
    ]
    labels = replay(rows).labels
    chunk_0 = [label.chunk_inclusion for label in labels if label.chunk_id == "c00"]
    chunk_1 = [label.inclusion for label in labels if label.chunk_id == "c01"]
    assert chunk_0 == approx([1 - (1 - 0.25) * (1 - 0.5 * 0.8)] * 6)
    assert chunk_1 == approx([1 - (1 - 0.25) * (1 - 0.5 * 0.5)] * 3)


def test_agreement_weighs_an_item_by_all_draws_that_could_hold_it() -> None:
    """A tenth of the chunks was drawn, and later one item by itself: its probability is that of either draw."""
    labels = [
        Label(
            item_id=item, rater="anna", rater_kind="human", letter="A", inclusion=of_item, chunk_inclusion=0.1
        )
        for item, of_item in (("a", 0.1), ("b", 0.46))
    ]
    assert uneven_inclusion(labels) == pytest.approx([0.1, 0.46])
    assert uneven_inclusion(labels[:1] * 2) is None


def test_individually_drawn_items_have_no_chunk_inclusion() -> None:
    rows = [draw_row(ITEMS[:2], unit="item", by="random"), *map(label_of, ITEMS[:2])]
    assert [(label.inclusion, label.chunk_inclusion) for label in replay(rows).labels] == [(0.25, None)] * 2


def test_item_outside_every_draw_has_no_inclusion() -> None:
    draw = draw_row(ITEMS[:2], unit="item", by="random", probabilities={ITEMS[2].item.item_id: 0.0})
    assert [label.inclusion for label in replay([draw, *map(label_of, ITEMS[:3])]).labels] == [
        0.25,
        0.25,
        None,
    ]


def test_draw_does_not_apply_to_labels_of_another_rater() -> None:
    rows = [draw_row(ITEMS[:1]), label_of(ITEMS[0]), label_of(ITEMS[0], rater="bert")]
    assert [label.inclusion for label in replay(rows).labels] == [0.25, None]


def test_a_draw_under_another_rubric_leaves_the_next_draw_counted() -> None:
    rows = [
        draw_row(ITEMS[:2], unit="item", by="random", rubric="other/1"),
        draw_row(ITEMS[:2], draw_id="e", unit="item", by="random", probability=0.5),
        *(label_of(item).model_copy(update={"rubric": "abc/1"}) for item in ITEMS[:2]),
    ]
    assert [label.inclusion for label in replay(rows).labels] == [0.5, 0.5]


def inclusions(labels: Sequence[Label]) -> list[tuple[str, float | None]]:
    return [(label.item_id, label.inclusion) for label in labels]


def test_draw_is_not_counted_twice_in_a_stated_probability() -> None:
    first, second = ITEMS[:2]
    draw = draw_row([first, second], unit="item", by="random")
    stated = label_of(first).model_copy(update={"inclusion": 0.2})
    assert inclusions(replay([draw, stated, label_of(second)]).labels) == [
        (first.item.item_id, approx(0.2)),
        (second.item.item_id, 0.25),
    ]
    other_draw = draw_row([second], unit="item", by="random")
    assert replay([other_draw, stated, label_of(second)]).labels[0].inclusion == approx(1 - 0.8 * 0.75)


@pytest.mark.parametrize("rubric", ["", "abc/1", "abc/2"])
def test_label_with_its_draw_replaces_the_label_with_a_stated_probability(
    tmp_path: Path, rubric: str
) -> None:
    probabilities = {ITEMS[0].item.item_id: 0.2, ITEMS[1].item.item_id: 0.9}
    draw = draw_row(ITEMS[:2], unit="item", by="random", probabilities=probabilities)
    first, second = (label_of(item).model_copy(update={"rubric": rubric}) for item in ITEMS[:2])
    (stated,) = replay([draw.model_copy(update={"rubric": rubric or draw.rubric}), first]).labels
    rows: tuple[LabelRow, ...] = (draw, first, second)
    with RaterFile(tmp_path / "labels" / "anna.jsonl") as file:
        for batch in ((stated,), rows, rows, (stated,)):
            for row in file.missing(batch):
                file.append(row)
        read_back = file.rows.labels
    expected = [(second.item_id, None), (first.item_id, stated.inclusion)] if rubric == "abc/2" else []
    assert sorted(inclusions(read_back)) == sorted(expected or inclusions(replay(rows).labels))
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
    probabilities = inclusion_probabilities(SPREADS, n)
    run = case(JUDGED, items_per_sample=SIZE)
    chunks = np.flatnonzero(draw_chunks(probabilities, np.random.default_rng(seed))).tolist()
    return tuple(
        label.model_copy(update={"inclusion": probabilities[chunk], "chunk_inclusion": probabilities[chunk]})
        if with_probabilities
        else label
        for chunk in chunks
        for label in labels_of(run, TRUTH, [chunk], chunk_id=f"doc-{chunk:03}")
    )


@cache
def judged_pairs() -> tuple[Any, Any]:
    """Return the table of letters, and the pair of candidates by the judge."""
    table = case(JUDGED, items_per_sample=SIZE).data().table()
    return table, compare_candidates(table, candidates=list(TRUTH), best="A", margin=0.05)


def labelled_difference(labels: tuple[Label, ...]) -> Any:
    table, pairs = judged_pairs()
    (pair,) = correct_differences(pairs, table, labels, rubric=RUBRIC, margin=0.05, judge_tuned=False)
    return pair.labelled[0]


@pytest.mark.slow
def test_unequal_draw_gives_an_unbiased_difference_with_coverage() -> None:
    n_draws = 60
    weighted = [labelled_difference(drawn_labels(seed)) for seed in range(n_draws)]
    unweighted = [labelled_difference(drawn_labels(seed, with_probabilities=False)) for seed in range(20)]
    for name in ("difference", "labels"):
        values = np.array([getattr(estimate, name).value for estimate in weighted])
        error = values.std(ddof=1) / np.sqrt(n_draws)
        assert values.mean() == approx(DIFFERENCE, abs=3 * error + 0.005)
    # unweighted, the chunks that are drawn more often would count more
    assert np.mean([estimate.labels.value for estimate in unweighted]) < DIFFERENCE - 0.1
    covered = [estimate.difference.low <= DIFFERENCE <= estimate.difference.high for estimate in weighted]
    assert np.mean(covered) >= 0.93


def test_report_weights_chunks_by_inverse_probability() -> None:
    labels = drawn_labels(1)
    weight_by_chunk = {label.chunk_id: 1 / label.inclusion for label in labels if label.inclusion}
    indices = np.array([int(chunk.removeprefix("doc-")) for chunk in weight_by_chunk])
    weights = np.array(list(weight_by_chunk.values()))
    chunk_differences = (USABLE["beta"] - USABLE["alpha"])[indices]
    assert labelled_difference(labels).labels.value == approx(
        float((weights * chunk_differences).sum() / weights.sum())
    )


@pytest.mark.slow
def test_rates_are_weighted_by_inverse_probability() -> None:
    run = case(JUDGED, items_per_sample=SIZE)
    labels = drawn_labels(2)
    (rate,) = [
        rate
        for rate in correct_rates(
            run.data().table(), labels, candidates=list(TRUTH), rubric=run.rubric, judge_tuned=False
        )
        if (rate.candidate, rate.name) == ("beta", "usable")
    ]
    beta = [
        label
        for label in labels
        if label.item_id in {item.item_id for item in items_of_candidate(run, "beta")}
    ]
    weights = np.array([1 / (label.inclusion or 1) for label in beta])
    hits = np.array([label.letter == "A" for label in beta])
    assert rate.labels.value == approx(float((weights * hits).sum() / weights.sum()))


def items_of_candidate(run: Any, name: str) -> list[Item]:
    return [item for row in run.rows.generations if row.candidate == name for item in row.items]


@pytest.mark.slow
def test_gate_and_baseline_file_use_stored_probabilities(tmp_path: Path) -> None:
    labels = drawn_labels(3)
    weighted, unweighted = (
        evidence(JUDGED, labels=labels_of_side)
        for labels_of_side in (labels, drawn_labels(3, with_probabilities=False))
    )
    (candidate,) = [side_candidate for side_candidate in weighted.candidates if side_candidate.name == "beta"]
    estimates = []
    for run in (weighted, unweighted):
        estimate = labelled_estimate([(run, candidate)], None)
        assert estimate is not None
        assert estimate.deciding is not None
        estimates.append(estimate.deciding(0.95).value)
    assert estimates[0] == approx(float(USABLE["beta"].mean()), abs=0.08)
    assert estimates[0] > estimates[1] + 0.05
    path = tmp_path / "baseline.json"
    write_baseline(weighted, path)
    baseline = read_baseline(path)
    assert baseline.labels[0].inclusion == approx(dict(weighted.labels[0].inclusion))
    assert baseline.labels[0].is_by_chunk


@pytest.mark.slow
def test_paired_change_of_equally_labelled_sides_is_zero() -> None:
    base = evidence({"alpha": JUDGED["beta"]}, name="main", labels=alpha_labels(4))
    current = evidence({"alpha": JUDGED["beta"]}, labels=alpha_labels(4))
    sides = [(current, current.candidates[0]), (base, base.candidates[0])]
    estimate = labelled_estimate(sides, None)
    assert estimate is not None
    assert estimate.deciding is not None
    assert estimate.deciding(0.95).value == approx(0.0)  # the same items with the same labels


def alpha_labels(seed: int) -> tuple[Label, ...]:
    probabilities = inclusion_probabilities(SPREADS, 24)
    chunks = np.flatnonzero(draw_chunks(probabilities, np.random.default_rng(seed))).tolist()
    run = case({"alpha": JUDGED["beta"]}, items_per_sample=SIZE)
    return tuple(
        label.model_copy(update={"inclusion": probabilities[chunk], "chunk_inclusion": probabilities[chunk]})
        for chunk in chunks
        for label in labels_of(run, {"alpha": TRUTH["beta"]}, [chunk])
    )


# ------------------------------------------------------------------------------ sheets


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    letters = {"alpha": ["AAA", "AB!C"] * 6, "beta": ["ABB", "x"] * 6}
    return make_run(tmp_path_factory.mktemp("runs") / "run", letters).path


def write_sheet(run: Path, out: Path, **options: Any) -> Path:
    with RunStore.open(run) as store:
        write_export(store, "labels", out, **options)
    return out


@pytest.mark.parametrize("spreadsheet", ["", "en", "de"])
@pytest.mark.parametrize("first_line", [False, True])
def test_sheet_round_trips_with_probabilities_in_every_spreadsheet_format(
    run: Path, tmp_path: Path, spreadsheet: str, first_line: bool
) -> None:
    out = write_sheet(run, tmp_path / "out", n=12, seed=3, spreadsheet=spreadsheet)
    raw = (out / "labels.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf") == bool(spreadsheet)
    text = raw.decode("utf-8-sig")
    separator = SPREADSHEETS.get(spreadsheet, ",")
    head, *rows = text.splitlines()
    assert head.split(separator)[:4] == ["item_id", "label", "flag hallucination", "note"]
    assert "A = suitable as is; B = usable with a minor issue; C = not usable" in text
    filled = [row.replace(separator * 3, f"{separator}B{separator}x{separator}", 1) for row in rows]
    separator_line = f"sep={separator}\n" if first_line else ""
    path = out / "anna.csv"
    path.write_text(
        separator_line + "\n".join([head, *filled]), encoding="utf-8-sig" if spreadsheet else "utf-8"
    )
    labels = read_labels(path)
    assert [(label.letter, label.flags, label.rater) for label in labels] == [
        ("B", ("hallucination",), "anna")
    ] * 12
    draw = json.loads((out / "draw.json").read_text())
    assert {label.item_id: label.inclusion for label in labels} == {
        label.item_id: approx(draw["probabilities"].get(label.item_id, draw["probability"]))
        for label in labels
    }


def test_next_sheet_draws_by_plan_and_stores_the_draw(run: Path, tmp_path: Path) -> None:
    out = write_sheet(run, tmp_path / "out", n=12, next_=True)
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
    out = write_sheet(run, tmp_path / "out", n=3)
    (out / "draw.json").unlink()
    path = out / "anna.jsonl"
    rows = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "label": "A"}) + "\n" for row in rows))
    assert [label.inclusion for label in read_labels(path)] == [None] * 3


def test_probabilities_apply_only_to_labels_of_the_sheet(run: Path, tmp_path: Path) -> None:
    out = write_sheet(run, tmp_path / "out", n=3)
    other = Label(item_id="0" * 16, rater="anna", rater_kind="human", letter="A", rubric="qa_pair_abc/2")
    (out / "other.jsonl").write_text(other.model_dump_json() + "\n")
    assert [label.inclusion for label in read_labels(out / "other.jsonl")] == [None]


# ------------------------------------------------------------------------------ several draws


def beta_minus_alpha(values: Sequence[float]) -> np.ndarray:
    """Return the difference of usable rates by chunk, from a value for each of `ITEMS`."""
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


def add_sitting(rows: list[Any], labels: Sequence[Label], seed: int, **options: Any) -> list[Any]:
    """Draw items, label them with the true letters, and return all rows of the file."""
    drawn = draw_items(
        ITEMS, labels, seed=seed, scale="ABC", **{"rater": "anna", "by": "plan", "n": 40, **options}
    )
    fields = {name: getattr(drawn, name) for name in ("unit", "probability", "probabilities")}
    row = draw_row(drawn.items, draw_id=f"draw {len(rows)}", rater=options.get("rater", "anna"), **fields)
    new_labels = [label_of(item, TRUE_LETTERS[item.item.item_id], row.rater) for item in drawn.items]
    return [*rows, row, *new_labels]


@pytest.mark.slow
@pytest.mark.parametrize("is_second_rater", [False, True])
def test_adaptive_further_draws_are_unbiased(is_second_rater: bool) -> None:
    values, covered, n_draws = [], [], 150
    judge_differences = beta_minus_alpha([item.letter == "A" for item in ITEMS])
    for seed in range(n_draws):
        first = add_sitting([], [], seed, by="chunks")
        earlier_labels = replay(first).labels
        drawn_ids = {label.item_id for label in earlier_labels}
        rows = (
            add_sitting([], earlier_labels, seed + 1000, rater="bert", n=80, drawn_by_others=drawn_ids)
            if is_second_rater
            else add_sitting(first, earlier_labels, seed + 1000)
        )
        inclusion_by_chunk = {
            int(label.chunk_id[1:]): label.chunk_inclusion or 0 for label in replay(rows).labels
        }
        chosen = sorted(inclusion_by_chunk)
        labelled, inclusion = np.full(len(judge_differences), np.nan), np.ones(len(judge_differences))
        labelled[chosen], inclusion[chosen] = (
            TRUE_BY_CHUNK[chosen],
            [inclusion_by_chunk[chunk] for chunk in chosen],
        )
        estimate = corrected_difference(judge_differences, labelled, inclusion=inclusion).estimate
        values.append(estimate.value)
        covered.append(estimate.low <= TRUE_BY_CHUNK.mean() <= estimate.high)
    error = np.std(values, ddof=1) / np.sqrt(n_draws)
    assert np.mean(values) == approx(TRUE_BY_CHUNK.mean(), abs=3 * error + 0.005)
    assert np.mean(covered) >= 0.93
