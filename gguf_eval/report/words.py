"""How figures and findings are put into words. Formats only; computes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from gguf_eval.analysis.comparison import Comparison
from gguf_eval.analysis.divergence import Figure
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import PointSummary, SpeedSummary

MINUS = "−"
MISSING = "–"
STATUS_MARKS = {"failed": "✗ ", "partial": "… ", "complete": "  "}
VERDICT_MARKS = {"worse": "▼", "better": "▲", "same": "=", "identical": "≡", "undecided": " "}


def size(count: int | None) -> str:
    """Bytes in the unit people compare: megabytes below ten gigabytes, gigabytes above (powers of ten)."""
    if not count:
        return MISSING
    if count < 10_000_000:
        return f"{count / 1e6:.2f} MB"
    return f"{count / 1e6:,.0f} MB" if count < 10_000_000_000 else f"{count / 1e9:.1f} GB"


def parameters(points: Sequence[PointSummary]) -> str:
    """How many weights the model has."""
    count = max(point.parameters for point in points)
    if not count:
        return f"{MISSING} parameters"  # no file could be made
    return f"{count / 1e9:.1f} B parameters" if count >= 1e9 else f"{count / 1e6:.0f} M parameters"


def rate(tokens_per_second: float) -> str:
    """Tokens a second, to three figures or the unit."""
    return f"{tokens_per_second:,.0f}" if tokens_per_second >= 100 else f"{tokens_per_second:.1f}"


def deviation(speed: SpeedSummary) -> str:
    """The deviation of a rate, as exact as the rate."""
    if speed.stdev is None:
        return "n=1"
    return f"±{speed.stdev:.0f}" if speed.tokens_per_second >= 100 else f"±{speed.stdev:.1f}"


def duration(seconds: float) -> str:
    """A time that is estimated, no more exact than it can be."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {round(seconds, -1):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"about {minutes} min"
    if minutes < 48 * 60:
        return f"about {minutes // 60} h {minutes % 60 // 10 * 10:02d} min"
    return f"about {minutes / 60 / 24:.0f} days"


def moment(stored: str) -> str:
    """A date and time, as people write it."""
    return stored.replace("T", " ").replace("+00:00", " UTC")


def clock_time(seconds: float) -> str:
    """A time that has passed, as a clock shows it."""
    whole = int(seconds)
    hours = f"{whole // 3600}:{whole % 3600 // 60:02d}" if whole >= 3600 else f"{whole // 60}"
    return f"{hours}:{whole % 60:02d}"


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{share * 100:.1f}"


def signed_points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return signed(share * 100, 1)


def signed(value: float, digits: int) -> str:
    """A number with its sign; without one where it rounds to nothing."""
    text = f"{abs(value):.{digits}f}"
    return text if not float(text) else ("+" if value > 0 else MINUS) + text


def interval(estimate: Estimate) -> str:
    """The interval of a share, in per cent."""
    return f"{estimate.low * 100:.0f}–{estimate.high * 100:.0f}"


def difference_interval(estimate: Estimate) -> str:
    """The interval of a difference, in percentage points."""
    return f"{signed_points(estimate.low)} to {signed_points(estimate.high)}"


def perplexity(figure: Figure) -> tuple[str, str]:
    """A perplexity, and its interval (empty where there is none)."""
    return f"{figure.value:.2f}", "" if figure.low is None else f"{figure.low:.1f}–{figure.high:.1f}"


def divergence(figure: Figure) -> tuple[str, str]:
    """A mean KL divergence in nats to three figures, and its interval (empty where there is none)."""
    digits = _digits(figure.value)
    interval = "" if figure.low is None else f"{figure.low:.{digits}f}–{figure.high:.{digits}f}"
    return f"{figure.value:.{digits}f}", interval


def nats(divergence: float) -> str:
    """A KL divergence in nats, to three figures."""
    return f"{divergence:.{_digits(divergence)}f}"


def _digits(divergence: float) -> int:
    return 3 if divergence >= 0.1 else 4 if divergence >= 0.01 else 5


def aggregate(name: str, value: float) -> str:
    """A figure over all items of a task: a perplexity as it is, everything else is a share."""
    return f"{value:.2f}" if name == "perplexity" else percent(value)


def p_value(value: float) -> str:
    """A p-value as people write it in a sentence."""
    number = p_number(value)
    return f"p {number}" if number.startswith("<") else f"p = {number}"


def p_number(value: float) -> str:
    """A p-value as it stands in a table."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def flips(found: Comparison) -> str:
    """How many answers turned wrong, and how many right."""
    return f"{MINUS}{found.lost:,} +{found.gained:,}"


def several(count: int, thing: str) -> str:
    """A count of things that an s makes many of."""
    return f"{count:,} {thing}{'s' * (count != 1)}"
