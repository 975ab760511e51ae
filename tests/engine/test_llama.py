"""Llama: determinism, recomputation, generation, damaged folders. Parity: test_transformers.py."""

import json

import numpy as np
import pytest
from tiny_llama import Patterns, digest, small, train

from gristmill.backend import _C
from gristmill.errors import ArtifactError
from gristmill.models import from_pretrained


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputation_changes_no_bit(dtype):
    grads = []
    for recompute in (False, True):
        model = small()
        model.compute, model.recompute = dtype, recompute
        model.loss(*Patterns().batch(0)).backward()
        grads.append({n: p.grad.numpy().tobytes() for n, p in model.named_parameters()})
    assert grads[0] == grads[1]


def test_bfloat16_is_near_float32():
    model = small()
    batch = Patterns().batch(0)
    exact = model.loss(*batch).item()
    model.compute = "bfloat16"
    short = model.loss(*batch).item()
    assert short != exact
    assert short == pytest.approx(exact, rel=2**-8)  # half a unit of bfloat16's last place


def test_a_row_does_not_depend_on_its_batch():
    model = small()
    ids, _ = Patterns(batch=5).batch(1)
    together = model(ids).numpy()
    for i in range(5):
        assert model(ids[i : i + 1]).numpy().tobytes() == together[i : i + 1].tobytes()


def test_any_number_of_threads_and_any_table_give_the_same_weights():
    table, threads = _C.table(), _C.threads()
    digests = {}
    try:
        for name in _C.tables():
            for n in (1, 2, 3, 7) if name == table else (2,):
                _C.select(name)
                _C.set_threads(n)
                digests[name, n] = digest(train()[0])
    finally:
        _C.select(table)
        _C.set_threads(threads)
    assert len(set(digests.values())) == 1, digests


def test_generation_follows_the_pattern_and_equals_the_engine():
    model, _ = train(steps=60)
    ids = model.generate([0, 3, 6, 9], max_new_tokens=6)
    assert ids == list(range(0, 30, 3))
    for n in range(4, 10):
        logits = model(np.array([ids[:n]])).numpy()[0, -1]
        assert int(logits.argmax()) == ids[n]


def test_engine_and_runtime_logits_are_byte_equal():
    model = small()
    ids = np.random.default_rng(1).integers(0, 64, 40)
    live = _C.Model.from_tensors(model.config.to_dict(), dict(model.tensors()))
    whole = _C.Session(live, 64).eval_all(ids.tolist())
    assert whole.tobytes() == model(ids[None]).numpy().tobytes()
    session = _C.Session(live, 64)
    each = np.stack([session.eval([int(i)]) for i in ids])
    assert each.tobytes() == whole.tobytes()


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign", "shape"])
def test_a_damaged_folder_is_refused_with_its_name(tmp_path, damage):
    small().save_pretrained(tmp_path / "m")
    weights, config = tmp_path / "m/model.safetensors", tmp_path / "m/config.json"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        c = json.loads(config.read_text())
        c.update({"model_type": "gpt2"} if damage == "foreign" else {"vocab_size": 65})
        config.write_text(json.dumps(c))
    with pytest.raises(ArtifactError, match=r"m/|m has no"):
        from_pretrained(tmp_path / "m")


def test_ids_out_of_range_are_refused():
    with pytest.raises(IndexError, match="allowed is 0 to 63"):
        small()(np.array([[64]]))
    with pytest.raises(ValueError, match="1 to 64"):
        small()(np.zeros((1, 65), np.int32))
