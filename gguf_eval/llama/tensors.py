"""Tensors of a graph that llama.cpp computes, seen from its callback: names, shapes and values."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

from gguf_eval.errors import EngineError
from gguf_eval.llama.library import function

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tensor(ctypes.Structure):
    """``struct ggml_tensor`` of ggml.h; `check_layout` compares it with the library's own answers."""

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

    @property
    def address(self) -> int:
        """Where it is in memory."""
        return ctypes.addressof(self)

    @property
    def text(self) -> str:
        """Its name."""
        return bytes(self.name).decode("utf-8", errors="replace")

    def source(self, number: int) -> Tensor:
        """A tensor that this one is computed from."""
        return Tensor.from_address(self.src[number])


def values(tensor: Tensor, dtype: str = "<f4") -> NDArray[Any]:
    """Return a tensor's values, (ne3, ne2, ne1, ne0), in place where the memory is the host's."""
    import numpy as np

    size = function("ggml-base", "ggml_nbytes", ctypes.c_size_t, ctypes.c_void_p)(tensor.address)
    is_host = function("ggml-base", "ggml_backend_buffer_is_host", ctypes.c_bool, ctypes.c_void_p)
    if tensor.buffer and is_host(tensor.buffer):
        buffer = (ctypes.c_char * size).from_address(tensor.data)
    else:
        buffer = (ctypes.c_char * size)()
        read = function("ggml-base", "ggml_backend_tensor_get", None, *2 * [ctypes.c_void_p], *2 * [ctypes.c_size_t])
        read(tensor.address, buffer, 0, size)
    shape, strides = tuple(reversed(tensor.ne)), tuple(reversed(tensor.nb))
    found: NDArray[Any] = np.ndarray(shape, np.dtype(dtype), buffer, strides=strides)
    return found


def check_layout(*tensors: Tensor) -> None:
    """Raise `EngineError` where the library's own answers about tensors are not what is read here."""
    name = function("ggml-base", "ggml_get_name", ctypes.c_char_p, ctypes.c_void_p)
    count = function("ggml-base", "ggml_nelements", ctypes.c_int64, ctypes.c_void_p)
    for tensor in tensors:
        ne = tensor.ne
        if name(tensor.address) != tensor.name or count(tensor.address) != ne[0] * ne[1] * ne[2] * ne[3]:
            raise EngineError(
                "this llama.cpp lays out its tensors in a way that is not known here; "
                "take a tested version of llama-cpp-python, or make the matrix with llama-imatrix"
            )


@functools.cache
def operation_number(name: str) -> int:
    """Return ggml's number of an operation, which differs between versions, by its name."""
    name_of = function("ggml-base", "ggml_op_name", ctypes.c_char_p, ctypes.c_int)
    for number in range(64):
        if name_of(number) == name.encode():
            return number
    raise EngineError(f"this llama.cpp has no operation {name}; take a tested version of llama-cpp-python")
