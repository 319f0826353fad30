"""Says which model a GGUF holds, whatever its level, and whether two files hold the same.

What quantizing leaves alone is compared by content: architecture, names and shapes of the weights, the vocabulary, and
the vectors (norms, biases), which every level keeps in F32. All of it is alike in a model and, often, in a finetune of
it that trained matrices only: so the two must also share a name. Names are those in the header
(general.name with basename, finetune and version) and the file's own without its level: quantizers spell either
otherwise. Not compared: general.size_label, which converters count differently, and general.base_model, which is the
model itself to some and the one it was trained from to others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gguf_eval.errors import ModelFileError
from gguf_eval.files.cache import model_parts
from gguf_eval.files.header import ArraySummary, Header, TensorInfo, read_header
from gguf_eval.files.names import model_name, split_stem

_NAMELESS = re.compile(
    r"|llama(v[12])?|(ggml)?models?|hf|tmp|data|content|workspace|snapshots?|checkpoints?|merged(model)?|outputs?"
    r"|unknown|untitled|[0-9a-f]{32,64}"
)
"""What converters put down where they found no name: the folder the checkpoint lay in, a commit, ``LLaMA v2``."""


@dataclass(frozen=True)
class Identity:
    """What tells one model from another; digests are hexadecimal."""

    architecture: str
    shapes: str
    """Of the names and shapes of weights and biases."""
    vocabulary: str
    """Of the tokens' texts in order."""
    vectors: str
    """Of the values of one-dimensional weights and biases."""
    title: str
    """general.name as it is; empty where there is none."""
    names: tuple[str, ...]
    """By which it may be known: letters and digits only."""


def identify(path: Path) -> Identity:
    """Read what identifies the model of a GGUF; of the weights only vectors are read. Raises `ModelFileError`."""
    parts = model_parts(path)
    headers = [read_header(part) for part in parts]
    metadata = headers[0].metadata
    shapes, vectors = [], []
    for part, header in zip(parts, headers, strict=True):
        for tensor in header.tensors:
            if tensor.name.endswith((".weight", ".bias")) and not tensor.name.startswith("rope_"):
                shapes.append(f"{tensor.name} {_shape(tensor)}")
                if len(_shape(tensor)) == 1 and tensor.type_name == "F32":
                    vectors.append(f"{tensor.name} {_values_digest(part, header, tensor)}")
    return Identity(
        headers[0].architecture,
        _digest(sorted(shapes)),
        _vocabulary(metadata.get("tokenizer.ggml.tokens")),
        _digest(sorted(vectors)),
        str(metadata.get("general.name", "")),
        _names(path, metadata),
    )


def contradictions(one: Identity, other: Identity) -> list[str]:
    """What speaks against two files being levels of one model, in words; nothing where they are."""
    found = []
    if one.architecture != other.architecture:
        found.append(f"their architectures are {one.architecture} and {other.architecture}")
    if one.shapes != other.shapes:
        found.append("their weights have other names or shapes")
    if one.vocabulary != other.vocabulary:
        found.append("their vocabularies differ")
    if one.vectors != other.vectors and one.shapes == other.shapes:
        found.append("their norms or biases have other values, which no level changes")
    if not set(one.names) & set(other.names):
        found.append(f"they are named '{called(one)}' and '{called(other)}'")
    return found


def identity_document(identity: Identity) -> dict[str, Any]:
    """The identity as JSON-ready values, as a study keeps it in a file's origin."""
    return {**asdict(identity), "names": list(identity.names)}


def stored_identity(origin: Mapping[str, Any]) -> Identity | None:
    """The identity that the origin of a stored file holds; None where it was stored without one."""
    found = origin.get("identity")
    return Identity(**{**found, "names": tuple(found["names"])}) if found else None


def called(identity: Identity) -> str:
    """The name in the header, or that of the file where the header has none."""
    nameless = _NAMELESS.fullmatch(_plain(identity.title)) is not None
    return identity.names[-1] if nameless and identity.names else identity.title


def alike(one: Identity, other: Identity) -> bool:
    """Whether they might be expected to be one model: their architecture and shapes agree."""
    return (one.architecture, one.shapes) == (other.architecture, other.shapes)


def share_file_name(one: Path, other: Path) -> bool:
    """Whether the files' own names stand for one model."""
    return bool(set(_keys(model_name(one))) & set(_keys(model_name(other))))


def _shape(tensor: TensorInfo) -> tuple[int, ...]:
    """Without trailing ones, which llama.cpp drops when it writes."""
    sizes = list(tensor.shape)
    while len(sizes) > 1 and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def _values_digest(part: Path, header: Header, tensor: TensorInfo) -> str:
    try:
        values = np.fromfile(part, "<f4", tensor.elements, offset=header.data_offset + tensor.offset)
    except OSError as error:
        raise ModelFileError(f"{part}: can't be read ({error.strerror}); check its permissions") from None
    return hashlib.sha256(values.tobytes()).hexdigest()


def _vocabulary(tokens: Any) -> str:
    if isinstance(tokens, ArraySummary):
        return tokens.digest
    return _digest([str(token) for token in tokens or ()])


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", errors="surrogateescape")).hexdigest()[:32]


def _names(path: Path, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    title = split_stem(str(metadata.get("general.name", "")))[0]
    more = [str(metadata.get(f"general.{key}", "")) for key in ("basename", "finetune", "version")]
    in_header = [_with_more(key, more) for key in _keys(title)]
    of_file = _keys(model_name(path))
    return tuple(dict.fromkeys([*in_header, *of_file])) or (_plain(model_name(path)),)


def _keys(text: str) -> list[str]:
    """A name, and the same without its owner; nothing where it says nothing."""
    keys = dict.fromkeys(_plain(form) for form in (text, _without_owner(text)))
    return [key for key in keys if not _NAMELESS.fullmatch(key)]


def _without_owner(text: str) -> str:
    """A name of a folder or file that stands for owner/name, without the owner; in time that grows as the name does."""
    place = max(text.rfind("_"), text.rfind("/"))
    before, name = text[: max(place, 0)], text[place + 1 :]
    owner = re.match(r"[\w.-]*", before[::-1])
    if not name or owner is None or not re.search("[A-Za-z]", owner[0]):
        return text
    return before[: len(before) - len(owner[0])] + name


def _with_more(key: str, parts: Sequence[str]) -> str:
    for part in map(_plain, parts):
        if part not in key:
            key += part
    return key


def _plain(text: str) -> str:
    return re.sub(r"[\W_]", "", text.casefold())
