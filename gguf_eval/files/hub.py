"""Files from the hub, through huggingface_hub: listed, fetched into its cache, and explained where they can't be.

Token, cache, mirror and offline mode are the client's own: ``HF_TOKEN`` or ``hf auth login``, ``HF_HOME`` and
``HF_HUB_CACHE``, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``. An interrupted download is resumed by the next call.
Every failure becomes one line that says what was needed, what was found and what to do.
"""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from gguf_eval.errors import GgufEvalError
from gguf_eval.files.hub_cache import cache_folder, cached_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

PARQUET_REVISION = "refs/convert/parquet"
"""The branch on which the hub keeps every dataset as ``<config>/<split>/<number>.parquet``."""

_ANSWER_SECONDS = 20.0
"""What one answer of the hub may take, a file's content apart."""
_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads its switches


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
class Wanted:
    """What is being fetched, for the client and for messages."""

    repo: str
    kind: str
    """``model`` or ``dataset``."""
    revision: str | None
    error: type[GgufEvalError]

    @property
    def label(self) -> str:
        """Names it in messages."""
        return f"{self.kind} '{self.repo}'" + (f" at revision '{self.revision}'" if self.revision else "")

    @property
    def url(self) -> str:
        """The repository's page."""
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"


def endpoint() -> str:
    """Return the hub's address: ``HF_ENDPOINT``, or the client's own."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def client() -> HfApi:
    """The hub's client for `endpoint`. What went wrong is said by us: its own lines would stand before ours."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import logging

    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    return HfApi(endpoint=endpoint())


def is_offline() -> bool:
    """Tell whether ``HF_HUB_OFFLINE`` forbids the network."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def to_fetch(wanted: Wanted, folder: str | None, patterns: tuple[str, ...]) -> list[RemoteFile]:
    """Files directly in ``folder`` that the cache lacks: one of such a name further down is another's.

    Raises the error of ``wanted``.
    """
    if is_offline():
        return []
    inside = f"{folder}/" if folder else ""
    return [
        file
        for file in listed(wanted, folder)
        if any(fnmatch.fnmatch(file.path.removeprefix(inside), pattern) for pattern in patterns)
        and "/" not in file.path.removeprefix(inside)
        and cached_file(file.kind, file.repo, file.revision, file.path) is None
    ]


def listed(wanted: Wanted, folder: str | None) -> list[RemoteFile]:
    """All files in ``folder``, or in the repository. Raises the error of ``wanted``."""
    from huggingface_hub.hf_api import RepoFile

    silence = None if is_offline() else no_answer(wanted)
    if is_offline() or silence:
        raise wanted.error(f"{wanted.label}: {_explain_cache_miss(silence)}")
    try:
        entries = list(
            client().list_repo_tree(
                wanted.repo, folder, recursive=True, revision=wanted.revision, repo_type=wanted.kind
            )
        )
    except Exception as error:
        raise wanted.error(f"{wanted.label}: {explain(wanted, error)}") from error
    return [
        RemoteFile(wanted.repo, wanted.kind, wanted.revision or "main", entry.path, entry.size)
        for entry in entries
        if isinstance(entry, RepoFile)
    ]


def snapshot(wanted: Wanted, patterns: list[str]) -> Path:
    """Download what the cache lacks of the files of these names; return the folder. Raises the error of ``wanted``."""
    silence = None if is_offline() else no_answer(wanted)
    try:
        folder = client().snapshot_download(
            wanted.repo,
            repo_type=wanted.kind,
            revision=wanted.revision,
            allow_patterns=patterns,
            cache_dir=cache_folder(),
            local_files_only=is_offline() or silence is not None,
        )
    except Exception as error:
        if silence is not None:
            error.__cause__ = silence
        raise wanted.error(f"{wanted.label}: {explain(wanted, error)}") from error
    return Path(folder)


def no_answer(wanted: Wanted) -> Exception | None:
    """Why the hub gives no answer in time, or None; the client itself would wait for ever. Refusals are answers."""
    from huggingface_hub import errors, get_session

    get_session().timeout = _ANSWER_SECONDS  # of requests that come with no limit of their own: listings
    try:
        client().repo_info(wanted.repo, repo_type=wanted.kind, revision=wanted.revision, timeout=_ANSWER_SECONDS)
    except (errors.HfHubHTTPError, errors.HFValidationError):
        return None
    except Exception as error:  # the client's HTTP library is its own affair
        return error
    return None


def explain(wanted: Wanted, error: Exception) -> str:
    """Say in one line what is wrong and what to do."""
    from huggingface_hub import errors

    log_in = "log in with `hf auth login` or set HF_TOKEN"
    explanation = f"the download from {endpoint()} failed{_reason(error)}; run again, what has come down is kept"
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
        cause = error.__cause__
        # The client takes a refusal for no connection, and looks into its cache.
        explanation = explain(wanted, cause) if _is_refusal(cause) else _explain_cache_miss(cause)
    elif isinstance(error, errors.EntryNotFoundError):
        explanation = f"the repository has no such file; its files are listed at {wanted.url}"
    elif isinstance(error, errors.HfHubHTTPError):
        explanation = _explain_status(error.response.status_code, log_in)
    return explanation


def _is_refusal(error: BaseException | None) -> TypeGuard[HfHubHTTPError]:
    """Whether the hub has answered, with something else than what was asked for."""
    from huggingface_hub import errors

    return isinstance(error, errors.HfHubHTTPError) and not isinstance(error, errors.LocalEntryNotFoundError)


def _explain_status(status: int, log_in: str) -> str:
    if status in (401, 403):
        return f"{endpoint()} refused access (HTTP {status}); check the token's rights, or {log_in}"
    if status == 404:
        return f"{endpoint()} has no such thing (HTTP 404); check the spelling, and HF_ENDPOINT where that is set"
    if status == 429:
        return f"{endpoint()} wants fewer requests (HTTP 429); wait some minutes and run again, or {log_in}"
    return f"{endpoint()} answered HTTP {status}; run again later, what has come down is kept"


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
