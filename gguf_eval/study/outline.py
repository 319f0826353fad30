"""What a run will do for each point, and what of it the study holds already: what its stages say, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gguf_eval.errors import ModelFileError
from gguf_eval.files.levels import rough_bits
from gguf_eval.files.model_file import ModelFile, describe
from gguf_eval.store.database import StudyLookup
from gguf_eval.study.cost import Rates, rates_of
from gguf_eval.study.events import PointPlan, StagePlan
from gguf_eval.study.points import PlannedPoint, RunRequest
from gguf_eval.study.stages import make, text
from gguf_eval.study.stages.order import STAGES
from gguf_eval.study.stages.reference import points_by_model
from gguf_eval.study.stages.state import Asked, FoundPoint, point_settings


def outline(asked: Asked, points: Sequence[FoundPoint], lookup: StudyLookup) -> tuple[PointPlan, ...]:
    """Every point with its stages, in the order they are done; nothing is made, and only what is there is read."""
    makers = {point.planned.path: point for point in reversed(points)}  # the first point of a file makes it
    plans = []
    for model in points_by_model(lookup, points).values():
        for point in model.reference_first:
            makes = makers[point.planned.path] is point and point.planned.made and point.file is None
            stages = make.plan(point, asked.request.threads) if makes else []
            for plan in (*(stage.plan for stage in STAGES), text.plan):
                stages += _with_start(plan(asked, point, model, lookup), point.rates)
            plans.append(PointPlan(point.planned.name, point.planned.model, point.planned.label, tuple(stages)))
    return tuple(plans)


def _with_start(stages: list[StagePlan], rates: Rates) -> list[StagePlan]:
    """Stages of one worker; the first that has anything to do waits for it to start."""
    for place, stage in enumerate(stages):
        if stage.done < stage.units:
            stages[place] = replace(stage, seconds=stage.seconds + rates.start_seconds)
            break
    return stages


def found_points(
    request: RunRequest,
    points: Sequence[PlannedPoint],
    lookup: StudyLookup,
    known: Sequence[Rates],
    sizes: Mapping[str, int],
) -> list[FoundPoint]:
    """The points as they are found. sizes: exact ones of files to be made, by the point's name, where known."""
    return [_found(request, point, lookup, known, sizes) for point in points]


def _found(
    request: RunRequest, point: PlannedPoint, lookup: StudyLookup, known: Sequence[Rates], sizes: Mapping[str, int]
) -> FoundPoint:
    settings, source = point_settings(request, point), point.source
    file = _described(point, request) if point.is_there and source.sha256 else None
    size = file.size_bytes if file else sizes.get(point.name) or rough_size(source.parameters, point.level)
    return FoundPoint(
        planned=point,
        settings=settings,
        rates=rates_of(known, source.parameters, size, request.threads),
        file=file,
        id=lookup.find_point(file.sha256, settings) if file else None,
    )


def _described(point: PlannedPoint, request: RunRequest) -> ModelFile | None:
    """None where the file is damaged: its point will say so, and the others go on."""
    try:
        return describe(point.path, cache=request.cache)
    except ModelFileError:
        return None


def rough_size(parameters: int, level: str) -> int:
    """About how large a model file will be."""
    return int(parameters * rough_bits(level) / 8)
