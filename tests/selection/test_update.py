"""Update, end to end with a tiny model: a better successor is promoted, a worse one stays out."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gristmill._C")
pytest.importorskip("duckdb")
pytest.importorskip("tokenizers")
pytest.importorskip("gguf")

from tiny_run import WORDS, source_text, write_config, write_source

from gristmill import cli, registry
from gristmill.artifacts import read_json
from gristmill.config import load
from gristmill.data.document import Document, read_documents
from gristmill.pipeline import Options, Pipeline
from gristmill.registry import Entry
from gristmill.selection import changes
from gristmill.selection.changes import Changes
from gristmill.selection.voted import Votes, read_votes
from gristmill.serving.settings import UpdateConfig

RUNS = Path("runs")
CHAT = """
project = { name = "talks" }
annotate = { task = "none", skip = "a test" }
split = { vocab_size = 300, min_bytes = 1000, chat = { template = "chatml" } }
design = { context = 128, steps = 1 }
train = { fim_rate = 0.0 }
[[collect.source]]
use = "jsonl"
path = "talks.jsonl"
content = "messages"
licence = "MIT"
why = "a test"
"""


@pytest.fixture(scope="module", autouse=True)
def _no_pages() -> Iterator[None]:
    """Pages of runs are a third of their time here, and tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gristmill.verbs.shared.write_report", lambda run: None)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sources, a run and its promotion."""
    place = tmp_path_factory.mktemp("deployed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        config = write_config(Path("tiny.toml"), write_source(Path("src")), steps=120)
        words = ["--set", "train.lr=1e-2", "--set", "project.gates=stop"]
        assert cli.main(["run", str(config), *words]) == 0
        assert cli.main(["promote", "latest"]) == 0
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "copy", symlinks=True))
    return tmp_path / "copy"


def add_files(numbers: range, verb: str) -> None:
    """Write files newer than all others."""
    for number in numbers:
        path = Path("src") / f"g{number}.py"
        path.write_text(source_text(number, verb))
        os.utime(path, (1_800_000_000 + number,) * 2)


def vote(number: int, ideal: str | None, rating: str | None = None) -> dict[str, Any]:
    request = {"prompt": f"def get_{number}(", "suffix": "\n\nend"}
    answer = [{"text": "answered", "finish_reason": "stop"}]
    return {
        "id": f"cmpl-{number:032x}", "time": 1e9 + number, "model": "m", "rating": rating,
        "ideal": ideal, "endpoint": "completions", "request": request, "answer": answer,
    }  # fmt: skip


def write_votes(votes: list[dict[str, Any]], path: Path = RUNS / ".serve/feedback.jsonl") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in votes))
    return path


def served() -> Entry:
    entry = registry.current(RUNS)
    assert entry is not None
    return entry


def test_a_better_successor_is_promoted_and_the_next_goes_on_from_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = served()
    assert cli.main(["update"]) == 0
    assert "nothing has changed" in capsys.readouterr().out
    add_files(range(100, 103), "set")
    assert cli.main(["update"]) == 0
    assert "3 files have changed" in capsys.readouterr().out
    assert served() == first
    add_files(range(103, 114), "set")
    edited = "set_name_path(line, n=5):\n    return line.name(path)"
    write_votes([vote(1, edited), vote(2, None, "down"), vote(3, None, "up")])
    with (RUNS / ".serve/feedback.jsonl").open("a") as stream:
        stream.write('{"id": "cmpl-half')
    assert cli.main(["update"]) == 0
    shown = capsys.readouterr().out
    assert "1 accepted, 1 edited, 1 left out: thumbs down" in shown
    assert "14 files: src/g113.py" in shown
    second = served()
    assert second.run != first.run and second.run in shown
    assert second.reason.startswith(f"update of {first.run}: newest files -")
    run = RUNS / second.run
    state = second.facts["update"]
    assert state["runs"] == [first.run, second.run] and state["base"] == first.run
    (facts,) = (read_json(path) for path in RUNS.glob(".update/*/update.json"))
    assert facts["promoted"] is True and facts["candidate"] == second.run
    texts = [d.text for d in read_documents(run / "04_split/train/documents.parquet")]
    assert any(edited in text and "end" in text for text in texts)
    tested = read_documents(run / "04_split/test/documents.parquet")
    newest = {f"src/g{number}.py" for number in range(107, 114)}
    assert {changes.origin_path(d) for d in tested} == newest
    given = read_json(run / "06_initialize/matched.json")["source"]
    assert given == str(first.path(RUNS))
    assert cli.main(["update"]) == 0  # neither files nor votes are taken twice
    assert "nothing has changed" in capsys.readouterr().out
    assert cli.main(["compare", first.run, second.run]) == 2
    assert "tested on different files" in capsys.readouterr().err


def test_a_worse_successor_stays_out_and_by_how_much_is_said(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest files are as the old ones, which the deployed model knows; in the feedback, and in
    the one file to validate on, functions return anything.
    """
    rng = random.Random(3)
    wrong = "def get_{}_{}({}, n=5):\n    return {}.{}({})\n\n\n"
    noise = ["".join(wrong.format(*rng.choices(WORDS, k=6)) for _ in range(8)) for _ in range(22)]
    write_votes([vote(number, text) for number, text in enumerate(noise[2:])])
    add_files(range(200, 209), "get")
    for number in (200, 201):
        path = Path("src") / f"g{number}.py"
        path.write_text(noise[number - 200])
        os.utime(path, (1_790_000_000 + number,) * 2)
    before = (RUNS / registry.REGISTRY).read_bytes()
    bar = "evaluate.max_bits_per_byte=0.1"  # a gate that fails: it is measured all the same
    words = ["--set", "update.lr=2", "--set", "update.old=0", "--set", bar]
    assert cli.main(["update", *words]) == 3
    said = capsys.readouterr().err
    assert "stays out" in said and "on the newest changed files worse: +" in said
    assert "allowed: update.margin = 0.02" in said
    assert "10_test: bits per byte, test files" in said
    assert (RUNS / registry.REGISTRY).read_bytes() == before
    (facts,) = (read_json(path) for path in RUNS.glob(".update/*/update.json"))
    assert facts["promoted"] is False and facts["newest"]["low"] > 0.02


def test_without_a_promoted_model_there_is_nothing_to_update(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = served().path(RUNS)
    file.write_bytes(file.read_bytes()[:-1])
    assert cli.main(["update"]) == 2
    assert "changed on disk" in capsys.readouterr().err
    assert cli.main(["update", "--runs", "elsewhere"]) == 2
    assert "gristmill promote" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- parts


def document(name: str, text: str, time: int = 5, source: str = "src") -> Document:
    id = f"{abs(hash((text,))):064x}"[-64:]
    return Document(id, source, name, ".", "MIT", "w", len(text), time, time, "utf-8", text)


def test_changes_are_told_by_content() -> None:
    before = [document("a", "one"), document("b", "two"), document("c", "three")]
    now = [document("moved", "one"), document("b", "two!", 9), document("d", "four", 7)]
    found = changes.compare(before, now, 1)
    assert [d.path for d in found.new] == ["d", "b"]
    assert found.kept == {before[0].id}
    assert found.gone == ["src/a", "src/c"]
    assert found.named(1) == "src/b and 1 more"


def test_old_files_are_mixed_in_and_everything_but_new_files_is_older() -> None:
    new = [document(f"n{i}.py", f"new {i} " * 50, 1000) for i in range(20)]  # one commit
    old = [document(f"o{i}.py", f"old {i} " * 50, 2000) for i in range(200)]
    votes = Votes(texts=[("cmpl-1", "voted " * 50)])
    found = changes.compare([], new, 1)
    tables = changes.plan_tables(found, old, votes, UpdateConfig(old=0.5), 0, 7)
    assert (tables.test, tables.val) == (7, 2)
    times = [row["time"] for row in tables.rows["new"]]
    assert times == sorted(set(times)) and times[0] == 1000
    size = {name: sum(len(row["text"]) for row in rows) for name, rows in tables.rows.items()}
    trained = size["new"] * 11 / 20 + size["feedback"]
    longest = max(len(d.text) for d in old)  # the sample ends with the file that fills it
    assert trained * 0.98 <= size["old"] <= trained * 1.02 + longest
    assert max(row["time"] for name in ("old", "feedback") for row in tables.rows[name]) < 1000
    none = changes.plan_tables(found, old, votes, UpdateConfig(old=0.0), 0, 7)
    assert "old" not in none.rows
    filled = changes.plan_tables(found, old, votes, UpdateConfig(old=0.0), 60_000, 7)
    assert sum(len(row["text"]) for row in filled.rows["old"]) > 50_000


def test_an_origin_is_known_through_updates() -> None:
    first = document("pkg/a.py", "x")
    again = document(f"old.jsonl#12:{first.id}/src/pkg/a.py", "x", source="old")
    assert changes.origin(again) == changes.origin(first) == first.id
    assert changes.origin_path(again) == changes.origin_path(first) == "src/pkg/a.py"


def test_conversations_are_kept_as_they_were_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Split renders them by a template; the next run must get messages again."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(1)
    talks = [
        [
            {"role": "user", "content": f"What is {' '.join(rng.sample(WORDS, 3))} {n}?"},
            {"role": "assistant", "content": f"The {' '.join(rng.choices(WORDS, k=5))} {n}."},
        ]
        for n in range(60)
    ]
    lines = [json.dumps({"messages": talk}) + "\n" for talk in talks]
    Path("talks.jsonl").write_text("".join(lines))
    Path("chat.toml").write_text(CHAT)
    run = Pipeline(load("chat.toml"), RUNS, Options(until="split")).run().folder
    kept = {d.id for d in read_documents(run / "04_split/train/documents.parquet")}
    known = changes.known_documents([run], kept)
    new = [replace(known[0], id=f"{n:064x}", path=f"b.jsonl#{n}.messages") for n in range(9)]
    votes = Votes(chats=[("chatcmpl-1", talks[0])])
    tables = changes.plan_tables(Changes(new, kept, []), known, votes, UpdateConfig(), 10**6, 1)
    assert len(tables.rows["old"]) == len(kept) > 20
    assert all(row["messages"] in talks for rows in tables.rows.values() for row in rows)


def test_votes_become_texts_or_are_counted(tmp_path: Path) -> None:
    infill = vote(6, "MIDDLE") | {
        "request": {"input_prefix": "p" * 50, "prompt": "now", "input_suffix": "s" * 50}
    }
    chat = vote(7, None, "up") | {"request": {"messages": [{"role": "user", "content": "hi"}]}}
    twice = vote(8, "first thought")
    ids = vote(9, "ideal") | {"request": {"prompt": [1, 2, 3]}}
    late = vote(10, "later") | {"time": time.time() + 1e9}
    broken = [vote(11, "x") | {"time": math.nan}, vote(12, None, "up") | {"answer": 5}]
    votes = [late, *broken]
    votes += [vote(1, "IDEAL"), vote(2, None, "down"), vote(3, "better", "down"), vote(4, None),
             vote(5, " ", "up"), infill, chat, twice, twice | {"ideal": "second thought"}, ids,
             {"id": "cmpl-x"}]  # fmt: skip
    path = write_votes(votes, tmp_path / "feedback.jsonl")
    with path.open("a") as stream:
        stream.write('{"id": "cmpl-half')
    found = read_votes(path, 0.0, True, 20, chat=False)
    texts = dict(found.texts)
    assert texts[vote(1, "")["id"]] == "def get_1(IDEAL\n\nend"
    assert texts[vote(3, "")["id"]] == "def get_3(better\n\nend"
    assert texts[vote(5, "")["id"]] == "def get_5(answered\n\nend"
    assert texts[vote(6, "")["id"]] == "p" * 17 + "now" + "MIDDLE" + "s" * 20
    assert texts[vote(8, "")["id"]] == "def get_8(second thought\n\nend"
    assert found.chats == []
    ((_, messages),) = read_votes(path, 0.0, True, 20, chat=True).chats
    assert [(m["role"], m["content"]) for m in messages] == [
        ("user", "hi"),
        ("assistant", "answered"),
    ]
    assert found.counts == {
        "edited": 4, "accepted": 1, "lines that cannot be read": 1,
        "left out: a chat, and the model is trained on texts": 1,
        "left out: its time is still to come": 1,
        "left out: thumbs up for no answer, or for several": 1,
        "left out: thumbs down": 1, "left out: no opinion": 1,
        "left out: the prompt is token ids or several texts": 1, "not a vote": 2,
    }  # fmt: skip
    assert found.until == 1e9 + 12  # not of the vote to come, which would hide all before it
    later = read_votes(path, 1e9 + 7, True, 20, chat=False)
    assert [id for id, _ in later.texts] == [vote(8, "")["id"]]
    assert not read_votes(path, 0.0, False, 20, chat=True).chats
    assert read_votes(tmp_path / "none.jsonl", 3.0, True, 20, chat=False) == Votes(until=3.0)


def test_an_answer_that_echoes_its_prompt_gives_it_once(tmp_path: Path) -> None:
    line = {"id": "cmpl-1", "time": 5.0, "rating": "up", "ideal": None,
            "request": {"prompt": "def f(", "echo": True},
            "answer": [{"text": "def f(x):", "finish_reason": "stop", "tokens": [1]}]}  # fmt: skip
    path = tmp_path / "feedback.jsonl"
    path.write_text(json.dumps(line) + "\n")
    assert read_votes(path, 0.0, True, 50, chat=False).texts == [("cmpl-1", "def f(x):")]
