"""Turns what the user asked for into points, checked before anything heavy is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gguf_eval.errors import UsageError
from gguf_eval.files.cache import cache_dir, model_parts
from gguf_eval.files.header import Header, read_header
from gguf_eval.files.identity import identify, identity_document
from gguf_eval.files.kinds import check_continues_text
from gguf_eval.files.levels import canonical_level
from gguf_eval.files.model_file import ModelFile, describe, model_name
from gguf_eval.files.names import variant_name
from gguf_eval.files.provenance import PREFIX
from gguf_eval.files.quantize import is_quantized, level_path, needs_making
from gguf_eval.runtime.settings import ChatSettings, EngineSettings, Offload, chat_name, point_label


@dataclass(frozen=True)
class RunRequest:
    """Everything `run` was asked for."""

    models: tuple[Path | str, ...]
    """What the user calls them: files, checkpoint folders, names on the hub, each perhaps with NAME= before it. A path
    is that of a GGUF, of a split one its first part."""
    study: Path = Path()
    """Called after the first model unless given."""
    levels: tuple[str, ...] = ()
    """Levels to make of every model; none means each model as it is."""
    tasks: tuple[str, ...] = ("offline",)
    limit: int | None = None
    items: tuple[str, ...] = ()
    """Ids of the only items to ask; all (of the limit) unless given."""
    seed: int = 0
    allow_requantize: bool = False
    speed: bool = True
    repetitions: int = 3
    prompt_tokens: tuple[int, ...] = (512,)
    generated_tokens: tuple[int, ...] = (128,)
    ctx: int | None = None
    """Longest request that is scored whole, and the context speed and memory are measured with."""
    batch_size: int = 512
    threads: int | None = None
    offload: Offload = field(default_factory=Offload)
    cache: Path | None = None
    mirror: Path | None = None
    command: str = ""
    cache_types: tuple[tuple[str, str], ...] = (("F16", "F16"),)
    """Types of the KV cache, (keys, values): each pair makes a point of every model file."""
    flash_attention: int = -1
    max_memory_bytes: int | None = None
    """What a worker may take; None means the machine's memory."""
    depths: tuple[int, ...] = (0,)
    """Tokens in the cache before a speed test."""
    speed_batch_size: int = 2048
    speed_ubatch_size: int = 512
    min_ctx: int | None = None
    """What the context of the speed and memory measurement may be reduced to where more layers fit then."""
    measure_again: bool = False
    """Measure speed and memory though the study has them."""

    chat: ChatSettings = field(default_factory=ChatSettings)
    fewshot: int | None = None
    """Examples before an item, of tasks that have examples; as many as each task says unless given."""
    text: str = ""
    """A text file or ``wikitext2`` to run every point over; none unless given."""
    text_ctx: int = 512
    """Tokens of a window of the text."""
    chunks: int | None = None
    """Windows of the text at most."""
    names: Mapping[Path, str] = field(default_factory=dict)
    """What the user calls the model of a file: files of one name are levels of one model. What they hold says it for
    all others."""


@dataclass(frozen=True)
class PlannedPoint:
    """One model file to evaluate, made first where it is not there yet."""

    model: str
    level: str
    path: Path
    source: ModelFile
    made: bool
    """Whether the file is made from ``source``, or is ``source``."""
    origin: dict[str, Any]
    engine: EngineSettings = field(default_factory=EngineSettings)
    chat: dict[str, Any] = field(default_factory=dict)
    """Of `ChatSettings.answer_settings`: what tells the point from one that is asked in the usual way."""

    @property
    def name(self) -> str:
        """What people call the point."""
        return f"{self.model} {self.label}"

    @property
    def label(self) -> str:
        """What tells points of one model apart: the level, a cache that is not F16, and how it is asked."""
        return point_label(self.level, self.variant, self.engine.cache_name, chat_name(self.chat))

    @property
    def is_there(self) -> bool:
        """Whether the model file need not be made."""
        return not self.made or self.path.exists()

    @property
    def variant(self) -> str:
        """What the file's name adds to its level, or tells it from another of the level; empty where nothing."""
        return str(self.origin.get("variant", ""))


def plan_points(request: RunRequest) -> list[PlannedPoint]:
    """Check every model and level; raises before anything is made or measured."""
    if request.ctx and request.min_ctx and request.min_ctx > request.ctx:
        raise UsageError(f"--min-ctx needs a number up to that of --ctx, {request.ctx}; found {request.min_ctx}")
    levels = asked_levels(request)
    cache = cache_dir(request.cache)
    paths = [Path(model) for model in request.models]
    for path in paths:
        check_continues_text(path)
    headers = [(path, read_header(model_parts(path)[0])) for path in paths]
    for path, header in headers:
        check_requantize(path, header, levels, request.allow_requantize)
    points: list[PlannedPoint] = []
    for path, header in headers:
        source = describe(path, cache=cache)
        points.extend(_levels_of(source, header, levels, cache, request.names.get(path, "")))
    unique: dict[Path, PlannedPoint] = {}
    for point in points:
        unique.setdefault(point.path, point)
    return _with_engines(list(unique.values()), request)


def asked_levels(request: RunRequest) -> list[str]:
    """The levels to make, by llama.cpp's spelling, each once. Raises `UsageError`."""
    return list(dict.fromkeys(canonical_level(level) for level in request.levels))


def foreseen_points(sources: Sequence[ModelFile], request: RunRequest) -> list[PlannedPoint]:
    """The points of model files that are not there yet, for a forecast; no path but the sources' own is real."""
    levels = asked_levels(request)
    points = [
        PlannedPoint(
            model=request.names.get(source.path) or model_name(source.path),
            level=level,
            path=source.path if level == source.level else Path(f"{source.path}-{level}"),
            source=source,
            made=level != source.level,
            origin={"named": True} if source.path in request.names else {},
        )
        for source in sources
        for level in levels or [source.level]
    ]
    return _with_engines(points, request)


def _with_engines(points: Sequence[PlannedPoint], request: RunRequest) -> list[PlannedPoint]:
    """Each point once for each pair of KV cache types."""
    engines = [
        EngineSettings(request.offload, keys, values, request.flash_attention, request.max_memory_bytes)
        for keys, values in dict.fromkeys(request.cache_types)
    ]
    return [replace(point, engine=engine) for point in points for engine in engines]


def check_requantize(path: Path | str, header: Header, levels: Sequence[str], allowed: bool) -> None:
    """Raise `UsageError` where a level is to be made of weights that are quantized, and that is not ``allowed``."""
    wanted = [level for level in levels if needs_making(header, level)]
    if wanted and is_quantized(header) and not allowed:
        raise UsageError(
            f"{path}: making {', '.join(wanted)} needs F16, BF16 or F32 weights, these are {header.level}; "
            "give the full-precision file, or --allow-requantize to compare all the same"
        )


def _levels_of(source: ModelFile, header: Header, levels: Sequence[str], cache: Path, name: str) -> list[PlannedPoint]:
    label = model_name(source.path)
    identity = identify(source.path)
    recipe = str(header.metadata.get(f"{PREFIX}recipe", ""))
    points = []
    for level in levels or [source.level]:
        made = needs_making(header, level)
        path = level_path(source.sha256, level, label, cache=cache) if made else source.path
        origin: dict[str, Any] = {
            "source_path": str(source.path),
            "source_sha256": source.sha256,
            "source_level": source.level,
            "requantized": made and is_quantized(header),
        }
        variant = "" if made else variant_name(source.path, source.level, recipe)
        origin |= {"identity": identity_document(identity)}
        origin |= {"variant": variant} if variant else {}
        origin |= {"named": True} if name else {}
        points.append(PlannedPoint(name or label, level, path, source, made, origin))
    return points
