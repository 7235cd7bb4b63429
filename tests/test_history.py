"""Run history, and the same candidates in several runs."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gate_builders import measure
from qaeval.cli import run as qaeval
from qaeval.errors import DataError, EndpointError, NotComparableError
from qaeval.files.whole import write_file
from qaeval.history import mlflow
from qaeval.history.compare import compare_runs
from qaeval.history.mlflow import fetch, push
from qaeval.history.model import History, HistoryRate, HistoryRun, Unread, history_of
from qaeval.history.read import read_runs
from qaeval.history.sections import render_history
from qaeval.storage.run_directory import RunStore
from tracking_server import tracking_server

EXAMPLE = Path(__file__).parents[1] / "results" / "example"


def make_run(day: int, rate: float = 0.6, **overrides: Any) -> HistoryRun:
    defaults = {
        "name": f"run{day}",
        "started": f"2026-11-{day:02}T10:00:00+00:00",
        "eval": "qa_pairs",
        "eval_digest": "e",
        "samples_digest": "s",
        "n_samples": 200,
        "rubric": "qa_pair_abc/1",
        "rubric_digest": "r",
        "judge": "judge-7b",
        "judge_digest": "j",
        "rates": (HistoryRate(candidate="alpha", usable=measure(rate, rate - 0.1, rate + 0.1)),),
    }
    return HistoryRun(**{**defaults, **overrides})


def segments(history: History) -> list[tuple[tuple[str, ...], list[str]]]:
    (eval_history,) = history.evals
    return [(stretch.changes, [run.name for run in stretch.runs]) for stretch in eval_history.stretches]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with two copies of the example run."""
    for name in ("first", "second"):
        shutil.copytree(EXAMPLE, tmp_path / "results" / name)
    return tmp_path / "results"


# ------------------------------------------------------------------ history


def test_runs_are_ordered_by_time_not_by_name() -> None:
    history = history_of([make_run(3, name="a"), make_run(1, name="c"), make_run(2, name="b")])
    assert segments(history) == [((), ["c", "b", "a"])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judge": "judge-8b", "judge_digest": "k"}, "judge: judge-7b → judge-8b"),
        ({"judge_digest": "k"}, "judge: judge-7b, other weights or sampling"),
        ({"rubric": "qa_pair_abc/2", "rubric_digest": "q"}, "rubric: qa_pair_abc/1 → qa_pair_abc/2"),
        ({"samples_digest": "t"}, "samples: 200, another set"),
        ({"samples_digest": "t", "n_samples": 60}, "samples: 200 → 60"),
        ({"eval_digest": "f"}, "eval: another definition"),
    ],
)
def test_a_change_of_settings_starts_a_new_segment(change: dict[str, Any], message: str) -> None:
    history = history_of([make_run(1), make_run(2), make_run(3, **change), make_run(4, **change)])
    assert segments(history) == [((), ["run1", "run2"]), ((message,), ["run3", "run4"])]


def test_the_trend_line_breaks_at_a_change() -> None:
    from matplotlib import dates as mdates  # noqa: PLC0415 - 0.4 s that few tests need
    from matplotlib.figure import Figure  # noqa: PLC0415 - the same

    from qaeval.history.chart import trend  # noqa: PLC0415
    from qaeval.report.chart import LIGHT  # noqa: PLC0415

    history = history_of(
        [
            make_run(1, 0.5),
            make_run(2, 0.6),
            make_run(3, 0.7, judge_digest="k"),
            make_run(4, 0.8, judge_digest="k"),
        ]
    )
    axes = Figure().subplots()
    trend(history.evals[0], "trend").draw(axes, LIGHT)
    lines = [list(line.get_ydata()) for line in axes.get_lines() if line.get_marker() == "o"]
    assert lines == [[50.0, 60.0], [70.0, 80.0]]
    assert [text.get_text() for text in axes.texts] == ["judge"]
    assert (axes.get_ylabel(), axes.get_ylim()) == ("usable items, %", (0.0, 100.0))
    start, end = mdates.num2date(axes.get_xlim())
    assert (start.isoformat()[:16], end.isoformat()[:16]) == ("2026-11-01T07:07", "2026-11-04T12:52")


@pytest.mark.slow
def test_evals_are_separate_and_the_page_escapes_names() -> None:
    hostile = "<script>alert(1)</script>"
    history = history_of(
        [make_run(1, name=hostile), make_run(2, eval="rag_qa")], [Unread(name=hostile, reason=hostile)]
    )
    page = render_history(history, version="0.1.0")
    assert [eval_history.eval for eval_history in history.evals] == ["qa_pairs", "rag_qa"]
    assert "<script" not in page
    assert page.count("data:image/svg+xml") == 4
    assert "default-src &#39;none&#39;" in page
    assert render_history(history, version="0.1.0") == page


@pytest.mark.slow
@pytest.mark.parametrize("colour_scheme", ["light", "dark"])
def test_the_page_shows_its_chart_under_its_content_security_policy(
    tmp_path: Path, colour_scheme: Any
) -> None:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    page_path = write_file(
        tmp_path / "new" / "history.html",
        render_history(history_of([make_run(1), make_run(2)]), version="0.1.0"),
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=colour_scheme)
        console_messages: list[str] = []
        page.on("console", lambda message: console_messages.append(message.text))
        page.goto(page_path.as_uri())
        width = page.evaluate("document.querySelector('img').naturalWidth")
        scrolls_sideways = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        browser.close()
    assert width > 300
    assert not scrolls_sideways
    assert console_messages == []
    assert colour == {"light": "rgb(251, 251, 249)", "dark": "rgb(20, 24, 26)"}[colour_scheme]


def test_an_undefined_rate_is_shown_with_its_reason() -> None:
    undefined_rate = HistoryRate(candidate="alpha", usable=measure(None, reason="there is no item"))
    page = render_history(history_of([make_run(1), make_run(2, rates=(undefined_rate,))]), version="0.1.0")
    assert "there is no item" in page
    assert "undefined" in page


def test_unreadable_runs_are_listed_with_reasons(results: Path) -> None:
    (results / "empty").mkdir()
    (results / "first-csv").mkdir()  # an export of the run `first`
    (results / ".cache").mkdir()
    (results / "torn").mkdir()
    shutil.copy(EXAMPLE / "settings.json", results / "torn")
    (results / "second" / "report.json").write_text('{"run": ')
    (results / "first" / "gate.json").write_text('{"outcome": "pass", "more": 1}')
    runs, unread = read_runs(results)
    assert [(run.name, run.gate, run.rubric) for run in runs] == [("first", "pass", "qa_pair_abc/3")]
    reasons = {row.name: row.reason for row in unread}
    assert set(reasons) == {"empty", "torn", "second"}
    assert reasons["empty"] == "no run (no settings.json)"
    assert "manifest.json" in reasons["torn"]
    assert reasons["second"].startswith("report.json: ")


def test_reports_of_other_versions_are_read_if_possible(results: Path) -> None:
    path = results / "first" / "report.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps({**report, "new": 1}))
    del report["rubric"]
    (results / "second" / "report.json").write_text(json.dumps(report))
    runs, (unread,) = read_runs(results)
    assert [run.name for run in runs] == ["first"]
    assert unread.reason.startswith("report.json: ")
    assert " rubric: " in unread.reason


@pytest.mark.parametrize("started", ["yesterday", "2026-01-01T00:00:00"])
def test_a_run_with_an_invalid_start_time_is_unread(started: str, results: Path) -> None:
    path = results / "first" / "report.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps({**report, "run": {**report["run"], "started": started}}))
    runs, (unread,) = read_runs(results)
    assert [run.name for run in runs] == ["second"]
    assert unread.reason.startswith("report.json: run.started: ")


def test_runs_from_two_time_zones_are_ordered_by_instant() -> None:
    # 09:30 UTC, before the other run's 10:00
    runs = (make_run(1), make_run(1, name="east", started="2026-11-01T11:30:00+02:00"))
    assert segments(history_of(runs)) == [((), ["east", "run1"])]


def test_undecodable_folder_names_are_shown(results: Path) -> None:
    (results / "first").rename(results / os.fsdecode(b"a\xff"))
    (results / os.fsdecode(b"b\xff")).mkdir()
    assert qaeval(["history", str(results)]) == 0
    page = (results / "history.html").read_text()
    assert "a\ufffd" in page
    assert "b\ufffd" in page


def test_a_missing_or_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_runs(tmp_path / "reslts")
    with pytest.raises(DataError, match="no run directory"):
        read_runs(tmp_path)


def test_the_command_prints_a_table_and_writes_a_page(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert qaeval(["history", str(results)]) == 0
    out = capsys.readouterr().out
    usable = json.loads((EXAMPLE / "report.json").read_text())["candidates"][1]["usable"]
    assert f"{100 * usable['value']:.1f} % [{100 * usable['low']:.1f}, {100 * usable['high']:.1f}]" in out
    assert (results / "history.html").read_text().startswith("<!DOCTYPE html>")
    (results / "history.html").unlink()
    assert qaeval(["history", str(results), "--json"]) == 0
    assert len(History.model_validate_json(capsys.readouterr().out).evals[0].stretches[0].runs) == 2
    assert not (results / "history.html").exists()


def test_terminal_escapes_in_names_are_neutralised(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "first").rename(results / "a\x1b]0;owned\x07")
    (results / "b\x1b[2J").mkdir()
    assert qaeval(["history", str(results)]) == 0
    assert not set("\x1b\x07") & set(capsys.readouterr().out)
    assert qaeval(["history", f"{results}\x1b[2Jno"]) == 65
    assert "␛[2Jno: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--push"], ["results", "--mlflow", "http://127.0.0.1:1"]])
def test_conflicting_options_are_refused(arguments: list[str]) -> None:
    assert qaeval(["history", *arguments]) == 64


# ------------------------------------------------------------------ compare-runs


def replace_letters(run: Path, candidate: str, old: str, new: str) -> int:
    """Replace one letter by another for the items that only this candidate wrote; return how many changed."""
    generations = [json.loads(line) for line in (run / "generations.jsonl").read_text().splitlines()]
    ids = {
        name: {
            item["item_id"] for row in generations if row.get("candidate") == name for item in row["items"]
        }
        for name in ("embedded-lead", "embedded-salient")
    }
    item_ids = ids.pop(candidate) - set().union(*ids.values())
    n_changed, rows = 0, []
    for line in (run / "grades.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["item_id"] in item_ids and row.get("letter") == old:
            row["letter"], n_changed = new, n_changed + 1
        rows.append(json.dumps(row))
    (run / "grades.jsonl").write_text("\n".join(rows) + "\n")
    return n_changed


def compare_stores(*paths: Path) -> Any:
    stores = [RunStore.open(path) for path in paths]
    try:
        return compare_runs(stores, margin=0.05)
    finally:
        for store in stores:
            store.close()


def test_a_candidate_is_paired_with_itself_in_the_other_run(results: Path) -> None:
    n_changed = replace_letters(results / "second", "embedded-salient", "A", "B")
    comparison = compare_stores(results / "first", results / "second")
    lead, salient = comparison.pairs
    assert (lead.candidate, lead.difference.difference.value) == ("embedded-lead", 0.0)
    assert (salient.difference.a, salient.difference.b) == (
        "embedded-salient@first",
        "embedded-salient@second",
    )
    # 12 chunks of 3 items each
    assert n_changed > 5
    assert salient.difference.difference.value == pytest.approx(-n_changed / 36)
    assert salient.other.usable.value == pytest.approx((salient.first.usable.value or 0) - n_changed / 36)
    (settings,) = comparison.settings
    assert "differ" not in settings


def test_only_common_candidates_are_compared_and_changed_settings_are_listed(results: Path) -> None:
    path = results / "second" / "settings.json"
    settings = json.loads(path.read_text())
    settings["candidates"]["other"] = settings["candidates"].pop("embedded-lead")
    settings["candidates"]["embedded-salient"]["revision"] = "v2"
    path.write_text(json.dumps(settings))
    rows = (results / "second" / "generations.jsonl").read_text().replace('"embedded-lead"', '"other"')
    (results / "second" / "generations.jsonl").write_text(rows)
    comparison = compare_stores(results / "first", results / "second")
    assert [pair.candidate for pair in comparison.pairs] == ["embedded-salient"]
    assert comparison.left_out == ("embedded-lead@first", "other@second")
    assert "candidates.embedded-salient.revision" in comparison.settings[0]
    assert '"v2"' in comparison.settings[0]


def test_three_runs_are_compared_with_the_first_and_corrected_together(results: Path) -> None:
    shutil.copytree(results / "second", results / "third")
    comparison = compare_stores(results / "first", results / "second", results / "third")
    assert [(pair.difference.a, pair.difference.b) for pair in comparison.pairs] == [
        (f"{name}@first", f"{name}@{run}")
        for run in ("second", "third")
        for name in ("embedded-lead", "embedded-salient")
    ]
    assert "for 4 pairs" in comparison.pairs[0].difference.sentence


def test_runs_with_different_rubrics_are_not_compared(results: Path) -> None:
    path = results / "second" / "settings.json"
    settings = json.loads(path.read_text())
    settings["grading"]["rubric"]["sha"] = "0" * 64
    path.write_text(json.dumps(settings))
    with pytest.raises(NotComparableError, match="they differ in rubric"):
        compare_stores(results / "first", results / "second")


@pytest.mark.slow
def test_the_comparison_is_printed(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(results / name) for name in ("first", "second")]
    assert qaeval(["compare-runs", *paths]) == 0
    assert compare_stores(*map(Path, paths)).settings[0] in capsys.readouterr().out
    assert qaeval(["compare-runs", *paths, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == ["first", "second"]
    assert qaeval(["compare-runs", paths[0]]) == 64


# ------------------------------------------------------------------ MLflow

LOUD = pytest.mark.filterwarnings("ignore:::mlflow", "ignore::DeprecationWarning")
"""MLflow warns about its own code."""


@LOUD
@pytest.mark.slow
def test_pushed_runs_are_fetched_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = (
        make_run(1),
        make_run(2, rates=(*make_run(2).rates, HistoryRate(candidate="be|ta", usable=measure(None)))),
    )
    for name in ("DO_NOT_TRACK", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with tracking_server() as server:
        assert push(server.url, "qaeval", runs) == ("run1", "run2")
        server.page = 1
        assert push(server.url, "qaeval", (*runs, make_run(3))) == ("run3",)
        foreign = {"experiment_id": "1", "run_name": "other", "start_time": 0, "tags": []}
        server.answer("/api/2.0/mlflow/runs/create", foreign)
        fetched, unread = fetch(server.url, "qaeval")
        metrics = {metric["key"]: metric["value"] for metric in server.runs[f"{0:032x}"]["data"]["metrics"]}
        with pytest.raises(EndpointError, match="no experiment 'other'"):
            fetch(server.url, "other")
    assert fetched == (*runs, make_run(3))
    assert [run.name for run in unread] == ["other"]
    assert metrics == {
        "usable_rate/alpha/value": 0.6,
        "usable_rate/alpha/low": 0.5,
        "usable_rate/alpha/high": 0.7,
    }
    assert {run["info"]["status"] for run in list(server.runs.values())[:3]} == {"FINISHED"}
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"


@LOUD
@pytest.mark.slow
def test_an_unreachable_server_is_named() -> None:
    with socket.socket() as unused_socket:
        unused_socket.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused_socket.getsockname()[1]}"
        with pytest.raises(EndpointError, match="got: Connection refused"):
            fetch(url, "qaeval")


@pytest.mark.parametrize("url", ["http://8.8.8.8", "http://93.184.216.34:5000/x"])
def test_results_are_not_sent_to_public_servers(url: str) -> None:
    with pytest.raises(EndpointError, match="your own network"):
        push(url, "qaeval", (make_run(1),))


@pytest.mark.slow
def test_the_mlflow_client_contacts_only_the_tracking_server(results: Path) -> None:
    program = (
        "import socket, sys\n"
        "whom = set()\n"
        "connect = socket.socket.connect\n"
        "def watched(self, address):\n"
        "    whom.add(address[0] if isinstance(address, tuple) else address)\n"
        "    return connect(self, address)\n"
        "socket.socket.connect = watched\n"
        "from qaeval.cli import run\n"
        "code = run(sys.argv[1:])\n"
        "import mlflow.telemetry, threading\n"
        "assert mlflow.telemetry.get_telemetry_client() is None\n"
        "print(code, sorted(map(str, whom)), file=sys.stderr)\n"
    )
    with tracking_server() as server:
        arguments = ["history", str(results), "--mlflow", server.url, "--push"]
        env = {name: value for name, value in os.environ.items() if name not in {"CI", "PYTEST_CURRENT_TEST"}}
        process = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
            env=env,
        )
        assert len(server.runs) == 2
    assert process.stderr.splitlines()[-1] == "0 ['127.0.0.1']"


class FakeTrackingClient:
    """Keeps runs as a tracking server does, and returns them in pages of two."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.metrics: dict[str, float] = {}
        self.params: dict[str, str] = {}
        self.ended: list[tuple[str, str]] = []
        self.asked: list[tuple[list[str], str | None]] = []

    def create_run(self, experiment_id: str, *, start_time: int, run_name: str, tags: dict[str, str]) -> Any:
        info = SimpleNamespace(
            run_id=f"id{len(self.runs)}",
            run_name=run_name,
            experiment_id=experiment_id,
            start_time=start_time,
        )
        self.runs.append(SimpleNamespace(info=info, data=SimpleNamespace(tags=tags)))
        return self.runs[-1]

    def log_batch(self, run_id: str, *, metrics: list[Any], params: list[Any]) -> None:
        self.metrics |= {f"{run_id} {metric.key}": metric.value for metric in metrics}
        self.params |= {f"{run_id} {param.key}": param.value for param in params}

    def set_terminated(self, run_id: str, status: str) -> None:
        self.ended.append((run_id, status))

    def search_runs(self, ids: list[str], *, max_results: int, page_token: str | None) -> Any:
        assert max_results <= 1000
        self.asked.append((ids, page_token))
        start = int(page_token or 0)
        page = Page(self.runs[start : start + 2])
        page.token = str(start + 2) if start + 2 < len(self.runs) else None
        return page


class Page(list[Any]):
    token: str | None


@pytest.mark.slow
def test_a_run_round_trips_through_a_tracking_server() -> None:
    client: Any = FakeTrackingClient()
    runs = [
        make_run(
            day,
            rates=tuple(HistoryRate(candidate=f"a/{n}", usable=measure(0.6, 0.5, high)) for n in range(12)),
        )
        for day, high in ((1, 0.7), (2, None), (3, 0.7))
    ]
    for run in runs:
        mlflow._write(client, "7", run)
    stored = list(mlflow._runs(client, "7"))
    assert [mlflow._read(run) for run in stored] == runs
    assert client.asked == [(["7"], None), (["7"], "2")]
    assert {run.info.experiment_id for run in stored} == {"7"}
    assert [run.info.run_name for run in stored] == ["run1", "run2", "run3"]
    # 2026-11-01 10:00 UTC
    assert stored[0].info.start_time == 1_793_527_200_000
    assert len({run.data.tags["qaeval.key"] for run in stored}) == 3
    assert client.metrics["id0 usable_rate/a_11/high"] == 0.7
    assert client.metrics["id0 usable_rate/a_0/value"] == 0.6
    assert "id1 usable_rate/a_0/high" not in client.metrics
    assert client.params["id2 samples"] == "200"
    assert client.params["id2 judge"] == "judge-7b"
    assert client.ended == [(f"id{index}", "FINISHED") for index in range(3)]
    with pytest.raises(KeyError):  # of another program
        mlflow._read(SimpleNamespace(data=SimpleNamespace(tags={})))  # type: ignore[arg-type]


def test_foreign_runs_are_listed_by_name_or_id() -> None:
    client: Any = FakeTrackingClient()
    mlflow._write(client, "7", make_run(1))
    client.create_run("7", start_time=0, run_name="training", tags={})
    client.create_run("7", start_time=0, run_name="", tags={"qaeval.run": "{}"})
    runs, unread = mlflow._read_all(mlflow._runs(client, "7"))
    assert runs == (make_run(1),)
    assert [(row.name, row.reason) for row in unread] == [
        ("training", "not written by this version of qaeval"),
        ("id2", "not written by this version of qaeval"),
    ]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Max retries (Caused by X('y: [Errno 111] Connection refused'))", "Connection refused"),
        ("a  <b>\n page", "a <b> page"),
        ("z" * 300, "z" * 200),
    ],
)
def test_the_cause_of_a_failed_request_is_its_system_error_or_its_first_characters(
    text: str, cause: str
) -> None:
    assert mlflow._cause(text) == cause


@pytest.mark.parametrize("url", ["http://[::1", "http://", "", "file:///tmp/x"])
def test_invalid_tracking_server_urls_are_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert qaeval(["history", f"--mlflow={url}"]) == 69
    assert "expected a URL" in capsys.readouterr().err


def test_a_public_tracking_server_is_refused_without_a_connection() -> None:
    with pytest.raises(EndpointError, match="outside"):
        fetch("http://203.0.113.7:5000", "evals")
