"""Unicode repair: what is undone, what stays, and that a repaired text is its own repair."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.data.unicode_repair import lost_share, repair


@pytest.mark.parametrize(
    ("text", "repaired", "counts"),
    [
        ("plain\n\ttext\f\n", "plain\n\ttext\f\n", {}),
        ("a\r\nb\rc\n", "a\nb\nc\n", {"line ends": 2}),
        ("cafÃ©", "café", {"mojibake": 1}),
        ("â€œquotedâ€\x9d â€” dash", "“quoted” — dash", {"mojibake": 3}),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет", {"mojibake": 6}),
        ("ðŸ˜€", "😀", {"mojibake": 1}),
        ("cafÃƒÂ©", "café", {"mojibake": 3}),  # twice: two marks, then the letter
        ("a\0b\x07\u202ec\ufeff", "abc", {"control characters": 4}),
        ("e\u0301", "é", {"not in normal form": 1}),
        ("naïve São Ångström 5€ Ä°", "naïve São Ångström 5€ İ", {"mojibake": 1}),
        ("schöne Straße, Ã alleine, 你好", "schöne Straße, Ã alleine, 你好", {}),
    ],
)
def test_repairs(text: str, repaired: str, counts: dict[str, int]) -> None:
    assert repair(text) == (repaired, counts)


def test_options() -> None:
    assert repair("e\u0301", form="none").text == "e\u0301"
    assert repair("cafÃ©", mojibake=False).text == "cafÃ©"


@given(st.text())
def test_a_repaired_text_is_its_own_repair(text: str) -> None:
    once = repair(text).text
    assert repair(once) == (once, {})
    assert "\r" not in once
    assert unicodedata.is_normalized("NFC", once)


@given(st.text(st.characters(codec="ascii", exclude_characters="\r\x7f", min_codepoint=32)))
def test_plain_text_is_not_touched(text: str) -> None:
    result = repair(text)
    assert result.text is text
    assert not result.counts


@given(
    st.text(st.characters(min_codepoint=0x3B1, max_codepoint=0x4FF, categories=["L"]), min_size=1)
)
def test_misread_utf8_comes_back(text: str) -> None:
    """Greek and Cyrillic, read as cp1252 by a browser's table: every letter is recovered."""
    from gristmill.data.unicode_repair import _TABLE

    text = unicodedata.normalize("NFC", text)
    misread = "".join(_TABLE[byte] for byte in text.encode())
    assert repair(misread).text == text


def test_lost_share() -> None:
    assert lost_share("") == 0.0
    assert lost_share("ab\ufffd\ufffd") == 0.5
