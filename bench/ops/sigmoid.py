"""sigmoid: forward and backward, float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

from bench.activation import Activation, activation_cases
from bench.measure import Case, run, torch
from bench.peers_numpy import sigmoid_forward

from gristmill.backend import _C
from gristmill.ops.sigmoid import reference_backward, reference_forward


def cases() -> Iterator[Case]:
    yield from activation_cases(
        Activation(
            lambda out, x: _C.sigmoid_forward(out, x),
            lambda dx, dout, out: _C.sigmoid_backward(dx, dout, out),
            (reference_forward, reference_backward),
            (
                lambda o, x: torch.ops.aten.sigmoid.out(x, out=o),
                lambda o, d, y: torch.ops.aten.sigmoid_backward.grad_input(d, y, grad_input=o),
            ),
            lambda out, x: sigmoid_forward(out, x)(),
            roundings=9,
        )
    )


if __name__ == "__main__":
    run(cases)
