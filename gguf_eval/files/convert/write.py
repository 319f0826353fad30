"""Writes the model file of a plan: piece by piece, in several processes, under a temporary name until it is whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gguf_eval.atomic import written_whole
from gguf_eval.errors import ModelFileError, UsageError
from gguf_eval.files.convert.crew import copy_all
from gguf_eval.files.convert.pieces import cut, place_tensors
from gguf_eval.files.convert.plan import ConversionPlan, plan_conversion

Progress = Callable[[int, int], None]
"""Called with the bytes written so far and in all."""

_SHOWN = 8


@dataclass(frozen=True)
class Conversion:
    """What was written."""

    path: Path
    size_bytes: int
    out_type: str
    tensors: int
    warnings: tuple[str, ...]


def convert(
    reference: str,
    output: Path,
    out_type: str = "auto",
    *,
    strict: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a checkpoint folder or hub repository to the model file ``output``.

    NaN and infinite weights are warned of, or with ``strict`` refused. ``output`` appears whole or not at all.
    Raises `ModelFileError` for a checkpoint that can't be converted, `UsageError` for wrong arguments.
    """
    return write(plan_conversion(reference, out_type), output, strict=strict, progress=progress)


def output_path(plan: ConversionPlan, output: Path | None) -> Path:
    """Return where the model file of ``plan`` goes: ``output``, or ``NAME-TYPE.gguf`` in that or the current folder."""
    name = f"{plan.name}-{plan.out_type}.gguf"
    if output is None:
        return Path(name)
    return output / name if output.is_dir() else output


def write(plan: ConversionPlan, output: Path, *, strict: bool = False, progress: Progress | None = None) -> Conversion:
    """Write the model file of ``plan`` to ``output``."""
    _check_room(output, plan.size_bytes)
    try:
        with written_whole(output) as unfinished:
            found = _write_all(plan, unfinished, progress)
            if strict and found:
                raise ModelFileError(f"{'; '.join(found)}; get the checkpoint again, or convert without strictness")
    except OSError as error:
        raise ModelFileError(f"{output}: can't be written ({error.strerror}); check folder and disk") from error
    return Conversion(output, plan.size_bytes, plan.out_type, len(plan.tensors), (*plan.warnings, *found))


def _check_room(output: Path, needed: int) -> None:
    folder = output.parent
    if not folder.is_dir():
        raise UsageError(f"{output}: there is no folder {folder}; make it first")
    if output.is_dir():
        raise UsageError(f"{output}: a file name is needed, this is a folder; add a name")
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelFileError(f"{output}: {needed:,} bytes are needed, {free:,} are free in {folder}; make room")


def _write_all(plan: ConversionPlan, unfinished: Path, progress: Progress | None) -> list[str]:
    """Write header and tensors; returns warnings."""
    placed = list(place_tensors(plan.tensors, len(plan.header)))
    with unfinished.open("wb") as file:
        file.write(plan.header)
        for tensor, place in placed:
            if not tensor.sources:
                file.seek(place)
                file.write(tensor.computed)
        file.truncate(plan.size_bytes)  # padding included: what is not written reads as zero
    not_finite: dict[str, None] = {}
    overflowed: dict[str, None] = {}
    done = len(plan.header)
    pieces = (piece for tensor, place in placed for piece in cut(tensor, place))
    for piece, noticed in copy_all(pieces, unfinished, plan.size_bytes):
        if noticed.not_finite:
            not_finite[piece.tensor.name] = None
        if noticed.overflowed:
            overflowed[piece.tensor.name] = None
        done += piece.size_bytes
        if progress is not None:
            progress(done, plan.size_bytes)
    if progress is not None:
        progress(plan.size_bytes, plan.size_bytes)
    return [
        *_name("NaN or infinite weights in", list(not_finite)),
        *_name(f"weights too large for {plan.out_type}, now infinite, in", list(overflowed)),
    ]


def _name(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{what} {', '.join(names[:_SHOWN])}{more}"]
