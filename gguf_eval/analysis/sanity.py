"""Looks for scores that are no results: a reference at chance or at nothing, one answer to all, broken numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gguf_eval.analysis.baselines import majority
from gguf_eval.analysis.intervals import cluster_counts, macro_average
from gguf_eval.analysis.models import grouped
from gguf_eval.store.outcomes import answers, scored, unscored_reasons
from gguf_eval.store.records import Outcome, PointRecord, TaskRecord

Suspicion = Literal["chance", "majority", "nothing", "one-answer", "non-finite"]
NOTHING_TO_LOSE: tuple[Suspicion, ...] = ("chance", "majority", "nothing")
"""A reference of which one of these is seen on a task has nothing to lose there."""
_FEWEST = 20
"""Items below which neither chance level nor one answer to everything means anything."""


Seen = tuple[Suspicion, str, str]
"""With what was seen and what it means."""


@dataclass(frozen=True)
class ScoreWarning:
    """A score that must not be read as a result without a second look."""

    point_id: int
    point: str
    task: str
    suspicion: Suspicion
    seen: str
    meaning: str
    """What is to be thought of a score where this is seen."""
    message: str
    """Both in one sentence."""


def find_warnings(
    points: Sequence[PointRecord], tasks: Sequence[TaskRecord], references: set[int]
) -> list[ScoreWarning]:
    """Warnings of every point on every task; baselines are only held against the points in ``references``."""
    found = []
    for point in points:
        for task in tasks:
            outcomes = point.answers_to(task)
            for suspicion, seen, meaning in _suspicions(task, outcomes, point.id in references):
                message = f"{point.name} on {task.name}: {seen}: {meaning}"
                found.append(ScoreWarning(point.id, point.name, task.name, suspicion, seen, meaning, message))
    return found


def warning_lines(found: Sequence[ScoreWarning]) -> list[str]:
    """A line for each warning; what means the same of several tasks of a point is one line."""
    alike = grouped(((warning.point_id, warning.meaning), warning) for warning in found)
    return [
        group[0].message
        if len(group) == 1
        else f"{group[0].point}: {group[0].meaning}: {'; '.join(f'{one.task}: {one.seen}' for one in group)}"
        for group in alike.values()
    ]


def _suspicions(task: TaskRecord, outcomes: Mapping[str, Outcome], is_reference: bool) -> Iterator[Seen]:
    broken = sum(n for reason, n in unscored_reasons(outcomes).items() if "not a finite number" in reason)
    if broken:
        text = f"{broken} of {len(outcomes)} items gave log-likelihoods that are no numbers"
        yield "non-finite", text, "the model file or its settings are broken"
    picked = answers(outcomes)
    varied = len(set(picked.values())) > 2  # seen at once in nearly every case; the unscored have no answer
    if varied and not is_reference:
        return
    values = scored(outcomes, task.items)
    if len(values) < _FEWEST:
        return
    given = set() if varied else {picked[key] for key in values}
    if len(given) == 1 and None not in given and len({task.items[key].gold for key in values}) > 1:
        text = f"choice {_letter(given.pop())} is the answer to all {len(values)} items"
        yield "one-answer", text, "the score says only how often that is right"
    if is_reference:
        yield from _baseline(task, values)


def _baseline(task: TaskRecord, values: Mapping[str, float]) -> Iterator[Seen]:
    """What a reference's score can't be told from: nothing, guessing, or the most frequent answer to everything."""
    estimate = macro_average([cluster_counts(values, task.clusters)])
    if estimate is None:
        return
    score = f"scores {estimate.value * 100:.1f} %"
    chances = [task.chances[key] for key in values]
    chance = sum(chances) / len(chances) if all(chances) else 0.0
    constant = majority(task)
    if not estimate.value:
        yield "nothing", score, "the reference gets nothing right, so a level has nothing to lose"
    elif constant is not None and constant.share > chance and estimate.low <= constant.share:
        seen = f"{score} where '{constant.label}' to everything gets {constant.share * 100:.1f} %"
        meaning = "the reference can't be told from one answer to everything, so a level has nothing to lose"
        yield "majority", seen, meaning
    elif chance and estimate.low <= chance:
        seen = f"{score} where guessing gets {chance * 100:.1f} %"
        yield "chance", seen, "the reference can't be told from chance, so a level has nothing to lose"


def _letter(choice: int | None) -> str:
    return chr(ord("A") + choice) if choice is not None and 0 <= choice < 26 else str(choice)
