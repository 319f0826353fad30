"""What a GGUF is when it is no model that continues a text, told from its header before anything is loaded.

llama.cpp would abort on some of these, refuse others without saying what they are, and answer with most: numbers that
mean nothing, because the model was made to see the whole text, or to be pooled into one vector.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gguf_eval.errors import ModelFileError
from gguf_eval.files.cache import model_parts
from gguf_eval.files.header import Header, read_header

_DIFFUSION = frozenset(("dream", "llada", "llada-moe", "rnd1"))
_ENCODERS = frozenset(
    ("bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert", "modern-bert",
     "gemma-embedding", "llama-embed", "t5encoder")
)  # fmt: skip
_DRAFTS = frozenset(("eagle3", "dflash", "gemma4-assistant"))
_SOUND = frozenset(("wavtokenizer-dec", "qwen3tts", "pockettts"))
_RANKING = 4
"""llama.cpp's number of the pooling that gives a score instead of a vector."""
_LORA = re.compile(r"\.lora_[ab]$")


@dataclass(frozen=True)
class Kind:
    """What a file is instead of a model that continues a text."""

    name: str
    """With its article."""
    advice: str
    is_model: bool = True
    """Whether it is a whole model, only of another sort."""

    @property
    def text(self) -> str:
        """The end of a sentence that begins with what was needed."""
        return f"this is {self.name}; {self.advice}"


def check_continues_text(path: Path) -> None:
    """Raise `ModelFileError` unless the model file at ``path`` can be asked how a text goes on."""
    first = read_header(path)
    kind = other_kind([first] if "split.no" in first.metadata else [read_header(part) for part in model_parts(path)])
    if kind is not None:
        raise ModelFileError(f"{path}: a language model that continues a text is needed, {kind.text}")


def check_is_model(path: Path) -> None:
    """Raise `ModelFileError` where the file at ``path`` is no whole model of any sort."""
    kind = other_kind([read_header(path)])
    if kind is not None and not kind.is_model:
        raise ModelFileError(f"{path}: a model is needed, {kind.text}")


def other_kind(headers: Sequence[Header]) -> Kind | None:
    """Say what the file with these headers is (all parts', or the first's alone); None: it continues a text."""
    first = headers[0]
    return _part(first) or _no_model(first) or _no_weights(headers) or _other_model(first)


def _part(header: Header) -> Kind | None:
    number, count = header.metadata.get("split.no", 0), header.split_count
    if not isinstance(number, int) or number < 1:
        return None
    return Kind(
        f"part {number + 1} of {count} of a split model",
        f"name its first part, whose name ends in -00001-of-{count:05d}.gguf",
        is_model=False,
    )


def _no_model(header: Header) -> Kind | None:
    """Files that only belong to a model."""
    declared = header.metadata.get("general.type", "model")
    if header.architecture == "clip" or declared == "mmproj":
        name = "a projector (mmproj), which lets a language model see or hear"
        return Kind(name, "name the language model that it came with", is_model=False)
    if declared == "adapter" or any(_LORA.search(tensor.name) for tensor in header.tensors):
        name = "a LoRA adapter, which changes a model"
        return Kind(name, "merge it into its base model with llama-export-lora, and name the result", is_model=False)
    if declared == "imatrix" or header.architecture == "imatrix":
        return Kind("an importance matrix", "give it to quantize with --imatrix", is_model=False)
    if header.architecture == "controlvector":
        return Kind("a control vector, which changes a model", "name the model itself", is_model=False)
    if declared != "model":
        return Kind(f"of the type '{declared}'", "name the model itself", is_model=False)
    return None


def _no_weights(headers: Sequence[Header]) -> Kind | None:
    first = headers[0]
    if len(headers) < first.split_count or any(header.tensors for header in headers):
        return None
    return Kind("a vocabulary alone, without weights", "name the model itself", is_model=False)


def _other_model(header: Header) -> Kind | None:
    """Whole models that are asked in another way."""
    family = header.architecture
    pooling = header.metadata.get(f"{family}.pooling_type", 0)
    if family in _DIFFUSION or any(key.startswith("diffusion.") for key in header.metadata):
        name = f"a diffusion model ({family}), which fills in a text in any order"
        return Kind(name, "the likelihood of its next token has no meaning: take a model that writes in order")
    if family == "t5":
        name = f"an encoder-decoder model ({family}), which reads a text and writes another"
        return Kind(name, "only models that continue a text are supported")
    if family in _DRAFTS:
        name = f"a draft model ({family}), which guesses for another model"
        return Kind(name, "name the model that it guesses for", is_model=False)
    if family in _SOUND:
        return Kind(f"a model of sound ({family})", "take a language model")
    if f"{family}.classifier.output_labels" in header.metadata or pooling == _RANKING:
        return Kind(f"a model that classifies or ranks texts ({family})", "take one that continues a text")
    causal = header.metadata.get(f"{family}.attention.causal", True)
    if family in _ENCODERS or not causal or pooling:
        name = f"an embedding or encoder model ({family}), which turns a whole text into a vector"
        return Kind(name, "take a model that continues a text")
    return None
