"""`lm_eval --model local-completions` on the served model gives what evaluation in process gives.

Tasks are local YAML over a local file: nothing is asked of a hub.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_process import HERE, Server

pytest.importorskip("gristmill._C")
pytest.importorskip("tokenizers")
pytest.importorskip("gguf")
pytest.importorskip("lm_eval")
pytest.importorskip("tenacity")  # of lm_eval[api]
sys.path.insert(0, str(HERE.parent / "runtime"))

from tiny import Shape, write_model

import gristmill as gm
from gristmill.evaluation.bits import bits_per_byte
from gristmill.serving.model import load_runtime

SHAPE = Shape(context=256)
# The logits are the same bits. The engine's losses are float32: each is off by a few roundings of
# numbers below 16 (2^-21 = 5e-7), in both directions, on losses of 4 to 8 nats that all add up.
CLOSE = 1e-6
ROWS: list[dict[str, Any]] = [
    {"text": "def add(left, right):\n    return left +", "ends": [" right", " None"], "answer": 0},
    {"text": "import", "ends": [" os", " naïve 語", "\n"], "answer": 1},
    {"text": "for name in sorted(" * 6, "ends": ["names", "os.listdir('.')"], "answer": 0},
]
COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
"""
CHOICE = """
task: local_choice
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{ends}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{metric: acc}]
"""
ROLLING = """
task: local_rolling
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}]
"""
RUN = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
tasks = TaskManager(include_path=sys.argv[2], include_defaults=False)
found = []
for own in json.loads(sys.argv[1]):
    got = lm_eval.simple_evaluate(model="local-completions", model_args=own, task_manager=tasks,
        tasks=["local_choice", "local_rolling"], log_samples=True, bootstrap_iters=0)
    found.append({"results": got["results"], "samples": {name: [s["filtered_resps"] for s in rows]
        for name, rows in got["samples"].items()}})
json.dump(found, open(sys.argv[3], "w"))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lm_eval")
    write_model(made / "model", SHAPE)
    rows = made / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (made / "tasks").mkdir()
    for name, text in (("choice", CHOICE), ("rolling", ROLLING)):
        (made / "tasks" / f"{name}.yaml").write_text(text + COMMON % rows)
    return made


@pytest.fixture(scope="module")
def results(folder: Path, run_servers: None) -> Iterator[list[dict[str, Any]]]:
    """Of lm_eval with prompts as ids, one by one, and as texts, three at a time."""
    server = Server(folder / "log.jsonl", "--name", "tiny", model=folder / "model/model.gguf")
    url = f"http://127.0.0.1:{server.port}/v1/completions"
    common = {"model": "tiny", "base_url": url, "max_length": SHAPE.context - 1}
    ways = [
        {**common, "tokenized_requests": True},
        {**common, "tokenized_requests": False, "batch_size": 3},
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    out = folder / "out.json"
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(ways), str(folder / "tasks"), str(out)],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    yield json.loads(out.read_text())
    assert server.stop() == 0


def test_choices_are_scored_as_by_the_engine(folder: Path, results: list[dict[str, Any]]) -> None:
    tokenize = load_runtime(folder / "model/model.gguf").model.tokenize
    model = gm.models.from_pretrained(folder / "model")
    expected = []
    for row in ROWS:
        for end in row["ends"]:
            before = len(tokenize(row["text"].encode(), True))
            ids = np.array([tokenize((row["text"] + end).encode(), True)], np.int32)
            targets = np.where(np.arange(1, ids.shape[1]) >= before, ids[0, 1:], -100)[None]
            logits = model(ids[:, :-1]).numpy()[0, before - 1 :]
            greedy = bool((logits.argmax(-1) == ids[0, before:]).all())
            losses = model.token_losses(ids[:, :-1], targets).astype(np.float64)
            expected.append((-float(losses.sum()), greedy))
    for got in results:
        answers = [tuple(a) for row in got["samples"]["local_choice"] for a in row]
        assert [greedy for _, greedy in answers] == [greedy for _, greedy in expected]
        for (a, _), (b, _) in zip(answers, expected, strict=True):
            assert math.isclose(a, b, rel_tol=CLOSE), (a, b)


def test_bits_per_byte_are_those_of_evaluation(folder: Path, results: list[dict[str, Any]]) -> None:
    runtime = load_runtime(folder / "model/model.gguf")
    end = [runtime.model.eos_id]
    documents = [np.array(runtime.model.tokenize(r["text"].encode(), True) + end) for r in ROWS]
    lengths = np.array([len(runtime.model.token_bytes(i)) for i in range(SHAPE.vocab)])
    lengths[end] = 0
    inner = [np.arange(len(ids)) < len(ids) - 1 for ids in documents]  # lm_eval scores no end
    model = gm.models.from_pretrained(folder / "model")
    context = SHAPE.context
    bits = bits_per_byte(model, documents, lengths, context=context, stride=context, counts=inner)
    for got in results:
        found = got["results"]["local_rolling"]["bits_per_byte,none"]
        assert math.isclose(found, bits.per_byte, rel_tol=CLOSE)
