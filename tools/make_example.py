"""Make everything anew that follows from the shipped chunks, labels and rubric: `make example`.

Writes `results/example`, `baselines/qa_pairs.json` and the output of the demo in README.md, from runs of the embedded models.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
EXAMPLE: Final = Path("results", "example")
"""From the root, as the run records its command."""
README: Final = ROOT / "README.md"
CANDIDATES: Final = ("embedded-lead", "embedded-salient")
_OUTPUT: Final = re.compile(r"^```text\n.*?^```$", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Run the embedded models and write what they give."""
    shutil.rmtree(ROOT / EXAMPLE, ignore_errors=True)
    qaeval("compare", *CANDIDATES, "--n", "12", "--seed", "7", "--out", str(EXAMPLE))
    with tempfile.TemporaryDirectory() as folder:
        demo = Path(folder) / "demo"
        printed = qaeval("compare", *CANDIDATES, "--out", str(demo))
        qaeval("baseline", "set", str(demo))
    text = README.read_text(encoding="utf-8")
    README.write_text(_OUTPUT.sub(lambda _: excerpt(printed, text), text, count=1), encoding="utf-8")


def excerpt(printed: str, readme: str) -> str:
    """Return what the README shows of the demo's output: verdict, the letters of each candidate, and the report's path."""
    lines = printed.splitlines()
    verdict = next(number for number, line in enumerate(lines) if line.startswith("No verdict"))
    why = lines[verdict + 1].partition(". ")[0] + "."
    bars = []
    for line, detail in pairwise(lines):
        if line.startswith(CANDIDATES) and " % usable, " in line:
            bars += [line, detail.partition(" · ")[0]]  # what follows is measured
    path = re.findall(r"^report: .*", readme, re.MULTILINE)[0]
    return "\n".join(("```text", lines[verdict], why, "…", *bars, "…", path, "```"))


def qaeval(*words: str) -> str:
    """Run a command of qaeval in the repository; return what it prints."""
    command = [sys.executable, "-m", "qaeval", *words]
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
