"""Shows a conversion: its plan and result as text or JSON, its progress as a bar in bytes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gguf_eval.files.convert.plan import ConversionPlan
    from gguf_eval.files.convert.write import Conversion


def format_plan(plan: ConversionPlan) -> str:
    """Return one line for each tensor (name, shape in ggml's order, type, bytes) and a line of totals."""
    rows = [(t.name, " x ".join(map(str, reversed(t.shape))), t.type_name, f"{t.size_bytes:,}") for t in plan.tensors]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{name:<{widths[0]}}  {shape:>{widths[1]}}  {kind:<{widths[2]}}  {size:>{widths[3]}}"
        for name, shape, kind, size in rows
    ]
    kinds: dict[str, int] = {}
    for tensor in plan.tensors:
        kinds[tensor.type_name] = kinds.get(tensor.type_name, 0) + 1
    mix = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    totals = f"{plan.name}: {len(plan.tensors)} tensors ({mix}), {plan.parameters:,} weights, {plan.size_bytes:,} bytes"
    return "\n".join([*lines, totals])


def plan_json(plan: ConversionPlan) -> str:
    """Return the plan as one JSON document."""
    tensors = [
        {"name": t.name, "shape": list(reversed(t.shape)), "type": t.type_name, "size_bytes": t.size_bytes}
        for t in plan.tensors
    ]
    return _dump(
        name=plan.name,
        out_type=plan.out_type,
        parameters=plan.parameters,
        size_bytes=plan.size_bytes,
        tensors=tensors,
        warnings=list(plan.warnings),
    )


def format_conversion(conversion: Conversion) -> str:
    """Return one line: path, type, tensors, bytes."""
    return f"{conversion.path}: {conversion.out_type}, {conversion.tensors} tensors, {conversion.size_bytes:,} bytes"


def conversion_json(conversion: Conversion) -> str:
    """Return what was written as one JSON document."""
    return _dump(
        path=str(conversion.path),
        out_type=conversion.out_type,
        tensors=conversion.tensors,
        size_bytes=conversion.size_bytes,
        warnings=list(conversion.warnings),
    )


def _dump(**values: Any) -> str:
    return json.dumps(values, ensure_ascii=False, indent=2)


@contextmanager
def byte_progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on stderr while in use; yields the function to call with bytes done and in all.

    Yields None where stderr is not a terminal, so that logs stay plain.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
