"""Memory and threads: sizes nobody has are MemoryError, views stay inside, a refusal costs once."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

import gristmill as gm
from gristmill.backend import _C
from gristmill.ops.layernorm import layernorm
from gristmill.ops.matmul import linear
from gristmill.ops.rmsnorm import rmsnorm

# Bytes above 2^47, the address space of a process: just above, no list of free blocks, overflow.
TOO_LARGE = [(2**45 + 1,), (2**46,), (2**62,), (2**32, 2**32), (2**40, 2**40, 2**40), (2**62, 8, 0)]


@pytest.mark.parametrize("shape", TOO_LARGE)
def test_a_size_nobody_has_is_a_memory_error(shape: tuple[int, ...]) -> None:
    asked = f"{4 * shape[0]}" if len(shape) == 1 and shape[0] < 2**60 else "more than 2\\^63"
    with pytest.raises(MemoryError, match=rf"asked for {asked} bytes with \d+ in use"):
        _C.empty(shape)


def test_a_workspace_nobody_has_is_a_memory_error() -> None:
    """2^43 rows of 8 in float32 are packed, though they are one and the same."""
    rows, one = 2**43, _C.empty((8,))
    a, b = one.view((1, rows, 8), (0, 0, 1)), one.view((1, 8, 1), (0, 1, 1))
    with pytest.raises(MemoryError, match=r"matmul: out of memory: asked for \d+ bytes"):
        _C.matmul(one.view((1, rows, 1), (0, 0, 1)), a, b)


@pytest.mark.parametrize("shape", [(-1,), (3, -2), (-2, -2)])
def test_a_negative_size_is_an_error(shape: tuple[int, ...]) -> None:
    whole = _C.empty((12,))
    for make in (_C.empty, whole.view, lambda s: _C.span(whole, s)):
        with pytest.raises(ValueError, match="is negative"):
            make(shape)


@pytest.mark.parametrize(
    "shape, strides, offset",
    [
        ((5,), (2**62,), 0),  # 4 * 2^62 wraps to 0
        ((3, 3), (2**62, 2**62), 0),  # the sum of two does
        ((2,), (2**63 - 1,), 2**63 - 1),
        ((2,), (-(2**63),), 0),
        ((13,), None, 0),
        ((1,), None, 12),
        ((1,), None, -1),
        ((2,), (-1,), 0),
    ],
)
def test_a_view_stays_inside(
    shape: tuple[int, ...], strides: tuple[int, ...] | None, offset: int
) -> None:
    with pytest.raises(ValueError, match="leave an array of shape"):
        _C.empty((12,)).view(shape, strides, offset)


def test_an_empty_view_holds_nothing() -> None:
    none = _C.empty((12,)).view((0, 5), (1, 1000))
    assert none.size == 0
    with pytest.raises(ValueError, match="leave an array of shape"):
        none.view((1,), None, 1000)


def test_a_view_with_more_elements_than_can_be_counted_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"more than 2\^63 bytes"):
        _C.empty((1,)).view((2**40, 2**40), (0, 0))


def test_negative_strides_are_named() -> None:
    with pytest.raises(ValueError, match=r"strides \(-1,\)"):
        _C.empty((12,)).view((13,), (-1,), 12)


# A fork while another thread frees 10000 blocks, which takes milliseconds; the child allocates.
FORK = """
import os, signal, threading, time
import gristmill as gm
from gristmill.backend import _C
blocks = [_C.empty((200000,), "uint8") for _ in range(10000)]
del blocks
freeing = threading.Thread(target=_C.memory_empty_cache)
freeing.start()
time.sleep(0.001)
child = os.fork()
if child == 0:
    signal.alarm(20)
    _C.empty((1000,))
    os._exit(7)
print(freeing.is_alive(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_can_allocate() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=False)
    assert done.stdout.endswith(" 7\n"), done.stdout + done.stderr


# Room for some of the 64 stacks of 8 MiB; the ids of the threads before and after a second call.
FEW_THREADS = """
import os, resource
import gristmill as gm
from gristmill.backend import _C
_C.set_threads(64)
x, y = _C.empty((100000,)), _C.empty((100000,))
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (200 << 20), -1))
seen = []
for _ in range(3):
    _C.elementwise(y, x, None, "copy", 0.0)
    seen.append(sorted(map(int, os.listdir("/proc/self/task"))))
print(1 < len(seen[0]) < 64, seen[0] == seen[1] == seen[2])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_threads_the_system_refuses_are_asked_for_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FEW_THREADS], capture_output=True, text=True, check=False
    )
    assert done.stdout == "True True\n", done.stdout + done.stderr


def test_a_sum_keeps_no_operand_alive() -> None:
    """Nor does the graph: values live as long as a backward pass needs them."""
    x = gm.tensor([1.0] * 65536, requires_grad=True)
    product = x * 2.0
    before = _C.memory_stats()["in_use"]
    total = (product + x * 3.0) + product
    assert _C.memory_stats()["in_use"] - before == total.array.nbytes
    total.backward(gm.tensor([1.0] * 65536))
    assert x.grad is not None and (x.grad.numpy() == 7.0).all()


def test_what_a_norm_gives_is_computed_again_for_the_way_back() -> None:
    """A layer on a norm keeps the norm's input alone, and its gradients are those of the values."""
    x, weight, bias = (gm.tensor(np.random.default_rng(0).standard_normal(n, np.float32))
                       for n in ((512, 64), 64, 64))  # fmt: skip
    matrix = gm.tensor(np.ones((8, 64), np.float32), requires_grad=True)
    for norm in (lambda: layernorm(x, weight, bias), lambda: rmsnorm(x, weight)):
        weight.requires_grad = True
        linear(norm(), matrix)  # workspace
        before = _C.memory_stats()["in_use"]
        out = linear(norm(), matrix)
        assert _C.memory_stats()["in_use"] - before < out.array.nbytes + x.array.nbytes
        out.sum().backward()
        assert matrix.grad is not None
        expected = np.broadcast_to(norm().numpy().sum(axis=0), (8, 64))
        np.testing.assert_allclose(matrix.grad.numpy(), expected, atol=512 * 2.0**-20)
        matrix.zero_grad()


def test_memory_is_sole_until_somebody_else_sees_it() -> None:
    a = _C.empty((8,))
    assert a.sole
    part = a.view((4,))
    assert not a.sole and not part.sole
    del part
    seen = a.numpy()
    assert not a.sole
    del seen
    assert a.sole and not _C.from_numpy(np.zeros(8, np.float32)).sole


def test_a_gradient_that_is_given_stays_the_givers() -> None:
    x = gm.tensor([1.0, 2.0], requires_grad=True)
    given = np.ones(2, np.float32)
    for _ in range(2):
        (x + 0.0).backward(gm.from_numpy(given))
    assert x.grad is not None and list(x.grad.numpy()) == [2.0, 2.0]
    assert list(given) == [1.0, 1.0]


def held() -> int:
    """Bytes taken from the system and not given back."""
    stats = _C.memory_stats()
    return int(stats["in_use"] + stats["cached"])


def test_blocks_of_one_size_become_one_of_another() -> None:
    """16 MiB given back are cut into five pieces, which together are 16 MiB again."""
    _C.memory_empty_cache()
    whole = _C.empty((16 << 20,), "uint8")
    before = held()
    for _ in range(2):
        del whole
        parts = [_C.empty((3 << 20,), "uint8") for _ in range(5)]
        starts = sorted(part.data_ptr for part in parts)
        assert all(b - a >= 3 << 20 for a, b in pairwise(starts))
        del parts[1], parts[2], parts[0], parts
        whole = _C.empty((16 << 20,), "uint8")
        assert whole.sole and held() == before


def test_large_scratch_goes_back_when_an_op_wants_little() -> None:
    """A product of 12288 rows packs 48 MiB; the next op leaves them to whoever asks."""
    x, weight = gm.zeros(12288, 1024), gm.zeros(32, 1024)
    linear(x, weight)
    before = _C.memory_stats()["in_use"]
    out = _C.empty((1,))
    _C.reduce(out, _C.empty((1, 64)), "sum")
    assert before - _C.memory_stats()["in_use"] > 48 << 20
