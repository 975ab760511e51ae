"""Downloads: once, into a cache, resumed where a connection broke."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")

import duckdb
from loopback import (
    BODY,
    DATED,
    Act,
    Handler,
    cut,
    gather,
    hang_up,
    no_ranges,
    one,
    serving,
    silent,
    slow,
    source,
    tag,
)  # fmt: skip

from gristmill.data import download
from gristmill.data.collect_settings import CollectConfig, MixConfig
from gristmill.data.collecting import collect, fingerprint
from gristmill.data.store import Store
from gristmill.errors import DataError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    with serving(monkeypatch, tmp_path) as found:
        yield found


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
    assert len(server.asked) == 2  # the rest was taken


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
