"""SGD, RMSprop, Adam and AdamW: one kernel call per run, with torch.optim's names and meanings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gristmill.backend import _C, Array
from gristmill.optim.optimizer import Optimizer, Run


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as torch.optim.SGD."""

    def __init__(
        self, params: Sequence[Any], lr: float = 1e-2, momentum: float = 0.0,
        dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
            nesterov=float(nesterov),
        )  # fmt: skip

    def states(self, options: dict[str, float]) -> tuple[str, ...]:
        return ("velocity",) if options["momentum"] else ()

    def _update(self, run: Run) -> None:
        o = run.options
        _C.sgd(
            run.value, run.state.get("velocity"), run.grad,
            _scalars(self._rate(run), self.scale, float(self.steps == 1)),
            o["momentum"], o["dampening"], o["weight_decay"], bool(o["nesterov"]),
        )  # fmt: skip


class RMSprop(Optimizer):
    """Gradients over the root of their average square, as torch.optim.RMSprop."""

    def __init__(
        self, params: Sequence[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum,
            centered=float(centered),
        )  # fmt: skip

    def states(self, options: dict[str, float]) -> tuple[str, ...]:
        mean = ("mean",) if options["centered"] else ()
        return ("square", *mean, *(("velocity",) if options["momentum"] else ()))

    def _update(self, run: Run) -> None:
        o, state = run.options, run.state
        _C.rmsprop(
            run.value, state["square"], state.get("mean"), state.get("velocity"), run.grad,
            _scalars(self._rate(run), self.scale),
            o["alpha"], o["eps"], o["weight_decay"], o["momentum"],
        )  # fmt: skip


class Adam(Optimizer):
    """Adam, as torch.optim.Adam: the decay is added to the gradient.

    `state_dtype` "bfloat16" halves the memory of both averages. They are rounded at random, by a
    pure function of step and element: rounded to nearest they would stop moving.
    """

    _entry = "adam"

    def __init__(
        self, params: Sequence[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, *, state_dtype: str = "float32",
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, beta1=betas[0], beta2=betas[1], eps=eps, weight_decay=weight_decay
        )
        if state_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"state_dtype is '{state_dtype}', allowed are float32 and bfloat16")
        self.state_dtype = state_dtype

    def states(self, options: dict[str, float]) -> tuple[str, ...]:
        return ("m", "v")

    def _update(self, run: Run) -> None:
        o = run.options
        past = [1 - o[beta] ** self.steps for beta in ("beta1", "beta2")]
        getattr(_C, self._entry)(
            run.value, run.state["m"], run.state["v"], run.grad,
            _scalars(self._rate(run), self.scale, *past),
            o["beta1"], o["beta2"], o["eps"], o["weight_decay"], run.number, self.steps,
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay, as torch.optim.AdamW. Loshchilov and Hutter, ICLR 2019."""

    _entry = "adamw"

    def __init__(
        self, params: Sequence[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.01, *, state_dtype: str = "float32",
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, state_dtype=state_dtype)


def _scalars(*values: float) -> Array:
    return _C.from_numpy(np.array(values, np.float32))
