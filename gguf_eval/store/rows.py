"""Records as they stand in the study file: a plain value is a column as it is, anything else is JSON."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import cache
from typing import Any, Literal, TypeVar, get_origin, get_type_hints

import msgspec

from gguf_eval.decoding import bare_type
from gguf_eval.tasks.prompts import ItemRecord

T = TypeVar("T")

_CONTENT = tuple(field.name for field in fields(ItemRecord) if field.name not in ("hash", "id"))


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@cache
def from_json(kind: type[T]) -> Callable[[str], T]:
    """What reads JSON as a value of type ``kind``, NaN and Infinity too: Python's `json` writes them."""
    decode = msgspec.json.Decoder(kind).decode

    def read(text: str) -> T:
        try:
            return decode(text)
        except msgspec.DecodeError:
            return msgspec.convert(json.loads(text), kind)

    return read


json_object = from_json(dict[str, Any])
"""Reads a JSON object."""


def columns(record: Any, kind: type) -> dict[str, Any]:
    """The fields that ``kind`` has, as columns of these names."""
    values = {name: (getattr(record, name), hint) for name, hint in _hints(kind).items()}
    return {name: value if _is_plain(hint) else canonical_json(value) for name, (value, hint) in values.items()}


def rows_of(kind: type, cursor: sqlite3.Cursor) -> Iterator[dict[str, Any]]:
    """The rows of a query, each with the values of those fields of ``kind`` that have a column of their name."""
    hints = _hints(kind)
    places = [(i, column[0]) for i, column in enumerate(cursor.description) if column[0] in hints]
    plain = [(i, name) for i, name in places if _is_plain(hints[name])]
    coded = [(i, name, from_json(hints[name])) for i, name in places if not _is_plain(hints[name])]
    for row in cursor:
        values = {name: row[i] for i, name in plain}
        for i, name, read in coded:
            values[name] = read(row[i])
        yield values


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _is_plain(hint: Any) -> bool:
    """Whether SQLite keeps values of a type: texts, numbers, none."""
    kind = bare_type(hint)
    return kind in (str, int, float) or get_origin(kind) is Literal


def item_content(item: ItemRecord) -> str:
    """The column ``content``: what `item_records` reads, without what says nothing."""
    content = {name: getattr(item, name) for name in _CONTENT}
    if item.cluster == item.id:
        del content["cluster"]
    return canonical_json({name: value for name, value in content.items() if value})


def item_records(rows: Iterable[tuple[str, str, int, str]]) -> dict[str, ItemRecord]:
    """Items by hash, of rows of hash, id, gold and content; studies were written without ``golds`` once."""
    rows = list(rows)
    contents = from_json(list[dict[str, Any]])(f"[{','.join(row[3] for row in rows)}]")  # one call: a tenth of the time
    items = {}
    for (hash_, id_, gold, _), content in zip(rows, contents, strict=True):
        golds = (gold,) if content.get("choices") else ()
        values = {"hash": hash_, "id": id_, "cluster": id_, "golds": golds, **content}
        items[hash_] = msgspec.convert(values, ItemRecord)
    return items
