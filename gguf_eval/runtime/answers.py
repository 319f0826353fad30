"""KL divergence on the tokens of right answers, from the logits that scoring reads anyway.

The reference's rows are condensed and kept (`gguf_eval.runtime.answer_file`); a candidate's are compared with them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gguf_eval.runtime.answer_file import AnswerFile, AnswerKey, tokens_digest
from gguf_eval.runtime.divergence import SlopeFit, compare_with_stored, condense
from gguf_eval.runtime.rows import Rows

_ROWS_A_THREAD = 8
"""Starting a thread takes as long as a few rows."""
NOT_KEPT = "the reference's distributions were not kept: run both points together"
OTHER_TOKENS = "the reference was asked in other tokens"
BROKEN = "a logit is not a finite number"


@dataclass(frozen=True)
class AnswerDivergence:
    """A candidate beside its reference on one right answer."""

    tokens: int
    kld: float | None
    """Mean over the answer's tokens, in nats; None where there is none."""
    kld_variance: float
    """Of the estimate in ``kld``, from the draws."""
    same_top: int
    """Tokens at which both find the same token most probable."""
    reason: str | None = None
    """Why there is none."""


class KeptAnswers:
    """Keeps what is needed of a reference's rows, item by item."""

    def __init__(
        self, file: AnswerFile, key: AnswerKey, wanted: Mapping[int, str], vocabulary: int, threads: int
    ) -> None:
        """``wanted``: the item hash of each request that is its item's right answer, by the request's number."""
        self.wanted = wanted
        self._file, self._vocabulary, self._threads = file, vocabulary, threads
        self._dtype = key.dtype(vocabulary)
        self._digests: dict[int, bytes] = {}
        self._counts: dict[int, int] = {}
        self._rows: dict[int, dict[int, npt.NDArray[np.void]]] = {}

    def begin(self, request: int, inputs: npt.NDArray[np.int32], targets: npt.NDArray[np.int32]) -> bool:
        """Whether the rows of this request are wanted."""
        if request not in self.wanted:
            return False
        self._digests[request] = tokens_digest(self._vocabulary, inputs, targets)
        self._counts[request] = len(targets)
        return True

    def take(self, requests: Sequence[int], places: Sequence[int], rows: Rows) -> None:
        """Finite rows: row i predicts token ``places[i]`` of the answer of ``requests[i]``."""
        pairs = list(zip(requests, places, strict=True))
        numbers = [_number(self.wanted[request], place) for request, place in pairs]
        kept = condense(rows, self._dtype, seed=0, threads=_few(len(pairs), self._threads), numbers=numbers)
        for (request, place), row in zip(pairs, kept, strict=True):
            self._rows.setdefault(request, {})[place] = row

    def finish(self, request: int) -> None:
        """All rows of the request were read: store them; of an answer with a broken row nothing is kept."""
        rows = self._rows.pop(request, {})
        if request in self._counts and len(rows) == self._counts[request]:
            ordered = np.array([rows[place] for place in sorted(rows)], self._dtype)
            self._file.add(self.wanted[request], self._digests[request], ordered)


class ComparedAnswers:
    """Compares a candidate's rows with what is kept of its reference's."""

    def __init__(
        self, file: AnswerFile, key: AnswerKey, wanted: Mapping[int, str], vocabulary: int, threads: int
    ) -> None:
        """``wanted``: as in `KeptAnswers`."""
        self.wanted = wanted
        self._file, self._vocabulary, self._threads = file, vocabulary, threads
        self._dtype = key.dtype(vocabulary)
        self._counts: dict[int, int] = {}
        self._reasons: dict[int, str] = {}
        self._reference: dict[int, npt.NDArray[np.void]] = {}
        self._found: dict[int, list[tuple[float, float, int]]] = {}
        self._fit = SlopeFit()

    def begin(self, request: int, inputs: npt.NDArray[np.int32], targets: npt.NDArray[np.int32]) -> bool:
        """Whether the rows of this request are wanted: whether the reference was asked the same."""
        if request not in self.wanted:
            return False
        self._counts[request] = len(targets)
        kept = self._file.tokens_sha256(self.wanted[request])
        if kept is None:
            self._reasons[request] = NOT_KEPT
        elif kept != tokens_digest(self._vocabulary, inputs, targets):
            self._reasons[request] = OTHER_TOKENS
        return request not in self._reasons

    def take(self, requests: Sequence[int], places: Sequence[int], rows: Rows) -> None:
        """As in `KeptAnswers`."""
        for request in requests:
            if request not in self._reference:
                count = self._counts[request]
                self._reference[request] = self._file.rows(self.wanted[request], self._dtype, count)
        pairs = zip(requests, places, strict=True)
        known = np.array([self._reference[request][place] for request, place in pairs], self._dtype)
        compared = compare_with_stored(rows, known, _few(len(known), self._threads), self._fit)
        values = zip(compared.kld.tolist(), compared.kld_variance.tolist(), compared.same_top.tolist(), strict=True)
        for request, value in zip(requests, values, strict=True):
            self._found.setdefault(request, []).append(value)

    def finish(self, request: int) -> AnswerDivergence | None:
        """What was found; None where the request was refused and never decoded."""
        self._reference.pop(request, None)
        found = self._found.pop(request, [])
        if request not in self._counts:
            return None
        tokens = self._counts[request]
        kld, variance = (sum(value[column] for value in found) for column in (0, 1))
        if len(found) != tokens or not math.isfinite(kld + variance):
            return AnswerDivergence(tokens, None, 0.0, 0, self._reasons.get(request, BROKEN))
        return AnswerDivergence(tokens, kld / tokens, variance / tokens**2, sum(same for _, _, same in found))


def _number(item: str, place: int) -> int:
    """Seeds the draws of a token: the same whenever and beside whatever the item is asked."""
    return int.from_bytes(hashlib.sha256(f"{item} {place}".encode()).digest()[:8], "little")


def _few(rows: int, threads: int) -> int:
    return max(1, min(threads, rows // _ROWS_A_THREAD))
