"""Shards: what is written is read, what does not fit together is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.data.shards import Shard, write_shard
from gristmill.errors import ArtifactError, StorageError


@given(st.lists(st.lists(st.integers(0, 69_999), max_size=30), max_size=12), st.booleans())
def test_documents_come_back(
    tmp_path_factory: pytest.TempPathFactory, docs: list[list[int]], wide: bool
) -> None:
    folder = tmp_path_factory.mktemp("shard")
    vocab = 70_000 if wide else 65_536
    docs = docs if wide else [[i % vocab for i in doc] for doc in docs]
    assert write_shard(folder, docs, vocab) == sum(map(len, docs))
    shard = Shard.open(folder)
    assert len(shard) == len(docs)
    assert [shard.doc(i).tolist() for i in range(len(shard))] == docs
    assert shard.tokens.dtype == (np.uint32 if wide else np.uint16)
    assert shard.vocab_size == vocab
    assert (folder / "tokens.bin").stat().st_size == shard.tokens.size * (4 if wide else 2)


def test_equal_documents_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_shard(tmp_path / name, iter([[1, 2], [3]]), 10)
    for file in ("tokens.bin", "offsets.npy", "shard.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("doc", [[3, 10], [-1, 3]])
def test_foreign_ids(doc: list[int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"document 1 has id (10|-1), vocab_size 10"):
        write_shard(tmp_path / "s", [[1], doc], 10)


def test_tokens_are_read_only(tmp_path: Path) -> None:
    write_shard(tmp_path, [[1, 2, 3]], 10)
    with pytest.raises(ValueError, match="read-only"):
        Shard.open(tmp_path).tokens[0] = 5


@pytest.mark.parametrize("i", [-1, 2])
def test_there_is_no_such_document(i: int, tmp_path: Path) -> None:
    write_shard(tmp_path, [[1], [2]], 10)
    with pytest.raises(IndexError, match="holds 2"):
        Shard.open(tmp_path).doc(i)


def test_damaged_shards_are_refused(tmp_path: Path) -> None:
    def fresh() -> Path:
        write_shard(tmp_path, [[1, 2], [3]], 10)
        return tmp_path

    with pytest.raises(ArtifactError, match="cannot read"):
        Shard.open(tmp_path / "absent")
    (fresh() / "tokens.bin").write_bytes(b"\0" * 4)
    with pytest.raises(ArtifactError, match=r"4 bytes, 3 tokens of uint16 take 6"):
        Shard.open(tmp_path)
    (fresh() / "tokens.bin").unlink()
    with pytest.raises(ArtifactError, match="split again"):
        Shard.open(tmp_path)
    (fresh() / "offsets.npy").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="no shard"):
        Shard.open(tmp_path)
    np.save(fresh() / "offsets.npy", np.array([0, 5, 3]))
    with pytest.raises(ArtifactError, match="does not divide 3 tokens into 2"):
        Shard.open(tmp_path)
    (fresh() / "shard.json").write_text(json.dumps({"tokens": 3}))
    with pytest.raises(ArtifactError, match="vocab_size"):
        Shard.open(tmp_path)


def test_a_file_in_place_of_a_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_shard(tmp_path / "file" / "shard", [[1]], 10)
