"""What of a study is in another study of another date: points, tasks, and the circumstances of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gguf_eval.analysis.environments import TITLES
from gguf_eval.store.records import PointRecord, StudyRecord, TaskRecord, settings_label_of


@dataclass(frozen=True)
class Unpaired:
    """A point or task that is in one of the studies only."""

    name: str
    where: str
    """old or new."""
    reason: str


@dataclass(frozen=True)
class Circumstance:
    """Something of the machine, the build, the packages or the settings that is not the same any more."""

    what: str
    old: str
    new: str
    points: tuple[str, ...]
    """The points it holds for; empty where it holds for all that are in both studies."""


PointPair = tuple[PointRecord, PointRecord]


def pair_points(old: StudyRecord, new: StudyRecord) -> tuple[list[PointPair], list[Unpaired]]:
    """Points of the same model and label, then those of the same file and label whose model is called otherwise.

    Where a study has several of one name, because the file was made anew, its newest counts.
    """
    places = {"old": _newest(old), "new": _newest(new)}
    pairs, taken = [], {"old": set[int](), "new": set[int]()}
    for identity in (_by_name, _by_content):
        known = {identity(p): p for p in places["old"] if p.id not in taken["old"]}
        for point in places["new"]:
            before = known.get(identity(point))
            if before is not None and before.id not in taken["old"] and point.id not in taken["new"]:
                pairs.append((before, point))
                taken["old"].add(before.id)
                taken["new"].add(point.id)
    unpaired = []
    for where, study in (("old", old), ("new", new)):
        current = {point.id for point in places[where]}
        for point in study.points:
            if point.id not in current:
                unpaired.append(Unpaired(point.name, where, "an earlier file of this name"))
            elif point.id not in taken[where]:
                unpaired.append(Unpaired(point.name, where, f"not in the {'new' if where == 'old' else 'old'} study"))
    order = {point.id: i for i, point in enumerate(new.points)}
    return sorted(pairs, key=lambda pair: order[pair[1].id]), unpaired


def _by_name(point: PointRecord) -> tuple[str, ...]:
    return ("name", point.model, point.settings_label)


def _by_content(point: PointRecord) -> tuple[str, ...]:
    # what names add to a level is no matter where the content is the same
    return ("content", point.sha256 or f"{point.model} unmade", settings_label_of(point.level, point.settings, {}))


def _newest(study: StudyRecord) -> list[PointRecord]:
    return list({_by_name(point): point for point in sorted(study.points, key=lambda point: point.id)}.values())


def pair_tasks(old: StudyRecord, new: StudyRecord) -> tuple[list[TaskRecord], list[Unpaired]]:
    """Tasks of the same definition, with the items that either study planned; and the others."""
    before = {task.hash: task for task in old.tasks}
    after = {task.hash: task for task in new.tasks}
    both = [replace(task, items={**before[key].items, **task.items}) for key, task in after.items() if key in before]
    unpaired = []
    for where, own, others in (("old", old, after), ("new", new, before)):
        versions = {task.name: task.version for task in others.values()}
        for task in own.tasks:
            if task.hash in others:
                continue
            reason = f"not in the {'new' if where == 'old' else 'old'} study"
            if task.name in versions:
                reason = f"defined otherwise there (version {task.version} here, {versions[task.name]} there)"
            unpaired.append(Unpaired(task.name, where, f"{reason}; {len(task.items)} items"))
    return both, unpaired


def circumstances(pairs: Sequence[PointPair], old: StudyRecord, new: StudyRecord) -> list[Circumstance]:
    """Every known circumstance that differs, with the points it differs for; file hashes are left to the points."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for before, after in pairs:
        earlier, later = _known(before, old), _known(after, new)
        for key in dict.fromkeys([*earlier, *later]):
            was, now = earlier.get(key, "–"), later.get(key, "–")
            if was != now:
                found.setdefault((key, *_what_differs(was, now)), []).append(after.name)
    return [Circumstance(*key, () if len(names) == len(pairs) else tuple(names)) for key, names in found.items()]


def _known(point: PointRecord, study: StudyRecord) -> dict[str, str]:
    """What is stored of how a point was run, as text by name; of several runs, all that was the case."""
    found: dict[str, list[str]] = {}
    for environment in point.environments or (study.environment,):
        for group, values in environment.items():
            for key, value in _flat(values, (group,)):
                found.setdefault(TITLES.get((key[0], key[-1]), " ".join(key[1:])), []).append(value)
    for key, value in _flat(point.settings, ("settings",)):
        found.setdefault(f"setting {' '.join(key[1:])}", []).append(value)
    conditions = dict(point.measurement.conditions) if point.measurement else {}
    for known_otherwise in ("machine", "library"):
        conditions.pop(known_otherwise, None)
    for key, value in _flat(conditions, ("speed",)):
        found.setdefault(f"speed test's {key[-1].replace('_', ' ')}", []).append(value)
    return {name: " and ".join(dict.fromkeys(values)) for name, values in found.items()}


def _flat(value: Any, key: tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
    if isinstance(value, Mapping):
        return [pair for name, part in value.items() for pair in _flat(part, (*key, str(name)))]
    return [(key, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))]


def _what_differs(old: str, new: str) -> tuple[str, str]:
    """Of lists that bars separate, as llama.cpp's flags are, only what the other lacks."""
    if "|" not in old + new:
        return old, new
    parts = [[part.strip() for part in text.split("|") if part.strip()] for text in (old, new)]
    left = [[part for part in own if part not in other] for own, other in (parts, parts[::-1])]
    return " | ".join(left[0]) or "–", " | ".join(left[1]) or "–"
