"""What this machine does: what points cost on it, the answer of ``bench``, and what ``doctor`` found."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.console import Console
from rich.text import Text

from gguf_eval.analysis.costs import PointCost, joules_per_token
from gguf_eval.analysis.models import grouped
from gguf_eval.analysis.statistics import mean_and_deviation
from gguf_eval.files.footprint import cpu_features
from gguf_eval.report import notes, words
from gguf_eval.report.tables import print_rows
from gguf_eval.store.records import SpeedRecord
from gguf_eval.study.doctor import Examination

SCHEMA = 1


def costs_document(points: Sequence[PointCost], environment: Mapping[str, Any]) -> dict[str, Any]:
    """Everything measured, every repetition too, as JSON-ready values."""
    return {"schema": SCHEMA, "environment": dict(environment), "points": [_point(cost) for cost in points]}


def _point(cost: PointCost) -> dict[str, Any]:
    point, details = cost.point, cost.point.details
    return {
        "name": point.name,
        "tests": {test.test: _test(test) for test in point.speed},
        "context": details.get("predicted", {}).get("context"),
        "load_seconds": details.get("load_seconds"),
        "memory": {
            kind: {"bytes": size, "method": point.memory_methods.get(kind)} for kind, size in point.memory.items()
        },
        **{name: getattr(cost, name) for name in ("measured_bytes", "predicted_bytes", "prediction_error")},
        "buffers": details.get("buffers", []),
        "device_memory": details.get("device_memory", {}),
        "placing": asdict(cost.placing) if cost.placing else None,
        "machine_states": details.get("states", []),
        "warnings": list(cost.warnings),
    }


def _test(test: SpeedRecord) -> dict[str, Any]:
    mean, deviation = mean_and_deviation(test.rates)
    return {
        "tokens_per_second": list(test.rates),
        "mean": mean,
        "stdev": deviation,
        "first_token_seconds": _first_token(test),
        "joules_per_token": joules_per_token(test),
    }


def print_costs(points: Sequence[PointCost], console: Console) -> None:
    """A table of speeds, then what each point took, then warnings; nothing of no points."""
    if not points:
        return
    energy = any(joules_per_token(test) for cost in points for test in cost.point.speed)
    headers = ["point", "test", "tokens/s", "n", "first token", *["J/token"] * energy]
    rows = [
        _row("" if index else cost.point.name, test, energy)
        for cost in points
        for index, test in enumerate(cost.point.speed)
    ]
    print_rows(headers, rows, console)
    for cost in points:
        console.print(Text("\n" + "\n".join(_cost_lines(cost))), soft_wrap=True)
    warnings = [f"! {cost.point.name}: {warning}" for cost in points for warning in cost.warnings]
    for warning in warnings:
        console.print(Text(warning, style="yellow"), soft_wrap=True)


def _row(name: str, test: SpeedRecord, energy: bool) -> list[Text]:
    (mean, deviation), first = mean_and_deviation(test.rates), _first_token(test)
    spread = f" ± {deviation:.1f}" if deviation is not None else ""
    shown = words.MISSING if first is None else f"{first:.2f} s"
    cells = [name, test.test, f"{mean:.1f}{spread}", str(len(test.rates)), shown]
    if energy:
        spent = ", ".join(f"{value:.2f} ({source})" for source, value in joules_per_token(test).items())
        cells.append(spent or words.MISSING)
    return list(map(Text, cells))


def _first_token(test: SpeedRecord) -> float | None:
    """Median seconds; for prompts."""
    return median(test.first_token_seconds) if test.first_token_seconds else None


def _cost_lines(cost: PointCost) -> list[str]:
    """Memory, load time and layers of one point."""
    memory, details = cost.point.memory, cost.point.details
    split = ""
    if "file_rss" in memory:
        split = f" ({words.size(memory['file_rss'])} file, {words.size(memory['anonymous_rss'])} anonymous)"
    context = details.get("predicted", {}).get("context")
    lines = [f"{cost.point.name}: peak {words.size(memory.get('peak_rss'))}{split} at a context of {context}"]
    if details.get("load_seconds") is not None:
        lines[0] += f", loaded in {details['load_seconds']:.1f} s"
    if cost.prediction_error is not None:
        lines.append(
            f"  the model's part {words.size(cost.measured_bytes)}, predicted {words.size(cost.predicted_bytes)} "
            f"({cost.prediction_error * 100:+.1f} %)"
        )
    kinds = {"model": "weights", "KV": "KV cache"}
    places = grouped(
        (buffer["place"], f"{kinds.get(buffer['holds'], buffer['holds'])} {words.size(buffer['size_bytes'])}")
        for buffer in details.get("buffers", ())
    )
    lines += [f"  {place}: {', '.join(parts)}" for place, parts in places.items()]
    lines += [_device_line(name, free) for name, free in details.get("device_memory", {}).items()]
    lines += [
        f"  {kind}: {words.size(size)} at peak" for kind, size in memory.items() if kind.startswith("process on ")
    ]
    placing = cost.placing
    if placing is not None and placing.layers + len(placing.reasons) > 1:
        lines.append(f"  {notes.placing(placing)}")
    return lines


def _device_line(name: str, free: Mapping[str, int]) -> str:
    """What a device says of its memory."""
    before, least, after = (free[key] for key in ("free_before_bytes", "least_free_bytes", "free_after_bytes"))
    used = words.size(before - least) if before > least else "0 MB"
    then = f"{words.size(before)} free before, {words.size(least)} at least, {words.size(after)} after"
    return f"  {name} itself: {used} less free at peak ({then})"


_LABEL_WIDTH = 11


def print_doctor(found: Examination, console: Console) -> None:
    """One line a finding, then the problems, each with its command on a line of its own."""
    for name, text in _lines(found):
        _print_beside(f"{name:<{_LABEL_WIDTH}}", text, console, "bold", "")
    console.print()
    if not found.problems:
        console.print(Text("Nothing that would go wrong was found.", style="green"))
        return
    count = len(found.problems)
    console.print(Text(f"{count} {'things' if count > 1 else 'thing'} would go wrong, or slower than need be:"))
    for problem in found.problems:
        _print_beside("! ", problem.what, console, "bold yellow", "bold yellow")
        console.print(Text(f"    {problem.command}"), soft_wrap=True)  # whole, to be copied


def _print_beside(label: str, text: str, console: Console, label_style: str, style: str) -> None:
    """Print text beside a label: in a terminal as lines under each other, elsewhere as one."""
    room = max(40, console.width - len(label))
    lines = textwrap.wrap(text, room, break_long_words=False) if console.is_terminal else [text]
    for line in lines or [""]:
        console.print(Text.assemble((label, label_style), (line, style)), soft_wrap=True)
        label = " " * len(label)


def _lines(found: Examination) -> list[tuple[str, str]]:
    machine = found.machine
    cores, threads = machine["physical_cores"], machine["logical_cores"]
    lines = [
        ("python", machine["python"]),
        ("system", f"{machine['system']}, {machine['architecture']}"),
        ("processor", f"{machine['processor']}, {cores} physical cores, {threads} threads"),
        ("threads", f"{cores}, unless --threads says otherwise"),
        ("memory", f"{words.size(found.memory_available_bytes)} available of {words.size(found.memory_limit_bytes)}"),
    ]
    if found.build_error:
        lines.append(("llama.cpp", f"does not load: {found.build_error}"))
    else:
        build = found.build
        used = ", ".join(sorted(cpu_features(build["system_info"]))) or "none that it names"
        lines += [
            ("llama.cpp", f"{build['llama_cpp']}, in llama-cpp-python {build['llama_cpp_python']}"),
            ("backends", ", ".join(found.backends)),
            ("features", used),
        ]
    for device in found.devices:
        free = f"{words.size(device['free_bytes'])} free of {words.size(device['total_bytes'])}"
        what = dict.fromkeys((device["description"], device["kind"]))
        lines.append(("device", f"{device['name']} ({', '.join(what)}): {free}"))
    return [
        *lines,
        ("disk", f"{words.size(found.disk_free_bytes)} free where made models are kept: {found.cache}"),
        ("hub", found.hub),
        ("energy", ", ".join(found.energy_sources) or "no counter that can be read"),
    ]
