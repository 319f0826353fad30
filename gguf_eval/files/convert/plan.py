"""Decides what a conversion writes, before anything is written: tensors, types, metadata, size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from gguf_eval.errors import ModelFileError, UsageError, nearest
from gguf_eval.files.checkpoint import describe, locate_weights
from gguf_eval.files.convert import header
from gguf_eval.files.convert.encode import SOURCE_TYPES
from gguf_eval.files.convert.families import Expected, Hyperparameters, expected_tensors, read_hyperparameters
from gguf_eval.files.convert.metadata import collect_metadata
from gguf_eval.files.convert.rope import rope_factors
from gguf_eval.files.convert.tensor import PlannedTensor
from gguf_eval.files.convert.tokenizers import read_vocabulary
from gguf_eval.files.safetensors import StoredTensor

OUT_TYPES = ("auto", "f32", "f16", "bf16", "q8_0")
_IGNORED = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")
_ALWAYS_F32 = ("_norm.weight", ".ffn_gate_inp.weight")
_SHOWN = 3


@dataclass(frozen=True)
class ConversionPlan:
    """Everything that will be written."""

    name: str
    """The checkpoint's name."""
    hyperparameters: Hyperparameters
    out_type: str
    """The out type, ``auto`` resolved, in ggml's spelling: ``F16``."""
    tensors: tuple[PlannedTensor, ...]
    header: bytes
    """The file's start: metadata and tensor table, padded to where the data begin."""
    warnings: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Size of the whole model file."""
        return len(self.header) + sum(header.padded(tensor.size_bytes) for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)


def plan_conversion(reference: str, out_type: str = "auto", *, headers_only: bool = False) -> ConversionPlan:
    """Plan the conversion of a checkpoint folder or hub repository to ``out_type``, one of `OUT_TYPES`.

    With ``headers_only`` the weights of a hub repository are not fetched; such a plan can be shown, not written.
    Raises `ModelFileError` for a checkpoint that can't be converted, `UsageError` for wrong arguments.
    """
    if out_type not in OUT_TYPES:
        raise UsageError(
            f"out type '{out_type}' is not known; known: {', '.join(OUT_TYPES)}{nearest(out_type, OUT_TYPES)}"
        )
    description = describe(reference)
    hyper = read_hyperparameters(description.config)
    vocabulary = read_vocabulary(description.folder, description.config, hyper.vocabulary)
    stored = locate_weights(description, headers_only=headers_only)
    matched = _match(hyper, stored)
    chosen = _resolve(out_type, stored)
    tensors = tuple(_plan_tensors(hyper, matched, chosen))
    metadata, warnings = collect_metadata(description, hyper, vocabulary, chosen, tensors)
    return ConversionPlan(
        description.name,
        hyper,
        chosen,
        tensors,
        header.pack(metadata, tensors),
        (*_warnings(hyper), *warnings),
    )


def _match(hyper: Hyperparameters, stored: Mapping[str, StoredTensor]) -> list[tuple[Expected, StoredTensor]]:
    """Pair every stored tensor with what it should be, in stored order; the sets must be the same."""
    entries = islice(expected_tensors(hyper), 10 * len(stored) + 1000)  # a config may call for billions
    expected = {entry.name: entry for entry in entries}
    if hyper.tied_embeddings and "lm_head.weight" in stored:
        shape = (hyper.vocabulary, hyper.embedding)
        expected["lm_head.weight"] = Expected("lm_head.weight", shape, "output.weight")
    needed = {name: tensor for name, tensor in stored.items() if not name.endswith(_IGNORED)}
    if missing := [name for name in expected if name not in needed]:
        raise ModelFileError(
            f"{len(missing)} tensors that config.json calls for are missing: {_few(missing)}; "
            "download the checkpoint again"
        )
    if extra := [name for name in needed if name not in expected]:
        raise ModelFileError(
            f"{len(extra)} tensors have no place in a {hyper.family} with this config.json: {_few(extra)}; "
            "the config does not belong to these weights, or the model is of another family"
        )
    for name, tensor in needed.items():
        if tensor.shape != expected[name].shape:
            raise ModelFileError(
                f"tensor '{name}' has shape {list(tensor.shape)}, config.json calls for "
                f"{list(expected[name].shape)}; the config does not belong to these weights"
            )
        if tensor.dtype not in SOURCE_TYPES:
            raise ModelFileError(
                f"tensor '{name}' is stored as {tensor.dtype}; {', '.join(SOURCE_TYPES)} can be read: "
                "use the original, unquantized checkpoint"
            )
    return [(expected[name], tensor) for name, tensor in needed.items()]


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _resolve(out_type: str, stored: Mapping[str, StoredTensor]) -> str:
    """Return the out type in ggml's spelling; ``auto`` is the first matrix's own 16-bit type, or F16."""
    if out_type != "auto":
        return out_type.upper()
    kinds = (tensor.dtype for tensor in stored.values() if len(tensor.shape) > 1)
    return next((kind for kind in kinds if kind in ("BF16", "F16")), "F16")


def _plan_tensors(
    hyper: Hyperparameters, matched: list[tuple[Expected, StoredTensor]], out_type: str
) -> list[PlannedTensor]:
    planned = []
    if hyper.rope.kind == "llama3":
        factors = rope_factors(hyper).tobytes()
        planned.append(
            PlannedTensor("rope_freqs.weight", (hyper.head_dimension // 2,), "F32", len(factors), (), computed=factors)
        )
    experts: dict[int, dict[tuple[str, int], StoredTensor]] = {}
    for entry, tensor in matched:
        if entry.expert is None:
            planned.append(_plan_tensor(entry.target, entry.shape, (tensor,), entry.heads, out_type))
            continue
        layer = int(entry.target.split(".")[1])
        parts = experts.setdefault(layer, {})
        parts[entry.target, entry.expert] = tensor
        if len(parts) == 3 * hyper.experts:
            planned += _plan_experts(hyper, layer, parts, out_type)
    return planned


def _plan_experts(
    hyper: Hyperparameters, layer: int, parts: Mapping[tuple[str, int], StoredTensor], out_type: str
) -> list[PlannedTensor]:
    planned = []
    for part in ("gate", "down", "up"):
        target = f"blk.{layer}.ffn_{part}_exps.weight"
        sources = tuple(parts[target, expert] for expert in range(hyper.experts))
        shape = (hyper.experts, *sources[0].shape)
        planned.append(_plan_tensor(target, shape, sources, 0, out_type))
    return planned


def _plan_tensor(
    name: str, shape: tuple[int, ...], sources: tuple[StoredTensor, ...], heads: int, out_type: str
) -> PlannedTensor:
    import gguf

    type_name = out_type
    if len(shape) == 1 or name.endswith(_ALWAYS_F32):
        type_name = "F32"
    block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_name]]
    if shape[-1] % block:
        type_name, block, block_bytes = "F16", 1, 2
    return PlannedTensor(name, shape, type_name, math.prod(shape) // block * block_bytes, sources, heads)


def _warnings(hyper: Hyperparameters) -> list[str]:
    if hyper.rope.kind == "dynamic":
        return ["rope scaling 'dynamic' is left out, llama.cpp has none: beyond the trained context it will differ"]
    return []
