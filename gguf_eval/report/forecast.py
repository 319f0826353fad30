"""Text and JSON of what a run would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gguf_eval.report.escape import plain
from gguf_eval.report.model_files import table
from gguf_eval.report.words import duration, rate, several, size
from gguf_eval.study.events import PointPlan
from gguf_eval.study.forecast import Download, Forecast, NewFile

_WORDS = {
    "convert": "converting", "make": "making files", "score": "scoring", "again": "right answers",
    "generate": "written answers", "speed": "speed and memory", "text": "text",
}  # fmt: skip
_LABEL = 10


def forecast_text(found: Forecast) -> str:
    """The whole plan, a section for each thing that would be done."""
    needs = [f"{size(n.needed_bytes)} needed, {size(n.free_bytes)} free at {n.folder}" for n in found.disk]
    sections = (
        ("study", plain(str(found.study))),
        ("download", _downloads(found.downloads)),
        ("convert", _files(found.conversions)),
        ("make", _files(found.makings)),
        ("tasks", _tasks(found) or "none"),
        ("left out", "\n".join(plain(f"{one.name}: {one.reason}") for one in found.left_out)),
        ("points", _points(found.points)),
        ("disk", "\n".join(map(plain, needs)) or "nothing to speak of"),
        ("time", "\n".join(_time(found))),
        ("note", "\n".join(map(plain, found.remarks))),
    )
    return "\n".join(_section(label, text) for label, text in sections if text)


def forecast_line(found: Forecast) -> str:
    """The plan in one line; empty where there is nothing left to do."""
    made = several(sum(not new.problem for new in found.makings), "model file")
    there = f" ({found.answers_there:,} there already)" if found.answers_there else ""
    timed, over_text = found.waiting("speed"), found.waiting("text")
    wanted = (
        (found.downloads, f"download {size(found.bytes_fetched)}"),
        (found.conversions, f"convert {', '.join(plain(new.name) for new in found.conversions)}"),
        (found.bytes_made, f"make {made} of {size(found.bytes_made)}"),
        (found.answers_left, f"get {found.answers_left:,} answers{there}"),
        (found.right_answers, f"ask {found.right_answers:,} right answers again"),
        (timed, f"time {several(timed, 'point')}"),
        (over_text, f"run {several(over_text, 'point')} over the text"),
    )
    parts = [text for any_left, text in wanted if any_left]
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
                    {"kind": s.kind, "name": s.name, "units": s.units, "done": s.done, "seconds": s.seconds_left}
                    for s in point.stages
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


def _downloads(downloads: Sequence[Download]) -> str:
    rows = [(plain(d.repo), d.kind, several(d.files, "file"), size(d.size_bytes)) for d in downloads]
    return table(("repository", "", "", "size"), rows, right=(3,)) if rows else ""


def _files(files: Sequence[NewFile]) -> str:
    rows = [
        (plain(new.name), new.level, "", f"can't be made: {plain(new.problem)}")
        if new.problem
        else (plain(new.name), new.level, ("" if new.exact else "about ") + size(new.size_bytes), "")
        for new in files
    ]
    return table(("model file", "level", "size", ""), rows, right=(2,)) if rows else ""


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
    return table(("task", "answers", "items", "to get", "there already"), rows, right=(2, 3, 4)) if rows else ""


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
