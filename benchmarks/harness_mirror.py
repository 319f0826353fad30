"""Lets lm-evaluation-harness's datasets come from a folder of the hub's Parquet files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

MIRRORED = {
    # the harness's name of a data set, without its owner: owner, name and config in the mirror
    "hellaswag": "Rowan/hellaswag/default",
    "lambada_openai": "EleutherAI/lambada_openai/default",
    "gsm8k": "openai/gsm8k/main",
    "piqa": "ybisk/piqa/plain_text",
    "siqa": "allenai/social_i_qa/default",
    "wikitext_document_level": "Salesforce/wikitext/wikitext-2-raw-v1",
}
BOOLQ = "google/boolq/default"


def use_mirror(hub: Path) -> None:
    """Replace ``datasets.load_dataset`` by one that reads datasets/OWNER/NAME/CONFIG/SPLIT/0000.parquet in ``hub``.

    Where there is no training split the second half of the rows stands in for it: few-shot examples come from there,
    and the first half can be asked. Where there is no validation split, all rows do.
    """
    import datasets

    load = datasets.load_dataset

    def local(path: str, name: str | None = None, **_: Any) -> Any:
        boolq = name == "boolq"
        place = BOOLQ if boolq else MIRRORED.get(path.rpartition("/")[2], f"{path}/{name or 'default'}")
        folder = hub / "datasets" / place
        data = load("parquet", data_files={split.name: str(split / "0000.parquet") for split in folder.iterdir()})
        if path.endswith("wikitext_document_level"):
            pages = {
                split: datasets.Dataset.from_dict({"page": documents(rows["text"])}) for split, rows in data.items()
            }
            data = datasets.DatasetDict(pages)
        if boolq:  # SuperGLUE's copy has other columns
            data = data.map(lambda row, i: {"label": int(row["answer"]), "idx": i}, with_indices=True)
        whole = data[next(iter(data))]
        if "train" not in data:
            data["train"] = whole.select(range(len(whole) // 2, len(whole)))
        if "validation" not in data:
            data["validation"] = whole
        return data

    datasets.load_dataset = local


def documents(rows: list[str]) -> list[str]:
    """Wikitext's lines as documents: a new one at every heading of the first level."""
    pages: list[list[str]] = []
    for row in rows:
        if re.match(r" = [^=]", row) or not pages:
            pages.append([])
        pages[-1].append(row or " \n")
    return ["".join(page) for page in pages if len(page) > 3]
