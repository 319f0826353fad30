"""The columns of the main table, and which of them go when the terminal is narrow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.text import Text

from gguf_eval.analysis.divergence import Figure, TextSummary
from gguf_eval.analysis.marks import Marks, generation_rate, score
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import PointSummary, SpeedSummary, StudySummary
from gguf_eval.errors import UsageError, nearest
from gguf_eval.report import words

VERDICT_STYLES = {"worse": "red", "better": "green", "same": "green", "undecided": "yellow"}
DROP_ORDER = ("tasks", "ppl", "pp", "file", "bpw", "tg", "kld", "score", "memory")
"""What goes first when the table is wider than the terminal. Tasks go together, into a table of their own; the level
and the comparison with the reference always stay."""
SORTS: dict[str, Callable[[PointSummary], float]] = {
    "bpw": lambda point: -point.bits_per_weight,
    "file": lambda point: point.size_bytes or float("inf"),
    "memory": lambda point: point.peak_rss_bytes or float("inf"),
    "speed": lambda point: -(generation_rate(point) or 0.0),
    "score": lambda point: -(estimate.value if (estimate := score(point)) else -1.0),
}
"""What ``--sort`` takes; the best value comes first."""


@dataclass(frozen=True)
class Column:
    """One column of the main table."""

    key: str
    """What ``--columns`` calls it."""
    kind: str
    """Its name in `DROP_ORDER`."""
    header: str
    cell: Callable[[PointSummary], Text]
    justify: Literal["left", "right"] = "right"


def all_columns(study: StudySummary, points: Sequence[PointSummary], marks: Marks) -> list[Column]:
    """Every column that has something to say of these points, in the order shown."""
    columns = [
        Column("level", "level", "  level", lambda p: _level(p, marks), "left"),
        Column("bpw", "bpw", "bpw", lambda p: Text(words.bits(p))),
        Column("file", "file", "file ", lambda p: _size(p.size_bytes, p, marks, "file")),
    ]
    if any(point.peak_rss_bytes for point in points):
        columns.append(Column("memory", "memory", "peak RAM ", lambda p: _size(p.peak_rss_bytes, p, marks, "memory")))
    if any(map(on_devices, points)):
        columns.append(Column("devices", "memory", "on devices", lambda p: Text(words.size(on_devices(p)))))
    for test in dict.fromkeys(test for point in points for test in point.speed):
        kind = "tg" if test.startswith("tg") else "pp"
        columns.append(Column(test, kind, f"{test} ", lambda p, test=test: _speed(p, test, marks)))  # type: ignore[misc]
    names = [name for name in study.task_names if any(name in point.tasks for point in points)]
    if len(names) > 1:
        columns.append(Column("score", "score", "score ", lambda p: _score(p, marks)))
    kind = "tasks" if len(names) > 1 else "score"
    columns += [Column(name, kind, f"{name} ", lambda p, name=name: _task(p, name, marks)) for name in names]  # type: ignore[misc]
    for text in text_columns(points):
        kind, name = ("kld" if text.diverging else "ppl"), text.header[:3].lower() + text.header[3:]
        columns.append(Column(name, kind, text.header, lambda p, text=text: _text_cell(p, text)))  # type: ignore[misc]
    columns += [Column("against", "against", header, _difference, "left") for header in against(points)]
    return columns


def against(points: Sequence[PointSummary]) -> list[str]:
    """The header of the differences, which names what they are from; none where nothing is compared."""
    return [f"against {p.label}" for p in points if p.is_reference and any(point.overall for point in points)]


def on_devices(point: PointSummary) -> int:
    """Bytes allocated on devices."""
    return sum(point.placing.device_bytes.values()) if point.placing else 0


@dataclass(frozen=True)
class TextColumn:
    """Perplexity, or mean KL divergence from the reference, over one text, and the same windows of it."""

    like: TextSummary
    """The text as the model's first point was run over it: figures over other windows don't stand beside it."""
    diverging: bool
    header: str

    def figure(self, point: PointSummary) -> Figure | None:
        """The point's figure."""
        found = next((text for text in point.texts if text.same_windows(self.like)), None)
        if found is None or not self.diverging:
            return found.perplexity if found else None
        return found.divergence.mean if found.divergence else None

    def shown(self, figure: Figure) -> tuple[str, str]:
        """The figure and its interval."""
        return words.divergence(figure) if self.diverging else words.perplexity(figure)


def text_columns(points: Sequence[PointSummary]) -> list[TextColumn]:
    """Perplexity and divergence on each text; named by the text where there are several."""
    texts: dict[str, TextSummary] = {}
    for point in points:
        for text in point.texts:
            texts.setdefault(text.text, text)
    made = []
    for name, text in texts.items():
        suffix = f" {name}" if len(texts) > 1 else ""
        made.append(TextColumn(text, False, f"PPL{suffix}"))
        if any(found.divergence for point in points for found in point.texts if found.same_windows(text)):
            made.append(TextColumn(text, True, f"KLD{suffix}"))
    return made


def _text_cell(point: PointSummary, column: TextColumn) -> Text:
    figure = column.figure(point)
    return Text(words.MISSING) if figure is None else _with_interval(column.shown(figure))


def _with_interval(lines: tuple[str, str]) -> Text:
    value, interval = lines
    return Text(value).append(f"\n{interval}", style="not bold dim") if interval else Text(value)


def chosen(columns: Sequence[Column], keys: Sequence[str]) -> list[Column]:
    """The columns the user names, in that order; ``tasks`` means every task."""
    picked: list[Column] = []
    for key in keys:
        found = [column for column in columns if key in (column.key, column.kind)]
        if not found:
            known = [column.key for column in columns]
            raise UsageError(f"--columns: no column '{key}'{nearest(key, known)}; there are: {', '.join(known)}, tasks")
        picked += [column for column in found if column not in picked]
    return picked


def fitting(
    columns: Sequence[Column], points: Sequence[PointSummary], width: int, order: Sequence[str] = DROP_ORDER
) -> list[Column]:
    """The columns left when those of ``order`` have gone, one kind after another, until the table fits."""
    left = list(columns)
    for kind in order:
        if table_width(left, points) <= width:
            break
        left = [column for column in left if column.kind != kind]
    return left


def table_width(columns: Sequence[Column], points: Sequence[PointSummary]) -> int:
    """Cells that the table takes."""
    return sum(_width(column, points) for column in columns) + 2 * (len(columns) - 1)


def _width(column: Column, points: Sequence[PointSummary]) -> int:
    lines = [line for point in points for line in column.cell(point).plain.split("\n")]
    return max(map(cell_len, (column.header, *lines)))


def marked(text: str, best: bool) -> Text:
    """A value, with a star and bold where it is the best; the star's place stays empty elsewhere."""
    return Text(f"{text}*", style="bold") if best else Text(f"{text} ")


def second_line(text: Text, line: str) -> Text:
    """An interval or deviation under a value."""
    return text.append(f"\n{line} ", style="not bold dim")


def _best(marks: Marks, column: str, point: PointSummary) -> bool:
    return point.id in marks.best.get(column, ())


def _level(point: PointSummary, marks: Marks) -> Text:
    mark = {"failed": "✗ ", "partial": "… ", "complete": ""}[point.status]
    front = "◆ " if point.id in marks.front else "  "
    style = "dim" if point.status == "failed" else "bold" if point.id in marks.front else ""
    return Text((mark or front) + point.label, style=style)


def _size(value: int | None, point: PointSummary, marks: Marks, column: str) -> Text:
    return marked(words.size(value), _best(marks, column, point))


def _speed(point: PointSummary, test: str, marks: Marks) -> Text:
    speed: SpeedSummary | None = point.speed.get(test)
    if speed is None:
        return Text(f"{words.MISSING} ")
    text = marked(words.rate(speed.tokens_per_second), _best(marks, f"speed {test}", point))
    return second_line(text, words.deviation(speed))


def _score(point: PointSummary, marks: Marks) -> Text:
    return _estimate(score(point), _best(marks, "score", point))


def _task(point: PointSummary, name: str, marks: Marks) -> Text:
    summary = point.tasks.get(name)
    return _estimate(summary.estimate if summary else None, _best(marks, f"task {name}", point))


def _estimate(estimate: Estimate | None, best: bool) -> Text:
    if estimate is None:
        return Text(f"{words.MISSING} ")
    return second_line(marked(words.percent(estimate.value), best), words.interval(estimate))


def _difference(point: PointSummary) -> Text:
    if point.is_reference:
        return Text("reference", style="dim")
    if point.overall is None:
        return Text(words.MISSING)
    text = Text(words.signed_points(point.overall.difference.value) + " ")
    text.append(point.overall.verdict, style=VERDICT_STYLES[point.overall.verdict])
    return text.append(f"\n{words.difference_interval(point.overall.difference)}", style="dim")


def ordered(points: Sequence[PointSummary], sort: str | None) -> list[PointSummary]:
    """The points by ``--sort``, or as they are: the reference first, then from most bits to fewest."""
    if sort is None:
        return list(points)
    if sort not in SORTS:
        raise UsageError(f"--sort: '{sort}' is unknown{nearest(sort, SORTS)}; there are: {', '.join(SORTS)}")
    return sorted(points, key=SORTS[sort])


def models_of(study: StudySummary) -> Mapping[str, list[PointSummary]]:
    """The points of each model."""
    groups: dict[str, list[PointSummary]] = {}
    for point in study.points:
        groups.setdefault(point.model, []).append(point)
    return groups
