"""Recipes: how to make a model file from a full-precision one, as data.

A recipe is a TOML file whose keys are those of llama.cpp's ``llama_model_quantize_params``. Recipes and ladders that
ship with the package are in ``quant_recipes/``, plain levels in one file; any other is given by its path.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gguf_eval.errors import UsageError, nearest
from gguf_eval.files.ggml_types import type_names
from gguf_eval.files.levels import canonical_level, levels, spelled
from gguf_eval.files.shipped import LADDERS_FILE, LEVELS_FILE, read_toml, recipes_folder
from gguf_eval.llama.bounded import OverLimitError, bounded_call

_READ_ONLY_TYPES = ("F64", "I8", "I16", "I32", "I64", "Q8_1", "Q8_K")
"""Storage types of ggml that no weight can be quantized to."""


@dataclass(frozen=True)
class Recipe:
    """How to make a model file: a level and what departs from it."""

    name: str
    level: str
    """The level by llama.cpp's name; it becomes the file's ``general.file_type``."""
    tensor_types: tuple[tuple[str, str], ...] = ()
    """Pairs of a regular expression, searched for in tensor names, and a storage type; the first match holds."""
    output_type: str | None = None
    """Storage type of ``output.weight``, or of the embeddings where the model ties the two."""
    embedding_type: str | None = None
    """Storage type of ``token_embd.weight``."""
    pure: bool = False
    """All tensors in the level's base type, without llama.cpp's mixture."""
    imatrix: str = ""
    """Path of the importance matrix to use unless another is given; empty for none."""
    note: str = ""

    @property
    def sha256(self) -> str:
        """Hash of what changes the bytes made; the name, the note and the importance matrix's path do not."""
        content = {
            "level": self.level,
            "tensor_types": self.tensor_types,
            "output_type": self.output_type,
            "embedding_type": self.embedding_type,
            "pure": self.pure,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def is_plain(self) -> bool:
        """Whether it is its level and nothing else."""
        return self.sha256 == Recipe("", self.level).sha256

    @property
    def imatrix_path(self) -> Path | None:
        """Where the importance matrix is."""
        return Path(self.imatrix) if self.imatrix else None

    def is_level(self, level: str) -> bool:
        """Whether it makes this level, by llama.cpp's name, and nothing else."""
        return self.is_plain and self.level == level

    def unmatched_patterns(self, tensor_names: Iterable[str]) -> tuple[str, ...]:
        """Return the patterns of ``tensor_types`` that no tensor name matches; raises `UsageError` where one hangs."""
        if not self.tensor_types:
            return ()
        try:
            return bounded_call(_unmatched, tuple(pattern for pattern, _ in self.tensor_types), tuple(tensor_names))
        except OverLimitError as error:
            raise UsageError(f"recipe {self.name}: its patterns can't be matched: {error}; simplify them") from None


def _unmatched(patterns: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    # All names are tried, also after one that matches: llama.cpp tries them all, where nothing bounds a search.
    matched = {pattern: [name for name in names if re.search(pattern, name)] for pattern in patterns}
    return tuple(pattern for pattern in patterns if not matched[pattern])


def storage_types() -> tuple[str, ...]:
    """Return ggml's names of the types that weights can be stored in."""
    return tuple(name for name in type_names() if name not in _READ_ONLY_TYPES)


def plain_recipe(level: str) -> Recipe:
    """Return the recipe that is a level and nothing else."""
    name = canonical_level(level)
    return Recipe(name, name)


def as_recipe(level: str | Recipe) -> Recipe:
    """Return a recipe as it is, and the plain recipe of a level's name."""
    return level if isinstance(level, Recipe) else plain_recipe(level)


def calibration_text() -> Path:
    """Return the default text for importance matrices, written for this package."""
    return recipes_folder() / "calibration.txt"


@lru_cache(maxsize=1)
def shipped_recipes() -> Mapping[str, Recipe]:
    """Return the recipes that ship, by name: plain levels from small to large, then the mixes."""
    plain = {level: Recipe(level, level, note=note) for level, note in levels().items()}
    mixes = sorted(path for path in recipes_folder().glob("*.toml") if path.name not in (LADDERS_FILE, LEVELS_FILE))
    return plain | {path.stem: read_recipe(path) for path in mixes}


@lru_cache(maxsize=1)
def ladders() -> Mapping[str, tuple[str, ...]]:
    """Return the ladders that ship: names of recipes in order, by the ladder's name."""
    return {name: tuple(steps) for name, steps in read_toml(recipes_folder() / LADDERS_FILE).items()}


def find_ladder(name: str) -> tuple[Recipe, ...]:
    """Return the recipes of a ladder that ships."""
    known = ladders()
    if name.lower() not in known:
        raise UsageError(f"no ladder is called '{name}'{nearest(name, known) or '; known: ' + ', '.join(known)}")
    return tuple(find_recipe(step) for step in known[name.lower()])


def find_recipe(name: str) -> Recipe:
    """Return a recipe by the path of its TOML file or by the name of one that ships (any case)."""
    if name.lower().endswith(".toml"):
        return read_recipe(Path(name))
    known = {recipe.lower(): recipe for recipe in shipped_recipes()}
    wanted = spelled(name).lower()
    if wanted not in known:
        raise UsageError(
            f"no level or recipe is called '{name}'{nearest(wanted, known.values())}; "
            "gguf-eval recipes lists them, a recipe of your own is given by its path"
        )
    return shipped_recipes()[known[wanted]]


def named_apart(recipe: Recipe) -> Recipe:
    """Return the recipe if its name can't be taken for a level that it isn't: results bear it. Raises `UsageError`."""
    level = spelled(recipe.name)
    if level not in levels():
        return recipe
    if recipe.is_level(level) and not recipe.imatrix:
        return plain_recipe(level)
    raise UsageError(
        f"recipe {recipe.name}: its results would pass for llama.cpp's own {level}, which it is not; "
        "give its file another name"
    )


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe file. Raises `UsageError` that names the file and the key that is wrong."""
    table = read_toml(path)
    known = ("level", "tensor_types", "output_type", "embedding_type", "pure", "imatrix", "note")
    for key in table:
        if key not in known:
            raise UsageError(f"{path}: unknown key '{key}'{nearest(key, known)}")
    if "level" not in table:
        raise UsageError(f"{path}: the key 'level' is needed; add for instance level = \"Q4_K_M\"")
    imatrix = _typed(path, table, "imatrix", str)
    try:
        level = canonical_level(str(_typed(path, table, "level", str)))
    except UsageError as error:
        raise UsageError(f"{path}: level: {error}") from None
    return Recipe(
        name=path.stem,
        level=level,
        tensor_types=_tensor_types(path, table.get("tensor_types", [])),
        output_type=_storage_type(path, "output_type", table.get("output_type")),
        embedding_type=_storage_type(path, "embedding_type", table.get("embedding_type")),
        pure=bool(_typed(path, table, "pure", bool)),
        imatrix=str(path.parent / str(imatrix)) if imatrix else "",
        note=str(_typed(path, table, "note", str) or ""),
    )


def _tensor_types(path: Path, rows: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: tensor_types: tables are needed; write [[tensor_types]] with pattern and type")
    found = []
    for number, row in enumerate(rows, start=1):
        where = f"tensor_types {number}"
        for key in row:
            if key not in ("pattern", "type"):
                raise UsageError(f"{path}: {where}: unknown key '{key}'{nearest(key, ('pattern', 'type'))}")
        pattern = _typed(path, row, "pattern", str)
        kind = _storage_type(path, f"{where}: type", row.get("type"))
        if not pattern or kind is None:
            raise UsageError(f"{path}: {where}: both 'pattern' and 'type' are needed")
        try:
            re.compile(str(pattern))
        except re.error as error:
            raise UsageError(f"{path}: {where}: '{pattern}' is not a regular expression ({error})") from None
        found.append((str(pattern), kind))
    return tuple(found)


def _storage_type(path: Path, key: str, value: object) -> str | None:
    if value is None:
        return None
    known = storage_types()
    if not isinstance(value, str) or value.upper() not in known:
        raise UsageError(f"{path}: {key}: no storage type is called '{value}'{nearest(str(value), known)}")
    return value.upper()


def _typed(path: Path, table: Mapping[str, Any], key: str, kind: type) -> Any:
    value = table.get(key)
    if value is not None and not isinstance(value, kind):
        names = {str: "a string", bool: "true or false"}
        raise UsageError(f"{path}: {key}: {names[kind]} is needed, found {value!r}")
    return value
