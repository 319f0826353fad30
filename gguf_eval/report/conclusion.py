"""What a report comes to, in the sentences a person would want, and the evidence beside scores in words."""

from __future__ import annotations

from gguf_eval.analysis.comparison import Comparison
from gguf_eval.analysis.divergence import Figure
from gguf_eval.analysis.evidence import ANSWERS, LIMIT, LOG_SCORE, Evidence
from gguf_eval.analysis.recommend import Conclusion
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import PointSummary
from gguf_eval.report import words
from gguf_eval.report.notes import missing, named

LOSS = (
    "a KL divergence from the reference, on right answers or over a text, shown to be above "
    f"{LIMIT:g} nats, or a log score (how probable right answers are) shown to be lower by {LIMIT:g} nats or more"
)
RULE = (
    "the level of least memory whose scores are not worse; where scores leave that undecided, none with evidence of "
    f"loss: {LOSS}"
)
PASSED_OVER = (
    "passed over: scores leave a loss open, there is evidence of it, and another point of the model under the limits "
    f"has clearly less. Evidence is {LOSS}"
)


def evidence_text(found: Evidence | None) -> str:
    """Everything that is known, in one clause; empty where nothing is."""
    if found is None:
        return ""
    parts = [f"divergence {_place(name)} {_figure(figure)}" for name, figure in found.divergences.items()]
    if found.log_score is not None:
        parts.append(f"log score {_difference(found.log_score)}")
    return ", ".join(parts)


def against_text(found: Evidence) -> str:
    """What of it speaks against the point."""
    shown = {name: figure for name, figure in found.divergences.items() if name in found.against}
    return evidence_text(Evidence(shown, found.log_score if LOG_SCORE in found.against else None))


def _place(name: str) -> str:
    return f"on {name}" if name == ANSWERS else f"over {name}"


def _figure(figure: Figure) -> str:
    value, interval = words.divergence(figure)
    return f"{value} nats ({interval})" if interval else f"{value} nats (no interval)"


def _difference(found: Estimate) -> str:
    value, low, high = (words.signed(number, 3) for number in (found.value, found.low, found.high))
    return f"{value} nats ({low} to {high})"


def conclusion(found: Conclusion) -> list[str]:
    """The sentences a person would want: what to run and why, what is worse, what is undecided."""
    if found.choice is None:
        lines = [_no_advice(found)]
    elif found.choice is found.reference:
        lines = [f"{found.model}: run {found.reference.label}: {_no_other(found)}."]
    else:
        lines = [_choice(found, found.choice)]
    lines.extend(_loss(point, found.reference.label) for point in found.worse)
    lines.extend(_passed_over(found))
    lines.extend(_undecided(found))
    if found.choice is not None and found.nothing_to_lose:
        lines.append(f"{_nothing_to_lose(found)}.")
    lines.append(_reference(found.reference))
    return lines


def _no_advice(found: Conclusion) -> str:
    if found.nothing_to_lose and found.baseless:
        return (
            f"{found.model}: no advice: no task tells whether a level loses anything. {_nothing_to_lose(found)}; "
            "measure tasks that the model can do."
        )
    return f"{found.model}: no advice: {_no_other(found)}."


def _nothing_to_lose(found: Conclusion) -> str:
    return (
        f"Nothing can be lost in {named(found.nothing_to_lose)}: no level scores anything there, or "
        f"{found.reference.label} can't be told from an answer that knows nothing"
    )


def _no_other(found: Conclusion) -> str:
    """Why no other level is advised, each kind of reason with the levels it is for."""
    parts = []
    if found.worse:
        parts.append(f"{_labels(found.worse)} {'is' if len(found.worse) == 1 else 'are'} worse")
    if found.passed_over:
        parts.append(
            f"{_labels(found.passed_over)} {'has' if len(found.passed_over) == 1 else 'have'} evidence of loss"
        )
    parts += [f"{point.label} {_why_not_compared(point)}" for point in found.not_compared]
    return ", ".join(parts) or "every other level takes more memory"


def _why_not_compared(point: PointSummary) -> str:
    if point.status == "failed":
        return "failed"
    if point.lacking:
        return f"is incomplete ({missing(point)})"
    return "is incomplete" if point.status == "partial" else "has no item in common with the reference"


def _labels(points: tuple[PointSummary, ...]) -> str:
    return ", ".join(point.label for point in points)


def _passed_over(found: Conclusion) -> list[str]:
    """One line for each level that evidence speaks against, and one that says by which rule."""
    lines = []
    for point in found.passed_over:
        assert point.evidence is not None and point.overall is not None
        lines.append(
            f"{point.label} is passed over: scores can't tell it from {found.reference.label} "
            f"({words.difference_interval(point.overall.difference)} points), but there is evidence of loss: "
            f"{against_text(point.evidence)}."
        )
    if any(evidence_text(point.evidence) for point in found.undecided):
        lines.append(f"The rule: {RULE}.")
    return lines


def _undecided(found: Conclusion) -> list[str]:
    parts = []
    for point in found.undecided:
        items = point.overall.items_to_settle if point.overall else None
        parts.append(f"{point.label} (about {items:,} items would settle it)" if items else point.label)
    return [f"Scores undecided against {found.reference.label}: {', '.join(parts)}."] if parts else []


def _choice(found: Conclusion, choice: PointSummary) -> str:
    compared = choice.overall
    assert compared is not None  # only points that were compared are chosen
    clauses = []
    if found.memory_ratio is not None:
        clauses.append(f"{found.memory_ratio:.2f} times the memory")
    if found.generation_ratio is not None:
        clauses.append(f"{found.generation_ratio:.2f} times the generation speed")
    cost = f"{' and '.join(clauses)} of {found.reference.label}"
    if not clauses:
        cost = f"{words.size(choice.size_bytes)} on disk instead of {words.size(found.reference.size_bytes)}"
    known = evidence_text(choice.evidence)
    beside = f"; {known}" if known else ""
    if known and compared.verdict == "undecided":
        beside += ": no evidence of loss by the rule below"
    return f"{found.model}: run {choice.label}: {cost}, and {_finding(compared)}{beside}."


def _finding(compared: Comparison) -> str:
    evidence = (
        f"{words.signed_points(compared.difference.value)} points over {compared.difference.n:,} items "
        f"(95 % interval {words.difference_interval(compared.difference)}; "
        f"{words.several(compared.lost, 'answer')} turned wrong, {compared.gained:,} right)"
    )
    if compared.verdict == "same":
        return f"as good: {evidence}"
    if compared.verdict == "better":
        return f"better: {evidence}"
    if compared.difference.low < 0:
        possible = f"{abs(compared.difference.low) * 100:.1f}"
        return f"no loss of score could be shown, though up to {possible} points stay possible: {evidence}"
    return f"no loss of score could be shown: {evidence}"


def _loss(point: PointSummary, reference: str) -> str:
    compared = point.overall
    assert compared is not None
    return (
        f"{point.label} is worse than {reference}: {words.signed_points(compared.difference.value)} points "
        f"(95 % interval {words.difference_interval(compared.difference)}, {words.p_value(compared.p_value)})."
    )


def _reference(point: PointSummary) -> str:
    if point.origin.get("requantized"):
        return (
            f"The reference is {point.label}, made from a {point.origin['source_level']} file: what that file had "
            "lost before is in every row and can't be seen here."
        )
    return f"The reference is {point.label}, the highest precision measured of this model."
