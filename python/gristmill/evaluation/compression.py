"""What general compressors make of the same bytes: bz2 and xz, per file, whole, and given train.

A compressor sees no training text (but for "given train"), so these figures say how hard the text
is in itself; per file is what a compressor can do for one file, as the model does.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from gristmill.evaluation.bits import Bits

Compressor = Callable[[bytes], bytes]
LARGEST = 32 << 20  # bytes of the training text given to xz; its window is 64 MiB


def bz2_best(data: bytes) -> bytes:
    """bz2 -9: blocks of 900 kB, Burrows-Wheeler."""
    return bz2.compress(data, 9)


def xz_best(data: bytes) -> bytes:
    """xz -9: Lempel-Ziv with a range coder and a window of all data, up to 64 MiB.

    The raw stream without container and checksum, which favours it by some 60 bytes a file.
    """
    window = 1 << max(12, max(0, len(data) - 1).bit_length())
    chain = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": min(window, 1 << 26)}]
    return lzma.compress(data, lzma.FORMAT_RAW, filters=chain)


def per_file(
    documents: Sequence[bytes], counts: Sequence[npt.NDArray[np.bool_]] | None = None
) -> dict[str, Bits]:
    """Return bits of every document compressed alone, for "bz2" and "xz".

    counts: per document which of its bytes are measured: by how much each run of them makes the
    compressed text before it longer; None: all.
    """
    if counts is None:
        sizes = np.array([len(d) for d in documents], np.int64)
        ends = [[(0, len(d))] for d in documents]
    else:
        sizes = np.array([int(own.sum()) for own in counts], np.int64)
        ends = [_runs(own) for own in counts]
    return {
        name: Bits(
            np.array([_size(compress, d, e) for d, e in zip(documents, ends, strict=True)]), sizes
        )
        for name, compress in (("bz2", bz2_best), ("xz", xz_best))
    }


def _runs(counts: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], counts, [False]]))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _size(compress: Compressor, document: bytes, runs: Sequence[tuple[int, int]]) -> float:
    """Return the bits that some runs of a document add, each to the text before it."""
    sizes = (
        (len(compress(document[:b])), len(compress(document[:a])) if a else 0) for a, b in runs
    )
    return 8.0 * sum(after - before for after, before in sizes)


def whole(documents: Sequence[bytes], train: Sequence[bytes] | None = None) -> dict[str, float]:
    """Return bits per byte of all documents together: "bz2 whole", "xz whole".

    With `train`, also "xz given train": what the documents add to the compressed training text
    (the last LARGEST bytes of it, so that it lies in the window). Raises ValueError without bytes.
    """
    text = b"".join(documents)
    if not text:
        raise ValueError("compression of no bytes")
    jobs: dict[str, Callable[[], int]] = {
        "bz2 whole": lambda: len(bz2_best(text)),
        "xz whole": lambda: len(xz_best(text)),
    }
    if train is not None:
        known = b"".join(train)[-LARGEST:]
        jobs["both"] = lambda: len(xz_best(known + text))
        jobs["known"] = lambda: len(xz_best(known))
    with ThreadPoolExecutor(2) as pool:  # the compressors release the interpreter's lock
        running = {name: pool.submit(job) for name, job in reversed(jobs.items())}
        size = {name: future.result() for name, future in running.items()}
    if train is not None:
        size["xz given train"] = size.pop("both") - size.pop("known")
    return {name: 8.0 * size[name] / len(text) for name in sorted(size)}
