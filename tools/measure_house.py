"""Print the figures by which the layout of the source is judged.

    .venv/bin/python tools/measure_house.py                  # this checkout
    .venv/bin/python tools/measure_house.py --before v0.1.0  # a revision beside it, and the targets
    .venv/bin/python tools/measure_house.py --root ../other  # another checkout

Each figure is a function of a `Checkout`; its docstring is its definition. Unless it says otherwise, both
packages under `src/` count. Imports count wherever they stand: at the top of a module, in a function, under
`TYPE_CHECKING`.
"""

import argparse
import ast
import io
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Container, Iterator
from functools import cached_property
from inspect import getdoc
from pathlib import Path
from typing import Any

PACKAGE = "qaeval"
FLOOR = "qaeval_floor"
FLOOR_WITHIN_PACKAGE = ("chat", "embedded")
"""Where the floor was before it became a package."""
PRIVATE_IDIOM = frozenset({"one", "found", "told"})
PHRASE_WORDS = 5

Edge = tuple[str, str]


class Checkout:
    """The source of one revision: modules by dotted name, their syntax trees and their imports."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = root / "src"
        self.paths = {_dotted(path, self.source): path for path in sorted(self.source.rglob("*.py"))}

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """The syntax tree of each module."""
        return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.paths.items()}

    @cached_property
    def imports(self) -> set[Edge]:
        """Pairs (importing module, imported module) within `src/`."""
        edges = set()
        for name in self.paths:
            for target in self._targets(name):
                module = _closest(target, self.paths)
                if module and module != name:
                    edges.add((name, module))
        return edges

    @property
    def nodes(self) -> Iterator[ast.AST]:
        """Every node of every module."""
        for tree in self.trees.values():
            yield from ast.walk(tree)

    def unit(self, module: str) -> str:
        """Return the folder of a module, or the module itself where it lies directly in the package."""
        path = self.paths[module].relative_to(self.source)
        return str(path.parent if path.parts[:-1] != (PACKAGE,) else path)

    def _targets(self, name: str) -> Iterator[str]:
        """Yield the dotted names that a module imports, an imported attribute included."""
        for node in ast.walk(self.trees[name]):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    is_package = self.paths[name].name == "__init__.py"
                    parents = name.split(".")
                    kept = parents[: len(parents) - node.level + is_package]
                    base = ".".join([*kept, *filter(None, [node.module])])
                yield from (f"{base}.{alias.name}" for alias in node.names)


def folders_and_loose_files(checkout: Checkout) -> int:
    """Folders of the packages, themselves and data folders included, and modules directly in `src/qaeval`."""
    folders = {
        folder
        for package in (PACKAGE, FLOOR)
        for folder in [checkout.source / package, *(checkout.source / package).rglob("*")]
        if folder.is_dir() and folder.name != "__pycache__"
    }
    return len(folders) + len(_loose(checkout))


def import_arrows(checkout: Checkout) -> int:
    """Ordered pairs of folders or loose modules of `src/qaeval`, the first of which imports the second."""
    pairs = {(checkout.unit(source), checkout.unit(target)) for source, target in checkout.imports}
    return sum(source != target for source, target in pairs)


def loose_files(checkout: Checkout) -> int:
    """Modules directly in `src/qaeval`, without `__init__` and `__main__`."""
    return sum(path.stem not in {"__init__", "__main__"} for path in _loose(checkout))


def modules(checkout: Checkout) -> int:
    """Files that end in `.py` under `src/`."""
    return len(checkout.paths)


def code_lines(checkout: Checkout) -> int:
    """Lines of `src/qaeval` without the floor that are neither blank nor a comment nor part of a docstring.

    A docstring is any statement that consists of a string, so a string under a field is one.
    """
    return sum(
        _code_lines(checkout, name)
        for name in checkout.paths
        if not _is_of_floor(name) and name.split(".")[0] == PACKAGE
    )


def floor_code_lines(checkout: Checkout) -> int:
    """The same for the floor: `src/qaeval_floor`, or `src/qaeval/chat/embedded` before it was a package."""
    return sum(_code_lines(checkout, name) for name in checkout.paths if _is_of_floor(name))


def import_cycles(checkout: Checkout) -> int:
    """Groups of two or more modules that import each other, directly or through others.

    Imports of the package's own `__init__` are left out: every module imports it, and what it names it loads at the first access.
    """
    return len(_cycles({edge for edge in checkout.imports if edge[0] != PACKAGE}))


def upward_imports(checkout: Checkout) -> int:
    """Imports that a `layers` contract of `pyproject.toml` forbids: of a higher layer or independent sibling.

    If the contract is exhaustive, imports of a module without a layer count too: nothing else holds them.
    """
    settings = tomllib.loads((checkout.root / "pyproject.toml").read_text(encoding="utf-8"))
    return sum(
        _is_upward(edge, contract, container)
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
        for container in contract.get("containers", [""])
        for edge in checkout.imports
    )


def repeated_class_names(checkout: Checkout) -> int:
    """Class names that more than one `class` statement defines."""
    names = Counter(node.name for node in checkout.nodes if isinstance(node, ast.ClassDef))
    return sum(count > 1 for count in names.values())


def idiom_bindings(checkout: Checkout) -> int:
    """Bindings of `one`, `found` and `told`: an `ast.Name` that is stored to, or an `ast.arg`."""
    stored = (
        node.id for node in checkout.nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    arguments = (node.arg for node in checkout.nodes if isinstance(node, ast.arg))
    return sum(name in PRIVATE_IDIOM for names in (stored, arguments) for name in names)


def phrase_tests(checkout: Checkout) -> int:
    """Test functions that assert a phrase: a string of five or more words, separated by white space.

    The string is a constant in the condition of an `assert`, not in its message, or in the argument `match`
    of a call. The text of a golden file is no constant and does not count.
    """
    return sum(
        _asserts_phrase(node)
        for path in (checkout.root / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
    )


FIGURES: dict[str, tuple[Callable[[Checkout], int], str]] = {
    "folders and loose files": (folders_and_loose_files, "≤ 34"),
    "import arrows between them": (import_arrows, "≤ 185"),
    "loose files": (loose_files, "≤ 7"),
    "modules": (modules, "about 225"),
    "code lines of src/qaeval": (code_lines, "≤ 23000"),
    "code lines of src/qaeval_floor": (floor_code_lines, "≤ 2700"),
    "import cycles": (import_cycles, "0"),
    "upward imports": (upward_imports, "0"),
    "class names defined twice": (repeated_class_names, "≤ 5"),
    "bindings of one, found, told": (idiom_bindings, "≤ 40"),
    "tests that assert a phrase": (phrase_tests, "≤ 60"),
}


def measure(root: Path) -> dict[str, int]:
    """Return every figure of the checkout at `root`."""
    checkout = Checkout(root)
    return {label: figure(checkout) for label, (figure, _) in FIGURES.items()}


def measure_revision(root: Path, revision: str) -> dict[str, int]:
    """Return every figure of an earlier revision of the repository at `root`."""
    archive = subprocess.run(
        ["git", "-C", str(root), "archive", revision, "src", "tests", "pyproject.toml"],
        capture_output=True,
        check=True,
    ).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        return measure(Path(folder))


def table(columns: dict[str, dict[str, int]]) -> str:
    """Return the figures as a Markdown table, one column for each revision and one for the targets."""
    heads = ["figure", *columns, "target"]
    rows = [
        [label, *(f"{figures[label]}" for figures in columns.values()), target]
        for label, (_, target) in FIGURES.items()
    ]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(cells: list[str]) -> str:
        first, *others = cells
        aligned = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]
        return f"| {' | '.join(aligned)} |"

    return "\n".join(line(row) for row in [heads, rule, *rows])


def _dotted(path: Path, source: Path) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _loose(checkout: Checkout) -> list[Path]:
    return list((checkout.source / PACKAGE).glob("*.py"))


def _is_of_floor(module: str) -> bool:
    package, *rest = module.split(".")
    return package == FLOOR or tuple(rest[: len(FLOOR_WITHIN_PACKAGE)]) == FLOOR_WITHIN_PACKAGE


def _code_lines(checkout: Checkout, module: str) -> int:
    strings = {
        line
        for node in ast.walk(checkout.trees[module])
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = checkout.paths[module].read_text(encoding="utf-8").splitlines()
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and number not in strings
        for number, line in enumerate(lines, start=1)
    )


def _cycles(edges: set[Edge]) -> set[frozenset[str]]:
    targets: dict[str, set[str]] = {}
    for source, target in edges:
        targets.setdefault(source, set()).add(target)
    reached = {source: _reachable(source, targets) for source in targets}
    return {
        frozenset(other for other in reached[source] if source in reached.get(other, ()))
        for source in targets
        if source in reached[source]
    }


def _reachable(start: str, targets: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    pending = [start]
    while pending:
        for target in targets.get(pending.pop(), ()):
            if target not in reached:
                reached.add(target)
                pending.append(target)
    return reached


def _is_upward(edge: Edge, contract: dict[str, Any], container: str) -> bool:
    prefix = f"{container}." if container else ""
    if not all(module.startswith(prefix) for module in edge):
        return False
    layers: list[str] = contract["layers"]
    height = {
        name.strip(" ()"): index
        for index, layer in enumerate(layers)
        for name in layer.replace("|", ":").split(":")
    }
    source, target = (_closest(module.removeprefix(prefix), height) for module in edge)
    if source is None or target is None:
        return bool(contract.get("exhaustive"))
    is_independent = "|" in layers[height[source]]
    return height[target] < height[source] or (
        height[target] == height[source] and source != target and is_independent
    )


def _closest(module: str, names: Container[str]) -> str | None:
    """Return the module or the closest of its parents that is among `names`."""
    while module and module not in names:
        module = module.rpartition(".")[0]
    return module or None


def _asserts_phrase(test: ast.AST) -> bool:
    for node in ast.walk(test):
        if isinstance(node, ast.Assert) and _has_phrase(node.test):
            return True
        if isinstance(node, ast.keyword) and node.arg == "match" and _has_phrase(node.value):
            return True
    return False


def _has_phrase(expression: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and len(node.value.split()) >= PHRASE_WORDS
        for node in ast.walk(expression)
    )


def main(arguments: list[str]) -> None:
    """Print the table."""
    definitions = "\n".join(f"\n{label}\n{getdoc(figure)}" for label, (figure, _) in FIGURES.items())
    parser = argparse.ArgumentParser(
        description="Print the figures by which the layout of the source is judged.",
        epilog=f"definitions\n{definitions}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="checkout to measure")
    parser.add_argument("--before", metavar="REV", help="also measure this revision of the checkout")
    options = parser.parse_args(arguments)
    columns = {"now": measure(options.root)}
    if options.before:
        columns = {"before": measure_revision(options.root, options.before), "after": columns["now"]}
    print(table(columns))


if __name__ == "__main__":
    main(sys.argv[1:])
