"""Turn a GGUF file of a Llama model into a Hugging Face folder that vLLM serves, its weights in bfloat16.

    .venv-vllm/bin/python tools/real-models/convert.py MODEL.gguf FOLDER

Needs gguf beside what vLLM brings (`make small-model` installs it). transformers reads a GGUF file too, but refuses to
save what it read. Its tokenizer, with the chat template, is saved.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import torch
from gguf.quants import dequantize
from safetensors.torch import save_file
from transformers import AutoTokenizer

_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}


def main(source: Path, folder: Path) -> None:
    """Write the folder."""
    reader = gguf.GGUFReader(source)

    def value(key: str) -> Any:  # noqa: ANN401 - GGUF has numbers and texts
        return reader.fields[key].contents()

    if value("general.architecture") != "llama":
        sys.exit(f"{source}: expected a Llama model, got {value('general.architecture')}")
    heads = {"attn_q": value("llama.attention.head_count"), "attn_k": value("llama.attention.head_count_kv")}
    weights = dict(converted(tensor, heads) for tensor in reader.tensors)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": value("llama.embedding_length"),
        "intermediate_size": value("llama.feed_forward_length"),
        "num_attention_heads": heads["attn_q"],
        "num_key_value_heads": heads["attn_k"],
        "num_hidden_layers": value("llama.block_count"),
        "max_position_embeddings": value("llama.context_length"),
        "rms_norm_eps": round(value("llama.attention.layer_norm_rms_epsilon"), 12),
        "rope_theta": value("llama.rope.freq_base"),
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "vocab_size": weights["model.embed_tokens.weight"].shape[0],
        "bos_token_id": value("tokenizer.ggml.bos_token_id"),
        "eos_token_id": value("tokenizer.ggml.eos_token_id"),
        "pad_token_id": value("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "bfloat16",
    }
    # the last file: with it the folder is whole
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def converted(tensor: Any, heads: dict[str, int]) -> tuple[str, torch.Tensor]:  # noqa: ANN401 - gguf has no types
    """Return a tensor with its name in Hugging Face's form."""
    stem = tensor.name.removesuffix(".weight")
    weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
    weight = weight.reshape(*reversed(tensor.shape.tolist()))
    if not stem.startswith("blk."):
        return f"{_NAMES[stem]}.weight", weight.to(torch.bfloat16).contiguous()
    _, layer, part = stem.split(".")
    if part in heads:  # llama.cpp interleaves the two halves of each head's rotary dimensions
        rows = weight.shape[0] // heads[part] // 2
        weight = weight.reshape(heads[part], rows, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
    return f"model.layers.{layer}.{_LAYER[part]}.weight", weight.to(torch.bfloat16).contiguous()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
