"""Builds GGUF bytes field by field, so that a test can make any one of them wrong."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {
    U8: "B",
    I8: "b",
    U16: "H",
    I16: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "B",
    U64: "Q",
    I64: "q",
    F64: "d",
}


def string(text: bytes | str) -> bytes:
    """Length and bytes."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind: int, value: float | int) -> bytes:
    """Type and value."""
    return struct.pack("<I" + FORMATS[kind], kind, value)


def text(value: str) -> bytes:
    """Type and value of a string."""
    return struct.pack("<I", STRING) + string(value)


def array(kind: int, values: list[bytes], count: int | None = None) -> bytes:
    """Type, element type, count and elements already packed."""
    n = len(values) if count is None else count
    return struct.pack("<IIQ", ARRAY, kind, n) + b"".join(values)


@dataclass
class RawTensor:
    """One tensor info; offset None: where it belongs."""

    name: bytes
    dims: list[int]
    kind: int = 0
    data: bytes = b""
    offset: int | None = None
    n_dims: int | None = None


@dataclass
class RawFile:
    """A file to be spoiled: every number of the header can be overridden."""

    values: list[tuple[bytes, bytes]] = field(default_factory=list)
    tensors: list[RawTensor] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: bytes = struct.pack("<I", 3)
    n_tensors: int | None = None
    n_values: int | None = None
    alignment: int = 32
    tail: bytes = b""
    padding: bytes = b"\0"

    def build(self) -> bytes:
        """The bytes of the file."""
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_values = len(self.values) if self.n_values is None else self.n_values
        out = self.magic + self.version + struct.pack("<QQ", n_tensors, n_values)
        for key, value in self.values:
            out += string(key) + value
        running, data = 0, b""
        for t in self.tensors:
            out += string(t.name) + struct.pack("<I", len(t.dims) if t.n_dims is None else t.n_dims)
            out += b"".join(struct.pack("<Q", d) for d in t.dims)
            out += struct.pack("<IQ", t.kind, running if t.offset is None else t.offset)
            data += t.data + self.padding * (-len(t.data) % self.alignment)
            running = len(data)
        if self.tensors:
            out += self.padding * (-len(out) % self.alignment)
        return out + data + self.tail
