"""The models of a new project: candidates and judge, from running servers and the registry."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qaeval.chat.guard import check_host
from qaeval.errors import UsageError, closest
from qaeval.registry.config import Config, ModelSpec, base_url
from qaeval.registry.family import lines, relation, stated_lines
from qaeval.registry.find import api_key
from qaeval.run.plan import is_related
from qaeval.serving.probe import ServedModel, served_models

FLOOR: Final = ("embedded-lead", "embedded-salient")
"""Candidates of a project without a model: they need no server and show how a comparison works."""


@dataclass(frozen=True)
class ProjectModels:
    """Candidates and judge of a project."""

    shipped: Config
    """The shipped registry."""
    candidates: tuple[ModelSpec, ...]
    judge: ModelSpec
    servers: Mapping[str, ModelSpec]
    """Entries of the running servers, by name."""
    allow_same_family: bool = False
    """Whether the judge is related to a candidate, and the user allowed that."""


def find_servers(
    config: Config, endpoints: Sequence[str], *, api_key_env: str | None = None
) -> dict[str, ModelSpec]:
    """Ask running servers for their models.

    A model that the registry knows, by name or Hugging Face id, gets the name of its entry.

    Args:
        config: The registry.
        endpoints: Base URLs, each alone for all models of the server, or as ``NAME=URL`` for one.
        api_key_env: Environment variable with the API key of all servers.

    Returns:
        Entries with ``url``, by name.

    Raises:
        UsageError: an argument is not a URL, the key is not set, or a server has several models and NAME is none of them.
        EndpointError: a server is outside the user's network, or does not answer with a list of models.
    """
    if api_key_env and not re.fullmatch(r"[A-Z][A-Z0-9_]*", api_key_env):
        raise UsageError("--api-key-env: expected an environment variable in capitals, like VLLM_API_KEY")
    servers: dict[str, ModelSpec] = {}
    for endpoint in endpoints:
        name, url = _parsed(endpoint)
        key = api_key(ModelSpec(name="--api-key-env", url=url, api_key_env=api_key_env))
        location = check_host(url, allow_external=config.allow_external)
        models = asyncio.run(served_models(url, api_key=key, addresses=location.addresses))
        for served in _chosen(models, name, url):
            entry = _entry(config, served, name, url, api_key_env)
            if known := servers.get(entry.name):
                if known.served != entry.served:
                    raise UsageError(
                        f"{url}: the models {known.served!r} and {entry.served!r} would both be called {entry.name!r}; "
                        f"name one of them: --endpoint NAME={url}"
                    )
                entry = known.model_copy(update={"replicas": (*known.replicas, url)})
            servers[entry.name] = entry
    return servers


def _parsed(endpoint: str) -> tuple[str, str]:
    """Split ``NAME=URL``; the name is empty where there is a URL alone."""
    name, equals, url = endpoint.partition("=")
    if not equals or "://" in name:
        name, url = "", endpoint
    try:
        return name, base_url(url)
    except ValueError as error:
        raise UsageError(f"--endpoint {endpoint!r}: {error}") from error


def _chosen(models: Sequence[ServedModel], name: str, url: str) -> Sequence[ServedModel]:
    """Return the models that an endpoint stands for: all of the server, or the one with a name."""
    if not models:
        raise UsageError(f"{url}: the server has no model")
    if not name or len(models) == 1:
        return models
    chosen = [model for model in models if model.name == name]
    if not chosen:
        names = [model.name for model in models]
        raise UsageError(f"{url}: no model {name!r}.{closest(name, names)} It serves {', '.join(names)}")
    return chosen


def _entry(config: Config, served: ServedModel, name: str, url: str, api_key_env: str | None) -> ModelSpec:
    """Return the entry of a served model: that of the registry where it is the same model, else a new one.

    Raises:
        UsageError: the name is that of a model of another family, or cannot be that of an entry.
    """
    entries = {**config.models, **config.judges}
    # vLLM serves any weights under any name, and tells their id or folder
    weights = served.root or served.name
    known = entries.get(name) if name else _known(entries, served.name, weights)
    update = {"url": url, "served_name": served.name, "api_key_env": api_key_env}
    if known is not None:
        _require_family(known, weights, url)
        return known.model_copy(update={key: value for key, value in update.items() if value is not None})
    if name and not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise UsageError(f"--endpoint {name}={url}: expected a name of a-z, 0-9, '.', '_' and '-'")
    is_adapter = served.adapter_of is not None
    proposals = (name, _slug(served.name.rpartition("/")[2]), _slug(weights.rpartition("/")[2]))
    return ModelSpec(
        name=next(
            (text for text in proposals if text and text not in entries), _slug(f"served-{served.name}")
        ),
        # the weights of an adapter are named by whoever trained it; its family is that of its base
        hf_id=weights if re.fullmatch(r"[\w.-]+/[\w.-]+", weights) and not is_adapter else None,
        family=", ".join(stated_lines(served.adapter_of or "")),
        **{key: value for key, value in update.items() if value is not None},
    )


def _known(entries: Mapping[str, ModelSpec], name: str, weights: str) -> ModelSpec | None:
    """Find the entry of a served model: by its weights, else by its name where no other family is stated."""
    servers = [spec for spec in entries.values() if not spec.in_process]
    same = next((spec for spec in servers if spec.hf_id == weights), None)
    named = next((spec for spec in servers if name in {spec.name, spec.served, spec.hf_id}), None)
    return same or (None if named is None or _is_foreign(named, weights) else named)


def _is_foreign(spec: ModelSpec, weights: str) -> bool:
    """Whether the families of an entry and of some weights are known, and differ."""
    stated, registered = stated_lines(weights), lines(spec)
    return spec.hf_id != weights and bool(stated and registered and not {*stated} & {*registered})


def _require_family(known: ModelSpec, weights: str, url: str) -> None:
    """Refuse a server of another family than the entry that it is named as.

    Raises:
        UsageError: the families are known, and differ.
    """
    if _is_foreign(known, weights):
        raise UsageError(
            f"{url} serves {weights!r}, of family {' and '.join(stated_lines(weights))}; {known.name!r} is of family "
            f"{' and '.join(lines(known))}. Correct the URL, or give the model another name: --endpoint NAME={url}"
        )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-") or "model"


def choose_models(
    config: Config,
    servers: Mapping[str, ModelSpec],
    *,
    candidates: Sequence[str] = (),
    judge: str | None = None,
    allow_same_family: bool = False,
) -> ProjectModels:
    """Choose candidates and judge.

    Args:
        config: The registry.
        servers: Entries of running servers.
        candidates: Names of entries, or of served models; default: the models of the servers that are not registered as judges
            and not `judge`; without servers, the embedded candidates.
        judge: Name of the judge; default: the first served model that is no candidate and related to none, else the registry's
            default for the candidates.
        allow_same_family: Whether the judge may be related to a candidate.

    Raises:
        UsageError: a name is unknown or given twice, or the judge is related to a candidate.
    """
    by_served = {spec.served: name for name, spec in servers.items()}
    judges = {name: spec for name, spec in servers.items() if name in config.judges}
    names = [by_served.get(name, name) for name in candidates]
    judge = by_served.get(judge, judge) if judge else None
    names = names or [name for name in servers if name not in judges and name != judge]
    if servers and not names:
        raise UsageError(
            f"no candidate: the servers have {', '.join(servers)}, which the registry knows as judges; name the candidates "
            "with --candidate NAME, or add the server of a candidate with --endpoint URL"
        )
    names = names or [*FLOOR]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{duplicates[0]!r} is named twice; name each candidate once")
    # a candidate that the registry has as a judge gets an entry among the models
    served = {name: spec for name, spec in servers.items() if name not in judges or name in names}
    merged = config.model_copy(
        update={"models": {**config.models, **served}, "judges": {**config.judges, **judges}}
    )
    specs = tuple(merged.candidate(name) for name in names)
    spare = (
        spec
        for name, spec in servers.items()
        if name not in names and not any(relation(spec, candidate) for candidate in specs)
    )
    grader = merged.judge(judge) if judge else next(spare, None) or merged.default_judge(specs)
    same_family = is_related(merged, grader, specs, allowed=allow_same_family)
    return ProjectModels(config, specs, grader, servers, allow_same_family=same_family)
