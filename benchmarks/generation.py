"""Answers written side by side beside answers written one by one: the same texts, and how fast.

    python benchmarks/generation.py texts MODEL.gguf HUB [--items 60] [--tokens 64]
    python benchmarks/generation.py speed MODEL.gguf HUB [--items 32] [--tokens 96] [--rounds 2]

HUB is a folder of the hub's Parquet files. Questions of GSM8K are asked without examples by the model's chat template,
and every answer is written greedily to its end or to the token limit. Three ways:

side by side   16 sequences, as `gguf-eval run` does; where one ends the next answer enters
one by one     a single answer at a time in the same way: its row is joined by three idle ones, so that llama.cpp
               computes it with the kernels that take four rows of repacked weights together
plain          a single answer at a time, one row a decode, as a chat program does

Where two ways part, the same tokens are decoded again in both ways up to there: the gap between the two likeliest
tokens is then set beside the largest difference that the way of computing makes to any logit. Results are written to
benchmarks/results/generation.json, one entry a model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from gguf_eval.files.header import read_header
from gguf_eval.llama.library import build_info
from gguf_eval.machine import describe_machine, physical_cores
from gguf_eval.runtime.chat import ChatEncoder, ChatTemplates, conversation
from gguf_eval.runtime.generation import GenerationRequest, Generator, Written
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.settings import ContextSettings
from gguf_eval.tasks.catalog import find_tasks
from gguf_eval.tasks.datasets import load_items, mirror
from gguf_eval.tasks.spec import with_shots

RESULT = Path(__file__).parent / "results" / "generation.json"
PARALLEL = 16
WAYS = {
    "side by side": {"parallel": PARALLEL},
    "one by one": {"parallel": 1},
    "plain": {"parallel": 1, "rows_together": 1},
}
ROWS = {"side by side": 4, "one by one": 4, "plain": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("texts", "speed"))
    parser.add_argument("model", type=Path)
    parser.add_argument("hub", type=Path)
    parser.add_argument("--items", type=int)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with Model(options.model) as model:
        if options.part == "texts":
            asked = requests(model, options, options.items or 60, options.tokens or 64)
            found = compare_texts(model, asked)
        else:
            asked = requests(model, options, options.items or 32, options.tokens or 96)
            found = compare_speed(model, asked, options.rounds)
    print(json.dumps(found, indent=1))
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    entry = known.setdefault(options.model.name, {})
    entry[options.part] = {"build": build_info(), "machine": describe_machine(), **found}
    RESULT.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def requests(model: Model, options: argparse.Namespace, count: int, tokens: int) -> list[GenerationRequest]:
    [task] = find_tasks(["gsm8k"])
    items = load_items(with_shots(task, 0), fetch=mirror(options.hub), limit=count)
    templates = ChatTemplates(read_header(options.model).metadata, model)
    encoder = ChatEncoder(model, templates.select(None), templates.tokens)
    return [
        GenerationRequest(encoder.prompt(conversation("", (), item.contexts[0])), max_tokens=tokens) for item in items
    ]


def compare_texts(model: Model, asked: list[GenerationRequest]) -> dict[str, Any]:
    answers = {way: Generator(model, **settings).generate(asked) for way, settings in WAYS.items()}
    result: dict[str, Any] = {
        "answers": len(asked),
        "tokens": sum(len(answer.tokens) for answer in answers["plain"]),
        "largest_difference_of_a_logit_from_16_rows": rows_matter(model, asked[0], answers["plain"][0].tokens[:1]),
    }
    for way in ("one by one", "plain"):
        pairs = list(zip(answers["side by side"], answers[way], strict=True))
        parted = [place for place, (a, b) in enumerate(pairs) if a.text != b.text]
        result[f"side by side as {way}"] = {
            "equal": len(pairs) - len(parted),
            "share": round(1 - len(parted) / len(pairs), 4),
            "partings": [
                parting(model, asked[place], answers["side by side"][place], answers[way][place], way)
                for place in parted
            ],
        }
    return result


def rows_matter(model: Model, request: GenerationRequest, written: tuple[int, ...]) -> dict[str, float]:
    """How far the number of rows in a decode moves the logits of one of them, after a prompt and a token."""
    logits = {rows: logits_after(model, request, written, rows) for rows in (1, 2, 3, 4, 8, PARALLEL)}
    return {str(rows): round(float(np.abs(found - logits[PARALLEL]).max()), 5) for rows, found in logits.items()}


def parting(model: Model, request: GenerationRequest, batched: Written, single: Written, way: str) -> dict[str, Any]:
    """The first token at which two texts differ, and how near its two candidates were."""
    common = 0
    for a, b in zip(batched.tokens, single.tokens, strict=False):
        if a != b:
            break
        common += 1
    ours = logits_after(model, request, batched.tokens[:common], ROWS["side by side"])
    theirs = logits_after(model, request, batched.tokens[:common], ROWS[way])
    return {
        "equal_tokens": common,
        "gap_side_by_side": top_gap(ours),
        f"gap_{way.replace(' ', '_')}": top_gap(theirs),
        "largest_difference_of_a_logit": round(float(np.abs(ours - theirs).max()), 4),
        "same_two_candidates": set(top_two(ours)) == set(top_two(theirs)),
    }


def logits_after(model: Model, request: GenerationRequest, written: tuple[int, ...], rows: int) -> np.ndarray:
    """The (vocabulary,) logits after prompt and ``written``, decoded with ``rows`` rows a step."""
    prompt = np.array(request.prompt, np.int32)
    cells = -(-(len(prompt) + request.max_tokens) // 256) * 256
    settings = ContextSettings(
        n_ctx=cells * PARALLEL, batch_size=512, max_sequences=PARALLEL, threads=physical_cores(), unified=False
    )
    with model.open_context(settings) as context:
        outputs = np.zeros(len(prompt), np.int8)
        outputs[-1] = 1
        context.decode(prompt, np.arange(len(prompt), dtype=np.int32), [(0,)] * len(prompt), outputs)
        sequences = [(sequence,) for sequence in range(rows)]
        outputs = np.array([1] + [0] * (rows - 1), np.int8)
        for place, token in enumerate(written, len(prompt)):
            tokens = np.array([token] + [0] * (rows - 1), np.int32)
            positions = np.array([place] + [0] * (rows - 1), np.int32)
            context.decode(tokens, positions, sequences, outputs)
            for sequence in range(1, rows):
                context.drop(sequence)
        return context.logits(1)[0].copy()


def top_two(logits: np.ndarray) -> list[int]:
    return [int(token) for token in np.argsort(logits)[-2:]]


def top_gap(logits: np.ndarray) -> float:
    second, first = logits[top_two(logits)]
    return round(float(first - second), 4)


def compare_speed(model: Model, asked: list[GenerationRequest], rounds: int) -> dict[str, Any]:
    """Tokens a second over everything (prompts, steps, opening the context), in turn, and of single steps."""
    rates: dict[str, list[float]] = {"side by side": [], "plain": []}
    tokens = 0
    for _ in range(rounds):
        for way, found in rates.items():
            seconds, tokens = timed(model, way, asked)
            found.append(round(tokens / seconds, 1))
        print({way: found[-1] for way, found in rates.items()}, flush=True)
    middle = len(asked[0].prompt) + asked[0].max_tokens // 2
    steps = {rows: step_seconds(model, rows, middle) for rows in (1, PARALLEL)}
    return {
        "answers": len(asked),
        "prompt_tokens": sum(len(request.prompt) for request in asked),
        "written_tokens": tokens,
        "tokens_per_second": rates,
        "times_as_fast": round(statistics.median(rates["side by side"]) / statistics.median(rates["plain"]), 2),
        "step_milliseconds": {f"{rows} rows": round(1000 * seconds, 1) for rows, seconds in steps.items()},
        "steps_times_as_fast": round(PARALLEL * steps[1] / steps[PARALLEL], 2),
    }


def step_seconds(model: Model, rows: int, length: int, count: int = 25) -> float:
    """The median time of a step of ``rows`` answers that are ``length`` tokens long, prompt included."""
    cells = -(-(length + count) // 256) * 256
    settings = ContextSettings(
        n_ctx=cells * rows, batch_size=512, max_sequences=rows, threads=physical_cores(), unified=False
    )
    seconds = []
    with model.open_context(settings) as context:
        prompt = np.arange(1000, 1000 + length, dtype=np.int32)
        outputs = np.zeros(length, np.int8)
        outputs[-1] = 1
        context.decode(prompt, np.arange(length, dtype=np.int32), [(0,)] * length, outputs)
        for sequence in range(1, rows):
            context.copy_whole(0, sequence)
        sequences = [(sequence,) for sequence in range(rows)]
        for place in range(length, length + count):
            began = time.perf_counter()
            context.decode(
                np.full(rows, place, np.int32), np.full(rows, place, np.int32), sequences, np.ones(rows, np.int8)
            )
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def timed(model: Model, way: str, asked: list[GenerationRequest]) -> tuple[float, int]:
    generator = Generator(model, **WAYS[way])
    began = time.perf_counter()
    answers = generator.generate(asked)
    return time.perf_counter() - began, sum(len(answer.tokens) for answer in answers)


if __name__ == "__main__":
    main()
