"""Judges of written answers by name: each reads the text, finds the answer in it, compares it with the references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from gguf_eval.decoding import DecodingError, decode
from gguf_eval.tasks import judges
from gguf_eval.tasks.judges.judgement import Cut, Judge, Judgement, has_begun, unscored

_MODULES = [import_module(f"{judges.__name__}.{module.name}") for module in iter_modules(judges.__path__)]
JUDGES: dict[str, Judge] = {judge.name: judge for module in _MODULES for judge in getattr(module, "JUDGES", ())}
"""Those that the modules of the folder list."""
CUT_BEFORE_IT_BEGAN = "a stop string ended the answer before it began"
"""Not a wrong answer: the task's stop strings kept the model from giving one, perhaps after "The answer is:"."""


def judge_answer(name: str, answer: str, references: Sequence[Any], options: Cut) -> Judgement:
    """Judge an answer by the judge of that name; texts are compared, so that references may be numbers too."""
    judge = JUDGES[name]
    compared = [str(reference) for reference in references] if judge.compares_texts else references
    return judge.judge(answer, compared, options)


def judge_written(name: str, answer: str, stopped: bool, references: Sequence[Any], options: Cut) -> Judgement:
    """The same of what a model wrote; ``stopped``: a stop string of the task ended it."""
    if stopped and not has_begun(answer, options):
        return unscored(CUT_BEFORE_IT_BEGAN)
    return judge_answer(name, answer, references, options)


def judge_options(name: str, table: Mapping[str, Any]) -> Cut:
    """A judge's options as it takes them. Raises `DecodingError` where it can't work with them, or at all."""
    judge = JUDGES[name]
    options = decode(judge.options, table, prefix="judge.options.")
    missing = [library for library in judge.libraries if find_spec(library) is None]
    if missing:
        raise DecodingError(
            f"the judge '{name}' needs {' and '.join(missing)}, which is not installed; pip install 'gguf-eval[text]'"
        )
    return options
