"""Token shards: the documents of a split as one flat, memory-mapped array of ids.

A shard folder holds `tokens.bin` (little endian uint16, or uint32 from 65,537 ids on),
`offsets.npy` (int64, number of documents + 1) and `shard.json`.
Document i is tokens[offsets[i]:offsets[i + 1]]. Where not every token counts in the loss there is
`mask.bin`, a byte per token: 1 counts, 0 is only read; such documents are conversations.
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
_TOKENS, _OFFSETS, _MASK, _FACTS = "tokens.bin", "offsets.npy", "mask.bin", "shard.json"
_AGAIN = "run the stage split again"


@dataclass(frozen=True)
class Shard:
    """A shard that is open for reading; nothing is loaded before it is used."""

    folder: Path
    tokens: Tokens  # (n_tokens,), read-only
    offsets: npt.NDArray[np.int64]  # (n_documents + 1,)
    vocab_size: int
    mask: npt.NDArray[np.uint8] | None = None  # (n_tokens,), read-only; None: all count

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
        return cls(folder, tokens, offsets, vocab_size, _open_mask(folder, facts))

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.offsets) - 1

    def doc(self, i: int) -> Tokens:
        """Return the ids of document i, the closing `<|endoftext|>` included; a view."""
        if not 0 <= i < len(self):
            raise IndexError(f"document {i} asked for, {self.folder} holds {len(self)}")
        document: Tokens = self.tokens[self.offsets[i] : self.offsets[i + 1]]
        return document

    def counts(self, i: int) -> npt.NDArray[np.bool_]:
        """Return which ids of document i count in the loss."""
        if self.mask is None:
            return np.ones(len(self.doc(i)), np.bool_)
        return self.mask[self.offsets[i] : self.offsets[i + 1]].astype(np.bool_)


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest of uint16 and uint32 (little endian) that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def write_shard(
    folder: Path,
    docs: Iterable[Sequence[int]],
    vocab_size: int,
    masks: Sequence[Sequence[bool]] | None = None,
) -> int:
    """Write documents of ids as a shard and return the number of tokens.

    masks: per document which of its ids count in the loss; None: all. Raises ValueError for an id
    outside [0, vocab_size) or a mask of another length, StorageError where the disk refuses; an old
    shard is then untouched.
    """
    dtype, offsets = dtype_for(vocab_size), [0]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    more = [] if masks is None else [folder / _MASK]
    with replacing(*(folder / name for name in (_TOKENS, _OFFSETS, _FACTS)), *more) as unfinished:
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
        if masks is not None:
            facts["counted"] = _write_mask(unfinished[3], masks, offsets)
        unfinished[2].write_text(json_text({**facts, "dtype": dtype.name}), "utf-8")
    return offsets[-1]


def _write_mask(path: Path, masks: Sequence[Sequence[bool]], offsets: list[int]) -> int:
    """Write a byte per token and return how many count."""
    if [len(mask) for mask in masks] != np.diff(offsets).tolist():
        documents = len(offsets) - 1
        raise ValueError(f"{len(masks)} masks do not fit the {documents} documents id for id")
    flat = np.array([count for mask in masks for count in mask], np.bool_)
    path.write_bytes(flat.astype(np.uint8).tobytes())
    return int(flat.sum())


def _open_mask(folder: Path, facts: Any) -> npt.NDArray[np.uint8] | None:
    """Map the mask that shard.json speaks of; raises ArtifactError where it does not fit."""
    if "counted" not in facts:
        return None
    n_tokens = int(facts["tokens"])
    try:
        size = (folder / _MASK).stat().st_size
        mask: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        if n_tokens and size == n_tokens:
            mask = np.memmap(folder / _MASK, np.uint8, "r", shape=(n_tokens,))
    except OSError as error:
        raise ArtifactError(f"cannot read {folder / _MASK} ({error}); {_AGAIN}") from error
    if size != n_tokens or int((mask == 1).sum()) != facts["counted"] or (mask > 1).any():
        raise ArtifactError(
            f"{folder / _MASK} does not say of {n_tokens} tokens that {facts['counted']} count; "
            f"{_AGAIN}"
        )
    return mask


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
