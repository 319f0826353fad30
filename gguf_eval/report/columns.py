"""The columns of the main table: one list, which the terminal, Markdown, the page, flat rows and JSON go through.

To add a figure is to add one entry to `all_columns`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

from gguf_eval.analysis.basis import ALL
from gguf_eval.analysis.costs import is_generation
from gguf_eval.analysis.divergence import Figure, TextSummary
from gguf_eval.analysis.marks import score
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import Energy, PointSummary, SpeedSummary, StudySummary
from gguf_eval.report import words

Found = TypeVar("Found")
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


def _itself(value: Any) -> Any:
    return value


def _none(_: Any) -> str:
    return ""


def _nothing(_: PointSummary) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Column(Generic[Found]):
    """One column of the main table, and what flat rows and JSON have of it."""

    key: str
    """What ``--columns`` calls it."""
    header: str
    find: Callable[[PointSummary], Found | None]
    """The raw value; None where nothing is known."""
    text: Callable[[Found], str]
    number: Callable[[Found], float] = _itself
    """What it sorts by."""
    small: Callable[[Found], str] = _none
    """Its interval or deviation."""
    verdict: Callable[[Found], str] = _none
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

    def cell(self, point: PointSummary) -> Cell:
        """What is shown of a point."""
        found = self.find(point)
        if found is None:
            return Cell()
        return Cell(self.text(found), self.small(found), self.number(found), self.verdict(found))


LEVEL: Column[str] = Column("level", "level", lambda p: p.label, str, lambda _: 0.0, to_left=True)
"""The head of each row, which every renderer marks in its own way."""


def all_columns(study: StudySummary, points: Sequence[PointSummary]) -> list[Column[Any]]:
    """Every column there is for these points, in the order shown."""
    names = [name for name in study.task_names if any(name in point.tasks for point in points)]
    several = len(names) > 1
    return [
        LEVEL,
        Column(
            "bpw", "bpw", lambda p: p.bits_per_weight if p.parameters else None, "{:.2f}".format, leaves=60,
            row=lambda p: {"bits_per_weight": p.bits_per_weight if p.parameters else None},
        ),
        Column(
            "file", "file", lambda p: p.size_bytes or None, words.size, best=min, leaves=50,
            row=lambda p: {"size_bytes": p.size_bytes or None},
        ),
        Column(
            "memory", "peak RAM", lambda p: p.peak_rss_bytes or None, words.size, best=min, leaves=95, optional=True,
            row=lambda p: {"peak_rss_bytes": p.peak_rss_bytes},
            document=lambda p: {
                "memory": {"peak_rss_bytes": p.peak_rss_bytes, "method": p.memory_methods.get("peak_rss")}
            },
        ),
        Column(
            "devices", "on devices", _on_devices, words.size, kind="memory", leaves=95, optional=True, row=_placing,
            document=lambda p: {"placing": asdict(p.placing) if p.placing else None},
        ),
        *(_speed(test) for test in dict.fromkeys(test for point in points for test in point.speed)),
        *_energies(points),
        replace(_estimate("score", score, leaves=90), hidden=not several, row=_score_row, document=_nothing),
        *(_task(name, several) for name in names),
        *text_columns(points),
        _against(points),
    ]  # fmt: skip


def _on_devices(point: PointSummary) -> int | None:
    return sum(point.placing.device_bytes.values()) or None if point.placing else None


def _placing(point: PointSummary) -> Mapping[str, Any]:
    placing = point.placing
    return {
        "layers_on_devices": placing.layers if placing else None,
        "device_bytes": sum(placing.device_bytes.values()) if placing else None,
        "speed_context": placing.context if placing else None,
    }


def _speed(test: str) -> Column[SpeedSummary]:
    def figures(point: PointSummary) -> dict[str, Any]:
        found = point.speed.get(test)
        names = ("tokens_per_second", "stdev", "repetitions")
        return {name: getattr(found, name) for name in names} if found else {}

    return Column(
        test, test, lambda p: p.speed.get(test), lambda s: words.rate(s.tokens_per_second),
        lambda s: s.tokens_per_second, words.deviation, best=max, kind="tg" if is_generation(test) else "pp",
        leaves=70 if is_generation(test) else 40, beside="{}",
        row=lambda p: {f"{test}_{name}": value for name, value in figures(p).items()},
        document=lambda p: {"speed": {test: figures(p)} if test in p.speed else {}},
    )  # fmt: skip


def _energies(points: Sequence[PointSummary]) -> list[Column[Energy]]:
    """Of generation; figures of other counters don't stand beside each other."""
    energies = [(test, s.energy) for p in points for test, s in p.speed.items() if s.energy and is_generation(test)]
    kinds = list(dict.fromkeys((test, energy.sources) for test, energy in energies))
    return [_energy(test, sources, len(kinds) > 1) for test, sources in kinds]


def _energy(test: str, sources: tuple[str, ...], several: bool) -> Column[Energy]:
    def find(point: PointSummary) -> Energy | None:
        found = point.speed[test].energy if test in point.speed else None
        return found if found and found.sources == sources else None

    counters = " + ".join(sources)
    header = f"J/token {test} {counters}" if several else "J/token"

    def row(point: PointSummary) -> dict[str, Any]:
        found = find(point)
        if found is None:
            return {}
        return {f"{test}_joules_per_token": found.joules_per_token, f"{test}_joules_stdev": found.stdev,
                f"{test}_joules_repetitions": found.repetitions, f"{test}_joules_sources": counters}  # fmt: skip

    return Column(
        header.replace("J/token", "energy"), header, find, lambda e: _joules(e)[0],
        lambda e: e.joules_per_token, lambda e: _joules(e)[1], best=min, kind="energy",
        leaves=30, beside="{}", row=row,
        note=f"{header}: joules for each token of {test}, mean ± deviation, of all that {counters} counts.",
    )  # fmt: skip


def _joules(energy: Energy) -> tuple[str, str]:
    """For a token, to three figures; and their deviation as exactly."""
    digits = max(0, 2 - math.floor(math.log10(energy.joules_per_token)))
    spread = "n=1" if energy.stdev is None else f"±{energy.stdev:.{digits}f}"
    return f"{energy.joules_per_token:,.{digits}f}", spread


def _estimate(name: str, find: Callable[[PointSummary], Estimate | None], leaves: int) -> Column[Estimate]:
    return Column(
        name, name, find, lambda e: words.percent(e.value), lambda e: e.value, words.interval, best=max, leaves=leaves
    )


def _task(name: str, several: bool) -> Column[Estimate]:
    column = _estimate(
        name, lambda p: p.tasks[name].estimate if name in p.tasks else None, leaves=10 if several else 90
    )
    return replace(column, kind=TASKS if several else "score")


def _score_row(point: PointSummary) -> Mapping[str, Any]:
    """The mean over the tasks that the model's points share, and over those that all models share."""
    estimate, joint = score(point), point.joint_score
    if estimate is None:
        return {}
    return {"score": estimate.value, "score_low": estimate.low, "score_high": estimate.high, "score_n": estimate.n,
            "score_method": estimate.method, "score_tasks": len(point.averages[ALL].tasks),
            "joint_score": joint.value if joint else None}  # fmt: skip


def text_columns(points: Sequence[PointSummary]) -> list[Column[Figure]]:
    """Perplexity and divergence on each text; named by the text where there are several."""
    texts: dict[str, TextSummary] = {}
    for point in points:
        for text in point.texts:
            texts.setdefault(text.text, text)
    suffixes = {name: f" {name}" if len(texts) > 1 else "" for name in texts}
    return [column for name, like in texts.items() for column in _over_text(like, suffixes[name])]


def _over_text(like: TextSummary, suffix: str) -> list[Column[Figure]]:
    """``like``: as the model's first point was run over it; figures over other windows don't stand beside it."""

    def alike(point: PointSummary) -> TextSummary | None:
        return next((text for text in point.texts if text.same_windows(like)), None)

    def divergence(point: PointSummary) -> Figure | None:
        found = alike(point)
        return found.divergence.mean if found and found.divergence else None

    def row(point: PointSummary) -> Mapping[str, Any]:
        return {key: value for text in point.texts if text.text == like.text for key, value in _text_row(text).items()}

    return [
        Column(
            f"ppl{suffix}", f"PPL{suffix}", lambda p: found.perplexity if (found := alike(p)) else None,
            lambda f: words.perplexity(f)[0], lambda f: f.value, lambda f: words.perplexity(f)[1], kind="ppl",
            leaves=20, row=row, document=_nothing,
        ),
        Column(
            f"kld{suffix}", f"KLD{suffix}", divergence, lambda f: words.divergence(f)[0], lambda f: f.value,
            lambda f: words.divergence(f)[1], kind="kld", leaves=80, optional=True,
        ),
    ]  # fmt: skip


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


def _against(points: Sequence[PointSummary]) -> Column[PointSummary]:
    """The difference over all tasks from the reference, which the header names."""
    compared = any(point.overall for point in points)
    reference = next((point.label for point in points if point.is_reference), "")

    def of_overall(show: Callable[[Estimate], str]) -> Callable[[PointSummary], str]:
        return lambda p: show(p.overall.difference) if p.overall else ""

    return Column(
        "against", f"against {reference}", lambda p: p if p.overall or (compared and p.is_reference) else None,
        of_overall(lambda e: words.signed_points(e.value)), lambda p: p.overall.difference.value if p.overall else 0.0,
        of_overall(words.difference_interval), lambda p: p.overall.verdict if p.overall else "reference",
        to_left=True, optional=True,
    )  # fmt: skip
