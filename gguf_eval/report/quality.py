"""Perplexity and divergence over texts, and advice, in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from gguf_eval.analysis.advice import Advice, Candidate, Limits
from gguf_eval.analysis.divergence import Divergence, Figure, TextSummary
from gguf_eval.report import evidence_words, words
from gguf_eval.report.escape import printable
from gguf_eval.report.tables import TableColumn, columns_of, print_columns, print_rows, print_warnings, width_of
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
    for name, summary in summaries:
        if summary.divergence is not None:
            console.print(_bands(name, summary.divergence), style="dim", soft_wrap=not console.is_terminal)
    for line in _notes(summaries):
        console.print(Text(line), style="dim", soft_wrap=not console.is_terminal)


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


def _bands(name: str, found: Divergence) -> Text:
    parts = [
        f"{band.low:g}–{band.high:g}: {band.mean.value:.4f} ({band.tokens})"
        for band in found.by_confidence
        if band.mean
    ]
    return Text(f"{name}: mean KLD by the reference's largest probability (tokens): {', '.join(parts)}")


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


_NAMED = 3
"""Points named as dominating another; the JSON names all."""


def print_advice(advice: Advice, console: Console) -> None:
    """The choice and its reasons, every point with what speaks against it, then what the advice rests on."""
    advice = printable(advice)
    wide = not console.is_terminal
    console.print(Text(_choice(advice), style="bold"), soft_wrap=wide)
    _print_points(advice, console)
    for line in _advice_notes(advice):
        console.print(Text(line), style="dim", soft_wrap=wide)
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
    alike: dict[str, list[str]] = {}
    for row, remark in zip(rows, remarks, strict=True):
        alike.setdefault(remark, []).append(row[0].plain)
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
        known = evidence_words.evidence(chosen.evidence) if chosen.evidence else ""
        loss += f"; {known}" if known else ""
    about = "about " if chosen.memory_predicted else ""
    return (
        f"{cost.name}: {about}{words.size(cost.memory_bytes)}{speed}, score {words.percent(cost.quality)}, {loss}. "
        f"Least memory within {_points(advice.margin)} of the best score under the limits ({limits}); "
        f"first in {chosen.first_share * 100:.0f} % of resamples."
    )


def _limits(limits: Limits) -> str:
    parts = []
    if limits.memory_bytes is not None:
        parts.append(f"at most {limit_text(limits.memory_bytes)}")
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
        parts.append(passed + evidence_words.against(point.evidence))
    better, more = point.dominated_by[:_NAMED], len(point.dominated_by) - _NAMED
    others = f" and {more} more" if more > 0 else ""
    parts.append(f"dominated by {', '.join(better)}{others}" if better else "on the Pareto front")
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
    if any(point.evidence and evidence_words.evidence(point.evidence) for point in advice.points):
        lines.append(f"{evidence_words.PASSED_OVER}.")
    return [*lines, *(f"Note: {note}." for note in advice.notes)]


def _with_interval(figure: Figure, form: str) -> Text:
    text = Text(form.format(figure.value))
    if figure.low is not None and figure.high is not None:
        text.append(f"\n{form.format(figure.low)}–{form.format(figure.high)}", style="dim")
    return text
