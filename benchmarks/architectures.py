"""Every kind of model against one fresh context a request: choices, written answers, perplexity, levels, memory.

    python benchmarks/architectures.py -o benchmarks/results/architectures.json [NAME ...]
    python benchmarks/architectures.py --sensitivity -o benchmarks/results/architectures.json [NAME ...]

Tiny random models of many architectures (tests/architectures.py) in F32, their cache in F32. The truth
(tests/one_at_a_time.py) calls llama.cpp directly: a new context of one sequence for each request, nothing shared. Each
architecture runs in a process of its own, as llama.cpp aborts on what it can't do; what it can't load is listed with
its reason. Rates are those of one run, one after the other: requests a second together over one at a time.

``--sensitivity`` adds how far rounding alone moves the same log-likelihoods, with nothing shared at all: a fresh
context a request, decoded in pieces instead of at once, and with weights changed by 2e-7 of themselves (the last bit or
two of F32). A difference from the truth that is no larger is that of another order of summation. Every architecture
whose differences are above 2e-5 nats has GELU, which llama.cpp looks up on CPUs in a table of half-precision numbers
(GGML_GELU_FP16): an input that is rounded to the other neighbour moves the result by 5e-4 of itself.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import architectures
from one_at_a_time import fresh, greedy, log_softmax, token_logprobs
from request_layouts import choice_layouts, written_layouts

from gguf_eval.llama.library import build_info
from gguf_eval.runtime.generation import GenerationRequest, Generator
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.perplexity import decode_windows, negative_log_likelihoods, open_window_context, plan_windows
from gguf_eval.runtime.scoring import Scorer, TokenRequest
from gguf_eval.runtime.settings import ContextSettings, EngineSettings

F32 = EngineSettings(flash_attention=0, cache_type_k="F32", cache_type_v="F32")
COMPARED = 24
"""Requests of a layout that the truth is asked for."""
WRITTEN_TOKENS = 24
TIE = 1e-3
"""Logits that lead by less are a tie: either token is right."""
PIECES, WEIGHT_CHANGE = (1, 7, 32), 2e-7
TEXT = " ".join(f"Line {i} of {i * 7 % 31} says that {i * i} is no prime." for i in range(400))


def choices(model: Model) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, requests in choice_layouts().items():
        scorer = Scorer(model, threads=1, engine=F32)
        scorer.score(requests[:1])  # what is found out once for a model
        began = time.perf_counter()
        scores = scorer.score(requests)
        together = time.perf_counter() - began
        sample = list(range(0, len(requests), -(-len(requests) // COMPARED)))
        began = time.perf_counter()
        truth = [sum(token_logprobs(model, requests[i].context, requests[i].continuation)) for i in sample]
        alone = (time.perf_counter() - began) * len(requests) / len(sample)
        change = np.abs([scores[i].logprob - value for i, value in zip(sample, truth, strict=True)])
        found[name] = {
            "requests": len(requests), "compared": len(sample), "largest_nats": float(change.max()),
            "times_one_at_a_time": alone / together,
        }  # fmt: skip
    return found


def written(model: Model) -> dict[str, Any]:
    found = {}
    for name, prompts in written_layouts().items():
        answers = Generator(model, threads=1, engine=F32).generate(
            [GenerationRequest(prompt, max_tokens=WRITTEN_TOKENS) for prompt in prompts]
        )
        same = ties = 0
        for answer, prompt in zip(answers, prompts, strict=True):
            tokens, leads = greedy(model, prompt, WRITTEN_TOKENS)
            if answer.tokens == tokens:
                same += 1
            else:
                parted = next(
                    (i for i, pair in enumerate(zip(answer.tokens, tokens, strict=False)) if pair[0] != pair[1]),
                    min(len(answer.tokens), len(tokens)),
                )
                ties += leads[parted] < TIE
        found[name] = {"prompts": len(prompts), "same": same, "ties": int(ties)}
    return found


def perplexity(model: Model) -> dict[str, Any]:
    found = {}
    for n_ctx, chunks in ((128, 6), (1024, 2)):
        windows = plan_windows(model, TEXT, n_ctx=n_ctx, chunks=chunks)
        with open_window_context(model, n_ctx, threads=1, engine=F32) as context:
            ours = np.concatenate([negative_log_likelihoods(rows, 1) for rows in decode_windows(context, windows)])
        truth = []
        for tokens, targets in zip(windows.tokens.tolist(), windows.targets.tolist(), strict=True):
            with fresh(model, n_ctx) as context:
                rows = context.decode(tokens, range(windows.first, windows.first + windows.scored))
            truth += [-log_softmax(rows[windows.first + i])[target] for i, target in enumerate(targets)]
        found[str(n_ctx)] = {"ours": float(np.exp(ours.mean())), "ratio": float(np.exp(ours.mean() - np.mean(truth)))}
    return found


def cache_types(model: Model) -> dict[str, Any]:
    """The same requests with other caches: differences are those of rounding, against the truth with that cache."""
    requests = choice_layouts()["passages"][:12]
    found = {}
    for kind in ("F16", "Q8_0"):
        engine = EngineSettings(cache_type_k=kind, cache_type_v=kind)
        try:
            scores = Scorer(model, threads=1, engine=engine).score(requests)
            truth = [sum(token_logprobs(model, r.context, r.continuation, kind)) for r in requests]
        except Exception as error:
            found[kind] = {"refused": str(error)}
            continue
        change = [abs(score.logprob - value) for score, value in zip(scores, truth, strict=True)]
        found[kind] = {"largest_nats": max(change), "median_nats": float(np.median(change))}
    return found


def levels(path: Path, folder: Path) -> dict[str, Any]:
    """The command line's own way to an importance matrix, a level made with it, and a speed."""
    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    steps = {
        "imatrix": [
            "imatrix",
            str(path),
            "--text",
            str(text),
            "-o",
            str(folder / "m.gguf"),
            "-c",
            "128",
            "--chunks",
            "2",
        ],
        "quantize": ["quantize", str(path), "-q", "Q4_K_M", "--imatrix", str(folder / "m.gguf"), "-o", str(folder)],
        "bench": ["bench", str(path), "-p", "32", "-n", "8", "-r", "1", "--json"],
    }
    found = {}
    for name, arguments in steps.items():
        run = subprocess.run(
            [sys.executable, "-m", "gguf_eval", *arguments], capture_output=True, text=True, cwd=folder, check=False
        )
        found[name] = "ok" if run.returncode == 0 else run.stderr.strip().splitlines()[-1][:300]
    return found


def memory(path: Path, model: Model) -> dict[str, Any]:
    """Bytes that llama.cpp names for one sequence of 2,048 tokens, and what the header's arithmetic says."""
    from gguf_eval.files.footprint import predict_footprint
    from gguf_eval.files.header import read_header

    settings = ContextSettings(n_ctx=2048, batch_size=512, ubatch_size=512, threads=1)
    held = model.context_bytes(settings)
    weights = sum(buffer.size_bytes for buffer in model.buffers if buffer.holds == "model")
    predicted = predict_footprint([read_header(path)], 2048)
    return {
        "context": held, "weights": weights, "sum": weights + sum(held.values()),
        "predicted": predicted.total_bytes,
        "cache_predicted": predicted.kv_bytes + predicted.state_bytes,
    }  # fmt: skip


def examine(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = architectures.make(Path(folder) / f"{name}-F32.gguf", name)
        with Model(path) as model:
            found: dict[str, Any] = {"memory_kind": model.memory.value, "window": model.window}
            for part in (choices, written, perplexity, cache_types):
                try:
                    found[part.__name__] = part(model)
                except Exception as error:
                    found[part.__name__] = {"failed": f"{type(error).__name__}: {error}"}
            found["decodes_together"] = model.decodes_together
            found["memory"] = memory(path, model)
        found["levels"] = levels(path, Path(folder))
    return found


def sensitivity(path: Path, model: Model) -> dict[str, Any]:
    """Largest and median change of log-likelihoods in nats; every request is decoded in a fresh context of its own."""
    requests = [
        request
        for layout in choice_layouts().values()
        for request in layout[:: -(-len(layout) // COMPARED)]
        if len(request.context) < 512
    ]
    truth = np.array([sum(token_logprobs(model, r.context, r.continuation)) for r in requests])

    def change(values: Iterable[float]) -> dict[str, float]:
        moved = np.abs(np.array(list(values)) - truth)
        return {"largest_nats": float(moved.max()), "median_nats": float(np.median(moved))}

    found: dict[str, Any] = {"requests": len(requests)}
    for size in PIECES:
        found[f"in pieces of {size}"] = change(in_pieces(model, request, size) for request in requests)
    changed = Path(shutil.copy(path, path.with_name("changed-F32.gguf")))
    change_weights(changed)
    with Model(changed) as other:
        values = [sum(token_logprobs(other, r.context, r.continuation)) for r in requests]
    found[f"weights changed by {WEIGHT_CHANGE:g}"] = change(values)
    return found


def in_pieces(model: Model, request: TokenRequest, size: int) -> float:
    """The log-likelihood of a continuation in a context of one sequence, ``size`` tokens a decode."""
    inputs = [*request.context, *request.continuation][:-1]
    first = len(inputs) - len(request.continuation)
    rows = {}
    with fresh(model, len(inputs)) as context:
        for start in range(0, len(inputs), size):
            wanted = {place - start for place in range(max(start, first), min(start + size, len(inputs)))}
            decoded = context.decode(inputs[start : start + size], wanted)
            rows.update({start + place: row for place, row in decoded.items()})
    return float(sum(log_softmax(rows[first + i])[token] for i, token in enumerate(request.continuation)))


def change_weights(path: Path) -> None:
    """Make every weight of a file in F32 larger or smaller by `WEIGHT_CHANGE` of itself, at random."""
    random = np.random.default_rng(1)
    for tensor in gguf.GGUFReader(path, "r+").tensors:
        sign = random.choice(np.array([-1, 1]), tensor.data.shape)
        tensor.data[...] = (tensor.data * (1 + WEIGHT_CHANGE * sign)).astype(np.float32)


def examine_sensitivity(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = architectures.make(Path(folder) / f"{name}-F32.gguf", name)
        with Model(path) as model:
            return sensitivity(path, model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--sensitivity", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        examined = examine_sensitivity if arguments.sensitivity else examine
        print("FOUND " + json.dumps(examined(arguments.one)))
        return
    document: dict[str, Any] = {"made_by": "python benchmarks/architectures.py", "llama_cpp": build_info()}
    if arguments.output and arguments.output.exists():
        document["architectures"] = json.loads(arguments.output.read_text())["architectures"]
    results = document.setdefault("architectures", {})
    for name in arguments.names or architectures.ARCHITECTURES:
        found = in_a_process(name, ["--sensitivity"] if arguments.sensitivity else [])
        if arguments.sensitivity:
            results.setdefault(name, {})["sensitivity"] = found
            print(
                name,
                *(f"{key} {found[key]['largest_nats']:.1e}," for key in found if key not in ("requests", "failed")),
            )
        else:
            kept = {key: value for key, value in results.get(name, {}).items() if key == "sensitivity"}
            results[name] = found | kept
            print(name, summary(found), flush=True)
        if arguments.output:
            arguments.output.write_text(json.dumps(document, indent=1) + "\n")


def in_a_process(name: str, options: list[str]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, *options]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": "did not end within 600 s"}
    lines = [line[6:] for line in run.stdout.splitlines() if line.startswith("FOUND ")]
    if not lines:
        return {"failed": (run.stderr.strip().splitlines() or [str(run.returncode)])[-1]}
    found: dict[str, Any] = json.loads(lines[0])
    return found


def summary(found: dict[str, Any]) -> str:
    if "failed" in found:
        return f"FAILED {found['failed']}"
    parts = [found["memory_kind"], "" if found["decodes_together"] else "alone"]
    asked = found["choices"]
    if "failed" in asked:
        parts.append(asked["failed"])
    else:
        worst = max(asked, key=lambda layout: asked[layout]["largest_nats"])
        parts.append(f"choices {asked[worst]['largest_nats']:.1e} ({worst})")
        parts.append("x" + "/".join(f"{layout['times_one_at_a_time']:.0f}" for layout in asked.values()))
    answers = found["written"]
    parts.append(
        answers.get("failed")
        or f"written {sum(a['same'] + a['ties'] for a in answers.values())}/{sum(a['prompts'] for a in answers.values())}"
    )
    text = found["perplexity"]
    parts.append(text.get("failed") or f"ppl {max(abs(1 - w['ratio']) for w in text.values()):.0e}")
    parts.append(str({kind: round(v.get("largest_nats", -1), 4) for kind, v in found["cache_types"].items()}))
    parts.append(f"memory {found['memory']['predicted'] / 2**20:.1f}/{found['memory']['sum'] / 2**20:.1f} MiB")
    parts.append(str({key: value for key, value in found["levels"].items() if value != "ok"} or "levels ok"))
    return " ".join(parts)


if __name__ == "__main__":
    main()
