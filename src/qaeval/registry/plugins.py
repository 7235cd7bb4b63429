"""Models that installed packages register, found by entry point; read only for a name that qaeval itself does not serve.

A package registers a model in its ``pyproject.toml``::

    [project.entry-points."qaeval.models"]
    mymodel = "mypackage.models:make"

``make`` is a factory: called without arguments, once for each stage, inside the event loop. It returns a
`qaeval.chat.protocol.ChatModel`. qaeval's own embedded models are registered the same way, by its own wheel.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from qaeval.errors import EndpointError, UsageError, closest

MODELS: Final = "qaeval.models"
"""Entry point group of models."""


_local: Final[dict[str, Callable[[], object]]] = {}
"""Factories of models that this process registered itself, for its tests; they come before those of packages."""


@contextmanager
def locally_registered(name: str, factory: Callable[[], object]) -> Iterator[None]:
    """Register a model in this process alone while the block runs.

    Args:
        name: Name of the model.
        factory: Called without arguments, once for each stage; returns a `qaeval.chat.protocol.ChatModel`.
    """
    before = _local.get(name)
    _local[name] = factory
    try:
        yield
    finally:
        del _local[name]
        if before is not None:
            _local[name] = before


def is_local(name: str) -> bool:
    """Whether this process registered the name itself; such a model comes before an entry of the registry."""
    return name in _local


def registered_names(group: str) -> list[str]:
    """List the names that this process and installed packages register in a group, sorted."""
    return sorted({*entry_points(group=group).names, *_local})


def is_registered(group: str, name: str) -> bool:
    """Whether this process or an installed package registers a name.

    Raises:
        UsageError: more than one package registers it.
    """
    return name in _local or find_plugin(group, name) is not None


def find_plugin(group: str, name: str) -> EntryPoint | None:
    """Find what an installed package registers under a name; None where no package does.

    Raises:
        UsageError: more than one package registers the name.
    """
    matches = tuple(entry_points(group=group, name=name))
    if len(matches) > 1:
        packages = " and ".join(f"{_package(match)} ({match.value})" for match in matches)
        raise UsageError(
            f"{name!r} is registered more than once as an entry point of {group!r}: by {packages}; uninstall one of them"
        )
    return matches[0] if matches else None


def load_plugin(group: str, name: str) -> Callable[[], object]:
    """Import the factory that an installed package registers under a name.

    Raises:
        UsageError: no package registers the name, or more than one does.
        EndpointError: it cannot be imported, or is no function.
    """
    if name in _local:
        return _local[name]
    plugin = find_plugin(group, name)
    if plugin is None:
        raise UsageError(_missing(group, name))
    try:
        factory = plugin.load()
    except Exception as error:
        raise EndpointError(
            f"{name!r}: importing {plugin.value!r} of {_package(plugin)} failed: {type(error).__name__}: {error}"
        ) from error
    if not callable(factory):
        raise EndpointError(
            f"{name!r}: {plugin.value!r} of {_package(plugin)} is {factory!r}; expected a function without arguments"
        )
    return factory  # type: ignore[no-any-return] # checked by whoever calls it


def _missing(group: str, name: str) -> str:
    names = registered_names(group)
    if not names:
        # qaeval registers its own models here, so an empty group means an installation from before that
        return (
            f"{name!r}: no installed package registers any entry point of {group!r}, not even qaeval; "
            f"reinstall qaeval (of a checkout: `pip install -e .`)"
        )
    return f"no installed package registers {name!r} in {group!r}.{closest(name, names)} Registered: {', '.join(names)}"


def _package(plugin: EntryPoint) -> str:
    return "an unknown package" if plugin.dist is None else f"{plugin.dist.name} {plugin.dist.version}"
