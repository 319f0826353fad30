"""What a point costs on its machine: speeds, memory beside its prediction, energy, and how steady the machine was."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf_eval.analysis.models import by_model, grouped
from gguf_eval.store.records import PointRecord, SpeedRecord

_STEADY = 0.05
"""Relative deviation, and difference of the anchor, up to which a machine counts as quiet."""
_OUTLIER = 1.25
"""A repetition that took so many times the median is named."""
_OTHERS = 0.1
"""Share of the processor that others may use unmentioned."""
_SLOWED = 0.9
"""Share of its first clock that the processor keeps unmentioned."""
_NAMED = 4
"""Noisy points that a report names."""


@dataclass(frozen=True)
class Placing:
    """Where the layers of a point were while its speed and memory were measured."""

    layers: int
    """On devices, the output counted as one."""
    layer_count: int
    context: int
    """Tokens."""
    reduced: bool
    """Whether that is less than was asked for."""
    device_bytes: dict[str, int]
    """What llama.cpp allocated on each device: weights, KV cache and compute buffers."""
    predicted_device_bytes: dict[str, int]
    """The same from the file's header alone."""
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class PointCost:
    """One point."""

    point: PointRecord
    placing: Placing | None
    warnings: tuple[str, ...]

    @property
    def measured_bytes(self) -> int | None:
        """Peak resident memory that loading and running the model added to the program's own."""
        peak, before = (self.point.memory.get(kind) for kind in ("peak_rss", "rss_before_load"))
        return peak - before if peak is not None and before is not None else None

    @property
    def predicted_bytes(self) -> int | None:
        """The same from the file's header alone; None where layers are on devices."""
        details = self.point.details
        return None if details.get("layers") else details.get("predicted", {}).get("resident_bytes")

    @property
    def prediction_error(self) -> float | None:
        """Predicted over measured, less one."""
        return self.predicted_bytes / self.measured_bytes - 1 if self.predicted_bytes and self.measured_bytes else None


def point_cost(point: PointRecord) -> PointCost:
    """Sum up a point's newest measurement."""
    return PointCost(point, placing(point), tuple(noise_of(point)))


def is_generation(test: str) -> bool:
    """Whether a speed test is of generation; the others are of prompts."""
    return test.startswith("tg")


def placing(point: PointRecord) -> Placing | None:
    """Where the layers were in a point's newest measurement; None where it was not measured."""
    if point.measurement is None or "device_memory" not in point.measurement.details:
        return None
    details = point.measurement.details
    on_devices: dict[str, int] = {}
    for device in details["devices"]:
        there = re.compile(re.escape(device["name"]) + r"(?!\d)")  # CUDA0_Split too, but not CUDA01
        found = sum(buffer["size_bytes"] for buffer in details["buffers"] if there.match(buffer["place"]))
        if found:
            on_devices[device["name"]] = found
    return Placing(
        layers=details["layers"],
        layer_count=details["layer_count"],
        context=details["context"],
        reduced=details["context"] < point.measurement.conditions["n_ctx"],
        device_bytes=on_devices,
        predicted_device_bytes=details["predicted"]["device_bytes"],
        reasons=tuple(details["reasons"]),
    )


def context_warnings(points: Sequence[PointRecord]) -> list[str]:
    """One line where speed and memory of a model's points were measured with different contexts."""
    warnings = []
    for model, members in by_model(points).items():
        labels = grouped((found.context, point.label) for point in members if (found := placing(point)))
        if len(labels) > 1:
            parts = "; ".join(f"{', '.join(names)}: {context}" for context, names in labels.items())
            warnings.append(f"speed and memory of {model} were not measured with one context: {parts} tokens")
    return warnings


def joules_per_token(record: SpeedRecord) -> dict[str, float]:
    """Mean over the repetitions by source; empty where nothing counts energy."""
    tokens = max(1, record.tokens)
    joules = grouped((source, spent / tokens) for one in record.joules for source, spent in one.items())
    return {source: statistics.fmean(values) for source, values in joules.items()}


def noise_of(point: PointRecord) -> list[str]:
    """What says that the machine was not quiet while the point was timed."""
    return [*speed_warnings(point.speed), *state_warnings(point.details.get("states", ()))]


def noise_warnings(points: Sequence[PointRecord]) -> list[str]:
    """One line that names the points whose times a busy machine has moved, each with the first sign of it."""
    noisy = []
    for point in points:
        if found := noise_of(point):
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            noisy.append(f"{point.name} ({found[0]}{more})")
    if not noisy:
        return []
    others = f"; and {len(noisy) - _NAMED} more points" if len(noisy) > _NAMED else ""
    return [f"the machine was not quiet while speed was measured: {'; '.join(noisy[:_NAMED])}{others}"]


def speed_warnings(records: Sequence[SpeedRecord]) -> list[str]:
    """What in the repetitions themselves says that the machine was not quiet."""
    warnings = []
    for record in records:
        middle = statistics.median(record.seconds)
        if len(record.seconds) > 1:
            spread = statistics.stdev(record.seconds) / statistics.fmean(record.seconds)
            if spread > _STEADY:
                warnings.append(f"{record.test}: the repetitions deviate by {spread * 100:.0f} % from their mean")
        slow = [seconds for seconds in record.seconds if seconds > _OUTLIER * middle]
        if slow:
            warnings.append(
                f"{record.test}: {len(slow)} of {len(record.seconds)} repetitions took up to "
                f"{max(slow) / middle:.1f} times the median"
            )
        if record.anchor_seconds:
            drift = record.anchor_seconds / middle - 1
            if abs(drift) > _STEADY:
                changed = "longer" if drift > 0 else "less"
                warnings.append(f"{record.test}: once more at the end it took {abs(drift) * 100:.0f} % {changed}")
    return warnings


def state_warnings(states: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the states of the machine before and after say: others at work, a falling clock, a battery."""
    if len(states) < 2:
        return []
    first, last = states[0], states[-1]
    warnings = []
    seconds = last["at_seconds"] - first["at_seconds"]
    others = (last["busy_seconds"] - first["busy_seconds"]) - (last["own_seconds"] - first["own_seconds"])
    if seconds > 0 and others / seconds > _OTHERS:
        warnings.append(f"other programs kept {others / seconds:.1f} processors busy meanwhile")
    if "cpu_mhz" in first and "cpu_mhz" in last and last["cpu_mhz"] < _SLOWED * first["cpu_mhz"]:
        warnings.append(f"the processor's clock fell from {first['cpu_mhz']} to {last['cpu_mhz']} MHz")
    if str(last.get("power", "")).startswith("battery"):
        warnings.append(f"on {last['power']}: many machines compute slower without mains")
    return warnings
