"""Runs a model over a text, window by window, by llama-perplexity's conventions.

The text is tokenised once, as a whole, without its last line feed. Window i holds the tokens from i x n_ctx on; its
first token is replaced by BOS where the model adds one; the tokens after the first half are scored, without the first
of them (n_ctx / 2 - 1 a window). With a stride, windows begin every ``stride`` tokens, keep their first token, and
their last ``stride`` tokens are scored: each with at least n_ctx - stride tokens before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gguf_eval.errors import UsageError
from gguf_eval.llama.library import library
from gguf_eval.machine import physical_cores
from gguf_eval.runtime.model import MAX_SEQUENCES, Context, Model
from gguf_eval.runtime.probe import decodes_together
from gguf_eval.runtime.rows import Floats, Rows, in_blocks
from gguf_eval.runtime.settings import ContextSettings, EngineSettings

_UBATCH = 512


@dataclass(frozen=True)
class Windows:
    """A text cut for scoring."""

    tokens: npt.NDArray[np.int32]
    """(windows, n_ctx) tokens as they are decoded."""
    targets: npt.NDArray[np.int32]
    """(windows, scored) tokens whose probability is read."""
    first: int
    """Place in a window of the first token whose logits are read; the rows to read are ``scored`` in a row."""

    @property
    def scored(self) -> int:
        """Tokens of a window whose probability is read."""
        return int(self.targets.shape[1])

    @property
    def sha256(self) -> str:
        """Of tokens and targets: two models with the same see and predict the same tokens."""
        digest = hashlib.sha256(np.ascontiguousarray(self.tokens, "<i4").tobytes())
        digest.update(np.ascontiguousarray(self.targets, "<i4").tobytes())
        return digest.hexdigest()


def plan_windows(
    model: Model, text: str, *, n_ctx: int = 512, chunks: int | None = None, stride: int | None = None
) -> Windows:
    """Cut ``text`` into windows of ``n_ctx`` tokens, at most ``chunks`` of them.

    Raises `UsageError` where the text is shorter than one window or the window longer than the model's context.
    """
    if n_ctx > model.trained_context:
        raise UsageError(
            f"windows of {n_ctx} tokens don't fit the model's context of {model.trained_context}; lower -c"
        )
    if n_ctx < 8 or (stride is not None and not 0 < stride < n_ctx):
        raise UsageError(f"windows of 8 tokens or more and a stride below them are needed; found {n_ctx} and {stride}")
    tokens = np.array(model.tokenize(text.removesuffix("\n")), np.int32)
    step = stride or n_ctx
    most = -(-(len(tokens) - n_ctx) // step) if stride else len(tokens) // n_ctx
    count = min(most, chunks) if chunks else most
    if count < 1:
        raise UsageError(
            f"a text of more than {n_ctx} tokens is needed, found {len(tokens)}; lower -c or take a longer one"
        )
    cut = np.lib.stride_tricks.sliding_window_view(tokens, n_ctx)[::step][:count].copy()
    first = n_ctx - stride - 1 if stride else n_ctx // 2
    targets = cut[:, first + 1 :].copy()
    if model.adds_bos and not stride:
        cut[:, 0] = model.prefix_token
    return Windows(cut, targets, first)


def open_window_context(
    model: Model,
    n_ctx: int,
    *,
    batch_size: int = 512,
    threads: int | None = None,
    engine: EngineSettings | None = None,
) -> Context:
    """A context that holds as many windows as a batch does, one at least, where the model can be asked for several."""
    together = min(MAX_SEQUENCES, max(1, batch_size // n_ctx))
    engine = engine or EngineSettings()
    if together > 1 and not decodes_together(model, engine, threads or physical_cores()):
        together = 1
    settings = ContextSettings(
        n_ctx=together * n_ctx,
        batch_size=min(batch_size, together * n_ctx),
        ubatch_size=min(_UBATCH, batch_size),
        max_sequences=together,
        threads=threads,
    )
    return model.open_context(settings.with_engine(engine))


def decode_windows(context: Context, windows: Windows) -> Iterator[Rows]:
    """Decode all windows: several in one batch where they fit, in several batches where one is longer than a batch.

    Only the scored rows are asked for. Memory does not grow with the number of windows.
    """
    count, n_ctx = windows.tokens.shape
    batch = context.settings.batch_size
    together = context.settings.max_sequences
    wanted = np.zeros(n_ctx, np.int8)
    wanted[windows.first : windows.first + windows.scored] = 1
    places = np.arange(n_ctx, dtype=np.int32)
    row = 0
    for window in range(0, count, together):
        members = range(window, min(window + together, count))
        context.clear()
        for begin in range(0, n_ctx, batch) if together == 1 else (0,):
            part = slice(begin, min(begin + batch, n_ctx)) if together == 1 else slice(0, n_ctx)
            outputs = np.tile(wanted[part], len(members))
            context.decode(
                windows.tokens[members.start : members.stop, part].ravel(),
                np.tile(places[part], len(members)),
                [(number,) for number in range(len(members)) for _ in range(part.start, part.stop)],
                outputs,
            )
            read = int(outputs.sum())
            if read:
                targets = windows.targets.ravel()[row : row + read]
                yield Rows(row, context.logits(read), targets)
                row += read


def negative_log_likelihoods(rows: Rows, threads: int | None = None) -> Floats:
    """-ln p of each row's target, in nats."""
    result = np.empty(len(rows.targets), np.float32)

    def reduce(part: slice, block: Floats, scratch: Floats) -> None:
        top = block.max(axis=1)
        np.subtract(block, top[:, None], out=scratch)
        np.exp(scratch, out=scratch)
        chosen = block[np.arange(len(block)), rows.targets[part]]
        result[part] = np.log(scratch.sum(axis=1)) - (chosen - top)

    in_blocks(rows.logits, threads or physical_cores(), reduce)
    return result


def target_bytes(model: Model, windows: Windows) -> npt.NDArray[np.int64]:
    """Bytes of text that each window's scored tokens stand for."""
    unique, inverse = np.unique(windows.targets, return_inverse=True)
    llama = library()
    # Asked with no room, llama.cpp answers with the length it needs, negated.
    lengths = np.array(
        [abs(llama.llama_token_to_piece(model.vocab, int(token), None, 0, 0, True)) for token in unique], np.int64
    )
    totals: npt.NDArray[np.int64] = lengths[inverse].reshape(windows.targets.shape).sum(axis=1)
    return totals
