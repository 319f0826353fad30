"""How figures and findings are put into words. Formats only; computes nothing."""

from __future__ import annotations

from gguf_eval.analysis.comparison import Comparison
from gguf_eval.analysis.recommend import Conclusion
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import PointSummary, StudySummary

MINUS = "−"
MISSING = "–"


def size(count: int | None) -> str:
    """Bytes in the unit people compare: megabytes below ten gigabytes, gigabytes above (powers of ten)."""
    if not count:
        return MISSING
    if count < 10_000_000:
        return f"{count / 1e6:.2f} MB"
    return f"{count / 1e6:,.0f} MB" if count < 10_000_000_000 else f"{count / 1e9:.1f} GB"


def signed_points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    text = f"{abs(share) * 100:.1f}"
    if text == "0.0":
        return "0.0"
    return ("+" if share > 0 else MINUS) + text


def interval(estimate: Estimate) -> str:
    """The interval of a share, in per cent."""
    return f"{estimate.low * 100:.0f}–{estimate.high * 100:.0f}"


def difference_interval(estimate: Estimate) -> str:
    """The interval of a difference, in percentage points."""
    return f"{signed_points(estimate.low)} to {signed_points(estimate.high)}"


def verdict(comparison: Comparison) -> str:
    """The verdict in a word or two."""
    return {"better": "better", "worse": "worse", "same": "same", "undecided": "undecided"}[comparison.verdict]


def p_value(value: float) -> str:
    """A p-value as people write it."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def items_note(study: StudySummary) -> list[str]:
    """What the tables leave unsaid: chance, unscored and truncated items."""
    lines = []
    for name in study.task_names:
        summaries = [point.tasks[name] for point in study.points if name in point.tasks]
        if not summaries:
            continue
        counts = sorted({(s.estimate.n if s.estimate else 0) + s.unscored for s in summaries})
        items = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        line = f"{name}: {summaries[0].metric}, {items} items, chance {summaries[0].chance * 100:.0f}"
        unscored = max(s.unscored for s in summaries)
        truncated = max(s.truncated for s in summaries)
        if unscored:
            line += f", up to {unscored} unscored"
        if truncated:
            line += f", up to {truncated} cut to fit the context"
        lines.append(line)
    return lines


def conclusion(found: Conclusion) -> list[str]:
    """The sentences a person would want."""
    if found.choice is found.reference:
        lines = [f"{found.model}: run {found.reference.level}: every smaller level measured is worse, or incomplete."]
    else:
        lines = [_choice(found)]
    lines.extend(_loss(point, found.reference.level) for point in found.worse)
    lines.append(_reference(found.reference))
    return lines


def _choice(found: Conclusion) -> str:
    compared = found.choice.overall
    assert compared is not None  # only points that were compared are chosen
    clauses = []
    if found.memory_ratio is not None:
        clauses.append(f"{found.memory_ratio:.2f} times the memory")
    if found.generation_ratio is not None:
        clauses.append(f"{found.generation_ratio:.2f} times the generation speed")
    cost = " and ".join(clauses) or f"{size(found.choice.size_bytes)} on disk"
    return f"{found.model}: run {found.choice.level}: {cost} of {found.reference.level}, and {_finding(compared)}."


def _finding(compared: Comparison) -> str:
    evidence = (
        f"{signed_points(compared.difference.value)} points over {compared.difference.n} items "
        f"(95 % interval {difference_interval(compared.difference)}; "
        f"{compared.lost} answers turned wrong, {compared.gained} right)"
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
        f"{point.level} is worse than {reference}: {signed_points(compared.difference.value)} points "
        f"(95 % interval {difference_interval(compared.difference)}, {p_value(compared.p_value)})."
    )


def _reference(point: PointSummary) -> str:
    if point.origin.get("requantized"):
        return (
            f"The reference is {point.level}, made from a {point.origin['source_level']} file: what that file had "
            "lost before is in every row and can't be seen here."
        )
    return f"The reference is {point.level}, the highest precision measured of this model."
