"""Optimizers over a module against their twins, and the schedules' exact values."""

import math

import numpy as np
import pytest

import gristmill as gm
from gristmill.ops import adamw, sgd
from gristmill.optim import SGD, AdamW, learning_rate

U = 2.0**-24


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        # rate by step; 10 steps, peak 1
        ("constant", {}, {0: 1.0, 5: 1.0, 9: 1.0}),
        ("constant", {"warmup": 0.2}, {0: 0.5, 1: 1.0, 2: 1.0, 9: 1.0}),
        ("constant", {"warmup": 1.0}, {0: 0.1, 4: 0.5, 9: 1.0}),
        ("linear", {}, {0: 1.0, 5: 0.5, 9: 0.1}),
        ("linear", {"warmup": 0.2}, {0: 0.5, 1: 1.0, 2: 1.0, 3: 7 / 8, 9: 1 / 8}),
        ("linear", {"warmup": 0.2, "final": 0.5}, {1: 1.0, 2: 1.0, 6: 0.75, 9: 9 / 16}),
        ("cosine", {}, {0: 1.0, 5: 0.5, 9: (1 - math.cos(math.pi / 10)) / 2}),
        ("cosine", {"warmup": 0.2}, {0: 0.5, 1: 1.0, 2: 1.0, 6: 0.5,
                                     9: (1 - math.cos(math.pi / 8)) / 2}),
        ("cosine", {"warmup": 0.2, "final": 0.5}, {0: 0.5, 2: 1.0, 6: 0.75}),
        ("wsd", {"decay": 0.4}, {0: 1.0, 5: 1.0, 6: 1.0, 7: 0.75, 9: 0.25}),
        ("wsd", {"warmup": 0.2, "decay": 0.4}, {0: 0.5, 1: 1.0, 2: 1.0, 6: 1.0, 7: 0.75, 9: 0.25}),
        ("wsd", {"warmup": 0.2, "decay": 0.8}, {1: 1.0, 2: 1.0, 3: 7 / 8, 9: 1 / 8}),
        ("wsd", {"decay": 0.0, "final": 0.5}, {0: 1.0, 9: 1.0}),
        ("wsd", {"decay": 0.4, "final": 0.5}, {6: 1.0, 8: 0.75, 9: 0.625}),
    ],
)  # fmt: skip
def test_rate_of_a_step(kind, options, expected):
    got = {step: learning_rate(step, 10, 1.0, kind, **options) for step in expected}
    assert got == pytest.approx(expected, rel=4 * 2.0**-53)  # at most four roundings


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "wsd"])
@pytest.mark.parametrize("warmup", [0.0, 0.02, 1.0])
def test_a_single_step_has_the_peak(kind, warmup):
    assert learning_rate(0, 1, 0.25, kind, warmup=warmup) == 0.25


def test_an_unknown_schedule_lists_those_there_are():
    with pytest.raises(ValueError, match="'step' is not one of constant, linear, cosine, wsd"):
        learning_rate(0, 10, 1.0, "step")


class Three(gm.nn.Module):
    """Two matrices and between them a vector of another group."""

    def __init__(self):
        rng = np.random.default_rng(0)
        for name, shape in (("a", (5, 7)), ("b", (7,)), ("c", (3, 7))):
            parameter = gm.nn.Parameter(gm.zeros(*shape).array)
            setattr(self, name, parameter.copy_(rng.standard_normal(shape).astype(np.float32)))

    def groups(self):
        return [{"params": [self.a, self.c]}, {"params": [self.b], "weight_decay": 0.0}]


RATES = (0.25, 0.125, 0.0625)
MAX_NORM = 3.0  # clips the first and second step; the third is as it is
NORM = 16  # roundings of the norm: 63 squares in lanes of 16, their sum, the root; of the scale one


def three_steps(model, optimizer, update):
    """Run both; `update(t, name, param, gradient, rate, scale)` is the twin's. Returns its values.

    Gradients differ from step to step and are written by backward of (parameter * gradient).sum().
    """
    rng = np.random.default_rng(1)
    twin = {n: p.numpy().astype(np.float64) for n, p in model.named_parameters()}
    for t, rate in enumerate(RATES, start=1):
        grads = {n: rng.standard_normal(p.shape).astype(np.float32) * t
                 for n, p in model.named_parameters()}  # fmt: skip
        optimizer.zero_grad()
        for name, p in model.named_parameters():
            (p * gm.tensor(grads[name])).sum().backward()
        norm = math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
        scale = 1.0
        if t < 3:
            assert optimizer.clip(MAX_NORM) == pytest.approx(norm, rel=NORM * U)
            scale = MAX_NORM / norm
            assert scale < 1
        optimizer.lr = rate
        optimizer.step()
        for name in twin:
            twin[name] = update(t, name, twin[name], grads[name].astype(np.float64), rate, scale)
    return twin


def agree(model, twin, bound):
    """`bound` is the sum of errors of three steps; a wrong update is off by 1e-2 and more."""
    assert bound < 1e-4
    for name, p in model.named_parameters():
        assert np.abs(p.numpy() - twin[name]).max() <= bound, name


@pytest.mark.parametrize("flat", [True, False], ids=["one buffer", "scattered"])
@pytest.mark.parametrize(
    ("momentum", "dampening", "decay", "nesterov"),
    [(0.0, 0.0, 0.0, False), (0.0, 0.0, 0.5, False), (0.9, 0.0, 0.5, False),
     (0.9, 0.5, 0.5, False), (0.9, 0.0, 0.5, True)],
)  # fmt: skip
def test_sgd_is_its_twin(flat, momentum, dampening, decay, nesterov):
    model, velocity = Three(), dict.fromkeys("abc", np.zeros(()))
    if flat:
        model.flatten()
    optimizer = SGD(model.groups(), 1.0, momentum, dampening, decay, nesterov)

    def update(t, name, param, grad, rate, scale):
        used = 0.0 if name == "b" else decay
        after, velocity[name] = sgd.reference_forward(
            param, velocity[name], grad, [rate, scale, t == 1], momentum, dampening, used, nesterov
        )
        return after

    twin = three_steps(model, optimizer, update)
    # per step 10 roundings (tests/ops/test_sgd.py) of |param| + rate * |velocity|, below 8, and
    # of the gradient the NORM ones
    agree(model, twin, 3 * (10 + NORM) * U * 8)


@pytest.mark.parametrize("flat", [True, False], ids=["one buffer", "scattered"])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_adamw_is_its_twin(flat, decay):
    model = Three()
    if flat:
        model.flatten()
    constants = 0.75, 0.9375, 1e-3  # beta1 and beta2 have no rounding in float32
    optimizer = AdamW(model.groups(), 1.0, constants[:2], constants[2], decay)
    moments = {n: (np.zeros(p.shape), np.zeros(p.shape)) for n, p in model.named_parameters()}

    def update(t, name, param, grad, rate, scale):
        step = [rate, scale, 1 - constants[0] ** t, 1 - constants[1] ** t]
        used = 0.0 if name == "b" else decay
        after, *moments[name] = adamw.reference_forward(
            param, *moments[name], grad, step, *constants, used
        )
        return after

    twin = three_steps(model, optimizer, update)
    # per step 4 roundings of |param|, below 8; of the step, below 2 * rate, 12 (both as in
    # tests/ops/test_adamw.py) and of its gradient the NORM ones
    agree(model, twin, U * (3 * 4 * 8 + (12 + NORM) * 2 * sum(RATES)))
    assert optimizer.steps == 3
    for name, i in (("a", 0), ("b", 1 if flat else 2)):
        m = optimizer.state_dict()["arrays"][f"{i}.m"]
        want = moments[name][0].reshape(-1)
        assert np.abs(m[: want.size] - want).max() <= 3 * (4 + NORM) * U * 8


@pytest.mark.parametrize("flat", [True, False], ids=["one buffer", "scattered"])
@pytest.mark.parametrize("early", ["save", "load"])
def test_state_asked_for_before_the_first_backward_is_no_gradient(flat, early):
    """Memory nobody wrote must not count as a first gradient that later ones are added to."""
    model = Three()
    if flat:
        model.flatten()
    for p in model.parameters():
        p.slot.memory().numpy()[...] = np.nan  # what uninitialised memory may hold
    optimizer = AdamW(model.groups(), 1.0)
    state = optimizer.state_dict()
    if early == "load":
        optimizer.load_state_dict(state)
    assert all(p.grad is None for p in model.parameters())
    sum(((p * 2.0).sum() for p in model.parameters()), start=gm.zeros(1)).backward()
    for name, p in model.named_parameters():
        assert (p.grad.numpy() == 2).all(), name
    optimizer.step()
    assert all(np.isfinite(p.numpy()).all() for p in model.parameters())


def test_the_gradient_of_before_the_state_was_asked_for_stays():
    model = Three()
    optimizer = SGD(model.groups(), 1.0)
    sum(((p * 2.0).sum() for p in model.parameters()), start=gm.zeros(1)).backward()
    optimizer.state_dict()
    before = {n: p.numpy().copy() for n, p in model.named_parameters()}
    optimizer.step()
    for name, p in model.named_parameters():
        assert (p.numpy() == before[name] - np.float32(2)).all(), name
