"""Everything a network is compared with, on one split: n-gram, compressors, completers of holes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.data.holes import Hole
from gristmill.evaluation import compression
from gristmill.evaluation.bits import Bits
from gristmill.evaluation.complete import Completion, complete
from gristmill.evaluation.hole_baselines import CacheNGram, LongestCopy, Tokens
from gristmill.evaluation.ngram import ORDER, NGram

MOST_BYTES = 64 << 20  # of training text that the n-gram counts: its tables take 60 times that
MOST_IDS = 64 << 20  # and the ids that the completers count


@dataclass(frozen=True)
class TextBaselines:
    """Code lengths of a split's documents under methods without a network."""

    ngram: Bits
    per_file: dict[str, Bits]  # bz2, xz
    whole: dict[str, float]  # bits per byte of all documents together
    counted: int  # bytes of training text the n-gram has seen

    def plain(self) -> dict[str, Any]:
        """Return bits per byte by name."""
        alone = {f"{name} per file": bits.per_byte for name, bits in self.per_file.items()}
        return {f"byte {ORDER}-gram": self.ngram.per_byte, **alone, **self.whole}


def text_baselines(
    train: Sequence[bytes],
    documents: Sequence[bytes],
    *,
    given_train: bool,
    counts: Sequence[npt.NDArray[np.bool_]] | None = None,
) -> TextBaselines:
    """Measure `documents` after counting `train`; "xz given train" only where it is asked for.

    counts: per document which of its bytes are measured, given those before; then nothing is
    measured of all documents together.
    """
    known = list(_first(train, MOST_BYTES))
    ngram = NGram(known).bits(documents, counts)
    per_file = compression.per_file(documents, counts)
    whole = {}
    if counts is None:
        whole = compression.whole(documents, train if given_train else None)
    return TextBaselines(ngram, per_file, whole, sum(map(len, known)))


def _first(documents: Sequence[bytes], most: int) -> Iterator[bytes]:
    """Yield whole documents until `most` bytes are full, one at least."""
    total = 0
    for number, document in enumerate(documents):
        total += len(document)
        if number and total > most:
            return
        yield document


def hole_baselines(
    train: npt.NDArray[np.integer],
    tokenizer: Tokens,
    holes: Sequence[Hole],
    texts: Mapping[str, str],
    max_tokens: int,
) -> dict[str, list[Completion]]:
    """Fill the holes with each completer without a network, by its name; nothing is parsed."""
    known = np.asarray(train[:MOST_IDS])
    return {
        kind.name: complete(
            kind(known, tokenizer), holes, texts, max_tokens=max_tokens, parse=False
        )
        for kind in (CacheNGram, LongestCopy)
    }
