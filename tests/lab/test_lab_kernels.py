"""Kernels from outside: into the table and out of it, files that are no kernels, keys, the ABI."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest
from sources import RIGHT, written

from gristmill import keys, lab
from gristmill._tensor import Tensor
from gristmill.backend import _C, fused
from gristmill.errors import KernelError
from gristmill.lab import compiling, kernels
from gristmill.ops.silu import silu


def test_a_cpp_file_replaces_silu_and_turns_the_fusion_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fused("swiglu_forward")
    lab.use("silu", written(tmp_path, RIGHT))
    assert not fused("swiglu_forward")
    assert "swiglu_forward" in capsys.readouterr().out
    lab.reset("silu")
    assert fused("swiglu_forward") == before


def test_a_kernel_that_refuses_bfloat16_is_an_error_in_the_engine(tmp_path: Path) -> None:
    lab.use("silu", written(tmp_path, RIGHT))
    x = Tensor(_C.from_numpy(np.zeros((2, 3), np.uint16), True))
    with pytest.raises(RuntimeError, match=r"silu_forward .*put in its place.*unsupported dtype"):
        silu(x)


def test_a_file_that_does_not_compile_says_why(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"mine.cpp does not compile:\n.*mine.cpp:1:"):
        lab.use("silu", written(tmp_path, "int main( {"))


def test_a_file_without_the_entry_says_so(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match='extern "C" silu_forward'):
        lab.use("silu", written(tmp_path, "int x;"))


CHANGED = {  # file, old, new
    "a field more": ("kernels.h", "GM_SILU_FORWARD(F) ", 'GM_SILU_FORWARD(F) F(int64_t, v, "")'),
    "another order in View": (
        "core/types.h",
        "  DType dtype;\n  int32_t accumulate;",
        "  int32_t accumulate;\n  DType dtype;",
    ),
    "another Context": ("kernels.h", "  int32_t threads;\n", "  int32_t other, threads;\n"),
}


@pytest.mark.parametrize(("file", "old", "new"), CHANGED.values(), ids=CHANGED)
def test_a_file_compiled_with_other_structs_is_refused(
    file: str, old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "csrc"
    shutil.copytree(compiling.headers() / "core", other / "core")
    shutil.copy(compiling.headers() / "kernels.h", other)
    text = (other / file).read_text()
    assert old in text
    (other / file).write_text(text.replace(old, new))
    monkeypatch.setattr(compiling, "headers", lambda: other)
    with pytest.raises(KernelError, match=rf"ABI \d+.*\(ABI {_C.abi()}\).*reinstall gristmill"):
        lab.use("silu", written(tmp_path, RIGHT))
    assert lab.active() == {}
    assert lab.check("silu").refused == ()


def test_an_unknown_op_lists_those_there_are() -> None:
    with pytest.raises(KeyError, match="matmul"):
        lab.use("sliu", 0)


def test_the_kernel_is_part_of_the_key_of_a_run(tmp_path: Path) -> None:
    assert keys.swapped_kernels() == {}
    seen = []
    for text in (RIGHT, RIGHT, RIGHT.replace("1.0f +", "1.5f +")):
        lab.use("silu", written(tmp_path, text), checked=False)
        assert keys.swapped_kernels() == lab.active()
        seen.append(lab.active()["silu_forward"])
    assert seen[0] == seen[1] != seen[2]
    lab.reset("silu")
    assert keys.swapped_kernels() == {}


def test_results_of_a_kernel_that_cannot_be_read_are_never_reused(tmp_path: Path) -> None:
    lab.use("silu", written(tmp_path, RIGHT))
    address = kernels.own("silu").address
    seen = []
    for _ in range(2):
        lab.use("silu", address, checked=False)
        assert keys.swapped_kernels() == lab.active()
        seen.append(lab.active()["silu_forward"])
    assert seen[0] != seen[1]
    lab.reset("silu")
    _C.swap("silu_forward", address)  # past the lab
    assert lab.active() == {}
    assert keys.swapped_kernels()["silu_forward"].startswith("unknown")


def test_another_table_forgets_the_kernel(tmp_path: Path) -> None:
    lab.use("silu", written(tmp_path, RIGHT))
    _C.select(_C.table())
    assert lab.active() == {}


def test_a_replaced_kernel_has_no_workspace_unless_it_brings_one() -> None:
    ok, asked = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2), []
    size = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32)

    @ok
    def kernel(context: int, args: int) -> int:
        fields = {f["name"]: f for f in _C.describe("Context")["fields"]}
        at = context + fields["workspace_bytes"]["offset"]
        asked.append(ctypes.c_int64.from_address(at).value)
        return 0

    need = size(lambda args, threads: 4096)
    where = [ctypes.cast(f, ctypes.c_void_p).value for f in (kernel, need)]
    a = _C.empty((1, 8, 8))
    for workspace in ((), where[1:]):
        _C.swap("matmul", where[0], *workspace)
        _C.matmul(a, a, a, "float32")
    _C.swap("matmul", None)
    assert asked == [0, 4096]


WRONG_SIGNATURES = {
    "arguments": ("const SiluForwardArgs* a) {", "const SiluBackwardArgs* a) {"),
    "result": ('extern "C" Status', 'extern "C" int'),
}


@pytest.mark.parametrize("what", WRONG_SIGNATURES)
def test_a_wrong_signature_is_refused_while_compiling(what: str, tmp_path: Path) -> None:
    text = """#include "kernels.h"
using namespace gristmill;
extern "C" Status silu_forward(Context*, const SiluForwardArgs* a) {
  return a ? Status::unsupported : Status::unsupported;
}
""".replace(*WRONG_SIGNATURES[what])
    if what == "result":
        text = text.replace("Status::unsupported :", "1 :").replace(": Status::unsupported", ": 1")
    with pytest.raises(KernelError, match=r"it must be Status silu_forward\(Context\*, const Silu"):
        lab.use("silu", written(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.cpp", r"there is no file .*none\.cpp; a kernel is mine\.py:name"),
        ("mine.rs", r"neither \.py, \.cpp nor \.cu"),
        ("mine.py:other", "has no 'other'"),
        ("mine.py", "defines none of silu, silu_forward, silu_backward; name the kernel"),
        ("mine.py:plain", r"no kernel of silu_forward: it has no address.*jit\.kernel"),
        ("bad.py:x", "does not run: ZeroDivisionError"),
    ],
)
def test_files_that_are_no_kernels(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.rs").write_text("")
    (tmp_path / "mine.py").write_text("def plain(ctx, a): return 0\n")
    (tmp_path / "bad.py").write_text("1 / 0\n")
    with pytest.raises(KernelError, match=message):
        lab.use("silu", str(tmp_path / name))


def test_a_cuda_file_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "mine.cu"
    source.write_text(RIGHT)
    if shutil.which("nvcc") and not compiling.device():
        with pytest.raises(KernelError, match=r"compiles, and cannot run: .* no CUDA device"):
            lab.use("silu", source)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KernelError, match="nvcc is not here; install the CUDA toolkit"):
        lab.use("silu", source)


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(KernelError, match=r"no C\+\+ compiler found; install one"):
        lab.use("silu", written(tmp_path, RIGHT))


def test_describe_gives_offsets_in_order() -> None:
    fields = _C.describe("silu_forward")["fields"]
    offsets = [f["offset"] for f in fields]
    assert offsets == sorted(offsets)
    assert fields[0]["name"] == "out"
