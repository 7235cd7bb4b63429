"""How long 100 labels take: words to read at 250 words a minute, and what the page adds to each item.

    .venv/bin/python benchmarks/label_page.py [--n 100] [--words-per-minute 250] [--no-browser]

The run is that of the embedded candidates over the chunks of `qa_pairs`. A chunk is read once, as its items follow each other; an
item that is asked again is read again with its chunk. What the page adds is the time from the key that labels an item to
the frame that shows the next one, in headless Chromium: request, label synced to the disk, answer, layout.
"""

import argparse
import shutil
import statistics
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

import qaeval
from qaeval.labelling import Sitting
from qaeval.web.label import LabelPage
from qaeval.web.server import PageServer

NEXT = """key => new Promise(done => {
  const start = performance.now();
  new MutationObserver((_, observer) => {
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
  }).observe(document.getElementById("progress"), {childList: true});
  document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
})"""


def words(*texts: str) -> int:
    """Count words."""
    return sum(len(text.split()) for text in texts)


@dataclass
class Reading:
    """What a rater reads in a sitting."""

    n_items: int = 0
    n_chunks: int = 0
    sources: int = 0
    items: int = 0
    repeated: int = 0
    rubric: int = 0

    @classmethod
    def of(cls, sitting: Sitting, n: int) -> "Reading":
        """Answer every question; the first ``n`` items count, and apart from them items asked again and the rubric."""
        reading, seen, text = cls(), set(), ""
        while question := sitting.current():
            texts = (question.question, question.answer, question.rejected)
            source = words(question.title, question.text) * (question.text != text)
            if (question.text, texts) in seen:
                reading.repeated += words(*texts) + source
            elif reading.n_items < n:
                reading.items += words(*texts)
                reading.sources += source
                reading.n_items += 1
                reading.n_chunks += bool(source)
            seen.add((question.text, texts))
            text, reading.rubric = question.text, words(question.rubric)
            sitting.record(question.assignment, "A", seconds=10.0)
        return reading


def report_reading(run: Path, n: int, per_minute: int, seeds: int) -> None:
    """Print minutes of reading: mean, least and most of some draws."""
    readings = []
    for seed in range(seeds):
        with Sitting.open(run, f"reader {seed}", n=n, seed=seed, sync=lambda _: None) as sitting:
            readings.append(Reading.of(sitting, n))
        (run / "labels" / f"reader {seed}.jsonl").unlink()  # the next rater is the first one
    chunks = sorted({reading.n_chunks for reading in readings})
    print(f"{n} items over {' or '.join(map(str, chunks))} chunks, {seeds} draws\n")
    print("| minutes | mean | least | most |\n|---|---|---|---|")
    rows = {
        "sources": [reading.sources for reading in readings],
        "questions and answers": [reading.items for reading in readings],
        "both": [reading.sources + reading.items for reading in readings],
        "items asked again": [reading.repeated for reading in readings],
        "rubric, once": [reading.rubric for reading in readings],
    }
    for name, counts in rows.items():
        minutes = [count / per_minute for count in counts]
        print(f"| {name} | {statistics.mean(minutes):.1f} | {min(minutes):.1f} | {max(minutes):.1f} |")


def measure(page: Page, n: int) -> list[float]:
    """Label items by key; return milliseconds from each key to the next item."""
    taken = []
    for number in range(n):
        page.wait_for_function("() => document.body.dataset.ready")
        taken.append(float(page.evaluate(NEXT, "abc"[number % 3])))
    return taken


def report_page(sitting: Sitting) -> None:
    """Print what the page adds to an item."""
    pages = LabelPage(sitting, summarise=lambda _: [], run="bench", rater=sitting.rater)
    server = PageServer(pages.routes(), on_message=lambda _: None)
    thread = threading.Thread(target=server.run)
    thread.start()
    path = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(server.access.urls()[0])
            taken = measure(page, sitting.progress().total)
            browser.close()
    finally:
        server.stop()
        thread.join()
    taken.sort()
    print(
        f"\nkey to next item: median {statistics.median(taken):.0f} ms, 95th percentile "
        f"{taken[int(0.95 * len(taken))]:.0f} ms, longest {taken[-1]:.0f} ms ({len(taken)} items)"
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--words-per-minute", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=12, help="draws to average the reading over")
    parser.add_argument("--no-browser", action="store_true", help="words only")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        qaeval.compare(["embedded-lead", "embedded-salient"], out=run)
        report_reading(run, arguments.n, arguments.words_per_minute, arguments.seeds)
        if not arguments.no_browser:
            with Sitting.open(run, "clicker", n=arguments.n) as sitting:
                report_page(sitting)


if __name__ == "__main__":
    main()
