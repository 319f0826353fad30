"""Real models on real questions, decoded together, against one fresh context a request.

    python benchmarks/real_models.py GEMMA.gguf SMOLLM2.gguf --hub HUB --text wiki.test.raw
    python benchmarks/real_models.py GEMMA.gguf --hub HUB --text wiki.test.raw --rates

Of each model's F16 form (made from what is given, so that no product is rounded to eight bits): items of ARC easy and
HellaSwag, and items whose contexts are 1,400 tokens of a text, longer than the windows of Gemma 3 (512). The truth is
tests/one_at_a_time.py: llama.cpp called directly, a new context of one sequence for every request. Both with the cache
in F32.

``--rates`` times HellaSwag with none, 5 and 10 examples instead, and the long contexts: all items together, a sample of
their requests one at a time, in one run, with llama.cpp's own cache and attention. Times are those of the CPU with one
thread, so that what else runs on the machine does not count. Decoding is bound by computing: every token goes through
the layers, and every row that is read through the output matrix, which no sharing spares. The ratio of these products
of the two ways (``times_fewer_products``) is about what sharing can gain.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from one_at_a_time import token_logprobs

from gguf_eval.files.header import read_header
from gguf_eval.files.quantize import quantize
from gguf_eval.llama.library import build_info
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.scoring import Request, Scorer, ScoringStats, TokenRequest, encode_pair
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.tasks.catalog import find_tasks
from gguf_eval.tasks.datasets import load_items, mirror
from gguf_eval.tasks.spec import Fewshot

F32 = EngineSettings(flash_attention=0, cache_type_k="F32", cache_type_v="F32")
LONG_TOKENS, LONG_ITEMS, SHORT_ITEMS = 1400, 30, 85
RATED_ITEMS, RATED_ALONE, SHOTS = 40, 12, (0, 5, 10)
"""Items of a layout that is timed, how many of its requests are asked one at a time, examples."""
RESULT = Path(__file__).parent / "results" / "real_models.json"


def items(model: Model, hub: Path, text: str) -> Iterator[list[TokenRequest]]:
    """The requests of each item."""
    for task in find_tasks(["arc_easy", "hellaswag"]):
        for item in load_items(task, fetch=mirror(hub), limit=SHORT_ITEMS):
            yield [
                tokens(model, Request(item.header.text + item.contexts[0], task.prompt.delimiter + choice))
                for choice in item.choices
            ]
    yield from long_items(model, text, LONG_ITEMS)


def long_items(model: Model, text: str, count: int) -> Iterator[list[TokenRequest]]:
    words = model.tokenize(text)[1 : count * 300 + LONG_TOKENS + 1]
    first = [model.prefix_token] if model.adds_bos else []
    for number in range(count):
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
        together = [score.logprob for score in Scorer(model, engine=F32).score(requests)]
        alone = [sum(token_logprobs(model, r.context, r.continuation)) for r in requests]
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
            "decodes_together": model.decodes_together,
        }  # fmt: skip


def rates(path: Path, hub: Path, text: str) -> dict[str, Any]:
    [hellaswag] = find_tasks(["hellaswag"])
    found = {}
    tensors = read_header(path).tensors
    layers = sum(tensor.elements for tensor in tensors if tensor.name.startswith("blk."))
    output = next(t.elements for name in ("output.weight", "token_embd.weight") for t in tensors if t.name == name)
    with Model(path) as model:
        for shots in SHOTS:
            task = replace(hellaswag, fewshot=Fewshot(shots, split="validation"))
            asked = load_items(task, fetch=mirror(hub), limit=RATED_ITEMS)
            requests = [
                tokens(model, Request(*item.pair(choice))) for item in asked for choice in range(len(item.choices))
            ]
            found[f"HellaSwag, {shots} examples"] = rate(model, requests, layers, output)
        long = [request for item in long_items(model, text, LONG_ITEMS // 5) for request in item]
        found[f"contexts of {LONG_TOKENS} tokens"] = rate(model, long, layers, output)
    return found


def rate(model: Model, requests: list[TokenRequest], layers: int, output: int) -> dict[str, Any]:
    """Requests a second of all ``requests`` together over that of a sample, one fresh context a request.

    layers, output: weights that every token is multiplied with, and every row that is read.
    """
    scorer = Scorer(model, threads=1)
    scorer.score(requests[:1])  # what is found out once for a model
    scorer.stats = ScoringStats()
    began = time.process_time()
    scores = scorer.score(requests)
    together = time.process_time() - began
    sample = list(range(0, len(requests), -(-len(requests) // RATED_ALONE)))
    began = time.process_time()
    truth = [
        sum(token_logprobs(model, r.context, r.continuation, cache_type="F16")) for r in (requests[i] for i in sample)
    ]
    one_at_a_time = (time.process_time() - began) / len(sample)
    whole = sum(len(request.context) + len(request.continuation) - 1 for request in requests)
    decoded, rows = scorer.stats.unique_tokens, scorer.stats.output_rows
    whole_rows = sum(len(request.continuation) for request in requests)
    products = (whole * layers + whole_rows * output) / (decoded * layers + rows * output)
    found = {
        "requests": len(requests),
        "cpu_seconds_together": together, "cpu_seconds_a_request_alone": one_at_a_time, "requests_timed_alone": len(sample),
        "times_one_at_a_time": one_at_a_time * len(requests) / together,
        "tokens_together": decoded, "tokens_one_at_a_time": whole, "times_fewer_tokens": whole / decoded,
        "rows_together": rows, "rows_one_at_a_time": whole_rows, "times_fewer_products": products,
        "largest_nats": max(abs(scores[place].logprob - value) for place, value in zip(sample, truth, strict=True)),
    }  # fmt: skip
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--hub", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--rates", action="store_true")
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8")
    part = "rates" if options.rates else "models"
    document = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    document["build"] = build_info()
    with tempfile.TemporaryDirectory() as folder:
        for source in options.models:
            path = Path(folder) / f"{source.stem}-F16.gguf"
            quantize(source, path, "F16", allow_requantize=True)
            found = (rates if options.rates else compare)(path, options.hub, text)
            document.setdefault(part, {})[source.name] = found
            print(source.name, json.dumps(found), flush=True)
    RESULT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
