"""The report in a real browser, opened from disk without a network."""

import shutil
import subprocess
import sys
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
