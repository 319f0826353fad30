"""What means are over, and why a point has none, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gguf_eval.analysis.basis import Lack
from gguf_eval.analysis.models import by_model, grouped
from gguf_eval.analysis.summary import PointSummary, StudySummary

_NAMED = 8
"""Tasks that a line names."""


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
