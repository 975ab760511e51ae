"""Cases of matmul_pack: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gristmill.lab.case import SIZES, Case
from gristmill.lab.cases.matmul import KINDS, LAYOUTS, build

DEPTHS = (1, 7, 16, 17, 61, 385, 2)  # K; 384 is a block of it


def cases() -> Iterator[Case]:
    """Products with b packed: one row, the most that are thin (4), more; all around a vector."""
    rng = np.random.default_rng(31)
    for i, n in enumerate(SIZES):
        for j, m in enumerate((1, 4, 5, 13)):
            for kind in range(4):  # f32, computed in bf16, bf16, computed in f32
                turn = 4 * i + j + kind
                layouts = LAYOUTS[turn % 3], LAYOUTS[(i + kind) % 3]
                sizes = 1, m, n, DEPTHS[turn % 7]
                one = build(rng, sizes, KINDS[kind], layouts, add=turn % 2 == 0)
                yield replace(one, entry="matmul_pack")
