"""Which weights a model has: what has to be the same before a reply of an earlier run is taken for its own.

The served name and the root that a server reports are no proof: a folder can be filled anew, and the main branch of a
repository moves. vLLM's ``created`` is the time of the request for the list of models. Weights are known by a commit (of
the registry, or of the local Hugging Face cache where qaeval starts the server), by `pin` of the registry, which is the
user's statement, and otherwise only while the same server process runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from qaeval.registry.model import ModelSpec
from qaeval.serving.probe import EndpointFacts

Weights: TypeAlias = Mapping[str, str]
"""What identifies the weights: values by name."""

_STARTED: Final = "start of the server"


def known_weights(spec: ModelSpec, facts: EndpointFacts, *, env: Mapping[str, str] | None) -> Weights | None:
    """Return what identifies the weights of a model; None where nothing does.

    Args:
        spec: The registry's entry, without the URL of a server that qaeval started.
        facts: What the probe of its server found.
        env: Environment of the servers that qaeval starts; None where their Hugging Face cache may be another than this machine's.
    """
    reported = {"root": facts.root or "", "version": facts.version or "", "files": facts.files_sha256 or ""}
    if spec.pin:
        return {"pin": spec.pin, **reported}
    if spec.lora is not None or facts.version is None:
        return None
    commit = spec.revision
    is_elsewhere = any(argument.startswith("--download-dir") for argument in spec.vllm_args)
    if spec.hf_id and commit is None and spec.is_hosted and env is not None and not is_elsewhere:
        commit = _cached_commit(spec.hf_id, env)
    if spec.hf_id and commit:
        return {"revision": commit, **reported}
    is_adapter = spec.served in facts.adapters  # an adapter can be replaced while its server runs
    if spec.url and facts.started and not spec.replicas and not is_adapter:
        return {_STARTED: facts.started, **reported}
    return None


def _cached_commit(hf_id: str, env: Mapping[str, str]) -> str:
    """Return the commit that the main branch of a repository had when this machine last fetched it; empty if unknown."""
    home = env.get("HF_HOME") or str(Path(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"))
    # the older name of the variable still counts for huggingface_hub
    cache = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
    hub = Path(cache or Path(home, "hub")).expanduser()
    try:
        return (hub / f"models--{hf_id.replace('/', '--')}" / "refs" / "main").read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def why_asked(name: str, weights: Weights | None, earlier: Sequence[Weights]) -> str:
    """Say why a model is asked what earlier runs asked it; empty where the cache can answer, or there was no run.

    Args:
        name: The model.
        weights: What identifies its weights.
        earlier: What identified them in earlier runs, the last one at the end.
    """
    if weights is None:
        return (
            f"{name}: replies are not reused, because nothing identifies the weights of its server; "
            "set `revision` or `pin` in qaeval.yaml"
        )
    if not earlier or weights in earlier:
        return ""
    last = earlier[-1]
    changes = [
        f"{key} {last.get(key) or 'unknown'!r} → {weights.get(key) or 'unknown'!r}"
        for key in dict.fromkeys((*weights, *last))
        if key != _STARTED and last.get(key, "") != weights.get(key, "")
    ]
    if not changes:
        changes = ["its server was started again; `pin` in qaeval.yaml states that the weights are the same"]
    return f"{name}: replies of earlier runs are not reused: {', '.join(changes)}"
