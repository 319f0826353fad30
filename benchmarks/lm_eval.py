"""lm-evaluation-harness's own tasks through our model and through the harness's models: same answers, and how fast.

One process runs one of the harness's models over tasks and keeps every answer with the seconds its requests took:

    python benchmarks/lm_eval.py run gguf-eval MODEL-F16.gguf HUB OUT/ hellaswag:200 arc_easy:200 gsm8k:60 ...
    python benchmarks/lm_eval.py run hf CHECKPOINT HUB OUT/ hellaswag:200 arc_easy:200 gsm8k:60 ...
    python benchmarks/lm_eval.py run gguf http://127.0.0.1:8000 HUB OUT/ hellaswag:8

MODEL may be followed by the model's other arguments: MODEL-F16.gguf,cache_type_k=F32,cache_type_v=F32. HUB is a folder
of the hub's Parquet files (datasets/OWNER/NAME/CONFIG/SPLIT/0000.parquet). `hf` needs torch and
transformers, `gguf` a running llama-cpp-python server: python -m llama_cpp.server --model FILE --n_ctx 2048
--logits_all true. A task may end in ``+chat``: with the model's chat template. Then

    python benchmarks/lm_eval.py compare OUT/ RESULT.json gguf-eval hf      agreement and speed, ours first

which goes below the pair's name in RESULT.json, or the name that --label gives.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness_mirror import use_mirror

# This file bears the harness's name: without its folder on the path, `import lm_eval` is the harness.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

FEWSHOT = {"gsm8k": 2}
CONTEXT = 1024
ANSWER_TOKENS = 64


def timed(method: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    def call(requests: list[Any], **options: Any) -> Any:
        began = time.perf_counter()
        answers = method(requests, **options)
        spent["seconds"] += time.perf_counter() - began
        spent["requests"] += len(requests)
        return answers

    return call


def make_model(kind: str, source: str) -> Any:
    if kind == "hf":
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=source, dtype="float32", batch_size=8, device="cpu", max_length=CONTEXT)
    if kind == "gguf":
        from lm_eval.models.gguf import GGUFLM

        return GGUFLM(base_url=source)
    from gguf_eval.lm_eval.model import GgufEvalLM

    return GgufEvalLM.create_from_arg_string(f"path={source},n_ctx={CONTEXT}")


def run(kind: str, source: str, hub: Path, out: Path, tasks: list[str]) -> None:
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    use_mirror(hub)
    import lm_eval

    model = make_model(kind, source)
    spent: dict[str, float] = {}
    for name in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        setattr(model, name, timed(getattr(model, name), spent))
    out.mkdir(parents=True, exist_ok=True)
    for entry in tasks:
        label, limit = entry.split(":")
        task = label.removesuffix("+chat")
        spent.update(seconds=0.0, requests=0)
        results = lm_eval.simple_evaluate(
            model=model, tasks=[task], limit=int(limit), num_fewshot=FEWSHOT.get(task), bootstrap_iters=0,
            apply_chat_template=label.endswith("+chat"), gen_kwargs=f"max_gen_toks={ANSWER_TOKENS}",
        )  # fmt: skip
        answers = {}
        for sample in results["samples"][task]:
            metrics = {f"{name},{sample['filter']}": sample[name] for name in sample["metrics"]}
            kept = answers.setdefault(sample["doc_id"], {"metrics": {}, "responses": sample["resps"]})
            kept["metrics"].update(metrics)
        figures = {key: value for key, value in results["results"][task].items() if isinstance(value, float)}
        document = {
            "model": kind,
            "task": label,
            "items": len(answers),
            **spent,
            "figures": figures,
            "answers": answers,
        }
        (out / f"{kind}.{label}.json").write_text(json.dumps(document), encoding="utf-8")
        print(kind, label, {**spent, **figures}, flush=True)


def compare(out: Path, result: Path, ours: str, theirs: str, label: str) -> None:
    rows = {}
    for path in sorted(out.glob(f"{theirs}.*.json")):
        other = json.loads(path.read_text(encoding="utf-8"))
        own = json.loads((out / path.name.replace(theirs, ours, 1)).read_text(encoding="utf-8"))
        rows[other["task"]] = compare_task(own, other)
        print(other["task"], rows[other["task"]])
    known = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
    known[label or f"{ours} and {theirs}"] = known.get(label, {}) | rows
    result.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def compare_task(own: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    items = [(own["answers"][item], answer) for item, answer in other["answers"].items()]
    row: dict[str, Any] = {
        "items": len(items),
        "figures": {name: [own["figures"].get(name), value] for name, value in other["figures"].items()},
        "seconds": [round(own["seconds"], 2), round(other["seconds"], 2)],
        "times_as_fast": round(other["seconds"] / own["seconds"], 1),
    }
    row["items_judged_differently"] = {
        metric: sum(mine["metrics"][metric] != answer["metrics"][metric] for mine, answer in items)
        for metric, value in items[0][1]["metrics"].items()
        if value in (0, 1, True, False)
    }
    if isinstance(items[0][1]["responses"][0][0], str):
        equal = [mine["responses"] == answer["responses"] for mine, answer in items]
        return row | {"equal_answers": sum(equal), "equal_share": round(sum(equal) / len(equal), 4)}
    differences = sorted(
        abs(value(a) - value(b))
        for mine, answer in items
        for a, b in zip(mine["responses"], answer["responses"], strict=True)
    )
    return row | {
        "requests": len(differences),
        "median_nats": round(differences[len(differences) // 2], 4),
        "p99_nats": round(differences[math.ceil(0.99 * len(differences)) - 1], 4),
        "largest_nats": round(differences[-1], 4),
    }  # fmt: skip


def value(responses: list[Any]) -> float:
    """The log-likelihood of a request: (nats, greedy), or nats alone for a whole document."""
    return float(responses[0][0] if isinstance(responses[0], list) else responses[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("kind", choices=("gguf-eval", "hf", "gguf"))
    runner.add_argument("source")
    runner.add_argument("hub", type=Path)
    runner.add_argument("out", type=Path)
    runner.add_argument("tasks", nargs="+")
    comparer = commands.add_parser("compare")
    comparer.add_argument("out", type=Path)
    comparer.add_argument("result", type=Path)
    comparer.add_argument("ours")
    comparer.add_argument("theirs")
    comparer.add_argument("--label", default="")
    arguments = vars(parser.parse_args())
    {"run": run, "compare": compare}[arguments.pop("command")](**arguments)


if __name__ == "__main__":
    main()
