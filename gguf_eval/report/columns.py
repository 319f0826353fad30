"""The columns of the main table: one list, which the terminal, Markdown, the page, flat rows and JSON go through.

To add a figure is to add one entry to `all_columns`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gguf_eval.analysis.basis import ALL
from gguf_eval.analysis.costs import is_generation
from gguf_eval.analysis.divergence import TextSummary
from gguf_eval.analysis.marks import score
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import Energy, PointSummary, StudySummary
from gguf_eval.report import words

STAYS = 99
TASKS = "tasks"
"""The kind of the columns of single tasks, where there are several."""


@dataclass(frozen=True)
class Cell:
    """What a table shows of one figure of one point."""

    text: str = words.MISSING
    small: str = ""
    """Its interval or deviation."""
    number: float | None = None
    """What it sorts by; None where nothing is known."""
    verdict: str = ""
    best: bool = False


def _nothing(_: PointSummary) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Column:
    """One column of the main table, and what flat rows and JSON have of it."""

    key: str
    """What ``--columns`` calls it."""
    header: str
    find: Callable[[PointSummary], Cell | None]
    """What is shown of a point; None where nothing is known."""
    best: Callable[[Iterable[float]], float] | None = None
    """``min`` or ``max`` where the best of a model is marked."""
    kind: str = ""
    """What ``--columns`` calls it together with others."""
    leaves: int = STAYS
    """The columns of the least number go first where the terminal is narrow."""
    beside: str = "({})"
    """How ``small`` is written in the line of the value."""
    to_left: bool = False
    optional: bool = False
    """Whether it is left out where nothing is known of any point."""
    hidden: bool = False
    """Whether only flat rows and JSON have it."""
    row: Callable[[PointSummary], Mapping[str, Any]] = _nothing
    """Its figures in a flat row."""
    document: Callable[[PointSummary], Mapping[str, Any]] | None = None
    """Its figures in a point of the JSON document; None: the same."""
    note: str = ""
    """A sentence under the table."""


LEVEL = Column("level", "level", lambda p: Cell(p.label, number=0.0), to_left=True)
"""The head of each row, which every renderer marks in its own way."""


def all_columns(study: StudySummary, points: Sequence[PointSummary]) -> list[Column]:
    """Every column there is for these points, in the order shown."""
    names = [name for name in study.task_names if any(name in point.tasks for point in points)]
    several = len(names) > 1
    return [
        LEVEL,
        Column(
            "bpw", "bpw",
            lambda p: Cell(f"{p.bits_per_weight:.2f}", number=p.bits_per_weight) if p.parameters else None, leaves=60,
            row=lambda p: {"bits_per_weight": p.bits_per_weight if p.parameters else None},
        ),
        Column(
            "file", "file", lambda p: _size(p.size_bytes), min, leaves=50,
            row=lambda p: {"size_bytes": p.size_bytes or None},
        ),
        Column(
            "memory", "peak RAM", lambda p: _size(p.peak_rss_bytes), min, leaves=95, optional=True,
            row=lambda p: {"peak_rss_bytes": p.peak_rss_bytes},
            document=lambda p: {
                "memory": {"peak_rss_bytes": p.peak_rss_bytes, "method": p.memory_methods.get("peak_rss")}
            },
        ),
        Column(
            "devices", "on devices", lambda p: _size(_placing(p)["device_bytes"]), kind="memory", leaves=95,
            optional=True, row=_placing, document=lambda p: {"placing": asdict(p.placing) if p.placing else None},
        ),
        *(_speed(test) for test in dict.fromkeys(test for point in points for test in point.speed)),
        *_energies(points),
        Column(
            "score", "score", lambda p: estimate_cell(score(p)), max, leaves=90, hidden=not several, row=_score_row,
            document=_nothing,
        ),
        *(_task(name, several) for name in names),
        *text_columns(points),
        _against(points),
    ]  # fmt: skip


def estimate_cell(found: Estimate | None, verdict: str = "") -> Cell | None:
    """A mean share."""
    return Cell(words.percent(found.value), words.interval(found), found.value, verdict) if found else None


def _size(count: int | None) -> Cell | None:
    return Cell(words.size(count), number=count) if count else None


def _placing(point: PointSummary) -> Mapping[str, Any]:
    placing = point.placing
    return {
        "layers_on_devices": placing.layers if placing else None,
        "device_bytes": sum(placing.device_bytes.values()) if placing else None,
        "speed_context": placing.context if placing else None,
    }


def _speed(test: str) -> Column:
    def find(point: PointSummary) -> Cell | None:
        if (found := point.speed.get(test)) is None:
            return None
        return Cell(words.rate(found.tokens_per_second), words.deviation(found), found.tokens_per_second)

    def figures(point: PointSummary) -> dict[str, Any]:
        found = point.speed.get(test)
        names = ("tokens_per_second", "stdev", "repetitions")
        return {name: getattr(found, name) for name in names} if found else {}

    generates = is_generation(test)
    return Column(
        test, test, find, max, kind="tg" if generates else "pp", leaves=70 if generates else 40, beside="{}",
        row=lambda p: {f"{test}_{name}": value for name, value in figures(p).items()},
        document=lambda p: {"speed": {test: figures(p)} if test in p.speed else {}},
    )  # fmt: skip


def _energies(points: Sequence[PointSummary]) -> list[Column]:
    """Of generation; figures of other counters don't stand beside each other."""
    energies = [(test, s.energy) for p in points for test, s in p.speed.items() if s.energy and is_generation(test)]
    kinds = list(dict.fromkeys((test, energy.sources) for test, energy in energies))
    return [_energy(test, sources, len(kinds) > 1) for test, sources in kinds]


def _energy(test: str, sources: tuple[str, ...], several: bool) -> Column:
    def energy(point: PointSummary) -> Energy | None:
        found = point.speed[test].energy if test in point.speed else None
        return found if found and found.sources == sources else None

    counters = " + ".join(sources)
    header = f"J/token {test} {counters}" if several else "J/token"

    def row(point: PointSummary) -> dict[str, Any]:
        found = energy(point)
        if found is None:
            return {}
        return {f"{test}_joules_per_token": found.joules_per_token, f"{test}_joules_stdev": found.stdev,
                f"{test}_joules_repetitions": found.repetitions, f"{test}_joules_sources": counters}  # fmt: skip

    return Column(
        header.replace("J/token", "energy"), header, lambda p: _joules(energy(p)), min, kind="energy", leaves=30,
        beside="{}", row=row,
        note=f"{header}: joules for each token of {test}, mean ± deviation, of all that {counters} counts.",
    )  # fmt: skip


def _joules(energy: Energy | None) -> Cell | None:
    """For a token, to three figures; and their deviation as exactly."""
    if energy is None:
        return None
    digits = max(0, 2 - math.floor(math.log10(energy.joules_per_token)))
    spread = "n=1" if energy.stdev is None else f"±{energy.stdev:.{digits}f}"
    return Cell(f"{energy.joules_per_token:,.{digits}f}", spread, energy.joules_per_token)


def _task(name: str, several: bool) -> Column:
    return Column(
        name, name, lambda p: estimate_cell(p.tasks[name].estimate) if name in p.tasks else None, max,
        kind=TASKS if several else "score", leaves=10 if several else 90,
    )  # fmt: skip


def _score_row(point: PointSummary) -> Mapping[str, Any]:
    """The mean over the tasks that the model's points share, and over those that all models share."""
    estimate, joint = score(point), point.joint_score
    if estimate is None:
        return {}
    return {"score": estimate.value, "score_low": estimate.low, "score_high": estimate.high, "score_n": estimate.n,
            "score_method": estimate.method, "score_tasks": len(point.averages[ALL].tasks),
            "joint_score": joint.value if joint else None}  # fmt: skip


def text_columns(points: Sequence[PointSummary]) -> list[Column]:
    """Perplexity and divergence on each text; named by the text where there are several."""
    texts: dict[str, TextSummary] = {}
    for text in (text for point in points for text in point.texts):
        texts.setdefault(text.text, text)
    return [column for name, like in texts.items() for column in _over_text(like, f" {name}" if len(texts) > 1 else "")]


def _over_text(like: TextSummary, suffix: str) -> list[Column]:
    """``like``: as the model's first point was run over it; figures over other windows don't stand beside it."""

    def alike(point: PointSummary) -> list[TextSummary]:
        return [text for text in point.texts if text.same_windows(like)][:1]

    def perplexity(point: PointSummary) -> Cell | None:
        found = [text.perplexity for text in alike(point)]
        return Cell(*words.perplexity(found[0]), found[0].value) if found else None

    def divergence(point: PointSummary) -> Cell | None:
        found = [text.divergence.mean for text in alike(point) if text.divergence]
        return Cell(*words.divergence(found[0]), found[0].value) if found else None

    def row(point: PointSummary) -> Mapping[str, Any]:
        return {key: value for text in point.texts if text.text == like.text for key, value in _text_row(text).items()}

    return [
        Column(f"ppl{suffix}", f"PPL{suffix}", perplexity, kind="ppl", leaves=20, row=row, document=_nothing),
        Column(f"kld{suffix}", f"KLD{suffix}", divergence, kind="kld", leaves=80, optional=True),
    ]


def _text_row(text: TextSummary) -> dict[str, Any]:
    """Perplexity and divergence on a text, named by it."""
    name, divergence = text.text, text.divergence
    figures = {"perplexity": text.perplexity, "bits_per_byte": text.bits_per_byte}
    if divergence is not None:
        figures |= {"perplexity_ratio": divergence.perplexity_ratio, "mean_kld": divergence.mean,
                    "same_top": divergence.same_top}  # fmt: skip
    row: dict[str, Any] = {}
    for key, figure in figures.items():
        row |= {f"{name}_{key}": figure.value, f"{name}_{key}_low": figure.low, f"{name}_{key}_high": figure.high}
    row |= {f"{name}_n_ctx": text.n_ctx, f"{name}_windows": text.windows, f"{name}_tokens": text.tokens,
            f"{name}_sha256": text.text_sha256, f"{name}_interval_method": text.interval_method}  # fmt: skip
    return row if divergence is None else {**row, f"{name}_kld_reference": divergence.reference}


def _against(points: Sequence[PointSummary]) -> Column:
    """The difference over all tasks from the reference, which the header names."""
    compared = any(point.overall for point in points)
    reference = next((point.label for point in points if point.is_reference), "")

    def find(point: PointSummary) -> Cell | None:
        if point.overall is None:
            return Cell("", number=0.0, verdict="reference") if compared and point.is_reference else None
        found = point.overall.difference
        shown = words.signed_points(found.value), words.difference_interval(found)
        return Cell(*shown, found.value, point.overall.verdict)

    return Column("against", f"against {reference}", find, to_left=True, optional=True)
