"""Text and JSON of what is known of model files: inspection, plans, recipes."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gguf_eval.files.batch import Step
from gguf_eval.files.footprint import Footprint
from gguf_eval.files.header import Header
from gguf_eval.files.imatrix import unused_experts
from gguf_eval.files.imatrix_file import Imatrix
from gguf_eval.files.provenance import PREFIX
from gguf_eval.files.recipes import Recipe
from gguf_eval.report.words import size

if TYPE_CHECKING:
    from gguf_eval.files.convert.plan import ConversionPlan


_MEMORY = (
    "context", "cache_type", "weights_bytes", "kv_bytes", "state_bytes", "compute_bytes", "repacked_bytes",
    "total_bytes", "resident_bytes", "source", "notes",
)  # fmt: skip
"""What ``inspect`` shows of a `Footprint`."""


def inspection(headers: Sequence[Header], size_bytes: int, footprint: Footprint) -> dict[str, Any]:
    """Return what the header of a model file says, as the JSON document of ``inspect``."""
    first = headers[0]
    tensors = [tensor for header in headers for tensor in header.tensors]
    bits = 8.0 * sum(tensor.size_bytes for tensor in tensors)
    mix = Counter(tensor.type_name for tensor in tensors)
    return {
        "name": first.metadata.get("general.name"),
        "architecture": first.architecture,
        "parameters": sum(tensor.elements for tensor in tensors),
        "level": first.level,
        "bits_per_weight": bits / max(1, sum(tensor.elements for tensor in tensors)),
        "size_bytes": size_bytes,
        "parts": max(len(headers), first.split_count),
        "tensor_types": dict(sorted(mix.items(), key=lambda pair: (-pair[1], pair[0]))),
        "context_length": first.context_length,
        "chat_template": first.metadata.get("tokenizer.chat_template"),
        "provenance": {
            key: value for key, value in first.metadata.items() if key.startswith((PREFIX, "quantize.imatrix."))
        },
        "memory": {name: getattr(footprint, name) for name in _MEMORY},
    }


def inspection_text(found: Mapping[str, Any]) -> str:
    """Return the text of ``inspect``."""
    memory = found["memory"]
    template = found["chat_template"]
    by = "llama.cpp's own figure" if memory["source"] == "llama.cpp" else "estimate"
    rows = [
        ("name", found["name"] or "not given"),
        ("architecture", found["architecture"]),
        ("parameters", f"{found['parameters']:,}"),
        ("level", found["level"]),
        ("bits per weight", f"{found['bits_per_weight']:.2f}"),
        ("size", size(found["size_bytes"]) + (f" in {found['parts']} parts" if found["parts"] > 1 else "")),
        ("tensor types", ", ".join(f"{count} {kind}" for kind, count in found["tensor_types"].items())),
        ("context length", f"{found['context_length']:,} tokens" if found["context_length"] else "not given"),
        ("chat template", f"{len(template):,} characters" if template else "none"),
        ("made by", _origin(found["provenance"])),
        ("memory", f"{size(memory['total_bytes'])} predicted for {memory['context']:,} tokens, one sequence"),
        ("  weights", size(memory["weights_bytes"])),
        ("  KV cache", f"{size(memory['kv_bytes'])} at {memory['cache_type']}"),
        ("  states", f"{size(memory['state_bytes'])} of recurrent layers" if memory["state_bytes"] else ""),
        ("  compute", f"{size(memory['compute_bytes'])} ({by}, for batches of 512)"),
        (
            "  repacked",
            f"{size(memory['repacked_bytes'])} copied for this processor" if memory["repacked_bytes"] else "",
        ),
        ("  resident", f"{size(memory['resident_bytes'])} when generating on the processor, beyond the program"),
        *[("  note", note) for note in memory["notes"]],
    ]
    return "\n".join(f"{label:<16} {value}" for label, value in rows if value)


def conversion_text(plan: ConversionPlan) -> str:
    """Return one line for each tensor (name, shape in ggml's order, type, bytes) and a line of totals."""
    rows = [(t.name, " x ".join(map(str, reversed(t.shape))), t.type_name, f"{t.size_bytes:,}") for t in plan.tensors]
    mix = ", ".join(f"{count} {kind}" for kind, count in Counter(t.type_name for t in plan.tensors).items())
    totals = f"{plan.name}: {len(plan.tensors)} tensors ({mix}), {plan.parameters:,} weights, {plan.size_bytes:,} bytes"
    return "\n".join([table((), rows, right=(1, 3)), totals])


def conversion_document(plan: ConversionPlan) -> dict[str, Any]:
    """Return the plan as a JSON document."""
    names = ("name", "out_type", "parameters", "size_bytes")
    tensors = [
        {"name": t.name, "shape": t.shape[::-1], "type": t.type_name, "size_bytes": t.size_bytes} for t in plan.tensors
    ]
    return {**{name: getattr(plan, name) for name in names}, "tensors": tensors, "warnings": plan.warnings}


def steps_json(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Return planned or finished levels as a JSON document."""
    return [
        {
            "recipe": step.recipe.name,
            "level": step.recipe.level,
            "path": str(step.path),
            "status": step.status,
            "size_bytes": step.plan.file_bytes,
            "bits_per_weight": step.plan.bits_per_weight,
            "tensor_types": step.plan.type_counts(),
            "fallbacks": [vars(fallback) for fallback in step.plan.fallbacks],
            "needs_imatrix": step.plan.needs_imatrix,
            "unmatched_patterns": list(step.unmatched_patterns),
            "seconds": step.seconds,
        }
        for step in steps
    ]


def steps_text(steps: Sequence[Step]) -> str:
    """Return a table of planned or finished levels, and below it what fell back to other types."""
    head = ("recipe", "size", "bpw", "status", "tensor types")
    rows = [
        (
            step.recipe.name,
            size(step.plan.file_bytes),
            f"{step.plan.bits_per_weight:.2f}",
            step.status + (f" in {step.seconds:.1f} s" if step.status == "made" else ""),
            ", ".join(f"{count} {kind}" for kind, count in step.plan.type_counts().items()),
        )
        for step in steps
    ]
    lines = [table(head, rows, right=(1, 2))]
    for step in steps:
        counts = Counter((found.columns, found.block, found.wanted, found.used) for found in step.plan.fallbacks)
        for (columns, block, wanted, used), count in counts.items():
            lines.append(
                f"{step.recipe.name}: {count} tensors are {used} instead of {wanted}: "
                f"rows of {columns} are no multiple of {block}"
            )
    return "\n".join(lines)


def disk_text(steps: Sequence[Step], free_bytes: int) -> str:
    """Return the line that sets disk needed against disk free."""
    needed = sum(step.plan.file_bytes for step in steps if step.status == "to make")
    return f"disk needed {size(needed) if needed else 'none'}, free {size(free_bytes)}"


def recipes_text(recipes: Mapping[str, Recipe], ladders: Mapping[str, Sequence[str]]) -> str:
    """Return the list of recipes and ladders."""
    rows = [(name, recipe.note) for name, recipe in recipes.items()]
    steps = [(name, " ".join(names)) for name, names in ladders.items()]
    return table(("recipe", "note"), rows) + "\n\n" + table(("ladder", "recipes"), steps)


def recipe_toml(recipe: Recipe) -> str:
    """Return a recipe as the file that makes it."""
    texts = {"level": recipe.level, "output_type": recipe.output_type, "embedding_type": recipe.embedding_type,
             "imatrix": recipe.imatrix, "note": recipe.note}  # fmt: skip
    lines = [f"{key} = {_toml_text(text)}" for key, text in texts.items() if text]
    lines += ["pure = true"] if recipe.pure else []
    for pattern, kind in recipe.tensor_types:
        lines += ["", "[[tensor_types]]", f"pattern = {_toml_text(pattern)}", f"type = {_toml_text(kind)}"]
    return "\n".join(lines)


def _toml_text(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")  # a string of JSON is one of TOML, but for this character


def step_lines(step: Step, plan_only: bool) -> list[str]:
    """Return what is said when a level begins and when it is done."""
    unmatched = step.unmatched_patterns if step.status != "made" else ()
    lines = [f"{step.recipe.name}: warning: no tensor matches '{pattern}'" for pattern in unmatched]
    if not plan_only:
        seconds = f" in {step.seconds:.1f} s" if step.status == "made" else ""
        lines.append(f"{step.recipe.name}: {step.status}{seconds}, {size(step.plan.file_bytes)}")
    return lines


class ChunkLine:
    """Writes how many chunks are done and how long the rest will take, over itself where the stream is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._started, self._first = stream, time.monotonic(), 0

    def __call__(self, progress: tuple[int, int]) -> None:
        """Tell of chunks done and chunks in all."""
        done, total = progress
        if not self._first:
            # The first chunk also waits for the model to load: the rate is taken from there.
            self._started, self._first = time.monotonic(), done
        elapsed, counted = time.monotonic() - self._started, done - self._first
        rest = f", {elapsed / counted * (total - done):.0f} s to go" if counted else ""
        text = f"chunk {done} of {total}{rest}"
        if self._stream.isatty():
            self._stream.write(f"\r{text:<60}" + ("\n" if done == total else ""))
        elif done in (1, total) or done % 10 == 0:
            self._stream.write(text + "\n")
        self._stream.flush()


def imatrix_json(path: Path, imatrix: Imatrix) -> dict[str, Any]:
    """Return a finished importance matrix as a JSON document, without its values."""
    return {
        "path": str(path),
        "tensors": len(imatrix.entries),
        "chunks": imatrix.chunk_count,
        "chunk_tokens": imatrix.chunk_size,
        "datasets": list(imatrix.datasets),
        "unused_experts": unused_experts(imatrix),
    }


def imatrix_text(path: Path, imatrix: Imatrix) -> str:
    """Return one line on a finished importance matrix, and one for every stack with experts that saw nothing."""
    lines = [
        f"{path}: {len(imatrix.entries)} tensors from {imatrix.chunk_count} chunks of {imatrix.chunk_size} tokens "
        f"of {', '.join(imatrix.datasets)}"
    ]
    for name, count in unused_experts(imatrix).items():
        lines.append(f"{name}: {count} experts saw no token: take a longer text")
    return "\n".join(lines)


def disk_free(folder: Path) -> int:
    """Return the bytes free where a folder is, or will be."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return columns wide enough for their longest cell, below their heads if there are any; lines end with text."""
    shown = [head, *rows] if head else rows
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = []
    for row in shown:
        cells = [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _origin(provenance: Mapping[str, Any]) -> str:
    if PREFIX + "version" not in provenance:
        return "not known: the file carries no provenance"
    text = (
        f"gguf-eval {provenance[PREFIX + 'version']}, llama-cpp-python {provenance.get(PREFIX + 'library')}, "
        f"recipe {provenance.get(PREFIX + 'recipe')} from {provenance.get(PREFIX + 'source_level')} source "
        f"{str(provenance.get(PREFIX + 'source_sha256'))[:16]}"
    )
    if PREFIX + "imatrix_sha256" in provenance:
        dataset = provenance.get(PREFIX + "imatrix_dataset", "an unnamed text")
        text += f", importance matrix {str(provenance[PREFIX + 'imatrix_sha256'])[:16]} from {dataset}"
    return text
