"""A loaded model and its contexts: the two things of llama.cpp that own memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_eval.errors import EngineError, ModelFileError
from gguf_eval.files.kinds import DIFFUSION, EMBEDDING, ENCODER_DECODER, refusal
from gguf_eval.llama.handles import decode, leading_bos, load_model, open_context, tokenize, written_text
from gguf_eval.llama.library import library
from gguf_eval.llama.log import buffers_in, offloaded_layers
from gguf_eval.machine import physical_cores
from gguf_eval.runtime.devices import offload_parameters
from gguf_eval.runtime.settings import CACHE_TYPES, CPU_ONLY, ContextSettings, MemoryKind, Offload

MAX_SEQUENCES = 256
"""llama.cpp's compiled limit of sequences in one context (LLAMA_MAX_SEQ)."""
_SPARSE_ATTENTION = ("attention.indexer.", "attention.compress_")
"""Begin metadata keys of models whose caches hold more than keys and values."""


class Model:
    """A GGUF loaded by llama.cpp. Use as a context manager; closing frees the weights."""

    def __init__(self, path: Path, *, offload: Offload = CPU_ONLY, no_alloc: bool = False) -> None:
        """Load ``path`` with the layers where ``offload`` says; ``no_alloc`` only works out what memory it would take.

        Without a number of layers all are offloaded: `runtime.placement.open_model` chooses one. Raises `EngineError`
        when llama.cpp refuses, `ModelFileError` for another kind of model, `UsageError` for a device that is not there.
        """
        self._llama = library()
        params = self._llama.llama_model_default_params()
        self._kept = offload_parameters(params, offload)
        params.no_alloc = no_alloc
        if no_alloc:
            params.load_mode = self._llama.LLAMA_LOAD_MODE_NONE  # a mapped file can't be left unread
        self.handle, log = load_model(path, params)
        self.buffers = buffers_in(log)
        self.layers_on_devices, self.layer_count = offloaded_layers(log) or (0, 0)
        self._check_continues_text(path)
        self.decodes_together: bool | None = None
        """Whether sequences may share a decode; None until `gguf_eval.runtime.probe` has seen."""
        self.vocab = self._llama.llama_model_get_vocab(self.handle)
        self.vocab_size: int = self._llama.llama_vocab_n_tokens(self.vocab)
        self.trained_context: int = self._llama.llama_model_n_ctx_train(self.handle)

    def _check_continues_text(self, path: Path) -> None:
        """Refuse what the header did not tell: llama.cpp would abort, or answer with numbers that mean nothing."""
        llama = self._llama
        kind = None
        if llama.llama_model_is_diffusion(self.handle):
            kind = DIFFUSION
        elif not llama.llama_model_has_decoder(self.handle):
            kind = EMBEDDING
        elif llama.llama_model_has_encoder(self.handle):
            kind = ENCODER_DECODER
        if kind is not None:
            self.close()
            raise ModelFileError(refusal(path, kind))

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model; contexts opened from it must be closed before."""
        if self.handle:
            self._llama.llama_model_free(self.handle)
            self.handle = None

    @functools.cached_property
    def memory(self) -> MemoryKind:
        """What kind of memory its contexts have."""
        llama = self._llama
        if llama.llama_model_is_recurrent(self.handle) or llama.llama_model_is_hybrid(self.handle):
            return MemoryKind.RECURRENT
        if self.window or any(key.startswith(_SPARSE_ATTENTION) for key in self._metadata_keys()):
            return MemoryKind.WINDOWED
        return MemoryKind.PLAIN

    @functools.cached_property
    def window(self) -> int:
        """Tokens that layers with a sliding window look back; 0 where there are none."""
        return int(self._llama.llama_model_n_swa(self.handle))

    @functools.cached_property
    def architecture(self) -> str:
        """llama.cpp's name of the model family."""
        read = functools.partial(self._llama.llama_model_meta_val_str, self.handle, b"general.architecture")
        return written_text(read).decode(errors="replace")

    def _metadata_keys(self) -> set[str]:
        """The file's metadata keys without the architecture's name."""
        keys = set()
        for place in range(self._llama.llama_model_meta_count(self.handle)):
            key = written_text(functools.partial(self._llama.llama_model_meta_key_by_index, self.handle, place))
            keys.add(key.decode(errors="replace").partition(".")[2])
        return keys

    def context_bytes(self, settings: ContextSettings) -> dict[str, int]:
        """What a context takes, by what it holds (``KV``, ``RS``, ``output``, ``compute``), from opening one."""
        with self.open_context(settings) as context:
            held: dict[str, int] = {}
            for buffer in context.buffers:
                held[buffer.holds] = held.get(buffer.holds, 0) + buffer.size_bytes
            return held

    @property
    def adds_bos(self) -> bool:
        """Whether the file's metadata asks for a beginning-of-sequence token before every text, and there is one."""
        return leading_bos(self.vocab) is not None

    @property
    def prefix_token(self) -> int:
        """The token that stands for an empty context: BOS, or EOS where the vocabulary has no BOS."""
        for token in (self._llama.llama_vocab_bos(self.vocab), self._llama.llama_vocab_eos(self.vocab)):
            if token >= 0:
                return int(token)
        raise EngineError("the model has neither a BOS nor an EOS token, so an empty context can't be scored")

    @property
    def eos_token(self) -> int | None:
        """The end-of-sequence token, where the vocabulary has one."""
        token = int(self._llama.llama_vocab_eos(self.vocab))
        return token if token >= 0 else None

    @property
    def chat_template(self) -> str:
        """The file's default chat template, empty where it has none."""
        found = self._llama.llama_model_chat_template(self.handle, None)
        return bytes(found).decode("utf-8", errors="replace") if found else ""

    def token_text(self, token: int) -> str:
        """How the vocabulary spells a token; control tokens as they stand in chat templates."""
        return bytes(self._llama.llama_vocab_get_text(self.vocab, token)).decode("utf-8", errors="replace")

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``. ``add_special`` adds BOS where the file's metadata asks for it, and never the EOS or
        SEP that some files ask for too: what is asked is always continued. ``parse_special`` reads control tokens
        spelt out in the text (only for chat templates).
        """
        lead = [self.prefix_token] if add_special and self.adds_bos else []
        return lead + tokenize(self.vocab, text, parse_special=parse_special)

    def open_context(self, settings: ContextSettings) -> Context:
        """Open a context; raises `EngineError` when its memory can't be had."""
        return Context(self, settings)


class Context:
    """A llama.cpp context: key-value cache, compute buffers, logits of the last decode."""

    def __init__(self, model: Model, settings: ContextSettings) -> None:
        self._llama = library()
        self.model = model
        self.settings = settings
        threads = settings.threads or physical_cores()
        params = self._llama.llama_context_default_params()
        params.n_ctx = settings.n_ctx
        params.n_batch = settings.batch_size
        params.n_ubatch = min(settings.ubatch_size, settings.batch_size)
        params.n_seq_max = settings.max_sequences
        params.n_threads = threads
        params.n_threads_batch = threads
        params.flash_attn_type = settings.flash_attention
        params.type_k = CACHE_TYPES[settings.cache_type_k.upper()]
        params.type_v = CACHE_TYPES[settings.cache_type_v.upper()]
        params.kv_unified = settings.unified
        params.swa_full = settings.swa_full
        params.no_perf = True
        self.handle, log = open_context(model.handle, params)
        self.buffers = buffers_in(log)
        self.memory = self._llama.llama_get_memory(self.handle)

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the context."""
        if self.handle:
            self._llama.llama_free(self.handle)
            self.handle = None

    def decode(
        self,
        tokens: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        sequences: Sequence[Sequence[int]],
        outputs: npt.NDArray[np.int8],
    ) -> None:
        """Run one llama_decode over ``n`` tokens and wait for it.

        tokens, positions, outputs: arrays of n; sequences: for each token the sequence ids that hold it, of which
        the first decides what it attends to. Rows marked in ``outputs`` can be read with `logits` afterwards.
        """
        decode(self.handle, tokens, positions, sequences, outputs)

    def logits(self, rows: int) -> npt.NDArray[np.float32]:
        """The (rows, vocabulary) logits of the last decode, in batch order; valid until the next decode."""
        pointer: Any = self._llama.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(pointer, shape=(rows, self.model.vocab_size))

    def last_logits(self) -> npt.NDArray[np.float32]:
        """The (vocabulary,) logits of the last row that was asked for; valid until the next decode."""
        pointer: Any = self._llama.llama_get_logits_ith(self.handle, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.model.vocab_size,))

    def cut(self, length: int) -> bool:
        """Drop what comes after the first ``length`` positions; False where this kind of memory can't."""
        if self.model.memory is not MemoryKind.PLAIN:
            return False  # a window's cells may have been used again, and a recurrent state has no past
        return bool(self._llama.llama_memory_seq_rm(self.memory, -1, length, -1))

    def clear(self) -> None:
        """Forget every sequence."""
        self._llama.llama_memory_clear(self.memory, True)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Let ``target`` share the first ``length`` cells of ``source``; no data is moved. Plain memory only."""
        self._llama.llama_memory_seq_cp(self.memory, source, target, 0, length)
        self._check_held(target, length)

    def copy_whole(self, source: int, target: int, length: int) -> None:
        """Let ``target`` continue from where ``source`` stands, at ``length`` tokens. Any memory can do this."""
        self._llama.llama_memory_seq_cp(self.memory, source, target, -1, -1)
        self._check_held(target, length)

    def drop(self, sequence: int) -> None:
        """Forget a sequence; cells that no other holds become free."""
        self._remove(sequence, -1)

    def keep_only(self, sequence: int, length: int) -> None:
        """Drop everything but the first ``length`` positions of ``sequence``. Plain memory only."""
        self._llama.llama_memory_seq_keep(self.memory, sequence)
        self._remove(sequence, length)
        self._check_held(sequence, length)

    def _remove(self, sequence: int, start: int) -> None:
        if not self._llama.llama_memory_seq_rm(self.memory, sequence, start, -1):
            raise EngineError(f"llama.cpp can't drop positions from {start} on in this model's memory")

    def _check_held(self, sequence: int, length: int) -> None:
        """Raise `EngineError` unless the memory has what a token at position ``length`` of ``sequence`` looks at."""
        first = self._llama.llama_memory_seq_pos_min(self.memory, sequence)
        last = self._llama.llama_memory_seq_pos_max(self.memory, sequence)
        # A recurrent state stands for all positions before it; a window needs its own length of them.
        reach = {MemoryKind.PLAIN: 0, MemoryKind.WINDOWED: max(0, length - self.model.window)}
        if last != length - 1 or (length and first > reach.get(self.model.memory, last)):
            raise EngineError(
                f"llama.cpp's memory holds positions {first} to {last} of a sequence where {length} were decoded"
            )
