"""The commands about tasks: tasks."""

from __future__ import annotations

from gguf_eval.cli.options import app, stdout


@app.command()
def tasks() -> None:
    """List the tasks and suites that ship."""
    from gguf_eval.report.listing import print_tasks
    from gguf_eval.tasks.catalog import find_tasks, suites, task_names

    print_tasks(find_tasks(task_names()), suites(), stdout())
