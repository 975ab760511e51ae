"""What holds of every architecture: recomputation, bfloat16 beside float32, rows on their own."""

import pytest
import test_gpt2
import tiny_llama
from tiny_llama import Patterns

EVERY = pytest.mark.parametrize("small", [tiny_llama.small, test_gpt2.small], ids=["llama", "gpt2"])


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputation_changes_no_bit(small, dtype):
    grads = []
    for recompute in (False, True):
        model = small()
        model.compute, model.recompute = dtype, recompute
        model.loss(*Patterns().batch(0)).backward()
        grads.append({n: p.grad.numpy().tobytes() for n, p in model.named_parameters()})
    assert grads[0] == grads[1]


@EVERY
def test_bfloat16_is_near_float32(small):
    model = small()
    batch = Patterns().batch(0)
    exact = model.loss(*batch).item()
    model.compute = "bfloat16"
    short = model.loss(*batch).item()
    assert short != exact
    assert short == pytest.approx(exact, rel=2**-8)  # half a unit of bfloat16's last place


@EVERY
def test_a_row_does_not_depend_on_its_batch(small):
    model = small()
    ids, _ = Patterns(batch=5).batch(1)
    together = model(ids).numpy()
    for i in range(5):
        assert model(ids[i : i + 1]).numpy().tobytes() == together[i : i + 1].tobytes()
