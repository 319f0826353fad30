"""Whether points that are compared were measured alike, and what llama.cpp said of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gguf_eval.analysis.models import grouped
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
    what = "studies" if any(point.study for point in points) else "points"
    for title, (group, key) in _COMPARED.items():
        untold = _UNTOLD if group == "templates" else "unknown"
        seen = grouped(
            (str(environment.get(group, {}).get(key, untold)), point.study or point.label)
            for point in points
            for environment in point.environments
        )
        seen.pop(_UNTOLD, None)
        if len(seen) > 1:
            parts = "; ".join(f"{_names(names)}: {value}" for value, names in seen.items())
            warnings.append(f"these {what} were not measured alike ({title}): {parts}")
    return warnings


def library_warnings(points: Sequence[PointRecord]) -> list[str]:
    """What llama.cpp warned of when it ran these points, one line for each warning."""
    named = grouped(
        (text, point.name)
        for point in points
        for environment in point.environments
        for text in environment.get("warnings", {}).get(point.name, ())
    )
    return [f"{_names(names)}: llama.cpp warns: {text}" for text, names in named.items()]


def _names(names: Iterable[str]) -> str:
    """Each once."""
    return ", ".join(dict.fromkeys(names))
