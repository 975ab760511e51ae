"""A logged request answered again after the server is gone: byte-identical, or it says why not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_process import HERE, Server

pytest.importorskip("gristmill._C")
pytest.importorskip("tokenizers")
pytest.importorskip("gguf")
sys.path.insert(0, str(HERE.parent / "runtime"))

from tiny import Shape, write_model

from gristmill import cli

pytest.importorskip("fastapi")

from gristmill.serving.chat_format import chat_format
from gristmill.serving.model import load_runtime
from gristmill.serving.replay import Replayer
from gristmill.serving.request_log import entries

SHAPE = Shape(context=256)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), SHAPE)


@pytest.fixture(scope="module")
def log(gguf: Path, run_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What one server was asked, of every kind; it has stopped."""
    path = tmp_path_factory.mktemp("log") / "requests.jsonl"
    server = Server(path, "--chat-template", "plain", model=gguf)
    for number in range(4):
        server.complete(prompt=f"def f{number}(", max_tokens=8, temperature=0.9, top_p=0.95, n=2)
        server.complete(prompt=["a", "b"], max_tokens=4, seed=number, logprobs=2, echo=True)
        server.complete(prompt="x = ", max_tokens=6, stream=True, stop=["q"], top_k=5)
        server.complete(prompt="return ", suffix="\n", max_tokens=5, temperature=0)
    hole = {"input_prefix": "import os\n", "input_suffix": "\nprint(1)\n", "n_predict": 9}
    server.post("/infill", hole)
    server.post("/infill", {**hole, "t_max_predict_ms": 5000})
    messages = [{"role": "user", "content": "hello"}]
    server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 6})
    server.complete(prompt="too long " * 400, max_tokens=8)  # refused
    server.post("/tokenize", {"prompt": "no answer"})
    assert server.stop() == 0
    yield path


@pytest.fixture
def replayer(gguf: Path) -> Replayer:
    runtime = load_runtime(gguf)
    return Replayer(runtime, chat_format(runtime.model, "plain"))


def answered(log: Path) -> list[dict[str, Any]]:
    return [entry for entry in entries(log) if "answer" in entry]


def test_every_answer_comes_again(log: Path, replayer: Replayer) -> None:
    found = [replayer.replay(entry) for entry in answered(log)]
    assert len(found) == 19
    assert [one.text for one in found if one.outcome == "differs"] == []
    cannot = [one for one in found if one.outcome == "cannot"]
    assert [one.text for one in cannot] == ["t_max_predict_ms stopped it by the clock"]
    assert sum(one.tokens for one in found) > 100


@pytest.mark.parametrize("what", ["tokens", "text", "finish_reason", "seed"])
def test_what_was_changed_is_found(what: str, log: Path, replayer: Replayer) -> None:
    entry = json.loads(json.dumps(answered(log)[0]))
    choice = entry["answer"][0]
    if what == "tokens":
        choice["tokens"][3] += 1
    elif what == "text":
        choice["text"] += "!"
    elif what == "finish_reason":
        choice["finish_reason"] = "stop" if choice["finish_reason"] == "length" else "length"
    else:
        entry["request"]["seed"] += 1
    assert replayer.replay(entry).outcome == "differs"


def test_an_answer_that_was_cut_off_is_compared_as_far_as_it_went(
    log: Path, replayer: Replayer
) -> None:
    entry = json.loads(json.dumps(answered(log)[2]))
    choice = entry["answer"][0]
    choice["tokens"], choice["finish_reason"] = choice["tokens"][:2], None
    choice["text"] = choice["text"][:1]
    assert replayer.replay({**entry, "outcome": "gone"}).outcome == "same"
    choice["tokens"][1] ^= 1
    assert replayer.replay({**entry, "outcome": "gone"}).outcome == "differs"


def test_another_model_says_so(log: Path, gguf: Path, tmp_path: Path) -> None:
    other = Replayer(load_runtime(write_model(tmp_path, SHAPE, seed=9)), None)
    found = other.replay(answered(log)[0])
    assert found.outcome == "cannot" and "--model" in found.text


def test_a_line_without_an_answer_says_so(replayer: Replayer) -> None:
    found = replayer.replay({"id": "req-1", "endpoint": "/tokenize"})
    assert found.outcome == "cannot" and "no request that was answered" in found.text


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"answer": 5}, "damaged"),
        ({"answer": [{"text": "a"}]}, "damaged"),
        ({"answer": []}, "0 answers"),
        ({"n_ctx": "x"}, "damaged"),
        ({"model": 7}, "damaged"),
    ],
)
def test_a_damaged_line_says_so(
    damage: dict[str, Any], said: str, log: Path, replayer: Replayer
) -> None:
    found = replayer.replay(answered(log)[0] | damage)
    assert found.outcome == "cannot" and said in found.text


def test_the_verb(
    log: Path, gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--log-file", str(log), "--model", str(gguf), "--chat-template", "plain"]
    assert cli.main(["replay", "--all", *common]) == 0
    assert "18 of 19 the same, byte for byte" in capsys.readouterr().out
    assert cli.main(["replay", "--last", "1", *common]) == 0
    id = answered(log)[0]["id"]
    assert cli.main(["replay", id, *common]) == 0
    assert f"{id}  same" in capsys.readouterr().out
    assert cli.main(["replay", "cmpl-0", *common]) == 2
    assert "no line with id 'cmpl-0'" in capsys.readouterr().err
    changed = tmp_path / "changed.jsonl"
    lines = log.read_text().splitlines()
    first = json.loads(next(line for line in lines if id in line))
    first["answer"][0]["tokens"][0] += 1
    changed.write_text(json.dumps(first) + "\n" + lines[0][:40])  # and half a line at the end
    assert cli.main(["replay", "--all", *common[2:], "--log-file", str(changed)]) == 4
    shown = capsys.readouterr()
    assert "1 of 1 answers differ" in shown.err and "1 lines cannot be read" in shown.out
    for wrong in ([], [id, "--all"], ["--last", "0"]):
        assert cli.main(["replay", *wrong, *common]) == 2
