"""Makes several levels of one model: the source is read and hashed once, finished files are used again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_eval.errors import UsageError
from gguf_eval.files.model_file import model_name
from gguf_eval.files.plan import Plan
from gguf_eval.files.quantize import is_made, make, needs_making, open_source, plan
from gguf_eval.files.quantize_checks import (
    SPARE_BYTES,
    QuantizeSource,
    check_importance,
    check_request,
    lacks_importance,
)
from gguf_eval.files.recipes import Recipe
from gguf_eval.sizes import short_of_room


@dataclass(frozen=True)
class LevelsRequest:
    """Which levels of a model to make, and where."""

    source: Path
    folder: Path
    recipes: tuple[Recipe, ...]
    imatrix: Path | None = None
    allow_requantize: bool = False
    skip_without_imatrix: bool = False
    """Leave out levels that need an importance matrix instead of failing, when there is none."""
    force: bool = False
    """Replace files that were made otherwise."""
    threads: int | None = None


@dataclass(frozen=True)
class Step:
    """One level of a request: what is planned, or what came of it."""

    recipe: Recipe
    path: Path
    status: str
    """``to make``, ``made``, ``kept`` (made before, of the same origin), ``source`` (is the source) or ``skipped``."""
    plan: Plan
    unmatched_patterns: tuple[str, ...] = ()
    seconds: float = 0.0


def plan_all(request: LevelsRequest, report: Callable[[Any], None] | None = None) -> list[Step]:
    """Return what `make_all` would do; nothing is written. ``report`` is given each step as it is known."""
    sources: dict[Path | None, QuantizeSource] = {}
    steps = []
    for recipe in request.recipes:
        step = _planned(request, recipe, _source(request, recipe, sources))
        if report is not None:
            report(step)
        steps.append(step)
    return steps


def make_all(request: LevelsRequest, report: Callable[[Any], None] | None = None) -> list[Step]:
    """Make every level of a request; everything is checked, the disk too, before the first is begun.

    ``report`` is given each step twice: as ``to make`` when it begins and as ``made`` when it is done.
    """
    sources: dict[Path | None, QuantizeSource] = {}
    planned = [_planned(request, recipe, _source(request, recipe, sources)) for recipe in request.recipes]
    _check_disk(request.folder, planned)
    done = []
    for before in planned:
        step = before
        if report is not None:
            report(step)
        if step.status == "to make":
            started = time.monotonic()
            source = _source(request, step.recipe, sources)
            make(
                source,
                step.path,
                step.recipe,
                allow_requantize=request.allow_requantize,
                threads=request.threads,
                planned=step.plan,
            )
            seconds = time.monotonic() - started
            step = Step(step.recipe, step.path, "made", step.plan, step.unmatched_patterns, seconds)
            if report is not None:
                report(step)
        done.append(step)
    return done


def _source(request: LevelsRequest, recipe: Recipe, opened: dict[Path | None, QuantizeSource]) -> QuantizeSource:
    imatrix = request.imatrix or recipe.imatrix_path
    if imatrix not in opened:
        opened[imatrix] = open_source(request.source, imatrix=imatrix)
    return opened[imatrix]


def _planned(request: LevelsRequest, recipe: Recipe, source: QuantizeSource) -> Step:
    path = request.folder / f"{model_name(request.source)}-{recipe.name}.gguf"
    planned = plan(source, recipe)
    unmatched = recipe.unmatched_patterns(planned.types)

    def step(status: str) -> Step:
        return Step(recipe, path, status, planned, unmatched)

    if not needs_making(source.headers[0], recipe):
        return Step(recipe, request.source, "source", planned)
    if source.imatrix is None and request.skip_without_imatrix and lacks_importance(source, recipe, planned):
        return step("skipped")
    if is_made(source, path, recipe):
        return step("kept")
    if path.exists() and not request.force:
        raise UsageError(f"{path}: there is a file of another origin; move it away, or replace it with --force")
    check_request(source, path, request.allow_requantize)
    check_importance(source, recipe, planned)
    return step("to make")


def _check_disk(folder: Path, steps: Sequence[Step]) -> None:
    needed = sum(step.plan.file_bytes for step in steps if step.status == "to make")
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if needed and (short := short_of_room(needed, SPARE_BYTES, shutil.disk_usage(existing).free)):
        raise UsageError(f"{folder}: {short}, for all levels; free some, choose fewer, or another folder with -o")
