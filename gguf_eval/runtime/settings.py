"""How a model is run: which layers are on which devices, how its cache is stored. Pure data: no llama.cpp here."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Literal

ANCHOR = "anchor "
"""Begins the name of a speed test that is repeated at the end."""
SPLIT_MODES = ("none", "layer", "row", "tensor")
"""llama.cpp's ways to spread a model over devices, in the order of its enumeration."""

CACHE_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "IQ4_NL": 20, "BF16": 30,
}  # fmt: skip
"""Types the KV cache can be stored in, with the numbers that the GGUF format fixes for them."""


@dataclass(frozen=True)
class Offload:
    """Where the layers of a model are computed."""

    gpu_layers: int | None = None
    """Layers on devices, counted from the output; -1 all, None as many as fit."""
    devices: tuple[str, ...] = ()
    """Names of the devices to use, as `doctor` lists them; none means all there are."""
    split_mode: str = "layer"
    tensor_split: tuple[float, ...] = ()
    """Each device's share of the layers; none means llama.cpp's own, by free memory."""
    rpc: tuple[str, ...] = ()
    """HOST:PORT of llama.cpp RPC servers, whose devices are added to this machine's."""
    mmap: bool = True
    """Map the weights from the file instead of reading them."""


CPU_ONLY = Offload(gpu_layers=0)


@dataclass(frozen=True)
class EngineSettings:
    """What every job that opens a model is told beside the model."""

    offload: Offload = field(default_factory=Offload)
    cache_type_k: str = "F16"
    cache_type_v: str = "F16"
    flash_attention: int = -1
    """1 on, 0 off, -1 what llama.cpp decides for the device."""
    max_memory_bytes: int | None = None
    """The worker is not started, or ended, where it takes more; None means the machine's memory."""

    @property
    def answer_settings(self) -> dict[str, Any]:
        """What of this can change answers and differs from the default: part of a point's identity."""
        settings: dict[str, Any] = {}
        if self.cache_name:
            settings |= {"cache_type_k": self.cache_type_k, "cache_type_v": self.cache_type_v}
        if self.flash_attention != -1:
            settings["flash_attention"] = self.flash_attention
        return settings

    @property
    def cache_name(self) -> str:
        """Names the cache's types for people: empty for F16, ``Q8_0`` or ``Q8_0/F16`` (keys/values) else."""
        if self.cache_type_k == self.cache_type_v:
            return "" if self.cache_type_k == "F16" else self.cache_type_k
        return f"{self.cache_type_k}/{self.cache_type_v}"


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


ChatMode = Literal["auto", "on", "off"]
CHAT_MODES: tuple[ChatMode, ...] = ("auto", "on", "off")


@dataclass(frozen=True)
class ChatSettings:
    """Whether questions are put as a conversation by the model's own template."""

    mode: ChatMode = "auto"
    """auto: the model writes its answers in a conversation where it has a template; choices are scored as text."""
    system: str = ""
    """The system message, before what a task says itself."""
    fewshot_as_turns: bool = False
    """Examples are earlier turns of the conversation instead of text of the question."""
    day: str = ""
    """The date, YYYY-MM-DD, for templates that tell it: that of the study, so that all its points are told the same;
    today's unless given."""

    def applies_to(self, kind: str) -> bool:
        """Whether tasks of this kind are asked in a conversation, where the model has a template."""
        return self.mode == "on" or (self.mode == "auto" and kind == "generation")

    def answer_settings(self, kinds: Collection[str]) -> dict[str, Any]:
        """What changes answers to tasks of these kinds and is not the default: part of a point's identity."""
        settings: dict[str, Any] = {}
        if any(self.applies_to(kind) != ChatSettings().applies_to(kind) for kind in kinds):
            settings["chat"] = self.mode
        if any(self.applies_to(kind) for kind in kinds):
            settings |= {"system": self.system} if self.system else {}
            settings |= {"fewshot_as_turns": True} if self.fewshot_as_turns else {}
        return settings


def chat_name(settings: Mapping[str, Any]) -> str:
    """Names a point's chat settings for people, after a blank; empty for the default."""
    parts = [{"on": "chat", "off": "no chat"}[settings["chat"]]] if "chat" in settings else []
    if "system" in settings:  # two messages are told apart, and none is too long for a table
        parts.append(f"system {hashlib.sha256(settings['system'].encode()).hexdigest()[:4]}")
    if "fewshot_as_turns" in settings:
        parts.append("turns")
    return "".join(f" {part}" for part in parts)


def offload_from_document(document: Mapping[str, Any]) -> Offload:
    """The settings that dataclasses.asdict wrote, after JSON has made lists of the tuples."""
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in document.items()
    }
    return Offload(**fields)


def engine_from_document(document: Mapping[str, Any]) -> EngineSettings:
    """The same for `EngineSettings`."""
    fields = dict(document)
    return EngineSettings(offload=offload_from_document(fields.pop("offload")), **fields)


def point_label(made: str, variant: str, cache: str, chat: str) -> str:
    """What tells points of one model apart: level or recipe, variant of it, KV cache if not F16, how it is asked."""
    return made + (f" ({variant})" if variant else "") + (f" KV {cache}" if cache else "") + chat
