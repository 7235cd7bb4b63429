"""Change the code a little and see whether a test fails, a fast one unless --slow is given: `make mutation`.

    .venv/bin/python tools/mutation.py                                   # 10 mutants a package, seed 1
    .venv/bin/python tools/mutation.py --package run --per-package 40 --seed 7
    .venv/bin/python tools/mutation.py --slow                            # slow tests too, as CI runs them
    .venv/bin/python tools/mutation.py --hold                            # exit 1 below 90 % in a package
    .venv/bin/python tools/mutation.py --source text/near.py --tests tests/test_near.py --per-package 1000

One run of the fast suite under coverage shows which tests execute which line; after a change only the test files
run again whose tests, or whose executed sources, changed. A mutant (`mutants.py`) then runs the tests that execute
its line, fastest first, until one fails. Nothing runs in this checkout: map and mutants use copies of it in a folder
for temporary files, which goes when the process ends. Map and results are kept in `.mutation/`, so that a run that
was stopped goes on where it was.

With --tests there is no map: the named files run for every mutant, while one writes tests of a module.

A mutant survives if all of these tests pass, as many as --seconds allows, or if there are none. Mutants that no test can notice stand in
`mutants.yaml`, each with its reason, and do not count.
"""

import argparse
import ast
import contextlib
import gzip
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import inf
from pathlib import Path
from typing import Final

import yaml
from mutants import Mutant, is_valid, mutants

PACKAGE: Final = "src/qaeval"
BAR: Final = 90.0
"""Least score of a package, in percent, with --hold."""
FAST: Final = ("-m", "not slow")
SUITE: Final = ("-p", "no:cacheprovider", "-p", "mutation_probe", "-q", "--timeout", "600")
DECLARATIONS: Final = (
    "tests/test_stored_fields.py::",
    "tests/test_schemas.py::test_the_schemas_of_the_repository",
    "tests/test_notebook.py::test_a_generated_page_is_up_to_date",
)
"""Tests that read declarations (fields, options, signatures) of all modules without executing a line of them."""
FIRST_FILES: Final = 4
"""Tests of so many files, those with most tests of the line, run before all others: most mutants die there."""
FIRST_SECONDS: Final = 10.0
"""What these tests take at most without a mutant."""
SLOWER: Final = 8
"""A mutant hangs if its tests take so many times as long as without it, and PATIENCE seconds."""
PATIENCE: Final = 60.0
MEMORY: Final = 16 << 30
"""Bytes of address space that a mutant may take."""
FILE_SIZE: Final = 1 << 30
"""Bytes of a file that a mutant may write."""
LIBRARIES: Final = (
    "aiohttp",
    "bs4",
    "hypothesis",
    "jinja2",
    "matplotlib.pyplot",
    "numpy",
    "orjson",
    "pandas",
    "prometheus_client",
    "pydantic",
    "pytest",
    "pytest_asyncio",
    "rich.console",
    "rich.progress",
    "scipy.optimize",
    "scipy.stats",
    "starlette.testclient",
    "typer.testing",
    "uvicorn",
    "yaml",
)
"""Imported once, before the first mutant: a mutant is a fork of this process and imports the package alone."""

NOT_COVERED: Final = "not covered"
SURVIVED: Final = "survived"
EQUIVALENT: Final = "equivalent"
TIMEOUT: Final = "timeout"
KILLED: Final = "killed"


# --- the map: which test executes which line


@dataclass
class CoverageMap:
    """What the fast suite executes.

    Attributes:
        tests: Seconds of each test that passes without a mutant.
        lines: For each source file and line the tests that execute it while they run.
        imported: Lines of each source file that are executed on import.
        sources: Hash of each source file.
        suites: Hash of each test file, with the helpers that it imports.
    """

    tests: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    imported: dict[str, set[int]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    suites: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "CoverageMap":
        """Read a map, empty where there is no file."""
        if not path.is_file():
            return cls()
        raw = json.loads(gzip.decompress(path.read_bytes()))
        names = list(raw["tests"])
        lines = {
            source: {int(line): {names[index] for index in indices} for line, indices in by_line.items()}
            for source, by_line in raw["lines"].items()
        }
        imported = {source: set(numbers) for source, numbers in raw["imported"].items()}
        return cls(raw["tests"], lines, imported, raw["sources"], raw["suites"])

    def write(self, path: Path) -> None:
        """Write the map, whole or not at all."""
        indices = {name: index for index, name in enumerate(self.tests)}
        lines = {
            source: {line: sorted(indices[name] for name in names) for line, names in by_line.items()}
            for source, by_line in self.lines.items()
        }
        imported = {source: sorted(numbers) for source, numbers in self.imported.items()}
        raw = {**vars(self), "lines": lines, "imported": imported}
        part = path.with_suffix(".part")
        part.write_bytes(gzip.compress(json.dumps(raw).encode(), 3))
        part.replace(path)

    def stale(self, sources: dict[str, str], suites: dict[str, str]) -> set[str]:
        """Return the test files to run again: changed, or with a test that executes a changed source."""
        changed = {name for name in suites if self.suites.get(name) != suites[name]}
        for source, digest in sources.items():
            if source in self.sources and self.sources[source] != digest:
                changed |= {_file(test) for names in self.lines.get(source, {}).values() for test in names}
        return changed & set(suites)

    def forget(self, files: Iterable[str]) -> None:
        """Remove the tests of some files."""
        gone = {test for test in self.tests if _file(test) in set(files)}
        self.tests = {test: seconds for test, seconds in self.tests.items() if test not in gone}
        self.lines = {
            source: {line: names - gone for line, names in by_line.items() if names - gone}
            for source, by_line in self.lines.items()
        }

    def _tests_of_modules(self, sources: Iterable[str]) -> set[str]:
        return {test for source in sources for tests in self.lines.get(source, {}).values() for test in tests}

    def tests_of(
        self, source: str, mutant: Mutant, importers: dict[str, set[str]], limit: float = inf
    ) -> list[str]:
        """Return the tests that can notice a mutant, fastest first, as many as take ``limit`` seconds together.

        Code that runs on import is executed by whichever test imports the module first: all tests of the module can
        notice it, and of a module without functions those of the modules that import it; so can, whatever the limit,
        those that read the declarations of all modules.
        """
        by_line = self.lines.get(source, {})
        names: set[str] = set()
        for first, last in (mutant.lines, mutant.statement):
            names = names or {test for line in range(first, last + 1) for test in by_line.get(line, ())}
        if not mutant.function or (not names and mutant.line in self.imported.get(source, ())):
            names |= self._tests_of_modules([source]) or self._tests_of_modules(importers.get(source, ()))
        ordered = sorted(names & set(self.tests), key=lambda test: (self.tests[test], test))
        ends = accumulate(self.tests[test] for test in ordered)
        chosen = [
            test
            for index, (test, end) in enumerate(zip(ordered, ends, strict=True))
            if end <= limit or not index
        ]
        if mutant.function:
            return chosen
        return chosen + [test for test in self.tests if test.startswith(DECLARATIONS) and test not in chosen]


def assumed_map(tests: Iterable[str], checkout: "Checkout", sources: Iterable[str]) -> CoverageMap:
    """Return a map in which tests, each as fast as the other, execute every line of some modules."""
    seconds = dict.fromkeys(tests, 0.01)
    lines = {
        source: {number: set(seconds) for number in range(1, len(checkout.text(source).splitlines()) + 1)}
        for source in sources
    }
    return CoverageMap(seconds, lines, {}, checkout.sources, checkout.suites)


def _file(test: str) -> str:
    return test.partition("::")[0]


def add_contexts(
    result: CoverageMap, contexts: dict[str, dict[int, list[str]]], reports: Iterable[tuple[str, str, float]]
) -> None:
    """Add a run under coverage to a map: for each source and line the contexts, and the reports of the tests."""
    outcomes: dict[str, set[str]] = defaultdict(set)
    seconds: dict[str, float] = defaultdict(float)
    for test, outcome, duration in reports:
        outcomes[test].add(outcome)
        seconds[test] += duration
    passed = {test for test, kinds in outcomes.items() if kinds == {"passed"}}
    result.tests.update({test: round(seconds[test], 4) for test in passed})
    for source, by_line in contexts.items():
        lines = result.lines.setdefault(source, {})
        for line, names in by_line.items():
            tests = {_test(name) for name in names}
            if "" in tests:
                result.imported.setdefault(source, set()).add(line)
            if tests & passed:
                lines.setdefault(line, set()).update(tests & passed)


def _test(context: str) -> str:
    """Return the test of a context; a process that a test starts has `PYTEST_CURRENT_TEST`, with a phase."""
    name = context.partition("|")[0]
    return name[: name.rindex(" (")] if name.endswith((" (setup)", " (call)", " (teardown)")) else name


# --- the checkout


class Checkout:
    """The files of a checkout, and copies of it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def files(self) -> list[str]:
        """Every file that is tracked or could be."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "-co", "--exclude-standard"],
            cwd=self.root,
            check=True,
            capture_output=True,
        )
        return [name for name in listed.stdout.decode().split("\0") if name and (self.root / name).is_file()]

    @cached_property
    def sources(self) -> dict[str, str]:
        """Hash of each module of the package."""
        names = [name for name in self.files if name.startswith(PACKAGE + "/") and name.endswith(".py")]
        return {name: self._digest([name]) for name in sorted(names)}

    @cached_property
    def suites(self) -> dict[str, str]:
        """Hash of each test file of the fast suite, with the helpers that it imports."""
        python = sorted(name for name in self.files if name.startswith("tests/") and name.endswith(".py"))
        options = tomllib.loads(self.text("pyproject.toml"))["tool"]["pytest"]["ini_options"]
        apart = set(options.get("norecursedirs", ()))  # suites of their own
        modules = {name[len("tests/") : -len(".py")].replace("/", "."): name for name in python}
        imports = {name: _known(_imports(ast.parse(self.text(name))), modules) for name in python}
        digests = {}
        for name in python:
            if Path(name).name.startswith("test_") and not apart & set(Path(name).parts):
                needed = {name, *(helper for helper in python if Path(helper).name == "conftest.py")}
                while more := {helper for own in needed for helper in imports[own]} - needed:
                    needed |= more
                digests[name] = self._digest(sorted(needed))
        return digests

    @cached_property
    def importers(self) -> dict[str, set[str]]:
        """For each module the modules that import it or a name of it."""
        modules = {_dotted(name): name for name in self.sources}
        result: dict[str, set[str]] = defaultdict(set)
        for name in self.sources:
            for source in _known(_imports(ast.parse(self.text(name))), modules):
                result[source].add(name)
        return result

    def text(self, name: str) -> str:
        """Return the text of a file."""
        return (self.root / name).read_text(encoding="utf-8")

    def copy(self, target: Path) -> None:
        """Copy the files to a folder and make it a repository of its own."""
        for name in self.files:
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.root / name, path, follow_symlinks=False)
        git = ["git", "-C", str(target), "-c", "user.name=mutation", "-c", "user.email=mutation@localhost"]
        for command in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-q", "-m", "copy"]):
            subprocess.run([*git, *command], check=True, stdout=subprocess.DEVNULL)

    def _digest(self, names: list[str]) -> str:
        digest = hashlib.sha256()
        for name in names:
            digest.update((self.root / name).read_bytes())
        return digest.hexdigest()[:16]


def _dotted(name: str) -> str:
    return name.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _known(targets: Iterable[str], modules: Mapping[str, str]) -> set[str]:
    """Return the files of imported modules, or of modules whose names are imported."""
    parts = (modules.get(target) or modules.get(target.rpartition(".")[0]) for target in targets)
    return {file for file in parts if file}


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# --- the sample


@dataclass(frozen=True)
class Candidate:
    """A mutant of a file of a package."""

    package: str
    source: str
    mutant: Mutant

    @property
    def key(self) -> tuple[str, str, str]:
        """What names the mutant in `mutants.yaml`: it does not depend on the number of the line."""
        return self.source, self.mutant.before, self.mutant.after


def package_of(source: str) -> str:
    """Return the folder of a module under the package, or `qaeval` for a module directly in it."""
    parts = Path(source).relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else Path(PACKAGE).name


def sample(
    checkout: Checkout, packages: Sequence[str], per_package: int, seed: int, sources: Collection[str] = ()
) -> list[Candidate]:
    """Draw mutants of each package, or of some of its modules, at most one a line; more are the same mutants and others."""
    drawn = []
    for package in packages:
        pool = [
            Candidate(package, source, mutant)
            for source in sources or checkout.sources
            if package_of(source) == package
            for mutant in mutants(checkout.text(source))
        ]
        random.Random(f"{seed} {package}").shuffle(pool)  # noqa: S311 - a sample
        taken: set[tuple[str, int]] = set()
        for candidate in pool:
            line = (candidate.source, candidate.mutant.line)
            if (
                len(taken) < per_package
                and line not in taken
                and is_valid(candidate.mutant, checkout.text(line[0]))
            ):
                taken.add(line)
                drawn.append(candidate)
    return drawn


# --- the results


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        status: One of the five words.
        detail: The test that failed, or the reason of an equivalent one.
    """

    candidate: Candidate
    status: str
    detail: str = ""


class Cache:
    """Results that still hold: of the same source, and of the same test files."""

    def __init__(self, path: Path, checkout: Checkout) -> None:
        self._path = path
        self._checkout = checkout
        self._known: dict[str, tuple[str, str]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # the last line of a killed run
                    key, status, detail = json.loads(line)
                    self._known[key] = (status, detail)

    def get(self, candidate: Candidate, tests: Sequence[str]) -> Result | None:
        """Return the kept result: a killed mutant's while the test file that killed it is as it was."""
        if known := self._known.get(self._key(candidate, tests)):
            return Result(candidate, *known)
        status, killer = self._known.get(self._key(candidate, ()), ("", ""))
        if status and self._known.get(self._key(candidate, [killer])) == (status, killer):
            return Result(candidate, status, killer)
        return None

    def put(self, result: Result, tests: Sequence[str]) -> None:
        """Keep a result."""
        keys = [self._key(result.candidate, tests)]
        if result.status == KILLED:
            keys = [self._key(result.candidate, ()), self._key(result.candidate, [result.detail])]
        with self._path.open("a", encoding="utf-8") as lines:
            for key in keys:
                self._known[key] = (result.status, result.detail)
                lines.write(json.dumps([key, result.status, result.detail]) + "\n")

    def _key(self, candidate: Candidate, tests: Sequence[str]) -> str:
        mutant = candidate.mutant
        parts = [
            candidate.source,
            self._checkout.sources[candidate.source],
            str(mutant.lines),
            mutant.changed,
        ]
        parts += sorted({self._checkout.suites.get(_file(test), "") for test in tests})
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def read_equivalents(path: Path) -> dict[tuple[str, str, str], str]:
    """Read the mutants that no test can notice: source, line before and after, and the reason."""
    entries = (yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None) or []
    return {(entry["source"], entry["before"], entry["after"]): entry["reason"] for entry in entries}


# --- running


class Runner:
    """Runs tests of mutants in copies of a checkout, a fork of this process for each.

    Args:
        checkout: Is copied.
        folder: Of the copies.
        workers: Number of copies.
        selection: Options of pytest that select tests.
    """

    def __init__(
        self, checkout: Checkout, folder: Path, workers: int, selection: Sequence[str] = FAST
    ) -> None:
        self._selection = tuple(selection)
        self._folder = folder
        self._checkout = checkout
        self._trees = [folder / f"tree{index}" for index in range(workers)]
        for tree in self._trees:
            checkout.copy(tree)

    def map(self, files: Sequence[str]) -> CoverageMap:
        """Run test files under coverage and return what they execute."""
        import coverage  # noqa: PLC0415 - needed for the map alone

        tree, site, data = self._trees[0], self._folder / "site", self._folder / "data"
        for path in (site, data):
            path.mkdir()
        # every process that a test starts is measured, and knows its test
        (site / "sitecustomize.py").write_text(
            "import coverage\ncoverage.process_startup()\n", encoding="utf-8"
        )
        settings = self._folder / "coveragerc"
        settings.write_text(
            f"[run]\nsource_pkgs = qaeval\ndata_file = {data}/lines\nparallel = true\n"
            "context = ${PYTEST_CURRENT_TEST}\n"
            "disable_warnings = no-data-collected, module-not-measured, module-not-imported, couldnt-parse\n",
            encoding="utf-8",
        )
        log = self._folder / "reports.jsonl"
        libraries = Path(coverage.__file__).parents[1]
        environment = {
            **self._environment(tree, site, libraries),
            "COVERAGE_PROCESS_START": str(settings),
            "MUTATION_LOG": str(log),
        }
        parallel = ("-n", str(len(self._trees))) if len(self._trees) > 1 else ("-p", "no:xdist")
        command = [sys.executable, "-m", "pytest", *SUITE, *parallel, *self._selection, *files]
        command += ["--basetemp", str(self._folder / "mapping")]
        ended = subprocess.run(command, cwd=tree, env=environment, check=False, stdout=subprocess.DEVNULL)
        if ended.returncode not in {0, 1} or not log.is_file():
            raise SystemExit(f"the suite ended with {ended.returncode}: run `make test`")
        result = CoverageMap()
        add_contexts(result, read_coverage(data, tree), read_reports(log))
        return result

    def collect(self, files: Sequence[str]) -> list[str]:
        """Return the tests of test files."""
        command = [sys.executable, "-m", "pytest", *SUITE, "--collect-only", *self._selection, *files]
        environment = self._environment(self._trees[0])
        listed = subprocess.run(
            command, cwd=self._trees[0], env=environment, check=False, capture_output=True, text=True
        )
        if tests := [line for line in listed.stdout.splitlines() if "::" in line]:
            return tests
        raise SystemExit(f"{listed.stdout[-4000:]}\nno test in {' '.join(files)}")

    def check(self, source: str, tests: list[str]) -> None:
        """Run tests without a mutant, the way a mutant runs: they pass, or the figures would be worth nothing."""
        unchanged = Mutant("none", 0, (1, 0), (1, 1), function=True, before="", after="", changed="")
        (result,) = self.run([(Candidate("", source, unchanged), [tests], 60.0)])
        if result.status != SURVIVED:
            output = self._trees[-1].with_suffix(".out").read_text(encoding="utf-8", errors="replace")
            raise SystemExit(f"{output[-4000:]}\ntests fail without a mutant: run `make test`")

    def run(self, jobs: Iterable[tuple[Candidate, list[list[str]], float]]) -> Iterator[Result]:
        """Run jobs, a tree for each at a time: a mutant, its tests in stages, and the seconds that they take."""
        waiting = iter(jobs)
        running: dict[int, _Job] = {}
        free = list(self._trees)
        try:
            while True:
                while free and (job := next(waiting, None)):
                    work = _Job(*job, tree=free.pop(), text=self._checkout.text(job[0].source))
                    running[self._start(work)] = work
                if not running:
                    return
                for process, work in list(running.items()):
                    status = _ended(process, work.deadline)
                    if status is None:
                        continue
                    del running[process]
                    result = work.result(status)
                    if result is None:
                        running[self._start(work)] = work
                    else:
                        work.restore()
                        free.append(work.tree)
                        yield result
                time.sleep(0.02)
        finally:
            for process in running:
                _kill(process)

    def _start(self, work: "_Job") -> int:
        work.apply()
        work.deadline = time.monotonic() + work.limit
        process = os.fork()
        if not process:
            _child(work, self._environment(work.tree))
        return process

    def _environment(self, tree: Path, *more: Path) -> dict[str, str]:
        path = [tree / "src", tree / "tools", *more]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "OPENBLAS_NUM_THREADS": "1",
            "CI": "1",  # Hypothesis repeats the same cases
        }


@dataclass
class _Job:
    candidate: Candidate
    stages: list[list[str]]
    seconds: float
    tree: Path
    text: str
    deadline: float = 0.0

    @property
    def limit(self) -> float:
        return PATIENCE + SLOWER * self.seconds

    @property
    def path(self) -> Path:
        return self.tree / self.candidate.source

    @property
    def log(self) -> Path:
        return self.tree.with_suffix(".jsonl")

    def apply(self) -> None:
        """Write the mutant and the list of its tests."""
        self._write(self.candidate.mutant.apply(self.text))
        self.log.unlink(missing_ok=True)
        self.tree.with_suffix(".tests").write_text("\n".join(self.stages[0]), encoding="utf-8")

    def restore(self) -> None:
        """Write the module as it was."""
        self._write(self.text)

    def _write(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")
        for compiled in self.path.parent.glob(f"__pycache__/{self.path.stem}.*"):
            compiled.unlink()  # a mutant may have the size and the second of another

    def result(self, status: int) -> Result | None:
        """Return the result, or nothing where another stage has to run."""
        if status == -1:
            return Result(self.candidate, TIMEOUT)
        if status in {0, 5}:  # all pass, or none is left
            self.stages.pop(0)
            return None if self.stages else Result(self.candidate, SURVIVED)
        failed = (
            [test for test, outcome, _ in read_reports(self.log) if outcome == "failed"]
            if self.log.is_file()
            else []
        )
        return Result(self.candidate, KILLED, failed[0] if failed else self.stages[0][0])


def _child(work: _Job, environment: dict[str, str]) -> None:
    """Run the tests of a mutant; never returns."""
    status = 70
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
        output = os.open(work.tree.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for stream, target in ((0, nothing), (1, output), (2, output)):
            os.dup2(target, stream)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(environment)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the next mutant need not compile all others
        os.environ["MUTATION_LOG"] = str(work.log)
        os.environ["MUTATION_TESTS"] = str(work.tree.with_suffix(".tests"))
        sys.dont_write_bytecode = False
        os.chdir(work.tree)
        sys.argv = ["pytest"]
        sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
        files = sorted({_file(test) for test in work.stages[0]})
        import pytest  # noqa: PLC0415 - imported before the fork

        temporary = work.tree.with_suffix(".tmp")
        quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # its plugins are imported before it
        status = int(
            pytest.main([*SUITE, *quiet, "-x", "-p", "no:xdist", "--basetemp", str(temporary), *files])
        )
    except BaseException:  # noqa: BLE001 - a fork never returns
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _ended(process: int, deadline: float) -> int | None:
    """Return the exit status of a process, -1 where it hangs, or nothing while it runs."""
    if time.monotonic() > deadline:
        _kill(process)
        return -1
    ended, status = os.waitpid(process, os.WNOHANG)
    if not ended:
        return None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)  # what its tests started
    return abs(os.waitstatus_to_exitcode(status))


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def read_coverage(data: Path, tree: Path) -> dict[str, dict[int, list[str]]]:
    """Read for each source and line the contexts that execute it."""
    import coverage  # noqa: PLC0415 - needed for the map alone

    lines = coverage.CoverageData(basename=str(data / "all"))
    for path in sorted(data.glob("lines.*")):
        part = coverage.CoverageData(basename=str(path))
        part.read()
        lines.update(part)
    return {
        str(Path(path).relative_to(tree)): lines.contexts_by_lineno(path)
        for path in lines.measured_files()
        if Path(path).is_relative_to(tree / PACKAGE)
    }


def read_reports(log: Path) -> list[tuple[str, str, float]]:
    """Read the reports of the probe: test, outcome, seconds."""
    return [
        (name, outcome, seconds)
        for name, outcome, seconds in map(json.loads, log.read_text("utf-8").splitlines())
    ]


def stages(tests: Sequence[str], seconds: dict[str, float]) -> list[list[str]]:
    """Split tests, fastest first, into those of the files with most of them and all others."""
    counts: dict[str, int] = defaultdict(int)
    for test in tests:
        counts[_file(test)] += 1
    files = set(sorted(counts, key=lambda name: (-counts[name], name))[:FIRST_FILES])
    first, spent = [], 0.0
    for test in tests:
        if _file(test) in files and spent + seconds[test] <= FIRST_SECONDS:
            first.append(test)
            spent += seconds[test]
    chosen = set(first)
    return [part for part in (first, [test for test in tests if test not in chosen]) if part]


# --- the table


@dataclass(frozen=True)
class Row:
    """Figures of a package."""

    package: str
    mutants: int
    killed: int
    survived: int
    not_covered: int
    equivalent: int

    @property
    def score(self) -> float:
        """Share of the mutants that a test notices, in percent; equivalent ones do not count."""
        counted = self.mutants - self.equivalent
        return 100.0 * self.killed / counted if counted else 100.0


def rows(results: Sequence[Result]) -> list[Row]:
    """Return a row for each package, in alphabetical order, and one for all."""
    statuses: dict[str, list[str]] = defaultdict(list)
    for result in results:
        statuses[result.candidate.package].append(result.status)
    everything = [status for package in sorted(statuses) for status in statuses[package]]
    return [_row(package, statuses[package]) for package in sorted(statuses)] + [_row("all", everything)]


def _row(package: str, statuses: Sequence[str]) -> Row:
    killed = statuses.count(KILLED) + statuses.count(TIMEOUT)
    counts = [statuses.count(status) for status in (SURVIVED, NOT_COVERED, EQUIVALENT)]
    return Row(package, len(statuses), killed, *counts)


def table(figures: Sequence[Row]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| package | mutants | killed | survived | not covered | equivalent | score |",
        "|---|" + "---|" * 6,
    ]
    lines += [
        f"| {row.package} | {row.mutants} | {row.killed} | {row.survived} | {row.not_covered} "
        f"| {row.equivalent} | {row.score:.0f} % |"
        for row in figures
    ]
    return "\n".join(lines)


def survivors(results: Sequence[Result]) -> str:
    """Return the surviving mutants as entries of `mutants.yaml`, each under its file and line."""
    parts = []
    for result in results:
        if result.status in {SURVIVED, NOT_COVERED}:
            source, before, after = result.candidate.key
            entry = yaml.safe_dump(
                [{"source": source, "before": before, "after": after}],
                sort_keys=False,
                allow_unicode=True,
                width=1000,
            )
            parts.append(
                f"# {source}:{result.candidate.mutant.line}: {result.candidate.mutant.operator}, {result.status}\n{entry}"
            )
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants of the packages and print their figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--package", action="append", metavar="NAME", help="a folder of src/qaeval; default: all"
    )
    parser.add_argument(
        "--source",
        action="append",
        metavar="FILE",
        help="a module below src/qaeval; default: all of the package",
    )
    parser.add_argument(
        "--tests", nargs="+", metavar="FILE", help="test files to run instead of those of the map"
    )
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--per-package", type=int, default=10, metavar="N", help="mutants; default: 10")
    parser.add_argument("--workers", type=int, choices=(1, 2), default=2, help="default: 2")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="tests of a mutant, fastest first, as many as take so long without it; default: 60",
    )
    parser.add_argument(
        "--slow",
        action="store_true",
        help="run slow tests too, as CI does before a merge; the first run under coverage takes about an hour",
    )
    parser.add_argument("--hold", action="store_true", help=f"exit 1 if a package is below {BAR:g} %%")
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).parents[1], help="checkout; default: this one"
    )
    options = parser.parse_args(arguments)
    checkout = Checkout(options.root.resolve())
    packages = sorted({package_of(source) for source in checkout.sources})
    for package in options.package or ():
        if package not in packages:
            parser.error(f"unknown package {package!r}: {', '.join(packages)}")
    sources = [f"{PACKAGE}/{name}" for name in options.source or ()]
    for source in sources:
        if source not in checkout.sources:
            parser.error(f"unknown module {source!r}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    state = checkout.root / ".mutation" / ("slow" if options.slow else "")
    state.mkdir(parents=True, exist_ok=True)
    chosen = options.package or sorted(set(map(package_of, sources))) or packages
    drawn = sample(checkout, chosen, options.per_package, options.seed, sources)
    try:
        with tempfile.TemporaryDirectory(prefix="qaeval-mutation-", ignore_cleanup_errors=True) as folder:
            results = _run(
                checkout,
                drawn,
                state,
                lambda: Runner(checkout, Path(folder), options.workers, () if options.slow else FAST),
                options.seconds,
                options.tests or (),
            )
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130
    figures = rows(results)
    text = f"{survivors(results)}\n{table(figures)}\n"
    (state / "report.md").write_text(text, encoding="utf-8")
    print(text)
    return int(options.hold and any(row.score < BAR for row in figures))


def _run(
    checkout: Checkout,
    drawn: Sequence[Candidate],
    state: Path,
    make_runner: Callable[[], Runner],
    limit: float,
    files: Sequence[str],
) -> list[Result]:
    """Return the result of each mutant: known, kept, or measured now."""
    runner: Runner | None = None
    lines = CoverageMap.read(state / "map.json.gz")
    if files:
        runner = make_runner()
        lines = assumed_map(runner.collect(files), checkout, {candidate.source for candidate in drawn})
    elif stale := lines.stale(checkout.sources, checkout.suites):
        runner = make_runner()
        every = stale == set(checkout.suites)
        print(
            f"running {'the suite' if every else f'{len(stale)} test files'} under coverage",
            file=sys.stderr,
        )
        measured = runner.map(() if every else sorted(stale))
        lines = merged(lines, measured, stale, checkout)
        lines.write(state / "map.json.gz")
    equivalents = read_equivalents(checkout.root / "tools" / "mutants.yaml")
    cache = Cache(state / "results.jsonl", checkout)
    results: dict[Candidate, Result] = {}
    tests: dict[Candidate, list[str]] = {}
    for candidate in drawn:
        tests[candidate] = lines.tests_of(candidate.source, candidate.mutant, checkout.importers, limit)
        if reason := equivalents.get(candidate.key):
            results[candidate] = Result(candidate, EQUIVALENT, reason)
        elif not tests[candidate]:
            results[candidate] = Result(candidate, NOT_COVERED)
        elif kept := cache.get(candidate, tests[candidate]):
            results[candidate] = kept
    jobs = [
        (
            candidate,
            stages(tests[candidate], lines.tests),
            sum(lines.tests[test] for test in tests[candidate]),
        )
        for candidate in drawn
        if candidate not in results
    ]
    if jobs:
        _import_libraries()
        runner = runner or make_runner()
        first, (quick, *_), _ = jobs[0]
        runner.check(first.source, quick)
        for result in runner.run(jobs):
            cache.put(result, tests[result.candidate])
            results[result.candidate] = result
            mutant = result.candidate.mutant
            print(
                f"{len(results)}/{len(drawn)} {result.status} {result.candidate.source}:{mutant.line}: "
                f"{mutant.operator} {result.detail}",
                file=sys.stderr,
                flush=True,
            )
    return [results[candidate] for candidate in drawn]


def merged(old: CoverageMap, new: CoverageMap, files: set[str], checkout: Checkout) -> CoverageMap:
    """Return the old map with the test files of the new one in their place."""
    old.forget(set(old.suites) - set(checkout.suites) | files)
    for source, digest in checkout.sources.items():
        if old.sources.get(source) != digest:
            old.lines.pop(source, None)
            old.imported.pop(source, None)
    for source, by_line in new.lines.items():
        lines = old.lines.setdefault(source, {})
        for line, names in by_line.items():
            lines.setdefault(line, set()).update(names)
    for source, numbers in new.imported.items():
        old.imported.setdefault(source, set()).update(numbers)
    return CoverageMap(old.tests | new.tests, old.lines, old.imported, checkout.sources, checkout.suites)


def _import_libraries() -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a fork has the one thread that forked
    os.environ["MPLBACKEND"] = "agg"
    for name in LIBRARIES:
        importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main())
