"""Records as they stand in the study file: a plain value is a column as it is, anything else is JSON."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from gguf_eval.tasks.prompts import ItemRecord

T = TypeVar("T")

_PLAIN = (str, int, float)
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
    values = {name: getattr(record, name) for name in _hints(kind)}
    return {name: value if name in _plain(kind) else canonical_json(value) for name, value in values.items()}


def rows_of(kind: type, cursor: sqlite3.Cursor) -> Iterator[dict[str, Any]]:
    """The rows of a query, each with the values of those fields of ``kind`` that have a column of their name."""
    hints = _hints(kind)
    places = [(i, column[0]) for i, column in enumerate(cursor.description) if column[0] in hints]
    plain = [(i, name) for i, name in places if name in _plain(kind)]
    coded = [(i, name, from_json(hints[name])) for i, name in places if name not in _plain(kind)]
    for row in cursor:
        values = {name: row[i] for i, name in plain}
        for i, name, read in coded:
            values[name] = read(row[i])
        yield values


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _plain(kind: type) -> frozenset[str]:
    """Fields whose values SQLite keeps: texts and numbers, or none."""
    parts = {name: get_args(hint) if get_origin(hint) is UnionType else (hint,) for name, hint in _hints(kind).items()}
    known = (*_PLAIN, NoneType)
    return frozenset(n for n, hints in parts.items() if all(h in known or get_origin(h) is Literal for h in hints))


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
