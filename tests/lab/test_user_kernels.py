"""Kernels as a user writes them, through the lab: numba, C++, and a whole model on one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sources import RIGHT, written

import gristmill as gm
from gristmill import lab
from gristmill.backend import _C
from gristmill.errors import KernelError
from gristmill.lab.case import U

# On all threads, in float32 as the contract asks: 1 + erf would cancel, exp(-2 u) may overflow.
GELU = """
import math
import numpy as np
from gristmill.lab import jit

@jit.rows("gelu")
def gelu(a, i):
    x, out = jit.row(a.x, i, a.cols), jit.row(a.out, i, a.cols)
    for j in range(a.cols):
        v = np.float64(x[j])
        if a.approximate:
            u = 0.7978845608028654 * (v + 0.044715 * v * v * v)
            out[j] = v / (1 + math.exp(min(-2 * u, 700.0)))
        else:
            out[j] = 0.5 * v * math.erfc(-v * 0.7071067811865476)
"""

LAYERNORM = """
#include "kernels.h"
#include <cmath>
using namespace gristmill;
extern "C" Status layernorm_forward(Context* ctx, const LayernormForwardArgs* a) {
  if (a->x.dtype != DType::f32 || a->out.accumulate) return Status::unsupported;
  ctx->parallel_for(ctx, a->rows, [](void* p, int64_t i) {
    auto* a = static_cast<const LayernormForwardArgs*>(p);
    const float* x = static_cast<const float*>(a->x.data) + i * a->x.strides[0];
    float* out = static_cast<float*>(a->out.data) + i * a->out.strides[0];
    const float* weight = static_cast<const float*>(a->weight.data);
    const float* bias = static_cast<const float*>(a->bias.data);
    double sum = 0, square = 0;
    for (int64_t j = 0; j < a->cols; ++j) sum += x[j];
    const double mean = sum / a->cols;
    for (int64_t j = 0; j < a->cols; ++j) square += (x[j] - mean) * (x[j] - mean);
    const double rstd = 1 / std::sqrt(square / a->cols + a->eps);
    for (int64_t j = 0; j < a->cols; ++j)
      out[j] = static_cast<float>((x[j] - mean) * rstd * weight[j * a->weight.strides[0]] +
                                  (bias ? bias[j * a->bias.strides[0]] : 0.0f));
    if (a->mean.data) static_cast<float*>(a->mean.data)[i * a->mean.strides[0]] = mean;
    if (a->rstd.data) static_cast<float*>(a->rstd.data)[i * a->rstd.strides[0]] = rstd;
  }, const_cast<LayernormForwardArgs*>(a));
  return Status::ok;
}
"""


def mine(folder: Path, text: str) -> str:
    (folder / "mine.py").write_text(text)
    return f"{folder / 'mine.py'}:gelu"


def test_a_cpp_layernorm_is_right(tmp_path: Path) -> None:
    report = lab.check("layernorm", written(tmp_path, LAYERNORM))
    assert report.cases > 20
    assert all("bfloat16" in kind or "accumulating" in kind for kind in report.refused)


def test_a_numba_gelu_is_right(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    report = lab.check("gelu", mine(tmp_path, GELU))
    assert report.op == "gelu_forward"
    assert all("bfloat16" in kind or "accumulating" in kind for kind in report.refused)


def test_a_numba_gelu_that_cancels_is_told_where(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    text = GELU.replace("math.erfc(-v * 0.7071067811865476)", "(1 + math.erf(v * 0.70710678118))")
    with pytest.raises(KernelError, match=r"gelu_forward-erf-1x\d+-float32-plain on 1 thread: out"):
        lab.check("gelu", mine(tmp_path, text))


def test_a_cfunc_of_another_signature_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    text = GELU.replace('jit.rows("gelu")', 'jit.rows("silu")').replace("if a.approximate", "if i")
    with pytest.raises(KernelError, match=r"wrong signature: .*jit.kernel\(.gelu_forward.\)"):
        lab.check("gelu", mine(tmp_path, text))


def test_a_whole_entry_with_numba(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    text = GELU.replace('@jit.rows("gelu")\ndef gelu(a, i):', "@jit.numba.njit\ndef one(a, i):")
    text += """
@jit.kernel("gelu_forward")
def gelu(ctx, a):
    if a.x.dtype != 0 or a.out.accumulate != 0:
        return jit.UNSUPPORTED
    for i in range(a.rows):
        one(a, i)
    return jit.OK
"""
    assert lab.check("gelu", mine(tmp_path, text)).cases > 20


def losses(steps: int, rate: float) -> tuple[list[float], list[float]]:
    """Loss of every step of a small GPT-2, and the sum of the gradient's magnitudes."""
    gm.manual_seed(1)
    config = gm.models.GPT2Config(vocab_size=67, n_positions=32, n_embd=48, n_layer=2, n_head=3)
    model = gm.models.GPT2(config)
    optimizer = gm.optim.AdamW(model.parameters(), lr=rate)
    ids = np.random.default_rng(2).integers(0, 67, (4, 33), dtype=np.int32)
    batch = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])
    taken, sizes = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(*batch)
        loss.backward()
        sizes.append(sum(float(np.abs(p.grad.numpy()).sum()) for p in model.parameters()))
        optimizer.step()
        taken.append(loss.item())
    return taken, sizes


def test_a_gpt2_trains_on_a_users_gelu_as_on_ours(tmp_path: Path) -> None:
    """Both gelus are within 33 U of the twin for |x| <= 3 (lab/cases/gelu.py). An activation that
    is off by that moves the loss by as much of it; and the gradient, so that every weight's step,
    at most the learning rate, leads elsewhere: the loss follows by rate |g| as much."""
    pytest.importorskip("numba")
    rate, steps = 1e-3, 20
    ours, sizes = losses(steps, rate)
    lab.use("gelu", mine(tmp_path, GELU))
    assert [e["name"] for e in _C.entries() if e["replaced"]] == ["gelu_forward"]
    theirs, _ = losses(steps, rate)
    assert theirs != ours  # other bits: it was the user's
    assert ours[-1] < 0.9 * ours[0]
    error = 2 * 33 * U
    moved = np.cumsum([0.0, *(rate * size for size in sizes[:-1])])
    np.testing.assert_array_less(np.abs(np.subtract(ours, theirs)), error * (np.abs(ours) + moved))
    lab.reset("gelu")
    assert losses(steps, rate)[0] == ours


def test_a_model_on_a_kernel_that_refuses_is_told(tmp_path: Path) -> None:
    lab.use("silu", written(tmp_path, RIGHT))
    x = gm.from_numpy(np.ones((2, 3), np.float32))
    assert gm.ops.silu.silu(x).numpy()[0, 0] == pytest.approx(0.7310586)
