"""Write docs/images/report.png: the first screen of a report about made-up letters, as the README shows it.

Run it with `python tools/make_report_picture.py` after a change of that screen; it needs Chromium.
"""

import random
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from qaeval.testing import make_run

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "report.png"
WIDTH, HEIGHT = 1240, 720
N_CHUNKS, N_LABELLED = 120, 34


def main() -> None:
    """Make a run with made-up letters and labels, and take the picture of its report."""
    rng = random.Random(7)  # noqa: S311 - made-up letters
    rates = {"mistral": (0.62, 0.26), "qwen": (0.81, 0.14)}
    letters = {name: [_word(rng, *rate) for _ in range(N_CHUNKS)] for name, rate in rates.items()}
    labelled = sorted(rng.sample(range(N_CHUNKS), N_LABELLED))
    labels = {
        name: [_reread(rng, word) if index in labelled else "---" for index, word in enumerate(words)]
        for name, words in letters.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder, "run"), letters, labels={"anna": labels}, judge="selene")
        page = run.write_report() / "report.html"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            view = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            view.goto(page.as_uri())
            view.screenshot(path=PICTURE)
            browser.close()


def _word(rng: random.Random, usable: float, minor: float) -> str:
    return "".join(rng.choices("ABC", [usable, minor, 1 - usable - minor], k=3))


def _reread(rng: random.Random, word: str) -> str:
    return "".join(rng.choice("ABC") if rng.random() < 0.12 else letter for letter in word)


if __name__ == "__main__":
    main()
