"""Adds to the harness's samples how its tokenizer splits them, for `agreement.py`.

    python benchmarks/agreement_tokens.py ORACLE_DIR CHECKPOINT      (an environment with transformers)

Where the two tokenizers disagree, log-likelihoods can't be compared; the comparison lists such choices apart.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
for path in Path(sys.argv[1]).glob("*.json"):
    oracle = json.loads(path.read_text())
    for sample in oracle["samples"]:
        sample["tokens"] = [
            tokenizer(context + continuation).input_ids for context, continuation in sample["arguments"]
        ]
    path.write_text(json.dumps(oracle))
