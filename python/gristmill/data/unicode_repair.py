"""Unicode repair: what editors, downloads and wrong decoders do to text is undone and counted."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

# C0 and C1 controls but tab, line feed and form feed (a page mark in old sources); the signs that
# reorder what is displayed (CVE-2021-42574, "Trojan Source"); a byte order mark inside the text
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
_SUSPECT = re.compile(r"[\r\x00-\x08\x0b\x0e-\x1f\x7f]|[^\x00-\x7f]")
LOST = "\ufffd"


def _cp1252() -> dict[int, str]:
    """Return byte -> character as browsers read cp1252: its five gaps are the C1 controls."""
    table = {}
    for byte in range(0x80, 0x100):
        try:
            table[byte] = bytes([byte]).decode("cp1252")
        except UnicodeDecodeError:
            table[byte] = chr(byte)
    return table


_TABLE = _cp1252()
_BYTE = {character: byte for byte, character in _TABLE.items()}


def _characters(first: int, last: int) -> str:
    return "[" + re.escape("".join(_TABLE[byte] for byte in range(first, last + 1))) + "]"


_TAIL = _characters(0x80, 0xBF)
# the shapes of two, three and four bytes of UTF-8, each byte read as one character of cp1252
_MOJIBAKE = re.compile(
    f"{_characters(0xC2, 0xDF)}{_TAIL}"
    f"|{_characters(0xE0, 0xEF)}{_TAIL}{{2}}"
    f"|{_characters(0xF0, 0xF4)}{_TAIL}{{3}}"
)


class Repaired(NamedTuple):
    """A repaired text, and how many places each repair changed (only those that did)."""

    text: str
    counts: Mapping[str, int]


def repair(text: str, form: str = "NFC", mojibake: bool = True) -> Repaired:
    """Return the text with line feeds as line ends, no control characters, and one normal form.

    Mojibake is UTF-8 that was read as cp1252. All is repeated until nothing changes (a letter that
    was misread twice, a sign in two parts that a control character divided), so a repaired text is
    its own repair.
    """
    if not _SUSPECT.search(text):
        return Repaired(text, {})
    counts: dict[str, int] = {}
    ends = text.count("\r")
    if ends:
        counts["line ends"] = ends
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    before = ""
    while text != before:
        before = text
        if mojibake:
            text, fixed = _undo_mojibake(text)
            _add(counts, "mojibake", fixed)
        text, controls = _CONTROL.subn("", text)
        _add(counts, "control characters", controls)
        if form != "none" and not unicodedata.is_normalized("NFC", text):
            _add(counts, "not in normal form", 1)
            text = unicodedata.normalize("NFC", text)
    return Repaired(text, counts)


def _add(counts: dict[str, int], repair: str, places: int) -> None:
    if places:
        counts[repair] = counts.get(repair, 0) + places


def _undo_mojibake(text: str) -> tuple[str, int]:
    """Return the text with one layer of misreading undone, and the number of places."""
    changed = 0

    def undo(match: re.Match[str]) -> str:
        nonlocal changed
        raw = bytes(_BYTE[character] for character in match.group())
        try:
            fixed = raw.decode("utf-8")
        except UnicodeDecodeError:  # overlong forms and surrogates are no UTF-8
            return match.group()
        changed += 1
        return fixed

    return _MOJIBAKE.sub(undo, text), changed


def lost_share(text: str) -> float:
    """Return the share of U+FFFD, each a character that some decoder lost before."""
    return text.count(LOST) / len(text) if text else 0.0
