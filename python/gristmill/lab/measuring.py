"""Is a kernel fast? Yours, the table's own, other libraries and the machine's limit in turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gristmill.lab import checking, kernels
from gristmill.lab.benching import Bench, Settings


def measure(
    op: str, shapes: Sequence[str] = (), rounds: int = 9, peers: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Time the kernel that `use` put in place of `op`: the rows that `gristmill bench` prints.

    On the cases of its bench whose names contain a text of `shapes` (none: all), beside `peers`
    (none: all that are installed) and the table's own kernel. Verifies first. Raises KernelError
    when the kernel is wrong, ValueError when none was put in.
    """
    if rounds < 2:
        raise ValueError(f"rounds must be at least 2 for a spread, got {rounds}")
    entry = kernels.entry_of(op)
    own = {entry: kernels.own(entry)}
    checking.check(entry)
    settings = Settings(ops=[op], shapes=shapes, peers=peers, rounds=rounds)
    bench = Bench(settings, print, own=own)
    bench.run()
    return bench.rows
