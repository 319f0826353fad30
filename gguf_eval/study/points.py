"""Turns what the user asked for into points, checked before anything heavy is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gguf_eval.errors import UsageError
from gguf_eval.files.cache import cache_dir, file_sha256, model_parts
from gguf_eval.files.header import Header, read_header
from gguf_eval.files.identity import identify, identity_document
from gguf_eval.files.kinds import check_continues_text
from gguf_eval.files.levels import levels, spelled
from gguf_eval.files.made import is_whole
from gguf_eval.files.model_file import ModelFile, describe, model_name
from gguf_eval.files.names import variant_name
from gguf_eval.files.provenance import PREFIX
from gguf_eval.files.quantize import is_quantized, level_path, needs_making
from gguf_eval.files.recipes import Recipe, find_recipe, named_apart
from gguf_eval.runtime.settings import ChatSettings, EngineSettings, Offload
from gguf_eval.store.records import settings_label_of


@dataclass(frozen=True)
class RunRequest:
    """Everything `run` was asked for."""

    models: tuple[Path | str, ...]
    """What the user calls them: files, checkpoint folders, names on the hub, each perhaps with NAME= before it. A path
    is that of a GGUF, of a split one its first part."""
    study: Path = Path()
    """Called after the first model unless given."""
    levels: tuple[str, ...] = ()
    """Levels and recipes (names, or paths of TOML files) to make of every model; none means each model as it is."""
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
    recipe: Recipe | None
    """How the file is made from ``source``; None where it is ``source``."""
    origin: dict[str, Any]
    engine: EngineSettings = field(default_factory=EngineSettings)
    chat: dict[str, Any] = field(default_factory=dict)
    """Of `ChatSettings.answer_settings`: what tells the point from one that is asked in the usual way."""

    @property
    def name(self) -> str:
        """What people call the point."""
        return f"{self.model} {self.label}"

    @property
    def made(self) -> bool:
        """Whether the file is made from ``source``, or is ``source``."""
        return self.recipe is not None

    @property
    def label(self) -> str:
        """What tells points of one model apart, as `settings_label_of` says of the point when it is stored."""
        return settings_label_of(self.level, {**self.engine.answer_settings, **self.chat}, self.origin)

    @property
    def is_there(self) -> bool:
        """Whether the model file need not be made."""
        if self.recipe is None:
            return True
        made_by = {"source_sha256": self.source.sha256, "recipe_sha256": self.recipe.sha256}
        return is_whole(self.path, made_by, self.path.parent.parent)  # `level_path` says where it is in the cache

    @property
    def variant(self) -> str:
        """What the file's name adds to its level, or tells it from another of the name; empty where nothing."""
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


def asked_levels(request: RunRequest) -> list[Recipe]:
    """The levels and recipes to make, each once. Raises `UsageError`."""
    return list(dict.fromkeys(named_apart(find_recipe(name)) for name in request.levels))


def foreseen_points(sources: Sequence[ModelFile], request: RunRequest) -> list[PlannedPoint]:
    """The points of model files that are not there yet, for a forecast; no path but the sources' own is real."""
    recipes, cache = asked_levels(request), cache_dir(request.cache)
    points = [
        PlannedPoint(
            model=request.names.get(source.path) or model_name(source.path),
            level=recipe.level if recipe else source.level,
            path=Path("-".join((str(source.path), recipe.level, *made_by.values()))) if recipe else source.path,
            source=source,
            recipe=recipe,
            origin={**made_by, **({"named": True} if source.path in request.names else {})},
        )
        for source in sources
        for recipe in _to_make(recipes, source.level)
        for made_by in [_made_by(recipe, cache)]
    ]
    return _with_engines(points, request)


def _with_engines(points: Sequence[PlannedPoint], request: RunRequest) -> list[PlannedPoint]:
    """Each point once for each pair of KV cache types."""
    engines = [
        EngineSettings(request.offload, keys, values, request.flash_attention, request.max_memory_bytes)
        for keys, values in dict.fromkeys(request.cache_types)
    ]
    return [replace(point, engine=engine) for point in points for engine in engines]


def check_requantize(path: Path | str, header: Header, recipes: Sequence[Recipe], allowed: bool) -> None:
    """Raise `UsageError` where a level is to be made of weights that are quantized, and that is not ``allowed``."""
    wanted = [recipe.name for recipe in recipes if needs_making(header, recipe)]
    if wanted and is_quantized(header) and not allowed:
        raise UsageError(
            f"{path}: making {', '.join(wanted)} needs F16, BF16 or F32 weights, these are {header.level}; "
            "give the full-precision file, or --allow-requantize to compare all the same"
        )


def _levels_of(
    source: ModelFile, header: Header, recipes: Sequence[Recipe], cache: Path, name: str
) -> list[PlannedPoint]:
    label = model_name(source.path)
    identity = identity_document(identify(source.path))
    points = []
    for recipe in _to_make(recipes, source.level):
        origin: dict[str, Any] = {
            "source_path": str(source.path),
            "source_sha256": source.sha256,
            "source_level": source.level,
            "requantized": recipe is not None and is_quantized(header),
            "identity": identity,
        }
        level, path = source.level, source.path
        if recipe is None:
            origin |= _said_of_making(source, header)
        else:
            level = recipe.level
            origin |= _made_by(recipe, cache)
            imatrix = origin.get("imatrix_sha256")
            path = level_path(source.sha256, recipe, label, cache=cache, imatrix_sha256=imatrix)
        origin |= {"named": True} if name else {}
        points.append(PlannedPoint(name or label, level, path, source, recipe, origin))
    return points


def _to_make(recipes: Sequence[Recipe], level: str) -> list[Recipe | None]:
    """What is to be made of a file of this level; None where it is the file itself."""
    return [None if recipe.is_level(level) else recipe for recipe in recipes] or [None]


def _made_by(recipe: Recipe | None, cache: Path) -> dict[str, str]:
    """What a point's origin keeps of its recipe: name and content; nothing of a level and nothing else."""
    if recipe is None or recipe.name == recipe.level:
        return {}
    imatrix = recipe.imatrix_path
    if imatrix and not imatrix.is_file():
        raise UsageError(f"recipe {recipe.name}: no importance matrix at {imatrix}; make one with gguf-eval imatrix")
    found = {"recipe": recipe.name, "recipe_sha256": recipe.sha256}
    return found | ({"imatrix_sha256": file_sha256(imatrix, cache=cache)} if imatrix else {})


def _said_of_making(source: ModelFile, header: Header) -> dict[str, str]:
    """The same of a file as it is, by its header; else what its name adds to its level."""
    recipe = str(header.metadata.get(f"{PREFIX}recipe", ""))
    if recipe and spelled(recipe) not in levels():
        keys = ("recipe", "recipe_sha256", "imatrix_sha256")
        return {key: str(header.metadata[PREFIX + key]) for key in keys if PREFIX + key in header.metadata}
    variant = variant_name(source.path, source.level, recipe)
    return {"variant": variant} if variant else {}
