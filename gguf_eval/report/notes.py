"""What the figures of a report are, what means are over, and why a point has none, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gguf_eval.analysis.basis import Lack
from gguf_eval.analysis.costs import Placing
from gguf_eval.analysis.intervals import FEW
from gguf_eval.analysis.models import by_model, grouped
from gguf_eval.analysis.summary import PointSummary, StudySummary, TaskSummary
from gguf_eval.report import words

_NAMED = 8
"""Tasks that a line names."""


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
    lines += [*placings(study), *items_note(study), *aggregate_notes(study), *date_notes(study)]
    lines += [*text_notes(study), *answer_notes(study)]
    return [*sources(study), *lines]


def placings(study: StudySummary) -> list[str]:
    """Points whose layers were on devices, or whose context had to be reduced, and why; points alike share a line."""
    placed = [(point.placing, point.label) for point in study.points if point.placing]
    alike = grouped((placing(found), label) for found, label in placed if found.layers or found.reduced)
    return [f"{', '.join(labels)}: {text}." for text, labels in alike.items()]


def placing(found: Placing) -> str:
    """Where the layers are, what they take there, and why."""
    there = ", ".join(
        f"{words.size(count)} on {device}, predicted {words.size(found.predicted_device_bytes.get(device))}"
        for device, count in found.device_bytes.items()
    )
    layers = f"{found.layers} of {found.layer_count} layers on devices" + (f" ({there})" if there else "")
    return f"{layers} at a context of {found.context}: {'; '.join(found.reasons)}"


def sources(study: StudySummary) -> list[str]:
    """The studies of a report of several."""
    return [f"@{source.name}: {source.path}, begun {words.moment(source.created_at)}." for source in study.sources]


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
                own = f"{words.MISSING} {point.name}: run {over}"
                notes[f"{own}, and so not shown beside the others of its model."] = None
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


def aggregate_notes(study: StudySummary) -> list[str]:
    """Aggregates that could not be computed, and why; points alike share a line."""
    alike = grouped(
        (f"{task.name} has no {name} ({reason})", point.label)
        for point in study.points
        for task in point.tasks.values()
        for name, reason in task.whole.without_figure.items()
    )
    return [f"{', '.join(labels)}: {text}." for text, labels in alike.items()]


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


def score_notes(study: StudySummary) -> list[str]:
    """Which tasks scores are means over, and which points lack tasks or items."""
    return [*_scores(study), *_joint(study), *lacking_notes(study)]


def _scores(study: StudySummary) -> Iterator[str]:
    tasks = {
        model: [name for name in study.task_names if any(name in point.tasks for point in points)]
        for model, points in by_model(study.points).items()
    }
    bases = {model: study.score_tasks[model] for model, names in tasks.items() if len(names) > 1}
    alike = grouped(
        ((over, tuple(name for name in tasks[model] if name not in over)), model) for model, over in bases.items()
    )
    for (over, left_out), models in alike.items():
        whose = f" of {', '.join(models)}" if len(alike) > 1 else ""
        if not over:
            yield f"score{whose}: none, as no task is whole at all its levels."
        elif left_out:
            yield (
                f"score{whose}: mean over the tasks that its finished levels all have whole ({named(over)}), each "
                f"counting once; not in it: {named(left_out)}."
            )
        else:
            yield f"score{whose}: mean over the tasks, each counting once."


def _joint(study: StudySummary) -> Iterator[str]:
    scored = {point.model for point in study.points if point.averages}
    apart = [model for model, own in study.score_tasks.items() if own and own != study.joint_tasks and model in scored]
    missing = dict.fromkeys(point.model for point in study.points if point.joint_score is None and point.averages)
    if len(study.score_tasks) > 1 and (apart or missing):
        over = (
            f"over {named(study.joint_tasks)}, which they share" if study.joint_tasks else "nowhere: no task is shared"
        )
        without = f"; without {', '.join(missing)}, which was asked otherwise" if missing else ""
        yield f"Scatters and the Pareto front compare the models {over}{without}."


def lacking_notes(study: StudySummary) -> Iterator[str]:
    """One line for the points of each model that lack the same."""
    alike = grouped(((point.model, missing(point)), point.label) for point in study.points if point.lacking)
    several = len(study.score_tasks) > 1
    for (model, what), labels in alike.items():
        whose = f"{model} " if several else ""
        yield f"– {whose}{', '.join(labels)}: no mean beside those of other levels, as items are missing: {what}."


def missing(point: PointSummary) -> str:
    """What the point lacks, task by task; tasks it has nothing of together."""
    parts = [f"{name} {_lack(lack)}" for name, lack in point.lacking.items() if lack.asked]
    nothing = [name for name, lack in point.lacking.items() if not lack.asked]
    return "; ".join([*parts, *([f"nothing of {named(nothing)}"] if nothing else [])])


def _lack(lack: Lack) -> str:
    if lack.asked < lack.of:
        return f"{lack.asked:,} of {lack.of:,} asked"
    return f"{lack.scored:,} of {lack.of:,} scored"


def named(names: Sequence[str], most: int = _NAMED) -> str:
    """The first few of them, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
