"""Items of a task as plain text, as the model gets them."""

from __future__ import annotations

from collections.abc import Sequence

from gguf_eval.tasks.prompts import Item


def item_text(item: Item) -> str:
    """One item: what stands before the answer between bars, then its choices (the right ones marked) or references."""
    lines = [f"item {item.id}" + (f" ({item.subject})" if item.subject else "")]
    for index in range(len(item.contexts)):
        lines += ["┌─ prompt" + (f" of choice {index}" if len(item.contexts) > 1 else "")]
        lines += [f"│{line}" for line in item.context(index).split("\n")]
        lines += ["└─"]
    for index, choice in enumerate(item.choices):
        mark = "*" if index in item.golds else " "
        lines.append(f" {mark} {index}: {item.delimiter + choice!r}")
    if item.references:
        lines.append("references: " + "; ".join(repr(reference) for reference in item.references))
    return "\n".join(lines)


def items_text(items: Sequence[Item]) -> str:
    """Several items, a blank line between them."""
    return "\n\n".join(item_text(item) for item in items)
