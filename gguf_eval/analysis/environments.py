"""Whether points that are compared were measured alike, and what llama.cpp said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gguf_eval.store.records import PointRecord

_COMPARED = {
    "processor": ("machine", "processor"),
    "cores": ("machine", "physical_cores"),
    "system": ("machine", "system"),
    "llama.cpp": ("llama_cpp", "llama_cpp"),
    "llama-cpp-python": ("llama_cpp", "llama_cpp_python"),
    "llama.cpp's flags": ("llama_cpp", "system_info"),
    "date told by chat templates": ("templates", "date"),
}
_UNTOLD = "none"


TITLES = {key: title for title, key in _COMPARED.items()}
"""What a key of an environment is called."""


def environment_warnings(points: Sequence[PointRecord]) -> list[str]:
    """One line for each thing in which the environments of these points, or of their studies, differ."""
    warnings = []
    for title, (group, key) in _COMPARED.items():
        seen: dict[str, list[str]] = {}
        for point in points:
            for environment in point.environments:
                value = str(_value(environment, group, key))
                if value == _UNTOLD:
                    continue
                names = seen.setdefault(value, [])
                name = point.study or point.label
                if name not in names:
                    names.append(name)
        if len(seen) > 1:
            parts = "; ".join(f"{', '.join(names)}: {value}" for value, names in seen.items())
            what = "studies" if any(point.study for point in points) else "points"
            warnings.append(f"these {what} were not measured alike ({title}): {parts}")
    return warnings


def library_warnings(points: Sequence[PointRecord]) -> list[str]:
    """What llama.cpp warned of when it ran these points, one line for each warning."""
    named: dict[str, list[str]] = {}
    for point in points:
        for environment in point.environments:
            for text in environment.get("warnings", {}).get(point.name, ()):
                names = named.setdefault(text, [])
                if point.name not in names:
                    names.append(point.name)
    return [f"{', '.join(names)}: llama.cpp warns: {text}" for text, names in named.items()]


def _value(environment: Mapping[str, Any], group: str, key: str) -> Any:
    return environment.get(group, {}).get(key, _UNTOLD if group == "templates" else "unknown")
