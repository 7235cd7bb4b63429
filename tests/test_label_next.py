"""Choosing the items to label next, and the number of labelled chunks needed for a decision."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from qaeval.cli import run as qaeval
from qaeval.errors import UsageError
from qaeval.export import Filters, write_export
from qaeval.export.select import GradedItem, GradedItems
from qaeval.records import Label
from qaeval.storage.run_directory import RunStore

EXAMPLE = Path(__file__).parents[1] / "results" / "example"
N_CHUNKS = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("runs") / "run"))


@pytest.fixture(scope="module")
def items(run: Path) -> list[GradedItem]:
    with RunStore.open(run) as store:
        return list(GradedItems(store))


def label_items(items: Iterable[GradedItem], letter: str = "A") -> tuple[Label, ...]:
    return tuple(
        Label(item_id=item.item.item_id, rater="anna", rater_kind="human", letter=letter) for item in items
    )


def export_sheet(
    run: Path, out: Path, labels: tuple[Label, ...] = (), *, candidate: str = "", n: int | None = None
) -> list[str]:
    with RunStore.open(run) as store:
        filters = Filters(letters=("A",), candidates=(candidate,) if candidate else ())
        write_export(store, "labels", out, filters=filters, labels=labels, n=n, next_=True)
    return [json.loads(line)["item_id"] for line in (out / "labels.jsonl").read_text().splitlines()]


def chunk_id_of(item: GradedItem) -> str:
    return item.sample.chunk.chunk_id


def test_whole_chunks_are_drawn_for_several_candidates(
    run: Path, items: list[GradedItem], tmp_path: Path
) -> None:
    drawn_ids = set(export_sheet(run, tmp_path / "out", n=15))
    chunks = {chunk_id_of(item) for item in items if item.item.item_id in drawn_ids}
    assert drawn_ids == {item.item.item_id for item in items if chunk_id_of(item) in chunks}
    assert len(drawn_ids) >= 15
    assert {item.candidate for item in items if item.item.item_id in drawn_ids} == {
        "embedded-lead",
        "embedded-salient",
    }


def test_labelled_chunks_are_not_drawn_again_and_partly_labelled_ones_are_completed(
    run: Path, items: list[GradedItem], tmp_path: Path
) -> None:
    first, second, *_ = dict.fromkeys(chunk_id_of(item) for item in items)
    labelled = [item for item in items if chunk_id_of(item) == first]
    partly_labelled = [item for item in items if chunk_id_of(item) == second][:2]
    drawn_ids = set(export_sheet(run, tmp_path / "out", label_items([*labelled, *partly_labelled])))
    labelled_ids = {item.item.item_id for item in (*labelled, *partly_labelled)}
    assert not drawn_ids & labelled_ids
    assert (
        drawn_ids == {item.item.item_id for item in items} - labelled_ids
    )  # 12 chunks are too few to decide


def test_labels_of_another_rubric_do_not_count(run: Path, items: list[GradedItem], tmp_path: Path) -> None:
    old_labels = tuple(label.model_copy(update={"rubric": "qa_pair_abc/0"}) for label in label_items(items))
    assert set(export_sheet(run, tmp_path / "out", old_labels)) == {item.item.item_id for item in items}


def test_for_one_candidate_every_letter_gets_labels(
    run: Path, items: list[GradedItem], tmp_path: Path
) -> None:
    salient = [item for item in items if item.candidate == "embedded-salient"]
    letters = {item.item.item_id: item.letter for item in salient}
    sizes = Counter(letters.values())
    n_drawn = Counter(
        letters[item_id] for item_id in export_sheet(run, tmp_path / "a", candidate="embedded-salient", n=16)
    )
    assert sum(n_drawn.values()) == 16
    assert all(n_drawn[letter] >= min(5, size) for letter, size in sizes.items() if size)


def test_a_fully_labelled_run_is_refused(run: Path, items: list[GradedItem], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="every item"):
        export_sheet(run, tmp_path / "out", label_items(items))


def test_next_is_only_allowed_for_label_sheets(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert qaeval(["export", str(run), "--to", "csv", "--next", "--out", str(tmp_path / "out")]) == 64
    assert "--next" in capsys.readouterr().err
    assert (
        qaeval(["export", str(run), "--to", "labels", "--next", "--n", "6", "--out", str(tmp_path / "out")])
        == 0
    )


@pytest.mark.slow
def test_a_plan_gives_the_number_of_labelled_chunks_needed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert qaeval(["plan", str(run), "--difference", "0.3", "--chunks", "60", "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    assert 30 <= pair["n_labelled"] <= 60
    assert pair["correlation"] == 0.0  # unknown from labels of 5 chunks
    assert qaeval(["plan", str(run), "--difference", "0.01", "--chunks", "60", "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    assert pair["n_labelled"] is None
