"""Text and JSON of what a run would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gguf_eval.report.escape import plain
from gguf_eval.report.model_files import table
from gguf_eval.report.words import duration, rate, several, size
from gguf_eval.study.events import PointPlan
from gguf_eval.study.forecast import Forecast, NewFile

_WORDS = {
    "convert": "converting", "make": "making files", "score": "scoring", "again": "right answers",
    "generate": "written answers", "speed": "speed and memory", "text": "text",
}  # fmt: skip
_LABEL = 10


def forecast_text(found: Forecast) -> str:
    """The whole plan, a section for each thing that would be done."""
    sections = [f"{'study':<{_LABEL}}{plain(str(found.study))}"]
    if found.downloads:
        rows = [(plain(d.repo), d.kind, several(d.files, "file"), size(d.size_bytes)) for d in found.downloads]
        sections.append(_section("download", table(("repository", "", "", "size"), rows, right=(3,))))
    if found.conversions:
        sections.append(_section("convert", _files(found.conversions)))
    if found.makings:
        sections.append(_section("make", _files(found.makings)))
    sections.append(_section("tasks", _tasks(found)))
    if found.left_out:
        sections.append(_section("left out", "\n".join(plain(f"{one.name}: {one.reason}") for one in found.left_out)))
    sections.append(_section("points", _points(found.points)))
    needs = [f"{size(n.needed_bytes)} needed, {size(n.free_bytes)} free at {n.folder}" for n in found.disk]
    sections.append(_section("disk", "\n".join(map(plain, needs)) or "nothing to speak of"))
    sections.append(_section("time", "\n".join(_time(found))))
    if found.remarks:
        sections.append(_section("note", "\n".join(map(plain, found.remarks))))
    return "\n".join(sections)


def forecast_line(found: Forecast) -> str:
    """The plan in one line; empty where there is nothing left to do."""
    parts = [f"download {size(found.bytes_fetched)}"] * bool(found.downloads)
    parts += [f"convert {', '.join(plain(new.name) for new in found.conversions)}"] * bool(found.conversions)
    if found.bytes_made:
        count = sum(not new.problem for new in found.makings)
        parts.append(f"make {several(count, 'model file')} of {size(found.bytes_made)}")
    if found.answers_left:
        there = f" ({found.answers_there:,} there already)" if found.answers_there else ""
        parts.append(f"get {found.answers_left:,} answers{there}")
    parts += [f"ask {found.right_answers:,} right answers again"] * bool(found.right_answers)
    parts += [f"time {several(found.waiting('speed'), 'point')}"] * bool(found.waiting("speed"))
    parts += [f"run {several(found.waiting('text'), 'point')} over the text"] * bool(found.waiting("text"))
    if not parts:
        return ""
    if found.left_out:
        parts.append(f"leave out {', '.join(plain(one.name) for one in found.left_out)}")
    return f"plan: {', '.join(parts)}; {'at a guess ' if found.basis == 'guessed' else ''}{_total(found)}"


def forecast_document(found: Forecast) -> dict[str, Any]:
    """The plan as the JSON document of ``run --plan``."""
    return {
        "study": str(found.study),
        "downloads": [vars(download) for download in found.downloads],
        "conversions": [vars(new) for new in found.conversions],
        "makings": [vars(new) for new in found.makings],
        "points": [
            {
                "name": point.name,
                "seconds": point.seconds_left,
                "stages": [
                    {
                        "kind": stage.kind,
                        "name": stage.name,
                        "units": stage.units,
                        "done": stage.done,
                        "seconds": stage.seconds_left,
                    }
                    for stage in point.stages
                ],
            }
            for point in found.points
        ],
        "tasks": [vars(task) for task in found.tasks],
        "left_out": [vars(one) for one in found.left_out],
        "answers": {"left": found.answers_left, "there": found.answers_there},
        "disk": [{**vars(need), "folder": str(need.folder)} for need in found.disk],
        "seconds": {**found.seconds, "total": found.total_seconds},
        "basis": found.basis,
        "rates": [vars(rates) for rates in found.rates],
        "planning_seconds": found.planning_seconds,
        "notes": list(found.remarks),
    }


def _section(label: str, text: str) -> str:
    lines = text.split("\n")
    return "\n".join(f"{label if i == 0 else '':<{_LABEL}}{line}".rstrip() for i, line in enumerate(lines))


def _files(files: Sequence[NewFile]) -> str:
    rows = []
    for new in files:
        if new.problem:
            rows.append((plain(new.name), new.level, "", f"can't be made: {plain(new.problem)}"))
        else:
            shown = ("" if new.exact else "about ") + size(new.size_bytes)
            rows.append((plain(new.name), new.level, shown, ""))
    return table(("model file", "level", "size", ""), rows, right=(2,))


def _tasks(found: Forecast) -> str:
    rows = [
        (
            plain(task.name),
            "written" if task.written else "scored",
            "known once downloaded" if task.items is None else f"{task.items:,}",
            "" if task.items is None else f"{task.left:,}",
            f"{task.there:,}",
        )
        for task in found.tasks
    ]
    return table(("task", "answers", "items", "to get", "there already"), rows, right=(2, 3, 4)) if rows else "none"


def _points(points: Sequence[PointPlan]) -> str:
    rows = []
    for point in points:
        left = [stage for stage in point.stages if stage.left]
        todo = ["make the file"] * any(stage.kind == "make" for stage in left)
        todo += [f"{point.answers_left:,} answers"] * bool(point.answers_left)
        todo += [f"{stage.left:,} {plain(stage.name)} again" for stage in left if stage.kind == "again"]
        todo += ["speed and memory"] * any(stage.kind == "speed" for stage in left)
        todo += [plain(stage.name) for stage in left if stage.kind == "text"]
        rows.append((plain(point.name), ", ".join(todo) or "complete", duration(point.seconds_left) if todo else ""))
    return table(("point", "to do", "time"), rows)


def _time(found: Forecast) -> list[str]:
    if not found.seconds:
        return ["none: everything is there"]
    lines = [_total(found)]
    if len(found.seconds) > 1:
        width = max(map(len, _WORDS.values()))
        lines += [f"  {_WORDS[kind]:<{width}}  {duration(seconds)}" for kind, seconds in found.seconds.items()]
    lines += _basis(found)
    unknown = [plain(task.name) for task in found.tasks if task.items is None]
    if unknown:
        lines.append(f"without {', '.join(unknown)}: their items are known once downloaded")
    return lines


def _total(found: Forecast) -> str:
    extra = " beside the download" if found.downloads else ""
    return duration(found.total_seconds) + extra


def _basis(found: Forecast) -> list[str]:
    if found.basis == "guessed":
        return ["a guess from the size of the files and the number of cores"]
    rates = found.rates[0]
    speeds = f"{rate(rates.prompt)} tokens/s read, {rate(rates.alone)} written"
    file = f"a file of {size(rates.size_bytes)}"
    source = "speeds in the study" if found.basis == "measured" else "a few seconds' trial"
    return [f"an estimate from {source}, scaled to the other files", f"({file}: {speeds})"]
