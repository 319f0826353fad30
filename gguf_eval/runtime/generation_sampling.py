"""Chooses the next token of an answer from its logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class TokenChooser:
    """Chooses the tokens of one answer; the n-th choice depends on its seed, n and the logits, on nothing else."""

    def __init__(self, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0) -> None:
        """``temperature`` 0 takes the most probable token; ``top_p`` keeps the fewest tokens that hold that share."""
        self._temperature = temperature
        self._top_p = top_p
        self._random = np.random.Generator(np.random.Philox(seed)) if temperature > 0 else None

    def choose(self, logits: npt.NDArray[np.float32]) -> int | None:
        """The next token, given the logits of the whole vocabulary; None where they are broken.

        They are where one is NaN, which numpy takes for the largest, where one is infinite, or all are minus infinity.
        """
        best = int(logits.argmax())
        if not np.isfinite(logits[best]):
            return None
        if self._random is None:
            return best
        scaled = logits.astype(np.float64) / self._temperature
        weights = np.exp(scaled - scaled.max())
        order = np.argsort(-weights, kind="stable")
        shares = np.cumsum(weights[order])
        kept = int(np.searchsorted(shares, self._top_p * shares[-1])) + 1
        point = self._random.random() * shares[min(kept, len(shares)) - 1]
        return int(order[min(np.searchsorted(shares, point, side="right"), len(order) - 1)])
