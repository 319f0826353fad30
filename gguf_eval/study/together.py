"""Several studies as one, so that a report can show them side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gguf_eval.errors import UsageError
from gguf_eval.study.records import ItemRecord, PointRecord, StudyRecord, StudySource, TaskRecord


def study_names(paths: Sequence[str]) -> list[str]:
    """A name for each study: its file's, without endings; the whole path, or a number too, where names are alike."""
    short = [Path(path).name.removesuffix(".sqlite").removesuffix(".study") for path in paths]
    counts = Counter(short)
    names = [path if counts[name] > 1 else name for path, name in zip(paths, short, strict=True)]
    return [f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name for i, name in enumerate(names)]


def merge_studies(studies: Sequence[StudyRecord]) -> StudyRecord:
    """One study of the points of all; a single study is returned as it is.

    A task is the same where its definition is. Tasks of one name that differ get their study's name, and so do the
    points of a model that several studies have: they are compared with one reference, unless the model's weights or
    architecture are others, which makes it another model.

    Raises `UsageError` where a file is given twice.
    """
    if len(studies) == 1:
        return studies[0]
    if len({Path(study.path).resolve() for study in studies}) < len(studies):
        raise UsageError("a report needs different studies; found the same file twice: name each once")
    names = study_names([study.path for study in studies])
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
            StudySource(name, study.path, study.created_at, study.command, study.environment)
            for name, study in zip(names, studies, strict=True)
        ),
        cautions,
    )


def _models(studies: Sequence[StudyRecord], names: Sequence[str]) -> dict[str, dict[str, tuple[str, int]]]:
    """By model, then by study that has it: architecture and weights; those of its first point that was made."""
    found: dict[str, dict[str, tuple[str, int]]] = {}
    for name, study in zip(names, studies, strict=True):
        for point in study.points:
            kinds = found.setdefault(point.model, {})
            if name not in kinds or not kinds[name][1]:
                kinds[name] = (point.architecture, point.parameters)
    return found


def _point(
    point: PointRecord,
    number: int,
    study_name: str,
    models: Mapping[str, Mapping[str, tuple[str, int]]],
    study: StudyRecord,
) -> PointRecord:
    kinds = models[point.model]
    others = len({kind for kind in kinds.values() if kind[1]}) > 1
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
            items: dict[str, ItemRecord] = {**known.items, **task.items} if known else task.items
            merged[task.hash] = replace(known or task, items=items)
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
