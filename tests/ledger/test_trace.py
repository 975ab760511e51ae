"""`gristmill trace`: an answer to its rows and sources, a file to its models and answers."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill import registry
from gristmill.artifacts import sha256_file
from gristmill.cli import main
from gristmill.data.shards import Shard
from gristmill.data.table import read_table
from gristmill.data.tokenizer import Tokenizer
from gristmill.errors import DataError
from gristmill.evaluation.nearest import GRAM, nearest
from gristmill.ledger.records import LOG, Records
from gristmill.ledger.trace import Block, trace
from gristmill.serving.request_log import RequestLog

ID = "cmpl-" + "0123456789abcdef" * 2


def titled(blocks: list[Block], start: str) -> dict[str, str]:
    (block,) = [block for block in blocks if block.title.startswith(start)]
    return dict(block.rows)


def train_rows(run: Path) -> list[tuple[Any, ...]]:
    return read_table(run / "04_split/train/documents.parquet", ["id", "path", "source"])


def served(run: Path, text: str, id: str = ID) -> Path:
    """A request log with one answer by the run's model."""
    ids = Tokenizer.load(run / "04_split").encode(text)
    path = run.parent / LOG
    path.unlink(missing_ok=True)
    log = RequestLog(path)
    log.write(
        {
            "id": id,
            "time": 1_700_000_000.0,
            "endpoint": "/v1/completions",
            "request": {"prompt": "x", "seed": 1},
            "model": sha256_file(run / "11_deploy/model.gguf"),
            "answer": [{"text": text, "finish_reason": "length", "tokens": ids}],
        }
    )
    log.close()
    return path


def test_an_answer_goes_to_model_stages_source_and_nearest_row(copied: Path) -> None:
    """The answer is a piece of training row 5, so that row must come first."""
    shard = Shard.open(copied / "04_split/train")
    piece = shard.doc(5)[40:70].tolist()
    tokenizer = Tokenizer.load(copied / "04_split")
    served(copied, tokenizer.decode_bytes(piece).decode())
    started = time.process_time()  # of this process: the machine may be busy
    blocks = trace(ID, Records(copied.parent))
    assert time.process_time() - started < 1.0
    assert titled(blocks, "answer")["endpoint"] == "/v1/completions"
    assert titled(blocks, "model")["run"] == copied.name
    assert list(titled(blocks, "stages")) == [
        "collect", "clean", "annotate", "split", "design", "initialize", "train", "validate",
        "save", "test", "deploy",
    ]  # fmt: skip
    commit = Records(copied.parent).runs[0].sources["woods"]["revision"]
    assert "MIT" in titled(blocks, "trained on")["woods"]
    assert commit in titled(blocks, "trained on")["woods"]
    near = titled(blocks, "nearest training text")
    first, said = next(iter(near.items()))
    id, path, source = train_rows(copied)[5]
    assert first == f"{source}/{path}" and id[:16] in said and "MIT" in said
    assert "not what caused it" in next(b.title for b in blocks if b.title.startswith("nearest"))


def test_a_file_goes_forward_to_models_promotions_and_answers(copied: Path) -> None:
    root = copied.parent
    model = copied / "11_deploy/model.gguf"
    registry.append(root, run=copied.name, model=model, sha256=sha256_file(model), reason="test")
    served(copied, "return")
    id, path, source = train_rows(copied)[-1]
    split = {i: s for i, s in read_table(copied / "04_split/split.parquet", ["id", "split"])}
    by_path = trace(path, Records(root))
    assert by_path == trace(f"{source}/{path}", Records(root)) == trace(id[:12], Records(root))
    place = Records(root).runs[0].sources[source]["path"]
    assert by_path == trace(str(Path(place) / path), Records(root))
    way = titled(by_path, "in run")
    assert way["split"].startswith("train (") and "tokens" in way["split"]
    assert "trained on it; promoted" in way[copied.name] and "1 answers" in way[copied.name]
    held_out = next(i for i, s in split.items() if s == "test")
    way = titled(trace(held_out, Records(root)), "in run")
    assert "not trained on it: it is in test" in way[copied.name]


def test_runs_of_a_search_are_found(copied: Path) -> None:
    """They lie below a hidden folder, with the stages of all."""
    child = copied.parent / ".search/name-1/run-1"
    child.parent.mkdir(parents=True)
    shutil.copytree(copied, child, symlinks=True)
    (child.parent / ".stages").symlink_to("../../.stages")
    path = train_rows(copied)[-1][1]
    way = titled(trace(path, Records(copied.parent)), "in run")
    assert "trained on it" in way["run-1"] and "trained on it" in way[copied.name]


def test_token_range_is_that_of_the_row(finished: Path) -> None:
    rows, shard = train_rows(finished), Shard.open(finished / "04_split/train")
    way = titled(trace(rows[3][0], Records(finished.parent)), "in run")
    first, end = shard.offsets[3:5]
    assert f"tokens {first:,} to {end:,} of train/tokens.bin" in way["split"]


def test_a_model_file_names_run_and_sources(finished: Path, tmp_path: Path) -> None:
    records = Records(finished.parent)
    for name in ("11_deploy/model.gguf", "09_save/model/model.safetensors"):
        blocks = trace(str(finished / name), records)
        assert titled(blocks, "model")["run"] == finished.name
    assert titled(trace(sha256_file(finished / name), records), "model")["run"] == finished.name
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    assert "none in" in titled(trace(str(other), records), "model")["run"]


def test_a_removed_row_says_which_rule(finished: Path) -> None:
    rows = read_table(finished / "02_clean/removed.parquet", ["id", "rule"])
    ((id, rule),) = rows
    blocks = trace(id, Records(finished.parent))
    ways = [dict(b.rows)["clean"] for b in blocks if b.title.startswith("in run")]
    assert len(ways) == 2  # the file and its copy are two rows
    assert sum(way.startswith("kept") for way in ways) == 1
    assert sum(f"removed by step 3-exact: {rule} same text as" in way for way in ways) == 1, ways


@pytest.mark.parametrize("what", ["nosuch.py", "deadbeefdeadbeef", "cmpl-" + "0" * 32])
def test_what_is_not_there(finished: Path, what: str) -> None:
    with pytest.raises(DataError, match=r"requests\.jsonl"):
        trace(what, Records(finished.parent))


def test_the_verb(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = train_rows(finished)[0][1]
    assert main(["trace", path, "--runs", str(finished.parent)]) == 0
    assert "licence" in capsys.readouterr().out
    assert main(["trace", path, "--json", "--runs", str(finished.parent)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["title"].startswith("document")


# ----------------------------------------------------------------------------- nearest text


def longest(text: list[int], document: list[int]) -> int:
    """The twin: the longest common run by the textbook's table."""
    best, row = 0, [0] * (len(document) + 1)
    for a in text:
        above, row = row, [0] * (len(document) + 1)
        for j, b in enumerate(document):
            row[j + 1] = above[j] + 1 if a == b else 0
            best = max(best, row[j + 1])
    return best


@pytest.mark.parametrize("seed", range(8))
def test_nearest_agrees_with_the_table(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few ids, so that runs are common, repeat, and end at documents' and blocks' edges."""
    monkeypatch.setattr("gristmill.evaluation.nearest.BLOCK", 64)
    draw = np.random.default_rng(seed)
    documents = [draw.integers(0, 4, draw.integers(1, 60)).tolist() for _ in range(12)]
    offsets = np.cumsum([0, *map(len, documents)])
    text = draw.integers(0, 4, 30).tolist()
    found = nearest(text, np.concatenate(documents).astype(np.uint16), offsets, most=12)
    true = {i: longest(text, document) for i, document in enumerate(documents)}
    assert {near.document: near.run for near in found} == {
        i: run for i, run in true.items() if run >= GRAM
    }
    assert [near.run for near in found] == sorted((near.run for near in found), reverse=True)
    tokens = np.concatenate(documents)
    for near in found:
        run = slice(near.place, near.place + near.run)
        assert tokens[run].tolist() == text[near.at : near.at + near.run]
        grams = {tuple(documents[near.document][j : j + GRAM]) for j in range(60)}
        count = sum(tuple(text[j : j + GRAM]) in grams for j in range(30 - GRAM + 1))
        assert near.share == pytest.approx(count / (30 - GRAM + 1))


def test_nothing_in_common_or_too_short() -> None:
    tokens, offsets = np.arange(50, dtype=np.uint16), np.array([0, 50])
    assert nearest([1, 2, 3], tokens, offsets) == []
    assert nearest([60, 61, 62, 63, 64], tokens, offsets) == []
    assert nearest([1, 2, 3, 4], np.empty(0, np.uint16), np.array([0])) == []
