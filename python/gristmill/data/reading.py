"""From the bytes of a file to its text, or the reason why there is none."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import tokenize
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gristmill.data.document import is_python

_BOMS = (  # the four bytes of UTF-32 first: they begin with the two of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    "gz": gzip.open,
    "bz2": bz2.open,
    "xz": lzma.open,
}
_SNIFF = 8000  # bytes searched for a zero byte, the mark of a binary file (as git does)


class Unusable(Exception):
    """A file that gives no document. `fault`: it should have (damaged, unreadable, undecodable)."""

    def __init__(self, reason: str, fault: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Reading:
    """The bytes of a file as they lie on disk, its text, and the encoding that gave it."""

    raw: bytes
    text: str
    encoding: str


def read(file: Path, path: str, encodings: Sequence[str], max_bytes: int) -> Reading:
    """Read one file; `path` is its name in the source. Raises Unusable with the reason."""
    try:
        with open(file, "rb") as stream:
            raw = stream.read(max_bytes + 1)
    except OSError as error:
        raise Unusable(f"unreadable: {error.strerror or error}", True) from error
    if not raw:
        raise Unusable("empty", False)
    _check_size(raw, max_bytes)
    content = decompress(raw, path, max_bytes)
    if not content:
        raise Unusable("empty", False)
    text, encoding = decode(content, path, encodings)
    if not text:
        raise Unusable("empty", False)
    return Reading(raw, text, encoding)


def _check_size(data: bytes, max_bytes: int, what: str = "") -> None:
    if len(data) > max_bytes:
        raise Unusable(f"larger than {max_bytes} bytes{what}", False)


def decompress(raw: bytes, path: str, max_bytes: int) -> bytes:
    """Return the content of a .gz, .bz2 or .xz file, by its name; other bytes as they are.

    At most max_bytes + 1 are unpacked, so a small file cannot fill the memory. Raises Unusable.
    """
    suffix = path.lower().rpartition(".")[2]
    if suffix not in OPENERS:
        return raw
    try:
        with OPENERS[suffix](io.BytesIO(raw)) as stream:
            content: bytes = stream.read(max_bytes + 1)
    except EOFError:
        raise Unusable(f"truncated: the {suffix} data end early", True) from None
    except (OSError, zlib.error, lzma.LZMAError) as error:
        raise Unusable(f"damaged {suffix} data: {error}", True) from error
    _check_size(content, max_bytes, " unpacked")
    return content


def decode(content: bytes, path: str, encodings: Sequence[str]) -> tuple[str, str]:
    """Return (text, encoding): by byte order mark, Python's coding line, or `encodings` in order.

    ASCII is reported as such where UTF-8 was tried. Raises Unusable for binary content and for
    text that no encoding fits.
    """
    for mark, name in _BOMS:
        if content.startswith(mark):
            return _strict(content, (name,))
    if b"\0" in content[:_SNIFF]:
        raise Unusable("binary", False)
    declared = _declared(content) if is_python(path) else ""
    try:
        return _strict(content, (declared,) if declared else encodings)
    except Unusable:
        if b"\0" in content:
            raise Unusable("binary", False) from None
        raise


def _declared(content: bytes) -> str:
    """Return the encoding of Python's coding line (PEP 263), "" without one."""
    first = io.BytesIO(b"".join(content.splitlines(keepends=True)[:2]) if content else b"")
    head = content[:400]
    if b"coding" not in head:
        return ""
    try:
        name, lines = tokenize.detect_encoding(first.readline)
    except SyntaxError as error:
        raise Unusable(f"not text: {error.msg}", True) from None
    named = any(b"coding" in line for line in lines)
    return name if named and name != "utf-8" else ""


def _strict(content: bytes, encodings: Sequence[str]) -> tuple[str, str]:
    where = 0
    for name in encodings:
        try:
            text = content.decode(name)
        except UnicodeDecodeError as error:
            where = max(where, error.start)
        except UnicodeError:  # utf-16 without a whole last character, on some codecs
            continue
        except LookupError:
            raise Unusable(f"no such encoding: {name}", True) from None
        else:
            return text, "ascii" if name == "utf-8" and text.isascii() else name
    raise Unusable(f"not text in {', '.join(encodings)} (byte {where})", True)
