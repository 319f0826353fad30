"""The commands about tasks: tasks list, show, check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from gguf_eval.cli import options
from gguf_eval.cli.engine import ChatOptions
from gguf_eval.cli.printing import say, stdout, warn
from gguf_eval.cli.unfold import unfolded
from gguf_eval.errors import UsageError

if TYPE_CHECKING:
    pass

tasks_app = typer.Typer(help="List the tasks and suites that ship, show items, check a task file.")
options.app.add_typer(tasks_app, name="tasks")


@tasks_app.callback(invoke_without_command=True)
def tasks(context: typer.Context) -> None:
    """List the tasks and suites that ship, show items, check a task file."""
    if context.invoked_subcommand is None:
        list_tasks()


@tasks_app.command("list")
def list_tasks() -> None:
    """List the tasks and suites that ship."""
    from gguf_eval.report.tasks import print_tasks
    from gguf_eval.tasks.catalog import find_tasks, suite_texts, suites, task_names

    texts = suite_texts()
    members = {name: [*tasks, f"text {texts[name]}"] if name in texts else tasks for name, tasks in suites().items()}
    print_tasks(find_tasks(task_names()), members, stdout())


@tasks_app.command("show")
@unfolded
def show(
    name: Annotated[str, Argument(help="A task's name, or the path of a task file.")],
    *,
    limit: Annotated[int, Option("--limit", "-n", min=1, help="How many items.")] = 1,
    seed: Annotated[int, Option(help="Chooses the items.")] = 0,
    items: Annotated[str, Option(help="Or these items, by id, separated by commas.")] = "",
    model: Annotated[
        str, Option(help="As this model gets them, with its control tokens: GGUF, folder or hub name.")
    ] = "",
    chat: ChatOptions,
    fewshot: options.Fewshot = None,
    mirror: options.Mirror = None,
) -> None:
    """Print items as the model gets them: few-shot examples, prompt, choices, references."""
    from gguf_eval.report.tasks import item_text
    from gguf_eval.study.stages.show import preview
    from gguf_eval.tasks.catalog import find_tasks
    from gguf_eval.tasks.datasets import load_items
    from gguf_eval.tasks.spec import with_shots

    ids = options.split_names(items)
    settings = chat.settings
    if not model and chat != ChatOptions():
        raise UsageError("--chat, --system and --fewshot-as-turns need --model: the template is the model's own")
    for given in find_tasks([name]):
        task = given if fewshot is None else with_shots(given, fewshot)
        found = load_items(task, fetch=options.fetch_from(mirror), limit=None if ids else limit, seed=seed, ids=ids)
        if model:
            warnings: list[str] = []
            asked = preview(task, found, options.model_source_path(model, None), settings, warnings.append)
            warn(tuple(f"llama.cpp warns: {text}" for text in dict.fromkeys(warnings)))
            say("\n\n".join(map(item_text, found, asked)))
        else:
            say("\n\n".join(map(item_text, found)))


@tasks_app.command("check")
def check(
    file: Annotated[str, Argument(help="The path of a task file, or a task's name.")],
    mirror: options.Mirror = None,
) -> None:
    """Check a task file and every item of its data; exit code 1 where something is wrong."""
    from gguf_eval.tasks.catalog import find_tasks
    from gguf_eval.tasks.checking import check_task

    wrong = False
    for task in find_tasks([file]):
        found = check_task(task, fetch=options.fetch_from(mirror))
        for problem in found.problems:
            say(problem)
        if found.overshadowed:
            shorter, longer = found.overshadowed[0]
            say(
                f"{task.name}: in {len(found.overshadowed)} items a choice begins another ({shorter!r}, {longer!r}), "
                f"which can't win by {task.metric} then; a prompt.terminator, such as a full stop, lets it"
            )
        wrong = wrong or bool(found.problems)
        say(f"{task.name}: {found.items} items, {len(found.problems)} wrong")
    if wrong:
        raise typer.Exit(1)
