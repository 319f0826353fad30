"""Which tokens begin and end a text, whether they are added, and the chat template.

The rules are those of llama.cpp's converter, so that its tools treat the file alike: tokenizer_config.json names the
special tokens, tokenizer.json knows their ids and (in its post-processor) whether they are added; config.json's ids
fill what is left, whole numbers only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf_eval.errors import ModelFileError
from gguf_eval.files.checkpoint import read_json

TYPES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
Template = str | list[Mapping[str, str]]


@dataclass
class SpecialTokens:
    """What was found; dictionaries are in the order of finding."""

    ids: dict[str, int] = field(default_factory=dict)
    """Kind (``bos``, ``eos``, ...) -> token id."""
    added: dict[str, bool] = field(default_factory=dict)
    """Kind -> whether the engine adds it by itself."""
    chat_template: Template | None = None


def read_special_tokens(
    folder: Path,
    tokenizer: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    vocabulary: int | None,
    kinds: Iterable[str] = TYPES,
) -> SpecialTokens:
    """Read the files in ``folder``; ``tokenizer`` is the content of its tokenizer.json.

    Ids from ``vocabulary`` on are left out. Raises `ModelFileError`.
    """
    found, kinds = SpecialTokens(), list(kinds)
    settings = read_json(folder / "tokenizer_config.json")
    if tokenizer is not None:
        _PostProcessor(settings, kinds, found.added).read(tokenizer)
    if settings is not None:
        found.chat_template = _chat_template(folder, settings)
        entries = tokenizer.get("added_tokens", []) if tokenizer is not None else []
        for kind in kinds:
            wanted = settings.get(f"add_{kind}_token")
            if isinstance(wanted, bool):
                found.added.setdefault(kind, wanted)
            text = content(settings.get(f"{kind}_token"))
            if text is not None:
                token_id = next((entry.get("id") for entry in entries if entry.get("content") == text), None)
                _keep(found, kind, token_id, vocabulary)
    for kind in kinds:
        _keep(found, kind, config.get(f"{kind}_token_id"), vocabulary)
    return found


def content(entry: Any) -> str | None:
    """Return the text of a special token, which is written as a string or as an object."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None


def _keep(found: SpecialTokens, kind: str, token_id: Any, vocabulary: int | None) -> None:
    if not isinstance(token_id, int) or kind in found.ids:
        return
    if token_id < 0:
        raise ModelFileError(f"the id of the {kind} token must not be negative, found {token_id}; mend config.json")
    if vocabulary is None or token_id < vocabulary:
        found.ids[kind] = token_id


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> Template | None:
    alternative: Any = None
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        alternative = jinja.read_text(encoding="utf-8")
        if more := sorted((folder / "additional_chat_templates").glob("*.jinja")):
            alternative = [{"name": "default", "template": alternative}]
            alternative += [{"name": path.stem, "template": path.read_text(encoding="utf-8")} for path in more]
    elif (listed := read_json(folder / "chat_template.json")) is not None:
        alternative = listed.get("chat_template")
    template = settings.get("chat_template", alternative)
    if isinstance(template, list):
        named = [entry for entry in template if isinstance(entry, dict)]
        return [entry for entry in named if all(isinstance(entry.get(key), str) for key in ("name", "template"))]
    return template if isinstance(template, str) else None


class _PostProcessor:
    """Reads tokenizer.json's post-processor, which may rename special tokens in the settings on its way."""

    def __init__(self, settings: dict[str, Any] | None, kinds: list[str], added: dict[str, bool]) -> None:
        self.settings, self.kinds, self.added = settings, kinds, added
        values = settings or {}
        self.bos, self.eos = values.get("bos_token"), values.get("eos_token")
        self.cls, self.sep = values.get("cls_token"), values.get("sep_token")
        if settings and not self.bos and self.cls:
            settings["bos_token"] = self.bos = self.cls
        if settings and not self.eos and self.sep:
            settings["eos_token"] = self.eos = self.sep

    def read(self, tokenizer: Mapping[str, Any]) -> None:
        top = tokenizer.get("post_processor")
        for processor in top.get("processors", [top]) if isinstance(top, dict) else []:
            if processor.get("type") == "ByteLevel":
                self.added.setdefault("bos", False)
                self.added.setdefault("eos", False)
            elif processor.get("type") == "TemplateProcessing":
                self._template(processor)

    def _template(self, processor: Mapping[str, Any]) -> None:
        single, pair = processor.get("single", []), processor.get("pair", [])
        first = last = None
        if len(single) > 1:
            first, last = _special(single[0]), _special(single[-1])
            if first:
                self._first(first)
            if last:
                self._last(last)
        if pair:
            self._pair(pair, first, last)

    def _first(self, first: str) -> None:
        if not self.settings:
            self.bos = first
        elif first not in (self.bos, self.cls):
            if not self.bos:
                self.settings["bos_token"] = self.bos = first
            if not self.cls:
                self.settings["cls_token"] = self.cls = first
        self.added["bos"] = first in (self.bos, self.cls)

    def _last(self, last: str) -> None:
        if self.settings and last != self.eos:
            for spare in ("eot", "eom"):
                if spare not in self.kinds:
                    self.kinds.append(spare)
                    self.settings[f"{spare}_token"] = self.eos
                    break
            self.settings["eos_token"] = last
        self.eos = last
        self.added["eos"] = True

    def _pair(self, pair: list[Any], first: str | None, last: str | None) -> None:
        start = 1 if first and _special(pair[0]) == first else 0
        stop = -1 if last and _special(pair[-1]) == last else None
        pair = pair[start:stop]
        if not pair or _sequence(pair[0]) != "A" or _sequence(pair[-1]) != "B" or not (between := pair[1:-1]):
            return
        separators = (self.sep, self.eos)
        adds = bool(_special(between[0])) and _special(between[0]) in separators and not last
        if len(between) == 2 and _special(between[1]):
            adds = adds or _special(between[1]) in separators
        self.added["sep"] = adds
        if adds and not self.sep and self.settings:
            self.settings["sep_token"] = self.eos


def _special(entry: Any) -> str | None:
    text = entry.get("SpecialToken", {}).get("id") if isinstance(entry, dict) else None
    return text if isinstance(text, str) else None


def _sequence(entry: Any) -> str | None:
    return entry.get("Sequence", {}).get("id") if isinstance(entry, dict) else None
