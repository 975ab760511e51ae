"""Engine and runtime give the same logits, byte for byte: batch or single, prefill or decode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import Shape, write_model

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")
gm = pytest.importorskip("gristmill")

SHAPES = [
    Shape(),
    Shape(tied=False, heads=6, kv_heads=2, head_dim=80, hidden=96, vocab=333),
    Shape(layers=1, heads=3, kv_heads=3, head_dim=6, hidden=18, intermediate=17),
]


@pytest.mark.parametrize("shape", SHAPES, ids=["tied", "untied", "odd"])
def test_engine_and_runtime_agree(shape: Shape, tmp_path: Path) -> None:
    file = _C.Model(str(write_model(tmp_path, shape)), True)
    model = gm.models.from_pretrained(tmp_path)
    ids = np.random.default_rng(4).integers(0, shape.vocab, (3, 100)).astype(np.int32)
    with gm.no_grad():
        engine = model(ids).numpy()  # (3, 100, V)
    live = _C.Model.from_tensors(model.config.to_dict(), dict(model.tensors()))
    for row, logits in zip(ids.tolist(), engine, strict=True):
        for source in (file, live):
            assert _C.Session(source, 128).eval_all(row).tobytes() == logits.tobytes()
            session = _C.Session(source, 100)
            session.eval(row[:61])
            for at in range(61, 100):
                assert session.eval(row[at : at + 1]).tobytes() == logits[at].tobytes(), at


def test_a_seed_draws_the_same_tokens_in_every_interface(tmp_path: Path) -> None:
    """model.generate; the loop gristmill.h describes; what `gristmill generate` and serve run."""
    from gristmill.serving.decode import Piece, Task, decode
    from gristmill.serving.model import load_runtime
    from gristmill.serving.runtime import Slot

    path = write_model(tmp_path)
    model, file = gm.models.from_pretrained(tmp_path), _C.Model(str(path), True)
    prompt, n, seed = [5, 6, 7, 8, 9], 12, 3
    options = {"do_sample": True, "temperature": 1.5, "top_k": 50, "top_p": 0.95}
    live = model.generate(prompt, max_new_tokens=n, seed=seed, **options)
    assert len(live) == len(prompt) + n

    session = _C.Session(file, 64)
    looped = list(prompt)
    logits = session.eval(prompt)
    for _ in range(n):
        looped.append(_C.sample(logits, 1.5, 50, 0.95, 0.0, seed, session.length))
        logits = session.eval(looped[-1:])
    assert live == looped

    runtime = load_runtime(path)
    task = Task(tuple(prompt), n, temperature=1.5, top_k=50, top_p=0.95, seed=seed)
    events = decode(runtime, Slot(runtime.new_session(64), []), task)
    served = [id for event in events if isinstance(event, Piece) for id in event.ids]
    assert prompt + served == live


def test_generate_is_greedy_on_the_same_logits(tmp_path: Path) -> None:
    write_model(tmp_path)
    model = gm.models.from_pretrained(tmp_path)
    prompt = [5, 6, 7, 8]
    ids = model.generate(prompt, max_new_tokens=12)
    assert ids[:4] == prompt
    with gm.no_grad():
        logits = model(np.array([ids], np.int32)).numpy()[0]
    assert [int(i) for i in logits[3:-1].argmax(-1)] == ids[4:]
