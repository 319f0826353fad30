"""The options that say how models are run and asked, as records that `gguf_eval.cli.unfold` puts on command lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from gguf_eval.cli import options
from gguf_eval.errors import UsageError, nearest

if TYPE_CHECKING:
    from gguf_eval.runtime.settings import ChatSettings, Offload


@dataclass(frozen=True)
class EngineOptions:
    """Where layers are computed and how the cache is stored, as the command line says it."""

    gpu_layers: options.GpuLayers = "auto"
    device: Annotated[
        str, options.machine("--device", "-dev", help="Devices for the layers, as 'doctor' names them.")
    ] = ""
    split_mode: Annotated[
        str, options.machine("--split-mode", "-sm", help="Over several devices: layer, row, tensor, none.")
    ] = "layer"
    tensor_split: Annotated[
        str, options.machine("--tensor-split", "-ts", help="Each device's share, for instance 3,1.")
    ] = ""
    rpc: options.Rpc = ""
    no_mmap: Annotated[bool, options.machine("--no-mmap", help="Read the weights instead of mapping the file.")] = False
    cache_type_k: Annotated[
        str, options.machine("--cache-type-k", "-ctk", help="Types of the KV cache's keys, for instance F16,Q8_0.")
    ] = "F16"
    cache_type_v: Annotated[
        str, options.machine("--cache-type-v", "-ctv", help="Types of its values; pairs up with the keys.")
    ] = "F16"
    flash_attn: Annotated[str, options.machine("--flash-attn", "-fa", help="on, off, or auto (llama.cpp decides).")] = (
        "auto"
    )
    max_memory: Annotated[
        str, options.machine(help="Memory a worker may take: 6GB or 6G, as reports count; 6GiB (default: all).")
    ] = ""

    @property
    def offload(self) -> Offload:
        """Where layers go."""
        from gguf_eval.runtime.settings import SPLIT_MODES, Offload

        if self.split_mode not in SPLIT_MODES:
            raise UsageError(f"--split-mode needs one of {', '.join(SPLIT_MODES)}; found '{self.split_mode}'")
        try:
            shares = tuple(float(share) for share in options.split_names(self.tensor_split.replace("/", ",")))
        except ValueError:
            raise UsageError(f"--tensor-split needs numbers separated by commas; found '{self.tensor_split}'") from None
        return Offload(
            gpu_layers=options.gpu_layer_count(self.gpu_layers),
            devices=tuple(options.split_names(self.device)),
            split_mode=self.split_mode,
            tensor_split=shares,
            rpc=tuple(options.split_names(self.rpc)),
            mmap=not self.no_mmap,
        )

    @property
    def cache_types(self) -> tuple[tuple[str, str], ...]:
        """The KV cache types to try, (keys, values): lists of one length pair up, a single one goes with each."""
        from gguf_eval.runtime.settings import CACHE_TYPES

        lists = []
        for option, text in (("--cache-type-k", self.cache_type_k), ("--cache-type-v", self.cache_type_v)):
            names = [name.upper() for name in options.split_names(text)] or ["F16"]
            for name in names:
                if name not in CACHE_TYPES:
                    raise UsageError(f"{option}: no KV cache type is called '{name}'{nearest(name, CACHE_TYPES)}")
            lists.append(names)
        first, second = lists
        if len(first) != len(second) and 1 not in (len(first), len(second)):
            raise UsageError(
                f"--cache-type-k and --cache-type-v need lists of one length, or one of them a single type; "
                f"found {len(first)} and {len(second)}"
            )
        most = max(len(first), len(second))
        return tuple(zip(first * (most // len(first)), second * (most // len(second)), strict=True))

    @property
    def flash_attention(self) -> int:
        """llama.cpp's number for ``--flash-attn``."""
        numbers = {"on": 1, "1": 1, "off": 0, "0": 0, "auto": -1}
        if self.flash_attn.lower() not in numbers:
            raise UsageError(f"--flash-attn needs on, off or auto; found '{self.flash_attn}'")
        return numbers[self.flash_attn.lower()]

    @property
    def max_memory_bytes(self) -> int | None:
        """Bytes that ``--max-memory`` allows; None where nothing is said."""
        return options.memory_bytes(self.max_memory)


@dataclass(frozen=True)
class ChatOptions:
    """How questions are put, as the command line says it."""

    chat: Annotated[
        str, options.asking(help="By the model's chat template: auto (where it writes its answer), on, off.")
    ] = "auto"
    system: Annotated[str, options.asking(help="The system message of a conversation.")] = ""
    fewshot_as_turns: Annotated[
        bool, options.asking("--fewshot-as-turns", help="Examples as earlier turns of a conversation.")
    ] = False

    @property
    def settings(self) -> ChatSettings:
        """The settings that the options make."""
        from gguf_eval.runtime.settings import CHAT_MODES, ChatSettings

        for known in CHAT_MODES:
            if self.chat == known:
                if known == "off" and (self.system or self.fewshot_as_turns):
                    raise UsageError(
                        "--system and --fewshot-as-turns need a conversation; found --chat off: leave it out"
                    )
                return ChatSettings(known, self.system, self.fewshot_as_turns)
        raise UsageError(f"--chat needs one of {', '.join(CHAT_MODES)}; found '{self.chat}'")
