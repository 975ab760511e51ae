"""A GGUF whose numbers or texts are wrong is a message with its name, whatever they say."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

pytest.importorskip("gguf")

from foreign import foreign_folder

from gristmill.checkpoint.gguf import write_gguf
from gristmill.checkpoint.source import open_source
from gristmill.data.adopting import adopt
from gristmill.errors import ArtifactError

HEADS, LAYERS = "llama.attention.head_count", "llama.block_count"
EPSILON, ROTATED = "llama.attention.layer_norm_rms_epsilon", "llama.rope.dimension_count"
FLOAT, INT = 6, 5  # types of values


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = foreign_folder(tmp_path_factory.mktemp("m"))
    write_gguf(folder, folder / "m.gguf")
    return (folder / "m.gguf").read_bytes()


def changed(whole: bytes, folder: Path, key: str, at: int, new: bytes) -> Path:
    """The file with other bytes `at` bytes behind a key: 0 its value's type, 4 the value."""
    data, path = bytearray(whole), folder / "m.gguf"
    start = data.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key) + at
    data[start : start + len(new)] = new
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("key", "new", "said"),
    [
        (HEADS, struct.pack("<II", 4, 0), f"{HEADS} is 0.*whole numbers from 1"),
        (HEADS, struct.pack("<II", 4, 3), "attn_q.weight.*3 heads"),
        (HEADS, struct.pack("<If", FLOAT, 2.0), f"{HEADS} is 2.0.*whole numbers"),
        (LAYERS, struct.pack("<Ii", INT, -2), f"{LAYERS} is -2"),
        (ROTATED, struct.pack("<II", 4, 8), f"{ROTATED} is 8, allowed is .* 16"),
        (EPSILON, struct.pack("<If", FLOAT, float("nan")), f"{EPSILON} is nan"),
    ],
)
def test_a_wrong_number_is_named(
    whole: bytes, tmp_path: Path, key: str, new: bytes, said: str
) -> None:
    with pytest.raises(ArtifactError, match=rf"m\.gguf.*{said}"):
        open_source(changed(whole, tmp_path, key, 0, new)).tensors()


def test_a_factor_without_a_type_is_linear_scaling(whole: bytes, tmp_path: Path) -> None:
    """As llama.cpp reads it; our own key of the same length makes room for it."""
    ours, theirs = b"gristmill.digest.header", b"llama.rope.scaling.factor"
    value = struct.pack("<Q", 64)
    at = whole.index(struct.pack("<Q", len(ours)) + ours)
    old = struct.pack("<Q", len(ours)) + ours + struct.pack("<I", 8) + value
    new = struct.pack("<Q", len(theirs)) + theirs + struct.pack("<If", FLOAT, 4.0)
    rest = len(old) + 64 - len(new)  # what is left of the digest becomes a key of no meaning
    name = b"a" * (rest - 8 - 4 - 1)
    new += struct.pack("<Q", len(name)) + name + struct.pack("<IB", 0, 0)
    data = whole[:at] + new + whole[at + len(old) + 64 :]
    count = struct.unpack("<Q", data[16:24])[0]
    path = tmp_path / "m.gguf"
    path.write_bytes(data[:16] + struct.pack("<Q", count + 1) + data[24:])
    with pytest.raises(ArtifactError, match=r"linear.*is not supported"):
        open_source(path)


@pytest.mark.parametrize("key", ["tokenizer.ggml.merges", "tokenizer.ggml.tokens"])
def test_damaged_texts_of_a_tokenizer(whole: bytes, tmp_path: Path, key: str) -> None:
    """Behind the key: its type, the elements' type, their count, the first one's length."""
    for new in (b"\xff", b"Q"):  # no UTF-8; another token than the one that is meant
        with pytest.raises(ArtifactError, match=r"m\.gguf"):
            adopt(changed(whole, tmp_path, key, 4 + 4 + 8 + 8, new))


def test_a_damaged_name_of_the_architecture(whole: bytes, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"m\.gguf.*not UTF-8"):
        open_source(changed(whole, tmp_path, "general.architecture", 4 + 8, b"\xff"))
