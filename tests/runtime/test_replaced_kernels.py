"""A user's silu is what the engine and the session both run: the fused swiglu must step aside."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny import write_model

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")
gm = pytest.importorskip("gristmill")

from gristmill import lab  # noqa: E402
from gristmill._tensor import Tensor  # noqa: E402
from gristmill.ops.swiglu import swiglu  # noqa: E402

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

# x / (1.5 + exp(-x)): other values than silu's in nearly every place
FORWARD = """
#include "kernels.h"
#include <cmath>
using namespace gristmill;
extern "C" Status silu_forward(Context*, const SiluForwardArgs* a) {
  for (int64_t i = 0; i < a->rows; ++i)
    for (int64_t j = 0; j < a->cols; ++j) {
      const float x = static_cast<const float*>(a->x.data)[i * a->x.strides[0] + j];
      static_cast<float*>(a->out.data)[i * a->out.strides[0] + j] = x / (1.5f + std::exp(-x));
    }
  return Status::ok;
}
"""
BACKWARD = """
#include "kernels.h"
using namespace gristmill;
extern "C" Status silu_backward(Context*, const SiluBackwardArgs* a) {
  for (int64_t i = 0; i < a->rows; ++i)
    for (int64_t j = 0; j < a->cols; ++j)
      static_cast<float*>(a->dx.data)[i * a->dx.strides[0] + j] = 7.0f;
  return Status::ok;
}
"""


@pytest.fixture(autouse=True)
def own_kernels_again() -> Iterator[None]:
    yield
    lab.reset("silu")
    lab.reset("silu_backward")


def written(folder: Path, source: str) -> Path:
    path = folder / "kernel.cpp"
    path.write_text(source)
    return path


@needs_compiler
def test_a_replaced_silu_shows_in_engine_and_session_alike(tmp_path: Path) -> None:
    file = _C.Model(str(write_model(tmp_path)), True)
    model = gm.models.from_pretrained(tmp_path)
    ids = np.random.default_rng(5).integers(0, 331, 70).astype(np.int32)

    def both() -> tuple[bytes, bytes]:
        with gm.no_grad():
            engine = model(ids[None]).numpy()[0].tobytes()
        session = _C.Session(file, 70)
        prefill = session.eval_all(ids[:66].tolist()).tobytes()
        decode = b"".join(session.eval([i]).tobytes() for i in ids[66:].tolist())
        return engine, prefill + decode

    engine, session = both()
    assert engine == session
    lab.use("silu", written(tmp_path, FORWARD), checked=False)
    own_engine, own_session = both()
    assert own_engine == own_session
    assert own_session != session
    lab.reset("silu")
    assert both() == (engine, session)


@needs_compiler
def test_a_replaced_silu_backward_gives_the_gradient_of_swiglu(tmp_path: Path) -> None:
    values = np.array([[0.5, -1.0, 2.0]], np.float32)

    def gradient() -> list[float]:
        gate = Tensor(_C.from_numpy(values), requires_grad=True)
        swiglu(gate, Tensor(_C.from_numpy(values))).sum().backward()
        return [float(x) for x in gate.grad.numpy()[0]]

    own = gradient()
    lab.use("silu_backward", written(tmp_path, BACKWARD), checked=False)
    assert gradient() == [7.0, 7.0, 7.0]
    lab.reset("silu_backward")
    assert gradient() == own


def test_fused_asks_for_every_part_of_an_entry() -> None:
    address = 4096  # never called
    assert _C.fused("swiglu_forward")
    assert _C.fused("linear_cross_entropy")
    assert not _C.fused("no_such_entry")
    try:
        _C.swap("silu_backward", address)
        assert _C.fused("swiglu_forward")
        assert not _C.fused("swiglu_backward")
        _C.swap("cross_entropy_backward", address)  # the last of three parts
        assert not _C.fused("linear_cross_entropy")
        assert _C.fused("cross_entropy_backward")  # a plain entry contains nothing
    finally:
        _C.swap("silu_backward", None)
        _C.swap("cross_entropy_backward", None)
    assert _C.fused("swiglu_backward")
