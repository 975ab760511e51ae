"""A server on loopback that fails as servers do, and collecting from it."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gristmill.data import download
from gristmill.data.collect_settings import CollectConfig, HttpSource
from gristmill.data.collecting import Collected, collect
from gristmill.data.store import Store

BODY = bytes(range(32, 127)) * 8000  # 760 kB of text: several blocks
DATED = "Thu, 01 Jan 1970 00:16:40 GMT"  # 1000
Act = Callable[["Handler", bytes], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers from `server.files`, with the next act of `server.script` where there is one."""

    def do_GET(self) -> None:
        asked = (self.path, self.headers.get("Range"), self.headers.get("If-Range"))
        self.server.asked.append(asked)  # type: ignore[attr-defined]
        script: list[Act] = self.server.script  # type: ignore[attr-defined]
        files: dict[str, bytes] = self.server.files  # type: ignore[attr-defined]
        act = script.pop(0) if script else good
        if self.path in files:
            act(self, files[self.path])
        else:
            self.send_error(404, "Not Found")

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:8]}"'


def good(self: Handler, body: bytes) -> None:
    """What a decent server does, ranges included."""
    start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
    if start and self.headers.get("If-Range") in (tag(body), DATED):
        if start >= len(body):
            self.head(416, Content_Range=f"bytes */{len(body)}", Content_Length=0)
            return
        there = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.head(206, Content_Range=there, Content_Length=len(body) - start, ETag=tag(body))
        self.wfile.write(body[start:])
    else:
        self.head(200, Content_Length=len(body), ETag=tag(body), Last_Modified=DATED)
        self.wfile.write(body)


def cut(at: int, **headers: object) -> Act:
    """Close the connection after some bytes of the body."""

    def act(self: Handler, body: bytes) -> None:
        given = headers or {"ETag": tag(body), "Last_Modified": DATED}
        self.head(200, Content_Length=len(body), **given)
        self.wfile.write(body[:at])

    return act


def refuse(status: int, **headers: object) -> Act:
    return lambda self, body: self.head(status, Content_Length=0, **headers)


def no_ranges(self: Handler, body: bytes) -> None:
    self.head(200, Content_Length=len(body), ETag=tag(body))
    self.wfile.write(body)


def silent(self: Handler, body: bytes) -> None:
    time.sleep(1.0)


def slow(self: Handler, body: bytes) -> None:
    """Some bytes, then nothing."""
    self.head(200, Content_Length=len(body), ETag=tag(body))
    self.wfile.write(body[:5000])
    self.wfile.flush()
    time.sleep(1.0)


def hang_up(self: Handler, body: bytes) -> None:
    self.connection.close()


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A server whose waits are recorded, and a cache of its own."""
    found: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.files, found.script, found.asked, found.waits = {"/a.txt": BODY}, [], [], []
    found.url = f"http://127.0.0.1:{found.server_port}"
    found.daemon_threads = True
    thread = threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "_sleep", found.waits.append)
    yield found
    found.shutdown()
    found.server_close()


def source(*urls: str, **options: Any) -> HttpSource:
    return HttpSource.model_validate(
        {"use": "http", "urls": list(urls), "licence": "MIT", "why": "test", "timeout": 5.0,
         "max_bytes": 10_000_000, "name": "web", **options}
    )  # fmt: skip


def gather(given: HttpSource, folder: Path, **options: Any) -> Collected:
    said = options.pop("said", [])
    return collect(CollectConfig(source=[given], **options), Store(folder / "raw"), 1, said.append)


def one(server: Any, folder: Path, **options: Any) -> bytes:
    """The bytes of /a.txt as they came through; none of a part may be left."""
    got = gather(source(f"{server.url}/a.txt", **options), folder)
    left = [p.name for p in (folder / "cache" / "http").iterdir() if ".part" in p.name]
    assert left == []
    return got.documents[0].text.encode()
