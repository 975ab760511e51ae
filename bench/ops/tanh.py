"""tanh: forward and backward, float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

from bench.activation import Activation, activation_cases
from bench.measure import Case, run, torch
from bench.peers_numpy import tanh_forward

from gristmill.backend import _C
from gristmill.ops.tanh import reference_backward, reference_forward


def cases() -> Iterator[Case]:
    yield from activation_cases(
        Activation(
            lambda out, x: _C.tanh_forward(out, x),
            lambda dx, dout, out: _C.tanh_backward(dx, dout, out),
            (reference_forward, reference_backward),
            (
                lambda o, x: torch.ops.aten.tanh.out(x, out=o),
                lambda o, d, y: torch.ops.aten.tanh_backward.grad_input(d, y, grad_input=o),
            ),
            lambda out, x: tanh_forward(out, x)(),
            roundings=8,
        )
    )


if __name__ == "__main__":
    run(cases)
