"""Token shards: the documents of a split as one flat, memory-mapped array of ids.

A shard folder holds `tokens.bin` (little endian uint16, or uint32 from 65,537 ids on),
`offsets.npy` (int64, number of documents + 1) and `shard.json`.
Document i is tokens[offsets[i]:offsets[i + 1]].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.artifacts import json_text, read_json, replacing, storage_errors
from gristmill.errors import ArtifactError

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
_TOKENS, _OFFSETS, _FACTS = "tokens.bin", "offsets.npy", "shard.json"
_AGAIN = "run the stage split again"


@dataclass(frozen=True)
class Shard:
    """A shard that is open for reading; nothing is loaded before it is used."""

    folder: Path
    tokens: Tokens  # (n_tokens,), read-only
    offsets: npt.NDArray[np.int64]  # (n_documents + 1,)
    vocab_size: int

    @classmethod
    def open(cls, folder: Path | str) -> Shard:
        """Map a shard folder; raises ArtifactError where a file is missing, cut or foreign."""
        folder = Path(folder)
        facts = read_json(folder / _FACTS)
        try:
            vocab_size, n_tokens = int(facts["vocab_size"]), int(facts["tokens"])
            dtype = dtype_for(vocab_size)
            offsets = np.load(folder / _OFFSETS, allow_pickle=False)
            size = (folder / _TOKENS).stat().st_size
        except (KeyError, TypeError, ValueError, OSError, EOFError) as error:
            raise ArtifactError(f"{folder} is no shard of tokens ({error}); {_AGAIN}") from error
        _check(folder, facts, offsets, size, dtype)
        tokens: Any = np.empty(0, dtype)  # an empty file cannot be mapped
        if n_tokens:
            tokens = np.memmap(folder / _TOKENS, dtype, "r", shape=(n_tokens,))
        return cls(folder, tokens, offsets, vocab_size)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.offsets) - 1

    def doc(self, i: int) -> Tokens:
        """Return the ids of document i, the closing `<|endoftext|>` included; a view."""
        if not 0 <= i < len(self):
            raise IndexError(f"document {i} asked for, {self.folder} holds {len(self)}")
        document: Tokens = self.tokens[self.offsets[i] : self.offsets[i + 1]]
        return document


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest of uint16 and uint32 (little endian) that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def write_shard(folder: Path, docs: Iterable[Sequence[int]], vocab_size: int) -> int:
    """Write documents of ids as a shard and return the number of tokens.

    Raises ValueError for an id outside [0, vocab_size), StorageError where the disk refuses; an old
    shard is then untouched.
    """
    dtype, offsets = dtype_for(vocab_size), [0]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with replacing(*(folder / name for name in (_TOKENS, _OFFSETS, _FACTS))) as unfinished:
        with open(unfinished[0], "wb") as stream:
            for number, doc in enumerate(docs):
                ids = np.asarray(doc, dtype=np.int64)
                if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
                    wrong = int(ids.max()) if ids.max() >= vocab_size else int(ids.min())
                    raise ValueError(f"document {number} has id {wrong}, vocab_size {vocab_size}")
                stream.write(ids.astype(dtype).tobytes())
                offsets.append(offsets[-1] + ids.size)
        with open(unfinished[1], "wb") as stream:
            np.save(stream, np.asarray(offsets, dtype=np.int64), allow_pickle=False)
        facts = {"tokens": offsets[-1], "documents": len(offsets) - 1, "vocab_size": vocab_size}
        unfinished[2].write_text(json_text({**facts, "dtype": dtype.name}), "utf-8")
    return offsets[-1]


def _check(folder: Path, facts: Any, offsets: Any, size: int, dtype: np.dtype[Any]) -> None:
    """Raise ArtifactError unless the three files agree with each other."""
    n_tokens, n_documents = int(facts["tokens"]), int(facts["documents"])
    ends = offsets.dtype == np.int64 and offsets.ndim == 1 and len(offsets) == n_documents + 1
    if not ends or offsets[0] != 0 or offsets[-1] != n_tokens or (np.diff(offsets) < 0).any():
        raise ArtifactError(
            f"{folder / _OFFSETS} does not divide {n_tokens} tokens into {n_documents} documents; "
            f"{_AGAIN}"
        )
    if size != n_tokens * dtype.itemsize:
        raise ArtifactError(
            f"{folder / _TOKENS} has {size} bytes, {n_tokens} tokens of {dtype.name} "
            f"take {n_tokens * dtype.itemsize}; {_AGAIN}"
        )
