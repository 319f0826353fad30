"""Files from the hub, through huggingface_hub: the parquet files of a dataset's split, and checkpoints.

Token, cache, mirror and offline mode are the client's own: ``HF_TOKEN`` or ``hf auth login``, ``HF_HOME`` and
``HF_HUB_CACHE``, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``. An interrupted download is resumed by the next call.
Every failure becomes one line that says what was needed, what was found and what to do.
"""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gguf_eval.errors import GgufEvalError, ModelFileError, TaskError, nearest
from gguf_eval.files.hub_cache import cache_folder, cached_file, cached_snapshot, is_broken_off
from gguf_eval.files.safetensors import StoredTensor

PARQUET_REVISION = "refs/convert/parquet"
"""The branch on which the hub keeps every dataset as ``<config>/<split>/<number>.parquet``."""

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

UNPUBLISHED = "local/"
"""Owner of data sets that are on no hub."""

_ANSWER_SECONDS = 20.0
"""What one answer of the hub may take, a file's content apart."""
_SHOWN = 12  # names listed in a message
_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads its switches


@dataclass(frozen=True)
class HubSource:
    """Where on the hub a folder came from."""

    repo: str
    commit: str
    """The commit's hash, 40 hexadecimal digits."""
    url: str
    """The repository's page at the endpoint that was used."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub that is not in the cache."""

    repo: str
    kind: str
    """``model`` or ``dataset``."""
    revision: str
    path: str
    size_bytes: int


@dataclass(frozen=True)
class _Wanted:
    """What is being fetched, for the client and for messages."""

    repo: str
    kind: str
    """``model`` or ``dataset``."""
    revision: str | None
    error: type[GgufEvalError]

    @property
    def label(self) -> str:
        return f"{self.kind} '{self.repo}'" + (f" at revision '{self.revision}'" if self.revision else "")

    @property
    def url(self) -> str:
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"


def endpoint() -> str:
    """Return the hub's address: ``HF_ENDPOINT``, or the client's own."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Tell whether ``HF_HUB_OFFLINE`` forbids the network."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def dataset_files(repo: str, config: str, split: str, *, revision: str = PARQUET_REVISION) -> list[Path]:
    """Return the parquet files of one split, in order, downloading what the cache lacks.

    ``repo`` is ``owner/name``. The files are ``<config>/<split>/*.parquet`` at ``revision``, by default the
    branch that the hub converts every dataset to. Raises `TaskError`.
    """
    for what, name in (("config", config), ("split", split)):
        if not name or name != name.strip("/") or ".." in name.split("/"):
            raise TaskError(f"dataset '{repo}': a {what} name is needed, found {name!r}; name one of the dataset's")
    _refuse_unpublished(repo)
    wanted = _Wanted(repo, "dataset", revision, TaskError)
    inside = f"{config}/{split}"
    folder = _snapshot(wanted, [f"{glob.escape(inside)}/*.parquet"])
    files = sorted((folder / inside).glob("*.parquet"))
    if not files:
        raise TaskError(f"{wanted.label}: no parquet files of split '{inside}'; {_splits_hint(wanted, folder, inside)}")
    return files


def cached_split(repo: str, config: str, split: str, *, revision: str = PARQUET_REVISION) -> list[Path]:
    """Return the parquet files of a split that the cache holds, in order; nothing is asked of the hub.

    None of a repository of which a download was broken off: whether the split is whole is not known then.
    """
    folder = cached_snapshot("dataset", repo, revision)
    if folder is None or is_broken_off("dataset", repo):
        return []
    return sorted((folder / config / split).glob("*.parquet"))


def split_to_fetch(repo: str, config: str, split: str, *, revision: str = PARQUET_REVISION) -> list[RemoteFile]:
    """Return the parquet files of a split that `dataset_files` would download now. Raises `TaskError`."""
    _refuse_unpublished(repo)
    if cached_split(repo, config, split, revision=revision):
        return []
    return _to_fetch(_Wanted(repo, "dataset", revision, TaskError), f"{config}/{split}", ("*.parquet",))


def _refuse_unpublished(repo: str) -> None:
    """Refuse a data set that nobody has put on the hub, without asking: whoever took its name could answer."""
    if repo.startswith(UNPUBLISHED):
        raise TaskError(
            f"dataset '{repo}': no copy on the hub is known; lay its Parquet files out under a folder as "
            f"datasets/{repo}/<config>/<split>/*.parquet and give that folder as --mirror"
        )


def weights_to_fetch(source: HubSource) -> list[RemoteFile]:
    """Return the weights of a checkpoint that `checkpoint_folder` would download now. Raises `ModelFileError`."""
    return _to_fetch(_Wanted(source.repo, "model", source.commit, ModelFileError), None, WEIGHT_PATTERNS)


def repository_files(repo: str, revision: str | None) -> list[RemoteFile]:
    """Return all files of a model repository; those in the cache where the hub can't be asked.

    Raises `ModelFileError`.
    """
    wanted = _Wanted(repo, "model", revision, ModelFileError)
    folder = cached_snapshot("model", repo, revision)
    if folder is None or not (is_offline() or _silence(wanted)):
        return _listed(wanted, None)
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        RemoteFile(repo, "model", revision or "main", path.relative_to(folder).as_posix(), path.stat().st_size)
        for path in found
    ]


def fetch_model_files(files: Sequence[RemoteFile]) -> Path:
    """Download what the cache lacks of files of one model repository; return its folder. Raises `ModelFileError`."""
    wanted = _Wanted(files[0].repo, "model", files[0].revision, ModelFileError)
    return _snapshot(wanted, [glob.escape(file.path) for file in files])


def _to_fetch(wanted: _Wanted, folder: str | None, patterns: tuple[str, ...]) -> list[RemoteFile]:
    """Files directly in ``folder`` that the cache lacks: one of such a name further down is another's."""
    if is_offline():
        return []
    inside = f"{folder}/" if folder else ""
    return [
        file
        for file in _listed(wanted, folder)
        if any(fnmatch.fnmatch(file.path.removeprefix(inside), pattern) for pattern in patterns)
        and "/" not in file.path.removeprefix(inside)
        and cached_file(file.kind, file.repo, file.revision, file.path) is None
    ]


def _listed(wanted: _Wanted, folder: str | None) -> list[RemoteFile]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    silence = None if is_offline() else _silence(wanted)
    if is_offline() or silence:
        raise wanted.error(f"{wanted.label}: {_explain_cache_miss(silence)}")
    try:
        entries = list(
            HfApi(endpoint=endpoint()).list_repo_tree(
                wanted.repo, folder, recursive=True, revision=wanted.revision, repo_type=wanted.kind
            )
        )
    except Exception as error:
        raise wanted.error(f"{wanted.label}: {_explain(wanted, error)}") from error
    return [
        RemoteFile(wanted.repo, wanted.kind, wanted.revision or "main", entry.path, entry.size)
        for entry in entries
        if isinstance(entry, RepoFile)
    ]


def checkpoint_folder(repo: str, *, revision: str | None = None, weights: bool = True) -> tuple[Path, HubSource]:
    """Return a local folder with the checkpoint ``owner/name`` and its origin, fetching what the cache lacks.

    Only config, tokenizer, model card and safetensors come down; with ``weights=False`` all but the last,
    enough to refuse a checkpoint before gigabytes have come. Raises `ModelFileError`.
    """
    wanted = _Wanted(repo, "model", revision, ModelFileError)
    patterns = [*DESCRIPTION_PATTERNS, *WEIGHT_PATTERNS] if weights else list(DESCRIPTION_PATTERNS)
    folder = _snapshot(wanted, patterns)
    return folder, HubSource(repo, folder.name, wanted.url)


def tensor_table(source: HubSource) -> dict[str, StoredTensor]:
    """Return the tensors of a hub checkpoint by name from the heads of its files; the weights are not fetched.

    Their offsets are those within the data of each file. Raises `ModelFileError`.
    """
    from huggingface_hub import HfApi

    wanted = _Wanted(source.repo, "model", source.commit, ModelFileError)
    try:
        table = HfApi(endpoint=endpoint()).get_safetensors_metadata(source.repo, revision=source.commit)
    except Exception as error:
        raise ModelFileError(f"{wanted.label}: {_explain(wanted, error)}") from error
    return {
        name: StoredTensor(name, tensor.dtype, tuple(tensor.shape), Path(file), tensor.data_offsets[0])
        for file in sorted(table.files_metadata)
        for name, tensor in sorted(table.files_metadata[file].tensors.items())
    }


def _snapshot(wanted: _Wanted, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    silence = None if is_offline() else _silence(wanted)
    try:
        folder = snapshot_download(
            wanted.repo,
            repo_type=wanted.kind,
            revision=wanted.revision,
            allow_patterns=patterns,
            endpoint=endpoint(),
            cache_dir=cache_folder(),
            local_files_only=is_offline() or silence is not None,
        )
    except Exception as error:
        if silence is not None:
            error.__cause__ = silence
        raise wanted.error(f"{wanted.label}: {_explain(wanted, error)}") from error
    return Path(folder)


def _silence(wanted: _Wanted) -> Exception | None:
    """Why the hub gives no answer in time, or None; the client itself would wait for ever. Refusals are answers."""
    from huggingface_hub import HfApi, errors, get_session

    get_session().timeout = _ANSWER_SECONDS  # of requests that come with no limit of their own: listings
    try:
        HfApi(endpoint=endpoint()).repo_info(
            wanted.repo, repo_type=wanted.kind, revision=wanted.revision, timeout=_ANSWER_SECONDS
        )
    except (errors.HfHubHTTPError, errors.HFValidationError):
        return None
    except Exception as error:  # the client's HTTP library is its own affair
        return error
    return None


def _explain(wanted: _Wanted, error: Exception) -> str:
    """Say in one line what is wrong and what to do."""
    from huggingface_hub import errors

    log_in = "log in with `hf auth login` or set HF_TOKEN"
    explanation = f"the download failed{_reason(error)}; run again, what has come down is kept"
    if isinstance(error, errors.NotASafetensorsRepoError):
        explanation = "it has no safetensors; use a revision or copy of it that has (pickle files are not read)"
    elif isinstance(error, errors.GatedRepoError):
        explanation = f"its licence must be accepted first: do so at {wanted.url}, then {log_in}"
    elif isinstance(error, errors.RevisionNotFoundError):
        explanation = f"no such revision; its branches and tags are listed at {wanted.url}"
        if wanted.revision == PARQUET_REVISION:
            explanation = "the hub keeps no parquet copy of it; name a revision that holds one, or a local file"
    elif isinstance(error, errors.RepositoryNotFoundError):
        explanation = f"no such repository at {endpoint()}, or a private one; check the spelling, or {log_in}"
    elif isinstance(error, errors.HFValidationError):
        explanation = "not a repository name; the form is owner/name"
    elif isinstance(error, errors.LocalEntryNotFoundError):
        explanation = _explain_cache_miss(error.__cause__)
    elif isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        explanation = f"{endpoint()} answered HTTP {status}; run again later, what has come down is kept"
        if status in (401, 403):
            explanation = f"{endpoint()} refused access (HTTP {status}); check the token's rights, or {log_in}"
    return explanation


def _explain_cache_miss(cause: BaseException | None) -> str:
    if is_offline():
        return "not (wholly) in the cache, and HF_HUB_OFFLINE forbids downloading; unset it once and run again"
    return (
        f"not (wholly) in the cache, and {endpoint()} can't be reached{_reason(cause)}; check the network and run again"
    )


def _reason(error: BaseException | None) -> str:
    if error is None:
        return ""
    text = str(error).strip().partition("\n")[0].rstrip(".")
    return f" ({text or type(error).__name__})"


def _splits_hint(wanted: _Wanted, folder: Path, inside: str) -> str:
    """Name the splits there are: from the hub, or from the cache when the hub can't be asked."""
    from huggingface_hub import HfApi

    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")]
    if not is_offline():
        try:
            api = HfApi(endpoint=endpoint())
            paths = api.list_repo_files(wanted.repo, repo_type=wanted.kind, revision=wanted.revision)
        except Exception:
            return f"see {wanted.url} for those it has"
    splits = sorted({path.rpartition("/")[0] for path in paths if path.endswith(".parquet")})
    if not splits:
        return "nor of any other; name a revision that holds parquet files, or a local file"
    shown = ", ".join(splits[:_SHOWN]) + (f", ... ({len(splits)} in all)" if len(splits) > _SHOWN else "")
    return f"found {shown}{nearest(inside, splits)}"
