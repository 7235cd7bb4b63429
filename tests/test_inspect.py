"""Inspect AI: the same letters and failures as in qaeval, and export and import of logs."""

import hashlib
import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from qaeval.chat.protocol import ChatError, ChatRequest, Message, Sampling
from qaeval.chat.wire import without_prefix_items
from qaeval.cli import run
from qaeval.errors import DataError, NotComparableError, StoreError, UsageError
from qaeval.evals.definition import item_schema
from qaeval.evals.find import find_eval
from qaeval.records import Chunk, Failure, Generation, Grade, Sample, Usage, digest, record_id
from qaeval.storage.run_directory import RunStore
from qaeval.testing import grade_reply, pairs_reply
from replay.answers import PIECE, Writer, envelope, usage_of
from replay.faults import error
from replay.server import LoopbackServer

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CANDIDATES = ("cand", "other")
PROBE = 64
"""Maximum tokens of a probe."""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:inspect_ai")


@pytest.fixture(scope="module")
def bridge() -> Any:
    pytest.importorskip("inspect_ai", reason="`pip install qaeval-harness[inspect]`")
    from qaeval import inspect_bridge  # noqa: PLC0415 - takes two seconds

    return inspect_bridge


@pytest.fixture(scope="module")
def graded_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("graded") / "run"
    argv = [
        "compare",
        "embedded-lead",
        "embedded-salient",
        "--eval",
        "qa_pairs",
        "--n",
        "12",
        "--out",
        str(out),
    ]
    assert run(argv) == 0
    return out


@pytest.fixture(scope="module")
def logs(bridge: Any, graded_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    with RunStore.open(graded_run) as store:
        return bridge.export_logs(store, tmp_path_factory.mktemp("logs"), shard=5)


def read_rows(path: Path) -> dict[tuple[str, str], object]:
    """Read the outcome of each candidate's reply to each sample."""
    with RunStore.open(path) as store:
        grades = {row.item_id: row for row in store.grades()}
        return {
            (model_name(row), row.sample_id): ("failed", row.reason)
            if isinstance(row, Failure)
            else [(item, grade_outcome(grades[item.item_id])) for item in row.items]
            for row in store.generations()
        }


def model_name(row: Generation | Failure) -> str:
    return (row.candidate if isinstance(row, Generation) else row.model).rpartition("/")[2]


def grade_outcome(row: Grade | Failure) -> object:
    return (row.letter, row.flags, row.reason, row.probabilities) if isinstance(row, Grade) else row.reason


def read_report_numbers(run_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert run(["report", str(run_path), "--json"]) == 0
    return drop_keys(
        json.loads(capsys.readouterr().out), {"run", "timing", "path", "cost", "choice", "controls"}
    )


def drop_keys(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: drop_keys(part, names) for key, part in value.items() if key not in names}
    return [drop_keys(part, names) for part in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- scores


def test_inspect_would_score_the_letters_differently(bridge: Any) -> None:
    from inspect_ai.scorer import SampleScore, Score, accuracy, mean  # noqa: PLC0415

    letters = ["A", "A", "B", "B", "B", "C", "A", "A", "A", "B"]  # 5 x 1 + 4 x 0.5 + 1 x 0
    inspect_scores = [SampleScore(score=Score(value=letter)) for letter in letters]
    points = bridge.scoring.points(["A", "B", "C"])
    qaeval_scores = [SampleScore(score=Score(value=points[letter], answer=letter)) for letter in letters]
    assert accuracy()(inspect_scores) == pytest.approx(
        0.1
    )  # Inspect reads C as *correct* and gives A and B nothing
    assert mean()(qaeval_scores) == pytest.approx(0.7)


def test_four_letters_are_scored_at_even_distances(bridge: Any) -> None:
    assert bridge.scoring.points("ABCD") == pytest.approx({"A": 1, "B": 2 / 3, "C": 1 / 3, "D": 0})


def test_the_schema_is_sent_without_what_hosted_services_refuse(bridge: Any) -> None:
    from inspect_ai.model import GenerateConfig, ResponseSchema  # noqa: PLC0415
    from inspect_ai.util import JSONSchema  # noqa: PLC0415

    definition = find_eval(str(ROOT / "evals" / "qa_pairs"))
    sample = bridge.tasks.load_samples(definition)[0]
    request = bridge.tasks.generating.build_request(sample, definition, bridge.tasks.Sampling())
    merged = GenerateConfig(seed=1).merge(bridge.chat.generate_config(request, structured=True))
    sent_schema = merged.response_schema.json_schema.model_dump(exclude_none=True)
    expected = item_schema(definition)
    assert expected["properties"]["pairs"].pop("prefixItems")
    assert sent_schema == expected
    assert list(sent_schema["properties"]["pairs"]["items"]["properties"]) == ["type", "question", "answer"]
    plain = ResponseSchema(name="x", json_schema=JSONSchema.model_validate(item_schema(definition)))
    assert (
        "minItems" not in plain.json_schema.model_dump_json()
    )  # the reason for the bridge's own schema class


# ---------------------------------------------------------------- export and import of logs


def test_an_export_splits_the_log_of_each_candidate_into_parts(logs: list[Path], graded_run: Path) -> None:
    from inspect_ai.log import read_eval_log  # noqa: PLC0415

    assert [path.name for path in logs] == [
        f"qa_pairs-{name}-{part}-of-3.eval"
        for name in ("embedded-lead", "embedded-salient")
        for part in (1, 2, 3)
    ]
    log = read_eval_log(str(logs[0]))
    assert log.samples is not None
    assert (log.eval.model, len(log.samples)) == ("qaeval/embedded-lead", 5)
    sample = log.samples[0]
    assert sample.scores is not None
    letters = sample.scores["letters"]
    assert sample.metadata["sample"]["chunk"]["text"] in sample.messages[-2].text
    row = next(row for (_, sample_id), row in read_rows(graded_run).items() if sample_id == sample.id)
    assert letters.answer == " ".join(outcome[0] for _, outcome in row)  # type: ignore[attr-defined]
    assert letters.metadata is not None
    assert {"item_id", "letter", "flags", "reason", "probabilities", "question", "answer"} <= set(
        letters.metadata["grades"][0] | {"probabilities": None}
    )


def test_the_metrics_of_a_log_match_its_samples(logs: list[Path]) -> None:
    from inspect_ai.log import read_eval_log  # noqa: PLC0415

    log = read_eval_log(str(logs[0]))
    assert log.results is not None
    assert log.samples is not None
    metrics = {score.name: score.metrics for score in log.results.scores}
    values = [sample.scores["letters"].value for sample in log.samples if sample.scores]
    assert metrics["letters"]["mean"].value == pytest.approx(sum(map(float, values)) / len(values))  # type: ignore[arg-type]
    assert set(metrics["usable"]) == {"usable_rate", "stderr", "failed"}


@pytest.mark.slow
def test_inspects_data_frames_read_an_export(logs: list[Path]) -> None:
    from inspect_ai.analysis import SampleSummary, evals_df, samples_df  # noqa: PLC0415

    samples = samples_df([str(path) for path in logs], columns=SampleSummary, quiet=True)
    assert len(samples) == 24
    assert samples["score_usable"].astype(float).between(0, 1).all()
    assert set(evals_df([str(path) for path in logs], quiet=True)["model"]) == {
        "qaeval/embedded-lead",
        "qaeval/embedded-salient",
    }


@pytest.mark.slow
def test_an_export_survives_a_round_trip(
    bridge: Any, logs: list[Path], graded_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported_run = bridge.import_log(logs, tmp_path / "again")
    assert read_rows(imported_run) == read_rows(graded_run)
    assert (imported_run / "samples.jsonl").read_text() == (graded_run / "samples.jsonl").read_text()
    assert json.loads((imported_run / "settings.json").read_text()) == json.loads(
        (graded_run / "settings.json").read_text()
    )
    assert read_report_numbers(imported_run, capsys) == read_report_numbers(graded_run, capsys)


def test_an_export_does_not_overwrite(bridge: Any, graded_run: Path, logs: list[Path]) -> None:
    with RunStore.open(graded_run) as store, pytest.raises(UsageError, match="exists"):
        bridge.export_logs(store, logs[0].parent, shard=5)


def test_a_missing_part_is_named(bridge: Any, logs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"5 samples .*embedded-lead.* 12"):
        bridge.import_log([logs[0]], tmp_path / "run")
    with pytest.raises(DataError, match="a sample twice"):
        bridge.import_log([*logs, logs[0]], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda log: log.eval.metadata.clear(), "log of another task"),
        (lambda log: log.eval.metadata["qaeval"].update(format=9), "format 9"),
        (lambda log: setattr(log, "status", "cancelled"), "did not finish"),
        (lambda log: log.samples[1].scores.pop("letters"), "score 'letters'"),
        (lambda log: log.samples[1].metadata.pop("sample"), "incomplete: KeyError: 'sample'"),
        (
            lambda log: log.eval.metadata["qaeval"]["settings"]["grading"]["rubric"].update(title="x"),
            "was changed",
        ),
        (lambda log: grades(log)[0].update(letter="Z"), "scale 'Z' differs"),
        (lambda log: grades(log)[0].update(judge="you"), "judge 'you' differs"),
        (lambda log: grades(log)[0].pop("question"), "Item: question: Field required"),
    ],
)
def test_an_incomplete_log_is_refused_with_a_message(
    bridge: Any, logs: list[Path], change: Any, message: str, tmp_path: Path
) -> None:
    from inspect_ai.log import read_eval_log, write_eval_log  # noqa: PLC0415

    log = read_eval_log(str(logs[0]))
    change(log)
    write_eval_log(log, str(tmp_path / "changed.eval"))
    with pytest.raises(DataError, match=r"changed\.eval: ") as exc_info:
        bridge.import_log([tmp_path / "changed.eval"], tmp_path / "run")
    assert message in str(exc_info.value)


def grades(log: Any) -> list[dict[str, Any]]:
    return next(entries for sample in log.samples if (entries := sample.scores["letters"].metadata["grades"]))


def settings_of(log: Any) -> Any:
    return log.eval.metadata["qaeval"]["settings"]


def update_and_rehash(section: dict[str, Any], key: str, **changes: Any) -> None:
    """Update a section of the settings and its hash; a value of None removes the key."""
    content = {name: value for name, value in section.items() if name not in {key, *changes}}
    content |= {name: value for name, value in changes.items() if value is not None}
    section.clear()
    section.update({**content, key: digest(content)})


def change_eval(**changes: Any) -> Any:
    return lambda log: update_and_rehash(settings_of(log)["eval"], "digest", **changes)


def change_rubric(**changes: Any) -> Any:
    return lambda log: update_and_rehash(settings_of(log)["grading"]["rubric"], "sha", **changes)


def change_sample_set(**changes: Any) -> Any:
    return lambda log: settings_of(log)["sample_set"].update(changes)


def change_candidate(**changes: Any) -> Any:
    return lambda log: settings_of(log)["candidates"]["embedded-lead"].update(changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_eval(title=None), "settings.eval: missing key 'title'"),
        (change_eval(name="../../x"), "settings.eval: name: "),
        (change_eval(checks=[5]), "settings.eval: checks[1]: expected a mapping (key: value), got 5"),
        (change_eval(checks=[{"name": "nope"}]), "settings.eval: checks: unknown check 'nope'"),
        (change_eval(items_per_sample="x"), "eval: items_per_sample: expected a whole number, got 'x'"),
        (change_eval(directory="/etc"), "settings.eval: unknown key 'directory'"),
        (lambda log: settings_of(log)["eval"].update(title="x"), "settings.eval: digest: expected '"),
        (lambda log: settings_of(log)["eval"].pop("digest"), "settings.eval: missing key 'digest'"),
        (change_rubric(scale=5), "settings.grading.rubric: scale: expected a list, got 5"),
        (change_rubric(task=None), "settings.grading.rubric: missing key 'task'"),
        (lambda log: settings_of(log)["grading"]["rubric"].pop("sha"), "rubric: missing key 'sha'"),
        (change_sample_set(n="many"), "settings.sample_set.n: expected a whole number, got 'many'"),
        (change_sample_set(n=True), "settings.sample_set.n: expected a whole number, got True"),
        (change_eval(items_per_sample=5), "expected items at positions [0, 1, 2, 3, 4], got [0, 1, 2]"),
        (change_sample_set(seed="x"), "settings.sample_set.seed: expected a whole number, got 'x'"),
        (change_sample_set(digest=5), "settings.sample_set.digest: expected text"),
        (lambda log: settings_of(log)["sample_set"].pop("seed"), "missing key 'settings.sample_set.seed'"),
        (
            lambda log: settings_of(log)["candidates"]["embedded-lead"].pop("kind"),
            "embedded-lead: missing key",
        ),
        (change_candidate(sampling=[1]), "candidates.embedded-lead: sampling: expected"),
        (change_candidate(tuned_on=5), "candidates.embedded-lead: tuned_on: expected a list, got 5"),
        (lambda log: settings_of(log)["candidates"].update(twin={}), "settings.candidates: expected"),
        (lambda log: settings_of(log).update(candidates=5), "settings.candidates: expected a mapping"),
        (lambda log: settings_of(log)["grading"]["judge"].pop("kind"), "grading.judge: missing key 'kind'"),
        (lambda log: settings_of(log)["grading"]["judge"].pop("name"), "grading.judge: missing key 'name'"),
        (lambda log: settings_of(log)["grading"].update(judge=None), "judge: expected a mapping"),
        (lambda log: settings_of(log).update(format=7), "settings.format: expected 1, got 7"),
        (lambda log: settings_of(log).update(more=1), "unknown key 'settings.more'"),
        (lambda log: log.eval.metadata["qaeval"].update(settings=5), "settings: expected a mapping"),
        (lambda log: log.eval.metadata["qaeval"].update(sessions=5), "sessions: expected a list, got 5"),
        (
            lambda log: (settings_of(log).update(candidates={}), log.eval.metadata["qaeval"].update(judge=5)),
            "judge: expected a mapping (key: value), got 5",
        ),
    ],
)
def test_invalid_settings_are_refused_with_their_key(
    bridge: Any, full_log: Path, change: Any, message: str, tmp_path: Path
) -> None:
    error_message = refusal(bridge, full_log, change, tmp_path)
    assert error_message.startswith(f"{tmp_path / 'changed.eval'}: ")
    assert message in error_message


def refusal(bridge: Any, path: Path, change: Any, tmp_path: Path) -> str:
    """Change a log, try to import it, and return the error message."""
    from inspect_ai.log import read_eval_log, write_eval_log  # noqa: PLC0415

    log = read_eval_log(str(path))
    change(log)
    write_eval_log(log, str(tmp_path / "changed.eval"))
    with pytest.raises(DataError) as exc_info:
        bridge.import_log([tmp_path / "changed.eval"], tmp_path / "run")
    assert not (tmp_path / "run").exists()
    return str(exc_info.value)


@pytest.fixture(scope="module")
def full_log(bridge: Any, graded_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of one candidate, in one part."""
    with RunStore.open(graded_run) as store:
        return bridge.export_logs(store, tmp_path_factory.mktemp("whole"))[0]  # type: ignore[no-any-return]


def first_generation(log: Any) -> dict[str, Any]:
    return next(row for sample in log.samples if (row := sample.scores["letters"].metadata["generation"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda log: grades(log)[0].update(answer="Something else."), "grades[1].item_id: expected "),
        (lambda log: grades(log)[1].update(question="What else?"), "grades[2].item_id: expected "),
        (lambda log: grades(log)[0].update(item_id="0" * 16), "grades[1].item_id: expected "),
        (lambda log: grades(log)[0].update(task_id="x"), "grades[1].task_id: expected "),
        (
            lambda log: log.samples[0].metadata["sample"]["chunk"].update(text="Other."),
            "sample_id: expected ",
        ),
        (lambda log: log.samples[0].metadata["sample"].update(question="What?"), "sample_id: expected "),
        (lambda log: first_generation(log).update(task_id="x"), "generation.task_id: expected "),
    ],
)
def test_content_that_does_not_match_its_id_is_refused(
    bridge: Any, full_log: Path, change: Any, message: str, tmp_path: Path
) -> None:
    error_message = refusal(bridge, full_log, change, tmp_path)
    assert message in error_message
    assert "content was changed" in error_message


def test_a_wrong_number_of_samples_is_refused(bridge: Any, full_log: Path, tmp_path: Path) -> None:
    error_message = refusal(bridge, full_log, change_sample_set(n=99), tmp_path)
    assert re.search(r"settings\.sample_set\.n: expected 12.* 99$", error_message)


@pytest.mark.slow
def test_keys_missing_in_old_logs_are_filled_in(
    bridge: Any, full_log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from inspect_ai.log import read_eval_log, write_eval_log  # noqa: PLC0415

    log = read_eval_log(str(full_log))
    change_eval(enforce_schema=None, item_kind=None)(log)
    write_eval_log(log, str(tmp_path / "old.eval"))
    run_path = bridge.import_log([tmp_path / "old.eval"], tmp_path / "run")
    eval_settings = json.loads((run_path / "settings.json").read_text())["eval"]
    assert (eval_settings["item_kind"], eval_settings["enforce_schema"]) == ("qa_pair", True)
    assert eval_settings["digest"] == settings_of(log)["eval"]["digest"]
    read_report_numbers(run_path, capsys)


def test_equal_items_with_different_letters_survive_a_round_trip(
    bridge: Any, graded_run: Path, tmp_path: Path
) -> None:
    split_run = make_run_with_split_letters(graded_run, tmp_path / "apart", bridge)
    with RunStore.open(split_run) as store:
        paths = bridge.export_logs(store, tmp_path / "logs")
    imported_run = bridge.import_log(paths, tmp_path / "again")
    assert read_rows(imported_run) == read_rows(split_run)
    assert bridge.import_log(
        paths[1:], tmp_path / "alone"
    )  # the separate id works without the other candidate's log
    ids = [{item.item_id for item, _ in replies} for replies in replies_by_candidate(bridge, paths)]
    assert ids[0] - ids[1]


def make_run_with_split_letters(graded_run: Path, out: Path, bridge: Any) -> Path:
    """Make a run of two candidates with equal replies, where one item has different letters."""
    with RunStore.open(graded_run) as store:
        settings, samples = store.settings(), list(store.samples())
        grades_by_item = {row.item_id: row for row in store.grades()}
        lead_rows = [row for row in store.generations() if model_name(row) == "embedded-lead"]
    settings["candidates"] = dict.fromkeys(("one", "twin"), settings["candidates"]["embedded-lead"])
    item = next(row for row in lead_rows if isinstance(row, Generation)).items[0]
    with RunStore.create(out, settings, samples, resume=False) as store:
        parts = [
            bridge.importing._LogPart(out, settings, name, replies=[
                (
                    row.model_copy(update={"candidate": name, "task_id": generation_task_id(name, row.sample_id)}),
                    [(entry, change_letter(grades_by_item[entry.item_id], name, entry, item)) for entry in row.items],
                )
                for row in lead_rows
            ])
            for name in ("one", "twin")
        ]  # fmt: skip
        bridge.importing._write(store, parts)
    return out


def generation_task_id(candidate: str, sample_id: str) -> str:
    return record_id("generate", candidate, sample_id)


def change_letter(row: Any, name: str, item: Any, relabelled: Any) -> Any:
    if name == "one" or item.item_id != relabelled.item_id:
        return row
    return row.model_copy(update={"letter": next(letter for letter in "ABC" if letter != row.letter)})


def replies_by_candidate(bridge: Any, paths: list[Path]) -> list[list[Any]]:
    return [
        [entry for _, entries in bridge.importing._read(path).replies for entry in entries] for path in paths
    ]


# ---------------------------------------------------------------- file names and failures of an export


def copy_with_names(graded_run: Path, out: Path, names: tuple[str, str]) -> Path:
    """Copy a run with other names for its two candidates."""
    new_names = dict(zip(("embedded-lead", "embedded-salient"), names, strict=True))
    with RunStore.open(graded_run) as store:
        settings = store.settings()
        settings["candidates"] = {new_names[name]: facts for name, facts in settings["candidates"].items()}
        with RunStore.create(out, settings, store.samples(), resume=False) as copy:
            with copy.writer("generations.jsonl") as writer:
                for row in store.generations():
                    assert isinstance(row, Generation)
                    name = new_names[row.candidate]
                    task_id = generation_task_id(name, row.sample_id)
                    writer.append(row.model_copy(update={"candidate": name, "task_id": task_id}))
            with copy.writer("grades.jsonl") as writer:
                for grade in store.grades():
                    writer.append(grade)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "files"),
    [
        (("a/b", "a-b"), ["a-b-2", "a-b"]),
        (("a/b", "a:b"), ["a-b", "a-b-2"]),
        (("Qwen", "qwen"), ["Qwen", "qwen-2"]),
    ],
)
def test_candidates_with_similar_names_get_separate_files(
    bridge: Any, graded_run: Path, names: tuple[str, str], files: list[str], tmp_path: Path
) -> None:
    path = copy_with_names(graded_run, tmp_path / "run", names)
    with RunStore.open(path) as store:
        paths = bridge.export_logs(store, tmp_path / "logs")
    assert [log_path.name for log_path in paths] == [f"qa_pairs-{name}.eval" for name in files]
    assert read_rows(bridge.import_log(paths, tmp_path / "again")) == read_rows(path)


def test_a_numbered_file_name_in_use_is_skipped(bridge: Any) -> None:
    stems = bridge.exporting._stems(["a/b", "a-b", "a-b-2", "x" * 300])
    assert stems == {"a/b": "a-b-3", "a-b": "a-b", "a-b-2": "a-b-2", "x" * 300: "x" * 120}


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_export_leaves_no_files(
    bridge: Any, graded_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    write, paths_written = bridge.exporting.write_eval_log, []

    def second_fails(log: Any, path: str) -> None:
        paths_written.append(path)
        if len(paths_written) % 2 == 0:
            Path(path).write_text("half")
            raise failure
        write(log, path)

    monkeypatch.setattr(bridge.exporting, "write_eval_log", second_fails)
    expected_error = StoreError if isinstance(failure, OSError) else KeyboardInterrupt
    with RunStore.open(graded_run) as store:
        with pytest.raises(expected_error):
            bridge.export_logs(store, tmp_path / "new" / "logs")
        assert not (tmp_path / "new").exists()
        (tmp_path / "old").mkdir()
        (tmp_path / "old" / "mine.txt").touch()
        with pytest.raises(expected_error):
            bridge.export_logs(store, tmp_path / "old")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["mine.txt"]


def test_an_unfinished_run_leaves_no_folder(bridge: Any, graded_run: Path, tmp_path: Path) -> None:
    path = copy_with_names(graded_run, tmp_path / "run", ("one", "other"))
    rows = (path / "generations.jsonl").read_text().splitlines(keepends=True)
    (path / "generations.jsonl").write_text("".join(rows[:-1]))
    with RunStore.open(path) as store, pytest.raises(DataError, match="other has no row"):
        bridge.export_logs(store, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_an_existing_log_stops_the_export_before_it_writes(
    bridge: Any, graded_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "qa_pairs-embedded-salient.eval").touch()
    with RunStore.open(graded_run) as store, pytest.raises(UsageError, match=r"salient\.eval exists"):
        bridge.export_logs(store, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["qa_pairs-embedded-salient.eval"]


def test_a_file_that_is_not_a_log_is_refused(bridge: Any, tmp_path: Path) -> None:
    (tmp_path / "x.eval").write_text("{}")
    with pytest.raises(DataError, match="not an Inspect log"):
        bridge.import_log([tmp_path / "x.eval"], tmp_path / "run")


def test_logs_with_different_sample_sets_are_not_combined(
    bridge: Any, logs: list[Path], tmp_path: Path
) -> None:
    from inspect_ai.log import read_eval_log, write_eval_log  # noqa: PLC0415

    log = read_eval_log(str(logs[0]))
    log.eval.metadata["qaeval"]["settings"]["sample_set"]["seed"] = 99  # type: ignore[index]
    write_eval_log(log, str(tmp_path / "other.eval"))
    with pytest.raises(NotComparableError, match="differ in sample_set"):
        bridge.import_log([logs[0], tmp_path / "other.eval"], tmp_path / "run")


@pytest.mark.parametrize(
    ("host", "is_internal"),
    [
        ("127.0.0.1", True), ("10.1.2.3", True), ("judge", True), ("gpu.internal", True), ("8.8.8.8", False),
        ("api.openai.com", False), ("", False),
    ],
)  # fmt: skip
def test_an_unknown_host_counts_as_external(bridge: Any, host: str, is_internal: bool) -> None:
    assert bridge.importing._is_internal_host(host) is is_internal


def test_an_item_with_two_grades_becomes_two_items(bridge: Any, logs: list[Path], tmp_path: Path) -> None:
    part, twin_part = (bridge.importing._read(logs[index]) for index in (0, 0))
    row, entries = next(reply for reply in twin_part.replies if reply[1])
    item, grade = entries[0]
    other_grade = grade.model_copy(
        update={"letter": next(letter for letter in "ABC" if letter != grade.letter)}
    )
    twin_part.candidate, twin_part.replies = "twin", [(row, [(item, other_grade), *entries[1:]])]
    with RunStore.create(tmp_path / "run", part.settings, part.samples.values(), resume=False) as store:
        bridge.importing._write(store, [part, twin_part])
        letters = [row.letter for row in store.grades() if isinstance(row, Grade)]
        ids = {
            graded_item.item_id
            for row in store.generations()
            if isinstance(row, Generation)
            for graded_item in row.items
        }
    assert len(letters) == len({entry[0].item_id for reply in part.replies for entry in reply[1]}) + 1
    assert record_id("item", item.item_id, "twin") in ids


async def test_replies_of_another_solver_are_read_like_ours(bridge: Any) -> None:
    from inspect_ai.model import ModelOutput  # noqa: PLC0415

    request = bridge.tasks.ChatRequest(messages=())
    complete_reply = bridge.tasks._RecordedReply(ModelOutput.from_content("m", "<think>x</think>{}"))
    assert (await complete_reply.complete(request)).text == "{}"
    truncated_reply = bridge.tasks._RecordedReply(
        ModelOutput.from_content("m", "{", stop_reason="max_tokens")
    )
    assert (await truncated_reply.complete(request)).finish_reason == "length"
    with pytest.raises(bridge.tasks.ChatError, match="stopped the reply"):
        await bridge.tasks._RecordedReply(ModelOutput.from_content("m", "{", stop_reason="unknown")).complete(
            request
        )


# ---------------------------------------------------------------- in process, without a server


class Provider:
    """Fake Inspect model: returns or raises its outputs in order."""

    def __init__(self, *outputs: Any, base_url: str | None = "http://user@judge.lan:8000/v1") -> None:
        self.api = SimpleNamespace(base_url=base_url)
        self.requests: list[tuple[list[Any], Any]] = []
        self._outputs = list(outputs)

    async def generate(self, turns: list[Any], config: Any) -> Any:
        self.requests.append((turns, config))
        output = self._outputs.pop(0)
        if isinstance(output, Exception):
            raise output
        return output


def make_output(text: str, stop_reason: Any = "stop", **fields: Any) -> Any:
    from inspect_ai.model import ModelOutput  # noqa: PLC0415

    return ModelOutput.from_content("m", text, stop_reason=stop_reason).model_copy(update=fields)


class StatusError(Exception):
    def __init__(self, status_code: int, text: str = "refused") -> None:
        super().__init__(text)
        self.status_code = status_code


CHAT_REQUEST = ChatRequest(
    (Message("system", "s"), Message("user", "u")), sampling=Sampling(0.3, 0.9, 33, 5), top_logprobs=4
)


async def test_a_request_reaches_inspect_and_its_output_becomes_a_completion(bridge: Any) -> None:
    from inspect_ai.model import ModelUsage  # noqa: PLC0415

    usage = ModelUsage(input_tokens=7, input_tokens_cache_read=5, input_tokens_cache_write=2, output_tokens=3)
    model = Provider(make_output("{}", usage=usage, time=1.5))
    chat = bridge.chat.InspectChat(model)
    completion = await chat.complete(CHAT_REQUEST)
    assert (completion.text, completion.finish_reason, completion.latency_s) == ("{}", "stop", 1.5)
    assert completion.usage == Usage(prompt_tokens=14, completion_tokens=3, cached_tokens=5)
    untimed = await bridge.chat.InspectChat(Provider(make_output("{}"))).complete(CHAT_REQUEST)
    assert 0 <= untimed.latency_s < 60  # measured here, where the provider names no time
    assert (chat.host, chat.output.completion) == ("judge.lan", "{}")
    ((turns, config),) = model.requests
    assert [(turn.role, turn.content) for turn in turns] == [("system", "s"), ("user", "u")]
    assert (config.temperature, config.top_p, config.max_tokens, config.seed) == (0.3, 0.9, 33, 5)
    assert (config.logprobs, config.top_logprobs, config.response_schema) == (True, 4, None)


async def test_options_control_system_merging_and_the_schema(bridge: Any) -> None:
    request = replace(CHAT_REQUEST, schema={"type": "object"}, top_logprobs=0)
    for structured, merge in ((True, True), (False, False)):
        model = Provider(make_output("{}"), base_url=None)
        chat = bridge.chat.InspectChat(model, structured=structured, merge_system=merge)
        completion = await chat.complete(request)
        ((turns, config),) = model.requests
        assert [turn.role for turn in turns] == (["user"] if merge else ["system", "user"])
        assert (config.response_schema is not None) == structured
        assert (config.logprobs, config.top_logprobs, completion.usage, chat.host) == (None, None, None, "")


async def test_an_aborted_reply_is_retried_a_limited_number_of_times(bridge: Any) -> None:
    model = Provider(make_output("", "unknown"), make_output("{}"))
    assert (await bridge.chat.InspectChat(model).complete(CHAT_REQUEST)).text == "{}"
    assert len(model.requests) == 2
    always_aborted = Provider(*(make_output("", "unknown") for _ in range(20)))
    with pytest.raises(ChatError) as exc_info:
        await bridge.chat.InspectChat(always_aborted).complete(CHAT_REQUEST)
    assert (exc_info.value.reason, len(always_aborted.requests)) == ("interrupted", bridge.chat._MAX_ATTEMPTS)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (StatusError(400), "rejected"),
        (StatusError(400, "This model's maximum context length is 4 tokens"), "context_overflow"),
        (StatusError(404), "rejected"),
        (StatusError(429), "endpoint"),
        (StatusError(408), "endpoint"),
        (StatusError(500), "endpoint"),
        (OSError("gone"), "endpoint"),
    ],
)
async def test_provider_exceptions_become_chat_errors(bridge: Any, fault: Exception, reason: str) -> None:
    chat = bridge.chat.InspectChat(Provider(fault))
    with pytest.raises(ChatError) as exc_info:
        await chat.complete(CHAT_REQUEST)
    assert (exc_info.value.reason, chat.output) == (reason, None)
    assert exc_info.value.detail == f"{type(fault).__name__}: {fault}"
    wrapped = RuntimeError("with the whole prompt")
    wrapped.__cause__ = fault
    assert (bridge.chat._chat_error(wrapped).reason, bridge.chat._chat_error(wrapped).detail) == (
        reason,
        exc_info.value.detail,
    )


def test_tokens_that_inspect_has_in_the_total_alone_are_the_replys(bridge: Any) -> None:
    from inspect_ai.model import ModelUsage  # noqa: PLC0415

    usage = ModelUsage(input_tokens=7, input_tokens_cache_read=5, output_tokens=3, total_tokens=40)
    assert bridge.chat.as_usage(usage) == Usage(prompt_tokens=12, completion_tokens=28, cached_tokens=5)
    without_total = usage.model_copy(update={"total_tokens": 0})
    assert bridge.chat.as_usage(without_total) == Usage(
        prompt_tokens=12, completion_tokens=3, cached_tokens=5
    )


async def test_an_output_without_a_reply_gives_a_reason(bridge: Any) -> None:
    for output, reason in (
        (make_output("", error="EngineDead"), "endpoint"),
        (make_output("", choices=[]), "endpoint"),
        (make_output("too long", "model_length"), "context_overflow"),
    ):
        with pytest.raises(ChatError) as exc_info:
            await bridge.chat.InspectChat(Provider(output)).complete(CHAT_REQUEST)
        assert exc_info.value.reason == reason


def test_token_counts_survive_a_round_trip_through_inspect(bridge: Any) -> None:
    usage = Usage(prompt_tokens=14, completion_tokens=3, cached_tokens=5)
    inspect_usage = bridge.chat.from_usage(usage)
    assert (
        inspect_usage.input_tokens,
        inspect_usage.input_tokens_cache_read,
        inspect_usage.output_tokens,
    ) == (9, 5, 3)
    assert inspect_usage.total_tokens == 17
    assert bridge.chat.as_usage(inspect_usage) == usage
    assert bridge.chat.from_usage(None) is bridge.chat.as_usage(None) is None


KINDS = ("factual", "conceptual", "comparison")
QA_PAIRS = str(ROOT / "evals" / "qa_pairs")


async def score_reply(
    bridge: Any,
    reply: str,
    letters: str,
    *,
    use_solver: bool = True,
    text: str = " ".join(["The valve opens at 3 bar."] * 5),
) -> tuple[Any, Any, Any]:
    """Run the solver and the scorers on one reply: state, letter score, usable score; a dot in `letters` is a missing letter."""
    from inspect_ai.model import GenerateConfig, ModelName, ModelUsage, get_model  # noqa: PLC0415
    from inspect_ai.model._model import init_active_model, init_model_roles  # noqa: PLC0415
    from inspect_ai.solver import TaskState  # noqa: PLC0415

    usage = ModelUsage(input_tokens=40, output_tokens=9, total_tokens=49)  # else Inspect loads a tokenizer
    candidate = get_model("mockllm/cand", custom_outputs=[make_output(reply, usage=usage)], memoize=False)
    grader_outputs = [
        make_output(grade_reply(letter) if letter != "." else "no letter", usage=usage) for letter in letters
    ]
    init_active_model(candidate, GenerateConfig())
    init_model_roles({"grader": get_model("mockllm/judge", custom_outputs=grader_outputs, memoize=False)})
    sample = Sample.of(Chunk(chunk_id="c", text=text, title="Valve"))
    state = TaskState(
        *(ModelName("mockllm/cand"), sample.sample_id, 0, "q", []),
        metadata=bridge.scoring.sample_metadata(sample),
        output=None if use_solver else make_output(reply),
    )
    if use_solver:
        state = await bridge.tasks.ask(QA_PAIRS)(state, None)
    score = await bridge.tasks.letters(QA_PAIRS)(state, None)
    state.scores = {"letters": score}
    return state, score, await bridge.tasks.usable(QA_PAIRS)(state, None)


@pytest.mark.parametrize("use_solver", [True, False])
async def test_every_item_is_graded_and_a_missing_letter_is_not_usable(bridge: Any, use_solver: bool) -> None:
    reply = pairs_reply([(kind, f"{kind}?", "At 3 bar.") for kind in KINDS])
    state, score, usable = await score_reply(bridge, reply, "AB.", use_solver=use_solver)
    assert (score.value, score.answer) == (0.75, "A B -")
    assert [(entry["letter"], entry["kind"]) for entry in score.metadata["grades"]] == [
        ("A", "grade"),
        ("B", "grade"),
        (None, "failure"),
    ]
    assert (score.metadata["failure"], score.metadata["generation"]["text"]) == ("invalid_json", reply)
    assert (usable.value, usable.answer) == (1 / 3, "1/3")
    assert usable.metadata == {"n_best": 1, "n_expected": 3, "n_failed": 1}
    assert state.output.completion == reply
    assert [turn.content for turn in state.messages] == ([reply] if use_solver else [])
    assert set(score.metadata["hosts"]) == {"mockllm/judge", *(["mockllm/cand"] if use_solver else [])}


@pytest.mark.parametrize("use_solver", [True, False])
async def test_a_reply_without_items_has_a_reason_instead_of_a_score(bridge: Any, use_solver: bool) -> None:
    _, score, usable = await score_reply(bridge, "no JSON", "", use_solver=use_solver)
    assert math.isnan(score.value)
    assert (score.metadata["failure"], score.metadata["grades"]) == ("invalid_json", [])
    assert (usable.value, usable.metadata["n_failed"]) == (0.0, 3)


async def test_a_reply_about_a_short_chunk_may_have_fewer_items(bridge: Any) -> None:
    reply = pairs_reply([("factual", "When does it open?", "At 3 bar.")])
    _, _, usable = await score_reply(bridge, reply, "A", text="The valve opens at 3 bar.")
    assert (usable.value, usable.answer) == (1.0, "1/1")
    assert usable.metadata == {"n_best": 1, "n_expected": 1, "n_failed": 0}


async def test_a_judge_without_any_letter_has_no_score(bridge: Any) -> None:
    reply = pairs_reply([(kind, f"{kind}?", "At 3 bar.") for kind in KINDS])
    _, score, usable = await score_reply(bridge, reply, "...")
    assert math.isnan(score.value)
    assert (usable.value, usable.metadata["n_failed"]) == (0.0, 3)


def test_a_task_has_one_sample_per_chunk_and_records_its_options(bridge: Any) -> None:
    task = bridge.tasks.task_of(QA_PAIRS, n=3, lenient=True, merge_system=True, judge_mode="letter")
    metadata = task.metadata["qaeval"]
    assert metadata["candidate"] == {"structured": False, "merge_system": True}
    assert metadata["judge"] == {"structured": True, "judge_mode": "letter"}
    definition = find_eval(QA_PAIRS)
    assert (task.name, task.version, len(task.dataset)) == ("qa_pairs", definition.digest[:12], 3)
    assert metadata["settings"]["sample_set"]["n"] == 3
    assert {len(sample.input) for sample in task.dataset} == {1}
    task_with_system_turn = bridge.tasks.task_of(QA_PAIRS, n=3)
    assert {len(sample.input) for sample in task_with_system_turn.dataset} == {
        1 + bool(definition.prompt.system)
    }


def test_a_grader_of_the_same_family_is_refused_unless_allowed(bridge: Any) -> None:
    from inspect_ai.model import get_model  # noqa: PLC0415

    judge = get_model("mockllm/qwen2.5-7b", memoize=False)
    with pytest.raises(UsageError, match=r"mockllm/qwen2\.5-7b.*allow_same_family"):
        bridge.tasks._require_foreign(judge, "vllm/qwen2-72b", allowed=False)
    bridge.tasks._require_foreign(judge, "vllm/qwen2-72b", allowed=True)
    bridge.tasks._require_foreign(judge, "vllm/mistral-7b", allowed=False)


# ---------------------------------------------------------------- qaeval and Inspect give the same letters


class FaultyServer(LoopbackServer):
    """Server whose failures depend only on the prompt, so the same question always fails in the same way.

    Args:
        free: Schema of replies to requests without one.
        worst: Whether it also fails in ways that are retried.
    """

    def __init__(self, free: Mapping[str, Any], *, worst: bool) -> None:
        super().__init__(models=(*CANDIDATES, "judge"))
        self._free, self._worst = free, worst

    def _reply(self, body: Mapping[str, Any]) -> web.Response:
        prompt = "\n".join(turn["content"] for turn in body["messages"])
        seed = f"{body['model']}\n{prompt}"
        mood = hashlib.sha256(seed.encode()).digest()[0] % (40 if body["model"] == "judge" else 16)
        schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema") or self._free
        writer = Writer(seed, body["messages"][-1]["content"], one_less=mood == 3)
        if body.get("max_tokens", 0) <= PROBE:
            return super()._reply(body)  # a probe
        text, finish = json.dumps(writer.value(schema), ensure_ascii=False), "stop"
        text = {
            0: f"Certainly! Here it is:\n```json\n{text}\n```",
            1: text[:-2],
            2: "",
            4: text.replace('"letter": "A"', '"letter": "Z"').replace('"answer"', '"reply"'),
            5: f"<think>Let me see [1].</think>{text}",
            6: "I cannot help with that.",
        }.get(mood, text)
        if mood == 7:
            return error(400, "The request was refused by policy.")
        if mood == 8:
            finish = "length"
        if self._worst and mood == 9:
            return error(500, "EngineCore encountered an issue.")
        if self._worst and mood == 10:
            finish = "abort"
        pieces = PIECE.findall(text)
        logprobs = writer.logprobs(pieces, body.get("top_logprobs", 0)) if body.get("logprobs") else None
        usage = usage_of(prompt, body["max_tokens"] if finish == "length" else len(pieces) + 1)
        return web.json_response(
            {"id": "chatcmpl-1", **envelope(body["model"], text, finish, logprobs, usage)}
        )


def run_command(argv: list[str], cwd: Path, env: Mapping[str, str]) -> str:
    process = subprocess.run(
        argv, cwd=cwd, env=dict(env), capture_output=True, text=True, timeout=240, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def make_env(server: LoopbackServer, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "QAEVAL_CACHE": "off",
        "LOOP_API_KEY": "none",
        "LOOP_BASE_URL": server.url,
        "INSPECT_LOG_DIR": str(tmp_path / "logs"),
        "INSPECT_DISPLAY": "plain",
    }


def count_bodies(requests: list[dict[str, Any]]) -> Counter[str]:
    """Collect the requests other than probes, without nulls, what Inspect's schema cannot hold, and vLLM-only options."""
    texts = [
        json.dumps(drop_none(without_prefix_items({**body, "repetition_detection": None})), sort_keys=True)
        for body in requests
        if body.get("max_tokens", 0) > PROBE
    ]
    return Counter(dict.fromkeys(texts, 1))


def drop_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: drop_none(part) for key, part in value.items() if part is not None}
    return [drop_none(part) for part in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("bridge")
@pytest.mark.parametrize(
    ("name", "n_samples", "lenient"),
    [
        pytest.param("qa_pairs", 16, False, marks=pytest.mark.nightly),
        ("qa_pairs", 12, True),
        ("rag_qa", 16, False),
        pytest.param("dpo_pairs", 20, False, marks=pytest.mark.nightly),
    ],
)
def test_qaeval_and_inspect_give_the_same_letters_and_failures(
    name: str, n_samples: int, lenient: bool, bridge: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = find_eval(str(ROOT / "evals" / name))
    structured = "off" if lenient else "json_schema"
    with FaultyServer(item_schema(definition), worst=name == "rag_qa") as server:
        options = f"url: '{server.url}', family: candidates, structured: '{structured}'"
        entries = "".join(f"  {candidate}: {{{options}}}\n" for candidate in CANDIDATES)
        (tmp_path / "qaeval.yaml").write_text(
            f"models:\n{entries}judges:\n  judge: {{url: '{server.url}', family: judges}}\n"
        )
        env = make_env(server, tmp_path)
        qaeval_argv = [
            "compare",
            *CANDIDATES,
            "--judge",
            "judge",
            "--no-controls",
            "--eval",
            str(definition.directory),
            "--n",
            str(n_samples),
        ]
        run_command([str(BIN / "qaeval"), *qaeval_argv, "--out", "own"], tmp_path, env)
        qaeval_requests, server.requests = count_bodies(server.requests), []
        models = ",".join(f"openai-api/loop/{candidate}" for candidate in CANDIDATES)
        inspect_argv = [
            str(BIN / "inspect"),
            "eval",
            f"evals/{name}/task.py",
            "--model",
            models,
            "-T",
            f"n={n_samples}",
        ]
        inspect_argv += [
            "--model-role",
            "grader=openai-api/loop/judge",
            "-T",
            f"lenient={lenient}",
            "--max-retries",
            "1",
        ]
        run_command(inspect_argv, ROOT, env)
        assert count_bodies(server.requests) == qaeval_requests
    imported_run = bridge.import_log(sorted((tmp_path / "logs").glob("*.eval")), tmp_path / "through")
    expected, actual = read_rows(tmp_path / "own"), read_rows(imported_run)
    assert {key[1] for key in actual} == {key[1] for key in expected}
    assert actual == expected
    outcome_counts = Counter(
        outcome[1] if isinstance(outcome, tuple) else "items" for outcome in expected.values()
    )
    assert len(outcome_counts) >= 3, outcome_counts
    assert rates_by_candidate(read_report_numbers(imported_run, capsys)) == rates_by_candidate(
        read_report_numbers(tmp_path / "own", capsys)
    )


def rates_by_candidate(report: Any) -> list[Any]:
    """Return the candidates sorted by name, whatever the order of the logs."""
    candidates_by_name = {
        candidate["facts"].pop("name").rpartition("/")[2]: candidate for candidate in report["candidates"]
    }
    return [{**candidates_by_name[name], "facts": None} for name in sorted(candidates_by_name)]


@pytest.mark.slow
@pytest.mark.usefixtures("bridge")
def test_the_entry_point_runs_only_with_an_unrelated_grader(tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log  # noqa: PLC0415

    with LoopbackServer(models=("cand", "judge")) as server:
        env = make_env(server, tmp_path)
        argv = [
            str(BIN / "inspect"),
            "eval",
            "qaeval/qa_pairs",
            "--model",
            "openai-api/loop/cand",
            "-T",
            "n=2",
        ]
        stdout = run_command(argv, tmp_path, env)  # Inspect exits with 0 whatever happens
        assert "no usable grader" in " ".join(stdout.split())
        stdout = run_command([*argv, "--model-role", "grader=openai-api/loop/cand"], tmp_path, env)
        assert "allow_same_family=true" in " ".join(stdout.split())
        assert not server.requests
        run_command([*argv, "--model-role", "grader=openai-api/loop/judge"], tmp_path, env)
    logs = [read_eval_log(str(path)) for path in sorted((tmp_path / "logs").glob("*.eval"))]
    assert [log.status for log in logs] == ["error", "error", "success"]
    results = logs[2].results
    assert results is not None
    metrics = {score.name: score.metrics for score in results.scores}
    assert not math.isnan(metrics["letters"]["mean"].value)
    assert metrics["usable"]["failed"].value == 0
