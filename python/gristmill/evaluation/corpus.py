"""One split for measuring: its documents beside their tokens, and the bytes of every id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gristmill.data.document import Document, read_documents
from gristmill.data.shards import Shard
from gristmill.data.tokenizer import Tokenizer
from gristmill.errors import ArtifactError

Ids = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Corpus:
    """Documents and their ids, in the same order."""

    documents: list[Document]
    shard: Shard

    def ids(self, positions: Sequence[int]) -> list[Ids]:
        """Return the ids of some documents, each closed by end-of-text."""
        return [self.shard.doc(i) for i in positions]

    def counts(self, positions: Sequence[int]) -> list[npt.NDArray[np.bool_]] | None:
        """Return which ids of some documents are measured; None where all are."""
        if self.shard.mask is None:
            return None
        return [self.shard.counts(i) for i in positions]

    def byte_counts(
        self, positions: Sequence[int], tokenizer: Tokenizer
    ) -> list[npt.NDArray[np.bool_]] | None:
        """Return which bytes of the texts of some documents are measured; None where all are.

        Special tokens are spelled out in the text, and none of their bytes is.
        """
        if self.shard.mask is None:
            return None
        counted, found = byte_lengths(tokenizer) > 0, []
        sizes = [len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)]
        spelled = np.array(sizes, np.int64)
        for i in positions:
            ids = self.shard.doc(i)[:-1]
            own = self.shard.counts(i)[:-1] & counted[ids]
            found.append(np.repeat(own, spelled[ids]))
        return found

    def some(self, positions: Sequence[int]) -> list[Document]:
        """Return some documents."""
        return [self.documents[i] for i in positions]

    def bytes(self, positions: Sequence[int] | None = None) -> list[bytes]:
        """Return the UTF-8 bytes of some documents, or of all."""
        chosen = self.documents if positions is None else self.some(positions)
        return [document.text.encode("utf-8") for document in chosen]


def open_corpus(folder: Path) -> Corpus:
    """Open a split's folder; raises ArtifactError where it is empty, or where its tokens and
    documents do not belong together.
    """
    shard, documents = Shard.open(folder), read_documents(folder / "documents.parquet")
    if len(shard) != len(documents) or not documents:
        raise ArtifactError(
            f"{folder} has {len(documents)} documents and tokens of {len(shard)}; "
            "run the stage split again"
        )
    return Corpus(documents, shard)


def texts(documents: Sequence[Document]) -> dict[str, str]:
    """Return the text of each document by its id."""
    return {document.id: document.text for document in documents}


def byte_lengths(tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
    """Return the bytes each id stands for, (V,); special ids stand for none."""
    lengths = [len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)]
    for id in (*tokenizer.special.values(), *tokenizer.marks.values()):
        lengths[id] = 0
    return np.array(lengths, np.int64)
