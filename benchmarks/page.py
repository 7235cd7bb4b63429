"""How soon report.html is there and how fast it filters, by number of items, in headless Chromium.

    .venv/bin/python benchmarks/page.py [--chunks 100 6667]

Each page holds two candidates with items that differ; times are medians of five loads. The filter's time is that of the
script and of the layout it causes, typed word to finished frame.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from qaeval.comparison.html import render_html
from report_builders import case

REPEATS = 5
FILTER = """() => new Promise(done => {
  const field = document.querySelector("#filter [name=words]"), start = performance.now();
  field.value = String(Math.floor(Math.random() * 1e6));
  field.dispatchEvent(new Event("input", {bubbles: true}));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


def written(n_chunks: int, folder: Path) -> Path:
    """Write a report of six items a chunk."""
    words = ["AAB", "ABC!", "BBC", "A-C", "x"]
    letters = {
        name: [words[(place * step) % len(words)] for place in range(n_chunks)]
        for name, step in (("alpha", 1), ("beta", 3))
    }
    made = case(letters)
    path = folder / f"{n_chunks}.html"
    path.write_text(render_html(made.report(), made.items()), encoding="utf-8")
    return path


def measured(page: Page, path: Path) -> tuple[float, float, float]:
    """Milliseconds to the first paint, to the end of loading with the filter ready, and of one filtering."""
    page.goto(f"file://{path}", wait_until="load")
    page.wait_for_function(f"({PAINT}) !== null")
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    return page.evaluate(PAINT), loaded, page.evaluate(FILTER)


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, nargs="+", default=[200, 3334])
    arguments = parser.parse_args()
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    print("| items | size, MB | first paint, s | loaded, s | filter, ms |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for n_chunks in arguments.chunks:
            path = written(n_chunks, Path(folder))
            page = browser.new_page()
            seen = [measured(page, path) for _ in range(REPEATS)]
            page.close()
            paint, loaded, filtered = map(statistics.median, zip(*seen, strict=True))
            size = path.stat().st_size / 1e6
            print(
                f"| {6 * n_chunks:,} | {size:.1f} | {paint / 1000:.2f} | {loaded / 1000:.2f} | {filtered:.0f} |"
            )
        browser.close()


if __name__ == "__main__":
    main()
