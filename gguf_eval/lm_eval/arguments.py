"""What the harness's ``--model_args`` may say of this model, checked name by name."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_eval.errors import UsageError, nearest
from gguf_eval.runtime.settings import CACHE_TYPES, EngineSettings, Offload

ALIASES = {"pretrained": "path", "model": "path", "max_length": "n_ctx"}
"""Names that other models of the harness use for the same."""
_ALL_LAYERS = -1
_FLASH_ATTENTION = {"on": 1, "off": 0, "auto": -1, "true": 1, "false": 0}


@dataclass(frozen=True)
class ModelArguments:
    """The model and how it is run."""

    path: str
    """A GGUF file, a checkpoint folder, or owner/name on the hub."""
    n_ctx: int | None = None
    """Longest input in tokens: what the model was trained for unless given."""
    threads: int | None = None
    gpu_layers: int | None = None
    """Layers on devices; -1 all, None as many as fit."""
    batch_size: int = 512
    """Tokens of one decode; the harness's own option of this name counts requests and is not needed here."""
    parallel: int = 16
    """Answers that are written side by side."""
    cache_type_k: str = "F16"
    cache_type_v: str = "F16"
    flash_attention: int = -1
    max_gen_toks: int = 256
    """Longest answer in tokens where the task does not say."""
    seed: int = 1234
    """Of sampling."""
    prefix_token_id: int | None = None
    """Stands for an empty context: BOS or EOS unless given."""
    add_bos_token: bool | None = None
    """Whether BOS goes before a text: what the file says unless given."""
    cache_dir: Path | None = None
    """Where converted checkpoints and content hashes are kept."""
    date: str = ""
    """The day, YYYY-MM-DD, that a chat template is told which asks for it: today unless given."""
    log_file: Path | None = None
    """Where llama.cpp's log goes; without it only its errors are shown."""

    @property
    def engine(self) -> EngineSettings:
        """The same for the runtime."""
        return EngineSettings(
            offload=Offload(gpu_layers=self.gpu_layers),
            cache_type_k=self.cache_type_k,
            cache_type_v=self.cache_type_v,
            flash_attention=self.flash_attention,
        )

    @property
    def answer_settings(self) -> dict[str, Any]:
        """What of this can change answers: the settings of the point in a study, named as `run` names them."""
        return {"max_tokens": self.n_ctx, **self.engine.answer_settings, **self._own_settings()}

    def _own_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        if self.prefix_token_id is not None:
            settings["prefix_token_id"] = self.prefix_token_id
        if self.add_bos_token is not None:
            settings["add_bos_token"] = self.add_bos_token
        if self.max_gen_toks != ModelArguments.max_gen_toks:
            settings["max_gen_toks"] = self.max_gen_toks
        return settings


KNOWN = tuple(ModelArguments.__dataclass_fields__)


def parse_arguments(given: Mapping[str, Any]) -> ModelArguments:
    """Check what the harness read from its command line; raises `UsageError` naming the argument."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        field = ALIASES.get(name, name)
        if field not in KNOWN:
            known = ", ".join(KNOWN)
            raise UsageError(
                f"unknown model argument '{name}'{nearest(name, [*KNOWN, *ALIASES])}; the model takes: {known}"
            )
        if field in values:
            raise UsageError(f"model argument '{name}' says the same as another one: '{field}' is given twice")
        if value is not None:
            values[field] = _value(field, value)
    if "path" not in values:
        raise UsageError("model argument 'path' is needed: a GGUF file, a checkpoint folder or owner/name on the hub")
    return ModelArguments(**values)


def _value(name: str, value: Any) -> Any:
    special: dict[str, Callable[[Any], Any]] = {
        "path": str,
        "cache_dir": lambda given: Path(str(given)),
        "log_file": lambda given: Path(str(given)),
        "gpu_layers": _gpu_layers,
        "flash_attention": lambda given: _choice(name, str(given).lower(), _FLASH_ATTENTION),
        "cache_type_k": lambda given: _cache_type(name, str(given).upper()),
        "cache_type_v": lambda given: _cache_type(name, str(given).upper()),
        "date": lambda given: _date(str(given)),
        "add_bos_token": lambda given: bool(_choice(name, str(given).lower(), {"true": 1, "false": 0})),
    }
    if name in special:
        return special[name](value)
    return _integer(name, value, 0 if name in ("seed", "prefix_token_id") else 1)


def _date(value: str) -> str:
    try:
        return datetime.date.fromisoformat(value).isoformat()
    except ValueError:
        raise UsageError(f"model argument 'date' needs a day as YYYY-MM-DD; found '{value}'") from None


def _cache_type(name: str, value: str) -> str:
    _choice(name, value, CACHE_TYPES)
    return value


def _gpu_layers(value: Any) -> int | None:
    words: dict[str, int | None] = {"auto": None, "all": _ALL_LAYERS, "-1": _ALL_LAYERS}
    if str(value).lower() in words:
        return words[str(value).lower()]
    return _integer("gpu_layers", value, 0)


def _choice(name: str, value: str, known: Mapping[str, int]) -> int:
    if value not in known:
        raise UsageError(f"model argument '{name}' needs one of {', '.join(known)}; found '{value}'")
    return known[value]


def _integer(name: str, value: Any, least: int) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = least - 1
    if number < least:
        raise UsageError(f"model argument '{name}' needs a whole number from {least} on; found '{value}'")
    return number
