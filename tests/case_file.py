"""The binary file of cases that `kernel_check` (csrc/check) replays where there is no Python.

Little endian; a string is a u32 length and its bytes.

    file    = "GMCASES1", u64 kernel ABI (`_C.abi()`), u32 number of cases, cases
    case    = string entry, string label, u8 same_bits,
              u32 n, n buffers, u32 n, n fields, u32 n, n wants
    buffer  = u8 dtype (kernels.h: 0 f32, 1 bf16, 2 i32, 3 i64, 4 u8), i64 elements, their bytes
    field   = string name, u8 kind, then by kind
                0 integer: i64            1 real: f64
                2 View:    i32 buffer (-1: null), i64 offset, i64 strides[4], i32 accumulate
                3 pointer: i32 buffer (-1: null), i64 offset
    want    = i32 buffer, f64 values[elements], f64 bounds[elements]

Offsets and strides count elements. A field that is not named is zero. A want covers its whole
buffer: |got - value| <= bound element by element; a NaN bound says that the kernel must leave
the element as it was. Buffers without a want must stay as they were, byte for byte.
same_bits: the results are the same bytes under every table (f32, determinism contract).

A case of matmul_pack, whose own result is opaque, has the fields of matmul: b is packed first, and
the product must also have the bytes it has with b not packed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = b"GMCASES1"
DTYPES = {"float32": 0, "bfloat16": 1, "int32": 2, "int64": 3, "uint8": 4}


@dataclass(frozen=True)
class Buffer:
    """Memory of a case: flat elements; bfloat16 as its uint16 bits. With want: an output.

    want and bound are float64, one for each element of the buffer; bound NaN: must not change.
    """

    data: npt.NDArray[Any]
    dtype: str = "float32"
    want: npt.NDArray[np.float64] | None = None
    bound: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class View:
    """A field that is a View: the name of its buffer, first element and strides in elements."""

    buffer: str
    strides: tuple[int, ...]
    offset: int = 0
    accumulate: int = 0


@dataclass(frozen=True)
class Pointer:
    """A field that is a plain pointer (key, step): the name of its buffer."""

    buffer: str
    offset: int = 0


@dataclass(frozen=True)
class Case:
    """One call of one entry. Fields that are not named are zero, which for a View is null."""

    entry: str
    label: str
    buffers: Mapping[str, Buffer]
    fields: Mapping[str, View | Pointer | int | float]
    same_bits: bool = field(default=True)


def write(path: Path, cases: Iterable[Case], abi: int) -> int:
    """Write the file; returns the number of cases. Raises ValueError for a case that is not one."""
    parts = [_case(case) for case in cases]
    head = MAGIC + struct.pack("<QI", abi, len(parts))
    path.write_bytes(head + b"".join(parts))
    return len(parts)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<I", len(raw)) + raw


def _case(case: Case) -> bytes:
    index = {name: i for i, name in enumerate(case.buffers)}
    wants = [_want(case, i, b) for i, b in enumerate(case.buffers.values()) if b.want is not None]
    if not wants:
        raise ValueError(f"{case.entry} {case.label}: no buffer has a want")
    buffers = [_buffer(b) for b in case.buffers.values()]
    fields = [_string(name) + _field(value, index) for name, value in case.fields.items()]
    head = _string(case.entry) + _string(case.label) + struct.pack("<B", case.same_bits)
    return head + b"".join(
        struct.pack("<I", len(items)) + b"".join(items) for items in (buffers, fields, wants)
    )


def _buffer(buffer: Buffer) -> bytes:
    data = np.ascontiguousarray(buffer.data).reshape(-1)
    width = {"float32": 4, "bfloat16": 2, "int32": 4, "int64": 8, "uint8": 1}[buffer.dtype]
    if data.itemsize != width:
        raise ValueError(f"{buffer.dtype} takes {width} bytes an element, got {data.dtype}")
    return struct.pack("<Bq", DTYPES[buffer.dtype], data.size) + data.tobytes()


def _field(value: View | Pointer | int | float, index: Mapping[str, int]) -> bytes:
    if isinstance(value, View):
        strides = [*value.strides, 0, 0, 0, 0][:4]
        where = index[value.buffer], value.offset
        return struct.pack("<Biq4qi", 2, *where, *strides, value.accumulate)
    if isinstance(value, Pointer):
        return struct.pack("<Biq", 3, index[value.buffer], value.offset)
    if isinstance(value, float):
        return struct.pack("<Bd", 1, value)
    return struct.pack("<Bq", 0, int(value))


def _want(case: Case, i: int, buffer: Buffer) -> bytes:
    size = buffer.data.size
    pair = [np.ascontiguousarray(a, np.float64).reshape(-1) for a in (buffer.want, buffer.bound)]
    if any(a.size != size for a in pair):
        raise ValueError(f"{case.entry} {case.label}: want and bound must have {size} elements")
    return struct.pack("<i", i) + pair[0].tobytes() + pair[1].tobytes()
