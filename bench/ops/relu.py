"""relu: forward and backward, float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

from bench.activation import Activation, activation_cases
from bench.measure import Case, run, torch
from bench.peers_numpy import relu_forward

from gristmill.backend import _C
from gristmill.ops.relu import reference_backward, reference_forward


def cases() -> Iterator[Case]:
    yield from activation_cases(
        Activation(
            lambda out, x: _C.relu_forward(out, x),
            lambda dx, dout, out: _C.relu_backward(dx, dout, out),
            (reference_forward, reference_backward),
            (
                lambda o, x: torch.ops.aten.relu.out(x, out=o),
                lambda o, d, y: torch.ops.aten.threshold_backward.grad_input(d, y, 0, grad_input=o),
            ),
            lambda out, x: relu_forward(out, x)(),
            roundings=1,
        )
    )


if __name__ == "__main__":
    run(cases)
