"""The interface of a check: its input, its entry in an eval, and how the checks of an eval run."""

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
class CheckedItem:
    """An item with its context: the input of a check.

    Attributes:
        item: The item to check.
        earlier: The items before it in the same reply.
        sample: The candidate's input.
        reply: The raw reply.
        prompt: The candidate's prompt, with its placeholders; empty where it is not known.
    """

    item: Item
    earlier: tuple[Item, ...]
    sample: Sample
    reply: str
    prompt: str = ""

    @cached_property
    def source(self) -> str:
        """The chunk's text, title included."""
        return f"{self.sample.chunk.title}\n\n{self.sample.chunk.text}".strip()


Check: TypeAlias = Callable[..., str]
"""A function of a `CheckedItem` and options by keyword. Returns a finding, or ``""`` if there is none."""


class CheckSpec(Record):
    """An entry of an eval's ``checks:``."""

    name: str
    """Name of the check and of its findings in rows and reports."""
    types: tuple[str, ...] = ()
    """Types of the items to check; empty: all."""
    options: Mapping[str, Any] = Field(default_factory=dict)

    def applies(self, item: Item) -> bool:
        """Whether the check runs on an item."""
        return not self.types or item.type in self.types


def spec_problem(spec: CheckSpec, checks: Mapping[str, Check]) -> str:
    """Return what is wrong with a check's name or options; an empty string if nothing is."""
    if spec.name not in checks:
        return f"unknown check {spec.name!r}.{closest(spec.name, checks)} Known: {', '.join(sorted(checks))}"
    function = checks[spec.name]
    options = dict(inspect.signature(function).parameters)
    del options["checked"]
    for name in spec.options:
        if name not in options:
            known = ", ".join(options) or "none"
            return f"check {spec.name!r}: unknown option {name!r}.{closest(name, options)} Options: {known}"
    for name, option in options.items():
        if name not in spec.options and option.default is inspect.Parameter.empty:
            return f"check {spec.name!r}: missing option {name!r}"
    hints = get_type_hints(function)
    for name, value in spec.options.items():
        try:
            TypeAdapter(hints[name]).validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError as error:
            return (
                f"check {spec.name!r}: option {name!r}: {error.errors()[0]['msg']}, got {str(value)[:60]!r}"
            )
    return ""


def run_checks(
    items: Iterable[Item],
    sample: Sample,
    reply: str,
    specs: Iterable[CheckSpec],
    checks: Mapping[str, Check],
    *,
    prompt: str = "",
) -> tuple[Item, ...]:
    """Return the items of a reply with the checks' findings; a check without a finding leaves no entry.

    Args:
        items: The items, in the order of the reply.
        sample: The candidate's input.
        reply: The raw reply.
        specs: The eval's checks.
        checks: All checks by name.
        prompt: The candidate's prompt, with its placeholders.
    """
    earlier: list[Item] = []
    result = []
    for item in items:
        checked = CheckedItem(item, tuple(earlier), sample, reply, prompt)
        findings = {
            spec.name: finding
            for spec in specs
            if spec.applies(item) and (finding := checks[spec.name](checked, **spec.options))
        }
        earlier.append(item)
        result.append(item.model_copy(update={"findings": findings}) if findings else item)
    return tuple(result)
