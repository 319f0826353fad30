"""A hub in a thread: real HTTP on 127.0.0.1, the protocol of huggingface_hub, files of a folder.

The folder holds ``models/<owner>/<name>/`` and ``datasets/<owner>/<name>/``. A model folder is its branch
``main``. A dataset folder is its branch ``refs/convert/parquet`` (and ``main``). A repository's commit is a
hash over its files, so that a changed file is a new commit. Small files are served where they are asked for;
files from `LARGE_FILE_BYTES` on are redirected to a second server, as the real hub does with its store: on
another port, so that the client must not send its token there.

    with HubServer(folder) as hub:
        for name, value in hub.environment(cache).items():
            monkeypatch.setenv(name, value)

Faults are set on the server: `gated`, `private`, `drop_after`, `broken`, `stalled`, `slow_seconds`, `faults`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE_FILE_BYTES = 4096
TOKEN = "hf_accepted"
"""The token that a gated or private repository lets in."""
_CHUNK = 1 << 16


@dataclass(frozen=True)
class _Repo:
    kind: str
    name: str
    folder: Path

    @property
    def revisions(self) -> tuple[str, ...]:
        return ("main", "refs/convert/parquet", self.commit) if self.kind == "dataset" else ("main", self.commit)

    @property
    def commit(self) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for path in self.files():
            stat = (self.folder / path).stat()
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    def files(self) -> list[str]:
        return sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())


@dataclass
class HubServer:
    """The server; see the module's text."""

    folder: Path
    gated: set[str] = field(default_factory=set)
    """Repositories whose files need `TOKEN`; they are listed without it."""
    private: set[str] = field(default_factory=set)
    """Repositories that do not exist without `TOKEN`."""
    drop_after: dict[str, list[int]] = field(default_factory=dict)
    """File name -> bytes after which to drop the connection, one entry a request; then it is served whole."""
    broken: dict[str, int] = field(default_factory=dict)
    """Repository -> the HTTP status that every request for it gets."""
    stalled: set[str] = field(default_factory=set)
    """Repositories about which requests get no answer, until the server ends; the connection stays open."""
    slow_seconds: float = 0.0
    """What every answer takes."""
    faults: dict[str, str] = field(default_factory=dict)
    """File name -> what its content is like: silent, dripping, empty, or whole (where a part is asked for)."""
    page_size: int = 1000
    """Entries of a tree listing in one answer."""
    released: threading.Event = field(default_factory=threading.Event)
    """Set when the server ends."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range header of every request."""

    def __enter__(self) -> HubServer:
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        self._threads = []
        for server in self._servers:
            server.daemon_threads = True
            self._threads.append(threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def store_url(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}/store"

    def environment(self, cache: Path, token: str | None = None) -> dict[str, str]:
        """Variables that point huggingface_hub here, with its cache and its token inside ``cache``."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_CACHE": str(cache / "hub"),
            "HF_TOKEN": token or "",
            "HF_TOKEN_PATH": str(cache / "token"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
        }

    def find(self, kind: str, name: str) -> _Repo | None:
        folder = self.folder / f"{kind}s" / name
        return _Repo(kind, name, folder) if folder.is_dir() and folder.parent.parent.parent == self.folder else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server_hub.requests.append((self.command, self.path, self.headers.get("Range")))
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        if parts[0] == "store":
            self._file(Path(unquote("/".join(parts[1:]))), {})
        elif parts[0] == "api" and len(parts) >= 4:
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            self._api(parts[1].removesuffix("s"), "/".join(parts[2:4]), [unquote(p) for p in parts[4:]], query)
        else:
            kind, rest = ("dataset", parts[1:]) if parts[0] == "datasets" else ("model", parts)
            if len(rest) >= 5 and rest[2] == "resolve":
                self._resolve(kind, "/".join(rest[:2]), unquote(rest[3]), unquote("/".join(rest[4:])))
            else:
                self._error(404, "NotFound")

    def _repo(self, kind: str, name: str, revision: str, *, files: bool) -> _Repo | None:
        """Return the repository, or answer with the fault that stands in the way."""
        hub, token = self.server_hub, self.headers.get("Authorization", "")
        hub.released.wait(60 if name in hub.stalled else hub.slow_seconds)
        repo = hub.find(kind, name)
        allowed = token == f"Bearer {TOKEN}"
        if name in hub.broken:
            self._error(hub.broken[name], None)
        elif repo is None or (name in hub.private and not allowed):
            self._error(404 if token else 401, "RepoNotFound")
        elif files and name in hub.gated and not allowed:
            self._error(403 if token else 401, "GatedRepo")
        elif revision not in repo.revisions:
            self._error(404, "RevisionNotFound")
        else:
            return repo
        return None

    def _api(self, kind: str, name: str, rest: list[str], query: dict[str, str]) -> None:
        action, revision = [*rest, "", ""][:2]
        repo = self._repo(kind, name, revision or "main", files=False)
        if repo is None:
            return
        if action == "tree":
            self._tree(repo, rest[2] if len(rest) > 2 else "", query)
        elif action in ("", "revision"):
            siblings = [{"rfilename": path} for path in repo.files()]
            self._json({"id": name, "sha": repo.commit, "private": False, "tags": [], "siblings": siblings})
        else:
            self._error(404, "NotFound")

    def _tree(self, repo: _Repo, inside: str, query: dict[str, str]) -> None:
        start = int(query.get("cursor", "0"))
        files = [path for path in repo.files() if path.startswith(f"{inside}/" if inside else "")]
        entries = []
        for path in files[start : start + self.server_hub.page_size]:
            size, etag = (repo.folder / path).stat().st_size, _etag(repo.folder / path)
            entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": etag}
            if size >= LARGE_FILE_BYTES:
                entry["lfs"] = {"oid": etag, "size": size, "pointerSize": 130}
            entries.append(entry)
        headers = {}
        following = start + self.server_hub.page_size
        if following < len(files):
            base = f"{self.server_hub.url}{urlsplit(self.path).path}"
            headers["Link"] = f'<{base}?recursive=true&cursor={following}>; rel="next"'
        self._json(entries, headers)

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        repo = self._repo(kind, name, revision, files=True)
        if repo is None:
            return
        file = repo.folder / path
        if path not in repo.files():
            self._error(404, "EntryNotFound", {"X-Repo-Commit": repo.commit})
            return
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{_etag(file)}"'}
        if file.stat().st_size < LARGE_FILE_BYTES:
            self._file(file.relative_to(self.server_hub.folder), headers)
            return
        store = f"{self.server_hub.store_url}/{quote(file.relative_to(self.server_hub.folder).as_posix())}"
        headers |= {"X-Linked-Etag": f'"{_etag(file)}"', "X-Linked-Size": str(file.stat().st_size)}
        self._head(302, headers | {"Location": store, "Content-Length": "0"})

    def _file(self, relative: Path, headers: dict[str, str]) -> None:
        file = self.server_hub.folder / relative
        size = file.stat().st_size
        start, end, status = 0, size, 200
        fault = self.server_hub.faults.get(file.name) if self.command == "GET" else None
        if fault == "silent":
            self.server_hub.released.wait(60)
        elif fault == "empty":
            self._head(206, {"Content-Range": f"bytes 0-0/{size}"}, 0)
            return
        elif fault == "dripping":
            self._head(206, {"Content-Range": f"bytes 0-{size - 1}/{size}"}, size)
            with contextlib.suppress(OSError):
                while not self.server_hub.released.wait(0.02):
                    self.wfile.write(b"G")
            self.close_connection = True
            return
        if fault != "whole" and (asked := self.headers.get("Range")):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end, status = int(first), min(int(last or size) + 1, size), 206
            headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        if start >= size > 0:
            self._error(416, None, {"Content-Range": f"bytes */{size}"})
            return
        self._head(status, {"ETag": f'"{_etag(file)}"', "Accept-Ranges": "bytes"} | headers, end - start)
        if self.command == "HEAD":
            return
        drops = self.server_hub.drop_after.get(file.name)
        stop = min(end, start + drops.pop(0)) if drops else end
        with file.open("rb") as source:
            source.seek(start)
            while start < stop:
                start += self.wfile.write(source.read(min(_CHUNK, stop - start)))
        if stop < end:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _json(self, value: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self._head(200, {"Content-Type": "application/json"} | (headers or {}), len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str | None, headers: dict[str, str] | None = None) -> None:
        words = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self._head(status, words | (headers or {}), 0)

    def _head(self, status: int, headers: dict[str, str], size: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if size is not None:
            self.send_header("Content-Length", str(size))
        self.end_headers()


def _etag(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
