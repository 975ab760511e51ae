"""gristmill.h through ctypes: what a C program links against, as it is in the extension."""

from __future__ import annotations

import ctypes as ct
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Shape, write_model

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")

from rewritten import rewrite  # noqa: E402

ROOT = Path(__file__).parents[2]
OK, BAD_FILE, BAD_ARGUMENT, NO_MEMORY, NO_ROOM = 0, 1, 2, 3, 4


class Error(ct.Structure):
    """gristmill_error."""

    _fields_ = (
        ("struct_size", ct.c_uint32),
        ("reserved", ct.c_uint32),
        ("offset", ct.c_int64),
        ("text", ct.c_char * 320),
    )


class Sampling(ct.Structure):
    """gristmill_sampling."""

    _fields_ = (
        ("struct_size", ct.c_uint32),
        ("temperature", ct.c_float),
        ("top_k", ct.c_int32),
        ("top_p", ct.c_float),
        ("min_p", ct.c_float),
        ("reserved", ct.c_uint32),
        ("seed", ct.c_uint64),
    )


@pytest.fixture(scope="module")
def lib() -> Any:
    library = ct.CDLL(_C.__file__)
    library.gristmill_vocab_size.restype = ct.c_int64
    library.gristmill_context_length.restype = ct.c_int64
    library.gristmill_session_length.restype = ct.c_int64
    return library


@pytest.fixture
def error() -> Error:
    return Error(struct_size=ct.sizeof(Error))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("c_api"), Shape())


def opened(lib: Any, path: Path, error: Error) -> ct.c_void_p:
    model = ct.c_void_p()
    assert lib.gristmill_model_open(ct.byref(model), str(path).encode(), 1, ct.byref(error)) == OK
    return model


def test_facts_of_a_model(lib: Any, path: Path, error: Error) -> None:
    model = opened(lib, path, error)
    same = _C.Model(str(path), True)
    assert lib.gristmill_abi_version() == 1
    assert lib.gristmill_vocab_size(model) == same.vocab_size
    assert lib.gristmill_context_length(model) == same.n_ctx
    assert lib.gristmill_eos_id(model) == same.eos_id
    assert lib.gristmill_bos_id(model) == -1
    assert lib.gristmill_fim_prefix_id(model) == same.tokenize(b"<|fim_prefix|>", True)[0]
    digest = ct.create_string_buffer(65)
    lib.gristmill_digest(model, digest)
    assert digest.value.decode() == same.digest
    lib.gristmill_model_close(model)


def test_bos_and_ends_are_those_of_the_package(
    lib: Any, path: Path, error: Error, tmp_path: Path
) -> None:
    from gristmill.serving.fim import control_ids, with_bos

    files = [path, rewrite(path, tmp_path / "bos.gguf", bos=40)]
    for file, bos in zip(files, ([], [40]), strict=True):
        model, same = opened(lib, file, error), _C.Model(str(file), True)
        assert with_bos(same, []) == bos
        assert lib.gristmill_add_bos(model) == len(bos)
        ends = {id for id in range(-1, 332) if lib.gristmill_is_end(model, id)}
        assert ends == control_ids(same)
        assert len(ends) == 5  # eos, prefix, middle, suffix, pad
        lib.gristmill_model_close(model)


LITTLE_MEMORY = """
import ctypes as ct, resource, sys
sys.path.insert(0, sys.argv[2])
from test_c_api import NO_MEMORY, OK, Error
import gristmill._C as _C
lib = ct.CDLL(_C.__file__)
data, error = open(sys.argv[1], "rb").read(), Error(struct_size=ct.sizeof(Error))
size, model, session = ct.c_int64(len(data)), ct.c_void_p(), ct.c_void_p()
open_memory = lib.gristmill_model_open_memory
assert open_memory(ct.byref(model), data, size, 0, ct.byref(error)) == OK, error.text
used = 4096 * int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 20),) * 2)
make = lib.gristmill_session_new  # 2^20 tokens need more than 64 MB
assert make(ct.byref(session), model, ct.c_int64(1 << 20), ct.byref(error)) == NO_MEMORY
assert error.text.startswith(b"out of memory for a context of 1048576 tokens"), error.text
again = ct.c_void_p()  # widened to f32 the weights need 16 MB
assert open_memory(ct.byref(again), data, size, 0, ct.byref(error)) == NO_MEMORY
assert error.text == b"out of memory for the weights", error.text
path = sys.argv[1].encode()  # the file has more than 8 MB
assert lib.gristmill_model_open(ct.byref(again), path, 0, ct.byref(error)) == NO_MEMORY
assert error.text == b"out of memory for " + path, error.text
assert not session and not again
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_short_memory_has_its_own_code(path: Path, tmp_path: Path) -> None:
    shape = Shape(vocab=2048, hidden=2048, intermediate=8, layers=1, heads=1, kv_heads=1)
    made = write_model(tmp_path, Shape(**(vars(shape) | {"context": 2**20})))
    file = rewrite(made, tmp_path / "f16.gguf", f16=True)
    command = [sys.executable, "-c", LITTLE_MEMORY, str(file), str(Path(__file__).parent)]
    environment = os.environ | {"GRISTMILL_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_tokenize_says_how_much_room_is_needed(lib: Any, path: Path, error: Error) -> None:
    model = opened(lib, path, error)
    text, count = b"def add(left): <|fim_middle|>", ct.c_int64()
    want = _C.Model(str(path), True).tokenize(text, True)
    ids = (ct.c_int32 * 64)()
    arguments = (model, text, ct.c_int64(len(text)), 1, ids)
    few = lib.gristmill_tokenize(*arguments, ct.c_int64(2), ct.byref(count), ct.byref(error))
    assert (few, count.value) == (NO_ROOM, len(want))
    assert lib.gristmill_tokenize(*arguments, ct.c_int64(64), ct.byref(count), None) == OK
    assert ids[: count.value] == want
    data, size = ct.c_void_p(), ct.c_int64()
    assert lib.gristmill_token_bytes(model, want[-1], ct.byref(data), ct.byref(size)) == OK
    assert ct.string_at(data, size.value) == b"<|fim_middle|>"
    assert lib.gristmill_token_bytes(model, 331, ct.byref(data), ct.byref(size)) == BAD_ARGUMENT
    lib.gristmill_model_close(model)


def test_a_damaged_file_is_refused_with_its_byte(lib: Any, path: Path, error: Error) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 16
    spoiled, model = bytes(data), ct.c_void_p()
    size = ct.c_int64(len(spoiled))
    open_memory = lib.gristmill_model_open_memory
    assert open_memory(ct.byref(model), spoiled, size, 1, ct.byref(error)) == BAD_FILE
    assert b"sha256" in error.text
    assert 0 < error.offset < len(spoiled)
    assert not model
    assert open_memory(ct.byref(model), spoiled, size, 0, ct.byref(error)) == OK
    lib.gristmill_model_close(model)
    assert open_memory(ct.byref(model), None, ct.c_int64(0), 0, ct.byref(error)) == BAD_ARGUMENT
    assert lib.gristmill_model_open(ct.byref(model), None, 0, ct.byref(error)) == BAD_ARGUMENT
    lib.gristmill_model_close(None)
    lib.gristmill_session_close(None)


def test_session_generates_what_python_generates(lib: Any, path: Path, error: Error) -> None:
    model, session = opened(lib, path, error), ct.c_void_p()
    limit = ct.c_int64(129)
    make = lib.gristmill_session_new
    assert make(ct.byref(session), model, limit, ct.byref(error)) == BAD_ARGUMENT
    assert b"1 to 128" in error.text
    assert make(ct.byref(session), model, ct.c_int64(32), ct.byref(error)) == OK
    planned = ct.c_int64()
    assert lib.gristmill_plan(model, ct.c_int64(32), ct.byref(planned), None) == OK
    assert planned.value > 0
    same = _C.Session(_C.Model(str(path), True), 32)
    logits = np.zeros(331, np.float32)
    pointer = logits.ctypes.data_as(ct.POINTER(ct.c_float))
    options = Sampling(ct.sizeof(Sampling), 0.8, 20, 0.95, 0.0, 0, 42)
    ids, id = [5, 6, 7], ct.c_int32()
    for _ in range(8):
        block = (ct.c_int32 * len(ids))(*ids)
        assert lib.gristmill_eval(session, block, ct.c_int64(len(ids)), pointer, None) == OK
        assert logits.tobytes() == same.eval(ids).tobytes()
        at = lib.gristmill_session_length(session)
        assert at == same.length
        sample = lib.gristmill_sample
        assert sample(session, pointer, ct.byref(options), ct.c_int64(at), ct.byref(id), None) == OK
        assert id.value == _C.sample(logits, 0.8, 20, 0.95, 0.0, 42, at)
        ids = [id.value]
    block = (ct.c_int32 * 40)()
    assert lib.gristmill_eval(session, block, ct.c_int64(40), pointer, ct.byref(error)) == NO_ROOM
    assert lib.gristmill_session_truncate(session, ct.c_int64(99), None) == BAD_ARGUMENT
    assert lib.gristmill_session_truncate(session, ct.c_int64(0), None) == OK
    lib.gristmill_session_close(session)
    lib.gristmill_model_close(model)


class Sequence(ct.Structure):
    """gristmill_sequence."""

    _fields_ = (("session", ct.c_void_p), ("ids", ct.c_void_p), ("n", ct.c_int64))


def test_several_sessions_in_one_step(lib: Any, path: Path, error: Error) -> None:
    model, ids = opened(lib, path, error), [[5, 6, 7], [8], [9, 10]]
    blocks = [(ct.c_int32 * len(part))(*part) for part in ids]
    parts = (Sequence * 3)()
    for part, block in zip(parts, blocks, strict=True):
        session = ct.c_void_p()
        assert lib.gristmill_session_new(ct.byref(session), model, ct.c_int64(4), None) == OK
        part.session, part.ids, part.n = session, ct.addressof(block), len(block)
    logits = np.zeros((3, 331), np.float32)
    pointer = logits.ctypes.data_as(ct.POINTER(ct.c_float))
    step = lib.gristmill_eval_batch
    assert step(parts, ct.c_int64(3), pointer, ct.byref(error)) == OK
    same = _C.Model(str(path), True)
    for row, part in zip(logits, ids, strict=True):
        assert row.tobytes() == _C.Session(same, 4).eval(part).tobytes()
    assert step(parts, ct.c_int64(3), pointer, ct.byref(error)) == NO_ROOM
    assert error.text.startswith(b"sequence 0 of 3: 3 tokens do not fit")
    lengths = [lib.gristmill_session_length(ct.c_void_p(part.session)) for part in parts]
    assert lengths == [3, 1, 2]
    parts[0].n, blocks[1][0] = 1, 331
    assert step(parts, ct.c_int64(3), pointer, ct.byref(error)) == BAD_ARGUMENT
    assert step(parts, ct.c_int64(0), pointer, ct.byref(error)) == BAD_ARGUMENT
    for part in parts:
        lib.gristmill_session_close(ct.c_void_p(part.session))
    parts[0].session = None
    assert step(parts, ct.c_int64(1), pointer, ct.byref(error)) == BAD_ARGUMENT
    lib.gristmill_model_close(model)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("flags", [["-std=c99", "-xc"], ["-std=c++11", "-xc++"]])
def test_header_compiles_as_c99_and_cpp(flags: list[str], tmp_path: Path) -> None:
    source = tmp_path / "use.c"
    source.write_text('#include "gristmill.h"\nint main(void) { return GRISTMILL_OK; }\n')
    command = ["gcc", *flags, "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    subprocess.run([*command, f"-I{ROOT}/csrc/runtime", str(source)], check=True)
