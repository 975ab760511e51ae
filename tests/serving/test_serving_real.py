"""generate and serve with the C++ runtime and a tiny random model in a real GGUF file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_process import HERE, Server

pytest.importorskip("gristmill._C")
pytest.importorskip("tokenizers")
pytest.importorskip("gguf")
sys.path.insert(0, str(HERE.parent / "runtime"))

from tiny import Shape, write_model

from gristmill.checkpoint.reference import log_softmax
from gristmill.checkpoint.selftest import check
from gristmill.errors import ArtifactError
from gristmill.serving.decode import Finish, Piece, Task, decode
from gristmill.serving.model import load_runtime
from gristmill.serving.runtime import Runtime, Slot

PROMPTS = ["def add(left", "import os\nfor name", "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"]
SHAPE = Shape(context=256)


def ids_of(runtime: Runtime, prompt: str, **fields: Any) -> list[int]:
    ids = tuple(runtime.model.tokenize(prompt.encode(), True))
    slot = Slot(runtime.new_session(SHAPE.context), [])
    task = Task(ids, **{"max_tokens": 12, "temperature": 0.0, "ignore_eos": True, **fields})
    events = decode(runtime, slot, task)
    return [i for event in events if isinstance(event, Piece) for i in event.ids]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    runtime = load_runtime(write_model(folder / "first", SHAPE))
    answers = [json.dumps(ids_of(runtime, prompt)) for prompt in PROMPTS]
    extra = {"gristmill.selftest.prompts": PROMPTS, "gristmill.selftest.ids": answers}
    return write_model(folder / "second", SHAPE, extra=extra)


@pytest.fixture(scope="module")
def runtime(gguf: Path) -> Runtime:
    return load_runtime(gguf)


@pytest.fixture(scope="module")
def real(
    gguf: Path, run_servers: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("real") / "log.jsonl", model=gguf)
    yield server
    assert server.stop() == 0


def test_selftest_passes_and_finds_another_model(
    gguf: Path, runtime: Runtime, tmp_path: Path
) -> None:
    assert check(gguf) == len(PROMPTS)
    keys = ("gristmill.selftest.prompts", "gristmill.selftest.ids")
    extra = {key: list(runtime.model.metadata[key]) for key in keys}
    other = write_model(tmp_path, SHAPE, seed=8, extra=extra)
    with pytest.raises(ArtifactError, match="prompt 0 gives token"):
        check(other)


@pytest.mark.parametrize(("vector", "at"), [(0, 0), (1, 5), (2, 11)])
def test_selftest_compares_every_id(vector: int, at: int, runtime: Runtime, tmp_path: Path) -> None:
    answers = [json.loads(a) for a in runtime.model.metadata["gristmill.selftest.ids"]]
    answers[vector][at] ^= 1
    extra = {
        "gristmill.selftest.prompts": PROMPTS,
        "gristmill.selftest.ids": [json.dumps(a) for a in answers],
    }
    path = write_model(tmp_path, SHAPE, extra=extra)
    with pytest.raises(ArtifactError, match=f"prompt {vector} gives token .* at step {at},"):
        check(path)


def test_a_flipped_bit_is_not_served(gguf: Path, tmp_path: Path) -> None:
    data = bytearray(gguf.read_bytes())
    data[-1000] ^= 4
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"bad\.gguf"):
        load_runtime(bad)


def test_cache_reuse_does_not_change_a_bit(runtime: Runtime) -> None:
    ids = runtime.model.tokenize(b"def add(left, right):\n    return left" * 3, True)
    whole = runtime.new_session(SHAPE.context).eval(ids)
    parts = runtime.new_session(SHAPE.context)
    for i in range(0, len(ids), 7):
        last = parts.eval(ids[i : i + 7])
    assert whole.tobytes() == last.tobytes()
    parts.truncate(5)
    assert parts.eval(ids[5:]).tobytes() == whole.tobytes()
    rows = runtime.new_session(SHAPE.context).eval_all(ids)
    assert rows.shape == (len(ids), SHAPE.vocab)
    assert rows[-1].tobytes() == whole.tobytes()


def test_scores_are_log_softmax_of_the_logits(runtime: Runtime) -> None:
    ids = runtime.model.tokenize(b"import os", True)
    slot = Slot(runtime.new_session(SHAPE.context), [])
    events = list(decode(runtime, slot, Task(tuple(ids), 1, temperature=0.0, logprobs=2)))
    score = next(s for e in events if isinstance(e, Piece) for s in e.scores)
    row = log_softmax(runtime.new_session(SHAPE.context).eval(ids))
    assert score.logprob == row.max()
    assert score.id == int(np.argmax(row))
    assert isinstance(events[-1], Finish)


def generated(gguf: Path, *options: str) -> str:
    command = [sys.executable, "-m", "gristmill", "generate", str(gguf), "-p", "def add(", *options]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    return done.stdout.decode()


def test_generate_and_serve_say_the_same(gguf: Path, real: Server) -> None:
    sampled = {"prompt": "def add(", "max_tokens": 20, "seed": 3, "temperature": 0.7}
    options = ("-n", "20", "--seed", "3", "--temperature", "0.7")
    assert generated(gguf, *options) == real.text(**sampled) + "\n"
    assert (
        generated(gguf, "-n", "9", "--suffix", "x")
        == real.text(prompt="def add(", suffix="x", max_tokens=9, temperature=0) + "\n"
    )


def test_serve_together_as_alone(real: Server) -> None:
    assert real.get("/v1/models").json["data"][0]["meta"]["selftests"] == len(PROMPTS)
    bodies: list[dict[str, Any]] = [
        {"prompt": f"def f{i % 5}(x):\n", "max_tokens": 8 + i % 9, "seed": i, "logprobs": 2}
        for i in range(32)
    ]
    alone = [real.complete(**body).json["choices"] for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda body: real.complete(**body).json["choices"], bodies))
    assert together == alone


def test_a_nucleus_that_is_nothing_in_float32(real: Server) -> None:
    """The sampler takes float32, in which 1e-50 is 0: as with 0 the likeliest token is taken."""
    body: dict[str, Any] = {"prompt": "def add(", "max_tokens": 5, "seed": 1}
    greedy = real.text(**body, temperature=0)
    for top_p in (0, 1e-50, 1e-45):
        assert real.text(**body, top_p=top_p) == greedy, top_p
    fill = {"input_prefix": "def", "input_suffix": "\n", "n_predict": 2, "top_p": 1e-50}
    for samplers in (["top_p"], ["top_p", "infill"]):
        assert real.post("/infill", {**fill, "samplers": samplers}).status == 200


def test_infill_on_the_real_model(real: Server) -> None:
    body = {"input_prefix": "def add(left", "input_suffix": "\n", "n_predict": 6, "seed": 1}
    answer = real.post("/infill", body).json
    assert answer["tokens_predicted"] <= 6
    assert answer == {
        **real.post("/infill", body).json,
        **{key: answer[key] for key in ("timings", "tokens_cached", "id")},
    }


def test_damaged_selftest_is_refused_at_the_start(runtime: Runtime, tmp_path: Path) -> None:
    keys = ("gristmill.selftest.prompts", "gristmill.selftest.ids")
    extra = {key: list(runtime.model.metadata[key]) for key in keys}
    bad = write_model(tmp_path, SHAPE, seed=8, extra=extra)
    command = [sys.executable, "-m", "gristmill", "serve", str(bad), "--no-log"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert b"self-test: prompt 0 gives token" in done.stderr
    assert b"Traceback" not in done.stderr
