"""Plain lists: the tasks that ship, and what was found on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gguf_eval.report import words
from gguf_eval.study.doctor import Examination
from gguf_eval.tasks.spec import Task


def print_tasks(tasks: Sequence[Task], suites: Mapping[str, Sequence[str]], console: Console) -> None:
    """One line a task, then the suites."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("task", "metric", "source", "what it asks"):
        table.add_column(column, no_wrap=column != "what it asks")
    for task in tasks:
        source = task.dataset.repo or ("made by rule" if task.dataset.generator else "ships with gguf-eval")
        table.add_row(Text(task.name), Text(task.metric), Text(source), Text(task.description))
    console.print(table)
    for name, members in suites.items():
        console.print(Text(f"\nsuite {name}: {', '.join(members)}"), end="")
    console.print()


def print_doctor(found: Examination, console: Console) -> None:
    """What the machine offers, one line each."""
    machine = found.machine
    lines = {
        "processor": f"{machine['processor']}, {machine['physical_cores']} physical cores",
        "memory": f"{words.size(found.memory_limit_bytes)}, {words.size(found.memory_available_bytes)} available",
        "system": f"{machine['system']}, {machine['architecture']}, Python {machine['python']}",
        "cache": f"{found.cache}, {words.size(found.disk_free_bytes)} free",
        "hub": found.hub,
        "energy": ", ".join(found.energy_sources) or "no counter that can be read",
    }
    if found.build_error:
        lines["llama.cpp"] = f"does not load: {found.build_error}"
    else:
        build = found.build
        lines["llama.cpp"] = f"{build['llama_cpp']} in llama-cpp-python {build['llama_cpp_python']}"
        lines["features"] = build["system_info"]
    for name, text in lines.items():
        console.print(Text(f"{name:<10} {text}"), soft_wrap=True)
    for device in found.devices:
        free = f"{words.size(device['free_bytes'])} free of {words.size(device['total_bytes'])}"
        text = f"{'device':<10} {device['name']} ({device['description']}, {device['kind']}): {free}"
        console.print(Text(text), soft_wrap=True)
    for problem in found.problems:
        console.print(Text(f"! {problem.what}\n  mend it with: {problem.command}", style="yellow"), soft_wrap=True)
