"""What tests make by hand: records of a study, task files, and what is printed of them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from gguf_eval.store.records import Outcome, PointRecord, StudyRecord, TaskRecord
from gguf_eval.tasks.prompts import ItemRecord

# Records


CHOICES = {"t1": 4, "t2": 2}
"""Number of choices of the hand-made tasks' items."""


def items(name: str, count: int, choices: tuple[str, ...] = ("a", "b")) -> dict[str, ItemRecord]:
    """Items by their hashes, ``name-0`` and so on; the first choice is right."""
    made = (
        ItemRecord(hash=f"{name}-{i}", id=str(i), contexts=("",), choices=choices, golds=(0,)) for i in range(count)
    )
    return {item.hash: item for item in made}


def task(name: str, count: int = 0, /, **changes: Any) -> TaskRecord:
    """A task of so many items, of as many choices as CHOICES says."""
    made = TaskRecord(
        hash=f"hash-{name}", name=name, version=1, kind="choice", title=name.upper(), group="group", metric="acc",
        metrics=("acc", "acc_norm"), items=items(name, count, tuple("abcd"[: CHOICES.get(name, 2)])),
    )  # fmt: skip
    return replace(made, **changes)


def outcome(key: str, value: float | None, answer: int | None = None, **changes: Any) -> Outcome:
    """What a point did on the item of this hash; no value: unscored."""
    metrics = {} if value is None else {"acc": value}
    made = Outcome(key, value, answer, metrics, (), (), unscored_reason="broken" if value is None else None)
    return replace(made, **changes)


def answers(name: str, marks: str) -> dict[str, Outcome]:
    """One outcome a character: 1 right, 0 wrong, ? unscored, ! right with a cut prompt."""
    values = {"1": 1.0, "!": 1.0, "0": 0.0, "?": None}
    outcomes = {}
    for i, mark in enumerate(marks):
        key, value = f"{name}-{i}", values[mark]
        made = outcome(key, value, None if value is None else 0, truncated_tokens=7 if mark == "!" else 0)
        outcomes[key] = made if value is None else replace(made, metrics={"acc": value, "acc_norm": 1.0})
    return outcomes


def point(
    number: int, level: str, bits: float, marks: Mapping[str, str], *, model: str = "tiny",
    peak_rss_bytes: int | None = None, **changes: Any,
) -> PointRecord:  # fmt: skip
    """A point of a thousand parameters with these answers, as `answers` reads them, by task."""
    made = PointRecord(
        id=number, name=f"{model} {level}", model=model, level=level, sha256="0" * 64 if marks else None,
        path=f"{model}-{level}.gguf", architecture="llama", parameters=1000, size_bytes=int(bits * 125),
        bits_per_weight=bits, origin={}, settings={}, status="complete", error=None, log_path=None,
        memory={} if peak_rss_bytes is None else {"peak_rss": peak_rss_bytes},
        outcomes={f"hash-{name}": answers(name, text) for name, text in marks.items()},
    )  # fmt: skip
    return replace(made, **changes)


def record(*points: PointRecord, tasks: Iterable[TaskRecord] = (), items: int = 6, **changes: Any) -> StudyRecord:
    """A study of these points, with tasks t1 and t2 of so many items unless others are given."""
    asked = tuple(tasks) or (task("t1", items), task("t2", items))
    return replace(StudyRecord("s.sqlite", "2026-01-01", "run", {}, asked, points), **changes)


# Files


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_task(folder: Path, items: int, **changes: str) -> Path:
    """A choice task in ``count.toml`` with its rows beside it."""
    rows = (
        {
            "id": f"item-{i}",
            "question": f"What comes after {i}",
            "options": [f"{i + 1}", f"{i * 7}", "no"],
            "right": i % 3,
        }
        for i in range(items)
    )
    write_rows(folder / "count.jsonl", rows)
    prompt = {"id": "{{ id }}", "context": "{{ question }}:", "gold": "right", **changes}
    lines = [f"{key} = {json.dumps(value)}" for key, value in prompt.items()]
    text = "\n".join(
        ['name = "count"', "version = 1", 'kind = "choice"', "[dataset]", 'file = "count.jsonl"', "[prompt]",
         'choices = "options"', *lines]
    )  # fmt: skip
    path = folder / "count.toml"
    path.write_text(text + "\n", encoding="utf-8")
    return path


# What is printed


def printed(show: Callable[[Console], object], width: int = 100, **options: Any) -> str:
    """What is written to a console of so many columns."""
    out = io.StringIO()
    show(Console(file=out, width=width, highlight=False, **options))
    return out.getvalue()


AS_TERMINAL: dict[str, Any] = {"force_terminal": True, "color_system": None}
"""A console that takes itself for a terminal without colours."""
