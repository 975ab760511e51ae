"""Token bytes to text: the same characters however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.serving.text import TextStream, token_name

ALPHABET = st.sampled_from("ab\né语😀 ")


def streamed(pieces: list[bytes], stops: list[str]) -> tuple[str, str | None, list[str]]:
    stream = TextStream(stops)
    parts = [stream.push(piece) for piece in pieces]
    parts.append(stream.finish())
    return "".join(parts), stream.stop_word, parts


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({min(i, len(data)) for i in at} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(edges)]


@given(
    st.binary(max_size=40) | st.text(ALPHABET, max_size=30).map(str.encode),
    st.lists(st.text(ALPHABET, min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 60), max_size=12),
)
def test_cutting_does_not_show(data: bytes, stops: list[str], at: list[int]) -> None:
    whole = streamed([data[i : i + 1] for i in range(len(data))], stops)
    parts = streamed(cut(data, at), stops)
    assert parts[:2] == whole[:2]
    for stop in stops:
        assert stop not in parts[0]


@given(st.text(ALPHABET, max_size=30), st.lists(st.integers(0, 90), max_size=12))
def test_without_stops_text_is_whole(text: str, at: list[int]) -> None:
    assert streamed(cut(text.encode(), at), [])[0] == text


def test_stop_across_tokens_is_held_back() -> None:
    stream = TextStream(["\n\n"])
    assert stream.push(b"x = 1\n") == "x = 1"
    assert stream.push(b"\ny") == ""
    assert stream.stop_word == "\n\n"
    assert stream.push(b"more") == ""
    assert stream.finish() == ""


def test_a_begun_stop_that_does_not_come_is_released() -> None:
    stream = TextStream(["<end>"])
    assert stream.push(b"a<en") == "a"
    assert stream.push(b"ds") == "<ends"
    assert stream.push(b"<e") == ""
    assert stream.finish() == "<e"


def test_half_a_character_waits_and_a_cut_one_is_marked() -> None:
    stream = TextStream()
    assert stream.push("é".encode()[:1]) == ""
    assert stream.push("é".encode()[1:]) == "é"
    assert stream.push("语".encode()[:2]) == ""
    assert stream.finish() == "�"


def test_empty_stop_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        TextStream([""])


def test_token_names_do_not_collide() -> None:
    assert token_name("é".encode()) == "é"
    assert token_name(b"\xe4") == "bytes:\\xe4"
    assert len({token_name(bytes([i])) for i in range(256)}) == 256
