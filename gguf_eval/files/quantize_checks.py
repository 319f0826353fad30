"""What must be true before and after a model file is made: each mistake is refused in one line."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gguf_eval.errors import EngineError, UsageError
from gguf_eval.files.ggml_types import block_shape
from gguf_eval.files.header import MAGIC, Header
from gguf_eval.files.imatrix_file import Imatrix
from gguf_eval.files.plan import Plan, is_quantized
from gguf_eval.files.recipes import Recipe
from gguf_eval.sizes import short_of_room

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPARE_BYTES = 16 << 20
"""Disk left free beside the file: a full disk breaks more than this program."""
_NEED_IMATRIX = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS")
_ABORT_WITHOUT_IMATRIX = ("IQ1_S", "IQ2_XXS", "IQ2_XS")
_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")


@dataclass(frozen=True)
class QuantizeSource:
    """A model file that is to be quantized, read and hashed once for all levels."""

    path: Path
    headers: tuple[Header, ...]
    sha256: str
    identity: tuple[int, ...]
    """Sizes, times and inodes when it was read."""
    imatrix: Imatrix | None = None
    imatrix_path: Path | None = None
    imatrix_sha256: str | None = None
    importance: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    """Mean squared activations by tensor name, as llama.cpp takes them."""


def check_request(source: QuantizeSource, output: Path, allow_requantize: bool) -> None:
    """Refuse to overwrite the source, and to quantize twice without leave."""
    if output.exists() and output.resolve() == source.path.resolve():
        raise UsageError(f"{output}: the output would replace its own source; choose another name")
    if output.is_dir():
        raise UsageError(f"{output}: a file name is needed, this is a folder")
    if not allow_requantize and any(is_quantized(header) for header in source.headers):
        raise UsageError(
            f"{source.path}: quantizing needs F32, F16 or BF16 weights, these are {source.headers[0].level}: precision "
            "is lost already; use the original, or allow it with --allow-requantize"
        )


def check_recipe(source: QuantizeSource, recipe: Recipe) -> None:
    """Refuse what llama.cpp answers with a failed assertion, and a recipe that would do nothing."""
    tensors = {tensor.name: tensor for header in source.headers for tensor in header.tensors}
    unmatched = recipe.unmatched_patterns(tensors)
    if unmatched and len(unmatched) == len(recipe.tensor_types):
        raise UsageError(
            f"recipe {recipe.name}: no tensor of {source.path.name} matches {' or '.join(map(repr, unmatched))}; "
            f"its names are like {next(reversed(tensors))}"
        )
    fixed = dict.fromkeys(_EMBEDDINGS, recipe.embedding_type) | {"output.weight": recipe.output_type}
    for name, kind in fixed.items():
        if kind is None or name not in tensors:
            continue
        block = block_shape(kind)[0]
        if tensors[name].shape[0] % block:
            raise UsageError(
                f"recipe {recipe.name}: {name} can't be {kind}: its rows of {tensors[name].shape[0]} are no multiple "
                f"of {block}; choose a type with smaller blocks, for instance Q8_0"
            )


def lacks_importance(source: QuantizeSource, recipe: Recipe, planned: Plan) -> list[str]:
    """Return tensors that llama.cpp will not make, or would abort on, without an importance matrix for them."""
    lacking = []
    for name, kind in planned.types.items():
        if name in source.importance:
            continue
        if name in (*_EMBEDDINGS, "output.weight"):
            needed = kind in _ABORT_WITHOUT_IMATRIX
        else:
            needed = kind in _NEED_IMATRIX or (kind == "Q2_K" and recipe.level == "Q2_K_S")
        if needed:
            lacking.append(name)
    return lacking


def check_importance(source: QuantizeSource, recipe: Recipe, planned: Plan) -> None:
    """Refuse a level that needs an importance matrix, or one with more tensors, before llama.cpp does half way."""
    lacking = lacks_importance(source, recipe, planned)
    if (lacking or planned.needs_imatrix) and source.imatrix is None:
        raise UsageError(
            f"{recipe.name} needs an importance matrix, none was given; make one with gguf-eval imatrix and name it "
            'with quantize\'s --imatrix or in a recipe (imatrix = "FILE"), or take Q2_K'
        )
    if lacking:
        raise UsageError(
            f"{recipe.name} needs an importance matrix for {lacking[0]} and {len(lacking) - 1} more tensors, "
            f"{source.imatrix_path} has none; make one from more text, or choose a higher level"
        )


def check_disk(output: Path, planned: Plan) -> None:
    """Refuse to start what will not fit on the disk."""
    if short := short_of_room(planned.file_bytes, SPARE_BYTES, shutil.disk_usage(output.parent).free):
        raise UsageError(f"{output}: {short}; free some, or choose another folder with -o")


def check_result(unfinished: Path, output: Path, planned: Plan) -> None:
    """Refuse a file that is not whole. llama.cpp writes the header last: with it and the exact size all is there."""
    with unfinished.open("rb") as file:
        whole = file.read(4) == MAGIC and unfinished.stat().st_size == planned.file_bytes
    if not whole:
        raise EngineError(_short_of_disk(unfinished, output, planned))


def explained(failure: str, source: Path, unfinished: Path, output: Path, planned: Plan) -> str:
    """Return the message for a run that llama.cpp gave up."""
    if "ios" in failure and "clear" in failure:  # C++ streams say no more than "basic_ios::clear: iostream error"
        return _short_of_disk(unfinished, output, planned)
    return f"{source}: llama.cpp could not quantize it: {failure}"


def _short_of_disk(unfinished: Path, output: Path, planned: Plan) -> str:
    free = shutil.disk_usage(output.parent).free
    return (
        f"{output}: {planned.file_bytes:,} bytes were to be written, {unfinished.stat().st_size:,} were and {free:,} "
        "are free; is the disk full or a quota reached? Free some, or choose another folder with -o"
    )
