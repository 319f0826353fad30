"""What was found on this machine, what would go wrong on it, and the commands that mend it."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.text import Text

from gguf_eval.files.footprint import cpu_features
from gguf_eval.report import words
from gguf_eval.study.doctor import Examination

_LABEL_WIDTH = 11


def print_doctor(found: Examination, console: Console) -> None:
    """One line a finding, then the problems, each with its command on a line of its own."""
    for name, text in _lines(found):
        label = Text(f"{name:<{_LABEL_WIDTH}}", style="bold")
        for line in _wrapped(text, console, _LABEL_WIDTH):
            console.print(Text.assemble(label, line), soft_wrap=True)
            label = Text(" " * _LABEL_WIDTH)
    console.print()
    if not found.problems:
        console.print(Text("Nothing that would go wrong was found.", style="green"))
        return
    count = len(found.problems)
    console.print(Text(f"{count} {'things' if count > 1 else 'thing'} would go wrong, or slower than need be:"))
    for problem in found.problems:
        lines = _wrapped(problem.what, console, len("! "))
        console.print(Text(f"! {lines[0]}", style="bold yellow"), soft_wrap=True)
        for line in lines[1:]:
            console.print(Text(f"  {line}", style="bold yellow"), soft_wrap=True)
        console.print(Text(f"    {problem.command}"), soft_wrap=True)  # whole, to be copied


def _wrapped(text: str, console: Console, indent: int) -> list[str]:
    """Lines for a terminal, as they stand after an indent; one where the output is piped."""
    if not console.is_terminal:
        return [text]
    return textwrap.wrap(text, max(40, console.width - indent), break_long_words=False) or [""]


def _lines(found: Examination) -> list[tuple[str, str]]:
    machine = found.machine
    cores, threads = machine["physical_cores"], machine["logical_cores"]
    lines = [
        ("python", machine["python"]),
        ("system", f"{machine['system']}, {machine['architecture']}"),
        ("processor", f"{machine['processor']}, {cores} physical cores, {threads} threads"),
        ("threads", f"{cores}, unless --threads says otherwise"),
        ("memory", f"{words.size(found.memory_available_bytes)} available of {words.size(found.memory_limit_bytes)}"),
    ]
    if found.build_error:
        lines.append(("llama.cpp", f"does not load: {found.build_error}"))
    else:
        build = found.build
        used = ", ".join(sorted(cpu_features(build["system_info"]))) or "none that it names"
        lines += [
            ("llama.cpp", f"{build['llama_cpp']}, in llama-cpp-python {build['llama_cpp_python']}"),
            ("backends", ", ".join(found.backends)),
            ("features", used),
        ]
    for device in found.devices:
        free = f"{words.size(device['free_bytes'])} free of {words.size(device['total_bytes'])}"
        what = dict.fromkeys((device["description"], device["kind"]))
        lines.append(("device", f"{device['name']} ({', '.join(what)}): {free}"))
    return [
        *lines,
        ("disk", f"{words.size(found.disk_free_bytes)} free where made models are kept: {found.cache}"),
        ("hub", found.hub),
        ("energy", ", ".join(found.energy_sources) or "no counter that can be read"),
    ]
