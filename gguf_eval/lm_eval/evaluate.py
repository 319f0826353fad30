"""Evaluates one model with the harness and stores what it finds in a study."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from gguf_eval.errors import UsageError
from gguf_eval.files.cache import model_parts
from gguf_eval.files.header import read_header
from gguf_eval.lm_eval.arguments import ModelArguments, parse_arguments
from gguf_eval.lm_eval.caching import answer_identity
from gguf_eval.lm_eval.harness import check_installed, run_harness
from gguf_eval.lm_eval.results import HarnessTask, read_results
from gguf_eval.machine import describe_machine
from gguf_eval.runtime.chat_template import tells_date
from gguf_eval.store.write import StudyWriter
from gguf_eval.study.grouping import group_points
from gguf_eval.study.points import PlannedPoint, RunRequest, plan_points

_SEPARATORS = ",="


@dataclass(frozen=True)
class HarnessRequest:
    """What the `lm-eval` command was asked for."""

    model: Path
    """A GGUF file."""
    study: Path
    model_args: str = ""
    """The harness's ``name=value,...``, without the path."""
    options: tuple[str, ...] = ()
    """The harness's own, passed on as they are."""
    use_cache: Path | None = None
    output: Path | None = None
    """Where the harness's files go; nowhere unless given."""
    command: str = ""


def evaluate(request: HarnessRequest) -> None:
    """Run the harness, which prints its table, and store its outcomes.

    The model's answers are cached in a file of their own for each content of the model file and each settings that can
    change answers. Raises `GgufEvalError`.
    """
    check_installed()
    arguments = _model_arguments(request)
    point = _point(request, arguments)
    with StudyWriter(request.study) as study:  # refused now rather than after hours
        day = arguments.date or study.day() or datetime.date.today().isoformat()
    options = list(request.options)
    if request.use_cache:
        identity = answer_identity(point.source.sha256, arguments)
        options += ["--use_cache", f"{request.use_cache}-{identity[:16]}"]
    told = "" if arguments.date else f"date={day}"
    model_args = ",".join(part for part in (f"path={request.model}", request.model_args, told) if part)
    with tempfile.TemporaryDirectory() as folder:
        files = run_harness(model_args, options, request.output or Path(folder))
        tasks = read_results(*files)
    store(request, replace(arguments, date=day), point, tasks)


def store(
    request: HarnessRequest, arguments: ModelArguments, point: PlannedPoint, tasks: Sequence[HarnessTask]
) -> None:
    """Keep the outcomes where those of `run` for the same model file and settings are."""
    from gguf_eval.llama.library import build_info

    packages = {name: version(name) for name in ("gguf-eval", "llama-cpp-python", "numpy", "gguf", "lm-eval")}
    environment = {"machine": describe_machine(), "packages": packages, "llama_cpp": build_info()}
    template = str(read_header(model_parts(request.model)[0]).metadata.get("tokenizer.chat_template", ""))
    if tells_date(template) and any(option.startswith("--apply_chat_template") for option in request.options):
        environment["templates"] = {"date": arguments.date}
    with StudyWriter(request.study) as study:
        [point], _ = group_points([point], study.stored_models())
        run = study.begin_run(request.command, environment)
        point_id = study.save_point(point.name, point.model, arguments.answer_settings, point.source, point.origin)
        study.save_point_run(point_id, run)
        for task in tasks:
            if task.items:
                study.save_task(task.task, task.items, run)
                study.plan_point(point_id, [task.task.hash], speed=False)
                study.save_outcomes(point_id, task.task.hash, task.outcomes)
            study.save_harness_figures(point_id, task.task.name, task.figures)


def _model_arguments(request: HarnessRequest) -> ModelArguments:
    """The harness's arguments of the model, read as the harness reads them."""
    from lm_eval.utils import simple_parse_args_string

    if any(separator in str(request.model) for separator in _SEPARATORS):
        raise UsageError(
            f"{request.model}: the harness can't take a path with one of '{_SEPARATORS}' in it; rename or link the file"
        )
    given = simple_parse_args_string(request.model_args) if request.model_args else {}
    return parse_arguments({"path": str(request.model), **given})


def _point(request: HarnessRequest, arguments: ModelArguments) -> PlannedPoint:
    plan = RunRequest(
        models=(request.model,),
        study=request.study,
        cache=arguments.cache_dir,
        cache_types=((arguments.cache_type_k, arguments.cache_type_v),),
        flash_attention=arguments.flash_attention,
    )
    return plan_points(plan)[0]
