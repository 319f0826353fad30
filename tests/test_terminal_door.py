"""In a real terminal: nothing that comes out of a file, a name or an argument steers it. Pipes would hide it."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from pathlib import Path

import gguf
import pytest
from builders import write_rows
from hostile import TEXTS
from pseudo_terminal import run_in_terminal
from synthetic_study import write_study
from tiny_model import add_byte_bpe, write_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

STEERING = (
    "\x1b[2J\x1b[H",  # clears the screen
    "\x1b]0;title\x07\x1b]52;c;cm0gLXJm\x07",  # the window's title, the clipboard
    "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\",
    "\x1bP$q\"p\x1b\\\x1b[6n\x1b[c",  # asks the terminal to type
    "\x1bc\x1b7\x0e",
    "\x9b31m\x9d0;title\x9c\x90x\x9c",  # the same with the controls of one byte
    "\u202eevil\u2066\u200b\ufeff",  # turns the direction, hides
    "over\rwritten\b\b\x7f\x0b\x0c",
    "\u2028\u2029\x85",
)  # fmt: skip
ALL = "".join(STEERING)
NAME = "\x1b[31m\x9b2J\x07\u202ex\x1b]0;t\x07"
"""A name of files: without a slash."""
_STYLES = re.compile(r"\x1b\[[0-9;]*m")
"""Select Graphic Rendition: colours and weights, which are our own."""


def add_names(writer: gguf.GGUFWriter) -> int:
    for key in ("author", "url", "license", "basename", "size_label", "finetune", "source.url"):
        writer.add_string(f"general.{key}", ALL)
    writer.add_string("tokenizer.chat_template", ALL)
    writer.add_string(f"key {NAME}", ALL)
    return add_byte_bpe(writer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("door")
    file = write_model(folder / "plain.gguf", layers=1, tokenizer=add_names)
    content = file.read_bytes()
    (folder / f"{NAME}.gguf").write_bytes(content.replace(b"\x04\0\0\0\0\0\0\0tiny", b"\x04\0\0\0\0\0\0\0\x1b[2J", 1))
    (folder / "unknown.gguf").write_bytes(content.replace(b"llama", b"l\x1b[2J", 1))
    recipe = f'level = "Q8_0"\nnote = {json.dumps(ALL, ensure_ascii=True)}\n'
    (folder / f"{NAME}.toml").write_text(recipe, encoding="utf-8")
    (folder / "wrong.toml").write_text(f'level = "Q8_0"\n{json.dumps(NAME)} = 1\n', encoding="utf-8")
    write_rows(folder / "count.jsonl", [{"question": ALL, "options": [*STEERING], "right": 1, ALL: ALL}])
    task = (
        'name = "{name}"\nversion = 1\nkind = "choice"\ntitle = {text}\n[dataset]\nfile = "count.jsonl"\n'
        '[prompt]\nchoices = "options"\ncontext = "{{{{ question }}}}"\ngold = "{gold}"\n'
    )
    for name, gold in (("task", "right"), ("broken", "question")):
        text = task.format(name=name, text=json.dumps(ALL), gold=gold)
        (folder / f"{name} {NAME}.toml").write_text(text, encoding="utf-8")
    hostile = (*STEERING, *TEXTS)
    for name, drift in ((f"{NAME}.sqlite", 0.0), ("later.sqlite", 0.6)):
        write_study(folder / name, levels=2, sizes=2, tasks=5, items=20, texts=2, hostile=hostile, drift=drift)
    return folder


COMMANDS = {
    "inspect": (("inspect", f"{NAME}.gguf"), 0),
    "inspect of an unknown architecture": (("inspect", "unknown.gguf"), None),
    "inspect of nothing": (("inspect", f"no {NAME}.gguf"), 1),
    "report": (("report", f"{NAME}.sqlite"), 0),
    "report, every column": (("report", f"{NAME}.sqlite", "--wide"), 0),
    "report in JSON": (("report", f"{NAME}.sqlite", "--json"), 0),
    "report in CSV": (("report", f"{NAME}.sqlite", "--format", "csv"), 0),
    "items in CSV": (("report", f"{NAME}.sqlite", "--format", "csv", "--items"), 0),
    "items in JSON Lines": (("report", f"{NAME}.sqlite", "--format", "jsonl", "--items"), 0),
    "report in Markdown": (("report", f"{NAME}.sqlite", "--format", "markdown"), 0),
    "report of several": (("report", f"{NAME}.sqlite", "later.sqlite"), 0),
    "report of nothing": (("report", f"no {NAME}.sqlite"), 1),
    "report in no format": (("report", "later.sqlite", "--format", NAME), 2),
    "compare": (("compare", f"{NAME}.sqlite"), 0),
    "recommend": (("recommend", f"{NAME}.sqlite"), 0),
    "changes": (("changes", f"{NAME}.sqlite", "later.sqlite"), 0),
    "tasks show": (("tasks", "show", f"task {NAME}.toml"), 0),
    "tasks check": (("tasks", "check", f"broken {NAME}.toml"), 1),
    "tasks show nothing": (("tasks", "show", NAME), 2),
    "recipes show": (("recipes", "show", f"{NAME}.toml"), 0),
    "recipes show what is wrong": (("recipes", "show", "wrong.toml"), 2),
    "recipes show nothing": (("recipes", "show", NAME), 2),
    "quantize --plan": (("quantize", f"{NAME}.gguf", "-q", f"{NAME}.toml", "-o", f"made {NAME}", "--plan"), 0),
    "convert nothing": (("convert", NAME), 2),
    "run --plan": (("run", f"{NAME}.gguf", "-t", f"task {NAME}.toml", "--no-speed", "--plan"), 0),
    "an unknown command": ((NAME,), 2),
    "an unknown option": (("report", f"--{NAME}"), 2),
}


@pytest.mark.parametrize("what", COMMANDS)
def test_only_our_own_styles_reach_the_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(folder / "cache"))
    arguments, expected = COMMANDS[what]
    code, shown = run_in_terminal(arguments)
    assert "Traceback" not in shown
    assert expected is None or code == expected, shown
    text = _STYLES.sub("", shown.replace("\r\n", "\n"))
    assert text.strip()
    found = {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert not found, (found, [line for line in text.splitlines() if any(c in line for c in found)][:5])
