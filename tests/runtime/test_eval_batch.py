"""Several sequences in one step: each gets the bytes it would get alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Shape, write_model

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")

SHAPES = {
    "tied": Shape(),
    "untied, 6/2 heads of 80": Shape(
        tied=False, heads=6, kv_heads=2, head_dim=80, hidden=96, vocab=333
    ),
    "one layer, no groups": Shape(
        layers=1, heads=3, kv_heads=3, head_dim=6, hidden=18, intermediate=17
    ),
}


@pytest.fixture(autouse=True)
def same_table_again() -> Iterator[None]:
    table, threads = _C.table(), _C.threads()
    yield
    _C.select(table)
    _C.set_threads(threads)


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = write_model(tmp_path_factory.mktemp("batch"), SHAPES[request.param])
    return _C.Model(str(path), True)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _C.Model(str(write_model(tmp_path_factory.mktemp("tied"))), True)


def compare(model: Any, sequences: int, steps: int, seed: int) -> None:
    """Sessions of unequal length and context, pieces of prompts beside single tokens."""
    rng = random.Random(seed)
    contexts = [rng.randint(100, 128) for _ in range(sequences)]
    alone = [_C.Session(model, n) for n in contexts]
    batch = [_C.Session(model, n) for n in contexts]
    for _ in range(steps):
        chosen = rng.sample(range(sequences), rng.randint(1, sequences))
        ids = []
        for i in chosen:
            most = min(contexts[i] - alone[i].length, rng.choice((1, 1, 3, 70)))
            ids.append([rng.randrange(model.vocab_size) for _ in range(rng.randint(1, most))])
        got = _C.eval_batch([batch[i] for i in chosen], ids)
        assert got.shape == (len(chosen), model.vocab_size)
        for row, i, given in zip(got, chosen, ids, strict=True):
            assert row.tobytes() == alone[i].eval(given).tobytes(), (i, given)
            assert batch[i].length == alone[i].length
            if batch[i].length > contexts[i] - 2:
                batch[i].truncate(0)
                alone[i].truncate(0)


@pytest.mark.parametrize("sequences", [1, 2, 3, 5, 8])
def test_each_sequence_has_the_bits_it_has_alone(model: Any, sequences: int) -> None:
    compare(model, sequences, steps=12, seed=sequences)


@pytest.mark.parametrize("table", _C.tables())
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_on_every_table_and_any_number_of_threads(tied: Any, table: str, threads: int) -> None:
    _C.select(table)
    _C.set_threads(threads)
    compare(tied, 6, steps=6, seed=threads)


def test_more_sequences_than_rows_of_a_pass(tied: Any) -> None:
    sessions = [_C.Session(tied, 4) for _ in range(70)]
    got = _C.eval_batch(sessions, [[i, i + 1] for i in range(70)])
    for i in (0, 31, 32, 69):
        assert got[i].tobytes() == _C.Session(tied, 4).eval([i, i + 1]).tobytes()


def filled(model: Any) -> tuple[list[Any], list[int]]:
    sessions = [_C.Session(model, 8) for _ in range(3)]
    for n, session in enumerate(sessions, 3):
        session.eval(list(range(n)))
    return sessions, [3, 4, 5]


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([[1], [2], []], "sequence 2 of 3: no token ids"),
        ([[1], [331], [2]], "sequence 1 of 3: token id 331 is outside"),
        ([[1, 2, 3, 4, 5, 6], [1], [1]], "sequence 0 of 3: 6 tokens do not fit: 3 of 8 are used"),
        ([[1], [2]], "3 sessions and 2 lists"),
    ],
)
def test_one_bad_sequence_changes_none(tied: Any, ids: list[list[int]], reason: str) -> None:
    sessions, lengths = filled(tied)
    with pytest.raises(ValueError, match=reason):
        _C.eval_batch(sessions, ids)
    assert [s.length for s in sessions] == lengths
    fresh, _ = filled(tied)
    got = _C.eval_batch(sessions, [[7], [8], [9]])
    assert got.tobytes() == b"".join(
        s.eval([i]).tobytes() for s, i in zip(fresh, (7, 8, 9), strict=True)
    )


def test_a_session_twice_and_a_foreign_model_are_refused(tied: Any, tmp_path: Path) -> None:
    sessions, lengths = filled(tied)
    with pytest.raises(ValueError, match="sequences 0 and 2 of 3 are the same session"):
        _C.eval_batch([sessions[0], sessions[1], sessions[0]], [[1], [1], [1]])
    other = _C.Session(_C.Model(str(write_model(tmp_path)), True), 8)
    with pytest.raises(ValueError, match="sequence 1 of 2 belongs to another model"):
        _C.eval_batch([sessions[0], other], [[1], [1]])
    with pytest.raises(ValueError, match="no sessions"):
        _C.eval_batch([], [])
    with pytest.raises((TypeError, RuntimeError, ValueError)):
        _C.eval_batch([None], [[1]])
    assert [s.length for s in sessions] == lengths
    assert other.length == 0


def test_a_kernel_that_fails_midway_changes_none(tied: Any) -> None:
    """The product of the last pass is refused: earlier passes had already moved on."""
    sessions, lengths = filled(tied)
    more = [_C.Session(tied, 128) for _ in range(2)]
    kernel, calls = failing_product(after=15)
    _C.swap("matmul", kernel)
    try:
        with pytest.raises(ValueError, match="matmul of table"):
            _C.eval_batch([more[0], *sessions, more[1]], [[1] * 100, [1], [1], [1], [2] * 100])
    finally:
        _C.swap("matmul", None)
    assert len(calls) > 15
    assert [s.length for s in [*sessions, *more]] == [*lengths, 0, 0]
    sessions[0].eval([9])
    assert sessions[0].length == 4


def failing_product(after: int) -> tuple[int, list[int]]:
    """Address of a product that does nothing `after` times and then reports unsupported."""
    import ctypes as ct

    calls: list[int] = []

    @ct.CFUNCTYPE(ct.c_int32, ct.c_void_p, ct.c_void_p)
    def kernel(_context: int, _arguments: int) -> int:
        calls.append(1)
        return int(len(calls) > after)

    KEPT.append(kernel)
    return ct.cast(kernel, ct.c_void_p).value or 0, calls


KEPT: list[Any] = []


def test_steps_of_several_threads_do_not_mix(tied: Any) -> None:
    """The same sessions in other orders: no step waits for another for ever, each has its bits."""
    sessions = [_C.Session(tied, 8) for _ in range(4)]

    def step(seed: int) -> None:
        order = sessions.copy()
        random.Random(seed).shuffle(order)
        got = _C.eval_batch(order, [[seed % 300]] * 4)
        assert np.isfinite(got).all()
        for session in order:
            session.truncate(0)

    def guarded(seed: int) -> None:
        try:
            step(seed)
        except ValueError as error:  # another thread has just filled or emptied a session
            assert "do not fit" in str(error) or "cannot keep" in str(error), error

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(guarded, range(60)))
