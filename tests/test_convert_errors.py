"""Bad checkpoints: one line that says what is wrong, and no file left behind."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import SPECS, make, safetensors, tiny, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_files import bpe_tokenizer, split_steps

from gguf_eval.errors import GgufEvalError, ModelFileError, UsageError
from gguf_eval.files.convert.plan import plan_conversion
from gguf_eval.files.convert.sentencepiece import read_pieces
from gguf_eval.files.convert.write import convert
from gguf_eval.files.safetensors import parse_table, read_table

Spoil = Callable[[Path], object]


def _edit(name: str, **changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        value = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: entry for key, entry in value.items() if entry is not ...}))

    return spoil


def _header(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Change the JSON header of model.safetensors; the data stay."""

    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        change(header)
        head = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + length :])

    return spoil


def _truncate(name: str, keep: float) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])

    return spoil


def _write(name: str, data: str | bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def _remove(*names: str) -> Spoil:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


def _all(*spoils: Spoil) -> Spoil:
    return lambda folder: [spoil(folder) for spoil in spoils]


def _rename(old: str, new: str) -> Spoil:
    return lambda folder: (folder / old).rename(folder / new)


def _shift(name: str, by: int) -> Spoil:
    def change(header: dict[str, Any]) -> None:
        header[name]["data_offsets"] = [offset + by for offset in header[name]["data_offsets"]]

    return _header(change)


def _tensor(old: str, new: str) -> Spoil:
    return _header(lambda header: header.__setitem__(new, header.pop(old)))


def _weight_map(change: Callable[[dict[str, str]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors.index.json"
        value = json.loads(path.read_text())
        change(value["weight_map"])
        path.write_text(json.dumps(value))

    return spoil


NORM = "model.norm.weight"
ONE, THREE = tiny(), tiny(shards=3)
SHARD = "model-00002-of-00003.safetensors"
UNKNOWN_STEPS = bpe_tokenizer({"a": 0, "b": 1, "ab": 2}, [["a", "b"]], [], split_steps(r"\p{L}+"))

CASES = {
    "truncated": (ONE, _truncate("model.safetensors", 0.7), "bytes are needed"),
    "empty": (ONE, _write("model.safetensors", b""), "a header of 0 bytes"),
    "long header": (ONE, _write("model.safetensors", b"\xff" * 6 + b"\0\0" + b"{}"), "header of 281,474,976,710,655"),
    "header not JSON": (ONE, _write("model.safetensors", struct.pack("<Q", 4) + b"{!!}"), "not JSON"),
    "overlap": (ONE, _shift(NORM, -64), "overlaps"),
    "gap": (ONE, _shift(NORM, 64), "gap|overlaps|bytes are needed"),
    "beyond the end": (ONE, _shift("lm_head.weight", 1 << 40), "gap"),
    "negative offset": (ONE, _shift("model.embed_tokens.weight", -1), "offsets"),
    "offsets against shape": (ONE, _header(lambda h: h[NORM].update(shape=[63])), "needs 126 bytes"),
    "unknown element type": (ONE, _header(lambda h: h[NORM].update(dtype="F13")), "unknown type 'F13'"),
    "unreadable element type": (
        ONE, _header(lambda h: h[NORM].update(dtype="I16")), "stored as I16; F32, F16, BF16 can be read",
    ),
    "missing shard": (THREE, _remove(SHARD), f"shard '{SHARD}' is missing"),
    "shard outside": (THREE, _weight_map(lambda m: m.update({NORM: "../evil.safetensors"})), "outside the folder"),
    "shard absolute": (THREE, _weight_map(lambda m: m.update({NORM: "/etc/passwd"})), "outside the folder"),
    "shard by backslash": (THREE, _weight_map(lambda m: m.update({NORM: "..\\evil"})), "outside the folder"),
    "index lists too much": (THREE, _weight_map(lambda m: m.update({"x": SHARD})), "listed in the index and not"),
    "index lists too little": (THREE, _weight_map(lambda m: m.pop(NORM)), "not the index's"),
    "index without map": (THREE, _write("model.safetensors.index.json", "{}"), "weight_map"),
    "index not JSON": (THREE, _write("model.safetensors.index.json", "{"), "not valid JSON"),
    "shape against config": (ONE, _edit("config.json", intermediate_size=95), r"shape \[64, 96\].*\[64, 95\]"),
    "missing tensor": (ONE, _tensor(NORM, "model.rotary_emb.inv_freq"), "missing: model.norm.weight"),
    "extra tensor": (tiny(config={"tie_word_embeddings": True}), _tensor(NORM, "x"), "missing: model.norm"),
    "bias without config": (
        tiny(config={"attention_bias": True}), _edit("config.json", attention_bias=False), r"4 tensors have no place",
    ),
    "too many layers": (ONE, _edit("config.json", num_hidden_layers=1 << 30), "missing: model.layers.1"),
    "unknown architecture": (
        ONE, _edit("config.json", architectures=["GemmaForCausalLM"]),
        "'GemmaForCausalLM' is not known; known: LlamaForCausalLM, MistralForCausalLM, MixtralForCausalLM",
    ),
    "no architecture": (ONE, _edit("config.json", architectures=..., model_type=...), "'architectures' is needed"),
    "quantized": (ONE, _edit("config.json", quantization_config={"quant_method": "gptq"}), r"quantized \('gptq'\)"),
    "other activation": (ONE, _edit("config.json", hidden_act="gelu"), "'silu' is needed, found 'gelu'"),
    "odd heads": (ONE, _edit("config.json", num_attention_heads=5), "multiple of num_attention_heads 5"),
    "unknown rope": (ONE, _edit("config.json", rope_scaling={"type": "magic"}), "rope scaling 'magic'"),
    "text for a number": (ONE, _edit("config.json", hidden_size="64"), "hidden_size must be a whole number"),
    "no config": (ONE, _remove("config.json"), "no config.json"),
    "config not JSON": (ONE, _write("config.json", "{'a': 1}"), "config.json: not valid JSON"),
    "config a list": (ONE, _write("config.json", "[]"), "a JSON object is needed, found a list"),
    "no tokenizer": (ONE, _remove("tokenizer.model"), "tokenizer.model or tokenizer.json is needed"),
    "tokenizer truncated": (ONE, _truncate("tokenizer.model", 0.5), "not a usable SentencePiece model"),
    "tokenizer.json not JSON": (ONE, _write("tokenizer.json", "{"), "tokenizer.json: not valid JSON"),
    "tokenizer settings not JSON": (ONE, _write("tokenizer_config.json", "{"), "tokenizer_config.json: not valid"),
    "tokenizer larger": (tiny(vocabulary=200), lambda folder: None, "tokens, the embedding has 200 rows"),
    "added tokens beyond": (ONE, _write("added_tokens.json", '{"<x>": 9999}'), "10,000 tokens"),
    "negative id": (ONE, _write("added_tokens.json", '{"<x>": -1}'), "a token's id is -1"),
    "unknown pre-tokenizer": (
        ONE, _all(_remove("tokenizer.model"), _write("tokenizer.json", json.dumps(UNKNOWN_STEPS))),
        r"not one of llama-bpe, smollm, tekken, found Split/\\p\{L\}\+ \+ ByteLevel/bytes",
    ),
    "pickle": (ONE, _rename("model.safetensors", "pytorch_model.bin"), "pytorch_model.bin: a pickle file"),
    "no weights": (ONE, _remove("model.safetensors"), "model.safetensors or its shards and index are needed"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_no_file(case: str, tmp_path: Path) -> None:
    spec, spoil, expected = CASES[case]
    folder, out = make(tmp_path / "checkpoint", spec), tmp_path / "out"
    out.mkdir()
    spoil(folder)
    with pytest.raises(ModelFileError, match=expected) as caught:
        convert(str(folder), out / "model.gguf")
    assert "\n" not in str(caught.value)
    assert not list(out.iterdir())


def test_wrong_arguments(tmp_path: Path) -> None:
    folder = str(make(tmp_path / "checkpoint", ONE))
    for arguments, expected in (
        ((folder, tmp_path / "x.gguf", "f17"), "did you mean 'f16'"),
        ((folder, tmp_path / "nowhere" / "x.gguf"), "no folder"),
        ((folder, tmp_path), "a file name is needed"),
        ((f"{folder}/config.json", tmp_path / "x.gguf"), "this is a file"),
        ((f"{folder}/../nothing", tmp_path / "x.gguf"), "no such folder"),
        (("../evil", tmp_path / "x.gguf"), "no such folder"),
    ):
        with pytest.raises(UsageError, match=expected):
            convert(*arguments)
    assert not list(tmp_path.glob("*.gguf"))


def _spoil_weights(folder: Path, name: str, value: float) -> None:
    data = {tensor: weights(1, (64,), "F16") for tensor in (name,)}
    values = np.frombuffer(data[name], "<f2").copy()
    values[7] = value
    table = read_table(folder / "model.safetensors")[name]
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(table.offset)
        file.write(values.tobytes())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("out_type", ["f32", "f16", "bf16", "q8_0"])
def test_nan_and_infinity_are_warned_of_or_refused(tmp_path: Path, value: float, out_type: str) -> None:
    folder = make(tmp_path / "checkpoint", ONE)
    _spoil_weights(folder, "model.norm.weight", value)
    _spoil_weights(folder, "model.layers.0.mlp.up_proj.weight", value)
    result = convert(str(folder), tmp_path / "x.gguf", out_type)
    assert result.warnings == ("NaN or infinite weights in blk.0.ffn_up.weight, output_norm.weight",)
    assert result.path.is_file()
    with pytest.raises(ModelFileError, match=r"blk\.0\.ffn_up\.weight"):
        convert(str(folder), tmp_path / "y.gguf", out_type, strict=True)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["x.gguf"]


def test_weights_too_large_for_half_precision(tmp_path: Path) -> None:
    folder = make(tmp_path / "checkpoint", replace(ONE, dtype="F32"))
    table = read_table(folder / "model.safetensors")["lm_head.weight"]
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(table.offset)
        file.write(struct.pack("<f", 1e6))
    result = convert(str(folder), tmp_path / "x.gguf", "f16")
    assert result.warnings == ("weights too large for F16, now infinite, in output.weight",)
    assert convert(str(folder), tmp_path / "y.gguf", "bf16").warnings == ()


def test_a_full_disk_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "checkpoint", ONE)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ModelFileError, match="1,000 are free"):
        convert(str(folder), tmp_path / "x.gguf")
    assert not list(tmp_path.glob("*gguf*"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_stopping_half_way_leaves_nothing_and_keeps_what_was_there(tmp_path: Path, error: BaseException) -> None:
    folder, out = make(tmp_path / "checkpoint", ONE), tmp_path / "x.gguf"
    out.write_bytes(b"before")

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise error

    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ModelFileError):
        convert(str(folder), out, progress=stop)
    assert out.read_bytes() == b"before"
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_sentencepiece_model_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        assert read_pieces(data)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_entry = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F16", "F32", "BF16", "Q4"]) | _json,
        "shape": st.lists(st.integers(-1, 9), max_size=3) | _json,
        "data_offsets": st.lists(st.integers(-1, 99), min_size=2, max_size=2) | _json,
    }
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=3), _entry | _json, max_size=4) | _json, st.integers(0, 200))
def test_any_header_is_a_table_within_the_file_or_refused(header: Any, size: int) -> None:
    data = json.dumps(header).encode()
    try:
        table = parse_table(Path("x"), data, 8 + len(data) + size)
    except ModelFileError as error:
        assert "\n" not in str(error)
        return
    assert all(8 + len(data) <= t.offset <= t.offset + t.size_bytes <= 8 + len(data) + size for t in table.values())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_config_and_tokenizer_settings_are_converted_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    if not folder.is_dir():
        make(folder, SPECS["llama-2-chat"])
        shutil.copytree(folder, folder.with_name("original"))
    original = folder.with_name("original")
    name = data.draw(
        st.sampled_from(["config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"])
    )
    value = json.loads((original / name).read_text())
    value[data.draw(st.sampled_from(sorted(value)))] = data.draw(_json)
    (folder / name).write_text(json.dumps(value))
    try:
        plan_conversion(str(folder))
    except GgufEvalError as error:
        assert not re.search("\n", str(error))
    finally:
        shutil.copy(original / name, folder / name)


def test_safetensors_of_the_real_layout_are_read(tmp_path: Path) -> None:
    tensors = {"b": ("F16", (2, 3), bytes(12)), "a": ("F32", (), bytes(4)), "c": ("BF16", (0,), b"")}
    safetensors(tmp_path / "x.safetensors", tensors)
    table = read_table(tmp_path / "x.safetensors")
    assert list(table) == ["a", "b", "c"]
    assert [(t.dtype, t.shape, t.size_bytes) for t in table.values()] == [
        ("F32", (), 4), ("F16", (2, 3), 12), ("BF16", (0,), 0),
    ]  # fmt: skip
