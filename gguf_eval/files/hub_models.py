"""Model repositories on the hub: checkpoints, and GGUF files among others."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gguf_eval.errors import ModelFileError
from gguf_eval.files.hub import RemoteFile, Wanted, client, explain, is_offline, listed, no_answer, snapshot, to_fetch
from gguf_eval.files.hub_cache import cached_snapshot
from gguf_eval.files.safetensors import StoredTensor

DESCRIPTION_PATTERNS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "chat_templates/*.jinja",
    "model.safetensors.index.json",
    "README.md",
)
WEIGHT_PATTERNS = ("model.safetensors", "model-*.safetensors")


@dataclass(frozen=True)
class HubSource:
    """Where on the hub a folder came from."""

    repo: str
    commit: str
    """The commit's hash, 40 hexadecimal digits."""
    url: str
    """The repository's page at the endpoint that was used."""


def weights_to_fetch(source: HubSource) -> list[RemoteFile]:
    """Return the weights of a checkpoint that `checkpoint_folder` would download now. Raises `ModelFileError`."""
    return to_fetch(Wanted(source.repo, "model", source.commit, ModelFileError), None, WEIGHT_PATTERNS)


def repository_files(repo: str, revision: str | None) -> list[RemoteFile]:
    """Return all files of a model repository; those in the cache where the hub can't be asked.

    Raises `ModelFileError`.
    """
    wanted = Wanted(repo, "model", revision, ModelFileError)
    folder = cached_snapshot("model", repo, revision)
    if folder is None or not (is_offline() or no_answer(wanted)):
        return listed(wanted, None)
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        RemoteFile(repo, "model", revision or "main", path.relative_to(folder).as_posix(), path.stat().st_size)
        for path in found
    ]


def fetch_model_files(files: Sequence[RemoteFile]) -> Path:
    """Download what the cache lacks of files of one model repository; return its folder. Raises `ModelFileError`."""
    wanted = Wanted(files[0].repo, "model", files[0].revision, ModelFileError)
    return snapshot(wanted, [glob.escape(file.path) for file in files])


def checkpoint_folder(repo: str, *, revision: str | None = None, weights: bool = True) -> tuple[Path, HubSource]:
    """Return a local folder with the checkpoint ``owner/name`` and its origin, fetching what the cache lacks.

    Only config, tokenizer, model card and safetensors come down; with ``weights=False`` all but the last,
    enough to refuse a checkpoint before gigabytes have come. Raises `ModelFileError`.
    """
    wanted = Wanted(repo, "model", revision, ModelFileError)
    patterns = [*DESCRIPTION_PATTERNS, *WEIGHT_PATTERNS] if weights else list(DESCRIPTION_PATTERNS)
    folder = snapshot(wanted, patterns)
    return folder, HubSource(repo, folder.name, wanted.url)


def tensor_table(source: HubSource) -> dict[str, StoredTensor]:
    """Return the tensors of a hub checkpoint by name from the heads of its files; the weights are not fetched.

    Their offsets are those within the data of each file. Raises `ModelFileError`.
    """
    wanted = Wanted(source.repo, "model", source.commit, ModelFileError)
    try:
        table = client().get_safetensors_metadata(source.repo, revision=source.commit)
    except Exception as error:
        raise ModelFileError(f"{wanted.label}: {explain(wanted, error)}") from error
    return {
        name: StoredTensor(name, tensor.dtype, tuple(tensor.shape), Path(file), tensor.data_offsets[0])
        for file in sorted(table.files_metadata)
        for name, tensor in sorted(table.files_metadata[file].tensors.items())
    }
