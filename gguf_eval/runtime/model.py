"""A loaded model and its contexts: the two things of llama.cpp that own memory."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_eval.errors import EngineError, ModelFileError
from gguf_eval.files.engine_reasons import context_failure, decode_failure, load_failure
from gguf_eval.files.kinds import DIFFUSION, EMBEDDING, ENCODER_DECODER, refusal
from gguf_eval.machine import physical_cores
from gguf_eval.runtime.bindings import library
from gguf_eval.runtime.devices import offload_parameters
from gguf_eval.runtime.log import buffers_in, captured_log, offloaded_layers, take_reason, watch_log
from gguf_eval.runtime.settings import CACHE_TYPES, CPU_ONLY, EngineSettings, Offload

MAX_SEQUENCES = 256
"""llama.cpp's compiled limit of sequences in one context (LLAMA_MAX_SEQ)."""
_SPARSE_ATTENTION = ("attention.indexer.", "attention.compress_")
"""Begin metadata keys of models whose caches hold more than keys and values."""


@dataclass(frozen=True)
class ContextSettings:
    """How a context is opened. The defaults are those of llama.cpp's tools (common/common.h).

    They differ from `llama_context_default_params` in ``swa_full``, and where this package opens a context for many
    sequences: ``unified`` and the batch's size are said by who opens it. Threads are all physical cores, as there. What
    both leave alone stays alone: RoPE and YaRN by the file, ``offload_kqv`` and ``op_offload`` on, no embeddings,
    pooling and attention by the file, no recurrent snapshots for rolling back (``n_rs_seq`` 0).
    """

    n_ctx: int
    """Cells of the key-value cache, shared by all sequences."""
    batch_size: int = 2048
    """Most tokens of one llama_decode."""
    ubatch_size: int = 512
    """Most tokens computed at once."""
    max_sequences: int = 1
    threads: int | None = None
    flash_attention: int = -1
    """1 on, 0 off, -1 what llama.cpp decides for the device."""
    cache_type_k: str = "F16"
    cache_type_v: str = "F16"
    unified: bool = True
    """One pool of cells that sequences share, or ``n_ctx / max_sequences`` cells of its own for each."""
    swa_full: bool = False
    """Whether layers with a sliding window keep cells for the whole context. The library's own default is True; its
    tools (llama-cli, llama-server, llama-bench, llama-perplexity) say False, and so does what a user runs."""

    def with_engine(self, engine: EngineSettings) -> ContextSettings:
        """The same with the cache types and flash attention that a job was told."""
        return replace(
            self,
            flash_attention=engine.flash_attention,
            cache_type_k=engine.cache_type_k,
            cache_type_v=engine.cache_type_v,
        )


class MemoryKind(Enum):
    """What llama.cpp remembers of the tokens of a sequence, and so what sequences may share."""

    PLAIN = "plain"
    """Keys and values of every token: a sequence can share any prefix of another, and be cut to any length."""
    WINDOWED = "windowed"
    """The same, but some layers keep only what their window still reaches."""
    RECURRENT = "recurrent"
    """A state that every token changes, in some layers or in all: only a copy of the whole can be continued."""


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
        watch_log()
        take_reason()
        with captured_log() as log:
            self.handle = self._llama.llama_model_load_from_file(os.fsencode(path), params)
        self.buffers = buffers_in(log)
        self.layers_on_devices, self.layer_count = offloaded_layers(log) or (0, 0)
        if not self.handle:
            raise EngineError(f"{path}: llama.cpp can't load this model: {load_failure(take_reason())}")
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        buffer = ctypes.create_string_buffer(128)
        self._llama.llama_model_meta_val_str(self.handle, b"general.architecture", buffer, len(buffer))
        return buffer.value.decode("utf-8", errors="replace")

    def _metadata_keys(self) -> set[str]:
        """The file's metadata keys without the architecture's name."""
        keys = set()
        buffer = ctypes.create_string_buffer(256)
        for place in range(self._llama.llama_model_meta_count(self.handle)):
            self._llama.llama_model_meta_key_by_index(self.handle, place, buffer, len(buffer))
            keys.add(buffer.value.decode("utf-8", errors="replace").partition(".")[2])
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
        return bool(self._llama.llama_vocab_get_add_bos(self.vocab)) and self._llama.llama_vocab_bos(self.vocab) >= 0

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
        data = text.encode("utf-8")
        # A token is at least one byte; a space before the first needs one more place.
        capacity = len(data) + 2
        buffer = (ctypes.c_int32 * capacity)()
        count = self._llama.llama_tokenize(self.vocab, data, len(data), buffer, capacity, False, parse_special)
        if count < 0:  # a tokenizer that adds more (space prefix and normalisation can)
            capacity = -count
            buffer = (ctypes.c_int32 * capacity)()
            count = self._llama.llama_tokenize(self.vocab, data, len(data), buffer, capacity, False, parse_special)
        if count < 0:
            raise EngineError(f"llama.cpp can't tokenise a text of {len(data)} bytes")
        return lead + buffer[:count]

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
        take_reason()
        with captured_log() as log:
            self.handle = self._llama.llama_init_from_model(model.handle, params)
        self.buffers = buffers_in(log)
        if not self.handle:
            raise EngineError(
                f"llama.cpp can't open a context of {settings.n_ctx} tokens: {context_failure(take_reason())}"
            )
        self.memory = self._llama.llama_get_memory(self.handle)

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        counts = np.fromiter((len(ids) for ids in sequences), np.int32, len(sequences))
        ids = np.fromiter((i for group in sequences for i in group), np.int32, int(counts.sum()))
        starts = np.zeros(len(sequences), np.uint64)
        starts[1:] = np.cumsum(counts[:-1], dtype=np.uint64) * np.uint64(ids.itemsize)
        pointers = np.ascontiguousarray(starts + np.uint64(ids.ctypes.data), dtype=np.uintp)
        batch = self._llama.llama_batch()
        batch.n_tokens = len(tokens)
        batch.token = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.pos = positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.n_seq_id = counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.seq_id = pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
        batch.logits = outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        status = self._llama.llama_decode(self.handle, batch)
        if status != 0:
            raise EngineError(f"llama_decode failed with status {status}: {decode_failure(take_reason())}")
        self.synchronize()

    def synchronize(self) -> None:
        """Wait until the last decode is finished."""
        self._llama.llama_synchronize(self.handle)

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
