"""Which items to label next, and how many labelled chunks decide."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from qaeval.cli import run as qaeval
from qaeval.errors import UsageError
from qaeval.export import Filters, write_export
from qaeval.export.select import GradedItem, graded_items
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
        return graded_items(store, [])


def label_all(items: Iterable[GradedItem], letter: str = "A") -> tuple[Label, ...]:
    return tuple(
        Label(item_id=item.item.item_id, rater="anna", rater_kind="human", letter=letter) for item in items
    )


def sheet(
    run: Path, out: Path, labels: tuple[Label, ...] = (), *, candidate: str = "", n: int | None = None
) -> list[str]:
    with RunStore.open(run) as store:
        filters = Filters(letters=("A",), candidates=(candidate,) if candidate else ())
        write_export(store, "labels", out, filters=filters, labels=labels, n=n, next_=True)
    return [json.loads(line)["item_id"] for line in (out / "labels.jsonl").read_text().splitlines()]


def chunk_of(item: GradedItem) -> str:
    return item.sample.chunk.chunk_id


def test_of_several_candidates_whole_chunks_are_drawn(
    run: Path, items: list[GradedItem], tmp_path: Path
) -> None:
    drawn = set(sheet(run, tmp_path / "out", n=15))
    chunks = {chunk_of(item) for item in items if item.item.item_id in drawn}
    assert drawn == {item.item.item_id for item in items if chunk_of(item) in chunks}
    assert len(drawn) >= 15
    assert {item.candidate for item in items if item.item.item_id in drawn} == {
        "embedded-lead",
        "embedded-salient",
    }


def test_labelled_chunks_are_not_drawn_again_and_begun_ones_are_finished(
    run: Path, items: list[GradedItem], tmp_path: Path
) -> None:
    first, second, *_ = dict.fromkeys(chunk_of(item) for item in items)
    done = [item for item in items if chunk_of(item) == first]
    begun = [item for item in items if chunk_of(item) == second][:2]
    drawn = set(sheet(run, tmp_path / "out", label_all([*done, *begun])))
    given = {item.item.item_id for item in (*done, *begun)}
    assert not drawn & given
    assert drawn == {item.item.item_id for item in items} - given  # 12 chunks are fewer than decide


def test_labels_of_another_rubric_do_not_count(run: Path, items: list[GradedItem], tmp_path: Path) -> None:
    old = tuple(label.model_copy(update={"rubric": "qa_pair_abc/0"}) for label in label_all(items))
    assert set(sheet(run, tmp_path / "out", old)) == {item.item.item_id for item in items}


def test_of_one_candidate_every_letter_gets_labels_and_the_uncertain_one_most(
    run: Path, items: list[GradedItem], tmp_path: Path
) -> None:
    salient = [item for item in items if item.candidate == "embedded-salient"]
    letters = {item.item.item_id: item.letter for item in salient}
    sizes = Counter(letters.values())
    drawn = Counter(
        letters[item_id] for item_id in sheet(run, tmp_path / "a", candidate="embedded-salient", n=16)
    )
    assert sum(drawn.values()) == 16
    assert all(drawn[letter] >= min(5, size) for letter, size in sizes.items() if size)


def test_nothing_is_left_to_label(run: Path, items: list[GradedItem], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="every item"):
        sheet(run, tmp_path / "out", label_all(items))


def test_the_option_belongs_to_sheets(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert qaeval(["export", str(run), "--to", "csv", "--next", "--out", str(tmp_path / "out")]) == 64
    assert "--next" in capsys.readouterr().err
    assert (
        qaeval(["export", str(run), "--to", "labels", "--next", "--n", "6", "--out", str(tmp_path / "out")])
        == 0
    )


@pytest.mark.slow
def test_a_plan_says_how_many_labelled_chunks_decide(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert qaeval(["plan", str(run), "--difference", "0.3", "--chunks", "60", "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    assert 30 <= pair["n_labelled"] <= 60
    assert pair["correlation"] == 0.0  # labels of 5 chunks tell nothing of it
    assert qaeval(["plan", str(run), "--difference", "0.01", "--chunks", "60", "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    assert pair["n_labelled"] is None
