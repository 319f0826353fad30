"""What changed between two dates: in a terminal, in sentences and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gguf_eval.analysis.changes import Changes, Finding, PointChange, Unpaired
from gguf_eval.analysis.item_changes import Counts, ItemsChange
from gguf_eval.analysis.models import by_model, grouped
from gguf_eval.analysis.ratios import Ratio
from gguf_eval.report import words
from gguf_eval.report.escape import printable
from gguf_eval.report.tables import VERDICT_STYLES, TableColumn, bare_table, packed, print_lines

SCHEMA = 1
_STYLES = {**VERDICT_STYLES, "identical": "green"}
_MOST_WITH_INTERVALS = 12
"""Tasks up to which each has its interval, on a line of its own."""


def changes_document(changes: Changes, command: str) -> dict[str, Any]:
    """Every figure with its n, method and interval (`Changes` names the keys); ``worse`` is what a check stops at."""
    worse = [asdict(finding) for finding in changes.worse]
    return {"schema": SCHEMA, "command": command, **asdict(changes), "worse": worse}


def print_changes(changes: Changes, console: Console) -> None:
    """Print everything at the console's width."""
    changes = printable(changes)
    for when, source in (("old", changes.old), ("new", changes.new)):
        heading = Text.assemble(
            (when, "bold"), f"  {source.path}", (f", begun {words.moment(source.created_at)}", "dim")
        )
        print_lines([heading], console)
    _print_circumstances(changes, console)
    for model, points in by_model(changes.points).items():
        console.print(Text(f"\n{model}", style="bold"), soft_wrap=True)
        for table in packed(_main_columns(points), console.width):
            console.print(table)
        for table in _task_tables(points, console.width):
            console.print(Text(f"\n{model} by task", style="bold"), soft_wrap=True)
            console.print(table)
    console.print()
    for line in _notes(changes):
        console.print(Text(line, style="dim"))
    print_lines(_warnings(changes), console)
    console.print()
    print_lines(_conclusion(changes), console)


def _print_circumstances(changes: Changes, console: Console) -> None:
    rows = [(found.what, found.old, found.new, ", ".join(found.points)) for found in changes.circumstances]
    rows += [
        ("model file", _file(p.old_sha256, p.old_size_bytes), _file(p.new_sha256, p.new_size_bytes), p.name)
        for p in changes.points
        if p.old_sha256 != p.new_sha256
    ]
    if not rows:
        console.print(Text("Machine, build, packages, settings and model files are the same.", style="dim"))
        return
    table = bare_table()
    names = ("not the same", "old", "new", *(("of",) if any(row[-1] for row in rows) else ()))
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row[: len(names)]))
    console.print()
    console.print(table)


def _file(sha256: str | None, size_bytes: int) -> str:
    return f"{sha256[:12]}, {words.size(size_bytes)}" if sha256 else words.MISSING


def _main_columns(points: Sequence[PointChange]) -> list[TableColumn]:
    columns = [
        TableColumn("  level", [Text(words.STATUS_MARKS[p.new_status] + p.label) for p in points], "left"),
        TableColumn("score", tuple(_difference(point.overall) for point in points), "left"),
        TableColumn("flips", tuple(_flips(point.overall) for point in points)),
        TableColumn("identical", tuple(_identical(point.overall.counts) for point in points)),
    ]
    several = len({text.text for point in points for text in point.texts}) > 1
    titles = {(ratio.unit, ratio.what): title(ratio, several) for point in points for ratio in point.ratios}
    return columns + [TableColumn(title, tuple(_ratio(p, key) for p in points)) for key, title in titles.items()]


def _difference(change: ItemsChange) -> Text:
    if change.comparison is None:
        return Text(words.MISSING)
    difference, verdict = change.comparison.difference, change.verdict or "undecided"
    return _judged(words.signed_points(difference.value), verdict, verdict, words.difference_interval(difference))


def _judged(value: str, mark: str, verdict: str, interval: str) -> Text:
    text = Text(f"{value} ").append(mark, style=_STYLES[verdict])
    return text.append(f"\n{interval}", style="dim") if interval else text


def _flips(change: ItemsChange) -> Text:
    return Text(words.flips(change.comparison) if change.comparison else words.MISSING)


def _identical(counts: Counts) -> Text:
    if not counts.common:
        return Text(words.MISSING)
    text = Text(_share(counts.identical, counts.common))
    return text.append(f"\n{_share(counts.same_answer, counts.common)} same", style="dim")


def _share(part: int, whole: int) -> str:
    """Never rounded up to all, nor down to none."""
    if part in (0, whole):
        return "all" if part else "none"
    return f"{min(99.9, max(0.1, 100 * part / whole)):.1f} %"


def _ratio(point: PointChange, key: tuple[str, str]) -> Text:
    found = next((ratio for ratio in point.ratios if (ratio.unit, ratio.what) == key), None)
    if found is None:
        return Text(f"{words.MISSING}  ")
    value, mark = f"{percent_change(found, found.ratio)} %", words.VERDICT_MARKS[found.verdict]
    return _judged(value, mark, found.verdict, f"{ratio_interval(found)}  ")


def _task_tables(points: Sequence[PointChange], width: int) -> list[Table]:
    """One row a task, one column a point; none where there is a single task, which the main table shows."""
    names = list(dict.fromkeys(task.name for point in points for task in point.tasks))
    if len(names) < 2:
        return []
    for intervals in (True, False) if len(names) <= _MOST_WITH_INTERVALS else (False,):
        columns = [TableColumn("task", tuple(map(Text, names)), "left")]
        columns += [TableColumn(p.label, tuple(_task_cell(p, name, intervals) for name in names)) for p in points]
        tables = packed(columns, width)
        if len(tables) == 1:
            break
    return tables


def _task_cell(point: PointChange, name: str, intervals: bool) -> Text:
    task = next((task for task in point.tasks if task.name == name), None)
    if task is None or task.comparison is None:
        return Text(f"{words.MISSING}  ")
    verdict, difference = task.verdict or "undecided", task.comparison.difference
    interval = f"{words.difference_interval(difference)}  " if intervals else ""
    return _judged(words.signed_points(difference.value), words.VERDICT_MARKS[verdict], verdict, interval)


_LEGEND = "▼ worse, ▲ better, = the same, ≡ computed exactly alike; no mark: undecided"
_MOST_FINDINGS = 12
"""Of each kind that the terminal names; the JSON names all."""
OF_TEXT = {"PPL": "PPL", "nats": "KLD"}
"""What a ratio over a text is of, by its unit."""


def title(ratio: Ratio, with_text: bool = True) -> str:
    """What a ratio is called, with the name of its text or without."""
    if ratio.unit in OF_TEXT:
        return f"{OF_TEXT[ratio.unit]} {ratio.what}" if with_text else OF_TEXT[ratio.unit]
    return "peak RAM" if ratio.what == "peak_rss" else ratio.what


def percent_change(ratio: Ratio, value: float) -> str:
    """A ratio as a change in per cent, with its sign."""
    return words.signed((value - 1) * 100, 2 if ratio.unit in OF_TEXT else 1)


def ratio_interval(ratio: Ratio) -> str:
    """Its interval as such changes, or how little was measured."""
    if ratio.low is None or ratio.high is None:
        return f"n={min(ratio.n_old, ratio.n_new)}"
    return f"{percent_change(ratio, ratio.low)} to {percent_change(ratio, ratio.high)}"


def _unequal(changes: Changes) -> Iterable[str]:
    """Where points are not compared on as many items: a difference is a point's own, and none beside another's."""
    for model, points in by_model(changes.points).items():
        counts = {point.label: point.overall.counts.common for point in points if point.overall.counts.common}
        if len(set(counts.values())) > 1:
            parts = ", ".join(f"{label} {count:,}" for label, count in counts.items())
            yield f"{model}: items differ from point to point, so that their scores don't compare: {parts}."


def _notes(changes: Changes) -> Iterable[str]:
    """What the figures are, and when they count."""
    allowed, margin = changes.tolerances, changes.margin * 100
    ratios = [ratio for point in changes.points for ratio in point.ratios]
    if any(point.tasks for point in changes.points):
        yield (
            "score: new minus old, in points, over the items of all tasks that both scored, with 95 % intervals; exact "
            f"McNemar with Holm's correction over {changes.tests} comparisons. The same: within {margin:g}."
        )
        yield from _unequal(changes)
        yield (
            "flips: answers turned wrong and right. identical: items with exactly the same log-likelihoods or text; "
            "below it, those with the same answer."
        )
    repetitions = sorted({n for ratio in ratios if ratio.unit == "tokens/s" for n in (ratio.n_old, ratio.n_new)})
    if repetitions:
        counts = " to ".join(map(str, dict.fromkeys((repetitions[0], repetitions[-1]))))
        yield (
            f"Speed: Welch's interval from {counts} timings, one at the very end where there is one. They are of one "
            f"process and know nothing of how processes differ: speed counts beyond {allowed.speed * 100:g} %."
        )
    if any(ratio.unit == "bytes" for ratio in ratios):
        yield f"Memory: one measurement each, no interval; it counts beyond {allowed.memory * 100:g} %."
    windows = sorted({ratio.n_new for ratio in ratios if ratio.unit == "PPL"})
    if windows:
        yield (
            f"PPL, KLD: paired over {', '.join(map(str, windows))} windows; they count beyond "
            f"{allowed.perplexity * 100:g} % and {allowed.divergence * 100:g} %."
        )
    yield f"{_LEGEND}."


def _warnings(changes: Changes) -> Iterable[Text]:
    """What could not be compared, and what was not quiet; alike lines of several points are one."""
    for kind, found in (("point", changes.unpaired_points), ("task", changes.unpaired_tasks)):
        for entry in found:
            yield Text(f"! {kind} {entry.name} ({entry.where} study) is not compared: {entry.reason}", "yellow")
    yield from _grouped(changes, "yellow", lambda point: map(_missing, point.missing))
    yield from _grouped(changes, "yellow", lambda point: (
        f"text {text.text} is not compared: {text.refused}" for text in point.texts if text.refused
    ))  # fmt: skip
    yield from _grouped(changes, "yellow", _item_notes)
    yield from _grouped(changes, "dim", lambda point: (f"not a quiet machine {line}" for line in point.noise))


def _grouped(changes: Changes, style: str, lines: Callable[[PointChange], Iterable[str]]) -> Iterable[Text]:
    owners = grouped((line, point.name) for point in changes.points for line in lines(point))
    for line, names in owners.items():
        who = "all points" if len(names) == len(changes.points) > 1 else ", ".join(names)
        yield Text(f"! {who}: {line}", style)


def _missing(entry: Unpaired) -> str:
    return f"{entry.name} is in the {entry.where} study only ({entry.reason})"


def _item_notes(point: PointChange) -> Iterable[str]:
    for task in point.tasks:
        counts, scoring = task.counts, task.scoring
        parts = [
            f"{n} {'item is' if n == 1 else 'items are'} in the {where} study only"
            for where, n in (("old", counts.only_old), ("new", counts.only_new))
            if n
        ]
        if scoring is not None:
            parts += [f"{scoring.lost} scored before can't be scored any more"] * bool(scoring.lost)
            parts += [f"{scoring.gained} can be scored now"] * bool(scoring.gained)
        if parts:
            yield f"{task.name}: {'; '.join(parts)}"


def _conclusion(changes: Changes) -> Iterable[Text]:
    """What is better and worse beyond noise, the verdict last."""
    counts = sum((point.overall.counts for point in changes.points), Counts())
    if counts.common:
        unscored = f" {counts.unscored_new:,} could not be scored." if counts.unscored_new else ""
        same = {0: "None", counts.common: "All"}.get(counts.identical, f"{counts.identical:,}")
        yield Text(f"{same} of {counts.common:,} answers were computed exactly alike.{unscored}")
    for word, style in (("better", "green"), ("worse", "red")):
        mark, found = words.VERDICT_MARKS[word], [found for found in changes.findings if found.verdict == word]
        for finding in found[:_MOST_FINDINGS]:
            yield Text(f"{mark} {finding.point}: {finding_text(finding)}.", style)
        if len(found) > _MOST_FINDINGS:
            yield Text(f"{mark} and {len(found) - _MOST_FINDINGS} more that are {word} (--json has all).", style)
    if not changes.worse:
        yield Text("Nothing is worse beyond noise.", "bold")
    else:
        points = dict.fromkeys(finding.point for finding in changes.worse)
        yield Text(f"Worse beyond noise: {', '.join(points)}.", "bold")


def finding_text(finding: Finding) -> str:
    """What is better or worse, and how far."""
    if finding.ratio is not None:
        ratio = finding.ratio
        values = [_value(ratio, value) for value in (ratio.old, ratio.new)]
        interval = (
            "" if ratio.low is None else f"; 95 % interval {ratio_interval(ratio)}, n={ratio.n_old} and {ratio.n_new}"
        )
        noisy = "; not a quiet machine" if finding.noisy else ""
        return f"{title(ratio)} {percent_change(ratio, ratio.ratio)} % ({values[0]} → {values[1]}{interval}{noisy})"
    if finding.comparison is None and finding.verdict == "better":
        return "runs, which it did not before"
    if finding.comparison is None:
        return f"failed, which it did not before: {finding.error}"
    found = finding.comparison
    turned = ("lost", "gained") if finding.what.endswith("can be scored") else ("turned wrong", "right")
    return (
        f"{finding.what} {words.signed_points(found.difference.value)} points "
        f"(95 % interval {words.difference_interval(found.difference)}; {found.lost} {turned[0]}, "
        f"{found.gained} {turned[1]} of {found.difference.n:,}; {words.p_value(found.p_value)})"
    )


def _value(ratio: Ratio, value: float) -> str:
    if ratio.unit == "bytes":
        return words.size(round(value))
    if ratio.unit == "tokens/s":
        return words.rate(value)
    return f"{value:.3f}" if ratio.unit == "PPL" else words.nats(value)
