"""What optimizers share: neighbouring parameters of a flat buffer are one run, and one update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gristmill._tensor import Parameter
from gristmill.autograd import fill
from gristmill.backend import _C, Array


class Run:
    """Neighbouring parameters that share options: one value, one gradient, one state array each."""

    def __init__(self, members: list[Parameter], options: dict[str, float], number: int) -> None:
        self.members, self.options, self.number = members, options, number
        n = sum(p.size for p in members)
        self.value = _C.span(members[0].array, (n,))
        self.grad = _C.span(members[0].slot.memory(), (n,))
        self.state: dict[str, Array] = {}


class Optimizer:
    """Common part: parameter groups, runs, the norm of all gradients, state by array.

    A group may have options of its own, and `lr_scale`, a factor on the learning rate.
    """

    state_dtype = "float32"

    def __init__(self, params: Sequence[Any], lr: float, **options: float) -> None:
        self.lr, self.steps, self.scale = lr, 0, 1.0
        groups = list(params) if params and isinstance(params[0], dict) else [{"params": params}]
        self.groups = [(list(g["params"]), {**options, **_rest(g)}) for g in groups]
        for members, _ in self.groups:  # a frozen one has no gradient and gets no state
            members[:] = [p for p in members if p.requires_grad]
        if not any(members for members, _ in self.groups):
            raise ValueError("optimizer got no parameters")
        self._runs: list[Run] = []

    def runs(self) -> list[Run]:
        """Made at the first step, when every parameter is where it stays."""
        if not self._runs:
            for members, options in self.groups:
                grads = [p.slot.memory() for p in members]
                chain: list[Parameter] = []
                end = None
                for p, g in zip(members, grads, strict=True):
                    if chain and end != (p.array.data_ptr, g.data_ptr):
                        self._runs.append(Run(chain, options, len(self._runs)))
                        chain = []
                    chain.append(p)
                    end = (p.array.data_ptr + p.array.nbytes, g.data_ptr + p.array.nbytes)
                self._runs.append(Run(chain, options, len(self._runs)))
            for run in self._runs:
                for name in self.states(run.options):
                    run.state[name] = _C.empty(run.value.shape, self.state_dtype)
                    fill(run.state[name], 0.0)
        return self._runs

    def states(self, options: dict[str, float]) -> tuple[str, ...]:
        """Names of the arrays that a run with these options keeps from step to step."""
        return ()

    def _ready(self) -> list[Run]:
        """The runs, after parameters no gradient reached were given zero."""
        missing = [p for members, _ in self.groups for p in members if p.grad is None]
        for p in missing:
            fill(p.slot.out(), 0.0)
        runs = self.runs()
        for members, _ in self.groups:
            for p in members:
                p.slot.filled = True
        return runs

    def gradients(self) -> list[Array]:
        """All gradients, one (n,) array per run."""
        return [run.grad for run in self._ready()]

    def grad_norm(self) -> float:
        """Euclidean norm of all gradients together."""
        total = 0.0
        out = _C.empty((1,))
        for run in self._ready():
            n = run.grad.size
            _C.reduce(out, run.grad.view((1, n), (n, 1), 0), "sum_of_squares")
            total += float(out.numpy()[0])
        return math.sqrt(total)

    def clip(self, max_norm: float) -> float:
        """Scale the next step's gradients to a norm of at most `max_norm`; the norm before."""
        norm = self.grad_norm()
        self.scale = min(1.0, max_norm / norm) if max_norm > 0 and norm > 0 else 1.0
        return norm

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for members, _ in self.groups:
            for p in members:
                p.zero_grad()

    def step(self) -> None:
        """Update every parameter."""
        self.steps += 1
        for run in self._ready():
            self._update(run)
            for p in run.members:
                p.version += 1
        self.scale = 1.0

    def _rate(self, run: Run) -> float:
        """The learning rate of a run: a group may have `lr_scale`."""
        return self.lr * run.options.get("lr_scale", 1.0)

    def _update(self, run: Run) -> None:
        raise TypeError(f"{type(self).__name__} defines no update")

    def state_dict(self) -> dict[str, Any]:
        """Step count and the state arrays, (n,) float32 or the uint16 bits of bfloat16."""
        arrays = {
            f"{i}.{k}": v.numpy() for i, r in enumerate(self.runs()) for k, v in r.state.items()
        }
        return {"steps": self.steps, "arrays": arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The opposite; raises ValueError when the arrays belong to another model."""
        mine = self.state_dict()["arrays"]
        shapes = {k: (v.shape, v.dtype.name) for k, v in mine.items()}
        theirs = {k: (np.shape(v), np.asarray(v).dtype.name) for k, v in state["arrays"].items()}
        if shapes != theirs:
            raise ValueError(f"optimizer state has arrays {theirs}, this model needs {shapes}")
        for name, array in mine.items():
            array[...] = state["arrays"][name]
        self.steps = int(state["steps"])


def _rest(group: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in group.items() if k != "params"}
