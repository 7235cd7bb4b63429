"""The Python API: in scripts, threads and running event loops, and what it must not do."""

import asyncio
import inspect
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

import qaeval
from qaeval import api
from qaeval.errors import DataError, Interrupted, NotComparableError, StoreError, UsageError
from replay.server import LoopbackServer

FLOOR = ["embedded-lead", "embedded-salient"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> qaeval.Run:
    return qaeval.compare(FLOOR, n=12, out=tmp_path_factory.mktemp("api") / "run")


def test_the_package_exports_the_api_and_nothing_else() -> None:
    assert set(qaeval.__all__) == {*api.__all__, "__version__"}
    assert all(getattr(qaeval, name) is getattr(api, name) for name in api.__all__)


@pytest.mark.parametrize("name", ["compare", "generate", "grade", "load_run", "agreement", "gate"])
def test_every_function_has_an_async_twin_with_the_same_arguments(name: str) -> None:
    function, twin = getattr(qaeval, name), getattr(qaeval, f"a{name}")
    assert inspect.iscoroutinefunction(twin)
    assert inspect.signature(function) == inspect.signature(twin)
    assert {"Args:", "Raises:"} <= {line.strip() for line in (function.__doc__ or "").splitlines()}


def test_importing_the_package_and_its_help_loads_no_library_of_numbers() -> None:
    script = (
        "import sys, qaeval, qaeval.cli; print(*{'numpy', 'pandas', 'scipy', 'pydantic'} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        == "\n"
    )


@pytest.mark.slow
def test_a_folder_of_the_same_name_does_not_replace_a_function() -> None:
    script = "import qaeval.gate.model, qaeval.agreement.model, qaeval; print(callable(qaeval.gate), callable(qaeval.agreement))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"


def test_compare_returns_a_reported_run_with_its_letters(run: qaeval.Run) -> None:
    assert (run.path / "manifest.json").is_file()
    assert [summary.facts.name for summary in run.report.candidates] == FLOOR
    letters = run.letters
    assert list(letters.columns[:11]) == [
        *("candidate", "sample_id", "chunk_id", "stratum", "type", "position", "item_id"),
        *("status", "letter", "probability", "failure"),
    ]
    assert len(letters) == 2 * 12 * 3
    counted = letters.groupby("candidate")["letter"].value_counts()
    for summary in run.report.candidates:
        assert {count.name: count.n for count in summary.letters if count.n} == dict(
            counted[summary.facts.name]
        )


def test_items_are_the_texts_of_the_letters_row_for_row(run: qaeval.Run) -> None:
    keys = ["candidate", "sample_id", "position", "item_id", "letter"]
    pd.testing.assert_frame_equal(run.items[keys], run.letters[keys])
    assert (
        run.items.loc[run.items["status"] == "graded", ["question", "answer", "reason"]].ne("").all(axis=None)
    )


@pytest.mark.slow
def test_labels_are_columns_of_the_letters(run: qaeval.Run, tmp_path: Path) -> None:
    graded = run.letters[run.letters["status"] == "graded"].drop_duplicates("item_id").head(5)
    rows = "".join(f"{item},B\n" for item in graded["item_id"])
    (tmp_path / "anna.csv").write_text(f"item_id,label\n{rows}")
    loaded = qaeval.load_run(run.path, labels="anna.csv")
    assert (loaded.letters["label anna"] == "B").sum() >= 5
    (agreement,) = loaded.agreement().agreement
    assert (agreement.rater, agreement.n_labels, agreement.n_not_in_run) == ("anna", 5, 0)
    assert qaeval.agreement(run, "anna.csv") == qaeval.agreement(run.path, labels="anna.csv")


def test_a_run_is_shown_in_a_notebook_with_everything_escaped(run: qaeval.Run) -> None:
    shown = run._repr_html_()
    assert "embedded-salient" in shown
    assert "<table>" in shown
    assert run.to_html().startswith("<!DOCTYPE html>")
    hostile = qaeval.Run([Path("<script>alert(1)</script>")], run._options)
    assert "<script>" not in hostile._repr_html_()


@pytest.mark.slow
def test_one_model_alone_is_evaluated() -> None:
    alone = qaeval.compare("embedded-lead", n=10)
    assert len(alone.report.candidates) == 1
    assert alone.report.differences == ()
    assert alone.path.parent == Path("results")


@pytest.mark.slow
def test_the_stages_one_by_one_give_the_letters_of_compare(run: qaeval.Run) -> None:
    generated = qaeval.generate(FLOOR, n=12, out="stages")
    with pytest.raises(DataError, match="not graded yet"):
        _ = generated.report
    graded = qaeval.grade(generated)
    pd.testing.assert_frame_equal(graded.letters, run.letters)
    assert graded.write_report() == Path("stages")
    assert (Path("stages") / "report.html").is_file()


@pytest.mark.slow
def test_the_blocking_form_works_inside_a_running_event_loop() -> None:
    async def cell() -> qaeval.Run:
        return qaeval.compare(FLOOR, n=4)

    assert len(asyncio.run(cell()).letters) == 2 * 4 * 3


@pytest.mark.slow
def test_the_async_form_leaves_the_event_loop_free() -> None:
    async def main() -> int:
        ticks = 0
        task = asyncio.ensure_future(qaeval.acompare(FLOOR, n=4))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0.01)
        await task
        return ticks

    assert asyncio.run(main()) > 3


@pytest.mark.slow
def test_it_works_in_a_thread() -> None:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(qaeval.compare(FLOOR, n=4)))
    thread.start()
    thread.join()
    assert isinstance(results[0], qaeval.Run)


@pytest.mark.slow
def test_it_prints_nothing_and_logs_nothing_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    handlers = logging.getLogger("qaeval").handlers
    assert [type(handler) for handler in handlers] == [logging.NullHandler]
    qaeval.compare(FLOOR, n=4)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_progress_counts_every_task_of_both_stages() -> None:
    events: list[qaeval.ProgressEvent] = []
    qaeval.compare(FLOOR, n=4, progress=events.append)
    assert {(event.stage, event.model) for event in events} == {
        ("generate", "embedded-lead"),
        ("generate", "embedded-salient"),
        ("grade", "embedded-lexical"),
    }
    last = events[-1]
    assert (last.stage, last.done, last.failed) == ("grade", last.total, 0)


def test_a_run_that_another_call_writes_is_refused_and_left_alone(run: qaeval.Run) -> None:
    from qaeval.storage.run_directory import RunStore  # noqa: PLC0415 - one use

    with RunStore.open(run.path, writable=True), pytest.raises(StoreError, match="another"):
        qaeval.grade(run)


@pytest.mark.slow
def test_a_second_call_on_one_directory_needs_resume(run: qaeval.Run) -> None:
    before = (run.path / "grades.jsonl").read_bytes()
    with pytest.raises(UsageError, match="already holds a run"):
        qaeval.compare(FLOOR, n=12, out=run.path)
    again = qaeval.compare(FLOOR, n=12, out=run.path, resume=True)
    assert (again.path / "grades.jsonl").read_bytes() == before
    with pytest.raises(NotComparableError):
        qaeval.compare(FLOOR, n=11, out=run.path, resume=True)


def test_a_directory_that_cannot_be_made_is_a_clear_error() -> None:
    Path("results").write_text("a file where the folder of runs should be")
    with pytest.raises(StoreError, match="results"):
        qaeval.compare(FLOOR, n=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"models": []}, UsageError),
        ({"models": ["embedded-leed"]}, UsageError),
        ({"models": FLOOR, "n": 0}, UsageError),
        ({"models": FLOOR, "n": 4, "seed": 2**63}, UsageError),
        ({"models": FLOOR, "n": 4, "seed": -1}, UsageError),
        ({"models": FLOOR, "margin": 5}, UsageError),
        ({"models": FLOOR, "concurrency": 0}, UsageError),
        ({"models": FLOOR, "labels": "missing.csv"}, DataError),
        ({"models": FLOOR, "chunks": "missing.jsonl"}, DataError),
        ({"models": FLOOR, "metrics_host": "127.0.0.1"}, UsageError),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bad_arguments_raise_before_anything_is_written(
    arguments: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        qaeval.compare(**arguments)  # type: ignore[arg-type]
    assert not list(Path("results").glob("*/generations.jsonl"))


def test_agreement_of_a_dataframe_takes_missing_letters_as_missing() -> None:
    table = pd.DataFrame({"anna": ["A", "B", "C", None] * 5, "judge": ["A", "B", "B", "A"] * 5})
    report = qaeval.agreement(table)
    (agreement,) = report.agreement
    assert (agreement.rater, agreement.coefficients.observed.n) == ("anna", 15)


@pytest.mark.slow
def test_a_seed_that_cannot_be_kept_is_refused_by_gate_and_labels(run: qaeval.Run) -> None:
    with pytest.raises(UsageError, match="seed: expected a whole number from 0 to"):
        qaeval.gate(run, sequential=True, seed=2**63)
    with pytest.raises(UsageError, match="seed: expected a whole number from 0 to"):
        api.label_by_model(run.path, "embedded-salient", seed=-1)


@pytest.mark.slow
def test_a_gate_takes_runs_paths_and_rules_as_data(run: qaeval.Run) -> None:
    rules = {"name": "same", "rules": [{"quantity": "success_rate", "at_least": 0.2}]}
    report = qaeval.gate(run, policy=rules, save=False)
    assert (report.outcome, report.exit_code) == ("pass", 0)
    assert not (run.path / "gate.json").exists()
    assert qaeval.gate(run.path, baseline=run).outcome in {"pass", "inconclusive"}
    assert (run.path / "gate.json").is_file()


@pytest.mark.slow
def test_an_interrupt_in_a_cell_stops_the_run_and_keeps_its_rows(tmp_path: Path) -> None:
    script = """
import asyncio, os, signal, qaeval, qaeval.errors
def interrupt(event):
    if event.done == 3:
        os.kill(os.getpid(), signal.SIGINT)
async def cell():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as a notebook does for each cell
    try:
        qaeval.generate(["slow"], n=60, out="run", concurrency=1, progress=interrupt, config="registry.yaml")
    except qaeval.errors.Interrupted as error:
        print("interrupted", *error.__notes__)
asyncio.run(cell())
"""
    with LoopbackServer(["slow"], latency_s=0.05) as server:
        (tmp_path / "registry.yaml").write_text(
            f"models: {{slow: {{url: '{server.url}', served_name: slow}}}}\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("interrupted")
    assert "resume=True" in done.stdout
    rows = (tmp_path / "run" / "generations.jsonl").read_text().splitlines()
    assert 3 <= len(rows) < 60


@pytest.mark.slow
def test_a_cancelled_task_stops_the_run_and_keeps_its_rows(tmp_path: Path) -> None:
    async def main() -> None:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()
        task = asyncio.ensure_future(
            qaeval.agenerate(
                ["slow"],
                n=60,
                out="run",
                concurrency=1,
                config="registry.yaml",
                progress=lambda _event: loop.call_soon_threadsafe(begun.set),
            )
        )
        await asyncio.wait_for(begun.wait(), timeout=30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with LoopbackServer(["slow"], latency_s=0.05) as server:
        (tmp_path / "registry.yaml").write_text(
            f"models: {{slow: {{url: '{server.url}', served_name: slow}}}}\n"
        )
        asyncio.run(main())
    rows = (tmp_path / "run" / "generations.jsonl").read_text().splitlines()
    assert 1 <= len(rows) < 60
    with LoopbackServer(["slow"]) as server:
        resumed = qaeval.generate(
            ["slow"], n=60, out="run", resume=True, config="registry.yaml", endpoints={"slow": server.url}
        )
    assert len((resumed.path / "generations.jsonl").read_text().splitlines()) == 60


def test_interrupted_is_one_of_the_errors_of_qaeval() -> None:
    assert Interrupted.exit_code == 130
