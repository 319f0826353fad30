"""A scatter of points in Vega-Lite: axes that end where the points do, and labels where nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from gguf_eval.report.axes import Axis, axis_over
from gguf_eval.report.label_places import ASLANT_FIRST, Layout, place_labels

HEIGHT = 320
"""Pixels."""
ON_FRONT, OFF_FRONT = "on the front", "dominated"
COLOURS = ("#2f6fde", "#d9662b", "#2a9d6e", "#a14fc4", "#c23b5a", "#7a7a2a")
"""Of models: told apart by people who see no red or green, and on white as on black."""
_TICKS = 8
_FONT_SIZE, _CHARACTER = 11, 6.9
_BESIDE, _ASLANT, _OVER = 10, 6, 4
Row = dict[str, Any]


class Scatter:
    """Layers that share the axes and the models' colours; a click on a model's name in the legend dims the others."""

    def __init__(
        self,
        rows: Sequence[Row],
        x: str,
        x_title: str,
        y: str,
        y_title: str,
        width: int,
        *,
        reach: Sequence[str] = (),
        logarithmic: Literal["x", "y"] = "x",
    ) -> None:
        """Draw ``rows`` (with ``model`` and ``level``) by the fields ``x`` and ``y``.

        ``reach`` names the fields of both ends of an interval. The axis named may be logarithmic.
        """
        self._rows, self._x, self._y, self._reach = rows, x, y, reach
        xs = [row[x] for row in rows]
        ys = [row[field] for row in rows for field in (y, *reach)]
        self._x_axis = axis_over(xs, 0.1, may_be_logarithmic=logarithmic == "x")
        self._y_axis = axis_over(ys, 0.1, may_be_logarithmic=logarithmic == "y")
        self._x_title, self._y_title, self._width = x_title, y_title, width
        self._models = list(dict.fromkeys(row["model"] for row in rows))
        self._picked = self._selection()

    def _selection(self) -> Any:
        import altair as alt

        return alt.selection_point(fields=["model"], bind="legend") if len(self._models) > 1 else None

    def _opacity(self, usual: float) -> Any:
        import altair as alt

        if self._picked is None:
            return alt.value(usual)
        return alt.condition(self._picked, alt.value(usual), alt.value(0.12))

    def _base(self, rows: Sequence[Row]) -> Any:
        import altair as alt

        return alt.Chart(alt.InlineData(values=list(rows))).encode(
            x=alt.X(f"{self._x}:Q", **_scaled(self._x_axis, self._x_title)),
            y=alt.Y(f"{self._y}:Q", **_scaled(self._y_axis, self._y_title)),
        )

    def _colour(self) -> Any:
        import altair as alt

        legend = alt.Legend(orient="top", title=None, columns=2, symbolOpacity=1) if len(self._models) > 1 else None
        return alt.Color("model:N", sort=self._models, legend=legend, scale=alt.Scale(range=list(COLOURS)))

    def points(self, tooltip: Sequence[tuple[str, str]]) -> Any:
        """The points; tooltip: fields with their format, which is empty for text."""
        import altair as alt

        shape: Any = alt.value("circle")
        if "pareto" in self._rows[0]:
            shape = alt.Shape(
                "pareto:N", legend=None, scale=alt.Scale(domain=[ON_FRONT, OFF_FRONT], range=["diamond", "circle"])
            )
        shown = [
            alt.Tooltip(f"{field}:Q", format=form, title=field.replace("_", " "))
            if form
            else alt.Tooltip(f"{field}:N", title=field)
            for field, form in tooltip
        ]
        marks = self._base(self._rows).mark_point(filled=True, size=110)
        made = marks.encode(color=self._colour(), shape=shape, tooltip=shown, opacity=self._opacity(1))
        return made if self._picked is None else made.add_params(self._picked)

    def reaches(self) -> Any:
        """The intervals, as lines through the points."""
        import altair as alt

        low, high = self._reach
        bars = self._base(self._rows).mark_rule().encode(y=alt.Y(f"{low}:Q", **_scaled(self._y_axis, self._y_title)))
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
            (self._x_axis.share(row[self._x]) * self._width, (1 - self._y_axis.share(row[self._y])) * HEIGHT)
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


def _scaled(axis: Axis, title: str) -> dict[str, Any]:
    import altair as alt

    kind: Literal["log", "linear"] = "log" if axis.logarithmic else "linear"
    ticks = alt.Axis(values=axis.ticks(_TICKS), format=".4~g", labelOverlap=True)
    return {"title": title, "axis": ticks, "scale": alt.Scale(type=kind, domain=[axis.low, axis.high], nice=False)}
