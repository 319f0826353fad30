"""What the charts draw, with Altair, which this module alone needs: scatters of points, and scores task by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import altair as alt

from gguf_eval.analysis.marks import find_marks, generation_rate, memory
from gguf_eval.analysis.models import by_model
from gguf_eval.analysis.summary import PointSummary, StudySummary
from gguf_eval.report.charts import Chart
from gguf_eval.report.places import ASLANT_FIRST, Axis, Layout, axis_over, place_labels

HEIGHT = 320
"""Pixels."""
ON_FRONT, OFF_FRONT = "on the front", "dominated"
COLOURS = ("#2f6fde", "#d9662b", "#2a9d6e", "#a14fc4", "#c23b5a", "#7a7a2a")
"""Of models: told apart by people who see no red or green, and on white as on black."""
_TICKS = 8
_FONT_SIZE, _CHARACTER = 11, 6.9
_BESIDE, _ASLANT, _OVER = 10, 6, 4
_SHOWN_TASKS = 12
"""Tasks up to which a legend names each; more are named by the tooltip."""
Row = dict[str, Any]
Field = tuple[str, str]
"""Its name in a row, and the title of its axis."""
_MEMORY = ("memory_gb", "memory, GB")


def drawn(study: StudySummary, width: int) -> list[Chart]:
    """Every chart the study has figures for, labels placed so that they fit a plot of this many pixels."""
    placed = _tradeoff_rows(study)
    made = [_quality(placed, width), _speed(placed, width), _divergence(study, width)]
    for model, members in by_model(study.points).items():
        points = [point for point in members if point.tasks]
        made += [_ladder(model, points), _heat_map(model, points)]
    return [chart for chart in made if chart is not None]


class Scatter:
    """Layers that share the axes and the models' colours; a click on a model's name in the legend dims the others."""

    def __init__(
        self, rows: Sequence[Row], x: Field, y: Field, width: int, reach: Sequence[str] = (), logarithmic: str = "x"
    ) -> None:
        """Draw ``rows`` (with ``model`` and ``level``) by two of their fields.

        ``reach`` names the fields of both ends of an interval. The axis named may be logarithmic.
        """
        self._rows, self._x, self._y, self._reach, self._width = rows, x, y, reach, width
        xs, ys = [row[x[0]] for row in rows], [row[field] for row in rows for field in (y[0], *reach)]
        self._x_axis = axis_over(xs, 0.1, may_be_logarithmic=logarithmic == "x")
        self._y_axis = axis_over(ys, 0.1, may_be_logarithmic=logarithmic == "y")
        self._models = list(dict.fromkeys(row["model"] for row in rows))
        self._picked = alt.selection_point(fields=["model"], bind="legend") if len(self._models) > 1 else None

    def _opacity(self, usual: float) -> Any:
        if self._picked is None:
            return alt.value(usual)
        return alt.condition(self._picked, alt.value(usual), alt.value(0.12))

    def _base(self, rows: Sequence[Row]) -> Any:
        return alt.Chart(alt.InlineData(values=list(rows))).encode(
            x=alt.X(f"{self._x[0]}:Q", **_scaled(self._x_axis, self._x[1])),
            y=alt.Y(f"{self._y[0]}:Q", **_scaled(self._y_axis, self._y[1])),
        )

    def _colour(self) -> Any:
        legend = alt.Legend(orient="top", title=None, columns=2, symbolOpacity=1) if len(self._models) > 1 else None
        return alt.Color("model:N", sort=self._models, legend=legend, scale=alt.Scale(range=list(COLOURS)))

    def points(self, *tooltip: str) -> Any:
        """The points; tooltip: fields, numbers with their format after a colon."""
        shape: Any = alt.value("circle")
        if "pareto" in self._rows[0]:
            shape = alt.Shape(
                "pareto:N", legend=None, scale=alt.Scale(domain=[ON_FRONT, OFF_FRONT], range=["diamond", "circle"])
            )
        marks = self._base(self._rows).mark_point(filled=True, size=110)
        shown = list(map(_tooltip, tooltip))
        made = marks.encode(color=self._colour(), shape=shape, tooltip=shown, opacity=self._opacity(1))
        return made if self._picked is None else made.add_params(self._picked)

    def reaches(self) -> Any:
        """The intervals, as lines through the points."""
        low, high = self._reach
        bars = self._base(self._rows).mark_rule().encode(y=alt.Y(f"{low}:Q", **_scaled(self._y_axis, self._y[1])))
        return bars.encode(y2=f"{high}:Q", color=self._colour(), opacity=self._opacity(0.5))

    def line(self, rows: Sequence[Row]) -> Any:
        """Steps from one of the rows to the next: what is best up to there."""
        return self._base(rows).mark_line(strokeDash=[4, 3], opacity=0.6, color="#888", interpolate="step-after")

    def labels(self) -> list[Any]:
        """The names of the points, as far as they find room; the tooltip names all."""
        layout = Layout(
            self._width, HEIGHT, mark=6, line=_FONT_SIZE + 2, beside=_BESIDE, aslant=_ASLANT, over=_OVER, gap=3, clear=1
        )
        places = [
            (self._x_axis.share(row[self._x[0]]) * self._width, (1 - self._y_axis.share(row[self._y[0]])) * HEIGHT)
            for row in self._rows
        ]
        widths = [len(row["level"]) * _CHARACTER for row in self._rows]
        sides = place_labels(places, widths, layout, ASLANT_FIRST)
        layers = []
        for across, down in dict.fromkeys(side for side in sides if side is not None):
            rows = [row for row, side in zip(self._rows, sides, strict=True) if side == (across, down)]
            text = self._base(rows).mark_text(
                fontSize=_FONT_SIZE,
                align={1: "left", 0: "center", -1: "right"}[across],
                baseline={1: "top", 0: "middle", -1: "bottom"}[down],
                dx=across * (_ASLANT if down else _BESIDE),
                dy=down * _OVER,
            )
            layers.append(text.encode(text="level:N", color=self._colour(), opacity=self._opacity(1)))
        return layers


def _tooltip(shown: str) -> Any:
    field, _, form = shown.partition(":")
    if not form:
        return alt.Tooltip(f"{field}:N", title=field)
    return alt.Tooltip(f"{field}:Q", format=form, title=field.replace("_", " "))


def _scaled(axis: Axis, title: str) -> dict[str, Any]:
    kind: Literal["log", "linear"] = "log" if axis.logarithmic else "linear"
    ticks = alt.Axis(values=axis.ticks(_TICKS), format=".4~g", labelOverlap=True)
    return {"title": title, "axis": ticks, "scale": alt.Scale(type=kind, domain=[axis.low, axis.high], nice=False)}


def _tradeoff_rows(study: StudySummary) -> list[Row]:
    marks, rows = find_marks(study), []
    for point in study.points:
        taken, estimate, rate = memory(study, point), point.joint_score, generation_rate(point)
        if not taken or point.status == "failed":
            continue
        rows.append({
            "model": point.model, "level": point.label, "memory_gb": taken / 1e9,
            "score": estimate.value * 100 if estimate else None,
            "low": estimate.low * 100 if estimate else None, "high": estimate.high * 100 if estimate else None,
            "tokens_per_second": rate, "pareto": ON_FRONT if point.id in marks.front else OFF_FRONT,
            "best_for_its_memory": point.id in marks.quality_front,
        })  # fmt: skip
    return rows


def _quality(placed: Sequence[Row], width: int) -> Chart | None:
    rows = [row for row in placed if row["score"] is not None]
    if not rows:
        return None
    plot = Scatter(rows, _MEMORY, ("score", "score, %"), width, reach=("low", "high"))
    front = plot.line([row for row in rows if row["best_for_its_memory"]])
    points = plot.points(
        "model", "level", "memory_gb:.2f", "score:.1f", "low:.1f", "high:.1f", "tokens_per_second:.1f", "pareto"
    )
    alternative = _alt("Score with 95 % interval against memory", rows, "score", "%")
    layers = alt.layer(front, plot.reaches(), points, *plot.labels())
    return Chart("quality", "Score against memory", alternative, _spec(layers), rows)


def _speed(placed: Sequence[Row], width: int) -> Chart | None:
    rows = [row for row in placed if row["tokens_per_second"] is not None]
    if not rows:
        return None
    plot = Scatter(rows, _MEMORY, ("tokens_per_second", "generation, tokens/s"), width)
    points = plot.points("model", "level", "memory_gb:.2f", "tokens_per_second:.1f", "pareto")
    alternative = _alt("Tokens a second against memory", rows, "tokens_per_second", "tokens/s")
    layers = alt.layer(points, *plot.labels())
    return Chart("speed", "Generation speed against memory", alternative, _spec(layers), rows)


def _divergence(study: StudySummary, width: int) -> Chart | None:
    first = {point.model: text for point in reversed(study.points) for text in point.texts[:1]}
    rows: list[Row] = [
        {"model": point.model, "level": point.label, "bits_per_weight": point.bits_per_weight, "text": text.text,
         "mean_kld": text.divergence.mean.value, "low": text.divergence.mean.low, "high": text.divergence.mean.high}
        for point in study.points for text in point.texts[:1]
        if text.divergence is not None and text.same_windows(first[point.model])
    ]  # fmt: skip
    if not rows:
        return None
    x, y = ("bits_per_weight", "bits per weight"), ("mean_kld", "mean KL divergence, nats")
    plot = Scatter(rows, x, y, width, logarithmic="y")
    points = plot.points("model", "level", "text", "bits_per_weight:.2f", "mean_kld:.5f", "low:.5f", "high:.5f")
    parts = [f"{row['model']} {row['level']}: {row['mean_kld']:.5f} at {row['bits_per_weight']:.2f}" for row in rows]
    return Chart(
        "divergence", "Divergence from the reference against bits per weight",
        f"Mean KL divergence in nats from each model's reference. {'; '.join(parts)}.",
        _spec(alt.layer(points, *plot.labels())), rows,
    )  # fmt: skip


def _task_rows(points: Sequence[PointSummary]) -> list[Row]:
    rows = []
    for point in points:
        for name, task in point.tasks.items():
            if task.estimate is None:
                continue
            compared = task.comparison
            rows.append({
                "task": name, "level": point.label, "bits_per_weight": point.bits_per_weight,
                "score": task.estimate.value * 100, "low": task.estimate.low * 100, "high": task.estimate.high * 100,
                "n": task.estimate.n, "difference": compared.difference.value * 100 if compared else None,
                "verdict": compared.verdict if compared else "reference",
            })  # fmt: skip
    return rows


def _by_level(rows: Sequence[Row], points: Sequence[PointSummary]) -> Any:
    """Levels across, from most bits per weight to fewest."""
    levels = [point.label for point in sorted(points, key=lambda point: -point.bits_per_weight)]
    x = alt.X("level:N", sort=levels, title=None, axis=alt.Axis(labelAngle=-40))
    return alt.Chart(alt.InlineData(values=list(rows))).encode(x=x)


def _ladder(model: str, points: Sequence[PointSummary]) -> Chart | None:
    rows = _task_rows(points)
    if len(points) < 2 or not rows:
        return None
    names = list(dict.fromkeys(row["task"] for row in rows))
    legend = alt.Legend(orient="top", title=None, columns=2) if len(names) <= _SHOWN_TASKS else None
    picked = alt.selection_point(fields=["task"], on="pointerover", empty=True)
    base = _by_level(rows, points).encode(
        color=alt.Color("task:N", sort=names, legend=legend),
        tooltip=["task:N", "level:N", alt.Tooltip("score:Q", format=".1f"), alt.Tooltip("low:Q", format=".1f"),
                 alt.Tooltip("high:Q", format=".1f"), "n:Q", "verdict:N"],
    )  # fmt: skip
    y = alt.Y("score:Q", title="score, %", scale=alt.Scale(zero=False, padding=10))
    faint = alt.condition(picked, alt.value(0.9), alt.value(0.15))
    lines = base.mark_line(point=alt.OverlayMarkDef(size=40)).encode(y=y, opacity=faint).add_params(picked)
    return Chart(
        f"ladder-{model}", f"Score by level and task: {model}",
        f"One line a task: score at each level of {model}, from most bits per weight to fewest.", _spec(lines), rows,
    )  # fmt: skip


def _heat_map(model: str, points: Sequence[PointSummary]) -> Chart | None:
    rows = [row for row in _task_rows(points) if row["difference"] is not None]
    if not rows:
        return None
    names = list(dict.fromkeys(row["task"] for row in rows))
    largest = max(2.0, *(abs(row["difference"]) for row in rows))
    base = _by_level(rows, points).encode(
        y=alt.Y("task:N", sort=names, title=None, axis=alt.Axis(labelLimit=120)),
        tooltip=["task:N", "level:N", alt.Tooltip("difference:Q", format="+.1f"), "verdict:N", "n:Q"],
    )
    colour = alt.Color(
        "difference:Q", title="points",
        scale=alt.Scale(range=["#b2182b", "#f7f7f7", "#2166ac"], domain=[-largest, 0, largest], interpolate="lab"),
        legend=alt.Legend(orient="top", gradientLength=160),
    )  # fmt: skip
    strong = abs(alt.datum.difference) > largest * 0.6
    nothing = "abs(datum.difference) < 0.05"
    text = base.mark_text(fontSize=11).encode(
        text=alt.condition(nothing, alt.value("0.0"), alt.Text("difference:Q", format="+.1f")),
        color=alt.condition(strong, alt.value("white"), alt.value("#222")),
    )
    made = base.mark_rect().encode(color=colour) + text
    return Chart(
        f"heat-{model}", f"Difference from the reference by task: {model}",
        f"Each cell is a level's score minus the reference's on the same items of a task, in points, for {model}.",
        _spec(made, 22 * len(names)), rows,
    )  # fmt: skip


def _alt(what: str, rows: Sequence[Row], key: str, unit: str) -> str:
    parts = [f"{row['model']} {row['level']}: {row[key]:.1f} {unit} at {row['memory_gb']:.2f} GB" for row in rows]
    return f"{what}. {'; '.join(parts)}."


def _spec(chart: Any, height: int = HEIGHT) -> dict[str, Any]:
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict(validate=True)
    spec.pop("config", None)
    return spec
