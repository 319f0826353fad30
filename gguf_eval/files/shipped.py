"""The folder of recipes that ships, and its TOML files."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from gguf_eval.errors import UsageError

LADDERS_FILE, LEVELS_FILE = "ladders.toml", "levels.toml"


def recipes_folder() -> Path:
    """Return the folder of the recipes that ship: in the installed package, or at the top of the repository."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_data" / "quant_recipes", package.parent / "quant_recipes"):
        if (folder / LEVELS_FILE).is_file():
            return folder
    raise UsageError(f"{package}: the recipes that ship with gguf-eval are missing; install it again")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of recipes. Raises `UsageError` that names it."""
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
        return table
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe file") from None
    except OSError as error:
        raise UsageError(f"{path}: can't be read ({error.strerror})") from None
    except (toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from None
