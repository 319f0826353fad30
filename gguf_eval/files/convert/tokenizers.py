"""The vocabulary of a model file, from tokenizer.model (SentencePiece) or tokenizer.json (BPE)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gguf_eval.errors import ModelFileError
from gguf_eval.files.checkpoint import read_json
from gguf_eval.files.convert import pretokenizers, sentencepiece
from gguf_eval.files.convert.sentencepiece import CONTROL, NORMAL, UNUSED, USER_DEFINED
from gguf_eval.files.convert.special_tokens import TYPES, SpecialTokens, content, read_special_tokens

_ADDED_SCORE, _PADDING_SCORE = -1000.0, -10000.0
_CODE_LLAMA_VOCABULARY = 32016
_CODE_LLAMA_INFILL_END = 32010
GRANITE_VOCABULARY = 49152
"""By this size llama.cpp's converter tells granite models, for which add_bos_token is off."""


@dataclass(frozen=True)
class Vocabulary:
    """What goes into a model file's ``tokenizer.*`` keys."""

    model: str
    """``llama`` (SentencePiece) or ``gpt2`` (BPE)."""
    pre: str
    tokens: list[str]
    """By id, padded to the size of the embedding."""
    types: list[int]
    """SentencePiece's numbers: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte."""
    scores: list[float] | None
    """For SentencePiece only."""
    merges: list[str]
    """For BPE only."""
    special: SpecialTokens
    infill_end: int | None
    """The token that ends Code Llama's infilling."""
    add_space_prefix: bool | None


def read_vocabulary(folder: Path, config: Mapping[str, Any], size: int) -> Vocabulary:
    """Read the tokenizer in ``folder`` for an embedding of ``size`` rows. Raises `ModelFileError`."""
    try:
        vocabulary = _read(folder, config, size)
        "".join((*vocabulary.tokens, *vocabulary.merges)).encode()
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"{folder}: its tokenizer files are damaged ({type(error).__name__}: {error}); download them again"
        ) from error
    return vocabulary


def _read(folder: Path, config: Mapping[str, Any], size: int) -> Vocabulary:
    settings = read_json(folder / "tokenizer_config.json") or {}
    model, tokenizer = folder / "tokenizer.model", read_json(folder / "tokenizer.json")
    if model.is_file():
        tokens, scores, types = _sentencepiece(model, settings, size)
        name, pre, merges = "llama", "default", []
    elif tokenizer is not None:
        if tokenizer.get("model", {}).get("type") != "BPE":
            kind = tokenizer.get("model", {}).get("type")
            raise ModelFileError(f"{folder / 'tokenizer.json'}: a BPE tokenizer is needed, found {kind!r}")
        if tokenizer["model"].get("byte_fallback"):
            raise ModelFileError(
                f"{folder}: tokenizer.model is needed: tokenizer.json holds a SentencePiece vocabulary without its "
                "scores; put the original's tokenizer.model beside it"
            )
        name, pre, scores = "gpt2", pretokenizers.recognise(tokenizer), None
        tokens, types = _bpe(tokenizer, settings, size)
        merges = _merges(tokenizer)
    else:
        raise ModelFileError(f"{folder}: tokenizer.model or tokenizer.json is needed; neither is there: copy it in")
    special = read_special_tokens(folder, tokenizer, config, len(tokens) if scores is not None else None)
    infill_end = None
    if size == _CODE_LLAMA_VOCABULARY:
        found = read_special_tokens(folder, tokenizer, config, None, ("eot",))
        infill_end = found.ids.get("eot", _CODE_LLAMA_INFILL_END)
    space = settings.get("add_prefix_space")
    return Vocabulary(
        name, pre, tokens, types, scores, merges, special, infill_end, space if isinstance(space, bool) else None
    )


def _sentencepiece(path: Path, settings: Mapping[str, Any], size: int) -> tuple[list[str], list[float], list[int]]:
    try:
        pieces = sentencepiece.read_pieces(path.read_bytes())
    except ValueError as error:
        raise ModelFileError(f"{path}: not a usable SentencePiece model ({error}); download it again") from None
    _check_size(path, len(pieces), size)
    tokens = [piece.text for piece in pieces] + [f"[PAD{i}]" for i in range(len(pieces), size)]
    scores = [piece.score for piece in pieces] + [_PADDING_SCORE] * (size - len(pieces))
    types = [NORMAL if piece.kind == USER_DEFINED else piece.kind for piece in pieces]
    types += [UNUSED] * (size - len(pieces))
    for text, token_id in (read_json(path.parent / "added_tokens.json") or {}).items():
        _check_size(path.parent / "added_tokens.json", token_id + 1, size)
        tokens[token_id], scores[token_id], types[token_id] = text, _ADDED_SCORE, USER_DEFINED
    for token_id, entry in _added_tokens_decoder(settings):
        _check_size(path.parent / "tokenizer_config.json", token_id + 1, size)
        text = entry["content"]
        if entry.get("special") or _looks_special(text):
            types[token_id] = CONTROL
        else:
            text, types[token_id] = text.replace("▁", " "), USER_DEFINED
        tokens[token_id], scores[token_id] = text, _ADDED_SCORE
    return tokens, scores, types


def _added_tokens_decoder(settings: Mapping[str, Any]) -> Iterable[tuple[int, dict[str, Any]]]:
    for key, entry in settings.get("added_tokens_decoder", {}).items():
        if not str(key).isdecimal() or content(entry) is None:
            raise ModelFileError(f"tokenizer_config.json: added_tokens_decoder has the unusable entry {key!r}")
        yield int(key), entry


def _bpe(tokenizer: Mapping[str, Any], settings: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    where = Path("tokenizer.json")
    vocabulary = dict(tokenizer["model"].get("vocab", {}))
    added = _added(tokenizer, settings, vocabulary)
    for token_id in (min(vocabulary.values()), max((*vocabulary.values(), *added))):
        _check_size(where, token_id + 1, size)
    tokens, types = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    for text, token_id in vocabulary.items():
        tokens[token_id], types[token_id] = text, NORMAL
    for token_id, entry in added.items():
        text = entry["content"]
        if not entry.get("normalized"):
            text = _decode_bytes(text)
        if entry.get("special") or _looks_special(text):
            types[token_id] = CONTROL
        else:
            text, types[token_id] = text.replace("▁", " "), USER_DEFINED
        tokens[token_id] = text
    return tokens, types


def _added(
    tokenizer: Mapping[str, Any], settings: Mapping[str, Any], vocabulary: Mapping[str, int]
) -> dict[int, dict[str, Any]]:
    """Collect the added tokens by id, from tokenizer.json, tokenizer_config.json and the named special tokens.

    Ids are given out as Hugging Face's tokenizers does, which ignores those written: a text that is in the
    vocabulary keeps its id, another one gets the next.
    """
    ids = dict(vocabulary)
    added: dict[int, dict[str, Any]] = {}
    listed = sorted(tokenizer.get("added_tokens", []), key=lambda entry: int(entry["id"]))
    for entry in [*listed, *(entry for _, entry in sorted(_added_tokens_decoder(settings), key=lambda pair: pair[0]))]:
        following = max(len(vocabulary), max(added, default=-1) + 1)
        added[ids.setdefault(entry["content"], following)] = dict(entry)
    named = [settings.get(f"{kind}_token") for kind in TYPES]
    named += settings.get("additional_special_tokens") or settings.get("extra_special_tokens") or []
    for text in (content(entry) for entry in named):
        if text is not None and text in ids:
            added.setdefault(ids[text], {"content": text, "normalized": False})["special"] = True
    return added


def _merges(tokenizer: Mapping[str, Any]) -> list[str]:
    """Return the merges as ``left right``; a space within a part is written as the byte-level alphabet does."""
    merges = tokenizer["model"].get("merges", [])
    if not isinstance(merges, list) or not merges:
        raise ModelFileError("tokenizer.json: a list of merges is needed; download it again")
    space = chr(ord(" ") + 256)
    if isinstance(merges[0], str):
        return merges
    joined = [f"{left} {right}" for left, right in merges]
    for place, text in enumerate(joined):
        if text.count(" ") > 1:
            joined[place] = " ".join(part.replace(" ", space) for part in merges[place])
    return joined


def _looks_special(text: str) -> bool:
    """Tell a token that ought to be marked special and in some checkpoints is not."""
    return (
        text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<｜") and text.endswith("｜>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )


@cache
def _byte_alphabet() -> dict[str, int]:
    """Map each character of the byte-level alphabet to its byte: printable Latin-1 itself, others from 256 up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _decode_bytes(text: str) -> str:
    """Decode one token as a byte-level decoder does: text outside its alphabet stays as it is."""
    alphabet = _byte_alphabet()
    if any(character not in alphabet for character in text):
        return text
    return bytes(alphabet[character] for character in text).decode("utf-8", errors="replace")


def _check_size(where: Path, needed: int, size: int) -> None:
    if needed < 1:
        raise ModelFileError(f"{where}: a token's id is {needed - 1}; download it again")
    if needed > size:
        raise ModelFileError(
            f"{where}: {needed:,} tokens, the embedding has {size:,} rows (vocab_size); "
            "use the tokenizer that belongs to these weights"
        )
