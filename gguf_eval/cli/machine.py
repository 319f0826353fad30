"""The commands about this machine: doctor."""

from __future__ import annotations

from gguf_eval.cli.options import app, stdout


@app.command()
def doctor() -> None:
    """Show what gguf-eval finds on this machine: processor, memory, llama.cpp build and cache folder."""
    from gguf_eval.report.listing import print_doctor
    from gguf_eval.study.doctor import examine

    print_doctor(examine(), stdout())
