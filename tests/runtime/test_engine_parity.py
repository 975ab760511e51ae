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
    agree(tmp_path, write_model(tmp_path, shape), shape.vocab)


def agree(folder: Path, gguf: Path, vocab: int) -> None:
    """The model of a folder in the engine, its file and its live weights in the runtime: the same
    bytes in one pass, token by token, and for several sequences in one step."""
    file = _C.Model(str(gguf), True)
    model = gm.models.from_pretrained(folder)
    ids = np.random.default_rng(4).integers(0, vocab, (3, 100)).astype(np.int32)
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
    batch = [_C.Session(file, 128) for _ in range(3)]
    assert _C.eval_batch(batch, ids.tolist()).tobytes() == engine[:, -1].tobytes()


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
