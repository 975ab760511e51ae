"""The contract's acceptance test: kernels from outside, right and wrong, through the lab."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gristmill import keys, lab
from gristmill._tensor import Tensor
from gristmill.backend import _C, fused
from gristmill.errors import ReproError
from gristmill.lab import checking, kernels
from gristmill.lab.checking import SHAPES
from gristmill.ops.silu import silu

# float32 only, any stride between rows, adds or overwrites
RIGHT = """
#include "kernels.h"
#include <cmath>
using namespace gristmill;
extern "C" Status silu_forward(Context* ctx, const SiluForwardArgs* a) {
  if (a->x.dtype != DType::f32) return Status::unsupported;
  ctx->parallel_for(ctx, a->rows, [](void* p, int64_t i) {
    auto* a = static_cast<const SiluForwardArgs*>(p);
    const float* x = static_cast<const float*>(a->x.data) + i * a->x.strides[0];
    float* out = static_cast<float*>(a->out.data) + i * a->out.strides[0];
    for (int64_t j = 0; j < a->cols; ++j)
      out[j] = (a->out.accumulate ? out[j] : 0.0f) + x[j] / (1.0f + std::exp(-x[j]));
  }, const_cast<SiluForwardArgs*>(a));
  return Status::ok;
}
"""

# What a wrong kernel does, the change that makes it, and what the message must name.
WRONG = {
    "ignores strides": (
        ("* a->out.strides[0]", "* a->cols"),
        r"\(3, 17\), float32, rows with gaps, 1 thread: .*around the output, element \(0, 17\)",
    ),
    "ignores the dtype": (
        ("if (a->x.dtype != DType::f32) return Status::unsupported;", ""),
        r"\(1, 1\), bfloat16, contiguous, 1 thread: .*around the output, element \(1, 0\)",
    ),
    "ignores accumulate": (
        ("(a->out.accumulate ? out[j] : 0.0f)", "0.0f"),
        r"\(3, 17\), float32, contiguous, accumulating, 1 thread: element \(0, 0\)",
    ),
    "writes one past": (
        ("j < a->cols", "j <= a->cols"),
        r"\(1, 1\), float32, contiguous, 1 thread: .*around the output, element \(1, 0\)",
    ),
    "writes into its input": (
        ("out[j] =", "const_cast<float*>(x)[j] = out[j] ="),
        r"\(1, 1\), float32, contiguous, 1 thread: .*input 1, element \(0, 0\)",
    ),
    "leaves the tail": (
        ("j < a->cols", "j < a->cols / 8 * 8"),
        r"\(1, 1\), float32, contiguous, 1 thread: element \(0, 0\) is nan",
    ),
    "is wrong by 1e-5": (
        ("std::exp(-x[j])", "std::exp(-x[j]) * 1.00001f"),
        r"\(1, 7\), float32, contiguous, 1 thread: element \(0, \d\)",
    ),
    "asks for the threads": (
        ("  ctx->parallel_for", "  one = ctx->threads == 1;\n  ctx->parallel_for"),
        r"float32, contiguous, 2 threads: element \(0, \d+\) is .* with 1 thread .*: other bits",
    ),
    "refuses a size": (
        ("!= DType::f32", "!= DType::f32 || a->cols % 8 != 0"),
        r"refuses some sizes of float32, contiguous; all or none, shape \(1, 8\)",
    ),
    "refuses everything": (
        ("a->x.dtype != DType::f32", "true"),
        "refuses every case",
    ),
}


@pytest.fixture(autouse=True)
def own_kernels_afterwards() -> Iterator[None]:
    threads = _C.threads()
    yield
    assert _C.threads() == threads
    for entry in ("silu_forward", "silu_backward"):
        lab.reset(entry)


def written(folder: Path, text: str) -> Path:
    source = folder / "mine.cpp"
    source.write_text(text)
    return source


@pytest.mark.parametrize("op", ["silu", "silu_backward"])
def test_the_tables_own_kernels_take_every_case(op: str) -> None:
    report = lab.check(op)
    assert report.cases == len(list(checking.cases())) == 4 * (len(SHAPES) + 2)
    assert not report.refused
    assert 0 < report.worst <= 1


def test_a_cpp_file_replaces_silu_and_turns_the_fusion_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fused("swiglu_forward")
    lab.use("silu", written(tmp_path, RIGHT))
    assert not fused("swiglu_forward")
    assert "swiglu_forward" in capsys.readouterr().out
    report = lab.check("silu")
    assert report.cases == 2 * (len(SHAPES) + 2)
    assert {kind.split(",")[0] for kind in report.refused} == {"bfloat16"}
    assert "refused: bfloat16, contiguous" in str(report)
    lab.reset("silu")
    assert fused("swiglu_forward") == before


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kernel_is_caught_with_case_and_element(name: str, tmp_path: Path) -> None:
    (old, new), message = WRONG[name]
    text = RIGHT.replace(old, new)
    assert text != RIGHT
    if "one =" in text:  # the same value within the bound, other bits
        text = text.replace("using namespace gristmill;", "using namespace gristmill;\nbool one;")
        text = text.replace(
            "x[j] / (1.0f + std::exp(-x[j]))",
            "(one ? x[j] / (1.0f + std::exp(-x[j])) : x[j] * (1.0f / (1.0f + std::exp(-x[j]))))",
        )
    lab.use("silu", written(tmp_path, text))
    with pytest.raises(ReproError, match=message):
        lab.check("silu")


def test_a_kernel_that_refuses_bfloat16_is_an_error_in_the_engine(tmp_path: Path) -> None:
    lab.use("silu", written(tmp_path, RIGHT))
    x = Tensor(_C.from_numpy(np.zeros((2, 3), np.uint16), True))
    with pytest.raises(RuntimeError, match=r"silu_forward .*put in its place.*unsupported dtype"):
        silu(x)


def test_a_file_that_does_not_compile_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="does not compile"):
        lab.use("silu", written(tmp_path, "int main( {"))


def test_a_file_without_the_entry_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match='extern "C" silu_forward'):
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
    shutil.copytree(kernels.headers() / "core", other / "core")
    shutil.copy(kernels.headers() / "kernels.h", other)
    text = (other / file).read_text()
    assert old in text
    (other / file).write_text(text.replace(old, new))
    monkeypatch.setattr(kernels, "headers", lambda: other)
    with pytest.raises(RuntimeError, match=rf"ABI \d+.*\(ABI {_C.abi()}\).*reinstall gristmill"):
        lab.use("silu", written(tmp_path, RIGHT))
    assert lab.active() == {}
    assert lab.check("silu").refused == ()


def test_an_unknown_op_lists_those_there_are() -> None:
    with pytest.raises(KeyError, match="matmul"):
        lab.use("sliu", 0)


def test_an_op_without_a_twin_here_lists_those_with_one() -> None:
    with pytest.raises(KeyError, match="silu_forward, silu_backward"):
        lab.check("matmul")


def test_the_kernel_is_part_of_the_key_of_a_run(tmp_path: Path) -> None:
    assert keys.swapped_kernels() == {}
    seen = []
    for text in (RIGHT, RIGHT, RIGHT.replace("1.0f +", "1.5f +")):
        lab.use("silu", written(tmp_path, text))
        assert keys.swapped_kernels() == lab.active()
        seen.append(lab.active()["silu_forward"])
    assert seen[0] == seen[1] != seen[2]
    lab.reset("silu")
    assert keys.swapped_kernels() == {}


def test_results_of_a_kernel_that_cannot_be_read_are_never_reused(tmp_path: Path) -> None:
    lab.use("silu", written(tmp_path, RIGHT))
    address = kernels.address("silu")
    seen = []
    for _ in range(2):
        lab.use("silu", address)
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


def test_measure_times_both_and_puts_the_kernel_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lab\.use"):
        lab.measure("silu")
    lab.use("silu", written(tmp_path, RIGHT))
    before = lab.active()
    timing = lab.measure("silu", (4, 33), rounds=2)
    assert lab.active() == before
    assert timing.milliseconds > 0
    assert timing.table_milliseconds > 0
    assert timing.ratio_range[0] <= timing.ratio <= timing.ratio_range[1]
    assert "silu_forward (4, 33)" in str(timing)


def test_measure_verifies_first(tmp_path: Path) -> None:
    lab.use("silu", written(tmp_path, RIGHT.replace("1.0f +", "1.5f +")))
    with pytest.raises(ReproError, match="twin"):
        lab.measure("silu", (4, 33), rounds=2)


def test_a_numba_cfunc_replaces_silu() -> None:
    numba = pytest.importorskip("numba")
    from numba import carray, cfunc, types

    args = numba.from_dtype(kernels.record("silu"))

    @cfunc(types.int32(types.voidptr, types.CPointer(args)))
    def kernel(ctx, p):
        a = carray(p, 1)[0]
        if a.x.dtype != 0 or a.out.accumulate != 0:
            return 1  # Status::unsupported
        for i in range(a.rows):
            x = carray(address(a.x.data + 4 * i * a.x.strides[0]), a.cols, np.float32)
            out = carray(address(a.out.data + 4 * i * a.out.strides[0]), a.cols, np.float32)
            for j in range(a.cols):
                out[j] = x[j] / (np.float32(1) + np.exp(-x[j]))
        return 0

    lab.use("silu", kernel)
    report = lab.check("silu")
    assert report.cases == 2 * len(SHAPES)
    assert "float32, rows with gaps, accumulating" in report.refused


try:
    from numba import types as _types
    from numba.core import cgutils  # noqa: F401
    from numba.extending import intrinsic

    @intrinsic
    def address(typingctx, value):
        """An integer field as a pointer to float32."""
        target = _types.CPointer(_types.float32)

        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(target))

        return target(value), generate
except ImportError:
    pass


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


def test_describe_gives_offsets_in_order() -> None:
    fields = _C.describe("silu_forward")["fields"]
    offsets = [f["offset"] for f in fields]
    assert offsets == sorted(offsets)
    assert fields[0]["name"] == "out"
