"""Mutants of a module: small changes of its code that a test should notice.

A mutant replaces one node of the syntax tree by another and keeps every other character of the file. Places where a
change cannot matter, or matters only to readers, have none: docstrings, annotations, decorators, `__all__`, asserts,
f-strings, text with spaces, arguments of the log, `encoding=` and `zip(strict=)`.
"""

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
CALLS: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS: Final = ("body", "orelse", "finalbody")
DATA: Final = re.compile(r"[^\s{}]*[A-Za-z0-9][^\s{}]*")
"""A string that is data: no spaces, and a letter or digit."""
TEXT_KEYWORDS: Final = frozenset(
    {"help", "description", "title", "metavar", "rich_help_panel", "epilog", "match"}
)
"""Arguments that only readers see."""
UNSEEN_KEYWORDS: Final = frozenset({"encoding", "strict", "stacklevel", "errors", "name"})
"""Arguments whose default acts alike wherever the tests can run, or that name things for debugging."""
NAMING_CALLS: Final = frozenset({"TypeVar", "NewType", "cast", "ParamSpec", "getLogger", "overload"})
LOGGERS: Final = re.compile(r"_?(log|logger|logging)")


@dataclass(frozen=True)
class Mutant:
    """A change of one node.

    Attributes:
        operator: Kind of the change.
        line: Line of the node, from 1.
        lines: First and last line of the node: a test that executes one of them can notice the change.
        statement: First and last line of the statement around it, for a node to which no line belongs.
        function: Whether the node runs when a function is called, rather than on import.
        before: The lines of the file that the change touches, without indentation.
        after: The same lines, changed.
        changed: What stands in place of these lines.
    """

    operator: str
    line: int
    lines: tuple[int, int]
    statement: tuple[int, int]
    function: bool
    before: str
    after: str
    changed: str

    def apply(self, text: str) -> str:
        """Return the text of a module with the change."""
        lines = text.splitlines(keepends=True)
        first, last = self.lines
        return "".join([*lines[: first - 1], self.changed, *lines[last:]])


def mutants(text: str) -> list[Mutant]:
    """Return all mutants of a module, in the order of the file; some may not compile: `is_valid`."""
    lines = text.splitlines(keepends=True)
    changes = (
        _mutant(lines, place, operator, changed) for place, operator, changed in _Changes(ast.parse(text))
    )
    return sorted(changes, key=lambda mutant: (mutant.line, mutant.operator, mutant.after))


def is_valid(mutant: Mutant, text: str) -> bool:
    """Whether a mutant of a module compiles and is another program."""
    changed = mutant.apply(text)
    try:
        compile(changed, "", "exec", dont_inherit=True)
    except SyntaxError:  # such as `continue` outside of a loop
        return False
    return ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))


@dataclass(frozen=True)
class _Place:
    node: ast.expr | ast.stmt
    statement: ast.stmt
    function: bool


_Change = tuple[_Place, str, str]


def _mutant(lines: list[str], place: _Place, operator: str, replacement: str) -> Mutant:
    node = place.node
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    head = lines[first].encode()[: node.col_offset].decode()
    tail = lines[last].encode()[node.end_col_offset :].decode()
    if isinstance(node, ast.stmt):
        replacement = replacement.replace("\n", "\n" + " " * node.col_offset)
    changed = head + replacement + tail
    return Mutant(
        operator=operator,
        line=node.lineno,
        lines=(first + 1, last + 1),
        statement=_header(place.statement),
        function=place.function,
        before=_flat("".join(lines[first : last + 1])),
        after=_flat(changed),
        changed=changed,
    )


def _flat(text: str) -> str:
    return " ".join(text.split())


def _header(statement: ast.stmt) -> tuple[int, int]:
    """Return the first and last line of a statement, without the block under it."""
    body = getattr(statement, "body", None)
    if body:
        return statement.lineno, max(statement.lineno, body[0].lineno - 1)
    return statement.lineno, statement.end_lineno or statement.lineno


class _Changes:
    """Changes of a module, by a walk that knows the statement and leaves out what is no behaviour."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree

    def __iter__(self) -> Iterator[_Change]:
        yield from self._block(self._tree.body, function=False, returns=False)

    def _block(self, body: list[ast.stmt], *, function: bool, returns: bool) -> Iterator[_Change]:
        for statement in body:
            if not _is_unseen(statement):
                yield from self._statement(statement, function=function, returns=returns)

    def _statement(self, statement: ast.stmt, *, function: bool, returns: bool) -> Iterator[_Change]:
        place = _Place(statement, statement, function)
        if isinstance(statement, FUNCTIONS):
            for default in [*statement.args.defaults, *statement.args.kw_defaults]:
                if default is not None:
                    yield from self._expression(default, statement, function=function)
            nothing = isinstance(statement.returns, ast.Constant) and statement.returns.value is None
            yield from self._block(statement.body, function=True, returns=not nothing)
            return
        if isinstance(statement, ast.ClassDef):
            yield from self._block(statement.body, function=function, returns=returns)
            return
        yield from ((place, operator, text) for operator, text in _of_statement(statement, returns=returns))
        for field, value in ast.iter_fields(statement):
            if field in {"annotation", "targets", "target", "cause"} and not _is_index(value):
                continue
            if field in BLOCKS:
                yield from self._block(value, function=function, returns=returns)
                continue
            for part in value if isinstance(value, list) else [value]:
                yield from self._part(
                    part, statement, function=function, returns=returns, condition=field == "test"
                )

    def _part(
        self, part: object, statement: ast.stmt, *, function: bool, returns: bool, condition: bool
    ) -> Iterator[_Change]:
        match part:
            case ast.expr():
                yield from self._expression(part, statement, function=function, condition=condition)
            case ast.withitem():
                yield from self._expression(part.context_expr, statement, function=function)
            case ast.match_case():
                if part.guard:
                    yield from self._expression(part.guard, statement, function=function, condition=True)
                yield from self._block(part.body, function=function, returns=returns)
            case ast.ExceptHandler():
                yield from self._handler(part, statement, function=function)
                yield from self._block(part.body, function=function, returns=returns)
            case _:
                pass

    def _handler(
        self, handler: ast.ExceptHandler, statement: ast.stmt, *, function: bool
    ) -> Iterator[_Change]:
        caught = handler.type
        if isinstance(caught, ast.Tuple):
            for index in range(len(caught.elts)):
                kept = [element for at, element in enumerate(caught.elts) if at != index]
                text = ast.unparse(ast.Tuple(kept, ast.Load()))
                yield _Place(caught, statement, function), "exception", text
        elif caught is not None:
            yield _Place(caught, statement, function), "exception", "StopAsyncIteration"

    def _expression(
        self, node: ast.expr, statement: ast.stmt, *, function: bool, condition: bool = False
    ) -> Iterator[_Change]:
        if isinstance(node, ast.JoinedStr):
            return
        place = _Place(node, statement, function)
        if condition and not (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)):
            yield place, "condition", _unparsed(ast.UnaryOp(ast.Not(), node))
        for operator, changed in _of_expression(node):
            yield place, operator, _unparsed(changed)
        if isinstance(node, ast.Lambda):
            yield from self._expression(node.body, statement, function=function)
            return
        for part, is_condition in _parts(node):
            yield from self._expression(part, statement, function=function, condition=is_condition)


def _parts(node: ast.expr) -> Iterator[tuple[ast.expr, bool]]:
    """Yield the expressions directly in an expression, and whether each is a condition."""
    hidden = _unseen_parts(node)
    for part in ast.iter_child_nodes(node):
        if part in hidden:
            continue
        if isinstance(part, ast.keyword):
            yield part.value, False
        elif isinstance(part, ast.comprehension):
            yield part.iter, False
            yield from ((test, True) for test in part.ifs)
        elif isinstance(part, ast.expr):
            yield part, isinstance(node, ast.IfExp) and part is node.test


def _of_statement(statement: ast.stmt, *, returns: bool) -> Iterator[tuple[str, str]]:
    match statement:
        case ast.Break():
            yield "loop", "continue"
        case ast.Continue():
            yield "loop", "break"
        case ast.Raise() | ast.Delete():
            yield "deletion", "pass"
        case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())):
            yield "deletion", "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "deletion", "pass"
        case ast.AugAssign():
            yield "deletion", "pass"
            if type(statement.op) in ARITHMETIC and not _is_sequence(statement.value):
                changed = copy.copy(statement)
                changed.op = ARITHMETIC[type(statement.op)]()
                yield "arithmetic", ast.unparse(changed)
        case ast.Return(value=ast.expr() as value) if returns and not _is_none(value):
            yield "return", "return None"
        case _:
            pass


def _of_expression(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                operators = list(node.ops)
                operators[index] = COMPARISONS[type(operator)]()
                yield "comparison", ast.Compare(node.left, operators, node.comparators)
        case ast.BoolOp():
            yield "boolean", ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
        case ast.UnaryOp(op=ast.Not()):
            yield "not", node.operand
        case ast.UnaryOp(op=ast.USub(), operand=ast.expr() as operand) if not isinstance(
            operand, ast.Constant
        ):
            yield "arithmetic", operand
        case ast.BinOp() if type(node.op) in ARITHMETIC and not (
            _is_sequence(node.left) or _is_sequence(node.right)
        ):
            yield "arithmetic", ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
        case ast.Constant():
            yield from _of_constant(node.value)
        case ast.Call():
            yield from _of_call(node)
        case _:
            pass


def _of_constant(value: object) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(value, bool):
        yield "constant", ast.Constant(not value)
    elif isinstance(value, int):
        yield "constant", ast.Constant(value + 1)
        if value > 0:
            yield "constant", ast.Constant(value - 1)
    elif isinstance(value, float):
        yield "constant", ast.Constant(value * 1.5 if value else 1.0)
    elif isinstance(value, str) and DATA.fullmatch(value):
        yield "string", ast.Constant(value + "X")


def _of_call(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    if _called(node) in NAMING_CALLS:
        return
    if isinstance(node.func, ast.Name) and node.func.id in CALLS:
        yield "call", ast.Call(ast.Name(CALLS[node.func.id], ast.Load()), node.args, node.keywords)
    for index, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in TEXT_KEYWORDS | UNSEEN_KEYWORDS:
            kept = [other for at, other in enumerate(node.keywords) if at != index]
            yield "keyword", ast.Call(node.func, node.args, kept)


def _unparsed(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if isinstance(node, ast.Constant | ast.Name | ast.Call | ast.Attribute) else f"({text})"


def _unseen_parts(node: ast.expr) -> list[ast.AST]:
    """Return the parts of an expression that only readers see."""
    if not isinstance(node, ast.Call):
        return []
    if _called(node) in NAMING_CALLS:
        return [*node.args, *node.keywords]
    return [word for word in node.keywords if word.arg in TEXT_KEYWORDS | UNSEEN_KEYWORDS]


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is_unseen(statement: ast.stmt) -> bool:
    """Whether a statement has no behaviour that a test could see."""
    match statement:
        case (
            ast.Assert()
            | ast.Import()
            | ast.ImportFrom()
            | ast.Pass()
            | ast.Expr(value=ast.Constant())
            | ast.AnnAssign(value=None)
            | ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")])
            | ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"))
        ):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return bool(LOGGERS.fullmatch(name))
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return any(ast.unparse(decorator).endswith("overload") for decorator in statement.decorator_list)
        case ast.ClassDef():
            return any(ast.unparse(base).startswith("Protocol") for base in statement.bases)
        case _:
            return False


def _is_index(value: object) -> bool:
    targets = value if isinstance(value, list) else [value]
    return all(isinstance(target, ast.Subscript) for target in targets)


def _is_sequence(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_sequence(node.left) or _is_sequence(node.right)
    return isinstance(node, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
