"""Quality in a terminal: perplexity and divergence over texts, comparisons of points, advice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from gguf_eval.analysis.advice import Advice, Candidate, Limits
from gguf_eval.analysis.comparison import Comparison
from gguf_eval.analysis.divergence import Divergence, Figure, TextSummary
from gguf_eval.analysis.intervals import FEW
from gguf_eval.analysis.models import grouped
from gguf_eval.analysis.versus import Versus
from gguf_eval.report import words
from gguf_eval.report.conclusion import PASSED_OVER, against_text, evidence_text
from gguf_eval.report.escape import printable
from gguf_eval.report.notes import named
from gguf_eval.report.tables import (
    VERDICT_STYLES,
    TableColumn,
    columns_of,
    print_columns,
    print_lines,
    print_rows,
    print_warnings,
    width_of,
)
from gguf_eval.sizes import limit_text

SHOWN = ("median", "90%", "99%", "99.9%")
"""Quantiles of the divergence over tokens."""


def print_texts(summaries: Sequence[tuple[str, TextSummary]], console: Console) -> None:
    """Perplexities and divergences, then the reference's noise floor and what the tables are of."""
    summaries = printable(summaries)
    headers = ["model", "PPL", "bits/byte"]
    if any(summary.divergence for _, summary in summaries):
        headers += ["PPL ratio", "mean KLD", *SHOWN, "max", "same top", "RMS Δp"]
    rows = [
        (
            Text(name),
            _with_interval(summary.perplexity, "{:.3f}"),
            _with_interval(summary.bits_per_byte, "{:.4f}"),
            *(_divergence_cells(summary.divergence) if len(headers) > 3 else ()),
        )
        for name, summary in summaries
    ]
    print_rows(headers, rows, console)
    bands = [_bands(name, summary.divergence) for name, summary in summaries if summary.divergence]
    print_lines(bands + _notes(summaries), console, "dim")


def _divergence_cells(found: Divergence | None) -> list[Text]:
    if found is None:
        return [Text("reference", style="dim"), *([Text("")] * 8)]
    quantiles = [_with_interval(found.quantiles[name], "{:.4f}") for name in SHOWN]
    return [
        _with_interval(found.perplexity_ratio, "{:.4f}"),
        _with_interval(found.mean, "{:.5f}"),
        *quantiles,
        Text(f"{found.maximum:.3f}"),
        _with_interval(found.same_top, "{:.2%}"),
        _with_interval(found.change_rms, "{:.2%}"),
    ]


def _bands(name: str, found: Divergence) -> str:
    parts = [
        f"{band.low:g}–{band.high:g}: {band.mean.value:.4f} ({band.tokens})"
        for band in found.by_confidence
        if band.mean
    ]
    return f"{name}: mean KLD by the reference's largest probability (tokens): {', '.join(parts)}"


def _notes(summaries: Sequence[tuple[str, TextSummary]]) -> list[str]:
    first = summaries[0][1]
    stride = f", stride {first.stride}" if first.stride else ""
    lines = [
        f"{first.text} ({first.text_sha256[:12]}), {first.windows} windows of {first.n_ctx} tokens{stride}, "
        f"{first.tokens} scored; 95 % intervals over windows. KLD in nats."
    ]
    found = [summary.divergence for _, summary in summaries if summary.divergence and summary.windows > 1]
    if any(one.quantiles[name].low is None for one in found for name in SHOWN):
        lines.append("Quantiles without an interval: fewer than 10 tokens lie beyond them.")
    for name, summary in summaries:
        if summary.noise is not None:
            noise = summary.noise
            lines.append(
                f"Noise floor ({name} against itself, decoded in small batches, {noise.tokens} tokens): "
                f"mean KLD {noise.mean:.2g}, 99% {noise.quantile_99:.2g}, same top {noise.same_top:.2%}."
            )
    errors = [summary.divergence for _, summary in summaries if summary.divergence and not summary.divergence.exact]
    if errors:
        share = max(found.estimator_error / found.token_error for found in errors if found.token_error)
        lines.append(
            "KLD is estimated from the reference's top entries and draws from the rest (--exact computes it whole): "
            f"this adds a standard error of at most {share:.2f} times that of the tokens."
        )
    return lines


def print_comparisons(found: Sequence[Versus], console: Console) -> None:
    """One table for each pair: tasks, then all items together, then the mean over tasks; at the end what all say."""
    found = printable(found)
    for versus in found:
        console.print(Text(f"{versus.candidate} against {versus.reference}", style="bold"), soft_wrap=True)
        rows = [(entry.task, entry.comparison) for entry in versus.tasks if entry.refused is None]
        headers = ["task", "points", "95 % interval", "items", "flips", "p", "verdict", "needed"]
        print_rows(headers, [_comparison_row(*row) for row in (*rows, ("all items", versus.overall))], console)
        print_lines(_not_compared(versus), console, "dim")
        macro = f"{words.signed_points(versus.macro.value)} points"
        interval = words.difference_interval(versus.macro)
        print_lines([f"Mean over tasks: {macro} (95 % interval {interval})."], console)
        _print_answers(versus, console)
        console.print()
    print_warnings(dict.fromkeys(line for versus in found for line in versus.warnings), console)
    print_lines([_COMPARISON_NOTE], console, "dim")


_COMPARISON_NOTE = (
    "points: percentage points, on the same items. flips: answers turned wrong and right. p: with Holm's correction. "
    "needed: about so many items would decide."
)


def _comparison_row(name: str, found: Comparison | None) -> tuple[Text, ...]:
    if found is None:
        return Text(name), *[Text(words.MISSING)] * 7
    return (
        Text(name),
        Text(words.signed_points(found.difference.value)),
        Text(words.difference_interval(found.difference)),
        Text(f"{found.difference.n:,}"),
        Text(words.flips(found)),
        Text(words.p_number(found.p_value)),
        Text(found.verdict, style=VERDICT_STYLES[found.verdict]),
        Text("" if found.items_to_settle is None else f"{found.items_to_settle:,}"),
    )


def _not_compared(versus: Versus) -> Iterator[str]:
    """Tasks that could not be compared, and items that were left out."""
    refused = grouped((entry.refused, entry.task) for entry in versus.tasks if entry.refused)
    yield from (f"Not compared: {', '.join(names)} ({why})." for why, names in refused.items())
    counts = [f"{entry.task} {entry.left_out:,}" for entry in versus.tasks if entry.left_out and not entry.refused]
    if counts:
        yield f"Left out, scored at one of the two only: {', '.join(counts)}."


def _print_answers(versus: Versus, console: Console) -> None:
    """The KL divergence on right answers, where the study has it of these two."""
    found = [(entry.task, entry.divergence) for entry in versus.tasks if entry.divergence]
    if not found:
        return
    headers = ["KLD of right answers", "mean", "95 % interval", *found[0][1].quantiles, "same top", "items"]
    left_out = any(divergence.left_out for _, divergence in found)
    rows = []
    for name, divergence in found:
        value, interval = words.divergence(divergence.mean)
        rows.append((
            Text(name),
            Text(value),
            Text(interval or f"of {FEW} or more"),
            *(Text(f"{quantile:.3g}") for quantile in divergence.quantiles.values()),
            Text(f"{words.percent(divergence.same_top)} %"),
            Text(f"{divergence.items:,}"),
            *([Text(f"{divergence.left_out:,}")] * left_out),
        ))  # fmt: skip
    print_rows([*headers, *["left out"] * left_out], rows, console)
    print_lines(["KLD in nats: over the tokens of each item's right answer, then over the items."], console, "dim")


_NAMED = 3
"""Points named as dominating another; the JSON names all."""


def print_advice(advice: Advice, console: Console) -> None:
    """The choice and its reasons, every point with what speaks against it, then what the advice rests on."""
    advice = printable(advice)
    print_lines([_choice(advice)], console, "bold")
    _print_points(advice, console)
    print_lines(_advice_notes(advice), console, "dim")
    print_warnings(advice.warnings, console)


def _print_points(advice: Advice, console: Console) -> None:
    """Every point; what is remarked of it stands in the table or, where there is no room, in lines below it."""
    headers = ["point", "memory", "tokens/s", "score", "loss", "95 % interval", "first in"]
    rows = [_candidate_row(point) for point in advice.points]
    remarks = [_remarks(point, advice) for point in advice.points]
    columns = columns_of(headers, rows)
    whole = [*columns, TableColumn("remarks", [Text(remark) for remark in remarks], "left")]
    if not console.is_terminal or width_of(whole) <= console.width:
        print_columns(whole, console)
        return
    print_columns(columns, console)
    alike = grouped((remark, row[0].plain) for row, remark in zip(rows, remarks, strict=True))
    for remark, names in alike.items():
        console.print(Text(f"{', '.join(names)}: {remark}."))


def _candidate_row(point: Candidate) -> tuple[Text, ...]:
    cost = point.tradeoff
    return (
        Text(cost.name),
        Text(("~" if point.memory_predicted else "") + words.size(cost.memory_bytes)),
        Text(words.rate(cost.tokens_per_second) if cost.tokens_per_second else words.MISSING),
        Text(words.percent(cost.quality)),
        Text(words.signed_points(point.loss.value) if point.loss else words.MISSING),
        Text(words.difference_interval(point.loss) if point.loss else ""),
        Text(f"{point.first_share * 100:.0f} %"),
    )


def _choice(advice: Advice) -> str:
    limits = _limits(advice.limits)
    chosen = advice.choice
    if chosen is None:
        return f"No point keeps to the limits ({limits}). In {advice.none_share * 100:.0f} % of resamples none does."
    cost = chosen.tradeoff
    speed = f", {words.rate(cost.tokens_per_second)} tokens/s" if cost.tokens_per_second else ""
    loss = "its model's reference"
    if chosen.loss is not None:
        loss = f"{words.signed_points(chosen.loss.value)} points lost from {chosen.reference}"
        loss += f" (95 % interval {words.difference_interval(chosen.loss)})"
        known = evidence_text(chosen.evidence)
        loss += f"; {known}" if known else ""
    about = "about " if chosen.memory_predicted else ""
    return (
        f"{cost.name}: {about}{words.size(cost.memory_bytes)}{speed}, score {words.percent(cost.quality)}, {loss}. "
        f"Least memory within {_points(advice.margin)} of the best score under the limits ({limits}); "
        f"first in {chosen.first_share * 100:.0f} % of resamples."
    )


def _limits(limits: Limits) -> str:
    parts = [] if limits.memory_bytes is None else [f"at most {limit_text(limits.memory_bytes)}"]
    if limits.tokens_per_second is not None:
        parts.append(f"at least {limits.tokens_per_second:g} tokens/s")
    if limits.loss is not None:
        parts.append(f"at most {_points(limits.loss)} lost")
    return ", ".join(parts) or "none"


def _points(share: float) -> str:
    """A limit or a margin, as it was typed."""
    number = f"{share * 100:g}"
    return f"{number} point{'s' * (number != '1')}"


def _remarks(point: Candidate, advice: Advice) -> str:
    missed = {"memory": "too much memory", "speed": "too slow", "loss": "loses too much"}
    parts = ["recommended"] if point == advice.choice else []
    parts += [missed[limit] for limit in point.missed]
    if point.undecided:
        parts.append("loss undecided")
    if point.against and point.evidence is not None:
        passed = "passed over: " if point.passed_over else "evidence of loss: "
        parts.append(passed + against_text(point.evidence))
    better = named(point.dominated_by, _NAMED)
    parts.append(f"dominated by {better}" if better else "on the Pareto front")
    return "; ".join(parts)


def _advice_notes(advice: Advice) -> list[str]:
    lines = [
        f"Scores and losses in points, on the {advice.items:,} items that all points answered "
        f"({', '.join(advice.tasks)}; each task counts once). Pareto front of memory, generation speed and score. "
        "first in: share of bootstrap resamples of the items, the same ones for every point, in which it is chosen."
    ]
    if any(point.memory_predicted for point in advice.points):
        lines.append(f"~ memory predicted from the file's header for a context of {advice.context}.")
    if any(point.undecided for point in advice.points):
        lines.append("loss undecided: its interval reaches to both sides of the limit; more items would tell.")
    if any(evidence_text(point.evidence) for point in advice.points):
        lines.append(f"{PASSED_OVER}.")
    return [*lines, *(f"Note: {note}." for note in advice.notes)]


def _with_interval(figure: Figure, form: str) -> Text:
    text = Text(form.format(figure.value))
    if figure.low is not None and figure.high is not None:
        text.append(f"\n{form.format(figure.low)}–{form.format(figure.high)}", style="dim")
    return text
