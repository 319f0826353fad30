"""What a report comes to, in the sentences a person would want."""

from __future__ import annotations

from gguf_eval.analysis.comparison import Comparison
from gguf_eval.analysis.recommend import Conclusion
from gguf_eval.analysis.summary import PointSummary
from gguf_eval.report import words


def conclusion(found: Conclusion) -> list[str]:
    """The sentences a person would want: what to run and why, what is worse, what is undecided."""
    if found.choice is found.reference:
        lines = [f"{found.model}: run {found.reference.label}: every smaller level measured is worse, or incomplete."]
    else:
        lines = [_choice(found)]
    lines.extend(_loss(point, found.reference.label) for point in found.worse)
    lines.extend(_undecided(found))
    lines.append(_reference(found.reference))
    return lines


def _undecided(found: Conclusion) -> list[str]:
    parts = []
    for point in found.undecided:
        items = point.overall.items_to_settle if point.overall else None
        parts.append(f"{point.label} (about {items:,} items would settle it)" if items else point.label)
    return [f"Undecided against {found.reference.label}: {', '.join(parts)}."] if parts else []


def _choice(found: Conclusion) -> str:
    compared = found.choice.overall
    assert compared is not None  # only points that were compared are chosen
    clauses = []
    if found.memory_ratio is not None:
        clauses.append(f"{found.memory_ratio:.2f} times the memory")
    if found.generation_ratio is not None:
        clauses.append(f"{found.generation_ratio:.2f} times the generation speed")
    cost = f"{' and '.join(clauses)} of {found.reference.label}"
    if not clauses:
        cost = f"{words.size(found.choice.size_bytes)} on disk instead of {words.size(found.reference.size_bytes)}"
    return f"{found.model}: run {found.choice.label}: {cost}, and {_finding(compared)}."


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
        return f"no loss could be shown, though up to {possible} points stay possible: {evidence}"
    return f"no loss could be shown: {evidence}"


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
