"""Inspect AI: the same letters and failures through both, and logs in both directions."""

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
"""Tokens of a probe at most."""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:inspect_ai")


@pytest.fixture(scope="module")
def bridge() -> Any:
    pytest.importorskip("inspect_ai", reason="`pip install qaeval-harness[inspect]`")
    from qaeval import inspect_bridge  # noqa: PLC0415 - takes two seconds

    return inspect_bridge


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("graded") / "run"
    words = [
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
    assert run(words) == 0
    return out


@pytest.fixture(scope="module")
def logs(bridge: Any, graded: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    with RunStore.open(graded) as store:
        return bridge.export_logs(store, tmp_path_factory.mktemp("logs"), shard=5)


def rows_of(path: Path) -> dict[tuple[str, str], object]:
    """What became of every candidate's reply to every sample."""
    with RunStore.open(path) as store:
        grades = {row.item_id: row for row in store.grades()}
        return {
            (name_of(row), row.sample_id): ("failed", row.reason)
            if isinstance(row, Failure)
            else [(item, fate(grades[item.item_id])) for item in row.items]
            for row in store.generations()
        }


def name_of(row: Generation | Failure) -> str:
    return (row.candidate if isinstance(row, Generation) else row.model).rpartition("/")[2]


def fate(row: Grade | Failure) -> object:
    return (row.letter, row.flags, row.reason, row.probabilities) if isinstance(row, Grade) else row.reason


def numbers_of(path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert run(["report", str(path), "--json"]) == 0
    return without(
        json.loads(capsys.readouterr().out), {"run", "timing", "path", "cost", "choice", "controls"}
    )


def without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: without(part, names) for key, part in value.items() if key not in names}
    return [without(part, names) for part in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- scores


def test_inspect_itself_would_read_our_letters_as_other_numbers(bridge: Any) -> None:
    from inspect_ai.scorer import SampleScore, Score, accuracy, mean  # noqa: PLC0415

    letters = ["A", "A", "B", "B", "B", "C", "A", "A", "A", "B"]  # 5 x 1 + 4 x 0.5 + 1 x 0
    stock = [SampleScore(score=Score(value=letter)) for letter in letters]
    table = bridge.scoring.points(["A", "B", "C"])
    ours = [SampleScore(score=Score(value=table[letter], answer=letter)) for letter in letters]
    assert accuracy()(stock) == pytest.approx(0.1)  # C is *correct* there, A and B are nothing
    assert mean()(ours) == pytest.approx(0.7)


def test_a_scale_of_four_letters_is_spread_evenly(bridge: Any) -> None:
    assert bridge.scoring.points("ABCD") == pytest.approx({"A": 1, "B": 2 / 3, "C": 1 / 3, "D": 0})


def test_the_schema_is_sent_whole_but_for_what_hosted_services_refuse(bridge: Any) -> None:
    from inspect_ai.model import GenerateConfig, ResponseSchema  # noqa: PLC0415
    from inspect_ai.util import JSONSchema  # noqa: PLC0415

    definition = find_eval(str(ROOT / "evals" / "qa_pairs"))
    sample = bridge.tasks.load_samples(definition)[0]
    request = bridge.tasks.generating.build_request(sample, definition, bridge.tasks.Sampling())
    merged = GenerateConfig(seed=1).merge(bridge.chat.generate_config(request, structured=True))
    sent = merged.response_schema.json_schema.model_dump(exclude_none=True)
    expected = item_schema(definition)
    assert expected["properties"]["pairs"].pop("prefixItems")
    assert sent == expected
    assert list(sent["properties"]["pairs"]["items"]["properties"]) == ["type", "question", "answer"]
    plain = ResponseSchema(name="x", json_schema=JSONSchema.model_validate(item_schema(definition)))
    assert "minItems" not in plain.json_schema.model_dump_json()  # why the bridge has a class of its own


# ---------------------------------------------------------------- logs out and in


def test_an_export_has_one_log_per_candidate_in_parts(logs: list[Path], graded: Path) -> None:
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
    row = next(row for (_, sample_id), row in rows_of(graded).items() if sample_id == sample.id)
    assert letters.answer == " ".join(fate[0] for _, fate in row)  # type: ignore[attr-defined]
    assert letters.metadata is not None
    assert {"item_id", "letter", "flags", "reason", "probabilities", "question", "answer"} <= set(
        letters.metadata["grades"][0] | {"probabilities": None}
    )


def test_a_log_s_own_numbers_are_those_of_its_samples(logs: list[Path]) -> None:
    from inspect_ai.log import read_eval_log  # noqa: PLC0415

    log = read_eval_log(str(logs[0]))
    assert log.results is not None
    assert log.samples is not None
    found = {score.name: score.metrics for score in log.results.scores}
    values = [sample.scores["letters"].value for sample in log.samples if sample.scores]
    assert found["letters"]["mean"].value == pytest.approx(sum(map(float, values)) / len(values))  # type: ignore[arg-type]
    assert set(found["usable"]) == {"usable_rate", "stderr", "failed"}


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
def test_out_and_in_again_is_the_same_run(
    bridge: Any, logs: list[Path], graded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = bridge.import_log(logs, tmp_path / "again")
    assert rows_of(again) == rows_of(graded)
    assert (again / "samples.jsonl").read_text() == (graded / "samples.jsonl").read_text()
    assert json.loads((again / "settings.json").read_text()) == json.loads(
        (graded / "settings.json").read_text()
    )
    assert numbers_of(again, capsys) == numbers_of(graded, capsys)


def test_an_export_does_not_overwrite(bridge: Any, graded: Path, logs: list[Path]) -> None:
    with RunStore.open(graded) as store, pytest.raises(UsageError, match="exists"):
        bridge.export_logs(store, logs[0].parent, shard=5)


def test_a_missing_part_is_named(bridge: Any, logs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"5 samples .*embedded-lead.* 12"):
        bridge.import_log([logs[0]], tmp_path / "run")
    with pytest.raises(DataError, match="a sample twice"):
        bridge.import_log([*logs, logs[0]], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
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
def test_a_log_that_lacks_something_is_refused_in_words(
    bridge: Any, logs: list[Path], change: Any, says: str, tmp_path: Path
) -> None:
    from inspect_ai.log import read_eval_log, write_eval_log  # noqa: PLC0415

    log = read_eval_log(str(logs[0]))
    change(log)
    write_eval_log(log, str(tmp_path / "changed.eval"))
    with pytest.raises(DataError, match=r"changed\.eval: ") as raised:
        bridge.import_log([tmp_path / "changed.eval"], tmp_path / "run")
    assert says in str(raised.value)


def grades(log: Any) -> list[dict[str, Any]]:
    return next(found for sample in log.samples if (found := sample.scores["letters"].metadata["grades"]))


def settings_of(log: Any) -> Any:
    return log.eval.metadata["qaeval"]["settings"]


def rehashed(part: dict[str, Any], key: str, **changes: Any) -> None:
    """Change a part of the settings, None taking a key away, and write the hash that then belongs to it."""
    kept = {name: value for name, value in part.items() if name not in {key, *changes}}
    kept |= {name: value for name, value in changes.items() if value is not None}
    part.clear()
    part.update({**kept, key: digest(kept)})


def change_eval(**changes: Any) -> Any:
    return lambda log: rehashed(settings_of(log)["eval"], "digest", **changes)


def change_rubric(**changes: Any) -> Any:
    return lambda log: rehashed(settings_of(log)["grading"]["rubric"], "sha", **changes)


def change_drawn(**changes: Any) -> Any:
    return lambda log: settings_of(log)["sample_set"].update(changes)


def change_candidate(**changes: Any) -> Any:
    return lambda log: settings_of(log)["candidates"]["embedded-lead"].update(changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
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
        (change_drawn(n="many"), "settings.sample_set.n: expected a whole number, got 'many'"),
        (change_drawn(n=True), "settings.sample_set.n: expected a whole number, got True"),
        (change_eval(items_per_sample=5), "expected items at positions [0, 1, 2, 3, 4], got [0, 1, 2]"),
        (change_drawn(seed="x"), "settings.sample_set.seed: expected a whole number, got 'x'"),
        (change_drawn(digest=5), "settings.sample_set.digest: expected text"),
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
def test_settings_that_qaeval_would_not_write_are_refused_by_key(
    bridge: Any, whole: Path, change: Any, says: str, tmp_path: Path
) -> None:
    refused = refusal(bridge, whole, change, tmp_path)
    assert refused.startswith(f"{tmp_path / 'changed.eval'}: ")
    assert says in refused


def refusal(bridge: Any, path: Path, change: Any, tmp_path: Path) -> str:
    """Change a log, import it, and return why it is not taken."""
    from inspect_ai.log import read_eval_log, write_eval_log  # noqa: PLC0415

    log = read_eval_log(str(path))
    change(log)
    write_eval_log(log, str(tmp_path / "changed.eval"))
    with pytest.raises(DataError) as raised:
        bridge.import_log([tmp_path / "changed.eval"], tmp_path / "run")
    assert not (tmp_path / "run").exists()
    return str(raised.value)


@pytest.fixture(scope="module")
def whole(bridge: Any, graded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One candidate's log, in one part."""
    with RunStore.open(graded) as store:
        return bridge.export_logs(store, tmp_path_factory.mktemp("whole"))[0]  # type: ignore[no-any-return]


def first_generation(log: Any) -> dict[str, Any]:
    return next(row for sample in log.samples if (row := sample.scores["letters"].metadata["generation"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
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
def test_words_that_were_changed_under_their_ids_are_refused(
    bridge: Any, whole: Path, change: Any, says: str, tmp_path: Path
) -> None:
    refused = refusal(bridge, whole, change, tmp_path)
    assert says in refused
    assert "content was changed" in refused


def test_a_number_of_samples_other_than_the_set_s_is_refused(
    bridge: Any, whole: Path, tmp_path: Path
) -> None:
    refused = refusal(bridge, whole, change_drawn(n=99), tmp_path)
    assert re.search(r"settings\.sample_set\.n: expected 12.* 99$", refused)


@pytest.mark.slow
def test_keys_that_this_version_would_add_are_filled_in(
    bridge: Any, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from inspect_ai.log import read_eval_log, write_eval_log  # noqa: PLC0415

    log = read_eval_log(str(whole))
    change_eval(enforce_schema=None, item_kind=None)(log)
    write_eval_log(log, str(tmp_path / "old.eval"))
    run_path = bridge.import_log([tmp_path / "old.eval"], tmp_path / "run")
    written = json.loads((run_path / "settings.json").read_text())["eval"]
    assert (written["item_kind"], written["enforce_schema"]) == ("qa_pair", True)
    assert written["digest"] == settings_of(log)["eval"]["digest"]
    numbers_of(run_path, capsys)


def test_items_that_were_graded_apart_go_out_and_in_again(bridge: Any, graded: Path, tmp_path: Path) -> None:
    twin = two_that_differ(graded, tmp_path / "apart", bridge)
    with RunStore.open(twin) as store:
        paths = bridge.export_logs(store, tmp_path / "logs")
    again = bridge.import_log(paths, tmp_path / "again")
    assert rows_of(again) == rows_of(twin)
    assert bridge.import_log(paths[1:], tmp_path / "alone")  # the id apart stands without the other one's
    ids = [{item.item_id for item, _ in found} for found in replies_by_candidate(bridge, paths)]
    assert ids[0] - ids[1]


def two_that_differ(graded: Path, out: Path, bridge: Any) -> Path:
    """Make a run whose candidates say the same, one item of which has two letters."""
    with RunStore.open(graded) as store:
        settings, samples = store.settings(), list(store.samples())
        grades_by_item = {row.item_id: row for row in store.grades()}
        mine = [row for row in store.generations() if name_of(row) == "embedded-lead"]
    settings["candidates"] = dict.fromkeys(("one", "twin"), settings["candidates"]["embedded-lead"])
    item = next(row for row in mine if isinstance(row, Generation)).items[0]
    with RunStore.create(out, settings, samples, resume=False) as store:
        parts = [
            bridge.importing._LogPart(out, settings, name, replies=[
                (
                    row.model_copy(update={"candidate": name, "task_id": generating_id(name, row.sample_id)}),
                    [(one, relettered(grades_by_item[one.item_id], name, one, item)) for one in row.items],
                )
                for row in mine
            ])
            for name in ("one", "twin")
        ]  # fmt: skip
        bridge.importing._write(store, parts)
    return out


def generating_id(candidate: str, sample_id: str) -> str:
    return record_id("generate", candidate, sample_id)


def relettered(row: Any, name: str, item: Any, changed: Any) -> Any:
    if name == "one" or item.item_id != changed.item_id:
        return row
    return row.model_copy(update={"letter": next(one for one in "ABC" if one != row.letter)})


def replies_by_candidate(bridge: Any, paths: list[Path]) -> list[list[Any]]:
    return [[entry for _, own in bridge.importing._read(path).replies for entry in own] for path in paths]


# ---------------------------------------------------------------- names and leftovers of an export


def renamed_run(graded: Path, out: Path, names: tuple[str, str]) -> Path:
    """Copy a run, its two candidates under other names."""
    other = dict(zip(("embedded-lead", "embedded-salient"), names, strict=True))
    with RunStore.open(graded) as store:
        settings = store.settings()
        settings["candidates"] = {other[name]: about for name, about in settings["candidates"].items()}
        with RunStore.create(out, settings, store.samples(), resume=False) as copy:
            with copy.writer("generations.jsonl") as writer:
                for row in store.generations():
                    assert isinstance(row, Generation)
                    name = other[row.candidate]
                    task_id = generating_id(name, row.sample_id)
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
def test_candidates_with_like_names_get_files_of_their_own(
    bridge: Any, graded: Path, names: tuple[str, str], files: list[str], tmp_path: Path
) -> None:
    path = renamed_run(graded, tmp_path / "run", names)
    with RunStore.open(path) as store:
        found = bridge.export_logs(store, tmp_path / "logs")
    assert [one.name for one in found] == [f"qa_pairs-{name}.eval" for name in files]
    assert rows_of(bridge.import_log(found, tmp_path / "again")) == rows_of(path)


def test_a_number_that_is_taken_is_not_given_again(bridge: Any) -> None:
    stems = bridge.exporting._stems(["a/b", "a-b", "a-b-2", "x" * 300])
    assert stems == {"a/b": "a-b-3", "a-b": "a-b", "a-b-2": "a-b-2", "x" * 300: "x" * 120}


@pytest.mark.parametrize("fails", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_export_that_fails_leaves_nothing(
    bridge: Any, graded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: BaseException
) -> None:
    write, written = bridge.exporting.write_eval_log, []

    def second_fails(log: Any, path: str) -> None:
        written.append(path)
        if len(written) % 2 == 0:
            Path(path).write_text("half")
            raise fails
        write(log, path)

    monkeypatch.setattr(bridge.exporting, "write_eval_log", second_fails)
    kind = StoreError if isinstance(fails, OSError) else KeyboardInterrupt
    with RunStore.open(graded) as store:
        with pytest.raises(kind):
            bridge.export_logs(store, tmp_path / "new" / "logs")
        assert not (tmp_path / "new").exists()
        (tmp_path / "old").mkdir()
        (tmp_path / "old" / "mine.txt").touch()
        with pytest.raises(kind):
            bridge.export_logs(store, tmp_path / "old")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["mine.txt"]


def test_an_unfinished_run_leaves_no_folder(bridge: Any, graded: Path, tmp_path: Path) -> None:
    path = renamed_run(graded, tmp_path / "run", ("one", "other"))
    rows = (path / "generations.jsonl").read_text().splitlines(keepends=True)
    (path / "generations.jsonl").write_text("".join(rows[:-1]))
    with RunStore.open(path) as store, pytest.raises(DataError, match="other has no row"):
        bridge.export_logs(store, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_one_log_that_is_there_stops_the_export_before_it_writes(
    bridge: Any, graded: Path, tmp_path: Path
) -> None:
    (tmp_path / "qa_pairs-embedded-salient.eval").touch()
    with RunStore.open(graded) as store, pytest.raises(UsageError, match=r"salient\.eval exists"):
        bridge.export_logs(store, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["qa_pairs-embedded-salient.eval"]


def test_a_file_that_is_no_log_is_refused(bridge: Any, tmp_path: Path) -> None:
    (tmp_path / "x.eval").write_text("{}")
    with pytest.raises(DataError, match="not an Inspect log"):
        bridge.import_log([tmp_path / "x.eval"], tmp_path / "run")


def test_logs_by_two_rubrics_are_not_put_together(bridge: Any, logs: list[Path], tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log, write_eval_log  # noqa: PLC0415

    log = read_eval_log(str(logs[0]))
    log.eval.metadata["qaeval"]["settings"]["sample_set"]["seed"] = 99  # type: ignore[index]
    write_eval_log(log, str(tmp_path / "other.eval"))
    with pytest.raises(NotComparableError, match="differ in sample_set"):
        bridge.import_log([logs[0], tmp_path / "other.eval"], tmp_path / "run")


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True), ("10.1.2.3", True), ("judge", True), ("gpu.internal", True), ("8.8.8.8", False),
        ("api.openai.com", False), ("", False),
    ],
)  # fmt: skip
def test_a_host_that_nobody_knows_counts_as_outside(bridge: Any, host: str, inside: bool) -> None:
    assert bridge.importing._is_internal_host(host) is inside


def test_an_item_that_was_graded_in_two_ways_is_two_items(
    bridge: Any, logs: list[Path], tmp_path: Path
) -> None:
    one, other = (bridge.importing._read(logs[place]) for place in (0, 0))
    row, entries = next(reply for reply in other.replies if reply[1])
    item, grade = entries[0]
    changed = grade.model_copy(update={"letter": next(name for name in "ABC" if name != grade.letter)})
    other.candidate, other.replies = "twin", [(row, [(item, changed), *entries[1:]])]
    with RunStore.create(tmp_path / "run", one.settings, one.samples.values(), resume=False) as store:
        bridge.importing._write(store, [one, other])
        letters = [row.letter for row in store.grades() if isinstance(row, Grade)]
        ids = {
            found.item_id for row in store.generations() if isinstance(row, Generation) for found in row.items
        }
    assert len(letters) == len({entry[0].item_id for reply in one.replies for entry in reply[1]}) + 1
    assert record_id("item", item.item_id, "twin") in ids


async def test_replies_of_another_solver_are_read_the_same_way(bridge: Any) -> None:
    from inspect_ai.model import ModelOutput  # noqa: PLC0415

    request = bridge.tasks.ChatRequest(messages=())
    said = bridge.tasks._RecordedReply(ModelOutput.from_content("m", "<think>x</think>{}"))
    assert (await said.complete(request)).text == "{}"
    cut = bridge.tasks._RecordedReply(ModelOutput.from_content("m", "{", stop_reason="max_tokens"))
    assert (await cut.complete(request)).finish_reason == "length"
    with pytest.raises(bridge.tasks.ChatError, match="stopped the reply"):
        await bridge.tasks._RecordedReply(ModelOutput.from_content("m", "{", stop_reason="unknown")).complete(
            request
        )


# ---------------------------------------------------------------- in process, without a server


class Provider:
    """Stands for a model of Inspect: gives outputs, or raises, one after the other."""

    def __init__(self, *outputs: Any, base_url: str | None = "http://user@judge.lan:8000/v1") -> None:
        self.api = SimpleNamespace(base_url=base_url)
        self.asked: list[tuple[list[Any], Any]] = []
        self._outputs = list(outputs)

    async def generate(self, turns: list[Any], config: Any) -> Any:
        self.asked.append((turns, config))
        output = self._outputs.pop(0)
        if isinstance(output, Exception):
            raise output
        return output


def output_of(text: str, stop_reason: Any = "stop", **more: Any) -> Any:
    from inspect_ai.model import ModelOutput  # noqa: PLC0415

    return ModelOutput.from_content("m", text, stop_reason=stop_reason).model_copy(update=more)


class StatusError(Exception):
    def __init__(self, status_code: int, text: str = "refused") -> None:
        super().__init__(text)
        self.status_code = status_code


ASKED = ChatRequest(
    (Message("system", "s"), Message("user", "u")), sampling=Sampling(0.3, 0.9, 33, 5), top_logprobs=4
)


async def test_a_request_reaches_inspect_whole_and_its_output_is_a_completion(bridge: Any) -> None:
    from inspect_ai.model import ModelUsage  # noqa: PLC0415

    usage = ModelUsage(input_tokens=7, input_tokens_cache_read=5, input_tokens_cache_write=2, output_tokens=3)
    model = Provider(output_of("{}", usage=usage, time=1.5))
    chat = bridge.chat.InspectChat(model)
    completion = await chat.complete(ASKED)
    assert (completion.text, completion.finish_reason, completion.latency_s) == ("{}", "stop", 1.5)
    assert completion.usage == Usage(prompt_tokens=14, completion_tokens=3, cached_tokens=5)
    assert (chat.host, chat.output.completion) == ("judge.lan", "{}")
    ((turns, config),) = model.asked
    assert [(turn.role, turn.content) for turn in turns] == [("system", "s"), ("user", "u")]
    assert (config.temperature, config.top_p, config.max_tokens, config.seed) == (0.3, 0.9, 33, 5)
    assert (config.logprobs, config.top_logprobs, config.response_schema) == (True, 4, None)


async def test_the_system_turn_is_merged_and_the_schema_sent_as_asked_for(bridge: Any) -> None:
    request = replace(ASKED, schema={"type": "object"}, top_logprobs=0)
    for structured, merge in ((True, True), (False, False)):
        model = Provider(output_of("{}"), base_url=None)
        chat = bridge.chat.InspectChat(model, structured=structured, merge_system=merge)
        completion = await chat.complete(request)
        ((turns, config),) = model.asked
        assert [turn.role for turn in turns] == (["user"] if merge else ["system", "user"])
        assert (config.response_schema is not None) == structured
        assert (config.logprobs, config.top_logprobs, completion.usage, chat.host) == (None, None, None, "")


async def test_an_aborted_reply_is_asked_again_and_not_for_ever(bridge: Any) -> None:
    model = Provider(output_of("", "unknown"), output_of("{}"))
    assert (await bridge.chat.InspectChat(model).complete(ASKED)).text == "{}"
    assert len(model.asked) == 2
    always = Provider(*(output_of("", "unknown") for _ in range(20)))
    with pytest.raises(ChatError) as raised:
        await bridge.chat.InspectChat(always).complete(ASKED)
    assert (raised.value.reason, len(always.asked)) == ("interrupted", bridge.chat._MAX_ATTEMPTS)


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
async def test_what_a_provider_raises_is_a_request_without_a_reply(
    bridge: Any, fault: Exception, reason: str
) -> None:
    chat = bridge.chat.InspectChat(Provider(fault))
    with pytest.raises(ChatError) as raised:
        await chat.complete(ASKED)
    assert (raised.value.reason, chat.output) == (reason, None)
    assert raised.value.detail == f"{type(fault).__name__}: {fault}"
    wrapped = RuntimeError("with the whole prompt")
    wrapped.__cause__ = fault
    assert (bridge.chat._chat_error(wrapped).reason, bridge.chat._chat_error(wrapped).detail) == (
        reason,
        raised.value.detail,
    )


async def test_an_output_without_a_reply_says_why(bridge: Any) -> None:
    for output, reason in (
        (output_of("", error="EngineDead"), "endpoint"),
        (output_of("", choices=[]), "endpoint"),
        (output_of("too long", "model_length"), "context_overflow"),
    ):
        with pytest.raises(ChatError) as raised:
            await bridge.chat.InspectChat(Provider(output)).complete(ASKED)
        assert raised.value.reason == reason


def test_token_counts_go_to_inspect_and_back(bridge: Any) -> None:
    usage = Usage(prompt_tokens=14, completion_tokens=3, cached_tokens=5)
    counted = bridge.chat.from_usage(usage)
    assert (counted.input_tokens, counted.input_tokens_cache_read, counted.output_tokens) == (9, 5, 3)
    assert counted.total_tokens == 17
    assert bridge.chat.as_usage(counted) == usage
    assert bridge.chat.from_usage(None) is bridge.chat.as_usage(None) is None


KINDS = ("factual", "conceptual", "comparison")
QA_PAIRS = str(ROOT / "evals" / "qa_pairs")


async def scored(
    bridge: Any,
    reply: str,
    letters: str,
    *,
    solves: bool = True,
    text: str = " ".join(["The valve opens at 3 bar."] * 5),
) -> tuple[Any, Any, Any]:
    """The state of a sample of Inspect after our solver, and the scores of our scorers; a dot is no letter."""
    from inspect_ai.model import GenerateConfig, ModelName, ModelUsage, get_model  # noqa: PLC0415
    from inspect_ai.model._model import init_active_model, init_model_roles  # noqa: PLC0415
    from inspect_ai.solver import TaskState  # noqa: PLC0415

    usage = ModelUsage(input_tokens=40, output_tokens=9, total_tokens=49)  # else Inspect loads a tokenizer
    candidate = get_model("mockllm/cand", custom_outputs=[output_of(reply, usage=usage)], memoize=False)
    graded = [
        output_of(grade_reply(letter) if letter != "." else "no letter", usage=usage) for letter in letters
    ]
    init_active_model(candidate, GenerateConfig())
    init_model_roles({"grader": get_model("mockllm/judge", custom_outputs=graded, memoize=False)})
    sample = Sample.of(Chunk(chunk_id="c", text=text, title="Valve"))
    state = TaskState(
        *(ModelName("mockllm/cand"), sample.sample_id, 0, "q", []),
        metadata=bridge.scoring.sample_metadata(sample),
        output=None if solves else output_of(reply),
    )
    if solves:
        state = await bridge.tasks.ask(QA_PAIRS)(state, None)
    score = await bridge.tasks.letters(QA_PAIRS)(state, None)
    state.scores = {"letters": score}
    return state, score, await bridge.tasks.usable(QA_PAIRS)(state, None)


@pytest.mark.parametrize("solves", [True, False])
async def test_every_item_is_graded_and_a_missing_letter_is_not_usable(bridge: Any, solves: bool) -> None:
    reply = pairs_reply([(kind, f"{kind}?", "At 3 bar.") for kind in KINDS])
    state, score, usable = await scored(bridge, reply, "AB.", solves=solves)
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
    assert [turn.content for turn in state.messages] == ([reply] if solves else [])
    assert set(score.metadata["hosts"]) == {"mockllm/judge", *(["mockllm/cand"] if solves else [])}


@pytest.mark.parametrize("solves", [True, False])
async def test_a_reply_without_items_has_no_score_and_its_reason(bridge: Any, solves: bool) -> None:
    _, score, usable = await scored(bridge, "no JSON", "", solves=solves)
    assert math.isnan(score.value)
    assert (score.metadata["failure"], score.metadata["grades"]) == ("invalid_json", [])
    assert (usable.value, usable.metadata["n_failed"]) == (0.0, 3)


async def test_a_reply_about_a_short_chunk_may_have_fewer_items(bridge: Any) -> None:
    reply = pairs_reply([("factual", "When does it open?", "At 3 bar.")])
    _, _, usable = await scored(bridge, reply, "A", text="The valve opens at 3 bar.")
    assert (usable.value, usable.answer) == (1.0, "1/1")
    assert usable.metadata == {"n_best": 1, "n_expected": 1, "n_failed": 0}


async def test_a_judge_without_any_letter_has_no_score(bridge: Any) -> None:
    reply = pairs_reply([(kind, f"{kind}?", "At 3 bar.") for kind in KINDS])
    _, score, usable = await scored(bridge, reply, "...")
    assert math.isnan(score.value)
    assert (usable.value, usable.metadata["n_failed"]) == (0.0, 3)


def test_a_task_has_a_sample_for_each_chunk_and_says_how_it_asks(bridge: Any) -> None:
    task = bridge.tasks.task_of(QA_PAIRS, n=3, lenient=True, merge_system=True, judge_mode="letter")
    about = task.metadata["qaeval"]
    assert about["candidate"] == {"structured": False, "merge_system": True}
    assert about["judge"] == {"structured": True, "judge_mode": "letter"}
    definition = find_eval(QA_PAIRS)
    assert (task.name, task.version, len(task.dataset)) == ("qa_pairs", definition.digest[:12], 3)
    assert about["settings"]["sample_set"]["n"] == 3
    assert {len(sample.input) for sample in task.dataset} == {1}
    separate = bridge.tasks.task_of(QA_PAIRS, n=3)
    assert {len(sample.input) for sample in separate.dataset} == {1 + bool(definition.prompt.system)}


def test_a_related_grader_is_refused_and_may_be_allowed(bridge: Any) -> None:
    from inspect_ai.model import get_model  # noqa: PLC0415

    judge = get_model("mockllm/qwen2.5-7b", memoize=False)
    with pytest.raises(UsageError, match=r"mockllm/qwen2\.5-7b.*allow_same_family"):
        bridge.tasks._require_foreign(judge, "vllm/qwen2-72b", allowed=False)
    bridge.tasks._require_foreign(judge, "vllm/qwen2-72b", allowed=True)
    bridge.tasks._require_foreign(judge, "vllm/mistral-7b", allowed=False)


# ---------------------------------------------------------------- the same letters through both


class Moody(LoopbackServer):
    """Goes wrong by the words of the prompt, so that the same question goes wrong in the same way, whoever asks.

    Args:
        free: Schema that replies keep where none is sent.
        worst: Whether it fails in the ways that are asked again.
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


def command(words: list[str], cwd: Path, env: Mapping[str, str]) -> str:
    done = subprocess.run(
        words, cwd=cwd, env=dict(env), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(server: LoopbackServer, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "QAEVAL_CACHE": "off",
        "LOOP_API_KEY": "none",
        "LOOP_BASE_URL": server.url,
        "INSPECT_LOG_DIR": str(tmp_path / "logs"),
        "INSPECT_DISPLAY": "plain",
    }


def bodies(requests: list[dict[str, Any]]) -> Counter[str]:
    """Requests that are more than a probe, without what says nothing, what Inspect's schema cannot hold, and levers of vLLM."""
    shown = [
        json.dumps(
            without_nothing(without_prefix_items({**body, "repetition_detection": None})), sort_keys=True
        )
        for body in requests
        if body.get("max_tokens", 0) > PROBE
    ]
    return Counter(dict.fromkeys(shown, 1))


def without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nothing(part) for key, part in value.items() if part is not None}
    return [without_nothing(part) for part in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("bridge")
@pytest.mark.parametrize(
    ("name", "n", "lenient"),
    [
        pytest.param("qa_pairs", 16, False, marks=pytest.mark.nightly),
        ("qa_pairs", 12, True),
        ("rag_qa", 16, False),
        pytest.param("dpo_pairs", 20, False, marks=pytest.mark.nightly),
    ],
)
def test_qaeval_and_inspect_give_the_same_letters_and_failures(
    name: str, n: int, lenient: bool, bridge: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = find_eval(str(ROOT / "evals" / name))
    structured = "off" if lenient else "json_schema"
    with Moody(item_schema(definition), worst=name == "rag_qa") as server:
        about = f"url: '{server.url}', family: candidates, structured: '{structured}'"
        entries = "".join(f"  {one}: {{{about}}}\n" for one in CANDIDATES)
        (tmp_path / "qaeval.yaml").write_text(
            f"models:\n{entries}judges:\n  judge: {{url: '{server.url}', family: judges}}\n"
        )
        env = environment(server, tmp_path)
        own = [
            "compare",
            *CANDIDATES,
            "--judge",
            "judge",
            "--no-controls",
            "--eval",
            str(definition.directory),
            "--n",
            str(n),
        ]
        command([str(BIN / "qaeval"), *own, "--out", "own"], tmp_path, env)
        asked, server.requests = bodies(server.requests), []
        models = ",".join(f"openai-api/loop/{one}" for one in CANDIDATES)
        words = [str(BIN / "inspect"), "eval", f"evals/{name}/task.py", "--model", models, "-T", f"n={n}"]
        words += [
            "--model-role",
            "grader=openai-api/loop/judge",
            "-T",
            f"lenient={lenient}",
            "--max-retries",
            "1",
        ]
        command(words, ROOT, env)
        assert bodies(server.requests) == asked
    through = bridge.import_log(sorted((tmp_path / "logs").glob("*.eval")), tmp_path / "through")
    expected, came = rows_of(tmp_path / "own"), rows_of(through)
    assert {key[1] for key in came} == {key[1] for key in expected}
    assert came == expected
    seen = Counter(fate[1] if isinstance(fate, tuple) else "items" for fate in expected.values())
    assert len(seen) >= 3, seen
    assert same_rates(numbers_of(through, capsys)) == same_rates(numbers_of(tmp_path / "own", capsys))


def same_rates(report: Any) -> list[Any]:
    """Candidates by name, whatever the order of the logs."""
    named = {one["facts"].pop("name").rpartition("/")[2]: one for one in report["candidates"]}
    return [{**named[name], "facts": None} for name in sorted(named)]


@pytest.mark.slow
@pytest.mark.usefixtures("bridge")
def test_the_entry_point_runs_and_without_a_grader_nobody_grades(tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log  # noqa: PLC0415

    with LoopbackServer(models=("cand", "judge")) as server:
        env = environment(server, tmp_path)
        words = [
            str(BIN / "inspect"),
            "eval",
            "qaeval/qa_pairs",
            "--model",
            "openai-api/loop/cand",
            "-T",
            "n=2",
        ]
        said = command(words, tmp_path, env)  # Inspect exits with 0 whatever happens
        assert "no usable grader" in " ".join(said.split())
        said = command([*words, "--model-role", "grader=openai-api/loop/cand"], tmp_path, env)
        assert "allow_same_family=true" in " ".join(said.split())
        assert not server.requests
        command([*words, "--model-role", "grader=openai-api/loop/judge"], tmp_path, env)
    logs = [read_eval_log(str(path)) for path in sorted((tmp_path / "logs").glob("*.eval"))]
    assert [log.status for log in logs] == ["error", "error", "success"]
    results = logs[2].results
    assert results is not None
    metrics = {score.name: score.metrics for score in results.scores}
    assert not math.isnan(metrics["letters"]["mean"].value)
    assert metrics["usable"]["failed"].value == 0
