"""Watches a model compute and sums the squares of what goes into each weight matrix.

llama.cpp calls back before and after every node of its graph (``cb_eval``). The rules for what is counted are those of
``tools/imatrix/imatrix.cpp``: matrix products with weights named ``blk.*`` over 16 rows or more, and every product
with stacked experts, by the expert each row was sent to.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_eval.errors import EngineError
from gguf_eval.files.imatrix_file import Importance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MIN_ROWS = 16
_F32 = 0
_LAST_NODE = "result_norm"
"""What llama.cpp calls the node before the output projection, whose input is of no interest by default."""


class GgmlTensor(ctypes.Structure):
    """``struct ggml_tensor`` of ggml.h; `_check_layout` compares it with the library's own answers."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


@dataclass
class _Sums:
    """Running totals in double precision: a long text adds up to millions of rows."""

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]


class Collector:
    """Holds the sums of one run; `callback` goes into the context's parameters and must outlive the context."""

    def __init__(self, *, with_output: bool = False) -> None:
        import llama_cpp

        self.callback = llama_cpp.llama_cpp.ggml_backend_sched_eval_callback(self._on_node)
        self.failure: Exception | None = None
        self._library = ggml_base()
        self._with_output = with_output
        self._totals: dict[str, _Sums] = {}
        self._checked = False
        self._product, self._expert_product = operation_number("MUL_MAT"), operation_number("MUL_MAT_ID")
        # Weights that share an input (query, key and value; gate and up) are found in the first graph. From then on the
        # graph is stopped once for them all, at the last.
        self._first_graph: list[tuple[str, int, int]] = []
        self._groups: dict[str, tuple[str, ...]] | None = None

    def next_batch(self) -> None:
        """Say that one graph of the size all will have has been computed."""
        if self._groups is None and self._first_graph:
            self._groups = _groups(self._first_graph)

    def load(self, name: str, importance: Importance) -> None:
        """Take over sums of an earlier run."""
        self._totals[name] = _Sums(importance.sums.astype("float64"), importance.counts.copy())

    def entries(self) -> dict[str, Importance]:
        """Return the sums so far, by weight name."""
        return {name: Importance(t.sums.astype("float32"), t.counts.copy()) for name, t in self._totals.items()}

    def check_finite(self) -> None:
        """Raise `EngineError` when a sum is NaN or infinite."""
        import numpy as np

        for name, total in self._totals.items():
            if not np.isfinite(total.sums).all():
                raise EngineError(
                    f"{name}: its input holds NaN or infinite values; the model or its conversion is broken"
                )

    def _on_node(self, address: int, ask: bool, _data: object) -> bool:
        # An exception can't pass through C: it is kept, the graph is stopped, and the caller raises it.
        try:
            if self.failure is not None:
                return ask
            node = GgmlTensor.from_address(address)
            return self._wants(node) if ask else self._take(node)
        except Exception as error:
            self.failure = error
            return ask

    def _wants(self, node: GgmlTensor) -> bool:
        if node.op == self._expert_product:
            return self._groups is None or _weight_name(node) in self._groups
        if node.op != self._product:
            return not self._with_output and node.name == _LAST_NODE.encode()
        rows = GgmlTensor.from_address(node.src[1])
        if rows.ne[1] < _MIN_ROWS or rows.type != _F32:
            return False
        name = _weight_name(node)
        if not (name.startswith("blk.") or (self._with_output and name == "output.weight")):
            return False
        return self._groups is None or name in self._groups

    def _take(self, node: GgmlTensor) -> bool:
        if node.op not in (self._product, self._expert_product):
            return False  # the last node of interest: the output projection need not be computed
        if not self._checked:
            self._check_layout(node)
            self._checked = True
        name = _weight_name(node)
        weight, rows = GgmlTensor.from_address(node.src[0]), GgmlTensor.from_address(node.src[1])
        if node.op == self._expert_product:
            sums, counts = self._expert_squares(weight, rows, GgmlTensor.from_address(node.src[2]))
        else:
            sums, counts = self._squares(weight, rows)
        if self._groups is None:
            self._first_graph.append((name, node.src[1], node.src[2] or 0))
        for member in (name,) if self._groups is None else self._groups[name]:
            self._add(member, sums, counts)
        return True

    def _add(self, name: str, sums: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
        total = self._totals.get(name)
        if total is None:
            self._totals[name] = _Sums(sums.copy(), counts.copy())
            return
        if total.sums.shape != sums.shape:
            raise EngineError(
                f"{name}: sums shaped {total.sums.shape} so far, {sums.shape} now; start again without them"
            )
        total.sums += sums
        total.counts += counts

    def _squares(self, weight: GgmlTensor, rows: GgmlTensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        import numpy as np

        values = self._values(rows)
        matrices = weight.ne[2] * weight.ne[3]
        if matrices == 1:
            flat = values.reshape(-1, values.shape[-1])
            sums = np.einsum("ij,ij->j", flat, flat).astype(np.float64)[None, :]
        else:
            by_slice = np.einsum("abij,abij->abj", values, values).astype(np.float64)
            sums = np.zeros((matrices, rows.ne[0]))
            for i3 in range(by_slice.shape[0]):
                for i2 in range(by_slice.shape[1]):
                    sums[(i3 % weight.ne[3]) * weight.ne[2] + i2 % weight.ne[2]] += by_slice[i3, i2]
            # llama.cpp keeps one count for all matrices of a tensor and averages over it.
            return sums.reshape(1, -1), np.array([values.size // values.shape[-1] // matrices])
        return sums, np.array([flat.shape[0]])

    def _expert_squares(
        self, weight: GgmlTensor, rows: GgmlTensor, chosen: GgmlTensor
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sum by expert: ``chosen`` is (tokens, experts used), rows are (tokens, experts used or 1, columns)."""
        import numpy as np

        values = self._values(rows)[0]
        experts = self._values(chosen, dtype=np.dtype("<i4"))[0, 0]
        count = weight.ne[2]
        if experts.min() < 0 or experts.max() >= count:
            raise EngineError(f"{_text(weight.name)}: a row was sent to expert {experts.max()} of {count}")
        sums = np.zeros((count, rows.ne[0]))
        for slot in range(experts.shape[1]):
            squares = np.square(values[:, slot % values.shape[1]])
            member = (experts[:, slot][None, :] == np.arange(count)[:, None]).astype(np.float32)
            sums += member @ squares
        return sums, np.bincount(experts.ravel(), minlength=count).astype(np.int64)

    def _values(self, tensor: GgmlTensor, dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
        """Return a tensor's values, (ne3, ne2, ne1, ne0), in place where the memory is the host's."""
        import numpy as np

        address = ctypes.addressof(tensor)
        size = self._library.ggml_nbytes(address)
        if tensor.buffer and self._library.ggml_backend_buffer_is_host(tensor.buffer):
            buffer = (ctypes.c_char * size).from_address(tensor.data)
        else:
            buffer = (ctypes.c_char * size)()
            self._library.ggml_backend_tensor_get(address, buffer, 0, size)
        shape, strides = tuple(reversed(tensor.ne)), tuple(reversed(tensor.nb))
        values: NDArray[Any] = np.ndarray(shape, dtype or np.dtype("<f4"), buffer, strides=strides)
        return values

    def _check_layout(self, node: GgmlTensor) -> None:
        for address in (ctypes.addressof(node), node.src[0], node.src[1]):
            tensor = GgmlTensor.from_address(address)
            if self._library.ggml_get_name(address) != tensor.name or self._library.ggml_nelements(address) != (
                tensor.ne[0] * tensor.ne[1] * tensor.ne[2] * tensor.ne[3]
            ):
                raise EngineError(
                    "this llama.cpp lays out its tensors in a way that is not known here; "
                    "take a tested version of llama-cpp-python, or make the matrix with llama-imatrix"
                )


def _groups(graph: list[tuple[str, int, int]]) -> dict[str, tuple[str, ...]]:
    """Return runs of weights with the same input, by the last name of each run."""
    runs: list[list[tuple[str, int, int]]] = []
    for entry in graph:
        if runs and runs[-1][-1][1:] == entry[1:]:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return {run[-1][0]: tuple(name for name, _, _ in run) for run in runs}


def _weight_name(node: GgmlTensor) -> str:
    """Return the name of the weight of a product, without the device that a copy is marked with (``GPU#name#0``)."""
    name = _text(GgmlTensor.from_address(node.src[0]).name)
    parts = name.split("#")
    return parts[1] if len(parts) > 1 else name


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")


@functools.cache
def ggml_base() -> Any:
    """Load the part of llama.cpp's library that reads tensors, with the signatures that are used here."""
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    names = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll", "libggml-base.dll")
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise EngineError(
            f"{folder}: ggml's library is needed, none of {', '.join(names)} is there; reinstall llama-cpp-python"
        )
    library = ctypes.CDLL(str(found[0]))
    signatures: dict[str, tuple[list[Any], Any]] = {
        "ggml_get_name": ([ctypes.c_void_p], ctypes.c_char_p),
        "ggml_nbytes": ([ctypes.c_void_p], ctypes.c_size_t),
        "ggml_nelements": ([ctypes.c_void_p], ctypes.c_int64),
        "ggml_op_name": ([ctypes.c_int], ctypes.c_char_p),
        "ggml_backend_buffer_is_host": ([ctypes.c_void_p], ctypes.c_bool),
        "ggml_backend_tensor_get": ([ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t], None),
    }
    for name, (arguments, result) in signatures.items():
        function: Callable[..., Any] = getattr(library, name)
        function.argtypes, function.restype = arguments, result  # type: ignore[attr-defined]
    return library


@functools.cache
def operation_number(name: str) -> int:
    """Return ggml's number of an operation, which differs between versions, by its name."""
    library = ggml_base()
    for number in range(64):
        if library.ggml_op_name(number) == name.encode():
            return number
    raise EngineError(f"this llama.cpp has no operation {name}; take a tested version of llama-cpp-python")
