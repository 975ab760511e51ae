"""A file that changes while it is downloaded is never put together from two versions."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")

from loopback import BODY, DATED, Act, Handler, cut, one, serving, source, tag
from pydantic import ValidationError

from gristmill.data import download

NEW = BODY[::-1] + b"longer"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    with serving(monkeypatch, tmp_path) as found:
        yield found


def rest(**headers: object) -> Act:
    """The rest of a file that is another one by now, from a server that ignores If-Range."""

    def act(self: Handler, body: bytes) -> None:
        self.server.files["/a.txt"] = NEW  # type: ignore[attr-defined]
        there = f"bytes 300000-{len(NEW) - 1}/{len(NEW)}"
        self.head(206, Content_Range=there, Content_Length=len(NEW) - 300_000, **headers)
        self.wfile.write(NEW[300_000:])

    return act


def test_a_rest_without_the_etag_is_not_taken(server: Any, tmp_path: Path) -> None:
    server.script = [cut(300_000), rest()]
    assert one(server, tmp_path) == NEW


def test_a_rest_of_a_file_of_another_length_is_not_taken(server: Any, tmp_path: Path) -> None:
    server.script = [cut(300_000), rest(ETag=tag(BODY))]
    assert one(server, tmp_path) == NEW
    server.files["/a.txt"] = BODY
    server.script = [cut(300_000, Last_Modified=DATED), rest()]
    assert one(server, tmp_path, version="2") == NEW


def test_the_end_of_a_file_of_another_length_is_not_the_end(server: Any, tmp_path: Path) -> None:
    """416 with the length that is here, but the file had another one when it was begun."""

    def ends(self: Handler, body: bytes) -> None:
        self.head(416, Content_Range="bytes */300000", Content_Length=0)

    server.script = [cut(300_000), ends]
    assert one(server, tmp_path) == BODY


def test_a_date_of_this_second_names_no_version(server: Any, tmp_path: Path) -> None:
    """RFC 9110, 8.8.2.2: what was changed in the second of the answer may change in it again."""
    now = email.utils.formatdate(time.time() + 1, usegmt=True)
    server.script = [cut(300_000, Last_Modified=now)]
    assert one(server, tmp_path) == BODY
    assert server.asked[1][1:] == (None, None)


def test_a_date_beside_a_weak_etag_names_no_version(server: Any, tmp_path: Path) -> None:
    """RFC 9110, 13.1.5: with an entity tag, the date is not to be used."""
    server.script = [cut(300_000, ETag='W/"1"', Last_Modified=DATED)]
    assert one(server, tmp_path) == BODY
    assert server.asked[1][1:] == (None, None)


def test_progress_counts_anew_after_a_change(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_PROGRESS", 100_000)

    def change(self: Handler, body: bytes) -> None:
        self.server.files["/a.txt"] = NEW  # type: ignore[attr-defined]
        cut(150_000)(self, NEW)

    def piece(self: Handler, body: bytes) -> None:
        there = f"bytes 150000-{len(NEW) - 1}/{len(NEW)}"
        self.head(206, Content_Range=there, Content_Length=len(NEW) - 150_000, ETag=tag(NEW))
        self.wfile.write(NEW[150_000:290_000])

    server.script = [cut(300_000), change, piece]
    assert one(server, tmp_path, retries=2) == NEW


# ---------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "query", ["token=s3cr3t", "a=1&X-Amz-Signature=s3cr3t", "sig=s3cr3t&b", "API_KEY=s3cr3t"]
)
def test_a_key_in_an_address_is_refused(query: str) -> None:
    with pytest.raises(ValidationError, match="a key in the address of x") as caught:
        source(f"https://x/a.txt?{query}")
    assert "s3cr3t" not in str(caught.value.errors()[0]["msg"])


def test_other_queries_and_letters(server: Any, tmp_path: Path) -> None:
    source("https://x/a.txt?download=true&keyword=tokens&version=2")
    with pytest.raises(ValidationError, match="write it as %"):
        source("https://x/straße.txt")
    assert source("https://x/stra%C3%9Fe.txt").expanded() == ["https://x/stra%C3%9Fe.txt"]
