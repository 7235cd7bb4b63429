"""The texts of a new project's files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal, TypeAlias

from qaeval import __version__
from qaeval.errors import DISTRIBUTION
from qaeval.gate.policy import chunks_for_smallest_margins, default_policy
from qaeval.projects.models import ProjectModels
from qaeval.projects.schemas import editor_line
from qaeval.registry.config import ModelSpec
from qaeval.stats.estimate import MIN_CLUSTERS

Ci: TypeAlias = Literal["github", "gitlab"]
"""Services that a project can have a CI file for."""

CI_FILES: Final[Mapping[Ci, str]] = {"github": ".github/workflows/qaeval.yml", "gitlab": ".gitlab-ci.yml"}
"""Path of the CI file by service."""

_MACHINE: Final = "ours"
GITIGNORE: Final = "results/\n.qaeval-venv/\n"


@dataclass(frozen=True)
class Price:
    """Price of the machine that serves the models."""

    per_hour: float
    currency: str
    source: str
    as_of: date


def registry_file(models: ProjectModels, *, eval_name: str, price: Price | None) -> str:
    """Return ``qaeval.yaml``."""
    candidates = {spec.name for spec in models.candidates}
    judges = {
        name: spec
        for name, spec in models.servers.items()
        if name in models.shipped.judges and name not in candidates
    }
    entries = {name: spec for name, spec in models.servers.items() if name not in judges}
    embedded = all(spec.in_process for spec in models.candidates)
    defaults = {
        "eval": eval_name,
        "embedded_judge" if embedded else "judge": models.judge.name,
        "until_decided": True,
        **({"hardware": _MACHINE} if price else {}),
    }
    hardware: dict[str, dict[str, Any]] = {}
    if price:
        hardware[_MACHINE] = {
            "price_per_hour": price.per_hour,
            "currency": price.currency,
            "as_of": price.as_of.isoformat(),
            "source": price.source,
        }
    sections = {
        "models": {name: _entry(spec, models.shipped.models) for name, spec in entries.items()},
        "judges": {name: _entry(spec, models.shipped.judges) for name, spec in judges.items()},
        "hardware": hardware,
    }
    return (
        editor_line("qaeval", "qaeval.yaml")
        + "# The registry of this project, merged over that of qaeval, entry by entry. `qaeval models` lists the result.\n"
        + '# A model on a running server: `NAME: {url: "http://10.0.0.5:8000/v1", served_name: NAME}` under models.\n'
        + "".join(
            [
                "\ndefaults:\n",
                *(f"  {key}: {_scalar(value)}\n" for key, value in defaults.items()),
                *(_section(title, content) for title, content in sections.items() if content),
            ]
        )
    )


def _entry(spec: ModelSpec, shipped: Mapping[str, ModelSpec]) -> dict[str, Any]:
    """Return what an entry adds to that of the shipped registry; all of it where that has none."""
    keys = {"url", "replicas", "served_name", "api_key_env"}
    if spec.name not in shipped:
        keys |= {"hf_id", "revision", "licence", "openness", "family"}
    entry = spec.model_dump(mode="json", include=keys, exclude_defaults=True)
    return {key: entry[key] for key in sorted(entry, key=lambda key: key not in {"url", "replicas"})}


def _section(title: str, entries: Mapping[str, Mapping[str, Any]]) -> str:
    return f"\n{title}:\n" + "".join(f"  {name}: {_mapping(entry)}\n" for name, entry in entries.items())


def _mapping(entry: Mapping[str, Any]) -> str:
    return f"{{{', '.join(f'{key}: {_scalar(value)}' for key, value in entry.items())}}}"


def _scalar(value: object) -> str:
    """Return a value as JSON, which is YAML as well."""
    return json.dumps(value, ensure_ascii=False)


def gate_file(flags: tuple[str, ...], *, n_chunks: int, items_per_chunk: int) -> str:
    """Return ``gate.yaml``: the rules of the default policy, with the margins that the chunks can show.

    Args:
        flags: Flags of the rubric.
        n_chunks: Chunks of the eval.
        items_per_chunk: Items of a chunk.
    """
    rules = default_policy(flags, n_chunks, items_per_chunk).rules
    smallest = chunks_for_smallest_margins(items_per_chunk)
    lines = [
        "The rules of `qaeval gate`. A margin is the largest loss that you accept, as a share: 0.05 is 5 points.",
        f"A gate takes at least {MIN_CLUSTERS} chunks; this eval has {n_chunks:,}. With {smallest:,} the margins can be 0.05 and 0.03."
        if n_chunks < MIN_CLUSTERS
        else f"These are the smallest that {n_chunks:,} chunks can show."
        + (f" With {smallest:,} they can be 0.05 and 0.03." if n_chunks < smallest else ""),
    ]
    return (
        editor_line("gate", "gate.yaml")
        + "".join(f"# {line}\n" for line in lines)
        + "rules:\n"
        + "".join(f"  - {_mapping(rule.model_dump(exclude_defaults=True))}\n" for rule in rules)
    )


def ci_file(service: Ci, models: ProjectModels) -> str:
    """Return the CI file: compare, then gate against the committed baseline."""
    names = " ".join(spec.name for spec in models.candidates)
    keys = sorted({spec.api_key_env for spec in models.servers.values() if spec.api_key_env})
    same_family = " --allow-same-family" if models.allow_same_family else ""
    script = [
        "python3 -m venv .qaeval-venv",
        f".qaeval-venv/bin/python -m pip install --quiet {DISTRIBUTION}=={__version__}",
        f".qaeval-venv/bin/qaeval compare {names}{same_family} --all-chunks --yes --out results/ci",
        f".qaeval-venv/bin/qaeval gate results/ci {_CI_VIEWS[service]}",
    ]
    return (_github if service == "github" else _gitlab)(script, keys)


_CI_VIEWS: Final[Mapping[Ci, str]] = {
    "github": '--summary "$GITHUB_STEP_SUMMARY"',
    "gitlab": "--junit results/ci/junit.xml --summary results/ci/summary.md",
}
_ABOUT: Final = """\
# May this change ship? Needs a committed baseline: `qaeval baseline set results/first`.
# Runs on a machine that reaches the model servers.
"""


def _github(script: list[str], keys: list[str]) -> str:
    env = "".join(f"          {key}: ${{{{ secrets.{key} }}}}\n" for key in keys)
    return (
        f"""{_ABOUT}name: qaeval
on:
  pull_request:
  workflow_dispatch:
permissions:
  contents: read
jobs:
  gate:
    # no pull request from a fork starts a job on your own runner
    if: github.event_name != 'pull_request' || github.event.pull_request.head.repo.full_name == github.repository
    runs-on: [self-hosted, linux]
    timeout-minutes: 60
    steps:
      - uses: actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2
        with:
          persist-credentials: false
      - name: Compare and gate
        shell: bash
"""
        + (f"        env:\n{env}" if env else "")
        + """        run: |
          # GitHub obeys lines of a log, and texts of models may be in this one
          exec 2>&1
          token=$(mktemp -u XXXXXXXXXXXXXXXXXXXXXXXX)
          echo "::stop-commands::$token"
          trap 'echo "::$token::"' EXIT
          rm -rf results/ci
"""
        + "".join(f"          {line}\n" for line in script)
    )


def _gitlab(script: list[str], keys: list[str]) -> str:
    variables = f"# Set as masked variables of the project: {', '.join(keys)}.\n" if keys else ""
    return (
        f"""{_ABOUT}{variables}qaeval-gate:
  stage: test
  tags: [qaeval]
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
  script:
    - rm -rf results/ci
"""
        + "".join(f"    - {line}\n" for line in script)
        + """  artifacts:
    when: always
    paths: [results/ci/summary.md]
    reports:
      junit: results/ci/junit.xml
"""
    )
