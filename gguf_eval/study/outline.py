"""What a run will do for each point, and what of it the study holds already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gguf_eval.errors import ModelFileError
from gguf_eval.files.cache import cache_dir
from gguf_eval.files.levels import rough_bits
from gguf_eval.files.model_file import ModelFile, describe
from gguf_eval.store.database import StudyLookup
from gguf_eval.study.cost import (
    Rates,
    answer_seconds,
    make_seconds,
    prompt_characters,
    rates_of,
    right_characters,
    speed_seconds,
    text_seconds,
)
from gguf_eval.study.events import RIGHT_ANSWERS, PointPlan, StageKind, StagePlan, Tally, counted
from gguf_eval.study.plan import PlannedPoint, RunRequest
from gguf_eval.study.stages.measure import sample_count, speed_conditions, speed_job
from gguf_eval.study.stages.reference import KINDS, Reference, answered, items_kept, uncompared, unkept
from gguf_eval.study.stages.state import TaskItems
from gguf_eval.study.text import TextModel, TextRequest, text_conditions
from gguf_eval.tasks.spec import Task
from gguf_eval.tasks.texts import WIKITEXT2_BYTES


@dataclass(frozen=True)
class UnreadTask:
    """A task whose rows are not on this machine yet."""

    task: Task
    items: int
    """0 where even that is not known."""
    characters: int
    """Of what is asked, about."""


@dataclass(frozen=True)
class OutlineRequest:
    """What points are outlined for."""

    request: RunRequest
    work: Sequence[TaskItems]
    known: Sequence[Rates]
    """Rates of any model files on this machine."""
    text: TextRequest | None = None
    unread: Sequence[UnreadTask] = ()
    unread_text: str = ""
    """The name of a text that is not on this machine yet."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Exact sizes of files to be made, by the point's name, where they are known."""


def outline(what: OutlineRequest, points: Sequence[PlannedPoint], lookup: StudyLookup) -> tuple[PointPlan, ...]:
    """Every point with its stages, in the order they are scored; nothing is made, and only what is there is read."""
    makers = {point.path: point.name for point in reversed(points)}  # the first point of a file makes it
    seen = [_seen(what, point, lookup, makes=makers[point.path] == point.name) for point in points]
    characters = {work.task.hash: prompt_characters(work.items.values()) for work in what.work}
    plans = []
    for model in dict.fromkeys(point.model for point in points):
        members = [s for s in seen if s.point.model == model]
        reference = _compared_with(model, members, lookup)
        for s in sorted(members, key=lambda s: s is not reference):
            again = _again(what, s, members, reference, lookup)
            stages = _stages(what, s, _over_text_first(members), characters, again, lookup)
            plans.append(PointPlan(s.point.name, s.point.model, s.point.label, tuple(stages)))
    return tuple(plans)


def point_settings(request: RunRequest, point: PlannedPoint) -> dict[str, Any]:
    """What of a point's settings can change answers, beside the model file: its identity in the study."""
    return {"max_tokens": request.ctx, **point.engine.answer_settings, **point.chat}


def is_there(point: PlannedPoint) -> bool:
    """Whether the point's model file need not be made."""
    return not point.made or point.path.exists()


def rough_size(parameters: int, level: str) -> int:
    """About how large a model file will be."""
    return int(parameters * rough_bits(level) / 8)


@dataclass(frozen=True)
class _Seen:
    """A point as it is found."""

    point: PlannedPoint
    file: ModelFile | None
    """None where it is made first."""
    id: int | None
    """In the study, where it is known there."""
    rates: Rates
    makes: bool
    """Whether it is the first of the points that share the file, and so the one that makes it."""


def _seen(what: OutlineRequest, point: PlannedPoint, lookup: StudyLookup, *, makes: bool) -> _Seen:
    request, source = what.request, point.source
    file = _described(what, point) if is_there(point) and source.sha256 else None
    identity = lookup.find_point(file.sha256, point_settings(request, point)) if file else None
    size = file.size_bytes if file else what.sizes.get(point.name) or rough_size(source.parameters, point.level)
    rates = rates_of(what.known, source.parameters, size, request.threads)
    return _Seen(point, file, identity, rates, makes and point.made and file is None)


def _described(what: OutlineRequest, point: PlannedPoint) -> ModelFile | None:
    """None where the file is damaged: its point will say so, and the others go on."""
    try:
        return describe(point.path, cache=what.request.cache)
    except ModelFileError:
        return None


def _rank(seen: _Seen) -> tuple[float, bool]:
    return _bits(seen), seen.point.label == seen.point.level


def _over_text_first(members: Sequence[_Seen]) -> _Seen:
    """The point of a model that is run over a text first, as `gguf_eval.study.stages.over_text` finds it."""
    return max(members, key=_rank)


def _compared_with(model: str, members: Sequence[_Seen], lookup: StudyLookup) -> _Seen | Reference:
    """The point of a model that the others are compared with, as `gguf_eval.study.stages.reference` finds it."""
    ranked: dict[int, tuple[tuple[float, bool], _Seen | Reference]] = {
        id_: ((bits, usual), reference) for id_, (bits, usual, reference) in answered(lookup, model).items()
    }
    for place, seen in enumerate(members):
        ranked[-place - 1 if seen.id is None else seen.id] = (_rank(seen), seen)
    return max(ranked.values(), key=lambda entry: entry[0])[1]


def _again(
    what: OutlineRequest, seen: _Seen, members: Sequence[_Seen], reference: _Seen | Reference, lookup: StudyLookup
) -> list[StagePlan]:
    """The right answers that are asked again, as `gguf_eval.study.stages.score` will find them; nothing for none."""
    others = [other.id for other in members if other is not reference]
    if seen.id is None or not others:
        return []
    units, seconds = 0, 0.0
    for work in what.work:
        task, items = work.task, work.items
        if task.kind not in KINDS:
            continue
        if seen is reference:
            found = unkept(lookup, seen.id, others, task.hash, items, _kept(what.request, reference, task.hash))
        else:
            kept = _kept_then(what.request, work, reference, others, lookup)
            found = uncompared(lookup, seen.id, reference.id, task.hash, kept)
        wanted = [item for hash_, item in items.items() if hash_ in found]
        units, seconds = units + len(wanted), seconds + answer_seconds(task, 0, right_characters(wanted), seen.rates)
    return [StagePlan("again", RIGHT_ANSWERS, units, 0, Tally(), seconds)] if units else []


def _kept(request: RunRequest, reference: _Seen | Reference, task_hash: str) -> set[str]:
    """Items that something is kept of already."""
    folder = cache_dir(request.cache) / "references"
    if isinstance(reference, Reference):
        return items_kept(folder, reference.sha256, reference.settings, task_hash)
    if reference.file is None:
        return set()
    return items_kept(folder, reference.file.sha256, point_settings(request, reference.point), task_hash)


def _kept_then(
    request: RunRequest,
    work: TaskItems,
    reference: _Seen | Reference,
    candidates: Sequence[int | None],
    lookup: StudyLookup,
) -> set[str]:
    """Items that something is kept of when the candidates' turn comes: a reference in the run is asked before."""
    task, items, kept = work.task.hash, work.items, _kept(request, reference, work.task.hash)
    if isinstance(reference, Reference):
        return kept
    if reference.id is None:
        return set(items)
    again = unkept(lookup, reference.id, candidates, task, items, kept)
    return kept | again | (items.keys() - lookup.answered(reference.id, task))


def _bits(seen: _Seen) -> float:
    return seen.file.bits_per_weight if seen.file else rough_bits(seen.point.level)


def _stages(
    what: OutlineRequest,
    seen: _Seen,
    text_first: _Seen,
    characters: Mapping[str, int],
    again: Sequence[StagePlan],
    lookup: StudyLookup,
) -> list[StagePlan]:
    point, request, rates = seen.point, what.request, seen.rates
    stages = []
    if seen.makes:
        seconds = make_seconds(point.level, point.source.parameters, request.threads)
        stages.append(StagePlan("make", "", 1, 0, Tally(), seconds))
    asked = [_asked(work, seen, characters[work.task.hash], lookup) for work in what.work]
    asked += [_unread(task, rates) for task in what.unread]
    stages += _with_start([*(stage for stage in asked if stage.kind == "score"), *again], rates)
    stages += _with_start([stage for stage in asked if stage.kind == "generate"], rates)
    if request.speed:
        stages += _with_start([_timed(request, seen, lookup)], rates)
    if what.text is not None:
        stages += _with_start([_read(what.text, seen, text_first, lookup)], rates)
    elif what.unread_text:
        windows = _windows(WIKITEXT2_BYTES, request.text_ctx, request.chunks, rates)
        stages += _with_start([_over(what.unread_text, windows, request.text_ctx, done=False, rates=rates)], rates)
    return stages


def _with_start(stages: list[StagePlan], rates: Rates) -> list[StagePlan]:
    """Stages of one worker; the first that has anything to do waits for it to start."""
    for place, stage in enumerate(stages):
        if stage.done < stage.units:
            stages[place] = replace(stage, seconds=stage.seconds + rates.start_seconds)
            break
    return stages


def _asked(work: TaskItems, seen: _Seen, characters: int, lookup: StudyLookup) -> StagePlan:
    task, items = work.task, work.items
    stored = lookup.answers(seen.id, task.hash) if seen.id is not None else {}
    tally = counted(value for key, value in stored.items() if key in items)
    kind: StageKind = "generate" if task.kind == "generation" else "score"
    seconds = answer_seconds(task, len(items), characters, seen.rates)
    return StagePlan(kind, task.name, len(items), tally.scored + tally.unscored, tally, seconds, task.metric)


def _unread(unread: UnreadTask, rates: Rates) -> StagePlan:
    kind: StageKind = "generate" if unread.task.kind == "generation" else "score"
    seconds = answer_seconds(unread.task, unread.items, unread.characters, rates)
    return StagePlan(kind, unread.task.name, max(1, unread.items), 0, Tally(), seconds, unread.task.metric)


def _timed(request: RunRequest, seen: _Seen, lookup: StudyLookup) -> StagePlan:
    job = speed_job(request, seen.point, seen.file or seen.point.source)
    units = sample_count(job)
    again = request.measure_again
    done = not again and seen.id is not None and lookup.has_measurement(seen.id, speed_conditions(job))
    return StagePlan("speed", "", units, units if done else 0, Tally(), speed_seconds(job, seen.rates))


def _read(text: TextRequest, seen: _Seen, reference: _Seen, lookup: StudyLookup) -> StagePlan:
    windows = _windows(text.text.path.stat().st_size, text.n_ctx, text.chunks, seen.rates)
    done = seen.id is not None and lookup.has_text(seen.id, text_conditions(text, _base(seen, reference)))
    return _over(text.text.name, windows, text.n_ctx, done=done, rates=seen.rates)


def _windows(size_bytes: int, n_ctx: int, most: int | None, rates: Rates) -> int:
    windows = max(1, int(size_bytes / rates.characters_per_token) // n_ctx)
    return min(windows, most or windows)


def _over(name: str, windows: int, n_ctx: int, *, done: bool, rates: Rates) -> StagePlan:
    scored = windows * n_ctx // 2  # a window's second half, as llama-perplexity counts
    return StagePlan("text", name, scored, scored if done else 0, Tally(), text_seconds(windows * n_ctx, rates))


def _base(seen: _Seen, reference: _Seen) -> TextModel | None:
    if seen is reference or reference.file is None:
        return None
    return TextModel(reference.point.label, reference.file.path, reference.file.sha256, reference.point.engine)
