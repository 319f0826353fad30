"""The package as a whole: its public names, what ships, and the rooms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf_eval
from gguf_eval.tasks.catalog import suites, task_names

ROOT = Path(__file__).parents[1]


def test_public_names_are_sorted_and_there() -> None:
    assert gguf_eval.__all__ == sorted(gguf_eval.__all__)
    assert set(gguf_eval.__all__) == set(gguf_eval._ROOMS)
    for name in gguf_eval.__all__:
        assert getattr(gguf_eval, name).__name__ == name


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, gguf_eval; print([m for m in ('numpy', 'llama_cpp', 'rich', 'gguf') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_who_runs_a_study_loads_no_llama_cpp() -> None:
    code = "import sys, gguf_eval.study.run, gguf_eval.study.worker; print('llama_cpp' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_suites_name_tasks_that_ship() -> None:
    assert {name for members in suites().values() for name in members} <= set(task_names())


def test_the_architecture_names_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (ROOT / "gguf_eval").glob("*/__init__.py")}
    assert {room for room in rooms if f"`{room}/`" not in text} == set()
