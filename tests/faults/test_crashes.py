"""A crash at every operation: each writing command is killed or its disk fails, and a rerun completes its work.

Between the two, every file is absent or complete, with its old or new content; after the rerun, the folder is that of an
undisturbed command. The quick suite takes some operations of each command, `--nightly` all of them; of a command with more than
`ALL` operations, the first and the last of each kind on each file.
"""

import ctypes
import importlib
import json
import os
import pkgutil
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import pytest

ROOT: Final = Path(__file__).parents[2]
MODES: Final = {"killed before": 1, "killed in the middle": 2, "EIO": 3, "full disk": 4}
QUICK: Final = 2
"""Operations of each command and mode in the quick suite."""
ALL: Final = 60
"""Number of operations up to which a nightly run tries every one of a command."""
GROWING: Final = {"generations.jsonl", "grades.jsonl", "controls.jsonl", "sessions.jsonl", "metrics.jsonl"}
"""Files of rows: a killed process may leave a part of them, with an incomplete last line."""
REPORTS: Final = {"report.json", "manifest.json", "gate.json"}
"""Documents with times and speeds of their run."""
VOLATILE: Final = re.compile(
    rb'"(?:\w*(?:started|finished|seconds|latency_s|time|created|at|date|sha256|git_commit|load_s)\w*)": ?[^,}\]]+'
)
TEMPORARY: Final = re.compile(r"\b[0-9a-f]{16}\.partial\b")

pytestmark = pytest.mark.timeout(7200)  # of a nightly run on a busy machine


@dataclass(frozen=True)
class Command:
    """A command that writes.

    Attributes:
        words: Its arguments; the working directory is a copy of the prepared folder.
        again: Arguments of the rerun; empty means the same.
        exists: Whether the rerun may be refused because the first command had finished its file.
    """

    words: tuple[str, ...]
    again: tuple[str, ...] = ()
    exists: bool = False


FLOOR: Final = ("embedded-lead", "embedded-salient", "--n", "3", "--seed", "1", "--yes", "--no-cache")
COMMANDS: Final = {
    "chunk": Command(("chunk", "docs", "--out", "out.jsonl"), exists=True),
    "sample": Command(("sample", "--n", "5", "--out", "out.jsonl"), exists=True),
    "new-eval": Command(("new-eval", "mine"), exists=True),
    "schema": Command(("schema", "--out", "schemas")),
    "init": Command(
        ("init", "project", "--documents", "docs", "--candidate", "embedded-lead", "--yes"), exists=True
    ),
    "compare": Command(("compare", *FLOOR, "--out", "new"), ("compare", *FLOOR, "--out", "new", "--resume")),
    "report": Command(("report", "run")),
    "export sft": Command(("export", "run", "--to", "csv", "--out", "out")),
    "export labels": Command(("export", "run", "--to", "labels", "--n", "4", "--out", "out")),
    "baseline set": Command(("baseline", "set", "run", "--out", "baseline.json")),
    "gate": Command(("gate", "run", "--baseline", "run", "--junit", "junit.xml", "--comment", "comment.md")),
    "import": Command(("import", "pairs.jsonl", "--out", "imported"), exists=True),
    "history": Command(("history", ".", "--out", "history.html")),
    "repair": Command(("repair", "damaged")),
    "labels import": Command(("labels", "import", "run", "anna.jsonl")),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("disk") / "libfailingdisk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the input of the commands: documents, a graded run, a damaged one, labels and items."""
    folder = tmp_path_factory.mktemp("prepared")
    run = folder / "run"
    command = [
        sys.executable,
        "-m",
        "qaeval",
        "compare",
        "embedded-lead",
        "embedded-salient",
        "--n",
        "12",
        "--yes",
        "--out",
        run,
    ]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    shutil.copytree(run, folder / "damaged")
    lines = (run / "grades.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "damaged" / "grades.jsonl").write_bytes(b"".join([lines[0], b"[]\n", *lines[2:]]))
    (folder / "docs").mkdir()
    (folder / "docs" / "a.md").write_text(
        "# Valves\n\n" + "Valve 7 opens at 9 bar and closes within 12 seconds. " * 30
    )
    shutil.copy(ROOT / "docs" / "examples" / "pairs.jsonl", folder / "pairs.jsonl")
    items = [json.loads(line) for line in lines[:6]]
    rubric = json.loads((run / "settings.json").read_text())["grading"]["rubric"]
    rows = [
        {
            "item_id": row["item_id"],
            "letter": "B",
            "rater": "anna",
            "rater_kind": "human",
            "rubric": f"{rubric['name']}/{rubric['version']}",
        }
        for row in items
    ]
    (folder / "anna.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class Machine:
    """A process with qaeval loaded and the failing disk preloaded; each try is a fork of it."""

    def __init__(self, library: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(library)],
            env={**os.environ, "LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, folder: Path, arguments: tuple[str, ...], mode: int = 0, operation_number: int = 0
    ) -> tuple[int, list[str]]:
        """Run a command in a folder; return its exit code, negative if it was killed, and its operations in order.

        Operations are named by kind and file, ``write run/report.json``; names are those of an undisturbed run.
        """
        assert self._process.stdin
        assert self._process.stdout
        print(
            json.dumps([str(folder), arguments, mode, operation_number]), file=self._process.stdin, flush=True
        )
        code, operations = json.loads(self._process.stdout.readline())
        return code, operations

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def machine(library: Path) -> Iterator[Machine]:
    machine = Machine(library)
    yield machine
    machine.close()


def operations_to_try(operations: list[str]) -> list[int]:
    """Return the numbers of the operations that a nightly run tries, from 1."""
    if len(operations) <= ALL:
        return [*range(1, len(operations) + 1)]
    # temporary names are random
    names = [TEMPORARY.sub("partial", operation) for operation in operations]
    first = {name: number for number, name in reversed([*enumerate(names, 1)])}
    return sorted({*first.values(), *{name: number for number, name in enumerate(names, 1)}.values()})


def contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files but locks, without times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.name in REPORTS
        else VOLATILE.sub(b'"t":0', path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and "__pycache__" not in path.parts
    }


def comparable(name: str, content: bytes | None) -> object:
    """Return what must be equal in the end: for pages and reports that they exist, for rows their set and number."""
    if content is None:
        return None
    path = Path(name)
    if path.suffix in {".html", ".svg", ".md"} or path.name in {*REPORTS, "sessions.jsonl"}:
        return True
    if path.suffix != ".jsonl":
        return content
    rows = [json.loads(line) for line in content.splitlines()]
    # the last row of a task counts
    last = {}
    for index, row in enumerate(rows):
        last[row.get("task_id", index) if isinstance(row, dict) else index] = json.dumps(row)
    return len(rows), sorted(last.values())


def is_complete(name: str, content: bytes, old: dict[str, bytes], new: dict[str, bytes]) -> bool:
    path = Path(name)
    if any(part.endswith(".partial") for part in path.parts):
        return True  # under a temporary name
    if path.name in GROWING or path.parent.name == "labels":
        return True
    if path.suffix in {".html", ".svg"} or path.name == "report.md":
        return True  # times in words
    if path.name in REPORTS:
        return isinstance(json.loads(content), dict)  # speeds of this run
    return content in {old.get(name), new.get(name)} or name not in {*old, *new}


@dataclass(frozen=True)
class Undisturbed:
    """An undisturbed command: its exit code, its operations, and the files before and after it."""

    code: int
    operations: list[str]
    former: dict[str, bytes]
    new: dict[str, bytes]

    @classmethod
    def of(cls, command: Command, machine: Machine, prepared: Path, folder: Path) -> Self:
        code, operations = machine.run(shutil.copytree(prepared, folder), command.words)
        return cls(code, operations, contents(prepared), contents(folder))


def crash_and_rerun(
    command: Command,
    undisturbed: Undisturbed,
    machine: Machine,
    folder: Path,
    mode: int,
    operation_number: int,
) -> bool:
    """Disturb a command, check the files it left, rerun it and compare; return whether it was killed."""
    first, _ = machine.run(folder, command.words, mode, operation_number)
    context = f"operation {operation_number} ({undisturbed.operations[operation_number - 1]}), mode {mode}"
    if mode > 2:
        assert first in {0, 2, 69, 74}, f"{context}: ended with {first}"
    contents_after_crash = contents(folder)
    incomplete = [
        file
        for file, content in contents_after_crash.items()
        if not is_complete(file, content, undisturbed.former, undisturbed.new)
    ]
    assert incomplete == [], f"{context}: left {incomplete}"
    needs_resume = command.again and any((folder / "new").glob("settings.json"))
    second, _ = machine.run(folder, command.again if needs_resume else command.words)
    contents_after_rerun = contents(folder)
    different = sorted(
        file
        for file in {*contents_after_rerun, *undisturbed.new}
        if comparable(file, contents_after_rerun.get(file)) != comparable(file, undisturbed.new.get(file))
    )
    accepted_codes = {undisturbed.code, 64} if command.exists else {undisturbed.code}
    assert second in accepted_codes, f"{context}: the same command ended with {second}"
    assert different == [], f"{context}: {different}"
    return first == -signal.SIGKILL


@pytest.mark.parametrize("name", COMMANDS)
def test_rerun_completes_after_a_crash_at_any_operation(
    name: str,
    machine: Machine,
    prepared: Path,
    tmp_path: Path,
    figures: Callable[..., None],
    nightly: bool,
) -> None:
    command = COMMANDS[name]
    undisturbed = Undisturbed.of(command, machine, prepared, tmp_path / "undisturbed" / "x")
    assert undisturbed.code in {0, 2}
    assert undisturbed.operations
    rng = random.Random(name)  # noqa: S311 - a draw of operations
    numbers = operations_to_try(undisturbed.operations)
    tries: Counter[str] = Counter()
    killed = 0
    for mode_name, mode in MODES.items():
        for number in numbers if nightly or len(numbers) <= QUICK else sorted(rng.sample(numbers, QUICK)):
            folder = shutil.copytree(prepared, tmp_path / "try" / "x")
            killed += crash_and_rerun(command, undisturbed, machine, folder, mode, number)
            tries[mode_name] += 1
            shutil.rmtree(tmp_path / "try")
    assert killed > 0
    cells = len(undisturbed.operations), len(numbers), killed, tries["EIO"], tries["full disk"], 0, 0, 0
    figures(f"`{name}`", *cells, table="crashes")


def serve(library: str) -> None:
    """Run each command read from stdin in a fork; print its exit code and operations."""
    import qaeval  # noqa: PLC0415
    from qaeval.cli import run  # noqa: PLC0415

    # loaded once instead of in every fork: imports take most of a command's time
    modules = [module.name for module in pkgutil.walk_packages(qaeval.__path__, "qaeval.")]
    for name in (*modules, "matplotlib.backends.backend_svg", "matplotlib.figure", "pandas", "rich.console"):
        with suppress(ImportError):  # an optional dependency
            if not name.endswith("__main__"):
                importlib.import_module(name)
    disk: Any = ctypes.CDLL(library)
    disk.disk_names.restype = ctypes.c_char_p
    for line in sys.stdin:
        folder, arguments, mode, operation_number = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.chdir(folder)
            devnull = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(devnull, stream)
            disk.disk_fails(f"{folder}/".encode(), mode, ctypes.c_long(operation_number))
            code = run(list(arguments))
            with os.fdopen(writer, "w") as pipe:
                json.dump([code, disk.disk_names().decode().splitlines()], pipe)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:  # read to the end before waiting for the child
            text = pipe.read()
        _, status = os.waitpid(child, 0)
        print(text or json.dumps([-os.WTERMSIG(status), []]), flush=True)  # noqa: T201 - to the test


if __name__ == "__main__":
    serve(sys.argv[1])
