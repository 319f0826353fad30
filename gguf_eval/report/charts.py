"""The charts, as Vega-Lite specifications made with Altair, each with its alternative text and its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gguf_eval.analysis.marks import Marks, find_marks, generation_rate, score
from gguf_eval.analysis.summary import PointSummary, StudySummary
from gguf_eval.errors import UsageError
from gguf_eval.report.escape import printable

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


def charts(study: StudySummary) -> list[Chart]:
    """Every chart the study has figures for; raises `UsageError` where Altair is not installed."""
    try:
        import altair  # noqa: F401
    except ImportError:
        raise UsageError(MISSING_EXTRA) from None
    study = printable(study)
    marks = find_marks(study)
    made = [_quality(study, marks), _speed(study, marks), _divergence(study)]
    for model in dict.fromkeys(point.model for point in study.points):
        points = [point for point in study.points if point.model == model and point.tasks]
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
    made = {chart.name: chart for chart in charts(study)}
    if only not in made:
        raise UsageError(
            f"--chart: no chart '{only}' can be drawn of this study; there are: {', '.join(made) or 'none'}"
        )
    spec = {**made[only].spec, "width": 640, "background": "white", "title": made[only].title}
    if kind == "svg":
        folder_or_file.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
    else:
        folder_or_file.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))


def _tradeoff_rows(study: StudySummary, marks: Marks) -> list[dict[str, Any]]:
    rows = []
    for point in study.points:
        memory, estimate, rate = point.peak_rss_bytes or point.size_bytes, score(point), generation_rate(point)
        if not memory or point.status == "failed":
            continue
        rows.append({
            "model": point.model, "level": point.label, "memory_gb": memory / 1e9,
            "score": estimate.value * 100 if estimate else None,
            "low": estimate.low * 100 if estimate else None, "high": estimate.high * 100 if estimate else None,
            "tokens_per_second": rate, "pareto": "on the front" if point.id in marks.front else "dominated",
        })  # fmt: skip
    return rows


def _quality(study: StudySummary, marks: Marks) -> Chart | None:
    import altair as alt

    rows = [row for row in _tradeoff_rows(study, marks) if row["score"] is not None]
    if not rows:
        return None
    base = _tradeoff_base(rows)
    y = alt.Y("score:Q", title="score, %", scale=alt.Scale(zero=False))
    bars = base.mark_rule(opacity=0.5).encode(
        y=alt.Y("low:Q", title="score, %", scale=alt.Scale(zero=False)), y2="high:Q"
    )
    front = (
        alt.Chart(alt.InlineData(values=[row for row in rows if row["pareto"] == "on the front"]))
        .mark_line(strokeDash=[4, 3], opacity=0.6, color="#888", interpolate="step-after")
        .encode(x=_memory_axis(rows), y=y)
    )
    layers = front + bars + _points(base, y) + _labels(base, y)
    return Chart(
        "quality", "Score against memory", _alt("Score with 95 % interval against memory", rows, "score", "%"),
        _spec(layers.interactive()), rows,
    )  # fmt: skip


def _speed(study: StudySummary, marks: Marks) -> Chart | None:
    import altair as alt

    rows = [row for row in _tradeoff_rows(study, marks) if row["tokens_per_second"] is not None]
    if not rows:
        return None
    base = _tradeoff_base(rows)
    y = alt.Y("tokens_per_second:Q", title="generation, tokens/s", scale=alt.Scale(zero=False))
    layers = _points(base, y) + _labels(base, y)
    return Chart(
        "speed", "Generation speed against memory",
        _alt("Tokens a second against memory", rows, "tokens_per_second", "tokens/s"), _spec(layers.interactive()),
        rows,
    )  # fmt: skip


def _divergence(study: StudySummary) -> Chart | None:
    import altair as alt

    rows: list[dict[str, Any]] = [
        {"model": point.model, "level": point.label, "bits_per_weight": point.bits_per_weight, "text": text.text,
         "mean_kld": text.divergence.mean.value, "low": text.divergence.mean.low, "high": text.divergence.mean.high}
        for point in study.points for text in point.texts[:1] if text.divergence is not None
    ]  # fmt: skip
    if not rows:
        return None
    models = list(dict.fromkeys(row["model"] for row in rows))
    legend = alt.Legend(orient="top", title=None, columns=2) if len(models) > 1 else None
    scale = (
        alt.Scale(type="log", nice=False, padding=20)
        if all(row["mean_kld"] > 0 for row in rows)
        else alt.Scale(zero=True)
    )
    y = alt.Y("mean_kld:Q", title="mean KL divergence, nats", scale=scale)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("bits_per_weight:Q", title="bits per weight", scale=alt.Scale(zero=False, padding=20)),
        color=alt.Color("model:N", sort=models, legend=legend, scale=alt.Scale(range=_COLOURS)),
        tooltip=["model:N", "level:N", "text:N", alt.Tooltip("bits_per_weight:Q", format=".2f"),
                 *(alt.Tooltip(f"{name}:Q", format=".5f") for name in ("mean_kld", "low", "high"))],
    )  # fmt: skip
    layers = base.mark_point(filled=True, size=110, opacity=1).encode(y=y)
    layers += base.mark_text(dy=-13, fontSize=11).encode(y=y, text="level:N")
    parts = [f"{row['model']} {row['level']}: {row['mean_kld']:.5f} at {row['bits_per_weight']:.2f}" for row in rows]
    return Chart(
        "divergence", "Divergence from the reference against bits per weight",
        f"Mean KL divergence in nats from each model's reference. {'; '.join(parts)}.", _spec(layers.interactive()),
        rows,
    )  # fmt: skip


def _memory_axis(rows: Sequence[dict[str, Any]]) -> Any:
    import altair as alt

    memory = [row["memory_gb"] for row in rows]
    logarithmic = max(memory) > 4 * min(memory)
    scale = alt.Scale(type="log", nice=False, padding=20) if logarithmic else alt.Scale(zero=False, padding=20)
    axis = alt.Axis(format="~g", tickCount=5, labelOverlap=True)
    return alt.X("memory_gb:Q", title="memory, GB", scale=scale, axis=axis)


def _tradeoff_base(rows: list[dict[str, Any]]) -> Any:
    import altair as alt

    models = list(dict.fromkeys(row["model"] for row in rows))
    legend = alt.Legend(orient="top", title=None, columns=2) if len(models) > 1 else None
    tooltip = [
        alt.Tooltip("model:N"), alt.Tooltip("level:N"), alt.Tooltip("memory_gb:Q", format=".2f", title="memory, GB"),
        alt.Tooltip("score:Q", format=".1f", title="score, %"), alt.Tooltip("low:Q", format=".1f"),
        alt.Tooltip("high:Q", format=".1f"), alt.Tooltip("tokens_per_second:Q", format=".1f", title="tokens/s"),
        alt.Tooltip("pareto:N"),
    ]  # fmt: skip
    return alt.Chart(alt.InlineData(values=rows)).encode(
        x=_memory_axis(rows),
        color=alt.Color("model:N", sort=models, legend=legend, scale=alt.Scale(range=_COLOURS)),
        tooltip=tooltip,
    )


_COLOURS = ["#2f6fde", "#d9662b", "#2a9d6e", "#a14fc4", "#c23b5a", "#7a7a2a"]
"""Told apart by people who see no red or green, and on white as on black."""


def _points(base: Any, y: Any) -> Any:
    import altair as alt

    shape = alt.Shape(
        "pareto:N", legend=None,
        scale=alt.Scale(domain=["on the front", "dominated"], range=["diamond", "circle"]),
    )  # fmt: skip
    return base.mark_point(filled=True, size=110, opacity=1).encode(y=y, shape=shape)


def _labels(base: Any, y: Any) -> Any:
    """The names of the points on the front; the tooltip names the others, which would lie on one another."""
    import altair as alt

    front = base.transform_filter(alt.datum.pareto == "on the front")
    return front.mark_text(dy=-13, fontSize=11).encode(y=y, text="level:N")


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
    y = alt.Y("score:Q", title="score, %", scale=alt.Scale(zero=False))
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
    text = base.mark_text(fontSize=11).encode(
        text=alt.Text("difference:Q", format="+.1f"), color=alt.condition(strong, alt.value("white"), alt.value("#222"))
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


def _spec(chart: Any, height: int | None = 320) -> dict[str, Any]:
    sized = chart.properties(width="container")
    if height is not None:
        sized = sized.properties(height=height)
    spec: dict[str, Any] = sized.to_dict(validate=True)
    spec.pop("config", None)
    return spec
