"""The recipe gpt2-124m: its shape and cost, known without asking any server."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")
pytest.importorskip("gristmill._C")

from gristmill import config, plan
from gristmill.data.collect_settings import HttpSource
from gristmill.training.shape import cost, model_config


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_it_is_gpt2_small() -> None:
    whole = config.load("gpt2-124m")
    shape = model_config(whole.design, whole.split.vocab_size)
    price = cost(shape, whole.design.context, whole.design.batch, whole.train.recompute)
    assert price.parameters == 124_439_808  # of transformers' GPT2LMHeadModel, head tied
    step = whole.design.batch * whole.design.context * whole.train.accumulate
    assert step == 2**19
    asked, steps = whole.collect.mix.tokens, whole.design.steps or 0
    assert 0.95 * asked < step * steps < asked * (1 - whole.split.val - whole.split.test)


def test_its_corpus_is_named_and_summed() -> None:
    (source,) = config.load("gpt2-124m").collect.source
    assert isinstance(source, HttpSource)
    urls = source.expanded()
    assert [url.rpartition("/")[2] for url in urls] == [f"{n:03}_00000.parquet" for n in range(4)]
    assert len(set(source.sha256)) == len(urls)
    assert all(source.sha256)


def test_the_plan_asks_no_server(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    text = plan.describe(config.load("gpt2-124m"), tmp_path / "runs")
    for part in ("gpt2: 12 layers, width 768, 12 heads", "124,439,808", "2,464,153,600 tokens"):
        assert part in text


def test_quick_needs_no_download() -> None:
    quick = config.load("gpt2-124m", quick=True)
    assert [source.use for source in quick.collect.source] == ["docstrings"]
    assert quick.design.steps is None
    assert quick.design.preset == "gpt2"
