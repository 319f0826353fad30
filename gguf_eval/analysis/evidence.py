"""What speaks against a level beside its scores, and which level the advice takes instead.

The rule, used where scores leave it undecided whether a level is worse than its reference:

1. A level has evidence of loss where the whole 95 % interval of its mean KL divergence from the reference, on right
   answers or over a text, lies above `LIMIT`; or where its log score is shown to be lower (the whole interval of the
   paired difference is below 0) by `LIMIT` or more. Without an interval there is no evidence.
2. A level with evidence of loss is passed over for another one of its model that has clearly less: one whose
   divergences lie below, the intervals apart, in every measure that speaks against the first, and whose log score does
   not speak against it where it speaks against the first. The reference always has less, and so has a level whose
   scores have decided that it is not worse.
3. Of what is left, the advice takes the one of least memory.

Both measures are in nats and mean alike. A divergence of d says that what the reference would write is exp(d) times as
perplexing to the level; a log score lower by d says that right answers are, in the geometric mean, exp(d) times less
probable. `LIMIT` is a tenth. Every level but the reference diverges somewhat: without a limit, enough items would make
every level a loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gguf_eval.analysis.divergence import Figure, TextSummary, summarise_text
from gguf_eval.analysis.log_score import log_score_difference, log_scores
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.task_divergence import task_divergence
from gguf_eval.store.records import PointRecord, TaskRecord

LIMIT = 0.1
"""Nats."""
ANSWERS, LOG_SCORE = "right answers", "log score"


@dataclass(frozen=True)
class Evidence:
    """A point beside its reference in what is finer than scores."""

    divergences: Mapping[str, Figure]
    """Mean KL divergence in nats: on `ANSWERS` (the mean over tasks), and over each text by its name."""
    log_score: Estimate | None
    """Mean over the tasks of its log score less the reference's, in nats; None where there are no choices or too few
    items, or where scores have decided and it was not computed."""

    @property
    def against(self) -> tuple[str, ...]:
        """What speaks against the point: keys of ``divergences``, `LOG_SCORE`."""
        found = [name for name, figure in self.divergences.items() if figure.low is not None and figure.low > LIMIT]
        if self.log_score is not None and self.log_score.high < 0 and self.log_score.value <= -LIMIT:
            found.append(LOG_SCORE)
        return tuple(found)


def passed_over(evidence: Mapping[int, Evidence | None]) -> set[int]:
    """The points of one model that another one of it has clearly less loss than; None stands for the
    reference, and for one whose scores have decided that it loses nothing."""
    return {
        id_
        for id_, one in evidence.items()
        if one is not None
        and one.against
        and any(other is None or (other is not one and has_clearly_less(other, one)) for other in evidence.values())
    }


def has_clearly_less(other: Evidence, one: Evidence) -> bool:
    """Whether ``other`` has clearly less loss than ``one`` in everything that speaks against ``one``."""
    for name in one.against:
        if name == LOG_SCORE:
            if LOG_SCORE in other.against:
                return False
            continue
        figure, low = other.divergences.get(name), one.divergences[name].low
        if figure is None or figure.high is None or low is None or figure.high >= low:
            return False
    return True


def mean_figure(figures: Iterable[Figure]) -> Figure | None:
    """The mean of independent figures, those with an interval; None without any.

    The interval is MOVER's (Zou and Donner 2008, Stat. Med. 27:1693): distances to the bounds add in quadrature.
    """
    known = [(f.value, f.low, f.high) for f in figures if f.low is not None and f.high is not None]
    if not known:
        return None
    count = len(known)
    value = math.fsum(v for v, _, _ in known) / count
    low = math.sqrt(math.fsum((v - low) ** 2 for v, low, _ in known)) / count
    high = math.sqrt(math.fsum((high - v) ** 2 for v, _, high in known)) / count
    return Figure(value, max(0.0, value - low), value + high)


def find_evidence(
    point: PointRecord,
    reference: PointRecord,
    on_answers: Iterable[Figure],
    texts: Iterable[TextSummary],
    log_scores: LogScores | None,
) -> Evidence:
    """What is known of a point beside its reference.

    on_answers: its mean divergence on right answers, by task. Divergences over texts from another reference do not
    count. log_scores: None where scores have decided.
    """
    mean = mean_figure(on_answers)
    found = {} if mean is None else {ANSWERS: mean}
    for text in texts:
        if text.divergence is not None and text.divergence.reference in (reference.label, reference.settings_label):
            found[text.text] = text.divergence.mean
    return Evidence(found, log_scores.difference(point, reference) if log_scores else None)


def point_evidence(
    point: PointRecord, reference: PointRecord, tasks: Sequence[TaskRecord], log_scores: LogScores
) -> Evidence:
    """`find_evidence` from what is stored of the two on these tasks, and over texts."""
    found = (task_divergence(point, reference, task) for task in tasks)
    on_answers = [divergence.mean for divergence in found if divergence is not None]
    return find_evidence(point, reference, on_answers, map(summarise_text, point.texts), log_scores)


class LogScores:
    """Log scores of the points that are asked for, each point's read once."""

    def __init__(self, tasks: Sequence[TaskRecord]) -> None:
        self._tasks = tasks
        self._read: dict[int, dict[str, dict[str, float]]] = {}

    def difference(self, point: PointRecord, reference: PointRecord) -> Estimate | None:
        """`log_score_difference` of the two."""
        return log_score_difference(self._of(point), self._of(reference), self._tasks)

    def _of(self, point: PointRecord) -> dict[str, dict[str, float]]:
        if point.id not in self._read:
            self._read[point.id] = {task.hash: log_scores(point, task) for task in self._tasks}
        return self._read[point.id]
