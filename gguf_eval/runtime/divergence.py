"""KL divergence of a candidate from a reference, token by token, without the reference's whole distributions.

Of the reference's distribution p at a token, the TOP most probable entries are kept exactly, and DRAWS entries drawn
from the rest in proportion to p. With q the candidate's distribution, known in full when it is compared,

    KL(p || q) = sum over the top of p ln(p / q)  +  P E[-ln r],    r = q / p of an entry drawn from the rest,

where P is the rest's mass under p. The mean over the draws is unbiased. So is it after adding b (mean r - Q / P) for
any fixed b, as E[r] is Q / P with Q the rest's mass under q, which is known. b is the regression coefficient that makes
the variance least, fitted over all tokens seen so far: a few hundred tokens x DRAWS at once for a text, so that
fitting biases nothing visible. Small divergences gain most: -ln r and r are then nearly one straight line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gguf_eval.machine import physical_cores
from gguf_eval.runtime.rows import Floats, Rows, in_blocks

TOP = 256
DRAWS = 64
_GROUP = 64
_CELLS = 4096
"""A row's entries are summed in runs of this many before they are drawn from: float32 sums stay exact enough."""


@dataclass(frozen=True)
class Compared:
    """A candidate beside its reference, one value a token."""

    nll: Floats
    """-ln q of the text's token, in nats."""
    reference_nll: Floats
    kld: Floats
    """KL divergence of the candidate from the reference, in nats."""
    kld_variance: Floats
    """Of the estimate in ``kld``, from the draws; 0 where it is exact."""
    same_top: npt.NDArray[np.uint8]
    """1 where both find the same token most probable."""
    confidence: Floats
    """The reference's largest probability."""


@dataclass
class SlopeFit:
    """Sums that b is fitted from, over every row compared so far: few rows alone would fit it to their own noise."""

    together: float = 0.0
    ratios: float = 0.0

    def add(self, surprise: npt.NDArray[np.float64], ratio: npt.NDArray[np.float64]) -> float:
        """Take rows of centred values into the sums; return b."""
        self.together += float((surprise * ratio).sum())
        self.ratios += float((ratio**2).sum())
        return -self.together / self.ratios if self.ratios > 0 else 0.0


def reference_dtype(vocabulary: int, top: int = TOP, draws: int = DRAWS) -> np.dtype[np.void]:
    """One stored token of the reference: 1.9 KB with a vocabulary that 16 bits can number, 2.6 KB with a larger one."""
    number = "<u2" if vocabulary <= 1 << 16 else "<u4"
    top = min(top, vocabulary)
    return np.dtype([
        ("nll", "<f4"), ("tail", "<f4"),
        ("top_ids", number, (top,)), ("top_logprobs", "<f4", (top,)),
        ("draw_ids", number, (draws,)), ("draw_logprobs", "<f4", (draws,)),
    ])  # fmt: skip


def condense(
    rows: Rows,
    dtype: np.dtype[np.void],
    *,
    seed: int,
    threads: int | None = None,
    numbers: Sequence[int] | None = None,
) -> npt.NDArray[np.void]:
    """What is kept of the reference's ``rows``; the most probable entry comes first.

    Draws depend on the seed and the row's number: one of ``numbers``, or its place among all rows unless given.
    """
    numbers = range(rows.start, rows.start + len(rows.targets)) if numbers is None else numbers
    kept = np.zeros(len(rows.targets), dtype)
    top, draws = dtype["top_ids"].shape[0], dtype["draw_ids"].shape[0]

    def reduce(part: slice, block: Floats, scratch: Floats) -> None:
        largest = block.max(axis=1)
        np.subtract(block, largest[:, None], out=scratch)
        leading = np.stack([_leading(row, top) for row in block])
        chosen = block[np.arange(len(block)), rows.targets[part]] - largest
        np.exp(scratch, out=scratch)
        log_total = np.log(scratch.sum(axis=1))
        values = np.take_along_axis(block, leading, 1) - largest[:, None] - log_total[:, None]
        # Descending, the smaller number first among equals, as an argmax finds it.
        order = np.lexsort((leading, -values), axis=1)
        out = kept[part]
        out["nll"] = log_total - chosen
        out["top_ids"] = np.take_along_axis(leading, order, 1)
        out["top_logprobs"] = np.take_along_axis(values, order, 1)
        np.put_along_axis(scratch, leading, 0, 1)
        for i, row in enumerate(scratch):
            random = np.random.default_rng((seed, numbers[part.start + i]))
            entries, mass = _draw(row, random.random((draws,)))
            out["tail"][i] = mass / np.exp(log_total[i])
            out["draw_ids"][i] = entries
            out["draw_logprobs"][i] = block[i, entries] - largest[i] - log_total[i]

    in_blocks(rows.logits, threads or physical_cores(), reduce)
    return kept


def _leading(row: Floats, top: int) -> npt.NDArray[np.int64]:
    """Places of the ``top`` largest entries, in any order.

    The top-th largest of the maxima of groups is a threshold that at least ``top`` entries reach, and few more.
    """
    groups = len(row) // _GROUP
    if groups <= top:
        return np.argpartition(row, len(row) - top)[-top:]
    maxima = row[: groups * _GROUP].reshape(groups, _GROUP).max(axis=1)
    reaching = np.flatnonzero(row >= np.partition(maxima, groups - top)[groups - top])
    chosen: npt.NDArray[np.int64] = reaching[np.argpartition(row[reaching], len(reaching) - top)[-top:]]
    return chosen


def _draw(weights: Floats, uniform: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], float]:
    """Entries drawn with probability in proportion to ``weights``, and the sum of the weights.

    By inversion in two steps, over the sums of runs of entries and within a run, so that only runs are summed up.
    """
    cells = np.add.reduceat(weights, np.arange(0, len(weights), _CELLS), dtype=np.float64)
    bounds = np.cumsum(cells)
    mass = float(bounds[-1])
    if mass <= 0:
        return np.zeros(len(uniform), np.int64), 0.0
    wanted = np.sort(uniform) * mass
    cell = np.minimum(np.searchsorted(bounds, wanted, side="right"), len(cells) - 1)
    entries = np.empty(len(uniform), np.int64)
    for number in np.unique(cell):
        inside = cell == number
        run = np.cumsum(weights[number * _CELLS : (number + 1) * _CELLS], dtype=np.float64)
        below = wanted[inside] - (bounds[number] - cells[number])
        place = np.searchsorted(run, below, side="right")
        last = int(np.searchsorted(run, run[-1], side="left"))  # rounding must not choose an entry of no weight
        entries[inside] = number * _CELLS + np.minimum(place, last)
    return entries, mass


def compare_with_stored(
    rows: Rows, reference: npt.NDArray[np.void], threads: int | None = None, fit: SlopeFit | None = None
) -> Compared:
    """The candidate's ``rows`` beside the reference's stored tokens; ``fit`` carries over where rows come in bits."""
    count, draws = len(rows.targets), reference.dtype["draw_ids"].shape[0]
    nll, tail_q, head = (np.empty(count, np.float32) for _ in range(3))
    same = np.empty(count, np.uint8)
    log_ratio = np.empty((count, draws), np.float32)

    def reduce(part: slice, block: Floats, scratch: Floats) -> None:
        numbers = np.arange(len(block))
        best = block.argmax(axis=1)
        largest = block[numbers, best]
        np.subtract(block, largest[:, None], out=scratch)
        chosen = scratch[numbers, rows.targets[part]]
        known = reference[part]
        in_top = np.take_along_axis(scratch, known["top_ids"].astype(np.int64), 1)
        drawn = np.take_along_axis(scratch, known["draw_ids"].astype(np.int64), 1)
        np.exp(scratch, out=scratch)
        log_total = np.log(scratch.sum(axis=1))[:, None]
        nll[part] = log_total[:, 0] - chosen
        same[part] = best == known["top_ids"][:, 0]
        logq = (in_top - log_total).astype(np.float64)
        logp = known["top_logprobs"].astype(np.float64)
        head[part] = (np.exp(logp) * (logp - logq)).sum(axis=1)
        tail_q[part] = np.maximum(0, 1 - np.exp(logq).sum(axis=1))
        log_ratio[part] = drawn - log_total - known["draw_logprobs"]

    in_blocks(rows.logits, threads or physical_cores(), reduce)
    tail, variance = _tail_divergence(
        log_ratio.astype(np.float64), reference["tail"].astype(np.float64), tail_q, fit or SlopeFit()
    )
    return Compared(
        nll, reference["nll"].astype(np.float32), (head + tail).astype(np.float32), variance.astype(np.float32),
        same, np.exp(reference["top_logprobs"][:, 0]).astype(np.float32),
    )  # fmt: skip


def _tail_divergence(
    log_ratio: npt.NDArray[np.float64], tail: npt.NDArray[np.float64], tail_q: Floats, fit: SlopeFit
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """P (mean(-ln r) + b (mean r - Q / P)) of each row, and the variance of that mean."""
    present = tail > 0
    safe = np.where(present, tail, 1.0)[:, None]
    # Weighted by P already: r itself can be very large where P is very small.
    surprise = np.where(present[:, None], -log_ratio * safe, 0.0)
    ratio = np.where(present[:, None], np.exp(np.minimum(log_ratio, 80.0)) * safe, 0.0)
    centred_s = surprise - surprise.mean(axis=1, keepdims=True)
    centred_r = ratio - ratio.mean(axis=1, keepdims=True)
    slope = fit.add(centred_s, centred_r)
    draws = log_ratio.shape[1]
    estimate = surprise.mean(axis=1) + slope * (ratio.mean(axis=1) - np.where(present, tail_q, 0.0))
    variance = ((centred_s + slope * centred_r) ** 2).sum(axis=1) / max(1, draws - 1) / draws
    return estimate, variance


def compare_exactly(rows: Rows, reference: Rows, threads: int | None = None) -> Compared:
    """The candidate's ``rows`` beside the reference's rows of the same tokens: the whole sum, nothing estimated."""
    count = len(rows.targets)
    nll, reference_nll, kld, confidence = (np.empty(count, np.float32) for _ in range(4))
    same = np.empty(count, np.uint8)

    def reduce(part: slice, block: Floats, scratch: Floats) -> None:
        numbers, targets = np.arange(len(block)), rows.targets[part]
        best = block.argmax(axis=1)
        np.subtract(block, block[numbers, best][:, None], out=scratch)
        chosen = scratch[numbers, targets]
        log_total = np.log(np.exp(scratch).sum(axis=1))
        np.subtract(scratch, log_total[:, None], out=scratch)
        base = reference.logits[part]
        base_best = base.argmax(axis=1)
        logp = base - base[numbers, base_best][:, None]
        base_chosen = logp[numbers, targets]
        base_total = np.log(np.exp(logp).sum(axis=1))
        np.subtract(logp, base_total[:, None], out=logp)
        np.subtract(logp, scratch, out=scratch)
        np.exp(logp, out=logp)
        np.multiply(scratch, logp, out=scratch)
        nll[part], reference_nll[part] = log_total - chosen, base_total - base_chosen
        kld[part] = scratch.sum(axis=1, dtype=np.float64)
        same[part] = best == base_best
        confidence[part] = np.exp(-base_total)

    in_blocks(rows.logits, threads or physical_cores(), reduce)
    return Compared(nll, reference_nll, kld, np.zeros(count, np.float32), same, confidence)
