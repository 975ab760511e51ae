"""Is a kernel right? Every case of its op on 1, 2 and 3 threads, beside the twin in float64.

A case lays its arrays out with or without gaps between the rows, in the middle of memory that the
kernel must leave alone. A kernel may refuse dtypes, strides and accumulation (Status::unsupported):
then a call with them is an error that names the op, and `check` lists what is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.backend import _C, Array
from gristmill.errors import ReproError
from gristmill.lab.kernels import entry_of
from gristmill.ops import silu

Floats = npt.NDArray[np.float64]
Stored = npt.NDArray[Any]

U, UB = 2.0**-24, 2.0**-8  # unit roundoff of float32 and bfloat16
TINY = 2.0**-126  # smallest normal float32
NAN = {"float32": np.uint32(0x7FC00000), "bfloat16": np.uint16(0x7FC0)}  # in what is given
CANARY = {"float32": np.uint32(0x5A5A5A5A), "bfloat16": np.uint16(0x5A5A)}  # around the output

# Sizes around the 16 lanes of a vector and the 8 of half of one, with primes between.
SHAPES = [*((1, n) for n in (1, 7, 8, 9, 15, 16, 17, 31, 61)), (3, 17), (17, 33), (67, 1009)]
THREADS = (1, 2, 3)
MARGIN = 67  # elements before a view; odd, for no kernel is promised an alignment


@dataclass(frozen=True)
class Twin:
    """The result in float64 of `inputs` arrays, and how far off a float32 result may be."""

    inputs: int
    result: Callable[..., Floats]
    bound: Callable[..., Floats]


def _silu_bound(x: Floats) -> Floats:
    # sigmoid: exp (6 U), a sum and a quotient; then one product. Where exp(-x) overflows float32
    # the result is 0 for a value of at most 104 e^-89.
    bound: Floats = 9 * U * np.abs(silu.reference_forward(x)) + 200 * TINY
    return bound


def _silu_backward_bound(dout: Floats, x: Floats) -> Floats:
    # of the magnitudes of dout s and dout x s (1 - s), which may cancel
    s = 1 / (1 + np.exp(-x))
    bound: Floats = 32 * U * np.abs(dout) * (s + np.abs(x) * s * (1 - s)) + 200 * TINY
    return bound


TWINS = {
    "silu_forward": Twin(1, silu.reference_forward, _silu_bound),
    "silu_backward": Twin(2, silu.reference_backward, _silu_backward_bound),
}


@dataclass(frozen=True)
class Case:
    """Shape (rows, cols), elements between rows, and whether the result is added to the output."""

    rows: int
    cols: int
    dtype: str
    gap: int
    accumulate: bool

    @property
    def kind(self) -> str:
        rows = "rows with gaps" if self.gap else "contiguous"
        return f"{self.dtype}, {rows}{', accumulating' if self.accumulate else ''}"

    def __str__(self) -> str:
        return f"shape ({self.rows}, {self.cols}), {self.kind}"

    @property
    def stride(self) -> int:
        return self.cols + self.gap

    def memory(self, around: Any, values: Any) -> Stored:
        """Bits of a view in the middle of guards.

        The guard behind it is as long as the view: a kernel that takes bfloat16 for float32 goes
        twice as far, and must not leave our memory.
        """
        bits = np.full(2 * MARGIN + 2 * self.rows * self.stride, around)
        self.inside(bits)[...] = values
        return bits

    def inside(self, bits: Stored) -> Stored:
        """The view (rows, cols) of such memory."""
        size = self.rows * self.stride
        return bits[MARGIN : MARGIN + size].reshape(self.rows, self.stride)[:, : self.cols]

    def array(self, bits: Stored) -> Array:
        """The view (rows, cols) for a binding."""
        bf16 = self.dtype == "bfloat16"
        memory = _C.from_numpy(bits if bf16 else bits.view(np.float32), bf16)
        return memory.view((self.rows, self.cols), (self.stride, 1), MARGIN)


@dataclass(frozen=True)
class Report:
    """What `check` found: the worst error as a multiple of the allowed one, where, and the kinds
    of arguments that the kernel refuses."""

    op: str
    cases: int
    worst: float
    where: str
    refused: tuple[str, ...]

    def __str__(self) -> str:
        refused = f"; refused: {' | '.join(self.refused)}" if self.refused else ""
        return (
            f"{self.op}: {self.cases} cases right on {', '.join(map(str, THREADS))} threads, "
            f"worst error {self.worst:.2g} of the allowed one at {self.where}{refused}"
        )


def cases() -> Iterator[Case]:
    """float32 and bfloat16, without and with gaps; the middle shapes also accumulating."""
    for dtype in CANARY:
        for gap in (0, 3):
            for rows, cols in SHAPES:
                yield Case(rows, cols, dtype, gap, False)
                if rows in (3, 17):
                    yield Case(rows, cols, dtype, gap, True)


def twin_of(op: str) -> tuple[str, Twin]:
    """The entry and the twin of `op`. Raises KeyError where the lab has none."""
    entry = entry_of(op)
    if entry not in TWINS:
        raise KeyError(f"check knows {', '.join(TWINS)}; test other ops with tests/ops")
    return entry, TWINS[entry]


def check(op: str) -> Report:
    """Run the active kernel of `op` against its twin on awkward sizes, dtypes and strides.

    Raises ReproError naming the case and the first wrong element: a value too far off, a write
    outside the output, or other bits with another number of threads.
    """
    entry, twin = twin_of(op)
    rng = np.random.default_rng(0)
    taken: set[str] = set()
    refused: set[str] = set()
    errors: dict[str, float] = {}
    before = _C.threads()
    try:
        for case in cases():
            error = _check(entry, twin, case, rng)
            if error is None:
                refused.add(case.kind)
            else:
                taken.add(case.kind)
                errors[str(case)] = error
            if case.kind in taken & refused:
                raise ReproError(f"{entry} refuses some sizes of {case.kind}; all or none, {case}")
    finally:
        _C.set_threads(before)
    if not errors:
        raise ReproError(f"{entry} refuses every case; float32, contiguous is the least to take")
    where = max(errors, key=errors.__getitem__)
    return Report(entry, len(errors), errors[where], where, tuple(sorted(refused)))


def _check(entry: str, twin: Twin, case: Case, rng: np.random.Generator) -> float | None:
    """The worst error of one case as a multiple of the allowed one, None when it is refused."""
    shape = (case.rows, case.cols)
    nan, canary = NAN[case.dtype], CANARY[case.dtype]
    values = [_bits(rng.normal(0, 4, shape), case.dtype) for _ in range(twin.inputs)]
    values[-1][0, 0] = _bits(np.array(-100.0), case.dtype)  # exp(-x) overflows
    inputs = [case.memory(nan, x) for x in values]
    # what nobody writes stays NaN
    start = _bits(rng.normal(size=shape), case.dtype) if case.accumulate else nan
    before = [case.memory(canary, start), *(x.copy() for x in inputs)]
    first: Stored | None = None
    for threads in THREADS:
        _C.set_threads(threads)
        out = before[0].copy()
        if not _run(entry, case, out, inputs):
            return None
        what = f"{entry}, {case}, {threads} thread{'s' if threads > 1 else ''}"
        _untouched(what, case, [out, *inputs], before)
        if first is None:
            first, error = out, _compare(what, twin, case, out, before)
        _same_bits(what, case, out, first)
    return error


def _run(entry: str, case: Case, out: Stored, inputs: list[Stored]) -> bool:
    """Call the kernel; False when it refuses these arguments."""
    to = case.array(out)
    try:
        getattr(_C, entry)(
            to.accumulating() if case.accumulate else to, *(case.array(x) for x in inputs)
        )
    except RuntimeError as error:
        if "unsupported" not in str(error):
            raise
        return False
    return True


def _untouched(what: str, case: Case, now: list[Stored], before: list[Stored]) -> None:
    """Raise where memory changed: around the output, which comes first, or an input."""
    for i, (bits, old) in enumerate(zip(now, before, strict=True)):
        wrong = bits != old
        if i == 0:
            case.inside(wrong)[...] = False
        if wrong.any():
            at = divmod(int(np.argmax(wrong)) - MARGIN, case.stride)
            place = f"around the output, element {at}" if i == 0 else f"input {i}, element {at}"
            raise ReproError(f"{what}: wrote outside its output: {place}; {wrong.sum()} in all")


def _compare(what: str, twin: Twin, case: Case, out: Stored, before: list[Stored]) -> float:
    """The worst error as a multiple of the allowed one; raises at the first above 1."""
    start, *values = (_values(case.inside(x), case.dtype) for x in before)
    want, bound = twin.result(*values), twin.bound(*values)
    if case.accumulate:
        want = want + start
        bound = bound + U * np.abs(want)
    if case.dtype == "bfloat16":  # stored, one more rounding
        bound = bound + UB * (np.abs(want) + bound)
    got = _values(case.inside(out), case.dtype)
    error = np.abs(got - want) / bound
    error = np.where(np.isnan(error), np.inf, error)
    if error.max() > 1:
        i = tuple(map(int, np.argwhere(error > 1)[0]))
        raise ReproError(
            f"{what}: element {i} is {got[i]}, twin {want[i]}: {error[i]:.3g} times the allowed "
            f"error; {int((error > 1).sum())} of {error.size} elements are wrong"
        )
    return float(error.max())


def _same_bits(what: str, case: Case, out: Stored, first: Stored) -> None:
    wrong = np.argwhere(case.inside(out) != case.inside(first))
    if len(wrong):
        i = tuple(map(int, wrong[0]))
        got, want = (_values(case.inside(x), case.dtype)[i] for x in (out, first))
        raise ReproError(f"{what}: element {i} is {got!r}, with 1 thread {want!r}: other bits")


def _bits(x: Floats, dtype: str) -> Stored:
    """Values as stored; bfloat16 cut off, for any input will do."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return (bits >> 16).astype(np.uint16) if dtype == "bfloat16" else bits


def _values(bits: Stored, dtype: str) -> Floats:
    wide = bits.astype(np.uint32) << 16 if dtype == "bfloat16" else bits.astype(np.uint32)
    return wide.view(np.float32).astype(np.float64)
