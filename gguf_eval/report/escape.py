"""Makes text from models, datasets and file names harmless in each format: it is data there, never markup."""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

Record = TypeVar("Record")

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The wide ones too, which spreadsheets of East Asian languages read as the others."""
_BLOCK = re.compile(r"^(\d+(?=[.)])|(?=[-=]))")
"""What makes a list, a rule or a heading of a line that begins with it."""
_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control characters, invisible and direction-changing ones, lone surrogates, line separators."""


def plain(text: str) -> str:
    """Text without control characters: an escape sequence or a line break is shown, not obeyed."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(c) if unicodedata.category(c) in _UNSAFE else c for c in text)


def _shown(character: str) -> str:
    code = ord(character)
    if code < 32:
        return chr(0x2400 + code)
    return "\u2421" if code == 127 else "\ufffd"


def printable(value: Record) -> Record:
    """A record with every text in it made `plain`, keys of mappings too."""
    if value is None or isinstance(value, int | float):
        return value
    cleaned: Any = value
    if isinstance(value, str):
        cleaned = plain(value)
    elif is_dataclass(value) and not isinstance(value, type):
        changes = {}
        for field in fields(value):
            before = getattr(value, field.name)
            after = printable(before)
            if after is not before:
                changes[field.name] = after
        cleaned = replace(value, **changes) if changes else value
    elif isinstance(value, Mapping):
        pairs = {printable(key): printable(part) for key, part in value.items()}
        cleaned = pairs if any(pairs.get(key) is not part for key, part in value.items()) else value
    elif isinstance(value, tuple | list):
        parts = [printable(part) for part in value]
        if any(a is not b for a, b in zip(parts, value, strict=True)):
            cleaned = tuple(parts) if isinstance(value, tuple) else parts
    return cleaned  # type: ignore[no-any-return]


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a sentence or in a table's cell."""
    shown = _MARKDOWN.sub(r"\\\1", _BLOCK.sub(r"\1\0", plain(text).lstrip())).replace("\0\\", "\\").replace("\0", "\\")
    return shown.replace("\\&", "&amp;").replace("\\<", "&lt;").replace("\\>", "&gt;")


def csv_cell(value: Any) -> Any:
    """A value that a spreadsheet doesn't take for a formula: text that begins like one gets a quote before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def json_for_script(text: str) -> str:
    """JSON text that can stand inside a script element."""
    return (
        text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        .replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )  # fmt: skip


def json_text(document: Any) -> str:
    """JSON for people and programs: readable, with the characters escaped that a terminal would obey."""
    return safe_json(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def safe_json(text: str) -> str:
    """JSON text with the characters escaped that a terminal would obey."""
    return _unsafe().sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@functools.cache
def _unsafe() -> re.Pattern[str]:
    """Finds the characters that a terminal would obey, but for line breaks."""
    characters = (chr(code) for code in range(0x10000) if chr(code) != "\n")
    return re.compile("[" + re.escape("".join(c for c in characters if unicodedata.category(c) in _UNSAFE)) + "]")
