"""What lm-evaluation-harness asks, and what its ``hf`` model says to it: one file a task, for `agreement.py`.

    python benchmarks/agreement_oracle.py PROMPTS_DIR HUB gsm8k hellaswag arc_easy ...
    python benchmarks/agreement_oracle.py SCORES_DIR HUB --checkpoint CHECKPOINT lambada_openai:200 cb ...

(an environment with lm-eval 0.4.13, torch and transformers.) The first way keeps prompts alone, which takes seconds; the
second also log-likelihoods of the checkpoint in float32 and how its tokenizer splits the texts. HUB is a folder of the
hub's Parquet files (datasets/OWNER/NAME/CONFIG/SPLIT/0000.parquet). A task is one of the harness's, with the number of
its first rows to ask after a colon; ``mmlu`` stands for all its subjects in HUB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness_mirror import use_mirror

# A file beside this one bears the harness's name: without its folder on the path, `import lm_eval` is the harness.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

SHOTS = {"mmlu": 5, "gsm8k": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("hub", type=Path)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--checkpoint", type=Path)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    use_mirror(options.hub)
    model, tokenizer = checkpoint_model(options.checkpoint) if options.checkpoint else (silent_model(), None)
    options.out.mkdir(parents=True, exist_ok=True)
    for entry in options.tasks:
        name, _, limit = entry.partition(":")
        for task in subjects(options.hub) if name == "mmlu" else [name]:
            document = ask(model, tokenizer, task, int(limit) if limit else None)
            (options.out / f"{task}.json").write_text(json.dumps(document, default=float), encoding="utf-8")
            print(task, len(document["samples"]), document["results"], flush=True)


def subjects(hub: Path) -> list[str]:
    return sorted(f"mmlu_{folder.name}" for folder in (hub / "datasets" / "cais" / "mmlu").iterdir())


def checkpoint_model(path: Path) -> tuple[Any, Any]:
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    # As tokenizer.json says: a class that the checkpoint names may set another pre-tokenizer up.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    model = HFLM(pretrained=str(path), tokenizer=tokenizer, dtype="float32", batch_size=8, device="cpu")
    return model, tokenizer


def silent_model() -> Any:
    """A model that computes nothing."""
    from lm_eval.api.model import LM

    class Silent(LM):
        def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
            return [(0.0, False)] * len(requests)

        def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
            return [0.0] * len(requests)

        def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
            return ["0"] * len(requests)

    return Silent()


def ask(model: Any, tokenizer: Any, task: str, limit: int | None) -> dict[str, Any]:
    """The task's samples: prompts, and answers where there is a tokenizer."""
    import lm_eval

    results = lm_eval.simple_evaluate(
        model=model, tasks=[task], limit=limit, num_fewshot=SHOTS.get(task.partition("_")[0], 0), bootstrap_iters=0,
        log_samples=True,
    )  # fmt: skip
    samples: dict[int, dict[str, Any]] = {}
    for sample in results["samples"][task]:
        pairs = arguments(sample["arguments"])
        kept: dict[str, Any] = {"doc_id": sample["doc_id"], "arguments": pairs}
        if tokenizer is not None:
            kept["resps"] = sample["filtered_resps"]  # (log-likelihood, greedy) of each choice
            kept["tokens"] = [tokenizer("".join(pair)).input_ids for pair in pairs]
            kept["metrics"] = {name: sample[name] for name in sample["metrics"]}
        samples[sample["doc_id"]] = kept  # a task with several filters lists each item more than once
    figures = {name: value for name, value in results["results"][task].items() if isinstance(value, float)}
    return {
        "task": task,
        "harness": version("lm-eval"),
        "results": figures if tokenizer is not None else {},
        "samples": list(samples.values()),
    }


def arguments(logged: Any) -> list[list[str]]:
    """(context, continuation) of each choice; the prompt alone, with its settings, where the model writes."""
    groups = list(logged.values()) if isinstance(logged, dict) else list(logged)
    pairs = [list(group.values()) if isinstance(group, dict) else list(group) for group in groups]
    return [[part for part in pair if isinstance(part, str)] for pair in pairs]


if __name__ == "__main__":
    main()
