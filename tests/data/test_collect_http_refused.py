"""Downloads that a server, the disk or a sum refuses."""

from __future__ import annotations

import email.utils
import hashlib
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")

from loopback import (
    BODY,
    Handler,
    cut,
    gather,
    one,
    refuse,
    serving,
    source,
    tag,
)  # fmt: skip
from pydantic import ValidationError

from gristmill.data import download
from gristmill.errors import DataError, StorageError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    with serving(monkeypatch, tmp_path) as found:
        yield found


# ------------------------------------------------------------------------------------ refusals


def test_busy_then_good(server: Any, tmp_path: Path) -> None:
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    server.script = [refuse(503), refuse(429, Retry_After=7), refuse(503, Retry_After=soon)]
    assert one(server, tmp_path) == BODY
    assert server.waits[:2] == [1.0, 7.0]
    assert 20 < server.waits[2] <= 30


def test_busy_for_too_long(server: Any, tmp_path: Path) -> None:
    server.script = [refuse(503)] * 3
    with pytest.raises(DataError, match=r"a.txt: the server answers 503 .*\(3 tries\)"):
        one(server, tmp_path, retries=2)
    assert server.waits == [1.0, 2.0]
    server.script = [refuse(429, Retry_After=86_400)]
    with pytest.raises(DataError, match=r"1 try, the server asks to wait 86400 s"):
        one(server, tmp_path)
    assert len(server.waits) == 2


def test_not_found_is_not_asked_twice(server: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/b.txt: the server answers 404 Not Found; correct urls"):
        gather(source(f"{server.url}/b.txt"), tmp_path)
    assert len(server.asked) == 1


def test_redirects(server: Any, tmp_path: Path) -> None:
    server.files["/real.txt"] = BODY
    server.script = [refuse(302, Location="/real.txt"), cut(300_000)]
    server.script.append(refuse(302, Location="/real.txt"))
    assert one(server, tmp_path) == BODY
    assert server.asked[3] == ("/real.txt", "bytes=300000-", tag(BODY))


@pytest.mark.parametrize(
    ("to", "said"),
    [("/a.txt", "infinite loop"), ("file:///etc/passwd", "not allowed|no safe place"),
     ("ftp://x/y", "no safe place")],
)  # fmt: skip
def test_redirects_that_lead_nowhere(server: Any, tmp_path: Path, to: str, said: str) -> None:
    server.script = [refuse(302, Location=to)] * 20
    with pytest.raises(DataError, match=said):
        one(server, tmp_path)


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    waits: list[float] = []
    monkeypatch.setattr(download, "_sleep", waits.append)
    with pytest.raises(DataError, match="no such host, or no network"):
        gather(source("http://nowhere.invalid/a.txt", retries=1), tmp_path)
    with pytest.raises(DataError, match=r"no connection \(Connection refused\) \(3 tries\)"):
        gather(source("http://127.0.0.1:9/a.txt", retries=2), tmp_path)


# ------------------------------------------------------------------------------- wrong contents


def test_other_bytes_than_expected(server: Any, tmp_path: Path) -> None:
    digest = hashlib.sha256(BODY).hexdigest()
    assert one(server, tmp_path, sha256=[digest]) == BODY
    wanted = "0" * 64
    with pytest.raises(DataError, match=f"sha256 {digest}, expected {wanted}; it is kept as") as e:
        one(server, tmp_path, sha256=[wanted])
    aside = str(e.value).split("kept as ")[1].split(";")[0]
    assert Path(aside).read_bytes() == BODY
    server.files["/a.txt"] = b"new"
    assert one(server, tmp_path, sha256=[hashlib.sha256(b"new").hexdigest()]) == b"new"


def test_a_damaged_cache_is_noticed(server: Any, tmp_path: Path) -> None:
    one(server, tmp_path)
    objects = download.Cache(tmp_path / "cache").objects
    objects.path(objects.digests()[0]).write_bytes(BODY[:-1] + b"!")
    assert one(server, tmp_path) == BODY
    (file,) = (tmp_path / "cache" / "http").glob("*.json")
    file.write_text('{"half')
    assert one(server, tmp_path) == BODY
    assert len(server.asked) == 3


def test_too_large(server: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has 760,000 bytes, allowed are 1,000; raise max_file"):
        one(server, tmp_path, max_file_bytes=1000)

    def unsaid(self: Handler, body: bytes) -> None:
        self.head(200)
        self.wfile.write(body)

    server.script = [unsaid]
    with pytest.raises(DataError, match=r"allowed are 500,000; raise max_file_bytes"):
        one(server, tmp_path, max_file_bytes=500_000)
    server.script = [unsaid]
    assert one(server, tmp_path) == BODY


def test_no_space(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = download.shutil.disk_usage(tmp_path)._replace(free=700_000)
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(StorageError, match=r"760,000 more bytes, free are 700,000; free some"):
            one(server, tmp_path)
    assert one(server, tmp_path) == BODY


@pytest.mark.parametrize("limit", [0, 100, 400_000])
def test_a_disk_that_refuses(server: Any, tmp_path: Path, limit: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # EFBIG instead of ENOSPC
    try:
        with pytest.raises(StorageError, match=r"cannot write .*/cache/.*run the same command"):
            one(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert one(server, tmp_path) == BODY


def test_two_at_a_time_download_once(server: Any, tmp_path: Path) -> None:
    limits = download.Limits(5.0, 0, 10**9)
    cache, found = download.Cache(tmp_path / "cache"), []

    def work() -> None:
        said: list[str] = []
        url = f"{server.url}/a.txt"
        found.append(download.fetch(url, "", "", cache, limits, said.append).sha256)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [hashlib.sha256(BODY).hexdigest()] * 4
    assert len(server.asked) == 1


# ------------------------------------------------------------------------------------ settings


def test_ranges_in_addresses() -> None:
    given = source("http://x/{08..10}-{0..1}.gz").expanded()
    assert given == [f"http://x/{n}-{m}.gz" for n in ("08", "09", "10") for m in (0, 1)]


@pytest.mark.parametrize(
    ("urls", "options", "said"),
    [
        (["ftp://x/y"], {}, "allowed: http://... and https://"),
        (["file:///etc/passwd"], {}, "allowed: http"),
        (["http://me:secret@x/y"], {}, "a password in the address of x"),
        (["http://x/a b"], {}, "write it as %20"),
        (["http://x/{3..1}"], {}, "is no range"),
        (["http://x/{0..999999}"], {}, "is no range"),
        (["http://x/a", "http://x/a"], {}, "given twice"),
        (["http://x/{0..2}"], {"sha256": ["0" * 64]}, "1 values in sha256 for 3 files"),
        (["http://x/a"], {"sha256": ["abc"]}, "sha256"),
        ([], {}, "at least 1"),
    ],
)
def test_settings_that_do_not_fit(urls: list[str], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        source(*urls, **options)
    assert "secret" not in str(caught.value.errors()[0]["msg"])
