"""Compiled patterns of the package with the methods they are used with, and texts that make bad patterns slow."""

import ast
import importlib
import re
import re._parser as parser  # type: ignore[import-not-found]
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import qaeval
import qaeval_floor

_METHODS = ("match", "search", "fullmatch", "findall", "finditer", "sub", "subn", "split")
_SINGLES = (*"aA1 \n.\"'\\<>[]{}()-_*|:,#=/$&;?!~`@%+", "é", "\u200b")
_OPTIONAL = ("qaeval.inspect_bridge", "qaeval.__main__")
"""Modules that need a package which may not be installed, or that run a command."""
_FLOOR_S = 0.02
"""A pattern that finishes faster is not measured further."""


class Use(NamedTuple):
    """A pattern, and a method that it is used with."""

    where: str
    pattern: re.Pattern[str]
    method: str

    def apply(self, text: str) -> None:
        """Use the pattern on a text as the package does."""
        if self.method in {"sub", "subn"}:
            self.pattern.sub(" ", text)
        elif self.method == "finditer":
            for _ in self.pattern.finditer(text):
                pass
        else:
            getattr(self.pattern, self.method)(text)


def uses() -> list[Use]:
    """Return every compiled pattern of the package once for each method that it is used with."""
    methods: defaultdict[str, set[str]] = defaultdict(set)
    names: list[tuple[str, str]] = []
    collected: list[Use] = []
    for path, module in _files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in _METHODS:
                for name in _names(node.value):
                    methods[_key(module, name)].add(node.attr)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                collected += _literal(node, module)
        names += [(module, name) for name in _assigned_names(tree)]
    for module, name in names:
        if module.startswith(_OPTIONAL):
            continue
        value = getattr(importlib.import_module(module), name, None)
        for pattern in _patterns(value):
            if isinstance(pattern.pattern, str):
                collected += [
                    Use(f"{module}.{name}", pattern, method)
                    for method in methods[_key(module, name)] or {"search"}
                ]
    return collected


def _names(base: ast.expr) -> list[str]:
    """Return the names of the patterns that a method is called on: both names of a conditional expression."""
    if isinstance(base, ast.IfExp):
        return [*_names(base.body), *_names(base.orelse)]
    return [base.id if isinstance(base, ast.Name) else getattr(base, "attr", "")]


def _key(module: str, name: str) -> str:
    """Return a key for a name: private names are qualified by their module, since only it uses them."""
    return f"{module}.{name}" if name.startswith("_") else name


def _files() -> Iterator[tuple[Path, str]]:
    for package in (qaeval, qaeval_floor):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield path, ".".join((package.__name__, *(part for part in parts if part != "__init__")))


def _assigned_names(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _patterns(value: Any) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        yield from _patterns(tuple(value.values()))
    elif isinstance(value, tuple | list | frozenset):
        for entry in value:
            yield from _patterns(entry)


def _literal(node: ast.Call, module: str) -> Iterator[Use]:
    """Yield a pattern that is written where it is used: ``re.search("…", text)``."""
    func = node.func
    if not (isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and func.value.id == "re"):
        return
    argument = node.args[0] if node.args else None
    if func.attr in _METHODS and isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        yield Use(f"{module}:{node.lineno}", re.compile(argument.value, re.IGNORECASE), func.attr)


def pumps(pattern: re.Pattern[str]) -> list[str]:
    """Return texts to repeat: single characters, the words of the pattern, and both together."""
    words = _words(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE))
    pairs = [f"{first}{second}" for first in _SINGLES[:6] for second in _SINGLES[:6] if first != second]
    return list(
        dict.fromkeys(
            [*_SINGLES, *words, *(f"{word}{single}" for word in words for single in "a 1.\n"), *pairs]
        )
    )


def _words(parsed: Iterable[Any]) -> list[str]:
    """Return the runs of literal characters of a parsed pattern."""
    words, literal = [], ""
    for operator, operand in parsed:
        if str(operator) == "LITERAL":
            literal += chr(operand)
            continue
        words.append(literal)
        literal = ""
        words += [word for inner in _subpatterns(operand) for word in _words(inner)]
    return [word for word in dict.fromkeys([*words, literal]) if word][:8]


def _subpatterns(argument: Any) -> Iterator[Any]:
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for entry in argument:
            yield from _subpatterns(entry)


def grows_too_fast(
    act: Callable[[str], object], pump: str, n: int, *, suffix: str = "", factor: float = 6.0
) -> float:
    """Return the ratio of CPU times for 4n and n characters if it exceeds the factor in three measurements, else 0."""
    short, long = (pump * (size // len(pump)) + suffix for size in (n, 4 * n))
    if _seconds(act, long) < _FLOOR_S:
        return 0.0
    ratio = 0.0
    for _ in range(3):
        ratio = _seconds(act, long) / max(_seconds(act, short), 1e-6)
        if ratio <= factor:
            return 0.0
    return ratio


def _seconds(act: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    act(text)
    return time.process_time() - start
