"""`qaeval.testing`, which users' tests build on; our own tests use it too."""

from pathlib import Path

import pytest

import qaeval
from qaeval.errors import DataError, UsageError
from qaeval.testing import ScriptedModel, grade_reply, make_run, pairs_reply, registered


@pytest.mark.slow
def test_a_run_has_the_letters_that_it_was_made_with(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"alpha": ["AAB", "B-C!"], "beta": ["x", "AAA"]})
    letters = run.letters
    by_candidate = {
        name: list(zip(own["status"], own["letter"], strict=True))
        for name, own in letters.groupby("candidate")
    }
    assert by_candidate == {
        "alpha": [*[("graded", letter) for letter in "AABB"], ("ungraded", ""), ("graded", "C")],
        "beta": [*[("failed", "")] * 3, *[("graded", "A")] * 3],
    }
    assert letters["flag hallucination"].sum() == 1
    assert [summary.failed.n for summary in run.report.candidates] == [0, 3]


@pytest.mark.slow
def test_labels_of_raters_are_part_of_the_run(tmp_path: Path) -> None:
    words = ["AAB"] * 12
    run = make_run(tmp_path / "run", {"alpha": words}, labels={"anna": {"alpha": ["ABB", "-AB"] * 6}})
    (agreement,) = run.agreement().agreement
    assert (agreement.rater, agreement.n_labels, agreement.n_not_in_run) == ("anna", 30, 0)
    assert agreement.coefficients is not None
    assert agreement.coefficients.observed.value == pytest.approx(24 / 30)


@pytest.mark.parametrize(
    "letters", [{}, {"alpha": []}, {"alpha": ["AAB"], "beta": ["AAA", "AAA"]}, {"alpha": ["AAD"]}], ids=str
)
def test_letters_that_make_no_run_are_refused(letters: dict[str, list[str]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="letters"):
        make_run(tmp_path / "run", letters)
    assert not (tmp_path / "run" / "settings.json").exists()


@pytest.mark.slow
def test_a_scripted_model_replies_in_order_and_then_fails(tmp_path: Path) -> None:
    pairs = [(kind, f"Why {kind}?", "Because.") for kind in ("factual", "conceptual", "comparison")]
    model = ScriptedModel([pairs_reply(pairs)])
    with registered("mine", model), registered("judge", ScriptedModel(lambda _request: grade_reply("B"))):
        qaeval.generate("mine", n=2, out=tmp_path / "run")
        run = qaeval.grade(tmp_path / "run", judge="judge")
    assert len(model.requests) == 2
    assert sorted(run.letters["letter"]) == ["", "", "", "B", "B", "B"]
    with pytest.raises(UsageError, match="mine"):
        qaeval.generate("mine", n=2, out=tmp_path / "other")


def test_a_registered_model_comes_before_an_entry_of_the_registry(tmp_path: Path) -> None:
    with registered("mistral", ScriptedModel(lambda _request: "no json")):
        run = qaeval.generate("mistral", n=1, out=tmp_path / "run")
    assert (run.path / "generations.jsonl").read_text().count('"invalid_json"') == 1


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path: Path) -> None:
    chunks = tmp_path / "chunks.jsonl"
    chunks.write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        make_run(tmp_path, {"alpha": ["AAB"]})
    with pytest.raises(UsageError, match="not an empty folder"):
        make_run(chunks, {"alpha": ["AAB"]})
    assert [(path, path.read_text()) for path in tmp_path.iterdir()] == [(chunks, "mine")]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"alpha": ["AAB"]}, "expected 2 words, one for each chunk, got 1"),
        ({"alpha": ["AAB"] * 3}, "expected 2 words, one for each chunk, got 3"),
        ({"alpha": ["AAB", "AA"]}, "got 'AA'"),
        ({"gamma": ["AAB", "AAB"]}, "one of the candidates alpha"),
    ],
    ids=str,
)
def test_labels_that_do_not_fit_the_letters_are_refused(
    labels: dict[str, list[str]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"labels of anna for .*{words}"):
        make_run(tmp_path / "run", {"alpha": ["AAB", "ABB"]}, labels={"anna": labels})
    assert not (tmp_path / "run").exists()
