"""Real models on real questions, decoded together, against one fresh context a request.

    python benchmarks/real_models.py GEMMA.gguf SMOLLM2.gguf --hub HUB --text wiki.test.raw

Of each model's F16 form (made from what is given, so that no product is rounded to eight bits): items of ARC easy and
HellaSwag, and items whose contexts are 1,400 tokens of a text, longer than the windows of Gemma 3 (512). The truth is
tests/one_at_a_time.py: llama.cpp called directly, a new context of one sequence for every request. Both with the cache
in F32.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from one_at_a_time import token_logprobs

from gguf_eval.files.header import read_header
from gguf_eval.files.quantize import quantize
from gguf_eval.llama.library import build_info
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.scoring import Request, Scorer, TokenRequest, encode_pair
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.tasks.catalog import find_tasks
from gguf_eval.tasks.datasets import load_items, mirror

F32 = EngineSettings(flash_attention=0, cache_type_k="F32", cache_type_v="F32")
LONG_TOKENS, LONG_ITEMS, SHORT_ITEMS = 1400, 30, 85
RESULT = Path(__file__).parent / "results" / "real_models.json"


def items(model: Model, hub: Path, text: str) -> Iterator[list[TokenRequest]]:
    """The requests of each item."""
    for task in find_tasks(["arc_easy", "hellaswag"]):
        for item in load_items(task, fetch=mirror(hub), limit=SHORT_ITEMS):
            yield [
                tokens(model, Request(item.header.text + item.contexts[0], task.prompt.delimiter + choice))
                for choice in item.choices
            ]
    words = model.tokenize(text)[1 : LONG_ITEMS * 300 + LONG_TOKENS + 1]
    first = [model.prefix_token] if model.adds_bos else []
    for number in range(LONG_ITEMS):
        start = number * 300
        context = (*first, *words[start : start + LONG_TOKENS])
        yield [
            TokenRequest(context, tuple(words[place : place + 4]))
            for place in (start + LONG_TOKENS, (start + 7 * LONG_TOKENS) % (len(words) - 4))
        ]


def tokens(model: Model, request: Request) -> TokenRequest:
    context, continuation = encode_pair(model, request.context, request.continuation)
    return TokenRequest(tuple(context), tuple(continuation))


def compare(path: Path, hub: Path, text: str) -> dict[str, Any]:
    with Model(path) as model:
        asked = list(items(model, hub, text))
        requests = [request for item in asked for request in item]
        began = time.perf_counter()
        scorer = Scorer(model, engine=F32)
        together = [score.logprob for score in scorer.score(requests)]
        middle = time.perf_counter()
        alone = [sum(token_logprobs(model, r.context, r.continuation)) for r in requests]
        ended = time.perf_counter()
        change = np.abs(np.array(together) - np.array(alone))
        place, other_choice = 0, 0
        for item in asked:
            part = slice(place, place + len(item))
            other_choice += int(np.argmax(together[part]) != np.argmax(alone[part]))
            place += len(item)
        return {
            "architecture": read_header(path).architecture, "memory": model.memory.value, "window": model.window,
            "items": len(asked), "requests": len(requests), "another_choice": other_choice,
            "largest_nats": float(change.max()), "median_nats": float(np.median(change)),
            "longest_request_tokens": max(len(r.context) + len(r.continuation) for r in requests),
            "times_one_at_a_time": (ended - middle) / (middle - began),
            "decodes_together": model.decodes_together,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--hub", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for source in options.models:
            path = Path(folder) / f"{source.stem}-F16.gguf"
            quantize(source, path, "F16", allow_requantize=True)
            found[source.name] = compare(path, options.hub, text)
            print(source.name, json.dumps(found[source.name]), flush=True)
    RESULT.write_text(json.dumps({"build": build_info(), "models": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
