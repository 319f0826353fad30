"""Says which points are of one model: levels of it are compared with one reference, other models are not.

Files are grouped by what they hold (`gguf_eval.files.identity`), or as the user says with NAME=FILE. A model keeps the
name it has in the study; a new one is called as its first file, without the level. Points of studies that were written
before files were identified are grouped by that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from gguf_eval.files.hub_cache import repository_of
from gguf_eval.files.identity import Identity, alike, contradictions, share_file_name, stored_identity
from gguf_eval.files.model_file import model_name
from gguf_eval.store.database import StoredModel
from gguf_eval.study.points import PlannedPoint


@dataclass
class _Group:
    """One model."""

    model: str
    by_hand: bool = False
    sources: dict[Path, Identity | None] = field(default_factory=dict)
    """Files of this run."""
    known: list[Identity] = field(default_factory=list)
    """Of points in the study."""
    unidentified: bool = False
    """Whether the study has points of it that say no identity."""

    @property
    def identities(self) -> list[Identity]:
        return [*self.known, *(one for one in self.sources.values() if one is not None)]


def group_points(
    points: Sequence[PlannedPoint], stored: Sequence[StoredModel]
) -> tuple[list[PlannedPoint], tuple[str, ...]]:
    """The points, each with the name of its model and different labels within it; and what the user should read.

    Points of files of the same content are one.
    """
    points, notes = _once_each(points)
    groups = _stored_groups(stored)
    placed: dict[Path, _Group] = {}
    given = {point.source.path: point.model for point in points if point.origin.get("named")}
    by_hand = {**_named_before(points, stored), **given}
    for path, name in by_hand.items():
        placed[path] = _named(groups, name)
        placed[path].by_hand = True
        placed[path].sources[path] = _identity(points, path)
    for point in points:
        path = point.source.path
        if path not in placed:
            placed[path] = _find(groups, point)
            placed[path].sources[path] = stored_identity(point.origin)
    _tell_apart(groups)
    named = [
        replace(
            point,
            model=placed[point.source.path].model,
            origin={**point.origin, **({"named": True} if point.source.path in by_hand else {})},
        )
        for point in points
    ]
    return _distinct(_recipes_apart(named, stored)), (*notes, *_remarks(groups))


def _once_each(points: Sequence[PlannedPoint]) -> tuple[list[PlannedPoint], list[str]]:
    first: dict[tuple[Any, ...], PlannedPoint] = {}
    notes: dict[str, None] = {}
    for point in points:
        content = point.source.sha256 or str(point.source.path)
        key = (content, point.recipe, point.engine, str(point.chat))
        before = first.setdefault(key, point)
        if before.source.path != point.source.path:
            notes[f"{point.source.path} holds the same as {before.source.path}: it is evaluated once"] = None
    return list(first.values()), list(notes)


def _stored_groups(stored: Sequence[StoredModel]) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for point in stored:
        group = groups.setdefault(point.model, _Group(point.model))
        identity = stored_identity(point.origin)
        if identity is None:
            group.unidentified = True
        elif identity not in group.known:
            group.known.append(identity)
        group.by_hand |= bool(point.origin.get("named"))
    return list(groups.values())


def _named_before(points: Iterable[PlannedPoint], stored: Sequence[StoredModel]) -> dict[Path, str]:
    """Files of this run that a run before was told the model of, by hand."""
    names = {}
    for known in stored:
        if known.origin.get("named"):
            names[known.sha256] = names[str(known.origin.get("source_sha256"))] = known.model
    return {p.source.path: names[p.source.sha256] for p in points if p.source.sha256 in names}


def _named(groups: list[_Group], name: str) -> _Group:
    for group in groups:
        if group.model == name:
            return group
    groups.append(_Group(name))
    return groups[-1]


def _find(groups: list[_Group], point: PlannedPoint) -> _Group:
    identity = stored_identity(point.origin)
    name = model_name(point.source.path)
    for group in groups:
        if identity and any(not contradictions(identity, known) for known in group.identities):
            return group
    for group in groups:
        same_name = group.model == name
        if same_name and not group.identities and (group.unidentified or identity is None):
            return group
        if same_name and identity is None:
            return group
    groups.append(_Group(name))
    return groups[-1]


def _identity(points: Iterable[PlannedPoint], path: Path) -> Identity | None:
    return next((stored_identity(point.origin) for point in points if point.source.path == path), None)


def _tell_apart(groups: Sequence[_Group]) -> None:
    """Models of one name that are new in this run get the place of their file before it."""
    names = [group.model for group in groups]
    for group in groups:
        if names.count(group.model) > 1 and not (group.known or group.unidentified or group.by_hand):
            group.model = f"{place_of(next(iter(group.sources)))}/{group.model}"
    taken: set[str] = set()
    for group in groups:
        base, number = group.model, 1
        while group.model in taken:
            number += 1
            group.model = f"{base} ({number})"
        taken.add(group.model)


def place_of(path: Path) -> str:
    """What tells a file from one of the same name: its repository on the hub, or its folder."""
    return repository_of(path) or path.absolute().parent.name


def _recipes_apart(points: Sequence[PlannedPoint], stored: Sequence[StoredModel]) -> list[PlannedPoint]:
    """The points; those of recipes of one name that hold different things get the beginning of what these hold."""
    contents: dict[tuple[str, str], set[str]] = {}
    origins = [*((known.model, known.origin) for known in stored), *((point.model, point.origin) for point in points)]
    for model, origin in origins:
        if "recipe" in origin:
            contents.setdefault((model, origin["recipe"]), set()).add(_recipe_content(origin))
    return [
        replace(point, origin={**point.origin, "variant": _recipe_content(point.origin)})
        if len(contents.get((point.model, point.origin.get("recipe", "")), ())) > 1
        else point
        for point in points
    ]


def _recipe_content(origin: Mapping[str, Any]) -> str:
    imatrix = str(origin.get("imatrix_sha256", ""))[:6]
    return str(origin.get("recipe_sha256", ""))[:6] + (f" imatrix {imatrix}" if imatrix else "")


def _distinct(points: Sequence[PlannedPoint]) -> list[PlannedPoint]:
    """The points of a model that are called alike get what tells their files apart."""
    alike_points: dict[tuple[str, str], list[Path]] = {}
    for point in points:
        paths = alike_points.setdefault((point.model, point.label), [])
        if point.source.path not in paths:
            paths.append(point.source.path)
    return [_told_from(point, alike_points[point.model, point.label]) for point in points]


def _told_from(point: PlannedPoint, paths: Sequence[Path]) -> PlannedPoint:
    """The point, with what tells its file from the others of ``paths``."""
    if len(paths) == 1:
        return point
    ways: tuple[Callable[[Path], str], ...] = (place_of, lambda path: path.stem, lambda path: path.as_posix())
    told = next(way for way in ways if len({way(path) for path in paths}) == len(paths))
    variant = ", ".join(filter(None, (point.variant, told(point.source.path))))
    return replace(point, origin={**point.origin, "variant": variant})


def _remarks(groups: Sequence[_Group]) -> list[str]:
    """Where grouping may be other than what the user expects: two files that were parted, or put together."""
    found = []
    here = [group for group in groups if group.sources]
    for group in here:
        for one, other in combinations(group.sources, 2):
            if not group.by_hand and not share_file_name(one, other):
                found.append(
                    f"{one} and {other} are taken for levels of one model, {group.model}, by what they hold and the "
                    "name in their headers; where they are not, give each a name: NAME=FILE"
                )
    for one_group, other_group in combinations(groups, 2):
        if not (one_group.sources or other_group.sources) or (one_group.by_hand and other_group.by_hand):
            continue
        if one_group.identities and other_group.identities:
            first, second = one_group.identities[0], other_group.identities[0]
            if alike(first, second):
                found.append(
                    f"{one_group.model} and {other_group.model} are taken for two models and are not paired, though "
                    f"architecture and shapes agree: {'; '.join(contradictions(first, second))}. Where they are one, "
                    "give their files one name: NAME=FILE"
                )
    return found
