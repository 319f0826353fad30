"""The charts, as Vega-Lite specifications made with Altair, each with its alternative text and its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gguf_eval.analysis.marks import Marks, find_marks, generation_rate, memory
from gguf_eval.analysis.models import by_model
from gguf_eval.analysis.summary import PointSummary, StudySummary
from gguf_eval.errors import UsageError
from gguf_eval.report.chart_scatter import HEIGHT, OFF_FRONT, ON_FRONT, Scatter
from gguf_eval.report.escape import printable

PAGE_PLOT_WIDTH = 290
"""Pixels that a plot has on a telephone."""
_IMAGE_PLOT_WIDTH = 640
_SHOWN_TASKS = 12
"""Tasks up to which a legend names each; more are named by the tooltip."""
MISSING_EXTRA = (
    "charts need the packages of the 'report' extra, which are not installed; pip install 'gguf-eval[report]'"
)


@dataclass(frozen=True)
class Chart:
    """One chart."""

    name: str
    title: str
    alt: str
    spec: dict[str, Any]
    rows: list[dict[str, Any]]
    """The figures drawn."""


def charts(study: StudySummary, plot_width: int = PAGE_PLOT_WIDTH) -> list[Chart]:
    """Every chart the study has figures for, labels placed so that they fit a plot of this many pixels, or a wider one.

    Raises `UsageError` where Altair is not installed.
    """
    try:
        import altair  # noqa: F401
    except ImportError:
        raise UsageError(MISSING_EXTRA) from None
    study = printable(study)
    marks = find_marks(study)
    made = [_quality(study, marks, plot_width), _speed(study, marks, plot_width), _divergence(study, plot_width)]
    for model, members in by_model(study.points).items():
        points = [point for point in members if point.tasks]
        made += [_ladder(model, points), _heat_map(model, points)]
    # Vega writes a specification's description over the alternative text of the element it draws in.
    drawn = [chart for chart in made if chart is not None]
    return [replace(chart, spec={**chart.spec, "description": chart.alt}) for chart in drawn]


def write_image(study: StudySummary, folder_or_file: Path, kind: Literal["svg", "png"], only: str = "quality") -> None:
    """Write one chart as an image for papers and slides."""
    try:
        import vl_convert
    except ImportError:
        raise UsageError(MISSING_EXTRA) from None
    made = {chart.name: chart for chart in charts(study, _IMAGE_PLOT_WIDTH)}
    if only not in made:
        raise UsageError(
            f"--chart: no chart '{only}' can be drawn of this study; there are: {', '.join(made) or 'none'}"
        )
    spec = {**made[only].spec, "width": _IMAGE_PLOT_WIDTH, "background": "white", "title": made[only].title}
    if kind == "svg":
        folder_or_file.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
    else:
        folder_or_file.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))


def _tradeoff_rows(study: StudySummary, marks: Marks) -> list[dict[str, Any]]:
    rows = []
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


def _quality(study: StudySummary, marks: Marks, width: int) -> Chart | None:
    rows = [row for row in _tradeoff_rows(study, marks) if row["score"] is not None]
    if not rows:
        return None
    plot = Scatter(rows, "memory_gb", "memory, GB", "score", "score, %", width, reach=("low", "high"))
    front = plot.line([row for row in rows if row["best_for_its_memory"]])
    tooltip = [
        ("model", ""), ("level", ""), ("memory_gb", ".2f"), ("score", ".1f"), ("low", ".1f"), ("high", ".1f"),
        ("tokens_per_second", ".1f"), ("pareto", ""),
    ]  # fmt: skip
    layers = [front, plot.reaches(), plot.points(tooltip), *plot.labels()]
    return Chart(
        "quality", "Score against memory", _alt("Score with 95 % interval against memory", rows, "score", "%"),
        _layered(layers), rows,
    )  # fmt: skip


def _speed(study: StudySummary, marks: Marks, width: int) -> Chart | None:
    rows = [row for row in _tradeoff_rows(study, marks) if row["tokens_per_second"] is not None]
    if not rows:
        return None
    plot = Scatter(rows, "memory_gb", "memory, GB", "tokens_per_second", "generation, tokens/s", width)
    tooltip = [("model", ""), ("level", ""), ("memory_gb", ".2f"), ("tokens_per_second", ".1f"), ("pareto", "")]
    return Chart(
        "speed", "Generation speed against memory",
        _alt("Tokens a second against memory", rows, "tokens_per_second", "tokens/s"),
        _layered([plot.points(tooltip), *plot.labels()]), rows,
    )  # fmt: skip


def _divergence(study: StudySummary, width: int) -> Chart | None:
    first = {point.model: text for point in reversed(study.points) for text in point.texts[:1]}
    rows: list[dict[str, Any]] = [
        {"model": point.model, "level": point.label, "bits_per_weight": point.bits_per_weight, "text": text.text,
         "mean_kld": text.divergence.mean.value, "low": text.divergence.mean.low, "high": text.divergence.mean.high}
        for point in study.points for text in point.texts[:1]
        if text.divergence is not None and text.same_windows(first[point.model])
    ]  # fmt: skip
    if not rows:
        return None
    plot = Scatter(
        rows, "bits_per_weight", "bits per weight", "mean_kld", "mean KL divergence, nats", width, logarithmic="y"
    )
    tooltip = [("model", ""), ("level", ""), ("text", ""), ("bits_per_weight", ".2f"),
               *((name, ".5f") for name in ("mean_kld", "low", "high"))]  # fmt: skip
    parts = [f"{row['model']} {row['level']}: {row['mean_kld']:.5f} at {row['bits_per_weight']:.2f}" for row in rows]
    return Chart(
        "divergence", "Divergence from the reference against bits per weight",
        f"Mean KL divergence in nats from each model's reference. {'; '.join(parts)}.",
        _layered([plot.points(tooltip), *plot.labels()]), rows,
    )  # fmt: skip


def _task_rows(points: Sequence[PointSummary]) -> list[dict[str, Any]]:
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


def _level_order(points: Sequence[PointSummary]) -> list[str]:
    return [point.label for point in sorted(points, key=lambda point: -point.bits_per_weight)]


def _ladder(model: str, points: Sequence[PointSummary]) -> Chart | None:
    import altair as alt

    rows = _task_rows(points)
    if len(points) < 2 or not rows:
        return None
    names = list(dict.fromkeys(row["task"] for row in rows))
    legend = alt.Legend(orient="top", title=None, columns=2) if len(names) <= _SHOWN_TASKS else None
    picked = alt.selection_point(fields=["task"], on="pointerover", empty=True)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("level:N", sort=_level_order(points), title=None, axis=alt.Axis(labelAngle=-40)),
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
    import altair as alt

    rows = [row for row in _task_rows(points) if row["difference"] is not None]
    if not rows:
        return None
    names = list(dict.fromkeys(row["task"] for row in rows))
    largest = max(2.0, *(abs(row["difference"]) for row in rows))
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("level:N", sort=_level_order(points), title=None, axis=alt.Axis(labelAngle=-40)),
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
    made = (base.mark_rect().encode(color=colour) + text).properties(height=22 * len(names))
    return Chart(
        f"heat-{model}", f"Difference from the reference by task: {model}",
        f"Each cell is a level's score minus the reference's on the same items of a task, in points, for {model}.",
        _spec(made, height=None), rows,
    )  # fmt: skip


def _alt(what: str, rows: Sequence[dict[str, Any]], key: str, unit: str) -> str:
    parts = [f"{row['model']} {row['level']}: {row[key]:.1f} {unit} at {row['memory_gb']:.2f} GB" for row in rows]
    return f"{what}. {'; '.join(parts)}."


def _layered(layers: Sequence[Any]) -> dict[str, Any]:
    import altair as alt

    return _spec(alt.layer(*layers))


def _spec(chart: Any, height: int | None = HEIGHT) -> dict[str, Any]:
    sized = chart.properties(width="container")
    if height is not None:
        sized = sized.properties(height=height)
    spec: dict[str, Any] = sized.to_dict(validate=True)
    spec.pop("config", None)
    return spec
