"""What speaks for or against a level beside its scores, in words."""

from __future__ import annotations

from gguf_eval.analysis.divergence import Figure
from gguf_eval.analysis.evidence import ANSWERS, LIMIT, LOG_SCORE, Evidence
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.report import words

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


def evidence(found: Evidence) -> str:
    """Everything that is known, in one clause; empty where nothing is."""
    parts = [f"divergence {_place(name)} {_figure(figure)}" for name, figure in found.divergences.items()]
    if found.log_score is not None:
        parts.append(f"log score {_difference(found.log_score)}")
    return ", ".join(parts)


def against(found: Evidence) -> str:
    """What of it speaks against the point."""
    shown = {name: figure for name, figure in found.divergences.items() if name in found.against}
    return evidence(Evidence(shown, found.log_score if LOG_SCORE in found.against else None))


def _place(name: str) -> str:
    return f"on {name}" if name == ANSWERS else f"over {name}"


def _figure(figure: Figure) -> str:
    value, interval = words.divergence(figure)
    return f"{value} nats ({interval})" if interval else f"{value} nats (no interval)"


def _difference(found: Estimate) -> str:
    value, low, high = (_signed(number) for number in (found.value, found.low, found.high))
    return f"{value} nats ({low} to {high})"


def _signed(number: float) -> str:
    text = f"{abs(number):.3f}"
    return text if not float(text) else ("+" if number > 0 else words.MINUS) + text
