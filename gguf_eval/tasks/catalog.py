"""Finds tasks and suites by name: beside the installed package, in the repository, or at a path."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gguf_eval.errors import TaskError, UsageError, nearest
from gguf_eval.tasks.spec import Task, load_task

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

SUITES_FILE = "suites.toml"


def tasks_folder() -> Path:
    """The folder of the tasks that ship: in the installed package, or at the top of the repository."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_data" / "tasks", package.parent / "tasks"):
        if (folder / SUITES_FILE).is_file():
            return folder
    raise TaskError(f"the tasks that ship with gguf-eval are missing (looked beside {package}); install it again")


def task_names() -> list[str]:
    """Names of the tasks that ship."""
    return sorted(path.stem for path in tasks_folder().glob("*.toml") if path.name != SUITES_FILE)


def suites() -> dict[str, list[str]]:
    """Named lists of tasks."""
    return {name: list(members) for name, members in _suites_table()["suites"].items()}


def suite_texts() -> dict[str, str]:
    """The text that is part of a suite, for those that have one: perplexity over it is one of the suite's figures."""
    return dict(_suites_table()["texts"])


def _suites_table() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((tasks_folder() / SUITES_FILE).read_text(encoding="utf-8"))
    return table


def only_in_suites(names: Sequence[str]) -> frozenset[str]:
    """Of what ``names`` stand for, the tasks that a suite brings and that are not named themselves."""
    known = suites()
    return frozenset(member for name in names for member in known.get(name, ())) - frozenset(names)


def find_tasks(names: list[str]) -> list[Task]:
    """Load tasks by name, suite name or path of a .toml file; each once, in the order given."""
    paths: dict[Path, None] = {}
    known_suites = suites()
    for name in names:
        if name.endswith(".toml") or os.sep in name or "/" in name:
            paths[Path(name)] = None
        elif name in known_suites:
            paths.update(dict.fromkeys(tasks_folder() / f"{member}.toml" for member in known_suites[name]))
        elif name in task_names():
            paths[tasks_folder() / f"{name}.toml"] = None
        else:
            known = [*task_names(), *known_suites]
            raise UsageError(f"unknown task '{name}'{nearest(name, known)}; 'gguf-eval tasks' lists them")
    tasks = [load_task(path) for path in paths]
    seen: dict[str, Path] = {}
    for task in tasks:
        if task.name in seen:
            raise UsageError(f"two tasks are named '{task.name}' ({seen[task.name]} and {task.path}); rename one")
        seen[task.name] = task.path
    return tasks
