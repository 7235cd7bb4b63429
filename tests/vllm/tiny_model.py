"""Builds tiny Llama models with random weights, and a LoRA adapter, that a real vLLM serves on a CPU.

    python tiny_model.py FOLDER

writes ``FOLDER/chatml`` (its template accepts a system message), ``FOLDER/mistral`` (its template refuses one) and
``FOLDER/adapter`` (for ``chatml``). Needs numpy, safetensors and tokenizers, which every vLLM brings; nothing is
downloaded. Random replies would seldom end, so one hidden channel is constant and gives each token a bias: the end of the
reply and quotation marks are made likely, blanks unlikely, special tokens impossible.
"""

import ast
import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HIDDEN, LAYERS, HEADS, INNER, VOCABULARY, POSITIONS, RANK = 128, 2, 2, 256, 2048, 8192, 8
HEAD = HIDDEN // HEADS
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>")
BIAS, IMPOSSIBLE = 2.0, -30.0

CHATML = (
    "{% for turn in messages %}{{ '<|im_start|>' + turn['role'] + '\\n' + turn['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for turn in messages %}"
    "{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if turn['role'] == 'user' %}{{ '[INST] ' + turn['content'] + ' [/INST]' }}"
    "{% else %}{{ turn['content'] + eos_token }}{% endif %}{% endfor %}"
)


def texts(limit: int = 3_000_000) -> Iterator[str]:
    """Docstrings of the standard library: English, and on every machine."""
    root, total = Path(sysconfig.get_paths()["stdlib"]), 0
    for path in sorted(root.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8", errors="ignore"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                total += len(text)
                yield text
        if total > limit:
            return


def tokenizer() -> Tokenizer:
    """Train a byte-level BPE."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts(), trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bpe.token_to_id("<s>"))]
    )
    return bpe


def weights(bpe: Tokenizer, end: str, seed: int) -> dict[str, np.ndarray]:
    """Draw the weights; channel 0 is constant and nothing writes to it, so the last layer reads it as a bias."""
    rng = np.random.default_rng(seed)

    def drawn(*shape: int, scale: float) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    embedding = drawn(VOCABULARY, HIDDEN, scale=1.0)
    embedding[:, 0] = 3.0
    tensors = {"model.embed_tokens.weight": embedding, "model.norm.weight": np.ones(HIDDEN, np.float32)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}{norm}.weight"] = np.ones(HIDDEN, np.float32)
        shapes = {
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.k_proj": (HEAD, HIDDEN),
            "self_attn.v_proj": (HEAD, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN),
            "mlp.gate_proj": (INNER, HIDDEN),
            "mlp.up_proj": (INNER, HIDDEN),
            "mlp.down_proj": (HIDDEN, INNER),
        }
        for name, shape in shapes.items():
            tensors[f"{at}{name}.weight"] = drawn(*shape, scale=shape[1] ** -0.5)
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            tensors[f"{at}{name}.weight"][0] = 0.0
    head = drawn(VOCABULARY, HIDDEN, scale=1.5 * HIDDEN**-0.5)
    head[:, 0] = 0.0
    for token, number in bpe.get_vocab().items():
        text = bpe.decode([number])
        if token in SPECIAL:
            head[number], head[number, 0] = 0.0, IMPOSSIBLE
        elif not text.strip():
            head[number, 0] = -3 * BIAS
        elif text.startswith('"'):
            head[number, 0] = BIAS
    head[bpe.token_to_id(end), 0] = BIAS
    return {**tensors, "lm_head.weight": head}


def write_model(folder: Path, template: str, end: str, seed: int) -> None:
    """Write one model."""
    folder.mkdir(parents=True, exist_ok=True)
    bpe = tokenizer()
    bpe.save(str(folder / "tokenizer.json"))
    ids = {"bos_token_id": bpe.token_to_id("<s>"), "eos_token_id": bpe.token_to_id(end)}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": HEAD,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        **ids,
    }
    names = {"bos_token": "<s>", "eos_token": end, "unk_token": "<unk>", "pad_token": "<pad>"}
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, **names}
    for name, content in (("config", config), ("generation_config", ids), ("tokenizer_config", about)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1))
    save_file(weights(bpe, end, seed), str(folder / "model.safetensors"), metadata={"format": "pt"})


def write_adapter(folder: Path, base: Path, seed: int) -> None:
    """Write a LoRA adapter that changes what its base says."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LAYERS):
        for name, n_out in (("q_proj", HIDDEN), ("v_proj", HEAD)):
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{at}.lora_A.weight"] = (
                rng.standard_normal((RANK, HIDDEN)).astype(np.float32) / HIDDEN**0.5
            )
            tensors[f"{at}.lora_B.weight"] = rng.standard_normal((n_out, RANK)).astype(np.float32) / RANK
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    about = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_model(target / "chatml", CHATML, "<|im_end|>", seed=0)
    write_model(target / "mistral", MISTRAL, "</s>", seed=1)
    write_adapter(target / "adapter", target / "chatml", seed=2)
