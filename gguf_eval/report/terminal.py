"""The report in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gguf_eval.analysis.recommend import conclude
from gguf_eval.analysis.summary import PointSummary, SpeedSummary, StudySummary
from gguf_eval.report import words

_FIXED_WIDTH = 54
"""Columns that every table has: level, bits, size, memory, both speeds."""
_DIFFERENCE_WIDTH = 19
_TASK_WIDTH = 12
_VERDICT_STYLES = {"worse": "red", "better": "green", "same": "green", "undecided": "yellow"}


def print_report(study: StudySummary, console: Console) -> None:
    """Print the whole report at the console's width."""
    for model in dict.fromkeys(point.model for point in study.points):
        points = [point for point in study.points if point.model == model]
        console.print()
        console.print(Text(model, style="bold"), Text(_parameters(points), style="dim"))
        for table in _tables(points, study.task_names, console.width):
            console.print(table)
        console.print(_failures(points))
    notes = [Text(line, style="dim") for line in [*_how_to_read(study), *words.items_note(study)]]
    console.print(Group(*notes))
    sentences = [line for found in conclude(study) for line in words.conclusion(found)]
    if sentences:
        console.print()
    for sentence in sentences:
        console.print(Text(sentence), soft_wrap=not console.is_terminal)


def _parameters(points: Sequence[PointSummary]) -> str:
    count = max(point.parameters for point in points)
    return f"{count / 1e9:.1f} B parameters" if count >= 1e9 else f"{count / 1e6:.0f} M parameters"


def _tables(points: Sequence[PointSummary], tasks: Sequence[str], width: int) -> list[RenderableType]:
    """One table where the tasks fit beside the costs; further ones for the tasks that do not."""
    room = max(1, (width - _FIXED_WIDTH - _DIFFERENCE_WIDTH) // _TASK_WIDTH)
    tables: list[RenderableType] = [_table(points, tasks[:room], costs=True)]
    rest = tasks[room:]
    room = max(1, (width - 12) // _TASK_WIDTH)
    tables.extend(
        Padding(_table(points, rest[i : i + room], costs=False), (1, 0, 0, 0)) for i in range(0, len(rest), room)
    )
    return tables


def _table(points: Sequence[PointSummary], tasks: Sequence[str], *, costs: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("level", no_wrap=True)
    if costs:
        for name in ("bpw", "file", "peak RAM", *_tests(points)):
            table.add_column(name, justify="right", no_wrap=True)
    for name in tasks:
        table.add_column(name, justify="right", no_wrap=True, max_width=18)
    if costs and any(point.overall for point in points):
        reference = next(point for point in points if point.is_reference)
        table.add_column(f"against {reference.level}", no_wrap=True)
    for point in points:
        table.add_row(*_row(point, points, tasks, costs=costs))
    return table


def _tests(points: Sequence[PointSummary]) -> list[str]:
    return list(dict.fromkeys(test for point in points for test in point.speed))


def _row(point: PointSummary, points: Sequence[PointSummary], tasks: Sequence[str], *, costs: bool) -> list[Text]:
    style = "dim" if point.status == "failed" else ""
    mark = {"failed": " ✗", "partial": " …", "complete": ""}[point.status]
    cells = [Text(point.level + mark, style=style)]
    if costs:
        bits = f"{point.bits_per_weight:.2f}" if point.parameters else words.MISSING
        cells += [Text(bits), Text(words.size(point.size_bytes)), Text(words.size(point.peak_rss_bytes))]
        cells += [_speed(point.speed.get(test)) for test in _tests(points)]
    cells += [_task(point, name) for name in tasks]
    if costs and any(other.overall for other in points):
        cells.append(_difference(point))
    return cells


def _speed(speed: SpeedSummary | None) -> Text:
    if speed is None:
        return Text(words.MISSING)
    text = Text(
        f"{speed.tokens_per_second:,.0f}" if speed.tokens_per_second >= 100 else f"{speed.tokens_per_second:.1f}"
    )
    if speed.stdev is not None:
        text.append(f"\n±{speed.stdev:.0f}" if speed.tokens_per_second >= 100 else f"\n±{speed.stdev:.1f}", style="dim")
    else:
        text.append("\nn=1", style="dim")
    return text


def _task(point: PointSummary, name: str) -> Text:
    summary = point.tasks.get(name)
    if summary is None or summary.estimate is None:
        return Text(words.MISSING)
    text = Text(f"{summary.estimate.value * 100:.1f}")
    text.append(f"\n{words.interval(summary.estimate)}", style="dim")
    return text


def _difference(point: PointSummary) -> Text:
    if point.is_reference:
        return Text("reference", style="dim")
    if point.overall is None:
        return Text(words.MISSING)
    text = Text(words.signed_points(point.overall.difference.value) + " ")
    text.append(words.verdict(point.overall), style=_VERDICT_STYLES[point.overall.verdict])
    text.append(f"\n{words.difference_interval(point.overall.difference)}", style="dim")
    return text


def _failures(points: Sequence[PointSummary]) -> RenderableType:
    lines = [
        Text(f"✗ {point.level} failed: {point.error}", style="red") for point in points if point.status == "failed"
    ]
    lines += [Text(f"… {point.level} is incomplete: run the same command again to finish it", style="yellow")
              for point in points if point.status == "partial"]  # fmt: skip
    return Group(*lines, Text()) if lines else Text()


def _how_to_read(study: StudySummary) -> list[str]:
    machine = study.environment.get("machine", {})
    where = f"{machine.get('processor', 'unknown processor')}, {machine.get('physical_cores', '?')} cores"
    tests = sorted({test for point in study.points for test in point.speed})
    speed = f"{', '.join(tests)}: tokens/s, mean ± deviation, on {where}. " if tests else ""
    return [f"{speed}Accuracy in %, with 95 % intervals; differences in points, on the same items."]
