"""Compare quantization levels of local language models: accuracy, tokens per second and memory.

Everything below can be imported from ``gguf_eval`` itself; it is loaded when it is first used, so that importing the
package costs nothing and works where llama.cpp does not load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gguf_eval.analysis.recommend import Conclusion, conclude
    from gguf_eval.analysis.summary import StudySummary, summarise
    from gguf_eval.errors import EngineError, GgufEvalError, ModelFileError, StudyError, TaskError, UsageError
    from gguf_eval.files.header import Header, read_header
    from gguf_eval.files.quantize import quantize
    from gguf_eval.runtime.model import Model
    from gguf_eval.runtime.scoring import Request, Score, Scorer
    from gguf_eval.store.read import read_study
    from gguf_eval.study.plan import make_plan
    from gguf_eval.study.points import RunRequest
    from gguf_eval.study.run import run_study
    from gguf_eval.tasks.spec import Task, load_task

_ROOMS = {
    "Conclusion": "analysis.recommend",
    "EngineError": "errors",
    "GgufEvalError": "errors",
    "Header": "files.header",
    "Model": "runtime.model",
    "ModelFileError": "errors",
    "Request": "runtime.scoring",
    "RunRequest": "study.points",
    "Score": "runtime.scoring",
    "Scorer": "runtime.scoring",
    "StudyError": "errors",
    "StudySummary": "analysis.summary",
    "Task": "tasks.spec",
    "TaskError": "errors",
    "UsageError": "errors",
    "conclude": "analysis.recommend",
    "load_task": "tasks.spec",
    "make_plan": "study.plan",
    "quantize": "files.quantize",
    "read_header": "files.header",
    "read_study": "store.read",
    "run_study": "study.run",
    "summarise": "analysis.summary",
}

__all__ = [
    "Conclusion",
    "EngineError",
    "GgufEvalError",
    "Header",
    "Model",
    "ModelFileError",
    "Request",
    "RunRequest",
    "Score",
    "Scorer",
    "StudyError",
    "StudySummary",
    "Task",
    "TaskError",
    "UsageError",
    "conclude",
    "load_task",
    "make_plan",
    "quantize",
    "read_header",
    "read_study",
    "run_study",
    "summarise",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"gguf_eval.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'gguf_eval' has no attribute '{name}'")
