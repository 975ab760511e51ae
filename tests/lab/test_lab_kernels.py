"""The contract's acceptance test: a kernel from outside, right and wrong, through the lab."""

import numpy as np
import pytest

from gristmill import lab
from gristmill.backend import _C, fused
from gristmill.errors import ReproError

RIGHT = """
#include "kernels.h"
#include <cmath>
using namespace gristmill;
extern "C" Status silu_forward(Context* ctx, const SiluForwardArgs* a) {
  ctx->parallel_for(ctx, a->rows, [](void* p, int64_t i) {
    auto* a = static_cast<const SiluForwardArgs*>(p);
    const float* x = static_cast<const float*>(a->x.data) + i * a->x.strides[0];
    float* out = static_cast<float*>(a->out.data) + i * a->out.strides[0];
    for (int64_t j = 0; j < a->cols; ++j) out[j] = x[j] / (1.0f + std::exp(-x[j]));
  }, const_cast<SiluForwardArgs*>(a));
  return Status::ok;
}
"""


@pytest.fixture(autouse=True)
def own_kernel_afterwards():
    yield
    lab.reset("silu")


def test_the_tables_own_kernel_passes():
    assert lab.check("silu").ok


def test_a_cpp_file_replaces_silu_and_turns_the_fusion_off(tmp_path, capsys):
    source = tmp_path / "mine.cpp"
    source.write_text(RIGHT)
    before = fused("swiglu_forward")
    lab.use("silu", source)
    assert not fused("swiglu_forward")
    assert "swiglu_forward" in capsys.readouterr().out
    assert lab.check("silu").cases == 21
    lab.reset("silu")
    assert fused("swiglu_forward") == before


def test_a_wrong_kernel_is_caught_with_its_place(tmp_path):
    source = tmp_path / "wrong.cpp"
    source.write_text(RIGHT.replace("j < a->cols", "j < a->cols / 16 * 16"))
    lab.use("silu", source)
    with pytest.raises(ReproError, match=r"shape \(1, 1\), element \(0, 0\): nan"):
        lab.check("silu")


def test_a_file_that_does_not_compile_says_why(tmp_path):
    source = tmp_path / "broken.cpp"
    source.write_text("int main( {")
    with pytest.raises(RuntimeError, match="does not compile"):
        lab.use("silu", source)


def test_a_file_without_the_entry_says_so(tmp_path):
    source = tmp_path / "empty.cpp"
    source.write_text("int x;")
    with pytest.raises(RuntimeError, match='extern "C" silu_forward'):
        lab.use("silu", source)


def test_an_unknown_op_lists_those_there_are():
    with pytest.raises(KeyError, match="matmul"):
        lab.use("sliu", 0)


def test_a_numba_cfunc_replaces_silu():
    numba = pytest.importorskip("numba")
    from numba import carray, cfunc, types

    from gristmill.lab.kernels import record

    args = numba.from_dtype(record("silu"))

    @cfunc(types.int32(types.voidptr, types.CPointer(args)))
    def kernel(ctx, p):
        a = carray(p, 1)[0]
        n = a.rows * a.cols
        x = carray(address(a.x.data), n, np.float32)
        out = carray(address(a.out.data), n, np.float32)
        for i in range(n):
            out[i] = x[i] / (np.float32(1) + np.exp(-x[i]))
        return 0

    lab.use("silu", kernel)
    assert lab.check("silu").ok


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


def test_describe_gives_offsets_in_order():
    fields = _C.describe("silu_forward")["fields"]
    offsets = [f["offset"] for f in fields]
    assert offsets == sorted(offsets) and fields[0]["name"] == "out"
