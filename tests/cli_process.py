"""The program in a process of its own, as a user starts it, and a small task to run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "gguf_eval"]


def write_task(folder: Path, items: int, **changes: str) -> Path:
    rows = [
        {
            "id": f"item-{i}",
            "question": f"What comes after {i}",
            "options": [f"{i + 1}", f"{i * 7}", "no"],
            "right": i % 3,
        }
        for i in range(items)
    ]
    (folder / "count.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    prompt = {"id": "{{ id }}", "context": "{{ question }}:", "gold": "right", **changes}
    lines = [f"{key} = {json.dumps(value)}" for key, value in prompt.items()]
    text = "\n".join(
        ['name = "count"', "version = 1", 'kind = "choice"', "[dataset]", 'file = "count.jsonl"', "[prompt]",
         'choices = "options"', *lines]
    )  # fmt: skip
    path = folder / "count.toml"
    path.write_text(text + "\n", encoding="utf-8")
    return path


def gguf_eval(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, encoding="utf-8", **options)


FAST = ("-t", "count.toml", "--no-speed", "--threads", "1")
