"""Tiny random models of many architectures: real files for llama.cpp's own code of each.

The metadata is written here; the names and shapes of the tensors are llama.cpp's own answer to it
(``llama_model_init_from_user``), so that no table of tensors has to be kept beside llama.cpp's.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from tiny_model import AddTokenizer, add_byte_bpe

from gguf_eval.llama.library import function, library
from gguf_eval.llama.log import captured_log

CONTEXT, WINDOW, LAYERS, WIDTH, FEED_FORWARD, HEADS, KV_HEADS = 2048, 32, 4, 256, 512, 4, 2
Value = bool | int | float | str | Sequence[Any]

_COMMON: dict[str, Value] = {
    "context_length": CONTEXT, "embedding_length": WIDTH, "block_count": LAYERS, "feed_forward_length": FEED_FORWARD,
    "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
    "attention.layer_norm_epsilon": 1e-5, "attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip
_EXPERTS: dict[str, Value] = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 256}
_SHARED_EXPERT: dict[str, Value] = {**_EXPERTS, "expert_shared_count": 1, "expert_shared_feed_forward_length": 256}
_GATED: dict[str, Value] = {**_SHARED_EXPERT, "leading_dense_block_count": 1, "expert_gating_func": 2}
_ALL_HEADS: dict[str, Value] = {"attention.head_count_kv": HEADS}
_WINDOW: dict[str, Value] = {"attention.sliding_window": WINDOW}
_SSM: dict[str, Value] = {"ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 64, "ssm.time_step_rank": 8}
_MAMBA: dict[str, Value] = {**_SSM, "ssm.state_size": 16, "ssm.time_step_rank": 16}
_EVERY_OTHER: dict[str, Value] = {"attention.head_count_kv": [0, KV_HEADS, 0, KV_HEADS]}
_DELTA_NET: dict[str, Value] = {
    "ssm.conv_kernel": 4, "ssm.inner_size": 256, "ssm.state_size": 64, "ssm.time_step_rank": 4, "ssm.group_count": 2,
    "full_attention_interval": 4, "attention.key_length": 64, "attention.value_length": 64,
}  # fmt: skip
_MLA: dict[str, Value] = {
    "attention.head_count_kv": 1, "attention.kv_lora_rank": 64, "attention.q_lora_rank": 64,
    "attention.key_length": 96, "attention.value_length": 64, "attention.key_length_mla": 64,
    "attention.value_length_mla": 32, "rope.dimension_count": 32,
}  # fmt: skip

ARCHITECTURES: dict[str, dict[str, Value]] = {
    "llama": {},
    "mixtral": {**_EXPERTS, "expert_feed_forward_length": FEED_FORWARD},
    "qwen2": {},
    "qwen2moe": _SHARED_EXPERT,
    "qwen3": {},
    "qwen3moe": _EXPERTS,
    "olmoe": {**_EXPERTS, **_ALL_HEADS},
    "granite": {"residual_scale": 0.5, "embedding_scale": 2.0, "logit_scale": 2.0, "attention.scale": 0.125},
    "glm4": {"rope.dimension_count": 32},
    "glm4moe": {**_GATED, "rope.dimension_count": 32},
    "deepseek2": {**_GATED, **_MLA, "expert_weights_scale": 1.0},
    "stablelm": {"rope.dimension_count": 16},
    "starcoder2": {},
    "gpt2": _ALL_HEADS,
    "gptneox": {**_ALL_HEADS, "use_parallel_residual": True, "rope.dimension_count": 16},
    "falcon": {"attention.head_count_kv": 1},
    "phi2": {**_ALL_HEADS, "rope.dimension_count": 32},
    "phi3": {"attention.sliding_window": WINDOW},
    "command-r": {"logit_scale": 0.25},
    "mpt": {**_ALL_HEADS, "attention.max_alibi_bias": 8.0, "attention.clamp_kqv": 30.0},
    "bloom": {**_ALL_HEADS, "attention.max_alibi_bias": 8.0},
    "grok": {
        **_EXPERTS, "attn_logit_softcapping": 30.0, "router_logit_softcapping": 30.0, "final_logit_softcapping": 30.0,
    },
    "gemma2": {**_WINDOW, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3": {**_WINDOW, "block_count": 6, "attention.key_length": 64, "attention.value_length": 64},
    "gemma3n": {
        **_WINDOW, "block_count": 22, "attention.sliding_window_pattern": 5, "attention.key_length": 64,
        "attention.value_length": 64,
    },
    "gemma4": {
        **_WINDOW, "block_count": 5, "embedding_length_per_layer_input": 64, "attention.shared_kv_layers": 0,
        "attention.key_length": 64, "attention.value_length": 64,
        "attention.key_length_swa": 64, "attention.value_length_swa": 64, "rope.freq_base_swa": 10000.0,
        "attention.sliding_window_pattern": [True, True, True, True, False],
    },
    "cohere2": {**_WINDOW, "logit_scale": 0.25, "attention.sliding_window_pattern": 2},
    "gpt-oss": {**_WINDOW, **_EXPERTS, "attention.key_length": 64, "attention.value_length": 64},
    "olmo2": {},
    "olmo3": _WINDOW,
    "exaone4": {**_WINDOW, "attention.sliding_window_pattern": 4},
    "llama4": {**_SHARED_EXPERT, "interleave_moe_layer_step": 2, "attention.chunk_size": WINDOW},
    "mamba": {**_MAMBA, "feed_forward_length": 0, "attention.head_count": 0, "attention.head_count_kv": 0},
    "mamba2": {
        **_SSM, "ssm.group_count": 1, "feed_forward_length": 0, "attention.head_count": 0, "attention.head_count_kv": 0,
    },
    "rwkv6": {
        "wkv.head_size": 64, "rescale_every_n_layers": 0, "time_mix_extra_dim": 32, "time_decay_extra_dim": 64,
        "token_shift_count": 2, "attention.head_count": 0, "attention.head_count_kv": 0,
    },
    "rwkv7": {
        "wkv.head_size": 64, "token_shift_count": 2, "attention.decay_lora_rank": 32, "attention.iclr_lora_rank": 32,
        "attention.value_residual_mix_lora_rank": 32, "attention.gate_lora_rank": 32,
        "attention.head_count": 0, "attention.head_count_kv": 0,
    },
    "jamba": {**_MAMBA, **_EVERY_OTHER, **_EXPERTS, "expert_feed_forward_length": FEED_FORWARD},
    "lfm2": {**_EVERY_OTHER, "shortconv.l_cache": 3},
    "granitehybrid": {**_SSM, **_EVERY_OTHER, "ssm.group_count": 1, "attention.scale": 0.125},
    "falcon-h1": {**_SSM, "ssm.group_count": 1, "attention.key_length": 64, "attention.value_length": 64},
    "nemotron_h": {
        **_SSM, "block_count": 5, "ssm.group_count": 1, "feed_forward_length": [0, FEED_FORWARD, 0, 0, FEED_FORWARD],
        "attention.head_count_kv": [0, 0, KV_HEADS, 0, 0],
    },
    "qwen3next": {**_DELTA_NET, **_SHARED_EXPERT},
    "qwen35": {**_DELTA_NET, "rope.dimension_sections": [6, 5, 5, 0], "rope.dimension_count": 32},
    "plamo2": {
        **_SSM, "attention.head_count": [HEADS, 0, HEADS, 0], "attention.head_count_kv": [HEADS, 0, HEADS, 0],
        "ssm.group_count": 0,
        "attention.key_length": 64, "attention.value_length": 64,
    },
}  # fmt: skip
"""Metadata of each model beside `_COMMON`, without the architecture's prefix."""
_NAMES = {"mixtral": "llama", "olmo3": "olmo2"}
"""Architectures whose name here is not llama.cpp's."""
_UNSCALED_ATTENTION = ("gemma4",)
"""Attention without 1 / sqrt(head size), whose place the trained norms of queries and keys take. These random weights
are still sensitive: a change of 2e-7 in the weights of keys and values moves log-probabilities by 0.004, that of Gemma
3's by 0.0001, each in a fresh context."""


def make(path: Path, name: str, *, seed: int = 0, tokenizer: AddTokenizer = add_byte_bpe) -> Path:
    """Write a model of one of `ARCHITECTURES` with F32 weights."""
    architecture = _NAMES.get(name, name)
    metadata = {**_COMMON, **ARCHITECTURES[name]}
    _write(path, architecture, metadata, tokenizer, {})
    shapes = _tensor_shapes(path)
    random = np.random.default_rng(seed)
    tensors = {tensor: _values(tensor, shape, random) for tensor, shape in shapes.items()}
    if name in _UNSCALED_ATTENTION:
        for tensor in tensors:
            if tensor.endswith(("attn_q_norm.weight", "attn_k_norm.weight")):
                tensors[tensor] *= np.float32(0.35)
    _write(path, architecture, metadata, tokenizer, tensors)
    return path


def _write(
    path: Path, architecture: str, metadata: Mapping[str, Value], tokenizer: AddTokenizer,
    tensors: Mapping[str, npt.NDArray[np.float32]],
) -> None:  # fmt: skip
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_uint32(f"{architecture}.vocab_size", tokenizer(writer))
    for key, value in metadata.items():
        name = f"{architecture}.{key}"
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_array(name, value)
    for tensor, values in tensors.items():
        writer.add_tensor(tensor, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class _InitParameters(ctypes.Structure):
    """``struct gguf_init_params``."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


class _Tensor(ctypes.Structure):
    """The beginning of ``struct ggml_tensor``."""

    _fields_ = (("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4))


def _tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes (contiguous dimension last) of the tensors that llama.cpp wants for a file of metadata."""
    llama = library()
    name_of = function("ggml-base", "ggml_get_name", ctypes.c_char_p, ctypes.c_void_p)
    read_header = function("ggml-base", "gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, _InitParameters)
    free_header = function("ggml-base", "gguf_free", None, ctypes.c_void_p)
    found: dict[str, tuple[int, ...]] = {}

    def note(address: int, data: object) -> None:
        sizes = list(_Tensor.from_address(address).ne)
        while len(sizes) > 1 and sizes[-1] == 1:
            sizes.pop()
        found[name_of(address).decode()] = tuple(reversed(sizes))

    parameters = llama.llama_model_default_params()
    parameters.n_gpu_layers = 0
    with captured_log() as log:
        header = read_header(str(path).encode(), _InitParameters(True, None))
        model = llama.llama_model_init_from_user(header, llama.llama_model_set_tensor_data_t(note), None, parameters)
    assert model, "".join(log[-3:])
    llama.llama_model_free(model)
    free_header(header)
    return found


def _values(name: str, shape: tuple[int, ...], random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Values that keep activations of order one, so that every part of a layer matters to the logits."""
    noise: npt.NDArray[np.float32] = random.standard_normal(shape).astype(np.float32)
    leaf = name.split(".")[-2] if "." in name else name
    if leaf == "ssm_a" or name.endswith("ssm_a"):
        decay: npt.NDArray[np.float32] = np.exp(0.3 * noise)
        return -decay
    if "norm" in leaf and name.endswith("weight"):
        return 1 + 0.1 * noise
    if name.endswith("ssm_d"):
        return 1 + 0.1 * noise
    if len(shape) == 1 or name.endswith("bias"):
        return 0.3 * noise
    if "lerp" in leaf or min(shape) == 1:
        return 0.3 * noise
    gain = {"output": 2.5, "token_embd": 16.0}.get(leaf, 1.2)
    noise *= np.float32(gain / math.sqrt(shape[-1]))
    return noise
