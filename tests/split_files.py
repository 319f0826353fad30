"""Cuts a GGUF into parts as llama.cpp's llama-gguf-split does."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import gguf


def split_model(source: Path, prefix: Path, parts: int, *, bare_first: bool = False) -> list[Path]:
    """Write ``prefix``-00001-of-0000N.gguf and so on; with ``bare_first`` the first part holds metadata only."""
    reader = gguf.GGUFReader(source)
    tensors = list(reader.tensors)
    full = parts - bare_first
    step = -(-len(tensors) // full)
    groups = [[]] * bare_first + [tensors[i * step : (i + 1) * step] for i in range(full)]
    paths = []
    for number, group in enumerate(groups):
        paths.append(prefix.with_name(f"{prefix.name}-{number + 1:05d}-of-{parts:05d}.gguf"))
        writer = gguf.GGUFWriter(paths[-1], reader.fields["general.architecture"].contents())
        if number:
            del writer.kv_data[0]["general.architecture"]
        else:
            _copy_metadata(reader, writer)
        writer.add_key_value("split.no", number, gguf.GGUFValueType.UINT16)
        writer.add_key_value("split.count", parts, gguf.GGUFValueType.UINT16)
        writer.add_key_value("split.tensors.count", len(tensors), gguf.GGUFValueType.INT32)
        _finish(writer, group)
    return paths


def edit_metadata(source: Path, output: Path, changes: dict[str, str | None]) -> Path:
    """Copy a GGUF with other text in its metadata; None removes a key."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(output, reader.fields["general.architecture"].contents())
    _copy_metadata(reader, writer, leave_out=changes)
    for key, value in changes.items():
        if value is not None:
            writer.add_string(key, value)
    _finish(writer, list(reader.tensors))
    return output


def _copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, leave_out: Container[str] = ()) -> None:
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or key in leave_out:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, sub_type=inner)


def _finish(writer: gguf.GGUFWriter, tensors: list[gguf.ReaderTensor]) -> None:
    for tensor in tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_shape=tensor.data.shape, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
