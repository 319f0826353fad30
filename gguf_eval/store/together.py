"""Several studies as one, so that a report can show them side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from gguf_eval.errors import UsageError
from gguf_eval.files.identity import Identity, contradictions, stored_identity
from gguf_eval.store.records import PointRecord, StudyRecord, StudySource, TaskRecord


def study_names(paths: Sequence[str]) -> list[str]:
    """A name for each study: its file's, without endings; the whole path, or a number too, where names are alike."""
    short = [Path(path).name.removesuffix(".sqlite").removesuffix(".study") for path in paths]
    counts = Counter(short)
    names = [path if counts[name] > 1 else name for path, name in zip(paths, short, strict=True)]
    return [f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name for i, name in enumerate(names)]


def merge_studies(studies: Sequence[StudyRecord]) -> StudyRecord:
    """One study of the points of all; a single study is returned as it is.

    A task is the same where its definition is. Tasks of one name that differ get their study's name, and so do the
    points of a model that several studies have: they are compared with one reference, unless what the studies know of
    the model (`gguf_eval.files.identity`; architecture and number of weights) says that it is another.

    Raises `UsageError` where a file is given twice.
    """
    if len(studies) == 1:
        return studies[0]
    if len({Path(study.path).resolve() for study in studies}) < len(studies):
        raise UsageError("a report needs different studies; found the same file twice: name each once")
    names = study_names([study.path for study in studies])
    studies = _alike_called(studies, names)
    models = _models(studies, names)
    points: list[PointRecord] = []
    for name, study in zip(names, studies, strict=True):
        for point in study.points:
            points.append(_point(point, len(points) + 1, name, models, study))
    tasks, cautions = _tasks(studies, names)
    return StudyRecord(
        ", ".join(study.path for study in studies),
        min(study.created_at for study in studies),
        " && ".join(study.command for study in studies),
        studies[0].environment,
        tasks,
        tuple(points),
        tuple(
            StudySource(study.path, study.created_at, study.command, study.environment, name)
            for name, study in zip(names, studies, strict=True)
        ),
        cautions,
    )


@dataclass(frozen=True)
class _Kind:
    """What a study knows of a model."""

    architecture: str
    parameters: int
    """0 where none of its files could be made."""
    identities: tuple[Identity, ...]
    """Of its files; none in studies written before files were identified."""

    def differs(self, other: _Kind) -> bool:
        """Whether the two are other models."""
        if not (self.parameters and other.parameters):
            return False
        if self.identities and other.identities:
            return not self.is_same(other)
        return (self.architecture, self.parameters) != (other.architecture, other.parameters)

    def is_same(self, other: _Kind) -> bool:
        """Whether what is known says that the two are one model."""
        return any(not contradictions(one, two) for one in self.identities for two in other.identities)


def _kinds(study: StudyRecord) -> dict[str, _Kind]:
    """By model; architecture and weights are those of its first point that was made."""
    found: dict[str, _Kind] = {}
    for point in study.points:
        identity = stored_identity(point.origin)
        known = found.get(point.model, _Kind("", 0, ()))
        if not known.parameters:
            known = replace(known, architecture=point.architecture, parameters=point.parameters)
        if identity is not None and identity not in known.identities:
            known = replace(known, identities=(*known.identities, identity))
        found[point.model] = known
    return found


def _alike_called(studies: Sequence[StudyRecord], names: Sequence[str]) -> list[StudyRecord]:
    """The studies, each model called as in the first of them that has it."""
    known: list[tuple[str, _Kind]] = []
    renamed = []
    for study, study_name in zip(studies, names, strict=True):
        called = {}
        for model, own in _kinds(study).items():
            same = next((name for name, kind in known if kind.is_same(own)), None)
            called[model] = same or model
        taken = {name for model, name in called.items() if name != model}
        called |= {model: f"{model} @{study_name}" for model, name in called.items() if name == model and name in taken}
        known += [(called[model], kind) for model, kind in _kinds(study).items()]
        renamed.append(replace(study, points=tuple(replace(p, model=called[p.model]) for p in study.points)))
    return renamed


def _models(studies: Sequence[StudyRecord], names: Sequence[str]) -> dict[str, dict[str, _Kind]]:
    """By model, then by study that has it."""
    found: dict[str, dict[str, _Kind]] = {}
    for name, study in zip(names, studies, strict=True):
        for model, kind in _kinds(study).items():
            found.setdefault(model, {})[name] = kind
    return found


def _point(
    point: PointRecord,
    number: int,
    study_name: str,
    models: Mapping[str, Mapping[str, _Kind]],
    study: StudyRecord,
) -> PointRecord:
    kinds = models[point.model]
    others = any(one.differs(other) for one, other in combinations(kinds.values(), 2))
    shared = len(kinds) > 1
    return replace(
        point,
        id=number,
        name=f"{point.name} @{study_name}" if shared else point.name,
        model=f"{point.model} @{study_name}" if others else point.model,
        environments=point.environments or (study.environment,),
        study=study_name,
        names_study=shared and not others,
    )


def _tasks(studies: Sequence[StudyRecord], names: Sequence[str]) -> tuple[tuple[TaskRecord, ...], tuple[str, ...]]:
    """Tasks by definition, with the items that any of the studies planned; and a line for each name of several."""
    merged: dict[str, TaskRecord] = {}
    owners: dict[str, list[str]] = {}
    for name, study in zip(names, studies, strict=True):
        for task in study.tasks:
            known = merged.get(task.hash)
            merged[task.hash] = replace(known, items={**known.items, **task.items}) if known else task
            owners.setdefault(task.hash, []).append(name)
    alike = Counter(task.name for task in merged.values())
    tasks = tuple(
        replace(task, name=f"{task.name} @{', '.join(owners[task.hash])}") if alike[task.name] > 1 else task
        for task in merged.values()
    )
    cautions = tuple(
        f"these studies define {name} otherwise: its answers are not compared between them"
        for name, count in alike.items()
        if count > 1
    )
    return tasks, cautions
