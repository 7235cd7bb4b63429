"""`qaeval view` without a browser: what it lists, shows and starts, and what a request may reach."""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from urllib.parse import quote, urlencode

import pytest

from qaeval.cli import run as command
from qaeval.comparison.headline import verdict_sentence
from qaeval.comparison.report_file import load_report
from qaeval.history.read import read_runs
from qaeval.storage.run_directory import RunStore, is_written
from qaeval.storage.runs import RowCounts, find_run, list_runs
from qaeval.web.server import PageServer
from qaeval.web.view import RunPages
from web_client import Client, running

EXAMPLE = Path(__file__).parents[1] / "results" / "example"
HOSTILE = "<img src=x onerror=alert(1)> & 'a' %2e%2e ?#"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results = tmp_path / "results"
    shutil.copytree(EXAMPLE, results / "first")
    shutil.copytree(EXAMPLE, results / HOSTILE)
    unfinished = shutil.copytree(EXAMPLE, results / "unfinished")
    for name in ("manifest.json", "report.json", "report.html", "report.md"):
        (unfinished / name).unlink()
    (results / "notes").mkdir()
    (tmp_path / "settings.json").write_text("outside")
    return results


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    pages = RunPages(folder)
    with running(PageServer(pages.routes(), on_message=lambda _: None)) as client:
        yield client.enter()
    pages.close()


def url(name: str) -> str:
    return f"/runs/{quote(name, safe='')}"


def test_runs_are_listed_with_their_verdicts(client: Client, folder: Path) -> None:
    text = client.send("GET", "/").text
    assert verdict_sentence(load_report(folder / "first").verdict) in text
    assert all(url(name) in text for name in ("first", "unfinished", HOSTILE))
    assert "notes" not in text.replace(str(folder), "")
    assert "<img" not in text


@pytest.mark.slow
def test_a_name_that_is_not_utf_8_is_listed_and_opens(client: Client, folder: Path) -> None:
    (folder / "first").rename(folder / os.fsdecode(b"night\xff"))
    assert url("night\ufffd") in client.send("GET", "/").text
    assert client.send("GET", url("night\ufffd")).status == 200


@pytest.mark.slow
def test_a_run_shows_its_report_with_links_to_the_other_pages(client: Client) -> None:
    for name in ("first", HOSTILE):
        answer = client.send("GET", url(name))
        assert answer.status == 200
        assert 'class="chunk"' in answer.text
        assert f'href="/label/{quote(name, safe="")}"' in answer.text
        # the policy of the server allows files of its own only
        assert "<style>" not in answer.text
        assert "<script>" not in answer.text
    assert "flex-grow: 1000" in client.send("GET", "/static/report.css").text
    assert client.send("GET", "/static/page.js").status == 200


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "%2e%2e",
        "..%2f",
        "..%2fresults%2ffirst",
        "first%2f..%2f..",
        "%2fetc",
        "first%00",
        "notes",
        "%ff",
    ],
)
@pytest.mark.parametrize("start", ["/runs/", "/label/", "/compare?run=first&run="])
def test_only_names_of_the_list_are_runs(client: Client, start: str, name: str) -> None:
    answer = client.send("GET", f"{start}{name}")
    # a slash at the end, or below the address of a sitting, leads to the address without it
    assert answer.status in {303, 307, 404}
    assert "outside" not in answer.text
    assert 'class="chunk"' not in answer.text


def test_a_running_run_shows_its_rows_and_then_its_report(client: Client, folder: Path) -> None:
    run = folder / "unfinished"
    rows = (run / "grades.jsonl").read_bytes().splitlines(keepends=True)
    (run / "grades.jsonl").write_bytes(b"".join(rows[:40]))

    def state() -> dict[str, object]:
        answer: dict[str, object] = json.loads(client.send("GET", f"{url('unfinished')}/state").text)
        return answer

    assert "24 of 24 rows" in client.send("GET", url("unfinished")).text
    with RunStore.open(run, writable=True):
        first = state()
    assert (first["finished"], first["activity"]) == (False, "running")
    assert first["stages"] == [
        {"stage": "generate", "done": 24, "total": 24, "share": 1.0},
        {"stage": "grade", "done": 40, "total": 72, "share": pytest.approx(40 / 72)},
    ]
    with (run / "grades.jsonl").open("ab") as file:
        file.writelines(rows[40:50])
    assert state()["stages"][1]["done"] == 50  # type: ignore[index]
    shutil.copy(EXAMPLE / "report.json", run)
    shutil.copy(EXAMPLE / "manifest.json", run)
    assert state()["finished"] is True


def test_a_run_whose_settings_are_damaged_says_so(client: Client, folder: Path) -> None:
    (folder / "unfinished" / "settings.json").write_text("{}")
    for address in ("/runs/unfinished", "/runs/unfinished/state"):
        answer = client.send("GET", address)
        assert (answer.status, "settings.json: damaged" in answer.text) == (404, True)


@pytest.mark.parametrize("changed_s", [0, 3600])
def test_a_run_that_no_process_writes_is_stopped_and_any_other_is_running(
    client: Client, folder: Path, changed_s: int
) -> None:
    def states() -> tuple[str, bool]:
        answer = client.send("GET", f"{url('unfinished')}/state").text
        return json.loads(answer)["activity"], 'class="verdict stopped"' in client.send("GET", "/").text

    with RunStore.open(folder / "unfinished", writable=True):
        for file in (folder / "unfinished").iterdir():
            os.utime(file, (time.time() - changed_s, time.time() - changed_s))
        assert states() == ("running", False)  # also while a server loads its model, which takes minutes
    activity, is_stopped = states()
    assert is_stopped
    assert re.fullmatch(
        r"stopped, last written (59 min 5\d s|1 h.*) ago"
        if changed_s
        else r"stopped, last written [1-9]\.0 s ago",
        activity,
    )


def test_a_writer_waits_while_a_page_asks_for_the_lock(folder: Path) -> None:
    run = folder / "unfinished"
    asking = (run / ".lock").open("ab")
    fcntl.flock(asking, fcntl.LOCK_SH)
    Timer(0.03, asking.close).start()
    with RunStore.open(run, writable=True):
        assert is_written(run)
    assert not is_written(run)


def test_counts_start_anew_where_a_file_was_cut(tmp_path: Path) -> None:
    settings = json.loads((EXAMPLE / "settings.json").read_text())
    counts = RowCounts()
    for lines in (b"{}\n" * 5, b"{}\n" * 7, b"{}\n" * 3, b"{}\n{"):
        (tmp_path / "generations.jsonl").write_bytes(lines)
        assert counts.progress(tmp_path, settings)[0].done == lines.count(b"\n")


@pytest.mark.slow
def test_picked_runs_are_compared_side_by_side(client: Client) -> None:
    text = client.send("GET", f"/compare?{urlencode([('run', 'first'), ('run', HOSTILE)])}").text
    assert "embedded-lead@" in text
    assert client.send("GET", "/compare?run=first&run=first").status == 400


def test_runs_that_are_not_comparable_give_the_reason(client: Client, folder: Path) -> None:
    settings = folder / "first" / "settings.json"
    about = json.loads(settings.read_text())
    about["sample_set"]["digest"] = "other"
    settings.write_text(json.dumps(about))
    answer = client.send("GET", f"/compare?{urlencode([('run', 'first'), ('run', HOSTILE)])}")
    assert answer.status == 404
    assert 'role="alert"' in answer.text


def test_history_links_its_runs(client: Client) -> None:
    text = client.send("GET", "/history").text
    assert f'<a href="{url("first")}">first</a>' in text
    assert "<style>" not in text


def test_a_report_of_an_earlier_version_opens_without_its_rows(client: Client, folder: Path) -> None:
    run = folder / "first"
    settings = json.loads((run / "settings.json").read_text())
    del settings["eval"]["digest"]
    (run / "settings.json").write_text(json.dumps(settings))
    report = json.loads((run / "report.json").read_text())
    del report["review"], report["verdict"]
    (run / "report.json").write_text(json.dumps({**report, "of_another_version": 1}))
    answer = client.send("GET", url("first"))
    assert answer.status == 200
    assert 'id="decision"' in answer.text
    assert 'class="chunk"' not in answer.text


def test_labelling_starts_on_a_page_of_the_same_server(client: Client, folder: Path) -> None:
    started = client.send("POST", "/label/first", b"rater=anna")
    assert (started.status, started.headers["location"]) == (303, "/label/first/anna/")
    assert client.send("GET", "/label/first/anna/").status == 200
    item = json.loads(client.send("GET", "/label/first/anna/state").text)["item"]
    letter = {"assignment": item["assignment"], "letter": item["scale"][0]["letter"], "seconds": 3}
    answer = client.send("POST", "/label/first/anna/record", json.dumps(letter).encode())
    assert answer.status == 200
    assert item["assignment"] != json.loads(answer.text)["item"]["assignment"]
    assert (folder / "first" / "labels" / "anna.jsonl").is_file()
    again = client.send("POST", "/label/first", b"rater=anna")  # the sitting goes on
    assert again.headers["location"] == "/label/first/anna/"


def test_a_finished_sitting_is_followed_by_another(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qaeval.web.view._N_LABELS", 5)
    asked: list[str] = []
    for _ in range(2):
        client.send("POST", "/label/first", b"rater=anna")
        while item := json.loads(client.send("GET", "/label/first/anna/state").text)["item"]:
            asked.append(item["assignment"])
            letter = {"assignment": item["assignment"], "letter": item["scale"][0]["letter"], "seconds": 3}
            client.send("POST", "/label/first/anna/record", json.dumps(letter).encode())
    assert len(asked) == len(set(asked)) >= 10


@pytest.mark.parametrize("rater", ["", "../anna", "a/b", "%00"])
def test_a_rater_with_a_strange_name_is_refused(client: Client, folder: Path, rater: str) -> None:
    assert client.send("POST", "/label/first", f"rater={rater}".encode()).status == 400
    assert not (folder / "first" / "labels").exists() or not list((folder / "first" / "labels").iterdir())


def test_a_sitting_that_was_not_started_leads_to_its_start(client: Client) -> None:
    answer = client.send("GET", "/label/first/nobody/")
    assert (answer.status, answer.headers["location"]) == (303, "/label/first")


# ------------------------------------------------------------------------------ latest


def test_latest_is_the_run_that_was_worked_on_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    for age, name in enumerate(("first", "unfinished", HOSTILE)):
        for file in (Path("results") / name).iterdir():
            if file.is_file():
                os.utime(file, (2_000_000_000 - age, 2_000_000_000 - age))
    assert find_run("latest") == Path("results/first")
    assert list(list_runs(Path("results"))) == ["first", "unfinished", HOSTILE]
    os.utime(Path("results/unfinished/grades.jsonl"), (2_000_000_001, 2_000_000_001))
    assert find_run("latest") == Path("results/unfinished")
    Path("latest").mkdir()
    assert find_run("latest") == Path("latest")


def test_a_copy_that_a_gate_graded_again_is_no_run_of_its_own(folder: Path) -> None:
    shutil.copytree(folder / "unfinished", folder / "first.regraded-0a1b2c3d")
    assert "first.regraded-0a1b2c3d" not in list_runs(folder)
    assert "first.regraded-0a1b2c3d" not in {run_folder.name for run_folder in read_runs(folder)[1]}


@pytest.mark.slow
def test_commands_understand_latest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    os.utime(Path("results/first/manifest.json"), (2_000_000_000, 2_000_000_000))
    for words in (["decide", "latest"], ["cost", "latest"], ["agreement", "latest"], ["plan", "latest"]):
        assert command(words) == 0, words
    assert command(["export", "latest", "--to", "csv", "--out", "out"]) == 0
    capsys.readouterr()
    shutil.rmtree("results")
    assert command(["decide", "latest"]) == 65
    assert "qaeval compare" in capsys.readouterr().err
