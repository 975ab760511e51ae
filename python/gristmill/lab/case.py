"""A case: one call of a kernel with its arguments, the twin's result in float64, and a bound.

`cases/X.py` yields those of an op, for `gristmill.lab.check` and for the tests.

An output passes when for every element |got - expected| <= bound, or both are the same infinity, or
both are NaN, and when memory outside its view is untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]
Stored = npt.NDArray[Any]

U = 2.0**-24  # unit roundoff of float32
UB = 2.0**-8  # of bfloat16
TINY = 2.0**-126  # smallest normal float32: below it roundoff is absolute
OVERFLOW = 2.0**128 - 2.0**103  # from here on float32 rounds to infinity

# Sizes around the 16 lanes of a vector and the 8 of half of one, with primes between.
SIZES = (1, 7, 8, 9, 15, 16, 17, 31, 61)

_STORED = {"float32": "f4", "bfloat16": "u2", "int32": "i4", "int64": "i8", "uint8": "u1"}
ENUMS = {
    ("elementwise", "op"): [
        *("copy", "add", "sub", "mul", "div", "maximum", "neg", "exp", "log", "sqrt", "square"),
    ],
    ("reduce", "op"): ["sum", "mean", "max", "sum_of_squares"],
    ("random", "distribution"): ["uniform", "normal", "truncated_normal"],
}


def gamma(n: float) -> float:
    """Relative error of n float32 roundings in sequence. Higham, "Accuracy and stability", 3.1."""
    return n * U / (1 - n * U)


def terms(dtype: str) -> float:
    """What exp is off by beyond its roundings: for bfloat16 it has fewer terms (math.h)."""
    return 2.0**-13 if dtype == "bfloat16" else 0.0


def round_bf16(x: npt.ArrayLike) -> npt.NDArray[np.uint16]:
    """The bits of x as bfloat16, rounded to nearest even."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widen_bf16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """bfloat16 bits as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def encode(values: npt.ArrayLike, dtype: str) -> Stored:
    """Values as stored."""
    return round_bf16(values) if dtype == "bfloat16" else np.asarray(values).astype(_STORED[dtype])


@dataclass
class Operand:
    """An array with its memory: shape, strides and offset in elements of `storage`."""

    storage: Stored
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    dtype: str
    output: bool = False
    accumulate: bool = False

    def read(self, storage: Stored | None = None) -> Stored:
        """The view's elements as stored."""
        source = self.storage if storage is None else storage
        strides = [s * source.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(source[self.offset :], self.shape, strides)

    @property
    def values(self) -> Floats:
        """The view's elements as the kernel reads them."""
        x = self.read()
        return np.asarray(widen_bf16(x) if self.dtype == "bfloat16" else x, dtype=np.float64)

    def array(self, storage: Stored, skip: int = 0) -> Array:
        """The same view of `storage`, `skip` elements further on, for a binding."""
        a = _C.from_numpy(storage, self.dtype == "bfloat16")
        a = a.view(self.shape, self.strides, skip + self.offset)
        return a.accumulating() if self.accumulate else a


def _lay_out(values: Stored, layout: str, filler: Any) -> Operand:
    """Rows one after the other ("plain"), with a gap of 3 after each and before the first ("gaps"),
    with the last two dimensions exchanged ("transposed"), or every other element ("spread").
    """
    shape = values.shape
    if layout == "transposed":
        order = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
        inner = _lay_out(values.transpose(order), "plain", filler)
        turned = tuple(inner.strides[i] for i in order)
        return Operand(inner.storage, shape, turned, 0, "")
    step, gap = (2 if layout == "spread" else 1), (3 if layout == "gaps" else 0)
    strides: list[int] = []
    size = step
    for i in range(len(shape) - 1, -1, -1):
        strides.append(size)
        size = size * shape[i] + (gap if i == len(shape) - 1 else 0)
    operand = Operand(np.full(size + gap, filler), shape, tuple(strides[::-1]), gap, "")
    operand.storage = operand.storage.astype(values.dtype)
    operand.read()[...] = values
    return operand


def given(values: npt.ArrayLike, dtype: str = "float32", layout: str = "plain") -> Operand:
    """An input; what lies between its elements is NaN (or a large integer)."""
    stored = encode(values, dtype)
    operand = _lay_out(stored, layout, encode(np.nan, dtype) if dtype in _NAN else 99)
    operand.dtype = dtype
    return operand


def wanted(
    shape: tuple[int, ...],
    dtype: str = "float32",
    layout: str = "plain",
    start: npt.ArrayLike | None = None,
    accumulate: bool = True,
) -> Operand:
    """An output: all NaN, to be overwritten; or holding `start`, to be added to (or updated)."""
    before = np.full(shape, np.nan) if start is None else np.asarray(start)
    operand = given(before, dtype, layout)
    operand.output, operand.accumulate = True, accumulate and start is not None
    return operand


_NAN = ("float32", "bfloat16")
GUARD = 256  # bytes before an operand, and behind it in addition to its own length


class WrongResult(AssertionError):
    """A kernel did what its contract does not allow; says where."""


class _Guarded:
    """The memory of an operand in the middle of bytes that a kernel must leave alone.

    It begins on a cache line. The guard behind is as long as the operand: a kernel that takes
    bfloat16 for float32 goes twice as far, and must not leave our memory. Around inputs are NaN,
    around outputs other bytes: what is copied from guard to guard shows.
    """

    def __init__(self, operand: Operand) -> None:
        before, self.operand = operand.storage, operand
        self.guard = 0x5A if operand.output else 0xFF
        raw = np.full(2 * before.nbytes + 3 * GUARD, self.guard, np.uint8)
        raw = raw[-raw.ctypes.data % 64 :]
        self.memory = raw[: len(raw) // 8 * 8].view(before.dtype)
        self.skip = GUARD // before.itemsize
        self.storage = self.memory[self.skip : self.skip + before.size]
        self.storage[...] = before

    def array(self) -> Array:
        """The operand for a binding."""
        return self.operand.array(self.memory, self.skip)

    def check(self, what: str) -> None:
        """Raise WrongResult where a byte around it changed, or in it when it is an input."""
        bytes_, size = self.memory.view(np.uint8), self.operand.storage.itemsize
        wrong = bytes_ != self.guard
        begin = self.skip * size
        inside = slice(begin, begin + self.storage.nbytes)
        wrong[inside] = False
        if not self.operand.output:
            old = np.ascontiguousarray(self.operand.storage).view(np.uint8)
            wrong[inside] = bytes_[inside] != old
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0]) // size - self.skip
            place = "an input" if not self.operand.output else "outside the array"
            raise WrongResult(f"{what}: {place} was written to, element {at} of its memory")


Value = Operand | str | int | float | None


@dataclass
class Case:
    """One call. `arguments` has every field of the entry's struct (csrc/kernels.h), in order; enums
    and dtypes by name; "=field" for the array of an earlier field. `expected` and `bound` are the
    twin's results and their allowed errors, without what accumulation and storage add."""

    entry: str
    name: str
    arguments: dict[str, Value]
    expected: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]
    exact: bool = True
    _results: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [f["name"] for f in self.fields()]
        assert list(self.arguments) == names, f"{self.entry} takes {names}"
        assert set(self.expected) == set(self.outputs()), f"{self}: a result for every output"
        for name, operand in self.outputs().items():
            value, bound = (np.asarray(x, np.float64) for x in self.expected[name])
            value, bound = (np.broadcast_to(x, operand.shape) for x in (value, bound))
            self._results[name] = _stored_result(operand, value, bound)
        self.exact = self.exact and not self.uses_bf16()

    def __str__(self) -> str:
        return f"{self.entry}-{self.name}"

    def uses_bf16(self) -> bool:
        values = self.arguments.values()
        operands = [v for v in values if isinstance(v, Operand)]
        return any(o.dtype == "bfloat16" for o in operands) or "bfloat16" in [
            v for v in values if isinstance(v, str)
        ]

    def outputs(self) -> dict[str, Operand]:
        arguments = self.arguments.items()
        return {n: v for n, v in arguments if isinstance(v, Operand) and v.output}

    def result(self, output: str) -> tuple[Floats, Floats]:
        """What must be stored in an output, and how far off it may be."""
        return self._results[output]

    def run(self) -> dict[str, Stored]:
        """Call the binding on the active table; the outputs' storage afterwards.

        Raises WrongResult when memory around an operand changed, or an input.
        """
        memory = {n: _Guarded(v) for n, v in self.arguments.items() if isinstance(v, Operand)}
        arrays = {n: guarded.array() for n, guarded in memory.items()}
        given = dict(self.binding_arguments(arrays))
        if self.entry == "matmul_pack":
            b = arrays["b"]
            whole = b.view(b.shape[1:], b.strides[1:], 0)
            given["packed"] = _C.matmul_pack(whole, given["compute"])
        getattr(_C, self._called())(**given)
        for name, guarded in memory.items():
            guarded.check(f"{self}: {name}")
        return {n: memory[n].storage for n in self.outputs()}

    def _called(self) -> str:
        """A pack is opaque, so a case of matmul_pack is a product with b packed."""
        return "matmul" if self.entry == "matmul_pack" else self.entry

    def fields(self) -> list[dict[str, Any]]:
        fields: list[dict[str, Any]] = _C.describe(self._called())["fields"]
        return fields

    def _operand(self, name: str) -> Operand:
        operand = self.arguments[name]
        assert isinstance(operand, Operand)
        return operand

    def binding_arguments(self, arrays: dict[str, Array]) -> Iterator[tuple[str, Any]]:
        """Bindings take sizes from the arrays, and a key as two numbers."""
        for f in self.fields():
            name, value = f["name"], self.arguments[f["name"]]
            if name == "key":
                words = self._operand(name).read().view(np.uint64).tolist()
                yield from zip(("seed", "stream"), words, strict=True)
            elif isinstance(value, str) and value.startswith("="):
                yield name, arrays[value[1:]]
            elif isinstance(value, Operand):
                yield name, arrays[name]
            elif f["type"] != "int64_t":
                yield (
                    name,
                    bool(value) if f["type"] == "int32_t" and isinstance(value, int) else value,
                )


def _stored_result(operand: Operand, value: Floats, bound: Floats) -> tuple[Floats, Floats]:
    """The twin's result with what accumulation adds, rounded once more to the stored dtype."""
    with np.errstate(invalid="ignore"):
        if operand.accumulate:
            value = value + operand.values
            bound = bound + U * np.abs(value)
        value = np.where(np.abs(value) >= OVERFLOW, np.sign(value) * np.inf, value)
        if operand.dtype == "bfloat16":
            bound = bound + UB * (np.abs(value) + bound)
        return value, bound + 2.0**-149
