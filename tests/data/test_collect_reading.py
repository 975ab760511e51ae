"""From bytes to text: encodings, compression, and every way in which a file is no text."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.data.reading import Unusable, decode, decompress, read

UTF8 = ("utf-8",)
PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize(
    ("content", "path", "text", "encoding"),
    [
        (b"x = 1\n", "a.py", "x = 1\n", "ascii"),
        ("é".encode(), "a.py", "é", "utf-8"),
        (codecs.BOM_UTF8 + b"x", "a.py", "x", "utf-8-sig"),
        ("né".encode("utf-16"), "a.txt", "né", "utf-16"),
        ("né".encode("utf-32"), "a.txt", "né", "utf-32"),
        (b"# -*- coding: latin-1 -*-\n# \xe9", "a.py", "# -*- coding: latin-1 -*-\n# é", None),
        (b"#!/bin/python\n# coding=cp1252\n# \x80", "a.py.gz", None, "cp1252"),
    ],
)
def test_encodings(content: bytes, path: str, text: str | None, encoding: str | None) -> None:
    got, name = decode(content, path, UTF8)
    assert text is None or got == text
    assert encoding is None or name == encoding


def test_given_encodings_are_tried_in_order() -> None:
    assert decode(b"\xe9", "a.txt", ("utf-8", "latin-1")) == ("é", "latin-1")
    assert decode("é".encode(), "a.txt", ("utf-8", "latin-1")) == ("é", "utf-8")


@pytest.mark.parametrize(
    ("content", "path", "reason", "fault"),
    [
        (b"abc\xe9", "a.py", "not text in utf-8 (byte 3)", True),
        (b"\x89PNG\r\n\0", "a.png", "binary", False),
        (b"\xff" + b"a" * 9000 + b"\0", "a.bin", "binary", False),
        (b"# coding: klingon\n", "a.py", "not text: unknown encoding: klingon", True),
        (codecs.BOM_UTF16_LE + b"a", "a.txt", "not text in utf-16 (byte 2)", True),
        (codecs.BOM_UTF8 + b"\xff", "a.txt", "not text in utf-8-sig", True),
    ],
)
def test_what_is_no_text(content: bytes, path: str, reason: str, fault: bool) -> None:
    with pytest.raises(Unusable) as caught:
        decode(content, path, UTF8)
    assert reason in caught.value.reason
    assert caught.value.fault == fault


@given(st.text(max_size=50), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
def test_text_comes_back(text: str, encoding: str) -> None:
    if "\0" in text or (encoding == "utf-8" and text.startswith("\ufeff")):
        return  # a zero marks a binary file (UTF-16 that begins with one looks like UTF-32)
    assert decode(text.encode(encoding), "a.txt", UTF8)[0] == text


@given(st.binary(max_size=200), st.sampled_from(["a.py", "a.txt"]))
def test_any_bytes_are_text_or_unusable(content: bytes, path: str) -> None:
    try:
        text, encoding = decode(content, path, UTF8)
    except Unusable as error:
        assert error.reason
    else:
        text.encode("utf-8")
        assert encoding


@given(st.sampled_from(sorted(PACK)), st.data())
def test_no_truncated_archive_passes(kind: str, data: st.DataObject) -> None:
    content = data.draw(st.binary(min_size=1, max_size=300))
    packed = PACK[kind](content)
    assert decompress(packed, f"a.{kind}", 1000) == content
    cut = data.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(Unusable) as caught:
        decompress(packed[:cut], f"a.{kind}", 1000)
    assert caught.value.fault
    assert "truncated" in caught.value.reason or "damaged" in caught.value.reason


@pytest.mark.parametrize("kind", PACK)
def test_a_flipped_byte_is_found(kind: str) -> None:
    packed = bytearray(PACK[kind](b"some text " * 50))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(Unusable) as caught:
        decompress(bytes(packed), f"a.{kind}", 1000)
    assert caught.value.fault


@pytest.mark.parametrize("kind", PACK)
def test_a_small_archive_cannot_fill_the_memory(kind: str) -> None:
    with pytest.raises(Unusable, match="larger than 1000 bytes unpacked"):
        decompress(PACK[kind](b"\0" * 10_000_000), f"a.{kind}", 1000)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.py.gz").write_bytes(gzip.compress(b"x = 1\n"))
    got = read(tmp_path / "a.py.gz", "a.py.gz", UTF8, 1000)
    assert got.text == "x = 1\n"
    assert gzip.decompress(got.raw) == b"x = 1\n"
    (tmp_path / "empty").touch()
    (tmp_path / "empty.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "bom").write_bytes(codecs.BOM_UTF8)
    for name in ("empty", "empty.gz", "bom"):
        with pytest.raises(Unusable, match="empty"):
            read(tmp_path / name, name, UTF8, 1000)
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(Unusable, match="larger than 10 bytes"):
        read(tmp_path / "large", "large", UTF8, 10)
    with pytest.raises(Unusable, match="unreadable: No such file") as caught:
        read(tmp_path / "absent", "absent", UTF8, 10)
    assert caught.value.fault
