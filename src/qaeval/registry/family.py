"""Families of models: whose line a model is of, and whether a judge is related to a candidate.

Judges prefer the words of their own model, and of models trained on the same data (Panickssery et al. 2024, *LLM evaluators recognize
and favor their own generations*; Wataoka et al. 2024, *Self-preference bias in LLM-as-a-judge*), so a judge is taken from another line
than the candidates. A line is what one vendor publishes under one name, of any version and size: qwen2.5 and qwen3 are one line.

The lines of a model come from ``family`` in its registry entry, else from ``hf_id``, else from the served name, else from the name of
the entry. A LoRA adapter has the entry of its base. A name that states several lines is of all of
them: DeepSeek-R1-Distill-Qwen-7B has the weights of qwen and was trained on the words of deepseek. A fine-tuned model whose name does
not state its base has no known line until its entry has a ``family``.
"""

import re
from collections.abc import Mapping
from typing import Final

from qaeval.registry.model import ModelSpec

LINES: Final[Mapping[str, tuple[str, ...]]] = {
    "apertus": ("apertus",),
    "baichuan": ("baichuan",),
    "claude": ("claude", "anthropic"),
    "command": ("command-r", "command-a", "aya", "c4ai"),
    "deepseek": ("deepseek",),
    "ernie": ("ernie",),
    "exaone": ("exaone",),
    "falcon": ("falcon",),
    "gemini": ("gemini", "gemma", "codegemma", "medgemma", "paligemma", "shieldgemma"),
    "glm": ("glm", "chatglm", "codegeex"),
    "gpt": ("gpt-oss", "gpt-3", "gpt-4", "gpt-4o", "gpt-5", "chatgpt"),
    "granite": ("granite",),
    "hunyuan": ("hunyuan",),
    "internlm": ("internlm",),
    "jamba": ("jamba",),
    "kimi": ("kimi", "moonlight"),
    "llama": ("llama", "codellama", "vicuna"),
    "minimax": ("minimax",),
    "mistral": (
        "mistral",
        "mistralai",
        "mixtral",
        "ministral",
        "magistral",
        "codestral",
        "devstral",
        "pixtral",
        "mathstral",
        "voxtral",
    ),
    "nemotron": ("nemotron",),
    "olmo": ("olmo",),
    "phi": ("phi", "flow-judge"),
    "qwen": ("qwen", "qwq", "qvq", "compassjudger"),
    "smollm": ("smollm",),
    "solar": ("solar",),
    "yi": ("yi",),
}
"""Names under which the models of each line are published, in lower case. Judges whose names do not state their base model are listed
with its line: compassjudger (Qwen2.5), flow-judge (Phi-3.5)."""

_PATTERNS: Final = {
    # a version may follow a name, a letter may not: `phi` is not in dolphin, `yi` not in yield
    line: re.compile(rf"(?<![a-z])(?:{'|'.join(map(re.escape, names))})(?![a-z])")
    for line, names in LINES.items()
}
_VERSION: Final = re.compile(r"(?<=[a-z])[\s._-]*v?\d[\d.]*[a-z]?$")


def stated_lines(text: str) -> tuple[str, ...]:
    """Return the known lines that a name states, sorted: ``qwen`` for ``Qwen/Qwen2.5-7B-Instruct``."""
    lowered = text.lower()
    return tuple(line for line, pattern in _PATTERNS.items() if pattern.search(lowered))


def lines(spec: ModelSpec) -> tuple[str, ...]:
    """Return the lines of a model, sorted; empty where they are not known, and for models inside qaeval without a ``family``.

    Args:
        spec: Entry of the registry. A ``family`` that names no known line is a new line, without its version.
    """
    if spec.in_process and not spec.family:
        return ()
    if spec.family:
        own = spec.family.strip().lower()
        return stated_lines(own) or (_VERSION.sub("", own),)
    base = spec.lora.base if spec.lora else ""
    names = (spec.hf_id or "", spec.served_name or "", base, spec.name)
    return next((stated for name in names if (stated := stated_lines(name))), ())


def relation(judge: ModelSpec, candidate: ModelSpec) -> str:
    """Return what a judge has in common with a candidate so that it may not grade it unasked; empty where it may.

    Args:
        judge: Entry of the judge.
        candidate: Entry of the candidate. A model that ships with qaeval is related to none.
    """
    if "embedded" in {judge.kind, candidate.kind}:
        return ""
    if judge.hf_id == candidate.hf_id:
        if judge.entry == candidate.entry:
            return "the same model"
        if judge.hf_id:
            return f"the same weights, {judge.hf_id}"
    judge_lines, candidate_lines = lines(judge), lines(candidate)
    if shared := sorted({*judge_lines} & {*candidate_lines}):
        return f"family {' and '.join(shared)}"
    # one server has one base model, unless it is a router before several, whose lines are then known to differ
    if urls(judge) & urls(candidate) and not (judge_lines and candidate_lines):
        return "the same server, and a family is not known"
    return ""


def urls(spec: ModelSpec) -> set[str]:
    """Return the base URLs of a model's servers; empty where qaeval starts the server, and without one."""
    return {url for url in (spec.url, *spec.replicas) if url}
