"""Comparisons of points, task by task, in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from gguf_eval.analysis.comparison import Comparison
from gguf_eval.analysis.intervals import FEW
from gguf_eval.analysis.versus import Versus
from gguf_eval.report import words
from gguf_eval.report.escape import printable
from gguf_eval.report.tables import VERDICT_STYLES, print_rows, print_warnings


def print_comparisons(found: Sequence[Versus], console: Console) -> None:
    """One table for each pair: tasks, then all items together, then the mean over tasks; at the end what all say."""
    found = printable(found)
    wide = not console.is_terminal
    for versus in found:
        console.print(Text(f"{versus.candidate} against {versus.reference}", style="bold"), soft_wrap=True)
        rows = [(entry.task, entry.comparison) for entry in versus.tasks if entry.refused is None]
        headers = ["task", "points", "95 % interval", "items", "flips", "p", "verdict", "needed"]
        print_rows(headers, [_comparison_row(*row) for row in (*rows, ("all items", versus.overall))], console)
        for line in _not_compared(versus):
            console.print(Text(line, style="dim"), soft_wrap=wide)
        macro = f"{words.signed_points(versus.macro.value)} points"
        interval = words.difference_interval(versus.macro)
        console.print(Text(f"Mean over tasks: {macro} (95 % interval {interval})."), soft_wrap=wide)
        _print_answers(versus, console)
        console.print()
    print_warnings(tuple(dict.fromkeys(line for versus in found for line in versus.warnings)), console)
    console.print(Text(_COMPARISON_NOTE, style="dim"), soft_wrap=wide)


_COMPARISON_NOTE = (
    "points: percentage points, on the same items. flips: answers turned wrong and right. p: with Holm's correction. "
    "needed: about so many items would decide."
)


def _comparison_row(name: str, found: Comparison | None) -> tuple[Text, ...]:
    if found is None:
        return Text(name), *[Text(words.MISSING)] * 7
    return (
        Text(name),
        Text(words.signed_points(found.difference.value)),
        Text(words.difference_interval(found.difference)),
        Text(f"{found.difference.n:,}"),
        Text(words.flips(found)),
        Text(words.p_number(found.p_value)),
        Text(found.verdict, style=VERDICT_STYLES[found.verdict]),
        Text("" if found.items_to_settle is None else f"{found.items_to_settle:,}"),
    )


def _not_compared(versus: Versus) -> Iterator[str]:
    """Tasks that could not be compared, and items that were left out."""
    refused: dict[str, list[str]] = {}
    for entry in versus.tasks:
        if entry.refused:
            refused.setdefault(entry.refused, []).append(entry.task)
    yield from (f"Not compared: {', '.join(names)} ({why})." for why, names in refused.items())
    counts = [f"{entry.task} {entry.left_out:,}" for entry in versus.tasks if entry.left_out and not entry.refused]
    if counts:
        yield f"Left out, scored at one of the two only: {', '.join(counts)}."


def _print_answers(versus: Versus, console: Console) -> None:
    """The KL divergence on right answers, where the study has it of these two."""
    found = [(entry.task, entry.divergence) for entry in versus.tasks if entry.divergence]
    if not found:
        return
    headers = ["KLD of right answers", "mean", "95 % interval", *found[0][1].quantiles, "same top", "items"]
    left_out = any(divergence.left_out for _, divergence in found)
    rows = []
    for name, divergence in found:
        value, interval = words.divergence(divergence.mean)
        rows.append((
            Text(name),
            Text(value),
            Text(interval or f"of {FEW} or more"),
            *(Text(f"{quantile:.3g}") for quantile in divergence.quantiles.values()),
            Text(f"{words.percent(divergence.same_top)} %"),
            Text(f"{divergence.items:,}"),
            *([Text(f"{divergence.left_out:,}")] * left_out),
        ))  # fmt: skip
    print_rows([*headers, *["left out"] * left_out], rows, console)
    console.print(
        Text("KLD in nats: over the tokens of each item's right answer, then over the items.", style="dim"),
        soft_wrap=not console.is_terminal,
    )
