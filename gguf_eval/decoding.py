"""Decodes parsed files into dataclasses with msgspec, and says in one line which key is wrong and what it must be."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from gguf_eval.errors import nearest

T = TypeVar("T")

_WORDS: Mapping[Any, str] = {
    str: "a string", int: "a whole number", float: "a number", bool: "true or false", Path: "a string",
    re.Pattern: "a regular expression", tuple: "a list", Mapping: "a table", dict: "a table",
}  # fmt: skip
_REFUSAL = re.compile(r"(.*?)(?: - at `\$\.?([^\[]*)(.*)`)?", re.DOTALL)
"""msgspec's message: what is wrong, the keys that lead there, and where in a list or a table of free keys."""
_MISSING = re.compile(r"Object missing required field `(\w+)`")


class DecodingError(ValueError):
    """What a file holds is not what is needed; the message names the key, and leaves the file to who read it."""


def decode(
    kind: type[T], table: Mapping[str, Any], *, prefix: str = "", folder: Path = Path(), no_keys: Collection[str] = ()
) -> T:
    """A table as the dataclass ``kind``, whose fields are its keys; those in ``no_keys`` are left to their defaults.

    Nothing is coerced: a list becomes a tuple, a string a path in ``folder`` or a compiled pattern, where the field is
    one. ``prefix`` stands before keys in messages; they say what a field must be in the words of its
    ``Meta(description=...)``. Raises `DecodingError` for a key that is unknown, missing or of the wrong kind.
    """

    def special(wanted: Any, value: Any) -> Any:
        if not isinstance(value, str):
            raise TypeError("Expected `str`")
        if wanted is Path:
            return folder / value
        try:
            return re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression: {error}") from None

    _check_keys(kind, table, prefix, no_keys)
    try:
        return msgspec.convert(table, kind, dec_hook=special)
    except msgspec.ValidationError as error:
        raise DecodingError(_explained(str(error), kind, table, prefix)) from None


def check_known(name: Any, known: Collection[str], key: str) -> None:
    """Raise `DecodingError` where ``name``, the value of ``key``, is not one of the known names."""
    if not isinstance(name, str) or name not in known:
        raise DecodingError(_unknown(key, name, known))


def _unknown(key: str, value: Any, known: Collection[str]) -> str:
    return f"{key} '{value}' is unknown{nearest(str(value), known)} (known: {', '.join(known)})"


def _check_keys(kind: Any, table: Mapping[str, Any], prefix: str, no_keys: Collection[str] = ()) -> None:
    """Refuse keys that are no fields: msgspec would leave them out without a word."""
    hints = _hints(kind)
    known = sorted(hints.keys() - set(no_keys))
    for key, value in table.items():
        if key not in known:
            raise DecodingError(f"unknown key '{prefix}{key}'{nearest(key, known)} (known: {', '.join(known)})")
        inner = bare_type(hints[key])
        if is_dataclass(inner) and isinstance(value, Mapping):
            _check_keys(inner, value, f"{prefix}{key}.")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def bare_type(hint: Any) -> Any:
    """A type hint without what annotates it, and without None."""
    if get_origin(hint) is Annotated:
        return bare_type(get_args(hint)[0])
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return bare_type(kinds[0]) if get_origin(hint) in (Union, UnionType) and len(kinds) == 1 else hint


def _explained(message: str, kind: Any, table: Any, prefix: str) -> str:
    """msgspec's message in the words of the file."""
    what, path, inside = _REFUSAL.fullmatch(message).groups("")  # type: ignore[union-attr]  # it matches everything
    keys = [key for key in path.split(".") if key]
    missing = _MISSING.match(what)
    hint, value = kind, table
    for key in [*keys, missing[1]] if missing else keys:
        hint, value = _hints(bare_type(hint))[key], value.get(key)
    if missing:
        name = ".".join([*keys, missing[1]])
        if is_dataclass(bare_type(hint)):
            return f"a table [{name}] is needed"
        return f"{prefix}{name} is needed: {_needed(hint)}"
    if inside.startswith("[...]"):
        hint = get_args(bare_type(hint))[1]
        keys.append(next(key for key, one in value.items() if not _fits(one, hint)))
        value = value[keys[-1]]
    name = prefix + ".".join(keys)
    if get_origin(bare_type(hint)) is Literal:
        return _unknown(name, value, get_args(bare_type(hint)))
    if not what.startswith("Expected"):
        return f"{name}: {what}"
    return f"{name} must be {_needed(hint)}; found {value!r}"


def _fits(value: Any, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return True


def _needed(hint: Any) -> str:
    """What a value must be, in words."""
    bound = ""
    for meta in (meta for part in (hint, *get_args(hint)) for meta in getattr(part, "__metadata__", ())):
        if meta.description:
            return str(meta.description)
        bound = f", {meta.ge} or more" if meta.ge is not None else ""
    plain = bare_type(hint)
    if get_origin(plain) is Literal:
        return f"one of {', '.join(get_args(plain))}"
    return _WORDS.get(get_origin(plain) or plain, "a table") + bound
