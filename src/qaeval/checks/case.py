"""What a check is given, and how one is named in an eval."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from qaeval.errors import closest
from qaeval.records import Item, Record, Sample


@dataclass(frozen=True)
class Case:
    """An item with everything that a check may look at.

    Attributes:
        item: What is checked.
        before: The items of the same reply that stand before it.
        sample: What the candidate was given.
        reply: The raw reply.
    """

    item: Item
    before: tuple[Item, ...]
    sample: Sample
    reply: str

    @cached_property
    def source(self) -> str:
        """The chunk's text, title included."""
        return f"{self.sample.chunk.title}\n\n{self.sample.chunk.text}".strip()


Check: TypeAlias = Callable[..., str]
"""Takes a `Case` and its options by keyword; says what it found, or nothing (``""``) where all is well."""


class CheckSpec(Record):
    """A check as an eval names it."""

    name: str
    """Of the check, and of its findings in rows and reports."""
    types: tuple[str, ...] = ()
    """Items of these types alone; empty: all."""
    options: Mapping[str, Any] = Field(default_factory=dict)

    def applies(self, item: Item) -> bool:
        """Whether the check looks at an item."""
        return not self.types or item.type in self.types


def problem(spec: CheckSpec, known: Mapping[str, Check]) -> str:
    """Say what is wrong with a check's name or options; an empty string where nothing is."""
    if spec.name not in known:
        return f"unknown check {spec.name!r}.{closest(spec.name, known)} Known: {', '.join(sorted(known))}"
    check = known[spec.name]
    options = {name: one for name, one in inspect.signature(check).parameters.items() if name != "case"}
    for name in spec.options:
        if name not in options:
            takes = ", ".join(options) or "none"
            return f"check {spec.name!r}: unknown option {name!r}.{closest(name, options)} It takes: {takes}"
    for name, option in options.items():
        if name not in spec.options and option.default is inspect.Parameter.empty:
            return f"check {spec.name!r}: expected option {name!r}"
    hints = get_type_hints(check)
    for name, value in spec.options.items():
        try:
            TypeAdapter(hints[name]).validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError as error:
            return (
                f"check {spec.name!r}: option {name!r}: {error.errors()[0]['msg']}, got {str(value)[:60]!r}"
            )
    return ""


def checked(
    items: Iterable[Item], sample: Sample, reply: str, specs: Iterable[CheckSpec], known: Mapping[str, Check]
) -> tuple[Item, ...]:
    """Return the items of a reply with what the checks found; what found nothing leaves no entry."""
    before: list[Item] = []
    found = []
    for item in items:
        case = Case(item, tuple(before), sample, reply)
        findings = {
            spec.name: finding
            for spec in specs
            if spec.applies(item) and (finding := known[spec.name](case, **spec.options))
        }
        before.append(item)
        found.append(item.model_copy(update={"findings": findings}) if findings else item)
    return tuple(found)
