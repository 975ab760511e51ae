"""The request log as something to replay from, and votes on its answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from serving_process import Answer, Server, wait_until

from gristmill.serving.answers import RECENT, RECENT_BYTES
from gristmill.serving.feedback import latest
from gristmill.serving.request_log import RequestLog, entries, find


def line_of(server: Server, id: str) -> dict[str, Any]:
    """The line of one request, which is written when its answer may already be here."""
    wait_until(lambda: find(server.log, id) is not None)
    return find(server.log, id) or {}


def votes(server: Server) -> list[dict[str, Any]]:
    return list(entries(server.log.with_name("feedback.jsonl")))


def vote(server: Server, id: Any, **fields: Any) -> Answer:
    return server.post("/v1/feedback", {"id": id, **fields})


COMPLETIONS: list[dict[str, Any]] = [
    {"prompt": "def f", "max_tokens": 30, "temperature": 1.4},
    {"prompt": ["a", "语"], "n": 2, "logprobs": 1, "max_tokens": 9, "top_k": 30},
    {"prompt": [100, 101], "suffix": None, "stop": "e", "logit_bias": {"263": -100}},
    {"prompt": "x", "suffix": "tail", "max_tokens": 12, "frequency_penalty": 1.5},
    {"prompt": "x\u2028\n", "echo": True, "stream": True, "max_tokens": 20, "min_p": 0.01},
]
INFILL = {"input_prefix": "def ", "input_suffix": "\n", "n_predict": 9, "other": 1e400}


@pytest.mark.parametrize("body", COMPLETIONS, ids=lambda body: str(body)[:40])
def test_a_request_replays_from_its_line(server: Server, body: dict[str, Any]) -> None:
    first = server.post("/v1/completions", body)
    line = line_of(server, first.headers["x-request-id"])
    assert (line["endpoint"], line["status"]) == ("/v1/completions", 200)
    assert line["model"] == "f00dfacecafebeef" * 4
    assert len(line["answer"]) == body.get("n", 1) * (2 if "语" in body["prompt"] else 1)
    again = server.post(line["endpoint"], line["request"])
    replayed = line_of(server, again.headers["x-request-id"])
    assert replayed["answer"] == line["answer"]
    assert replayed["request"] == line["request"]
    if not body.get("stream"):
        texts = [choice["text"] for choice in first.json["choices"]]
        assert [answer["text"] for answer in line["answer"]] == texts
        assert first.json["id"] == line["id"]


def test_an_infill_replays_from_its_line(server: Server) -> None:
    first = server.post("/infill", json.dumps(INFILL).replace("Infinity", "1e400").encode())
    line = line_of(server, first.json["id"])
    assert line["request"].keys() == {"input_prefix", "input_suffix", "n_predict", "seed"}
    assert line["answer"][0]["text"] == first.json["content"]
    assert server.post("/infill", line["request"]).json["content"] == first.json["content"]


def test_an_answer_that_was_cut_is_logged_as_far_as_it_came(start: Callable[..., Server]) -> None:
    server = start("--seconds", "0.02", "--limit", "request_seconds=0.5")
    fields = {"prompt": "x", "stream": True, "max_tokens": 200, "logit_bias": {"263": -100}}
    answer = server.complete(**fields)
    line = line_of(server, answer.headers["x-request-id"])
    text = "".join(f["choices"][0]["text"] for f in answer.frames if "choices" in f)
    assert line["answer"] == [{**line["answer"][0], "text": text, "finish_reason": None}]
    assert 0 < len(line["answer"][0]["tokens"]) < 200


def test_half_a_line_is_kept_apart_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    torn = b'{"id": "b", "request": {"prompt": "half of a'
    path.write_bytes(b'{"id": "a"}\n' + torn)
    log = RequestLog(path)
    assert log.write({"id": "c"})
    log.close()
    assert path.read_bytes() == b'{"id": "a"}\n' + torn + b'\n{"id": "c"}\n'
    assert [entry["id"] for entry in entries(path)] == ["a", "c"]
    assert [found and found["id"] for found in map(lambda i: find(path, i), "abc")] == [
        "a",
        None,
        "c",
    ]


def test_find_reads_rotated_logs_and_is_not_fooled_by_prompts(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log.jsonl", most_bytes=300)
    for number in range(20):
        fake = '\n{"id": "cmpl-99", "answer": 1}'
        log.write({"id": f"cmpl-{number}", "request": {"prompt": fake}})
    log.close()
    assert find(log.path, "cmpl-99") is None
    assert (find(log.path, "cmpl-19") or {})["id"] == "cmpl-19"
    assert (find(log.path, "cmpl-12") or {})["id"] == "cmpl-12"  # in an older part
    assert find(log.path, "cmpl-1") is None  # "cmpl-1" begins other ids and is rotated away
    assert [entry["id"] for entry in entries(log.path)][-3:] == ["cmpl-17", "cmpl-18", "cmpl-19"]


def test_votes_are_appended_and_the_later_one_counts(server: Server) -> None:
    answer = server.complete(prompt="rate me", max_tokens=4).json
    before = server.metric_of("feedback_total", rating="up")
    assert vote(server, answer["id"], rating="up").json == {
        "object": "feedback", "id": answer["id"], "rating": "up", "ideal": None,
    }  # fmt: skip
    assert server.metric_of("feedback_total", rating="up") == before + 1
    assert vote(server, answer["id"], rating="down", ideal="better\n\u2028text").status == 200
    both = [line for line in votes(server) if line["id"] == answer["id"]]
    assert [line["rating"] for line in both] == ["up", "down"]
    last = latest(server.log.with_name("feedback.jsonl"))[answer["id"]]
    assert (last["rating"], last["ideal"]) == ("down", "better\n\u2028text")
    assert last["request"]["prompt"] == "rate me"
    assert last["answer"][0]["text"] == answer["choices"][0]["text"]
    assert last["model"] == "f00dfacecafebeef" * 4
    assert server.log.with_name("feedback.jsonl").stat().st_mode & 0o777 == 0o600


def test_streams_and_infill_can_be_voted_on(server: Server) -> None:
    stream = server.complete(prompt="x", max_tokens=4, stream=True)
    fill = server.post("/infill", {"input_prefix": "a", "input_suffix": "b", "n_predict": 3})
    for id in (stream.headers["x-request-id"], fill.json["id"]):
        assert vote(server, id, rating="up").status == 200


def test_forgotten_answers_are_found_in_the_log(server: Server) -> None:
    old = server.complete(prompt="an old one", max_tokens=2).json["id"]
    line_of(server, old)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: server.complete(prompt="x", max_tokens=1), range(RECENT + 1)))
    assert vote(server, old, rating="up").status == 200
    assert votes(server)[-1]["request"]["prompt"] == "an old one"
    large = server.complete(prompt="x", user="u" * RECENT_BYTES, max_tokens=1).json["id"]
    line_of(server, large)
    assert vote(server, large, rating="up").status == 200


WRONG: list[tuple[dict[str, Any], int]] = [
    ({}, 400),
    ({"id": 3}, 400),
    ({"id": None}, 400),
    ({"id": "cmpl-1", "rating": "good"}, 400),
    ({"id": "cmpl-1", "ideal": 1}, 400),
    ({"id": "cmpl-1", "other": 1}, 400),
    ({"id": "cmpl-1", "rating": "up"}, 404),
    ({"id": "cmpl-" + "0" * 32, "rating": "up"}, 404),
    ({"id": "../" * 20}, 404),
    ({"id": "x" * 100_000}, 404),
]


@pytest.mark.parametrize(("body", "status"), WRONG, ids=[str(w[0])[:40] for w in WRONG])
def test_wrong_votes(server: Server, body: dict[str, Any], status: int) -> None:
    answer = server.post("/v1/feedback", body)
    assert answer.status == status
    assert answer.error["message"]
    assert len(answer.body) < 2000


def test_a_request_without_answer_cannot_be_voted_on(server: Server) -> None:
    for fields in ({"max_tokens": -1}, {"prompt": ["x"] * 64, "n": 8}):  # ill-formed, too much
        refused = server.complete(**{"prompt": "x", **fields}).headers["x-request-id"]
        line_of(server, refused)
        assert vote(server, refused, rating="up").status == 404


def test_feedback_needs_the_log_and_room(start: Callable[..., Server]) -> None:
    silent = start("--no-log")
    id = silent.complete(prompt="x", max_tokens=1).json["id"]
    assert vote(silent, id, rating="up").error["code"] == "feedback_off"
    assert not silent.log.with_name("feedback.jsonl").exists()
    small = start("--limit", "feedback_bytes=4096")
    id = small.complete(prompt="x", max_tokens=1).json["id"]
    codes = [vote(small, id, ideal="y" * 1000).status for _ in range(8)]
    assert codes == sorted(codes)
    assert {200, 507} == set(codes)
