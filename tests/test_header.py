"""The GGUF header reader: what gguf's own reader says of sound files, and one-line errors for all others."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_eval.errors import ModelFileError
from gguf_eval.files.header import ArraySummary, Header, Truncated, parse_header, read_header

VALUES = {
    "general.architecture": "llama",
    "text": "naïve ✓",
    "empty": "",
    "uint8": np.uint8(200),
    "int8": np.int8(-5),
    "uint16": np.uint16(65000),
    "int16": np.int16(-30000),
    "uint32": np.uint32(4_000_000_000),
    "int32": np.int32(-2_000_000_000),
    "uint64": np.uint64(2**63),
    "int64": np.int64(-(2**62)),
    "float32": 0.5,
    "float64": np.float64(1e300),
    "yes": True,
    "numbers": [1, 2, 3],
    "words": ["a", "bc", ""],
}


def write_values(path: Path) -> Path:
    """A small GGUF with a metadata value of every type and three tensors of different types."""
    writer = gguf.GGUFWriter(path, "llama")
    kinds = gguf.GGUFValueType
    for key, value in VALUES.items():
        if key == "general.architecture":
            continue
        if isinstance(value, np.generic):
            writer.add_key_value(key, value.item(), kinds[value.dtype.name.upper()])
        elif isinstance(value, list):
            writer.add_array(key, value)
        else:
            kind = {str: kinds.STRING, float: kinds.FLOAT32, bool: kinds.BOOL}[type(value)]
            writer.add_key_value(key, value, kind)
    writer.add_array("long", list(range(513)))
    writer.add_array("long words", [f"w{i}" for i in range(513)])
    writer.add_tensor("a", np.ones((3, 32), np.float32))
    writer.add_tensor("b", np.ones((2, 5), np.float16))
    writer.add_tensor("c", np.zeros((4, 34), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_values(tmp_path_factory.mktemp("header") / "small.gguf")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("header") / "damaged.gguf"


def read_or_refuse(path: Path, content: bytes) -> Header | None:
    """Read ``content`` as a file; None when it is refused, which must happen in one line that names the file."""
    path.write_bytes(content)
    try:
        return read_header(path)
    except ModelFileError as error:
        message = str(error)
        assert "\n" not in message
        assert message.startswith(str(path))
        return None


# Sound files


def test_every_type_of_metadata(small: Path) -> None:
    header = read_header(small, long_arrays=True)
    assert header.version == 3
    for key, value in VALUES.items():
        assert header.metadata[key] == value, key
    assert header.metadata["yes"] is True
    assert header.metadata["long"] == list(range(513))
    assert header.metadata["long words"] == [f"w{i}" for i in range(513)]


def test_long_arrays_are_summed_up(small: Path) -> None:
    header = read_header(small)
    assert header.metadata["long"] == header.metadata["long words"] == ArraySummary(513)
    assert header.metadata["words"] == VALUES["words"]


def test_tensors_are_those_of_ggufs_reader(small: Path, tiny_f32: Path, tiny_f16: Path) -> None:
    for path in (small, tiny_f32, tiny_f16):
        header, reader = read_header(path), gguf.GGUFReader(path)
        assert header.data_offset == reader.data_offset
        ours = [(t.name, t.shape, t.type_name, t.offset + header.data_offset, t.size_bytes) for t in header.tensors]
        theirs = [
            (t.name, tuple(map(int, t.shape)), t.tensor_type.name, t.data_offset, t.n_bytes) for t in reader.tensors
        ]
        assert ours == theirs
        assert header.parameters == sum(int(t.n_elements) for t in reader.tensors)


def test_what_a_header_says_of_the_model(small: Path, tiny_f32: Path, tiny_f16: Path) -> None:
    header = read_header(tiny_f32)
    assert (header.architecture, header.level, header.context_length, header.split_count) == ("llama", "F32", 256, 1)
    assert header.bits_per_weight == 32
    half = read_header(tiny_f16)
    assert half.level == "F16"
    assert half.parameters == header.parameters
    assert 16 < half.bits_per_weight < 16.1  # the norms stay F32
    assert half.type_mix() == {"F16": 2 + 2 * 7, "F32": 1 + 2 * 2}
    small_header = read_header(small)
    assert small_header.level == "Q8_0"  # no general.file_type: the type of most weights, 128 of 234
    assert small_header.context_length is None
    assert small_header.bits_per_weight == 8 * (3 * 32 * 4 + 2 * 5 * 2 + 4 * 34) / (96 + 10 + 128)


def test_level_of_file_types() -> None:
    def level(value: int) -> str:
        return Header(3, {"general.file_type": value}, (), 0).level

    assert [level(value) for value in (0, 1, 7, 10, 15, 32)] == ["F32", "F16", "Q8_0", "Q2_K", "Q4_K_M", "BF16"]
    assert level(1024 + 15) == "Q4_K_M"  # the bit for a guessed type is no part of the level
    assert level(999) == "type 999"
    assert Header(3, {}, (), 0).level == "empty"


def test_alignment_of_the_file_is_honoured(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "aligned.gguf", "llama")
    writer.add_custom_alignment(256)
    writer.add_tensor("a", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(tmp_path / "aligned.gguf")
    assert header.data_offset == gguf.GGUFReader(tmp_path / "aligned.gguf").data_offset
    assert header.data_offset % 256 == 0


# Damaged files


def test_truncation_at_every_byte_of_the_header_and_within_the_data(small: Path, scratch: Path) -> None:
    content = small.read_bytes()
    header = read_header(small)
    ends = [header.data_offset + place for t in header.tensors for place in (t.offset, t.offset + t.size_bytes)]
    needed = max(ends)
    within = {end + step for end in ends for step in (-1, 0, 1) if end + step < needed}
    for size in (*range(header.data_offset), *sorted(within)):
        assert read_or_refuse(scratch, content[:size]) is None, size
    assert read_or_refuse(scratch, content[:needed]) == header


def test_a_truncated_model_says_so(tiny_f32: Path, scratch: Path) -> None:
    content = tiny_f32.read_bytes()
    scratch.write_bytes(content[:-33])
    with pytest.raises(ModelFileError, match="bytes are needed, .* found; the file is truncated: get it again"):
        read_header(scratch)
    scratch.write_bytes(content[:2000])
    with pytest.raises(ModelFileError, match=r"goes on past the end of the file \(2,000 bytes\)"):
        read_header(scratch)
    with pytest.raises(Truncated):
        parse_header(content[:2000])


@settings(max_examples=400)
@given(data=st.data())
def test_flipped_bytes_raise_nothing_else(small: Path, scratch: Path, data: st.DataObject) -> None:
    content = bytearray(small.read_bytes())
    end = read_header(small).data_offset
    places = st.integers(0, end - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        content[place] = value
    header = read_or_refuse(scratch, bytes(content))
    if header is not None:
        described(header)


def described(header: Header) -> tuple[object, ...]:
    """Everything that is asked of a header that was accepted."""
    return (
        header.architecture,
        header.parameters,
        header.bits_per_weight,
        header.context_length,
        header.split_count,
        header.level,
        header.type_mix(),
    )


@settings(max_examples=300)
@given(data=st.data())
def test_flipped_bits_of_numbers_raise_nothing_else(small: Path, scratch: Path, data: st.DataObject) -> None:
    """Put extreme 32- and 64-bit numbers anywhere: lengths, counts, types, sizes."""
    content = bytearray(small.read_bytes())
    end = read_header(small).data_offset
    extreme = st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**60, 2**63 - 1, 2**63, 2**64 - 1])
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(4, end - 8))
        if data.draw(st.booleans()):
            content[place : place + 8] = struct.pack("<Q", data.draw(extreme))
        else:
            content[place : place + 4] = struct.pack("<I", data.draw(extreme) & 0xFFFFFFFF)
    header = read_or_refuse(scratch, bytes(content))
    if header is not None:
        described(header)


@given(st.binary(max_size=200))
def test_any_bytes_after_the_magic(rest: bytes) -> None:
    with contextlib.suppress(Truncated, ValueError):
        parse_header(gguf.GGUF_MAGIC.to_bytes(4, "little") + rest)


def test_deeply_nested_arrays_are_refused(scratch: Path) -> None:
    nested = struct.pack("<IQ", 9, 1) * 100_000
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<I", 9) + nested
    assert read_or_refuse(scratch, content) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a GGUF file is needed, this one is empty; get it again"),
        (b"what?", "begins with b'what'; name a .gguf file, or convert a checkpoint first"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "this is a git-lfs pointer, .* with 'git lfs pull'"),
        (b"\n<!DOCTYPE html>\n<html>", "this is a web page, not the file itself; get the file from its download link"),
        (b"<HTML>", "this is a web page"),
        (b"PK\x03\x04zip", "this is a PyTorch checkpoint or ZIP archive"),
        (b"\x1f\x8b\x08", "this is a gzip archive; unpack it first"),
        (b"tjgg\x03\0\0\0", "this is a model in a format before GGUF"),
        (struct.pack("<Q", 7) + b'{"a":1}', "this is a safetensors file; convert the checkpoint"),
        (b"GGUF" + struct.pack("<I", 1), "GGUF version 1, of August 2023, which llama.cpp reads no more"),
        (b"GGUF" + struct.pack("<I", 9), "GGUF version 9; versions 2 and 3 are known"),
        (b"GGUF" + struct.pack(">I", 3), "it is big-endian, a little-endian one is needed"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60), "goes on past the end of the file"),
    ],
)
def test_what_is_wrong_is_said(scratch: Path, content: bytes, message: str) -> None:
    scratch.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        read_header(scratch)


@pytest.mark.parametrize("key", ["general.alignment", "general.file_type", "split.count", "llama.context_length"])
@pytest.mark.parametrize("value", ["many", 0.5, [1, 2]])
def test_numbers_of_another_type_are_refused(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    if isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelFileError, match=f"{key} is .*; a whole number is needed"):
        read_header(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file; give the path of a GGUF model file"):
        read_header(tmp_path / "absent.gguf")
    with pytest.raises(ModelFileError, match="this is a folder; name the .gguf file in it"):
        read_header(tmp_path)
