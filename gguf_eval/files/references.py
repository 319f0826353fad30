"""What a user's word for a model stands for: a file here, a GGUF on the hub, or a checkpoint.

``owner/name`` is a repository, with ``@revision`` where another than its main branch is meant. ``owner/name:LEVEL``
chooses among its GGUFs as llama.cpp's ``-hf`` does, ``owner/name/file.gguf`` names one. ``hf://`` may stand before all
of them. What is here goes first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gguf_eval.errors import ModelFileError, UsageError, nearest
from gguf_eval.files.cache import PART, model_parts
from gguf_eval.files.hub import RemoteFile
from gguf_eval.files.hub_cache import cached_file
from gguf_eval.files.hub_models import fetch_model_files, repository_files
from gguf_eval.files.names import named_level, split_stem, variant_name

_SCHEME = "hf://"
_HUB = re.compile(
    r"(?P<repo>[\w-][\w.-]*/[\w.-]+?)(?:@(?P<revision>[^@\s:]+?))?(?::(?P<level>[\w.-]+)|/(?P<path>[^:]+\.gguf))?",
    re.IGNORECASE,
)
_NAMED = re.compile(r"(?P<name>[^=/\\]+)=(?P<reference>.+)")
_NO_MODEL = re.compile(r"mmproj|(?<![a-z])imatrix", re.IGNORECASE)
"""In names of GGUFs that hold projectors or importance matrices."""


@dataclass(frozen=True)
class HubModel:
    """A GGUF on the hub."""

    files: tuple[RemoteFile, ...]
    """One, or all parts of a split model in order."""

    @property
    def name(self) -> str:
        """``owner/name/path`` of the first file."""
        return f"{self.files[0].repo}/{self.files[0].path}"

    @property
    def missing(self) -> tuple[RemoteFile, ...]:
        """What the cache lacks of it."""
        return tuple(file for file in self.files if _place(file) is None)

    def here(self) -> Path | None:
        """Where its first file lies; None unless all are in the cache."""
        return None if self.missing else _place(self.files[0])


def fetch(model: HubModel) -> Path:
    """Download what the cache lacks of it; return its first file. Raises `ModelFileError`."""
    return fetch_model_files(model.files) / model.files[0].path


def split_name(text: str) -> tuple[str, str]:
    """Return the name that ``NAME=REFERENCE`` gives a model, and the reference; the name is empty where none is given.

    A path that is there is one, whatever signs are in it.
    """
    match = _NAMED.fullmatch(text)
    if match is None or Path(text).exists():
        return "", text
    if not match["name"].strip():
        raise UsageError(f"{text}: NAME=FILE needs a name before the sign")
    return match["name"].strip(), match["reference"]


def resolve(reference: str) -> Path | HubModel | None:
    """Return the (first) model file of ``reference``, here or on the hub; None for a checkpoint.

    Raises `ModelFileError` where it is nothing of these, or where several models fit.
    """
    path = Path(reference)
    if path.is_file():
        return model_parts(path)[0]
    if path.is_dir():
        return None
    match = _HUB.fullmatch(reference.removeprefix(_SCHEME))
    is_file = path.suffix.lower() == ".gguf"
    local = not reference.startswith(_SCHEME) and is_file and path.parent.is_dir()
    if match is None or local or (is_file and not match["path"]):
        what = "" if is_file else "; give a GGUF file, a checkpoint folder or owner/name on the hub"
        raise ModelFileError(f"{path}: no such file{what or '; give the path of a GGUF model file'}")
    try:
        files = repository_files(match["repo"], match["revision"])
    except ModelFileError as error:
        if not match["path"] or reference.startswith(_SCHEME):
            raise
        raise ModelFileError(f"{reference}: no such file here; {error}") from None
    models = _models(files)
    if match["path"]:
        return _by_path(match["repo"], match["path"], models, files)
    if match["level"]:
        return _by_level(match["repo"], match["level"], models)
    if not models or (any(file.path == "config.json" for file in files) and _has_weights(files)):
        return None
    if len(models) > 1:
        raise ModelFileError(f"{match['repo']}: it holds several model files; {_choices(match['repo'], models)}")
    return _whole(models[0])


def _models(files: Sequence[RemoteFile]) -> list[HubModel]:
    """The models among a repository's files, each with its parts."""
    grouped: dict[str, list[RemoteFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        name = file.path.rpartition("/")[2]
        if name.lower().endswith(".gguf") and not _NO_MODEL.search(name):
            match = PART.match(file.path)
            grouped.setdefault(f"{match['stem']}/{match['count']}" if match else file.path, []).append(file)
    return [HubModel(tuple(parts)) for parts in grouped.values()]


def _by_path(repo: str, path: str, models: Sequence[HubModel], files: Sequence[RemoteFile]) -> HubModel:
    for model in models:
        if any(file.path == path for file in model.files):
            return _whole(model)
    known = [file.path for file in files if file.path.lower().endswith(".gguf")]
    single = [HubModel((file,)) for file in files if file.path == path]
    if single:  # no model by its name: what it is, the file itself says
        return single[0]
    raise ModelFileError(f"{repo}/{path}: no such file here, and {repo} has no such file{nearest(path, known)}")


def _by_level(repo: str, level: str, models: Sequence[HubModel]) -> HubModel:
    suffixes = [_suffix(model) for model in models]
    own = named_level(level)
    plain = bool(own) and not _addition(level, own)
    by_suffix = list(zip(models, suffixes, strict=True))
    fitting = [model for model, suffix in by_suffix if suffix.casefold() == level.casefold()]
    if not fitting and plain:
        named = [(model, suffix) for model, suffix in by_suffix if named_level(suffix) == own]
        # i1-Q4_K_M is meant by Q4_K_M where no other file is one
        fitting = [model for model, suffix in named if not _addition(suffix, own)] or [model for model, _ in named]
    if len(fitting) == 1:
        return _whole(fitting[0])
    if not models:
        raise ModelFileError(f"{repo}: a GGUF of level '{level}' is needed, the repository holds no GGUF")
    if fitting:
        raise ModelFileError(f"{repo}: several model files fit '{level}'; {_choices(repo, fitting)}")
    hint = nearest(level, filter(None, suffixes))
    raise ModelFileError(f"{repo}: no model file of level '{level}'{hint}; {_choices(repo, models)}")


def _whole(model: HubModel) -> HubModel:
    """The model, unless parts of it are missing."""
    match = PART.match(model.files[0].path)
    if match and len(model.files) != int(match["count"]):
        raise ModelFileError(f"{model.name}: {len(model.files)} of its {int(match['count'])} parts are there")
    return model


def _choices(repo: str, models: Sequence[HubModel]) -> str:
    """How to name one of them."""
    suffixes = [_suffix(model) for model in models]
    if all(suffixes) and len(set(suffixes)) == len(suffixes):
        return f"name one as {repo}:{suffixes[0]}; it has {', '.join(suffixes)}"
    return f"name one of {', '.join(model.name for model in models)}"


def _addition(suffix: str, level: str) -> str:
    return variant_name(Path(f"x-{suffix}.gguf"), level)


def _suffix(model: HubModel) -> str:
    return split_stem(Path(model.files[0].path).stem)[1]


def _has_weights(files: Sequence[RemoteFile]) -> bool:
    return any(file.path.endswith(".safetensors") and "/" not in file.path for file in files)


def _place(file: RemoteFile) -> Path | None:
    """Where the file lies in the cache; None also where the hub has another of another size by now."""
    path = cached_file(file.kind, file.repo, file.revision, file.path)
    return path if path is not None and path.stat().st_size == file.size_bytes else None
