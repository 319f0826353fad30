"""How figures and findings are put into words. Formats only; computes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from gguf_eval.analysis.comparison import Comparison
from gguf_eval.analysis.costs import Placing
from gguf_eval.analysis.divergence import Figure
from gguf_eval.analysis.intervals import FEW
from gguf_eval.analysis.models import grouped
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import PointSummary, SpeedSummary, StudySummary, TaskSummary
from gguf_eval.report.basis_words import score_notes

MINUS = "−"
MISSING = "–"
STATUS_MARKS = {"failed": "✗ ", "partial": "… ", "complete": "  "}
VERDICT_MARKS = {"worse": "▼", "better": "▲", "same": "=", "identical": "≡", "undecided": " "}


def size(count: int | None) -> str:
    """Bytes in the unit people compare: megabytes below ten gigabytes, gigabytes above (powers of ten)."""
    if not count:
        return MISSING
    if count < 10_000_000:
        return f"{count / 1e6:.2f} MB"
    return f"{count / 1e6:,.0f} MB" if count < 10_000_000_000 else f"{count / 1e9:.1f} GB"


def parameters(points: Sequence[PointSummary]) -> str:
    """How many weights the model has."""
    count = max(point.parameters for point in points)
    if not count:
        return f"{MISSING} parameters"  # no file could be made
    return f"{count / 1e9:.1f} B parameters" if count >= 1e9 else f"{count / 1e6:.0f} M parameters"


def rate(tokens_per_second: float) -> str:
    """Tokens a second, to three figures or the unit."""
    return f"{tokens_per_second:,.0f}" if tokens_per_second >= 100 else f"{tokens_per_second:.1f}"


def deviation(speed: SpeedSummary) -> str:
    """The deviation of a rate, as exact as the rate."""
    if speed.stdev is None:
        return "n=1"
    return f"±{speed.stdev:.0f}" if speed.tokens_per_second >= 100 else f"±{speed.stdev:.1f}"


def duration(seconds: float) -> str:
    """A time that is estimated, no more exact than it can be."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {round(seconds, -1):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"about {minutes} min"
    if minutes < 48 * 60:
        return f"about {minutes // 60} h {minutes % 60 // 10 * 10:02d} min"
    return f"about {minutes / 60 / 24:.0f} days"


def moment(stored: str) -> str:
    """A date and time, as people write it."""
    return stored.replace("T", " ").replace("+00:00", " UTC")


def clock_time(seconds: float) -> str:
    """A time that has passed, as a clock shows it."""
    whole = int(seconds)
    hours = f"{whole // 3600}:{whole % 3600 // 60:02d}" if whole >= 3600 else f"{whole // 60}"
    return f"{hours}:{whole % 60:02d}"


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{share * 100:.1f}"


def signed_points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return signed(share * 100, 1)


def signed(value: float, digits: int) -> str:
    """A number with its sign; without one where it rounds to nothing."""
    text = f"{abs(value):.{digits}f}"
    return text if not float(text) else ("+" if value > 0 else MINUS) + text


def interval(estimate: Estimate) -> str:
    """The interval of a share, in per cent."""
    return f"{estimate.low * 100:.0f}–{estimate.high * 100:.0f}"


def difference_interval(estimate: Estimate) -> str:
    """The interval of a difference, in percentage points."""
    return f"{signed_points(estimate.low)} to {signed_points(estimate.high)}"


def perplexity(figure: Figure) -> tuple[str, str]:
    """A perplexity, and its interval (empty where there is none)."""
    return f"{figure.value:.2f}", "" if figure.low is None else f"{figure.low:.1f}–{figure.high:.1f}"


def divergence(figure: Figure) -> tuple[str, str]:
    """A mean KL divergence in nats to three figures, and its interval (empty where there is none)."""
    digits = _digits(figure.value)
    interval = "" if figure.low is None else f"{figure.low:.{digits}f}–{figure.high:.{digits}f}"
    return f"{figure.value:.{digits}f}", interval


def nats(divergence: float) -> str:
    """A KL divergence in nats, to three figures."""
    return f"{divergence:.{_digits(divergence)}f}"


def _digits(divergence: float) -> int:
    return 3 if divergence >= 0.1 else 4 if divergence >= 0.01 else 5


def aggregate(name: str, value: float) -> str:
    """A figure over all items of a task: a perplexity as it is, everything else is a share."""
    return f"{value:.2f}" if name == "perplexity" else percent(value)


def p_value(value: float) -> str:
    """A p-value as people write it in a sentence."""
    number = p_number(value)
    return f"p {number}" if number.startswith("<") else f"p = {number}"


def p_number(value: float) -> str:
    """A p-value as it stands in a table."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def flips(found: Comparison) -> str:
    """How many answers turned wrong, and how many right."""
    return f"{MINUS}{found.lost:,} +{found.gained:,}"


def several(count: int, thing: str) -> str:
    """A count of things that an s makes many of."""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def how_to_read(study: StudySummary, columns: Sequence[str], *, starred: bool, front: bool) -> list[str]:
    """What the figures are, and where they were measured; ``columns``: what is to say of columns of the table."""
    tests = sorted({test for point in study.points for test in point.speed})
    lines = []
    if tests:
        lines.append(f"{', '.join(tests)}: tokens/s, mean ± deviation, on {_machines(study)}.")
    lines += columns
    lines.append("Scores in %, with 95 % intervals; differences in points, on the same items.")
    lines += score_notes(study)
    if starred:
        diamond = " ◆ on the Pareto front of memory, generation speed and score." if front else ""
        lines.append(f"* best of its model, noise and all.{diamond}")
    lines += [*placings(study), *items_note(study), *date_notes(study), *text_notes(study), *answer_notes(study)]
    return [*sources(study), *lines]


def placings(study: StudySummary) -> list[str]:
    """Points whose layers were on devices, or whose context had to be reduced, and why; points alike share a line."""
    placed = [(point.placing, point.label) for point in study.points if point.placing]
    alike = grouped((placing(found), label) for found, label in placed if found.layers or found.reduced)
    return [f"{', '.join(labels)}: {text}." for text, labels in alike.items()]


def placing(found: Placing) -> str:
    """Where the layers are, what they take there, and why."""
    there = ", ".join(
        f"{size(count)} on {device}, predicted {size(found.predicted_device_bytes.get(device))}"
        for device, count in found.device_bytes.items()
    )
    layers = f"{found.layers} of {found.layer_count} layers on devices" + (f" ({there})" if there else "")
    return f"{layers} at a context of {found.context}: {'; '.join(found.reasons)}"


def sources(study: StudySummary) -> list[str]:
    """The studies of a report of several."""
    return [f"@{source.name}: {source.path}, begun {moment(source.created_at)}." for source in study.sources]


def _machines(study: StudySummary) -> str:
    """The machine that speed was measured on; of several studies, whose it is where they differ."""
    environments = [(source.name, source.environment) for source in study.sources] or [("", study.environment)]
    machines = [(f"@{name}", environment.get("machine", {})) for name, environment in environments]
    owners = grouped(
        (f"{machine.get('processor', 'unknown processor')}, {machine.get('physical_cores', '?')} cores", name)
        for name, machine in machines
    )
    if len(owners) == 1:
        return next(iter(owners))
    return "; ".join(f"{where} ({', '.join(names)})" for where, names in owners.items())


def date_notes(study: StudySummary) -> list[str]:
    """The day that chat templates were told, where they ask for it."""
    environments = [source.environment for source in study.sources] or [study.environment]
    told = dict.fromkeys(e["templates"]["date"] for e in environments if "templates" in e)
    return [f"Chat templates that ask for the date were told {', '.join(told)}."] if told else []


def text_notes(study: StudySummary) -> list[str]:
    """Which texts perplexity and divergence are of; points measured alike share a line."""
    notes: dict[str, None] = {}
    first = {(p.model, text.text): text for p in reversed(study.points) for text in p.texts}
    for point in study.points:
        for text in point.texts:
            stride = f", every {text.stride} tokens" if text.stride else ""
            over = f"on {text.text}, {text.windows} windows of {text.n_ctx} tokens{stride}"
            if text.same_windows(first[point.model, text.text]):
                notes[f"PPL: perplexity {over}; intervals over windows."] = None
            else:
                notes[f"{MISSING} {point.name}: run {over}, and so not shown beside the others of its model."] = None
    if any(text.divergence for point in study.points for text in point.texts):
        notes["KLD: mean KL divergence from the model's reference there, in nats."] = None
    return list(notes)


def answer_notes(study: StudySummary) -> list[str]:
    """What the divergence of right answers is, and of how many items there is none."""
    found = [(p, t, t.divergence) for p in study.points for t in p.tasks.values() if t.divergence]
    if not found:
        return []
    lines = [
        "KLD of right answers: mean KL divergence from the model's reference over the tokens of each item's right "
        "answer, in nats; every item counts once."
    ]
    for point, task, divergence in found:
        if divergence.left_out:
            reasons = "".join(f"; {count}: {reason}" for reason, count in divergence.reasons.items())
            lines.append(f"{task.name}, {point.label}: {divergence.left_out} items have none{reasons}.")
    few = dict.fromkeys(task.name for _, task, divergence in found if divergence.method is None)
    if few:
        lines.append(f"{', '.join(few)}: no interval of so few divergences; {FEW} items or clusters are needed.")
    return lines


def items_note(study: StudySummary) -> list[str]:
    """What the tables leave unsaid: metric, items, chance, unscored and truncated items; tasks alike share a line."""
    asked = {name: [p.tasks[name] for p in study.points if name in p.tasks] for name in study.task_names}
    alike = grouped((_task_note(summaries), name) for name, summaries in asked.items() if summaries)
    return [f"{', '.join(names)}: {note}" for note, names in alike.items()]


def _task_note(summaries: Sequence[TaskSummary]) -> str:
    counts = sorted({s.asked for s in summaries})
    items = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    note = f"{summaries[0].metric}, {items} items, chance {summaries[0].chance * 100:.0f}"
    if summaries[0].majority is not None:
        note += f", {summaries[0].majority * 100:.0f} with the most frequent answer to all"
    counted = {s.estimate.n for s in summaries if s.estimate}
    if len(counted) == 1 and counted != set(counts):
        note += f", means over the {counted.pop()} that all have a score of"
    unscored = max(summaries, key=lambda s: s.unscored)
    truncated = max(s.truncated for s in summaries)
    cut_off = max(s.cut_off for s in summaries)
    if unscored.unscored:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in unscored.unscored_reasons.items())
        note += f", up to {unscored.unscored} unscored ({reasons})"
    if truncated:
        note += f", up to {truncated} cut to fit the context"
    if cut_off:
        note += f", up to {cut_off} answers cut off by the limit of tokens"
    return note
