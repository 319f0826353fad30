"""Opens a checkpoint: a Hugging Face model folder, or such a repository on the hub.

It is done in two steps, so that a hub checkpoint that can't be used is refused before its weights come down:
`describe` needs the small files only, `locate_weights` the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_eval.errors import ModelFileError, UsageError
from gguf_eval.files.hub_models import HubSource, checkpoint_folder, tensor_table
from gguf_eval.files.safetensors import StoredTensor, read_shards

_REPOSITORY = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w.-]+)(@(?P<revision>[^@\s]+))?")


@dataclass(frozen=True)
class Description:
    """What a checkpoint's small files say, its tokenizer files aside."""

    folder: Path
    name: str
    """The folder's name, or the repository's without its owner."""
    config: Mapping[str, Any]
    source: HubSource | None


def describe(reference: str) -> Description:
    """Read the config of a folder, or of a hub repository given as ``owner/name`` or ``owner/name@revision``.

    Raises `UsageError` when the reference is neither, `ModelFileError` when there is no usable config.json.
    """
    reference = reference.removeprefix("hf://")
    folder, source = Path(reference), None
    if folder.is_file():
        raise UsageError(f"{folder}: a checkpoint folder is needed, this is a file; name the folder it is in")
    if not folder.is_dir():
        match = _REPOSITORY.fullmatch(reference)
        if match is None:
            raise UsageError(f"{reference}: no such folder; give a checkpoint folder, or a repository as owner/name")
        folder, source = checkpoint_folder(match["repo"], revision=match["revision"], weights=False)
    config = read_json(folder / "config.json")
    if config is None:
        raise ModelFileError(f"{reference}: a checkpoint is needed, there is no config.json; name its folder")
    name = source.repo.rpartition("/")[2] if source else folder.resolve().name
    return Description(folder, name, config, source)


def locate_weights(description: Description, *, headers_only: bool = False) -> dict[str, StoredTensor]:
    """Return the checkpoint's tensors by name, in the order of file and name, fetching them from the hub first.

    With ``headers_only`` the weights stay on the hub: their tensors are listed, the bytes can't be read.
    Raises `ModelFileError` for weights that are missing, damaged, or in pickle files.
    """
    folder, source = description.folder, description.source
    if source is not None:
        if headers_only:
            return tensor_table(source)
        folder, _ = checkpoint_folder(source.repo, revision=source.commit)
    index = read_json(folder / "model.safetensors.index.json")
    if index is None and not (folder / "model.safetensors").is_file():
        found = ""
        if pickles := sorted(path.name for path in folder.glob("*.bin")):
            found = f", found {pickles[0]}: a pickle file, which is not read because loading it runs code from it"
        elif consolidated := sorted(path.name for path in folder.glob("consolidated*")):
            found = f", found {consolidated[0]} in another layout"
        raise ModelFileError(
            f"{source.repo if source else folder}: model.safetensors or its shards and index are needed{found}; "
            "use a revision or copy of this checkpoint in safetensors (transformers' save_pretrained writes one)"
        )
    return read_shards(folder, index)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in the file ``path``, None where there is no such file. Raises `ModelFileError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelFileError(f"{path}: can't be read ({error.strerror}); check its permissions") from None
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not valid JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: a JSON object is needed, found a {type(value).__name__}; download it again")
    return value
