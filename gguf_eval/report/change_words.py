"""What changed between two dates, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.text import Text

from gguf_eval.analysis.changes import Changes, Finding, PointChange, Unpaired
from gguf_eval.analysis.item_changes import Counts
from gguf_eval.analysis.models import by_model, grouped
from gguf_eval.analysis.ratios import Ratio
from gguf_eval.report import words

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
    digits = 2 if ratio.unit in OF_TEXT else 1
    text = f"{abs(value - 1) * 100:.{digits}f}"
    return text if not float(text) else ("+" if value > 1 else words.MINUS) + text


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


def notes(changes: Changes) -> Iterable[str]:
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


def warnings(changes: Changes) -> Iterable[Text]:
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


def conclusion(changes: Changes) -> Iterable[Text]:
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
