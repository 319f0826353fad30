"""Task files: what a task is, read from TOML and checked key by key."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_eval.errors import TaskError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the parser moved into the standard library in 3.11
    import tomli as tomllib

CHOICE_METRICS = ("acc", "acc_norm", "acc_token_norm")
KINDS = ("choice",)

_TOP = {"name", "version", "title", "description", "kind", "group", "metric", "metrics", "licence", "paper"}
_TABLES = {
    "dataset": {"repo", "config", "split", "file"},
    "prompt": {"id", "context", "choices", "gold", "delimiter"},
}
_DOCUMENTATION = {"title", "description", "group", "licence", "paper"}
"""Keys that change no answer and so are no part of the task's identity."""


@dataclass(frozen=True)
class Dataset:
    """Where the rows come from: a split of a hub dataset, or a JSON Lines or Parquet file beside the task file."""

    repo: str = ""
    config: str = "default"
    split: str = "test"
    file: Path | None = None


@dataclass(frozen=True)
class Prompt:
    """Jinja sources that turn a row into an item."""

    context: tuple[str, ...]
    """One template, or one for each choice (partial scoring: what follows is the same)."""
    choices: str | tuple[str, ...]
    """A Jinja expression that gives the list of choices, or one template for each."""
    gold: str
    """A Jinja expression that gives the index of the right choice, counted from 0."""
    id: str = ""
    """A template of the item's id; the row number unless given."""
    delimiter: str = " "
    """What stands between context and choice."""


@dataclass(frozen=True)
class Task:
    """One task file."""

    name: str
    version: int
    kind: str
    title: str
    description: str
    group: str
    metric: str
    """The headline metric; the others are computed too."""
    metrics: tuple[str, ...]
    licence: str
    paper: str
    dataset: Dataset
    prompt: Prompt
    path: Path
    hash: str
    """SHA-256 of everything in the file that can change an answer."""


def load_task(path: Path) -> Task:
    """Read and check a task file; raises `TaskError` naming the file and the key."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TaskError(f"{path}: no such task file; give the path of a .toml file or a task's name") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: can't be read ({error}); check the file") from None
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"{path}: not valid TOML: {error}") from None
    return _task(data, path)


def _task(data: Mapping[str, Any], path: Path) -> Task:
    _check_keys(data, _TOP | set(_TABLES), path, "")
    for table, keys in _TABLES.items():
        if not isinstance(data.get(table), dict):
            raise TaskError(f"{path}: a table [{table}] is needed; see the tasks that ship for the form")
        _check_keys(data[table], keys, path, f"{table}.")
    for key, kind in (("name", str), ("version", int), ("kind", str)):
        if not isinstance(data.get(key), kind):
            raise TaskError(f"{path}: '{key}' must be given, as {kind.__name__}; found {data.get(key)!r}")
    if data["kind"] not in KINDS:
        raise TaskError(f"{path}: kind '{data['kind']}' is unknown; known: {', '.join(KINDS)}")
    metrics = _strings(data.get("metrics", list(CHOICE_METRICS)))
    if metrics is None:
        raise TaskError(f"{path}: metrics must be a list of names; found {data['metrics']!r}")
    metric = data.get("metric", metrics[0])
    for name in (*metrics, metric):
        if name not in CHOICE_METRICS:
            known = ", ".join(CHOICE_METRICS)
            raise TaskError(f"{path}: metric '{name}' is unknown{nearest(str(name), CHOICE_METRICS)} (known: {known})")
    if metric not in metrics:
        raise TaskError(f"{path}: metric '{metric}' must be one of metrics = {list(metrics)}")
    return Task(
        name=data["name"],
        version=data["version"],
        kind=data["kind"],
        title=str(data.get("title", data["name"])),
        description=str(data.get("description", "")),
        group=str(data.get("group", "")),
        metric=metric,
        metrics=metrics,
        licence=str(data.get("licence", "")),
        paper=str(data.get("paper", "")),
        dataset=_dataset(data["dataset"], path),
        prompt=_prompt(data["prompt"], path),
        path=path,
        hash=definition_hash(data),
    )


def _dataset(table: Mapping[str, Any], path: Path) -> Dataset:
    if ("repo" in table) == ("file" in table):
        raise TaskError(f"{path}: [dataset] needs either 'repo' (with config and split) or 'file'")
    for key, value in table.items():
        if not isinstance(value, str):
            raise TaskError(f"{path}: dataset.{key} must be a string; found {value!r}")
    if "file" in table:
        return Dataset(file=path.parent / table["file"])
    return Dataset(table["repo"], table.get("config", "default"), table.get("split", "test"))


def _prompt(table: Mapping[str, Any], path: Path) -> Prompt:
    context, choices = table.get("context"), table.get("choices")
    contexts = _strings([context] if isinstance(context, str) else context)
    if contexts is None:
        raise TaskError(f"{path}: prompt.context must be a template or a list of templates; found {context!r}")
    templates = choices if isinstance(choices, str) else _strings(choices)
    if not templates:
        raise TaskError(f"{path}: prompt.choices must be a list of templates or an expression; found {choices!r}")
    if len(contexts) > 1 and isinstance(templates, tuple) and len(contexts) != len(templates):
        raise TaskError(f"{path}: prompt.context has {len(contexts)} templates for {len(templates)} choices")
    if not isinstance(table.get("gold"), str | int):
        raise TaskError(f"{path}: prompt.gold must be an expression that gives the right choice's index")
    for key in ("id", "delimiter"):
        if not isinstance(table.get(key, ""), str):
            raise TaskError(f"{path}: prompt.{key} must be a string; found {table[key]!r}")
    return Prompt(contexts, templates, str(table["gold"]), table.get("id", ""), table.get("delimiter", " "))


def _strings(value: Any) -> tuple[str, ...] | None:
    """The value as a tuple where it is a list of one string or more."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return tuple(value)
    return None


def _check_keys(table: Mapping[str, Any], known: set[str], path: Path, prefix: str) -> None:
    for key in table:
        if key not in known:
            raise TaskError(
                f"{path}: unknown key '{prefix}{key}'{nearest(key, sorted(known))} (known: {', '.join(sorted(known))})"
            )


def definition_hash(data: Mapping[str, Any]) -> str:
    """SHA-256 of a parsed task file without the keys that only document it."""
    relevant = {key: value for key, value in data.items() if key not in _DOCUMENTATION}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
