"""What rounding and what a fault do to the logits that gguf_eval/runtime/probe.py compares.

    python benchmarks/probe.py SMOLLM2.gguf GEMMA3.gguf

For levels made of each model: how far the logits after the probe's sequences are from those alone when all are decoded
together (rounding), and when each is given the logits of the next one (what a wrong state would do), both beside the
median distance between sequences. Largest of the first, smallest of the second.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from gguf_eval.files.quantize import quantize
from gguf_eval.llama.library import build_info
from gguf_eval.machine import physical_cores
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.probe import both_ways, relative_changes
from gguf_eval.runtime.settings import EngineSettings

LEVELS = ("F16", "Q8_0", "Q4_K_M", "Q4_0", "Q2_K")
RESULT = Path(__file__).parent / "results" / "probe.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for source in parser.parse_args().models:
            for level in LEVELS:
                path = Path(folder) / f"{source.stem}-{level}.gguf"
                quantize(source, path, level, allow_requantize=True)
                with Model(path) as model:
                    alone, together = both_ways(model, EngineSettings(), physical_cores())
                path.unlink()
                rounding = relative_changes(alone, together).max()
                fault = relative_changes(alone, alone[[1, 2, 3, 4, 0]]).min()
                rows.append({"model": source.name, "level": level, "rounding": rounding, "another_state": fault})
                print(json.dumps(rows[-1]), flush=True)
    summary = {
        "largest_rounding": max(row["rounding"] for row in rows),
        "smallest_with_another_state": min(row["another_state"] for row in rows),
    }
    RESULT.write_text(json.dumps({"build": build_info(), **summary, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
