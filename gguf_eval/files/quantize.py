"""Makes a model file of a quantization level from one of higher precision, through llama.cpp.

llama.cpp's log goes where the process has sent it: a caller that wants it elsewhere redirects standard error. It aborts
the process on a failed assertion, so that callers with more than one thing to do run this in a worker process.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gguf_eval.errors import EngineError, ModelFileError, UsageError
from gguf_eval.files.cache import finish, identity, unfinished_path
from gguf_eval.files.header import Header, read_header
from gguf_eval.files.levels import canonical_level, level_ftype
from gguf_eval.files.plan import Plan, is_quantized, planned_metadata_bytes, read_headers, read_plan

__all__ = [
    "is_quantized",
    "level_path",
    "library_version",
    "needs_making",
    "physical_cores",
    "plan",
    "quantize",
]

_KEY_FORMAT = 1
"""Part of every cache key: raise it when the same inputs begin to give other bytes."""
_SPARE_BYTES = 16 << 20
"""Disk left free beside the file: a full disk breaks more than this program."""


def needs_making(header: Header, level: str) -> bool:
    """Return whether a file with this header has to be quantized to be one of ``level``."""
    return header.level != canonical_level(level)


def level_path(source_sha256: str, level: str, stem: str, *, cache: Path) -> Path:
    """Return where the model file of ``level`` made from the source with this content is kept in the cache folder.

    The key covers the source, the level and the build of llama.cpp; ``stem`` is for the reader's eye.
    """
    name = canonical_level(level)
    key = {"format": _KEY_FORMAT, "source": source_sha256, "level": name, "library": library_version()}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache / "models" / f"{stem}-{name}-{digest[:16]}.gguf"


@lru_cache(maxsize=1)
def library_version() -> str:
    """Return the version of llama-cpp-python and a hash of its shared libraries, without loading them.

    The version alone does not tell which llama.cpp, or which processor's instructions, a build was made with.
    """
    try:
        package = version("llama-cpp-python")
    except PackageNotFoundError:
        package = "unknown"
    spec = find_spec("llama_cpp")
    folders = [Path(folder) / "lib" for folder in (spec.submodule_search_locations or [])] if spec else []
    digest = hashlib.sha256()
    for folder in folders:
        for library in sorted(
            {path.resolve() for path in folder.glob("*") if path.suffix in (".so", ".dylib", ".dll")}
        ):
            if "ggml" in library.name or "llama" in library.name:
                digest.update(library.name.encode() + library.read_bytes())
    return f"{package}+{digest.hexdigest()[:12]}"


def physical_cores() -> int:
    """Return the number of physical cores this process may use."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def plan(source: Path, level: str) -> Plan:
    """Return tensor types, fallbacks and exact size of the file that `quantize` would make; nothing is written."""
    return _plan(source, read_headers(source), canonical_level(level))


def quantize(
    source: Path, output: Path, level: str, *, allow_requantize: bool = False, threads: int | None = None
) -> None:
    """Make the model file ``output`` of a quantization level from the GGUF ``source`` (any part of a split one).

    It is written under a temporary name in the same folder, checked, forced to the disk and renamed, so that
    ``output`` is complete or absent. ``threads`` defaults to the physical cores. Raises `UsageError`,
    `ModelFileError` or `EngineError`.
    """
    name = canonical_level(level)
    headers = read_headers(source)
    _check_source(source, output, headers, name, allow_requantize)
    planned = _plan(source, headers, name)
    if planned.needs_imatrix:
        raise UsageError(
            f"{name} needs an importance matrix, none was given; make one with gguf-eval imatrix, or take Q2_K"
        )
    before = identity(source)
    unfinished = unfinished_path(output)
    try:
        _check_disk(output, planned)
        params = _params(name, threads)
        failure = _run(source, unfinished, params)
        if failure is not None:
            raise EngineError(_explained(failure, source, unfinished, output, planned))
        if identity(source) != before:
            raise ModelFileError(
                f"{source}: the file changed while it was quantized; wait until it is complete, then try again"
            )
        _check_result(unfinished, output, planned)
        finish(unfinished, output)
    finally:
        unfinished.unlink(missing_ok=True)


def _check_source(source: Path, output: Path, headers: tuple[Header, ...], level: str, allow_requantize: bool) -> None:
    if output.exists() and output.resolve() == source.resolve():
        raise UsageError(f"{output}: the output would replace its own source; choose another name")
    if output.is_dir():
        raise UsageError(f"{output}: a file name is needed, this is a folder")
    if not allow_requantize and any(is_quantized(header) for header in headers):
        raise UsageError(
            f"{source}: quantizing needs F32, F16 or BF16 weights, these are {headers[0].level}: precision "
            "is lost already; use the original, or allow it with --allow-requantize"
        )


def _check_disk(output: Path, planned: Plan) -> None:
    free = shutil.disk_usage(output.parent).free
    if free < planned.file_bytes + _SPARE_BYTES:
        raise UsageError(
            f"{output.parent}: {planned.file_bytes / 1e6:,.1f} MB of disk are needed for {output.name}, "
            f"{free / 1e6:,.1f} MB are free; free some, or choose another folder with -o"
        )


def _check_result(unfinished: Path, output: Path, planned: Plan) -> None:
    """Refuse a file that is shorter than its own table says: llama.cpp does not check every write."""
    try:
        read_header(unfinished)
    except ModelFileError:
        raise EngineError(_short_of_disk(unfinished, output, planned)) from None


def _explained(failure: str, source: Path, unfinished: Path, output: Path, planned: Plan) -> str:
    if "ios" in failure and "clear" in failure:  # C++ streams say no more than "basic_ios::clear: iostream error"
        return _short_of_disk(unfinished, output, planned)
    return f"{source}: llama.cpp could not quantize it: {failure}"


def _short_of_disk(unfinished: Path, output: Path, planned: Plan) -> str:
    free = shutil.disk_usage(output.parent).free
    return (
        f"{output}: {planned.file_bytes:,} bytes were to be written, {unfinished.stat().st_size:,} were and {free:,} "
        "are free; is the disk full or a quota reached? Free some, or choose another folder with -o"
    )


def _plan(source: Path, headers: tuple[Header, ...], level: str) -> Plan:
    params = _params(level, threads=1)
    params.dry_run = True
    with _engine_log(forward=False) as log:
        failure = _call(source, None, params)
    if failure:
        raise EngineError(f"{source}: llama.cpp can't quantize it: {_reason(log)}")
    return read_plan("".join(log), headers, planned_metadata_bytes(source, headers[0], ()))


def _params(level: str, threads: int | None) -> Any:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = level_ftype(level)
    params.nthread = threads or physical_cores()
    params.allow_requantize = True  # refused or allowed in _check_source, before any work
    return params


def _run(source: Path, unfinished: Path, params: Any) -> str | None:
    """Quantize; return llama.cpp's reason when it fails."""
    with _engine_log(forward=True) as log:
        failure = _call(source, unfinished, params)
    return _reason(log) if failure else None


def _call(source: Path, output: Path | None, params: Any) -> bool:
    import llama_cpp

    target = _native(output) if output is not None else b""
    return bool(llama_cpp.llama_model_quantize(_native(source), target, ctypes.byref(params)))


def _native(path: Path) -> bytes:
    """Encode a path as llama.cpp's ``fopen`` wants it: UTF-8 on Windows, the system's bytes elsewhere."""
    return str(path).encode("utf-8") if os.name == "nt" else os.fsencode(path)


def _reason(log: list[str]) -> str:
    marker = "failed to quantize: "
    for line in reversed("".join(log).splitlines()):
        if marker in line:
            return line.split(marker, 1)[1].strip()
    return "it gives no reason"


@contextmanager
def _engine_log(*, forward: bool) -> Iterator[list[str]]:
    """Collect what llama.cpp logs inside the block and, with ``forward``, let it go on to where it went before."""
    import llama_cpp

    previous = llama_cpp.llama_log_callback()
    user_data = ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(previous), ctypes.byref(user_data))
    log: list[str] = []

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def collect(severity: int, text: bytes, data: object) -> None:
        log.append(text.decode("utf-8", errors="replace"))
        if forward and previous:
            previous(severity, text, data)

    llama_cpp.llama_log_set(collect, user_data)
    try:
        yield log
    finally:
        llama_cpp.llama_log_set(previous, user_data)
