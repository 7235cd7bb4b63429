"""What a user may not read is named, and stops nothing else."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import qaeval
from permissions import closed, shared_folder
from qaeval.errors import StoreError
from qaeval.evals.find import find_eval, find_rubric
from qaeval.files.rows import read_rows
from qaeval.history.read import read_runs
from qaeval.storage.run_directory import RunStore
from qaeval.storage.runs import find_run
from qaeval.web.server import PageServer
from qaeval.web.view import RunPages
from web_client import running

EXAMPLE = Path(__file__).parents[1] / "results" / "example"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with shared_folder() as path:
        monkeypatch.chdir(path)
        yield path


@pytest.fixture
def private(folder: Path) -> Path:
    """A run beside another one."""
    for name in ("first", "private"):
        shutil.copytree(EXAMPLE, folder / "results" / name)
    return folder / "results" / "private"


def test_a_run_that_cannot_be_entered_is_listed_as_unread_beside_the_others(private: Path) -> None:
    (private.parent / "link").symlink_to(private / "labels")
    with closed(private):
        runs, unread = read_runs(private.parent)
    assert [run.name for run in runs] == ["first"]
    reasons = {one.name: one.reason for one in unread}
    assert reasons == dict.fromkeys(("link", "private"), "cannot be read: Permission denied")


def test_latest_is_a_run_that_can_be_entered(private: Path) -> None:
    with closed(private):
        assert find_run("latest") == Path("results/first")
        with pytest.raises(StoreError, match=r"private: reading failed: Permission denied; check its perm"):
            RunStore.open(private)


def test_the_pages_list_a_run_that_cannot_be_entered(private: Path) -> None:
    pages = RunPages(private.parent)
    with running(PageServer(pages.routes(), on_message=lambda _: None)) as client:
        client.enter()
        client.send("GET", "/")
        client.send("GET", "/runs/nowhere")  # imports what a page of an error needs
        with closed(private):
            listed, shown = client.send("GET", "/"), client.send("GET", "/runs/private")
    pages.close()
    assert "/runs/first" in listed.text
    assert "cannot be read: Permission denied" in listed.text
    assert "1970" not in listed.text
    assert (shown.status, "cannot be read: Permission denied" in shown.text) == (404, True)


def test_a_file_that_is_only_read_needs_no_other_out(folder: Path) -> None:
    rows = folder / "grades.jsonl"
    rows.write_text("{}\n")
    with closed(rows), pytest.raises(StoreError, match="Permission denied; check its permissions") as failure:
        list(read_rows(rows, json.loads))
    assert "--out" not in str(failure.value)


def test_evals_and_rubrics_that_cannot_be_read_are_named(folder: Path) -> None:
    for name, find in (("evals", find_eval), ("rubrics", find_rubric)):
        (folder / name).mkdir()
        with closed(folder / name), pytest.raises(StoreError, match=f"{name}/.*: reading failed"):
            find("qa_pair_abc")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gate.yaml", "evals/p"])
def test_a_project_is_not_put_over_what_cannot_be_read(name: str, folder: Path) -> None:
    words = ("init", "--documents", "handbook.md", "--name", "p", "--yes")
    (folder / "handbook.md").write_text("# Pump\n\nThe pump waits two seconds, because the valve is slow.\n")
    assert qaeval(*words, "earlier", cwd=folder).returncode == 0  # imports what the command needs
    (folder / "evals").mkdir()
    path = folder / name
    if name == "evals/p":
        path.mkdir()
        (path / "eval.yaml").write_text("")
    else:
        path.write_text("")
    with closed(path):
        done = qaeval(*words, ".", cwd=folder)
    assert done.returncode == 74, done.stderr
    assert f"{name}" in done.stderr
    assert "Permission denied; check its permissions" in done.stderr
    assert not (folder / "qaeval.yaml").exists()
