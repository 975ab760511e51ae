"""The GGUF reader refuses every malformed file with a reason and a byte, and never crashes."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import raw_gguf as raw
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_gguf import RawFile, RawTensor, array, scalar, string, text
from tiny import Shape, write_model

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")


def small() -> RawFile:
    """A well-formed file that is no model: two keys, two tensors."""
    return RawFile(
        values=[(b"general.architecture", text("llama")), (b"some.flag", scalar(raw.BOOL, 1))],
        tensors=[
            RawTensor(b"first", [4, 2], data=bytes(32)),
            RawTensor(b"second", [3], data=bytes(12)),
        ],
    )


def edit(change: Callable[[RawFile], object]) -> bytes:
    file = small()
    change(file)
    return file.build()


def add_value(key: bytes, value: bytes) -> bytes:
    return edit(lambda f: f.values.append((key, value)))


def tensor(**fields: object) -> bytes:
    """The small file with fields of its first tensor replaced."""
    return edit(lambda f: f.tensors[0].__dict__.update(fields))


def quantised(kind: int, columns: int, size: int, version: int | None) -> bytes:
    file = RawFile(tensors=[RawTensor(b"q", [columns], kind=kind, data=bytes(size))])
    if version is not None:
        file.values = [(b"general.quantization_version", scalar(raw.U32, version))]
    return file.build()


HUGE = 2**63
MALFORMED = {
    "empty": (b"", "24"),
    "cut magic": (b"GG", "24"),
    "magic": (edit(lambda f: setattr(f, "magic", b"GGML")), "not a GGUF"),
    "zip": (b"PK\x03\x04" + bytes(60), "not a GGUF"),
    "version 0": (edit(lambda f: setattr(f, "version", struct.pack("<I", 0))), "version 0"),
    "version 1": (edit(lambda f: setattr(f, "version", struct.pack("<I", 1))), "version 1"),
    "version 4": (edit(lambda f: setattr(f, "version", struct.pack("<I", 4))), "version 4"),
    "big endian": (edit(lambda f: setattr(f, "version", struct.pack(">I", 3))), "big-endian"),
    "tensor count": (edit(lambda f: setattr(f, "n_tensors", 1000)), "tensors cannot fit"),
    "tensor count 2^63": (edit(lambda f: setattr(f, "n_tensors", HUGE)), "tensors cannot fit"),
    "tensor count + 1": (edit(lambda f: setattr(f, "n_tensors", 3)), "byte"),
    "tensor count - 1": (edit(lambda f: setattr(f, "n_tensors", 1)), "byte"),
    "key count": (edit(lambda f: setattr(f, "n_values", 10**6)), "keys cannot fit"),
    "key count 2^64": (edit(lambda f: setattr(f, "n_values", 2**64 - 1)), "keys cannot fit"),
    "key count + 1": (edit(lambda f: setattr(f, "n_values", 3)), "byte"),
    "key count - 1": (edit(lambda f: setattr(f, "n_values", 1)), "byte"),
    "key empty": (add_value(b"", scalar(raw.U8, 1)), "lower_snake"),
    "key upper case": (add_value(b"Some.Key", scalar(raw.U8, 1)), "lower_snake"),
    "key with space": (add_value(b"some key", scalar(raw.U8, 1)), "lower_snake"),
    "key not ASCII": (add_value("schlüssel".encode(), scalar(raw.U8, 1)), "lower_snake"),
    "key with NUL": (add_value(b"some\0key", scalar(raw.U8, 1)), "lower_snake"),
    "key starts with dot": (add_value(b".key", scalar(raw.U8, 1)), "lower_snake"),
    "key ends with dot": (add_value(b"key.", scalar(raw.U8, 1)), "lower_snake"),
    "key two dots": (add_value(b"some..key", scalar(raw.U8, 1)), "lower_snake"),
    "key 65536 long": (add_value(b"k" * 65536, scalar(raw.U8, 1)), "lower_snake"),
    "key twice": (add_value(b"some.flag", scalar(raw.BOOL, 1)), "twice"),
    "key twice, other type": (add_value(b"some.flag", scalar(raw.U64, 1)), "twice"),
    "value type 13": (add_value(b"k", struct.pack("<IQ", 13, 0)), "unknown value type 13"),
    "value type 2^32": (add_value(b"k", struct.pack("<IQ", 2**32 - 1, 0)), "unknown value type"),
    "bool 2": (add_value(b"k", struct.pack("<IB", raw.BOOL, 2)), "only 0 and 1"),
    "bool 255 in array": (add_value(b"k", array(raw.BOOL, [b"\1", b"\xff"])), "only 0 and 1"),
    "string 2^63": (add_value(b"k", struct.pack("<IQ", raw.STRING, HUGE)), "2^30"),
    "string 2^64": (add_value(b"k", struct.pack("<IQ", raw.STRING, 2**64 - 1)), "2^30"),
    "string 2^30": (add_value(b"k", struct.pack("<IQ", raw.STRING, 2**30)), "remain"),
    "string 2^30 + 1": (add_value(b"k", struct.pack("<IQ", raw.STRING, 2**30 + 1)), "2^30"),
    "array 2^63": (add_value(b"k", array(raw.U8, [], HUGE)), "cannot fit"),
    "array of u64, 2^61": (add_value(b"k", array(raw.U64, [], 2**61)), "cannot fit"),
    "array too long": (add_value(b"k", array(raw.U64, [], 200)), "remain"),
    "array of arrays": (add_value(b"k", array(raw.ARRAY, [])), "array of arrays"),
    "array of type 13": (add_value(b"k", array(13, [])), "unknown value type 13"),
    "array of strings cut": (add_value(b"k", array(raw.STRING, [string("a")], 2**7)), "byte"),
    "alignment 0": (add_value(b"general.alignment", scalar(raw.U32, 0)), "power of two"),
    "alignment 4": (add_value(b"general.alignment", scalar(raw.U32, 4)), "power of two"),
    "alignment 24": (add_value(b"general.alignment", scalar(raw.U32, 24)), "power of two"),
    "alignment 2^31": (add_value(b"general.alignment", scalar(raw.U32, 2**31)), "power of two"),
    "alignment u64": (add_value(b"general.alignment", scalar(raw.U64, 32)), "one u32"),
    "alignment string": (add_value(b"general.alignment", text("32")), "one u32"),
    "alignment array": (add_value(b"general.alignment", array(raw.U32, [b"\0" * 4])), "one u32"),
    "tensor name empty": (tensor(name=b""), "1 to 63"),
    "tensor name 64": (tensor(name=b"n" * 64), "1 to 63"),
    "tensor twice": (tensor(name=b"second"), "twice"),
    "0 dimensions": (tensor(dims=[], n_dims=0), "0 dimensions"),
    "5 dimensions": (tensor(dims=[1, 1, 1, 1, 1]), "5 dimensions"),
    "2^32 - 1 dimensions": (tensor(n_dims=2**32 - 1), "dimensions"),
    "dimension 0": (tensor(dims=[0, 2]), "zero"),
    "dimension 2^63": (tensor(dims=[HUGE, 1]), "overflows"),
    "dimension 2^64 - 1": (tensor(dims=[2**64 - 1, 1]), "overflows"),
    "product 2^64": (tensor(dims=[2**32, 2**32]), "overflows"),
    "product 2^64 + 8": (tensor(dims=[2**40, 2**24]), "overflows"),
    "product beyond the file": (tensor(dims=[2**20, 2**20]), "byte"),
    "tensor type 4": (tensor(kind=4), "unknown type 4"),
    "tensor type 40": (tensor(kind=40), "unknown type 40"),
    "tensor type 2^31": (tensor(kind=2**31), "unknown type"),
    "offset not 0": (tensor(offset=32), "says offset 32"),
    "offset 1": (tensor(offset=1), "says offset 1"),
    "offset 2^64 - 32": (tensor(offset=2**64 - 32), "behind the end"),
    "overlap": (edit(lambda f: setattr(f.tensors[1], "offset", 0)), "says offset 0"),
    "hole": (edit(lambda f: setattr(f.tensors[1], "offset", 64)), "says offset 64"),
    "tensor data cut": (small().build()[:-32], "byte"),
    "trailing byte": (edit(lambda f: setattr(f, "tail", b"\0")), "follow the last"),
    "trailing page": (edit(lambda f: setattr(f, "tail", bytes(4096))), "follow the last"),
    "padding not zero": (edit(lambda f: setattr(f, "padding", b"\1")), "padding byte"),
    "q8_0 without version": (quantised(8, 32, 34, None), "quantization_version"),
    "q8_0 with version 1": (quantised(8, 32, 34, 1), "quantization_version"),
    "q8_0 row of 33": (quantised(8, 33, 34, 2), "no multiple of the 32"),
    "q4_K row of 32": (quantised(12, 32, 144, 2), "no multiple of the 256"),
    "no architecture": (
        RawFile(values=[(b"some.key", scalar(raw.U8, 1))]).build(),
        "no general.architecture",
    ),
    "other architecture": (
        RawFile(values=[(b"general.architecture", text("bert"))]).build(),
        "'bert' is not supported, 'llama' and 'gpt2' are",
    ),
    "architecture is a number": (
        RawFile(values=[(b"general.architecture", scalar(raw.U8, 1))]).build(),
        "not supp",
    ),
    "no tensors": (
        RawFile(values=[(b"general.architecture", text("llama"))]).build(),
        "token_embd",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_file_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    data, reason = MALFORMED[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(ValueError) as caught:
        _C.Model(str(path), True)
    assert reason in str(caught.value)


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    shape = Shape(vocab=300, hidden=8, intermediate=8, layers=1, heads=2, kv_heads=1, head_dim=4)
    return write_model(tmp_path_factory.mktemp("tiny"), shape).read_bytes()


def refused(data: bytes, path: Path) -> str:
    """The reason why a file is refused; fails where it is accepted."""
    path.write_bytes(data)
    with pytest.raises(ValueError) as caught:
        _C.Model(str(path), True)
    return str(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ValueError, match=str(tmp_path)):
            _C.Model(str(path), True)


def test_every_truncation_is_refused(model_bytes: bytes, tmp_path: Path) -> None:
    rng = random.Random(1)
    cuts = {0, 1, 23, 24, 25, len(model_bytes) - 1, len(model_bytes) - 31}
    cuts |= {rng.randrange(len(model_bytes)) for _ in range(150)}
    for cut in sorted(cuts):
        assert "byte" in refused(model_bytes[:cut], tmp_path / "cut.gguf")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_flipped_bit_is_found(
    data: st.DataObject, model_bytes: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bit = data.draw(st.integers(0, 8 * len(model_bytes) - 1))
    spoiled = bytearray(model_bytes)
    spoiled[bit // 8] ^= 1 << bit % 8
    refused(bytes(spoiled), tmp_path_factory.getbasetemp() / "flipped.gguf")


def test_a_flipped_weight_names_its_tensor(model_bytes: bytes, tmp_path: Path) -> None:
    spoiled = bytearray(model_bytes)
    spoiled[-4] ^= 1
    assert "output_norm.weight" in refused(bytes(spoiled), tmp_path / "flipped.gguf")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_header_noise_without_digests_never_crashes(
    data: st.DataObject, model_bytes: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """verify=False skips the digests, so these bytes reach the parser's own checks."""
    spoiled = bytearray(model_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(12000, len(spoiled) - 9)))
        noise = data.draw(
            st.sampled_from([b"\xff" * 8, bytes(8), b"\x80", b"\x01", struct.pack("<Q", 2**62)])
        )
        spoiled[at : at + len(noise)] = noise
    path = tmp_path_factory.getbasetemp() / "noise.gguf"
    path.write_bytes(bytes(spoiled))
    try:
        model = _C.Model(str(path), False)
    except ValueError:
        return
    assert model.vocab_size > 0


def test_removing_our_digests_is_found(model_bytes: bytes, tmp_path: Path) -> None:
    spoiled = model_bytes.replace(b"gristmill.digest.header", b"gristmill.digest.xxxxxx")
    assert "no digest" in refused(spoiled, tmp_path / "x.gguf")


def test_metadata_is_read_as_written(tmp_path: Path) -> None:
    extra = {"gristmill.report": '{"ä": 1}', "gristmill.selftest.prompts": ["a", "", "日本"]}
    model = _C.Model(str(write_model(tmp_path, extra=extra)), True)
    meta = model.metadata
    assert meta["gristmill.report"] == '{"ä": 1}'
    assert list(meta["gristmill.selftest.prompts"]) == ["a", "", "日本"]
    assert meta["llama.attention.head_count_kv"] == 2
    assert meta["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert meta["tokenizer.ggml.add_bos_token"] is False
    assert (model.architecture, model.vocab_size, model.n_ctx, model.bos_id) == (
        "llama",
        331,
        128,
        -1,
    )


def test_digest_is_the_sha256_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = write_model(tmp_path)
    assert _C.Model(str(path), True).digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_gguf_package_reads_our_file(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from safetensors.numpy import load_file

    reader = gguf.GGUFReader(write_model(tmp_path))
    weights = load_file(tmp_path / "model.safetensors")
    stored = {t.name: t.data for t in reader.tensors}
    np.testing.assert_array_equal(stored["token_embd.weight"], weights["model.embed_tokens.weight"])
    q = weights["model.layers.0.self_attn.q_proj.weight"].reshape(
        4, 2, 4, 32
    )  # heads, halves, pairs, C
    np.testing.assert_array_equal(
        stored["blk.0.attn_q.weight"].reshape(4, 4, 2, 32), q.swapaxes(1, 2)
    )
