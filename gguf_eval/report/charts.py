"""The charts, as Vega-Lite specifications made with Altair, each with its alternative text and its data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from gguf_eval.analysis.summary import StudySummary
from gguf_eval.errors import UsageError
from gguf_eval.report.escape import printable

PAGE_PLOT_WIDTH = 290
"""Pixels that a plot has on a telephone."""
_IMAGE_PLOT_WIDTH = 640
_MISSING_EXTRA = (
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


def of_the_extra(module: str) -> Any:
    """A module that needs the ``report`` extra, which many do without; raises `UsageError` where it is not there."""
    try:
        return import_module(module)
    except ImportError:
        raise UsageError(_MISSING_EXTRA) from None


def charts(study: StudySummary, plot_width: int = PAGE_PLOT_WIDTH) -> list[Chart]:
    """Every chart the study has figures for, labels placed so that they fit a plot of this many pixels, or a wider one.

    Raises `UsageError` where Altair is not installed.
    """
    # Vega writes a specification's description over the alternative text of the element it draws in.
    made: list[Chart] = of_the_extra("gguf_eval.report.drawings").drawn(printable(study), plot_width)
    return [replace(chart, spec={**chart.spec, "description": chart.alt}) for chart in made]


def write_image(study: StudySummary, folder_or_file: Path, kind: Literal["svg", "png"], only: str = "quality") -> None:
    """Write one chart as an image for papers and slides."""
    vl_convert = of_the_extra("vl_convert")
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
