"""Models of installed packages, registered by entry point. Read only for names that are not in the registry.

A package registers a model in its ``pyproject.toml``::

    [project.entry-points."qaeval.models"]
    mymodel = "mypackage.models:make"

``make`` is a factory without arguments that returns a `qaeval.chat.protocol.ChatModel`; it is called once
per stage, inside the event loop. The embedded models of qaeval are registered in the same way, by its own
wheel.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
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
    return sorted({*_installed(group, tuple(sys.path)).names, *_local})


def is_registered(group: str, name: str) -> bool:
    """Whether this process or an installed package registers a name.

    Raises:
        UsageError: more than one package registers it.
    """
    return name in _local or find_plugin(group, name) is not None


@lru_cache(maxsize=4)
def _installed(group: str, _path: tuple[str, ...]) -> EntryPoints:
    """Return the entry points of a group; to read them takes the metadata of every installed package, 20 ms or more."""
    return entry_points(group=group)


def find_plugin(group: str, name: str) -> EntryPoint | None:
    """Return the entry point of a name; None if no installed package registers it.

    Raises:
        UsageError: more than one package registers the name.
    """
    matches = tuple(_installed(group, tuple(sys.path)).select(name=name))
    if len(matches) > 1:
        packages = " and ".join(f"{_package(match)} ({match.value})" for match in matches)
        raise UsageError(
            f"{name!r} is registered more than once in the entry points {group!r}: by {packages}; "
            "uninstall one of them"
        )
    return matches[0] if matches else None


def load_plugin(group: str, name: str) -> Callable[[], object]:
    """Import the factory that an installed package registers under a name.

    Raises:
        UsageError: no package registers the name, or several do.
        EndpointError: the import fails, or the entry point is not callable.
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
            f"{name!r}: importing {plugin.value!r} of {_package(plugin)} failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(factory):
        raise EndpointError(
            f"{name!r}: {plugin.value!r} of {_package(plugin)} is {factory!r}; "
            "expected a function without arguments"
        )
    return factory  # type: ignore[no-any-return] # the caller checks what it returns


def _missing(group: str, name: str) -> str:
    names = registered_names(group)
    if not names:
        # qaeval registers its own models here, so an empty group means an installation of an older version
        return (
            f"{name!r}: no installed package has entry points in {group!r}, not even qaeval; "
            "reinstall qaeval (in a checkout: `pip install -e .`)"
        )
    hint = closest(name, names)
    return f"no installed package registers {name!r} in {group!r}.{hint} Registered: {', '.join(names)}"


def _package(plugin: EntryPoint) -> str:
    return "an unknown package" if plugin.dist is None else f"{plugin.dist.name} {plugin.dist.version}"
