"""The report in a real browser, opened from disk without a network."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=3000",
)


@pytest.fixture(scope="module")
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "the browser tests need chromium on the path (Debian: apt-get install chromium)"
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    command = [
        Path(sys.executable).with_name("qaeval"),
        "compare",
        "embedded-lead",
        "embedded-salient",
        "--out",
        path,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return path / "report.html"


def test_the_report_opens_and_shows_candidates_and_items(chromium: str, report: Path, tmp_path: Path) -> None:
    command = [chromium, *FLAGS, f"--user-data-dir={tmp_path}", "--dump-dom", f"file://{report}"]
    page = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    assert "embedded-salient" in page
    assert page.count("<details") >= 30  # one per chunk
    assert "Content-Security-Policy" in page


def test_the_report_draws_a_picture(chromium: str, report: Path, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    command = [
        chromium,
        *FLAGS,
        f"--user-data-dir={tmp_path}",
        f"--screenshot={picture}",
        "--window-size=1200,1600",
    ]
    subprocess.run([*command, f"file://{report}"], capture_output=True, timeout=90, check=True)
    assert picture.stat().st_size > 50_000  # a blank page of this size is far smaller


def shown(chromium: str, report: Path, folder: Path, fragment: str) -> tuple[int, str]:
    command = [chromium, *FLAGS, f"--user-data-dir={folder}", "--dump-dom", f"file://{report}{fragment}"]
    page = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    found = re.search(r'id="shown"[^>]*>(\d+) items? shown<', page)
    assert found, "the filter's script did not run"
    return int(found.group(1)), page


def rows_of(report: Path) -> list[dict[str, str]]:
    printed = subprocess.run(
        [Path(sys.executable).with_name("qaeval"), "report", report.parent, "--format", "csv"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return list(csv.DictReader(io.StringIO(printed)))


def differ(rows: list[dict[str, str]]) -> int:
    by_chunk: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        by_chunk.setdefault(row["chunk_id"], {}).setdefault(row["candidate"], []).append(row["letter"])
    letters = {chunk: {tuple(sorted(own)) for own in names.values()} for chunk, names in by_chunk.items()}
    return sum(len(letters[row["chunk_id"]]) > 1 for row in rows)


FILTERS: dict[str, Callable[[list[dict[str, str]]], int]] = {
    "": len,
    "#items?show=different": differ,
    "#items?show=failed": lambda rows: sum(row["status"] != "graded" for row in rows),
    "#items?show=mismatch": lambda rows: sum(
        any(given.rpartition(":")[2] != row["letter"] for given in row["labels"].split()) for row in rows
    ),
    "#items?stratum=energy&type=factual": lambda rows: sum(
        (row["stratum"], row["type"]) == ("energy", "factual") for row in rows
    ),
    "#items?without=A+B": lambda rows: sum(row["letter"] == "C" for row in rows),
}


@pytest.mark.parametrize("fragment", FILTERS)
def test_the_address_says_which_items_are_shown(
    chromium: str, report: Path, tmp_path: Path, fragment: str
) -> None:
    count, _ = shown(chromium, report, tmp_path, fragment)
    assert count == FILTERS[fragment](rows_of(report))


def test_a_link_to_a_chunk_opens_it(chromium: str, report: Path, tmp_path: Path) -> None:
    ids = re.findall(r'id="(chunk-[0-9a-f]+)"', report.read_text())
    _, page = shown(chromium, report, tmp_path, f"#{ids[5]}")
    opened = re.findall(r'<details class="chunk" id="(chunk-[0-9a-f]+)"[^>]* open=', page)
    assert opened == [ids[5]]


def test_nothing_is_loaded_and_nothing_is_complained_of(chromium: str, report: Path, tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    command = [
        chromium,
        *FLAGS,
        f"--user-data-dir={tmp_path}",
        f"--log-net-log={log}",
        "--enable-logging=stderr",
    ]
    done = subprocess.run(
        [*command, "--dump-dom", f"file://{report}"], capture_output=True, text=True, timeout=90, check=True
    )
    asked = re.findall(r'"url":"https?://([^/"]+)', log.read_text())
    # the browser itself looks for updates and the time
    assert [host for host in asked if not host.endswith(("google.com", "googleapis.com", "gvt1.com"))] == []
    assert "CONSOLE" not in done.stderr


def test_the_weights_are_applied_in_the_page(chromium: str, report: Path, tmp_path: Path) -> None:
    _, page = shown(chromium, report, tmp_path, "")
    found = re.search(r'<output id="weighed"[^>]*>([^<]+)<', page)
    assert found
    made = json.loads((report.parent / "report.json").read_text())["timing"]["choice"]
    assert found.group(1) == " · ".join(f"{one['candidate']} {one['mean']:.2f}" for one in made)
