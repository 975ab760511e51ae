"""Compressors: sizes are those of the library, training text helps, xz needs no container."""

from __future__ import annotations

import bz2
import lzma
import random

import pytest

from gristmill.evaluation.compression import bz2_best, per_file, whole, xz_best


def words(seed: int, n: int) -> bytes:
    chosen = random.Random(seed)
    known = [bytes(chosen.choices(b"abcdefgh", k=6)) for _ in range(200)]
    return b" ".join(random.Random(seed + 1).choices(known, k=n))


def test_per_file_counts_bytes_of_the_library() -> None:
    documents = [words(1, 300), words(1, 40), b""]
    found = per_file(documents)
    assert list(found["bz2"].bits) == [8.0 * len(bz2.compress(d, 9)) for d in documents]
    assert list(found["bz2"].bytes) == [len(d) for d in documents]
    container = [8.0 * len(lzma.compress(d, preset=9)) for d in documents]
    assert all(0 < a < b for a, b in zip(found["xz"].bits, container, strict=True))


def test_xz_can_be_undone() -> None:
    data = words(2, 500)
    chain = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 26}]
    assert lzma.decompress(xz_best(data), lzma.FORMAT_RAW, filters=chain) == data
    assert bz2.decompress(bz2_best(data)) == data


def test_known_text_costs_little() -> None:
    text = words(3, 2000)
    found = whole([text[:5000], text[5000:]], [text])
    assert found["xz given train"] < 0.1 < found["xz whole"]
    assert found["bz2 whole"] == 8 * len(bz2.compress(text, 9)) / len(text)
    assert set(whole([text])) == {"bz2 whole", "xz whole"}
    with pytest.raises(ValueError, match="no bytes"):
        whole([b""])
