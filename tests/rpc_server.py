"""A process that serves its processor through llama.cpp's own RPC server, pretending to have less memory where asked.

Run as ``python rpc_server.py PORT [--memory BYTES] [--spare BYTES]``. ``--memory`` is what it tells of itself,
``--spare`` what its system really grants it beyond what it has.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SizePointer = ctypes.POINTER(ctypes.c_size_t)
GetMemory = ctypes.CFUNCTYPE(None, ctypes.c_void_p, SizePointer, SizePointer)


class DeviceInterface(ctypes.Structure):
    """The beginning of ``struct ggml_backend_device``."""

    _fields_ = [("get_name", ctypes.c_void_p), ("get_description", ctypes.c_void_p), ("get_memory", GetMemory)]


def serve(port: int, memory_bytes: int | None, spare_bytes: int | None) -> None:
    from gguf_eval.llama.devices import devices
    from gguf_eval.llama.library import function

    processor = next(device for device in devices() if device.kind == "CPU")
    if memory_bytes is not None:

        def pretend(device: int, free: Any, total: Any) -> None:
            free[0] = total[0] = memory_bytes

        DeviceInterface.from_address(processor.handle).get_memory = GetMemory(pretend)
    if spare_bytes is not None:
        import resource

        import psutil

        limit = psutil.Process().memory_info().vms + spare_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    start = function("ggml-rpc", "ggml_backend_rpc_start_server", None, ctypes.c_char_p, ctypes.c_char_p,
                     ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)  # fmt: skip
    chosen = (ctypes.c_void_p * 1)(processor.handle)
    start(f"127.0.0.1:{port}".encode(), None, 1, 1, chosen)


@contextmanager
def rpc_server(
    memory_bytes: int | None = None, spare_bytes: int | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a server in a process of its own; yields its HOST:PORT and the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, str(port)]
    if memory_bytes is not None:
        command += ["--memory", str(memory_bytes)]
    if spare_bytes is not None:
        command += ["--spare", str(spare_bytes)]
    # Lines are not counted in it: the trace function crashes where llama.cpp's threads call back into Python.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"the RPC server ended with exit code {process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--memory", type=int)
    parser.add_argument("--spare", type=int)
    arguments = parser.parse_args()
    serve(arguments.port, arguments.memory, arguments.spare)
