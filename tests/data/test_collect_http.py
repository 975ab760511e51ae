"""Downloads against a server on loopback that fails as servers do."""

from __future__ import annotations

import email.utils
import hashlib
import http.server
import json
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")

import duckdb
from pydantic import ValidationError

from gristmill.data import download, mixing
from gristmill.data.collect_settings import CollectConfig, HttpSource, MixConfig
from gristmill.data.collecting import Collected, collect, fingerprint
from gristmill.data.store import Store
from gristmill.errors import DataError, StorageError

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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
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


# ------------------------------------------------------------------------------- good answers


def test_downloaded_once_then_offline(server: Any, tmp_path: Path) -> None:
    said: list[str] = []
    given = source(f"{server.url}/a.txt")
    got = gather(given, tmp_path, said=said)
    assert got.documents[0].text.encode() == BODY
    assert any(line.startswith("downloading a.txt: ") and line.endswith("MB") for line in said)
    assert got.documents[0].modified == 1000
    facts = got.sources[0]
    digest = hashlib.sha256(BODY).hexdigest()
    assert facts["origins"] == [
        {"url": f"{server.url}/a.txt", "sha256": digest, "bytes": len(BODY), "etag": tag(BODY),
         "last_modified": 1000, "checked": False}
    ]  # fmt: skip
    assert (facts["kind"], facts["times"], facts["path"]) == ("http", "http", f"{server.url}/a.txt")
    assert all(value not in ("", None) for value in facts.values())
    server.shutdown()
    server.server_close()
    assert gather(given, tmp_path).documents == got.documents
    with pytest.raises(DataError, match="cannot download"):
        gather(source(f"{server.url}/a.txt", version="2", retries=0), tmp_path)


def test_a_new_version_downloads_again(server: Any, tmp_path: Path) -> None:
    one(server, tmp_path)
    server.files["/a.txt"] = b"other"
    assert one(server, tmp_path) == BODY
    assert one(server, tmp_path, version="2") == b"other"
    assert len(server.asked) == 2


def test_no_server_is_asked_for_a_fingerprint(server: Any) -> None:
    config = CollectConfig(source=[source(f"{server.url}/a.txt")])
    assert fingerprint(config) == fingerprint(config)
    assert server.asked == []


def test_tables_by_their_ending(server: Any, tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"text": f"row {n}"}).encode() + b"\n" for n in range(3))
    with duckdb.connect() as connection:
        to = tmp_path / "x.parquet"
        connection.execute(f"COPY (SELECT 'p ' || i AS text FROM range(2) r(i)) TO '{to}'")
    server.files |= {
        "/d/0.jsonl": lines, "/d/1.jsonl": lines, "/d/c.csv?x=1": b"text\nc\n",
        "/d/x.parquet": to.read_bytes(), "/d/readme": b"plain",
    }  # fmt: skip
    ends = ("{0..1}.jsonl", "c.csv?x=1", "x.parquet", "readme")
    got = gather(source(*(f"{server.url}/d/{end}" for end in ends)), tmp_path)
    assert [(d.path, d.text) for d in got.documents] == [
        *((f"{n}.jsonl#{row + 1}", f"row {row}") for n in (0, 1) for row in range(3)),
        ("c.csv#2", "c"), ("readme", "plain"), ("x.parquet#0", "p 0"), ("x.parquet#1", "p 1"),
    ]  # fmt: skip
    assert len(got.sources[0]["tables"]) == 4
    got = gather(source(f"{server.url}/d/0.jsonl", format="text"), tmp_path / "text")
    assert got.documents[0].text.encode() == lines


def test_equal_names_get_their_folders(server: Any, tmp_path: Path) -> None:
    server.files |= {"/x/a.txt": b"x", "/y/a.txt": b"y"}
    got = gather(source(f"{server.url}/x/a.txt", f"{server.url}/y/a.txt"), tmp_path)
    assert [d.path for d in got.documents] == ["x/a.txt", "y/a.txt"]


def test_weight_0_downloads_nothing(server: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("here")
    files = {"use": "files", "path": str(tmp_path / "a.txt"), "licence": "MIT", "why": "t"}
    config = CollectConfig.model_validate(
        {"source": [source(f"{server.url}/a.txt"), {**files, "name": "here"}],
         "mix": MixConfig(weights={"web": 0.0, "here": 1.0})}
    )  # fmt: skip
    got = collect(config, Store(tmp_path / "raw"), 1)
    assert [d.source for d in got.documents] == ["here"]
    assert server.asked == []
    assert mixing.group_of  # the rest of mixtures is in test_collect_mixing


# --------------------------------------------------------------------------- broken connections


def test_a_cut_connection_is_resumed(server: Any, tmp_path: Path) -> None:
    server.script = [cut(300_000), cut(0)]
    server.script[1] = hang_up
    assert one(server, tmp_path) == BODY
    ranges = [(r, i) for _, r, i in server.asked]
    assert ranges == [(None, None), *[("bytes=300000-", tag(BODY))] * 2]
    assert server.waits == [1.0, 2.0]


def test_resumed_by_date_where_there_is_no_etag(server: Any, tmp_path: Path) -> None:
    server.script = [cut(300_000, Last_Modified=DATED)]
    assert one(server, tmp_path) == BODY
    assert server.asked[1][1:] == ("bytes=300000-", DATED)


@pytest.mark.parametrize("headers", [{"ETag": 'W/"1"'}, {"X_Nothing": "1"}])
def test_from_the_start_where_nothing_names_the_file(
    server: Any, tmp_path: Path, headers: dict[str, object]
) -> None:
    server.script = [cut(300_000, **headers)]
    assert one(server, tmp_path) == BODY
    assert server.asked[1][1:] == (None, None)


def test_a_server_without_ranges(server: Any, tmp_path: Path) -> None:
    server.script = [cut(300_000), no_ranges]
    assert one(server, tmp_path) == BODY


def test_changed_in_between(server: Any, tmp_path: Path) -> None:
    new = BODY[::-1]

    def change(self: Handler, body: bytes) -> None:
        cut(300_000)(self, body)
        self.server.files["/a.txt"] = new  # type: ignore[attr-defined]

    server.script = [change]  # If-Range: the server itself sends the new one whole
    assert one(server, tmp_path) == new


def test_a_server_that_ignores_if_range(server: Any, tmp_path: Path) -> None:
    def other(self: Handler, body: bytes) -> None:
        there = f"bytes 300000-{len(body) - 1}/{len(body)}"
        self.head(206, Content_Range=there, Content_Length=len(body) - 300_000, ETag='"other"')
        self.wfile.write(b"x" * (len(body) - 300_000))

    server.script = [cut(300_000), other]
    assert one(server, tmp_path) == BODY
    assert len(server.asked) == 3


def test_a_wrong_range_is_not_taken(server: Any, tmp_path: Path) -> None:
    def other(self: Handler, body: bytes) -> None:
        self.head(206, Content_Range="bytes 7-9/10", Content_Length=3, ETag=tag(body))
        self.wfile.write(b"xyz")

    server.script = [cut(300_000), other]
    assert one(server, tmp_path) == BODY


def test_all_had_come_before_the_end(server: Any, tmp_path: Path) -> None:
    """A process killed after the last byte: the server answers 416 with the length."""
    cache = tmp_path / "cache" / "http"
    server.script = [cut(300_000)]
    with pytest.raises(DataError, match=r"broke off after 300,000 of 760,000 bytes \(1 try\); 300"):
        one(server, tmp_path, retries=0)
    (part,) = cache.glob("*.part")
    part.write_bytes(BODY)
    assert one(server, tmp_path) == BODY
    assert server.asked[1][1] == "bytes=760000-"


def test_killed_and_started_again(server: Any, tmp_path: Path) -> None:
    server.script = [cut(300_000)]
    with pytest.raises(DataError, match="the same command goes on from there"):
        one(server, tmp_path, retries=0)
    assert one(server, tmp_path) == BODY
    assert server.asked[1][1] == "bytes=300000-"


@pytest.mark.parametrize("act", [silent, slow])
def test_a_slow_answer_is_given_up_and_asked_again(server: Any, tmp_path: Path, act: Act) -> None:
    server.script = [act]
    assert one(server, tmp_path, timeout=0.2) == BODY


def test_tries_are_counted_from_the_last_progress(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_PROGRESS", 100_000)

    def piece(self: Handler, body: bytes) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        there = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.head(206 if start else 200, Content_Range=there, Content_Length=len(body) - start,
                  ETag=tag(body))  # fmt: skip
        self.wfile.write(body[start : start + 120_000])

    server.script = [piece] * 6
    assert one(server, tmp_path, retries=1) == BODY
    assert len(server.asked) == 7


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
