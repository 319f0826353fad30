"""A run over a text as bytes of the study file: NumPy's compressed .npz, one array a column."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_eval.store.records import TextRecord

_COLUMN, _NOISE = "column ", "noise "


def pack_text(record: TextRecord) -> bytes:
    """Everything but the conditions, which are stored beside."""
    shape = [record.windows, record.scored, -1 if record.peak_bytes is None else record.peak_bytes]
    arrays: dict[str, npt.NDArray[Any]] = {
        "shape": np.array(shape, np.int64),
        "window_bytes": np.array(record.window_bytes, np.int64),
        **{_COLUMN + name: values for name, values in record.columns.items()},
        **{_NOISE + name: values for name, values in record.noise.items()},
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # names are not those of its options
    return buffer.getvalue()


def unpack_text(content: bytes, conditions: dict[str, Any]) -> TextRecord:
    """What `pack_text` packed."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        windows, scored, peak = arrays["shape"].tolist()
        return TextRecord(
            conditions=conditions,
            windows=windows,
            scored=scored,
            window_bytes=tuple(arrays["window_bytes"].tolist()),
            columns={n.removeprefix(_COLUMN): arrays[n] for n in arrays.files if n.startswith(_COLUMN)},
            noise={n.removeprefix(_NOISE): arrays[n] for n in arrays.files if n.startswith(_NOISE)},
            peak_bytes=None if peak < 0 else peak,
        )


def is_broken(record: TextRecord) -> bool:
    """Whether a likelihood is not a finite number: now such a run is refused, it was stored once."""
    return not np.isfinite(record.columns["nll"]).all()
