"""What each model family needs: hyperparameters from config.json, and the tensors that must be there.

The defaults are those of the families' config classes in transformers, the keys those that llama.cpp's converter
writes. All three families are llama.cpp's architecture ``llama``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gguf_eval.errors import ModelFileError, nearest

ARCHITECTURE = "llama"
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "LlamaForCausalLM": {
        "intermediate_size": 11008,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    },
    "MistralForCausalLM": {
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "num_key_value_heads": 8,
    },
    "MixtralForCausalLM": {
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
}
_COMMON = {"vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
_ALIASES = {"LLaMAForCausalLM": "LlamaForCausalLM"}
_MODEL_TYPES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "mixtral": "MixtralForCausalLM"}
_SILU = ("silu", "swish")
_MAX_COUNT, _MAX_VOCABULARY = 1 << 30, 1 << 24


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding."""

    theta: float
    kind: str
    """``default``, ``linear``, ``llama3``, ``yarn`` or ``dynamic``."""
    parameters: Mapping[str, Any]
    """The config's own entries, with ``original_max_position_embeddings`` filled in where the kind needs it."""


@dataclass(frozen=True)
class Hyperparameters:
    """A checkpoint's shape."""

    family: str
    """The config's architecture, for instance ``MistralForCausalLM``."""
    vocabulary: int
    embedding: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    head_dimension: int
    writes_head_dimension: bool
    """Whether attention.key_length and value_length are written."""
    context: int
    norm_epsilon: float
    rope: Rope
    attention_bias: bool
    mlp_bias: bool
    tied_embeddings: bool
    experts: int
    """0 for a model without experts."""
    experts_used: int


def read_hyperparameters(config: Mapping[str, Any]) -> Hyperparameters:
    """Read and check ``config``, the content of config.json. Raises `ModelFileError`."""
    family = _family(config)
    values = {
        **_COMMON,
        **FAMILIES[family],
        **{key: value for key, value in config.items() if value is not None},
    }
    if quantized := values.get("quantization_config"):
        method = quantized.get("quant_method", "method not named") if isinstance(quantized, dict) else quantized
        raise _unusable(f"full-precision weights are needed, these are quantized ({method!r}); use the original")
    if (activation := values.get("hidden_act", "silu")) not in _SILU:
        raise _unusable(f"hidden_act 'silu' is needed, found {activation!r}; llama.cpp has no other for this family")
    embedding, heads = _count(values, "hidden_size"), _count(values, "num_attention_heads")
    kv_heads = _count(values, "num_key_value_heads") if "num_key_value_heads" in values else heads
    if "head_dim" not in values and embedding % heads:
        raise _unusable(f"hidden_size {embedding} is not a multiple of num_attention_heads {heads}")
    if heads % kv_heads:
        raise _unusable(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    head_dimension = _count(values, "head_dim") if "head_dim" in values else embedding // heads
    if head_dimension % 2:
        raise _unusable(f"an even head_dim is needed, found {head_dimension}")
    mixture = family == "MixtralForCausalLM"
    return Hyperparameters(
        family=family,
        vocabulary=_count(values, "vocab_size", _MAX_VOCABULARY),
        embedding=embedding,
        feed_forward=_count(values, "intermediate_size"),
        layers=_count(values, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dimension=head_dimension,
        writes_head_dimension="head_dim" in values or not mixture,
        context=_count(values, "max_position_embeddings"),
        norm_epsilon=_number(values, "rms_norm_eps"),
        rope=_rope(values, config),
        attention_bias=bool(values.get("attention_bias", False)),
        mlp_bias=bool(values.get("mlp_bias", False)),
        tied_embeddings=bool(values.get("tie_word_embeddings", False)),
        experts=_count(values, "num_local_experts") if mixture else 0,
        experts_used=_count(values, "num_experts_per_tok") if mixture else 0,
    )


def _family(config: Mapping[str, Any]) -> str:
    listed = config.get("architectures")
    known = ", ".join(FAMILIES)
    if not listed:
        if known_type := _MODEL_TYPES.get(str(config.get("model_type"))):
            return known_type
        raise _unusable(f"'architectures' is needed ({known})")
    name = str(listed[0] if isinstance(listed, list) else listed)
    name = _ALIASES.get(name, name)
    if name not in FAMILIES:
        raise _unusable(f"architecture {name!r} is not known; known: {known}{nearest(name, FAMILIES)}")
    return name


def _rope(values: Mapping[str, Any], config: Mapping[str, Any]) -> Rope:
    """Read both spellings: rope_theta and rope_scaling at the top, or one rope_parameters."""
    entries = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(entries, dict):
        raise _unusable("rope_parameters must be an object")
    entries = dict(entries)
    kind = str(entries.get("rope_type", entries.get("type", "default")))
    theta = entries.get("rope_theta", values["rope_theta"])
    if kind in ("llama3", "yarn"):
        outside = config.get("original_max_position_embeddings")
        entries["original_max_position_embeddings"] = outside or entries.get(
            "original_max_position_embeddings", values["max_position_embeddings"]
        )
    if kind not in ("default", "linear", "llama3", "yarn", "dynamic"):
        raise _unusable(f"rope scaling {kind!r} is not known; known: linear, llama3, yarn, dynamic")
    if kind in ("linear", "llama3", "yarn"):
        _number(entries, "factor")
    for key in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings"):
        if key in entries:
            _number(entries, key)
    return Rope(_number({"rope_theta": theta}, "rope_theta"), kind, entries)


def _count(values: Mapping[str, Any], key: str, limit: int = _MAX_COUNT) -> int:
    value = values[key]
    if type(value) is not int or not 0 < value <= limit:
        raise _unusable(f"{key} must be a whole number from 1 to {limit:,}, found {value!r}")
    return value


def _number(values: Mapping[str, Any], key: str) -> float:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise _unusable(f"{key} must be a positive number, found {value!r}")
    return float(value)


def _unusable(found: str) -> ModelFileError:
    return ModelFileError(f"config.json: {found}")


@dataclass(frozen=True)
class Expected:
    """A tensor that a checkpoint of this shape has."""

    name: str
    shape: tuple[int, ...]
    """In PyTorch's order."""
    target: str
    """Its name in the model file."""
    heads: int = 0
    """Over how many heads its rows are permuted; 0 for none."""
    expert: int | None = None
    """Its place in the stacked tensor ``target``, None for a tensor of its own."""


def expected_tensors(hyper: Hyperparameters) -> Iterator[Expected]:
    """List every tensor that must be there, and nothing else may be."""
    n, rows = hyper.embedding, hyper.heads * hyper.head_dimension
    yield Expected("model.embed_tokens.weight", (hyper.vocabulary, n), "token_embd.weight")
    yield Expected("model.norm.weight", (n,), "output_norm.weight")
    if not hyper.tied_embeddings:
        yield Expected("lm_head.weight", (hyper.vocabulary, n), "output.weight")
    kv_rows = hyper.kv_heads * hyper.head_dimension
    for layer in range(hyper.layers):
        source, target = f"model.layers.{layer}.", f"blk.{layer}."
        yield Expected(f"{source}input_layernorm.weight", (n,), f"{target}attn_norm.weight")
        yield Expected(f"{source}post_attention_layernorm.weight", (n,), f"{target}ffn_norm.weight")
        for part, name, out_rows, columns, heads in (
            ("q_proj", "attn_q", rows, n, hyper.heads),
            ("k_proj", "attn_k", kv_rows, n, hyper.kv_heads),
            ("v_proj", "attn_v", kv_rows, n, 0),
            ("o_proj", "attn_output", n, rows, 0),
        ):
            prefix = f"{source}self_attn.{part}"
            yield Expected(f"{prefix}.weight", (out_rows, columns), f"{target}{name}.weight", heads)
            if hyper.attention_bias:
                yield Expected(f"{prefix}.bias", (out_rows,), f"{target}{name}.bias", heads)
        yield from (_experts if hyper.experts else _mlp)(hyper, source, target)


def _mlp(hyper: Hyperparameters, source: str, target: str) -> Iterator[Expected]:
    n, inner = hyper.embedding, hyper.feed_forward
    for part, name, shape in (
        ("gate_proj", "ffn_gate", (inner, n)),
        ("up_proj", "ffn_up", (inner, n)),
        ("down_proj", "ffn_down", (n, inner)),
    ):
        yield Expected(f"{source}mlp.{part}.weight", shape, f"{target}{name}.weight")
        if hyper.mlp_bias:
            yield Expected(f"{source}mlp.{part}.bias", shape[:1], f"{target}{name}.bias")


def _experts(hyper: Hyperparameters, source: str, target: str) -> Iterator[Expected]:
    n, inner = hyper.embedding, hyper.feed_forward
    prefix = f"{source}block_sparse_moe"
    yield Expected(f"{prefix}.gate.weight", (hyper.experts, n), f"{target}ffn_gate_inp.weight")
    for part, name, shape in (
        ("w1", "ffn_gate_exps", (inner, n)),
        ("w2", "ffn_down_exps", (n, inner)),
        ("w3", "ffn_up_exps", (inner, n)),
    ):
        for expert in range(hyper.experts):
            yield Expected(f"{prefix}.experts.{expert}.{part}.weight", shape, f"{target}{name}.weight", expert=expert)
