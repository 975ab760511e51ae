"""The infill sampler's rules, one by one, and the samplers of a request."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving_process import Server

from gristmill.serving.infill_sampler import infill_logits

NAMES = [b"a", b"ab", b"abc", b"x", b"y", b"z", b"<end>", b"<pad>"]
ENDS = frozenset({6, 7})


def drawn(p: list[float], *, top_k: int = 0, top_p: float = 1.0) -> dict[int, float]:
    """Tokens that may be drawn, with their share."""
    with np.errstate(divide="ignore"):
        logits = np.log(np.array(p, np.float32))
    row = infill_logits(np.maximum(logits, -1e4), top_k, top_p, ENDS, NAMES.__getitem__)
    weights = {int(i): float(np.exp(row[i])) for i in np.flatnonzero(row > -np.inf)}
    return {i: weight / sum(weights.values()) for i, weight in weights.items()}


def test_a_likely_end_ends() -> None:
    assert drawn([0, 0, 0, 0.6, 0.2, 0.1, 0.1, 0]) == {6: 1.0}


def test_tokens_that_begin_alike_count_together() -> None:
    assert drawn([0.16, 0.13, 0.14, 0.19, 0.19, 0.19, 0, 0]) == {0: 1.0}  # 0.43 against 0.19


def test_the_merged_token_is_the_likelier_one() -> None:
    assert drawn([0.1, 0.5, 0, 0.15, 0.15, 0.1, 0, 0]) == {1: 1.0}


def test_nothing_likely_enough_ends() -> None:
    assert drawn([0, 0, 0, 0.3, 0.3, 0.3, 0.01, 0]).keys() == {3, 4, 5, 6}  # each above 1 / 4
    flat = infill_logits(np.zeros(40, np.float32), 40, 1.0, frozenset({39}), lambda i: b"%02d" % i)
    assert np.flatnonzero(flat > -np.inf).tolist() == [39]


def test_top_k_and_top_p_come_first() -> None:
    p = [0, 0, 0, 0.5, 0.3, 0.2, 0, 0]
    assert drawn(p, top_k=1) == {3: 1.0}
    assert drawn(p, top_p=0.4) == {3: 1.0}


@given(st.lists(st.floats(-20, 20, width=32), min_size=8, max_size=8), st.integers(0, 8))
def test_something_can_always_be_drawn(values: list[float], top_k: int) -> None:
    logits = np.array(values, np.float32)
    row = infill_logits(logits, top_k, 0.9, ENDS, NAMES.__getitem__)
    assert row.dtype == np.float32
    assert np.isfinite(row).any()
    assert not np.isnan(row).any()
    assert (row < np.inf).all()


@pytest.mark.parametrize("samplers", ["kpi", ["top_k", "top_p", "infill"]])
def test_a_request_that_asks_for_it_gets_it(server: Server, samplers: str | list[str]) -> None:
    body = {"input_prefix": "x = ", "input_suffix": "\n", "n_predict": 20, "seed": 1}
    answer = server.post("/infill", {**body, "samplers": samplers})
    assert "x-ignored-fields" not in answer.headers
    # the stand-in is never sure of anything, so the gap ends at once
    assert (answer.json["content"], answer.json["stop_type"]) == ("", "eos")
    assert server.post("/infill", body).json["content"] != ""
