"""Watches a model compute and sums the squares of what goes into each weight matrix.

llama.cpp calls back before and after every node of its graph (``cb_eval``). The rules for what is counted are those of
``tools/imatrix/imatrix.cpp``: matrix products with weights named ``blk.*`` over 16 rows or more, and every product
with stacked experts, by the expert each row was sent to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gguf_eval.errors import EngineError
from gguf_eval.files.imatrix_file import Importance
from gguf_eval.llama.library import library
from gguf_eval.llama.tensors import Tensor, check_layout, operation_number, values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MIN_ROWS = 16
_F32 = 0
_LAST_NODE = "result_norm"
"""What llama.cpp calls the node before the output projection, whose input is of no interest by default."""


@dataclass
class _Sums:
    """Running totals in double precision: a long text adds up to millions of rows."""

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]


class Collector:
    """Holds the sums of one run; `callback` goes into the context's parameters and must outlive the context."""

    def __init__(self, *, with_output: bool = False) -> None:
        self.callback = library().ggml_backend_sched_eval_callback(self._on_node)
        self.failure: Exception | None = None
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
            node = Tensor.from_address(address)
            return self._wants(node) if ask else self._take(node)
        except Exception as error:
            self.failure = error
            return ask

    def _wants(self, node: Tensor) -> bool:
        if node.op == self._expert_product:
            return self._groups is None or _weight_name(node) in self._groups
        if node.op != self._product:
            return not self._with_output and node.name == _LAST_NODE.encode()
        rows = node.source(1)
        if rows.ne[1] < _MIN_ROWS or rows.type != _F32:
            return False
        name = _weight_name(node)
        if not (name.startswith("blk.") or (self._with_output and name == "output.weight")):
            return False
        return self._groups is None or name in self._groups

    def _take(self, node: Tensor) -> bool:
        if node.op not in (self._product, self._expert_product):
            return False  # the last node of interest: the output projection need not be computed
        if not self._checked:
            check_layout(node, node.source(0), node.source(1))
            self._checked = True
        name = _weight_name(node)
        weight, rows = node.source(0), node.source(1)
        if node.op == self._expert_product:
            sums, counts = self._expert_squares(weight, rows, node.source(2))
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

    def _squares(self, weight: Tensor, rows: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        import numpy as np

        inputs = values(rows)
        matrices = weight.ne[2] * weight.ne[3]
        if matrices == 1:
            flat = inputs.reshape(-1, inputs.shape[-1])
            sums = np.einsum("ij,ij->j", flat, flat).astype(np.float64)[None, :]
        else:
            by_slice = np.einsum("abij,abij->abj", inputs, inputs).astype(np.float64)
            sums = np.zeros((matrices, rows.ne[0]))
            for i3 in range(by_slice.shape[0]):
                for i2 in range(by_slice.shape[1]):
                    sums[(i3 % weight.ne[3]) * weight.ne[2] + i2 % weight.ne[2]] += by_slice[i3, i2]
            # llama.cpp keeps one count for all matrices of a tensor and averages over it.
            return sums.reshape(1, -1), np.array([inputs.size // inputs.shape[-1] // matrices])
        return sums, np.array([flat.shape[0]])

    def _expert_squares(
        self, weight: Tensor, rows: Tensor, chosen: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sum by expert: ``chosen`` is (tokens, experts used), rows are (tokens, experts used or 1, columns)."""
        import numpy as np

        inputs = values(rows)[0]
        experts = values(chosen, "<i4")[0, 0]
        count = weight.ne[2]
        if experts.min() < 0 or experts.max() >= count:
            raise EngineError(f"{weight.text}: a row was sent to expert {experts.max()} of {count}")
        sums = np.zeros((count, rows.ne[0]))
        for slot in range(experts.shape[1]):
            squares = np.square(inputs[:, slot % inputs.shape[1]])
            member = (experts[:, slot][None, :] == np.arange(count)[:, None]).astype(np.float32)
            sums += member @ squares
        return sums, np.bincount(experts.ravel(), minlength=count).astype(np.int64)


def _groups(graph: list[tuple[str, int, int]]) -> dict[str, tuple[str, ...]]:
    """Return runs of weights with the same input, by the last name of each run."""
    runs: list[list[tuple[str, int, int]]] = []
    for entry in graph:
        if runs and runs[-1][-1][1:] == entry[1:]:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return {run[-1][0]: tuple(name for name, _, _ in run) for run in runs}


def _weight_name(node: Tensor) -> str:
    """Return the name of the weight of a product, without the device that a copy is marked with (``GPU#name#0``)."""
    name = node.source(0).text
    parts = name.split("#")
    return parts[1] if len(parts) > 1 else name
