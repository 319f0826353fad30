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

_ENCODER = (
    "bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert", "modern-bert",
    "gemma-embedding", "llama-embed", "t5encoder",
)  # fmt: skip
_DIFFUSION = ("dream", "llada", "llada-moe", "rnd1")
_DRAFT = ("eagle3", "dflash", "gemma4-assistant")
_SOUND = ("wavtokenizer-dec", "qwen3tts", "pockettts")
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


DIFFUSION = Kind(
    "a diffusion model, which fills in a text in any order",
    "the likelihood of its next token has no meaning: take a model that writes in order",
)
EMBEDDING = Kind("an embedding or encoder model, which sees a whole text at once", "take a model that continues a text")
CLASSIFIER = Kind("a model that classifies or ranks texts", "take a model that continues a text")
ENCODER_DECODER = Kind(
    "an encoder-decoder model, which reads one text and writes another", "only models that continue a text can be asked"
)
SOUND = Kind("a model of sound", "take a language model")
DRAFT = Kind("a draft model, which guesses for another", "name the model that it guesses for", is_model=False)
_FAMILIES = {
    **dict.fromkeys(_ENCODER, EMBEDDING),
    **dict.fromkeys(_DIFFUSION, DIFFUSION),
    **dict.fromkeys(_DRAFT, DRAFT),
    **dict.fromkeys(_SOUND, SOUND),
    "t5": ENCODER_DECODER,
}
"""By ``general.architecture``, as llama.cpp names it."""
MEMORYLESS = frozenset((*_ENCODER, *_DIFFUSION)) - {"llama-embed"}
"""Families of which llama.cpp remembers nothing from one batch to the next."""


def check_continues_text(path: Path) -> None:
    """Raise `ModelFileError` unless the model file at ``path`` can be asked how a text goes on."""
    first = read_header(path)
    kind = other_kind([first] if "split.no" in first.metadata else [read_header(part) for part in model_parts(path)])
    if kind is not None:
        raise ModelFileError(refusal(path, kind))


def refusal(path: Path, kind: Kind) -> str:
    """The message that refuses to ask a file of this kind."""
    return f"{path}: a language model that continues a text is needed, {kind.text}"


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
    """Whole models that are asked in another way: by the family's name, or by what the metadata say of any family."""
    family = header.architecture
    if family in _FAMILIES:
        return _FAMILIES[family]
    pooling = header.metadata.get(f"{family}.pooling_type", 0)
    if any(key.startswith("diffusion.") for key in header.metadata):
        return DIFFUSION
    if f"{family}.classifier.output_labels" in header.metadata or pooling == _RANKING:
        return CLASSIFIER
    return EMBEDDING if pooling or not header.metadata.get(f"{family}.attention.causal", True) else None
