"""The exception tree: every mistake a user can make ends here, in one line.

    GgufEvalError
    ├── UsageError            an option, name or file that was asked for and can't be used
    ├── ModelFileError        a GGUF or checkpoint that is missing, damaged or not what it should be
    ├── TaskError             a task file, its data, or an item
    ├── StudyError            a study file that can't be opened or written
    └── EngineError           llama.cpp could not load, decode or quantize

A message says what was needed, what was found and what to do, in one line.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class GgufEvalError(Exception):
    """Base of all errors that are reported to the user without a traceback."""

    exit_code = 1


class UsageError(GgufEvalError):
    """The command line asks for something that does not exist or can't be combined."""

    exit_code = 2


class ModelFileError(GgufEvalError):
    """A model file or checkpoint can't be used."""


class TaskError(GgufEvalError):
    """A task definition, its dataset or one of its items is wrong."""


class StudyError(GgufEvalError):
    """A study file can't be opened, read or written."""


class EngineError(GgufEvalError):
    """llama.cpp refused or failed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint ``; did you mean 'X'?`` for a misspelt name, or an empty string."""
    if isinstance(known, str):
        raise TypeError("names are needed; the letters of a string would be suggested")
    names = list(known)
    if name in names:  # what is wrong is not the spelling
        return ""
    lowered = {candidate.lower(): candidate for candidate in names}
    close = get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    return f"; did you mean '{lowered[close[0]]}'?" if close else ""
