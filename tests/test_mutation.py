"""The mutation testing tool: its mutants, the tests it selects for them, and its scores."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture(scope="module")
def tools() -> Iterator[tuple[ModuleType, ModuleType]]:
    sys.path.insert(0, str(TOOLS))
    import mutants  # noqa: PLC0415 - tools are scripts
    import mutation  # noqa: PLC0415

    yield mutants, mutation
    sys.path.remove(str(TOOLS))


def make_changes(tools: tuple[ModuleType, ModuleType], text: str) -> set[tuple[str, str]]:
    mutants = tools[0]
    return {
        (mutant.operator, mutant.after) for mutant in mutants.mutants(text) if mutants.is_valid(mutant, text)
    }


@pytest.mark.parametrize(
    ("text", "operator", "after"),
    [
        ("a = b < c", "comparison", "a = (b <= c)"),
        ("a = b >= c", "comparison", "a = (b > c)"),
        ("a = b == c", "comparison", "a = (b != c)"),
        ("a = b is None", "comparison", "a = (b is not None)"),
        ("a = b in c", "comparison", "a = (b not in c)"),
        ("a = b + c", "arithmetic", "a = (b - c)"),
        ("a = b / c", "arithmetic", "a = (b * c)"),
        ("a -= b", "arithmetic", "a += b"),
        ("a -= b", "deletion", "pass"),
        ("a = -b", "arithmetic", "a = b"),
        ("a = b and c", "boolean", "a = (b or c)"),
        ("a = not b", "not", "a = b"),
        ("if a: b()", "condition", "if (not a): b()"),
        ("a = b if c else d", "condition", "a = b if (not c) else d"),
        ("a = [b for b in c if d]", "condition", "a = [b for b in c if (not d)]"),
        ("while a: break", "loop", "while a: continue"),
        ("for a in b: continue", "loop", "for a in b: break"),
        ("a = 7", "constant", "a = 8"),
        ("a = 7", "constant", "a = 6"),
        ("a = 0.5", "constant", "a = 0.75"),
        ("a = True", "constant", "a = False"),
        ("def f(a=7): pass", "constant", "def f(a=8): pass"),
        ("def f(*, a=7): pass", "constant", "def f(*, a=6): pass"),
        ("a = b['key']", "string", "a = b['keyX']"),
        ("a = min(b, c)", "call", "a = max(b, c)"),
        ("a = f(b, c=d)", "keyword", "a = f(b)"),
        ("f(a)", "deletion", "pass"),
        ("a.b = c", "deletion", "pass"),
        ("a[b] = c", "deletion", "pass"),
        ("raise a", "deletion", "pass"),
        ("def f():\n    return a", "return", "return None"),
        ("try: a\nexcept B: c", "exception", "except StopAsyncIteration: c"),
        ("try: a\nexcept (B, C): c", "exception", "except (C,): c"),
    ],
)
def test_each_operator_makes_its_mutant(
    tools: tuple[ModuleType, ModuleType], text: str, operator: str, after: str
) -> None:
    assert (operator, after) in make_changes(tools, text)


@pytest.mark.parametrize(
    "text",
    [
        '"""Prose."""',
        "a: int",
        "a: Literal['b', 7]",
        "def f(a: Literal['b']) -> Literal[7]: pass",
        "@dataclass(frozen=True)\nclass A: pass",
        "__all__ = ['a']",
        "assert a < 7",
        "a = f'{b + 7}'",
        "a = 'text with spaces'",
        "log.info(a, 7)",
        "from a import b",
        "if TYPE_CHECKING: a = 7",
        "a = open(b, encoding='utf-8')",
        "a = Option(b, help='word')",
        "T = TypeVar('T', bound='A')",
        "def f() -> None:\n    return None",
        "class P(Protocol):\n    def f(self, a: int = 7) -> int: ...",
    ],
)
def test_code_without_behaviour_is_not_mutated(tools: tuple[ModuleType, ModuleType], text: str) -> None:
    assert make_changes(tools, text) == set()


def test_mutant_keeps_every_other_character(tools: tuple[ModuleType, ModuleType]) -> None:
    text = "# é\nx = {\n    'ä': [1,\n          2],  # kept\n}\n"
    (mutant,) = (mutant for mutant in tools[0].mutants(text) if mutant.after == "3], # kept")
    assert mutant.apply(text) == text.replace("2]", "3]")
    assert (mutant.line, mutant.lines, mutant.statement, mutant.function) == (4, (4, 4), (2, 5), False)


def test_mutant_that_does_not_compile_or_changes_nothing_is_invalid(
    tools: tuple[ModuleType, ModuleType],
) -> None:
    mutants = tools[0]
    text = "while a:\n    break\n"
    (mutant,) = (mutant for mutant in mutants.mutants(text) if mutant.operator == "loop")
    assert mutants.is_valid(mutant, text)
    assert not mutants.is_valid(mutant, mutant.apply(text))
    assert not mutants.is_valid(mutant, "x = 1\nbreak\n")


# --- a checkout with two packages

FILES = {
    "src/qaeval/__init__.py": "",
    "src/qaeval/pytest_plugin.py": "",  # an entry point
    "src/qaeval/alpha/__init__.py": "",
    "src/qaeval/alpha/sums.py": "from qaeval.beta.limits import LIMIT\n\n\ndef capped(a, b):\n    enormous = a > 90\n    return min(a + b, LIMIT)\n",
    "src/qaeval/beta/__init__.py": "",
    "src/qaeval/beta/limits.py": "LIMIT = 10\n",
    "src/qaeval/beta/loops.py": "def wait(n):\n    while n > 0:\n        n -= 1\n    return n\n\n\ndef unused():\n    return 7\n",
    "tests/test_sums.py": "from qaeval.alpha.sums import capped\n\n\ndef test_sum():\n    assert capped(1, 2) == 3\n",
    "tests/test_loops.py": "from qaeval.beta.loops import wait\n\n\ndef test_end():\n    assert wait(2) == 0\n",
    "pyproject.toml": "[tool.pytest.ini_options]\n",
}
SUM, END = "tests/test_sums.py::test_sum", "tests/test_loops.py::test_end"
RED = "tests/test_loops.py::test_that_fails_without_a_mutant"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "checkout", check=True)
    return tmp_path / "checkout"


@pytest.fixture
def coverage_map(tools: tuple[ModuleType, ModuleType], root: Path) -> Any:
    mutation = tools[1]
    checkout = mutation.Checkout(root)
    result = mutation.CoverageMap(sources=checkout.sources, suites=checkout.suites)
    contexts = {
        "src/qaeval/alpha/sums.py": {1: [""], 4: [""], 5: [SUM], 6: [SUM]},
        "src/qaeval/beta/limits.py": {1: ["", RED]},
        "src/qaeval/beta/loops.py": {
            1: [""],
            2: [f"{END} (call)"],
            3: [END],
            4: [f"{END} (call)|{END}"],
            7: [""],
        },
    }
    reports = [
        (SUM, "passed", 0.5),
        (SUM, "passed", 0.25),
        (END, "passed", 0.1),
        (RED, "passed", 0),
        (RED, "failed", 1),
    ]
    mutation.add_contexts(result, contexts, reports)
    return result


def test_passing_tests_are_mapped_to_the_lines_they_execute(coverage_map: Any) -> None:
    assert coverage_map.tests == {SUM: 0.75, END: 0.1}
    assert coverage_map.lines == {
        "src/qaeval/alpha/sums.py": {5: {SUM}, 6: {SUM}},
        "src/qaeval/beta/limits.py": {},
        "src/qaeval/beta/loops.py": {2: {END}, 3: {END}, 4: {END}},
    }
    assert coverage_map.imported["src/qaeval/beta/limits.py"] == {1}


def test_coverage_map_round_trips(
    tools: tuple[ModuleType, ModuleType], coverage_map: Any, tmp_path: Path
) -> None:
    coverage_map.write(tmp_path / "map.json.gz")
    assert tools[1].CoverageMap.read(tmp_path / "map.json.gz") == coverage_map
    assert tools[1].CoverageMap.read(tmp_path / "none") == tools[1].CoverageMap()


@pytest.mark.parametrize(
    ("source", "after", "tests"),
    [
        ("src/qaeval/alpha/sums.py", "return min((a - b), LIMIT)", [SUM]),
        # module level: the tests of the importing modules
        ("src/qaeval/beta/limits.py", "LIMIT = 11", [SUM]),
        ("src/qaeval/beta/loops.py", "n -= 2", [END]),
        ("src/qaeval/beta/loops.py", "return 8", []),  # in a function that no test calls
    ],
)
def test_mutant_is_tested_by_the_tests_that_execute_it(
    tools: tuple[ModuleType, ModuleType],
    root: Path,
    coverage_map: Any,
    source: str,
    after: str,
    tests: list[str],
) -> None:
    mutation = tools[1]
    checkout = mutation.Checkout(root)
    (mutant,) = (mutant for mutant in tools[0].mutants(checkout.text(source)) if mutant.after == after)
    assert coverage_map.tests_of(source, mutant, checkout.importers) == tests


def test_declaration_mutant_is_also_tested_by_declaration_tests(
    tools: tuple[ModuleType, ModuleType], root: Path, coverage_map: Any
) -> None:
    checkout = tools[1].Checkout(root)
    declaration_test = "tests/test_stored_fields.py::test_fields"
    coverage_map.tests[declaration_test] = 9.0

    def select_tests(source: str, after: str) -> list[str]:
        (mutant,) = (mutant for mutant in tools[0].mutants(checkout.text(source)) if mutant.after == after)
        tests: list[str] = coverage_map.tests_of(source, mutant, checkout.importers, limit=1.0)
        return tests

    assert select_tests("src/qaeval/beta/limits.py", "LIMIT = 11") == [SUM, declaration_test]
    assert select_tests("src/qaeval/beta/loops.py", "n -= 2") == [END]


def test_declaration_tests_exist(tools: tuple[ModuleType, ModuleType]) -> None:
    for name in tools[1].DECLARATIONS:
        file, _, test = name.partition("::")
        assert f"def {test}" in (TOOLS.parent / file).read_text(encoding="utf-8")


def test_without_a_map_the_given_tests_run_for_every_mutant(
    tools: tuple[ModuleType, ModuleType], root: Path
) -> None:
    mutants, mutation = tools
    checkout = mutation.Checkout(root)
    source = "src/qaeval/beta/loops.py"
    drawn = mutation.sample(checkout, ["alpha", "beta"], 100, 1, [source])
    assert {candidate.source for candidate in drawn} == {source}
    assumed = mutation.assumed_map([END, SUM], checkout, [source])
    assert assumed.stale(checkout.sources, checkout.suites) == set()
    for mutant in mutants.mutants(checkout.text(source)):
        assert assumed.tests_of(source, mutant, checkout.importers) == sorted([END, SUM])


def test_only_changed_files_are_mapped_again(
    tools: tuple[ModuleType, ModuleType], root: Path, coverage_map: Any
) -> None:
    mutation = tools[1]

    def stale_files() -> set[str]:
        checkout = mutation.Checkout(root)
        files: set[str] = coverage_map.stale(checkout.sources, checkout.suites)
        return files

    assert stale_files() == set()
    (root / "src/qaeval/alpha/sums.py").write_text(FILES["src/qaeval/alpha/sums.py"] + "# new\n")
    assert stale_files() == {"tests/test_sums.py"}
    (root / "tests/test_loops.py").write_text("")
    assert stale_files() == {"tests/test_sums.py", "tests/test_loops.py"}
    checkout = mutation.Checkout(root)
    new_map = mutation.CoverageMap(tests={SUM: 0.2}, lines={"src/qaeval/alpha/sums.py": {7: {SUM}}})
    merged_map = mutation.merged(coverage_map, new_map, stale_files(), checkout)
    assert merged_map.tests == {SUM: 0.2}
    assert merged_map.lines["src/qaeval/alpha/sums.py"] == {7: {SUM}}
    assert merged_map.stale(checkout.sources, checkout.suites) == set()


def test_sample_is_seeded_with_one_mutant_per_line(tools: tuple[ModuleType, ModuleType], root: Path) -> None:
    mutation = tools[1]
    checkout = mutation.Checkout(root)
    small = mutation.sample(checkout, ["alpha", "beta"], 2, 1)
    assert [candidate.package for candidate in small] == ["alpha", "alpha", "beta", "beta"]
    large = mutation.sample(checkout, ["beta"], 9, 1)
    assert large[:2] == small[2:]
    locations = [(candidate.source, candidate.mutant.line) for candidate in large]
    assert len(set(locations)) == len(locations) == 5
    assert large != mutation.sample(checkout, ["beta"], 9, 2)


def test_cached_result_is_valid_until_its_source_or_failing_test_changes(
    tools: tuple[ModuleType, ModuleType], root: Path
) -> None:
    mutation = tools[1]
    survived, killed, *_ = mutation.sample(mutation.Checkout(root), ["beta"], 9, 1)
    cache = mutation.Cache(root / "results", mutation.Checkout(root))
    cache.put(mutation.Result(survived, mutation.SURVIVED), [SUM, END])
    cache.put(mutation.Result(killed, mutation.KILLED, END), [SUM, END])

    def cached_statuses() -> list[str]:
        reopened = mutation.Cache(root / "results", mutation.Checkout(root))
        results = [reopened.get(candidate, [SUM, END]) for candidate in (survived, killed)]
        return [result.status if result else "" for result in results]

    assert cached_statuses() == ["survived", "killed"]
    (root / "tests/test_sums.py").write_text("")
    assert cached_statuses() == ["", "killed"]
    (root / "tests/test_loops.py").write_text("")
    assert cached_statuses() == ["", ""]


def test_score_excludes_equivalent_and_includes_uncovered_mutants(
    tools: tuple[ModuleType, ModuleType], root: Path
) -> None:
    mutation = tools[1]
    _, *drawn = mutation.sample(mutation.Checkout(root), ["alpha", "beta"], 9, 1)
    statuses = [
        mutation.KILLED,
        mutation.TIMEOUT,
        mutation.SURVIVED,
        mutation.NOT_COVERED,
        mutation.EQUIVALENT,
    ]
    results = [mutation.Result(candidate, status) for candidate, status in zip(drawn, statuses, strict=False)]
    alpha, beta, total = mutation.rows(results)
    assert (alpha.mutants, alpha.killed, alpha.score) == (1, 1, 100.0)
    assert (beta.mutants, beta.killed, beta.survived, beta.not_covered, beta.equivalent) == (4, 1, 1, 1, 1)
    assert beta.score == pytest.approx(100 / 3)
    assert (total.mutants, total.killed) == (5, 2)
    assert mutation.table([beta]).splitlines()[2] == "| beta | 4 | 1 | 1 | 1 | 1 | 33 % |"
    assert [entry["source"] for entry in yaml.safe_load(mutation.survivors(results))] == [
        candidate.source for candidate in drawn[2:4]
    ]


def test_changed_helper_invalidates_the_files_that_import_it(
    tools: tuple[ModuleType, ModuleType], root: Path
) -> None:
    mutation = tools[1]
    (root / "tests/test_sums.py").write_text("from near import x\n")
    (root / "tests/near.py").write_text("import far\n")
    (root / "tests/far.py").write_text("x = 1\n")
    before = mutation.Checkout(root).suites
    (root / "tests/far.py").write_text("x = 2\n")
    after = mutation.Checkout(root).suites
    assert {name for name in after if after[name] != before[name]} == {"tests/test_sums.py"}


def test_every_listed_equivalent_mutant_exists_and_has_a_reason(
    tools: tuple[ModuleType, ModuleType],
) -> None:
    mutants, mutation = tools
    checkout = mutation.Checkout(TOOLS.parent)
    for (source, before, after), reason in mutation.read_equivalents(TOOLS / "mutants.yaml").items():
        source_mutants = mutants.mutants(checkout.text(source))
        assert (before, after) in {(mutant.before, mutant.after) for mutant in source_mutants}, (
            source,
            after,
        )
        assert reason


@pytest.mark.slow
def test_mutation_run_keeps_the_checkout_unchanged(root: Path, coverage_map: Any) -> None:
    (root / ".mutation").mkdir()
    (root / "tools").mkdir()
    coverage_map.write(root / ".mutation" / "map.json.gz")
    equivalent = {
        "source": "src/qaeval/beta/limits.py",
        "before": "LIMIT = 10",
        "after": "LIMIT = 11",
        "reason": "r",
    }
    (root / "tools" / "mutants.yaml").write_text(json.dumps([equivalent]))
    texts = {name: (root / name).read_text() for name in FILES}
    command = [
        sys.executable,
        str(TOOLS / "mutation.py"),
        "--root",
        str(root),
        "--per-package",
        "50",
        "--workers",
        "1",
    ]
    first = subprocess.run([*command, "--hold"], capture_output=True, text=True, check=False)
    assert first.returncode == 1, first.stderr
    assert {name: (root / name).read_text() for name in FILES} == texts
    rows = [json.loads(line) for line in (root / ".mutation" / "results.jsonl").read_text().splitlines()]
    assert {status for _, status, _ in rows} >= {"killed", "survived"}
    assert {test for _, status, test in rows if status == "killed"} == {SUM, END}
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")


@pytest.mark.slow
def test_slow_tests_count_only_where_they_are_asked_for(
    tools: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    mutation = tools[1]
    checkout = mutation.Checkout(Path(__file__).parents[1])
    file, this = "tests/test_mutation.py", "test_slow_tests_count_only_where_they_are_asked_for"
    fast, every = (
        mutation.Runner(checkout, tmp_path / str(len(selection)), 1, selection).collect([file])
        for selection in (mutation.FAST, ())
    )
    assert {*fast} < {*every}
    assert f"{file}::{this}" in {*every} - {*fast}
