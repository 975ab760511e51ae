"""The routes, over real connections to a real server with the stand-in model."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from serving_process import Answer, Server

FIRST_SPECIAL = 263


def test_models_and_health(server: Server) -> None:
    listed = server.get("/v1/models").json
    assert listed["object"] == "list"
    model = listed["data"][0]
    assert (model["id"], model["object"], model["owned_by"]) == ("fake", "model", "gristmill")
    assert server.get("/v1/models/fake").json == model
    assert server.get("/v1/models/other").error["code"] == "model_not_found"
    assert server.get("/health").json == {"status": "ok"}


def test_completion_has_openais_shape(server: Server) -> None:
    answer = server.complete(model="fake", prompt="def f", max_tokens=8, seed=1).json
    assert answer["object"] == "text_completion"
    assert answer["system_fingerprint"] == "f00dface"
    choice = answer["choices"][0]
    assert set(choice) == {"index", "text", "logprobs", "finish_reason"}
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "length")
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (2, 8, 10)


def test_every_null_is_a_default(server: Server) -> None:
    names = "suffix max_tokens n best_of echo logprobs stop stream stream_options temperature"
    names += " top_p top_k min_p frequency_penalty presence_penalty logit_bias user model"
    nulls = dict.fromkeys(names.split())
    assert server.text(prompt="a", seed=2, **nulls) == server.text(prompt="a", seed=2)


def test_streaming_says_the_same(server: Server) -> None:
    fields: dict[str, Any] = {"prompt": "def 语", "max_tokens": 60, "seed": 4, "logprobs": 2}
    whole = server.complete(**fields).json
    options = {"stream": True, "stream_options": {"include_usage": True}}
    answer = server.complete(**fields, **options)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.body.endswith(b"data: [DONE]\n\n")
    *parts, last = answer.frames
    assert len({(part["id"], part["created"], part["model"]) for part in [*parts, last]}) == 1
    assert last["id"] == answer.headers["x-request-id"] != whole["id"]
    assert last["id"].startswith("cmpl-")
    choices = [part["choices"][0] for part in parts]
    assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
    assert [c["finish_reason"] for c in choices] == [None] * (len(choices) - 1) + ["length"]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 60
    joined: dict[str, list[Any]] = {}
    for choice in choices:
        for key, values in (choice["logprobs"] or {}).items():
            joined.setdefault(key, []).extend(values)
    assert joined == whole["choices"][0]["logprobs"]
    plain = server.complete(**fields, stream=True).frames
    assert all("usage" not in part for part in plain)


def test_unicode_split_across_tokens_arrives_whole(start: Callable[..., Server]) -> None:
    server = start("--say", "✓a")  # U+2713 is three bytes, each a token of the stand-in
    fields: dict[str, Any] = {"prompt": "x", "temperature": 0}
    for tokens, wanted in ((12, "✓a✓a✓a"), (11, "✓a✓a✓"), (10, "✓a✓a�"), (1, "�")):
        whole = server.complete(**fields, max_tokens=tokens).json
        assert whole["choices"][0]["text"] == wanted
        assert whole["usage"]["completion_tokens"] == tokens
        frames = server.complete(**fields, max_tokens=tokens, stream=True).frames
        assert "".join(frame["choices"][0]["text"] for frame in frames) == wanted


def test_stop_strings(server: Server) -> None:
    fields: dict[str, Any] = {"prompt": "x", "max_tokens": 60, "seed": 11}
    whole = server.text(**fields)
    for at in (3, 9, 17):
        stop = whole[at : at + 3]
        expected = whole[: whole.index(stop)]
        for given in (stop, [stop], ["never seen", stop]):
            answer = server.complete(**fields, stop=given).json["choices"][0]
            assert (answer["text"], answer["finish_reason"]) == (expected, "stop")
        frames = server.complete(**fields, stop=stop, stream=True).frames
        assert "".join(frame["choices"][0]["text"] for frame in frames) == expected
        assert frames[-1]["choices"][0]["finish_reason"] == "stop"


def test_n_and_several_prompts(server: Server) -> None:
    fields: dict[str, Any] = {"max_tokens": 10, "seed": 5}
    answer = server.complete(prompt=["a", "b"], n=3, **fields).json
    texts = [choice["text"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    alone = [server.text(prompt=p, max_tokens=10, seed=5 + i) for p in "ab" for i in range(3)]
    assert texts == alone
    assert answer["usage"]["prompt_tokens"] == 2
    frames = server.complete(prompt=["a", "b"], n=3, stream=True, **fields).frames
    joined = [""] * 6
    for frame in frames:
        joined[frame["choices"][0]["index"]] += frame["choices"][0]["text"]
    assert joined == alone


def test_echo_and_logprobs_as_lm_eval_needs_them(server: Server) -> None:
    ids = list(b"some words, ") * 20
    fields: dict[str, Any] = {"prompt": [ids], "temperature": 0, "seed": 1234, "echo": True}
    scored = server.complete(**fields, max_tokens=1, logprobs=1).json["choices"][0]["logprobs"]
    assert {len(values) for values in scored.values()} == {len(ids) + 1}
    assert scored["token_logprobs"][0] is None
    assert scored["top_logprobs"][0] is None
    last = scored["token_logprobs"][-1]
    assert last == max(scored["top_logprobs"][-1].values())
    for token, logprob, top in zip(
        scored["tokens"][1:], scored["token_logprobs"][1:], scored["top_logprobs"][1:], strict=True
    ):
        assert top[token] == logprob <= max(top.values()) < 0
    none = server.complete(**fields, max_tokens=0, logprobs=1).json["choices"][0]
    assert none["logprobs"]["token_logprobs"] == scored["token_logprobs"][:-1]
    assert none["text"] == bytes(ids).decode()
    assert server.text(prompt="ab", echo=True, max_tokens=3, seed=1).startswith("ab")


def test_suffix_fills_the_middle(server: Server) -> None:
    fields: dict[str, Any] = {"max_tokens": 12, "seed": 3}
    filled = server.text(prompt="def f", suffix="end", **fields)
    by_hand = "<|fim_prefix|>def f<|fim_suffix|>end<|fim_middle|>"
    assert filled == server.text(prompt=by_hand, **fields)
    assert filled != server.text(prompt="def f", **fields)
    prefix, suffix = "input_prefix", "input_suffix"
    body = {prefix: "def f", suffix: "end", "n_predict": 12, "seed": 3}
    neutral = {"samplers": ["temperature"], "temperature": 1.0}
    assert server.post("/infill", {**body, **neutral}).json["content"] == filled


def test_infill_answers_as_llama_cpp(server: Server) -> None:
    body = {
        "id_slot": 0,
        "input_prefix": "import os\n",
        "input_suffix": "\nend",
        "input_extra": [{"text": "x = 1", "filename": "a.py", "time": 7}],
        "prompt": "def ",
        "n_predict": 9,
        "top_k": 40,
        "top_p": 0.9,
        "samplers": ["top_k", "top_p", "xtc"],
        "cache_prompt": True,
        "t_max_prompt_ms": 500,
        "t_max_predict_ms": 1000,
        "seed": 6,
    }
    answer = server.post("/infill", body)
    assert answer.headers["x-ignored-fields"] == "id_slot, t_max_prompt_ms, samplers:xtc"
    given = answer.json
    assert given["stop"] is True
    assert (given["tokens_predicted"], given["stop_type"], given["truncated"]) == (
        9,
        "limit",
        False,
    )
    assert given["timings"]["predicted_n"] == 9
    assert given["timings"]["prompt_n"] + given["tokens_cached"] == given["tokens_evaluated"]
    frames = server.post("/infill", {**body, "stream": True}).frames
    assert [frame["stop"] for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert "".join(frame["content"] for frame in frames) == given["content"]
    fields = ["content", "timings/prompt_n", "generation_settings/seed", "nothing/here", ""]
    picked = server.post("/infill", {**body, "response_fields": fields}).json
    assert picked == {
        "content": given["content"],
        "timings/prompt_n": 1,
        "generation_settings/seed": 6,
    }


def test_infill_warms_the_cache_with_n_predict_0(server: Server) -> None:
    body = {"input_prefix": "warm " * 9, "input_suffix": "", "prompt": "", "n_predict": 0}
    first = server.post("/infill", body).json
    assert (first["content"], first["tokens_predicted"]) == ("", 0)
    again = server.post("/infill", {**body, "n_predict": 2}).json
    assert again["tokens_cached"] == again["tokens_evaluated"] - 1


def test_infill_cuts_what_does_not_fit(server: Server) -> None:
    answer = server.post("/infill", {"input_prefix": "p" * 900, "input_suffix": "s" * 900}).json
    assert answer["truncated"] is True
    assert answer["tokens_evaluated"] + answer["tokens_predicted"] <= 256


def test_tokenizer_routes(server: Server) -> None:
    for name in ("prompt", "content"):
        assert server.post("/tokenize", {name: "def é<|endoftext|>"}).json["tokens"] == [
            256,
            260,
            FIRST_SPECIAL,
        ]
    back = server.post("/detokenize", {"tokens": [256, 260]}).json
    assert back == {"prompt": "def é", "content": "def é"}
    assert server.get("/tokenizer_info").json["eos_token"] == "<|endoftext|>"


def test_concurrent_answers_are_the_serial_ones(server: Server) -> None:
    bodies: list[dict[str, Any]] = [
        {
            "prompt": f"request {i % 7} ",
            "max_tokens": 5 + i % 23,
            "seed": i,
            "temperature": (i % 4) / 2,
            "stop": ["e"] if i % 3 == 0 else None,
            "logprobs": i % 3 or None,
            "suffix": "tail" if i % 5 == 0 else None,
        }
        for i in range(120)
    ]

    def ask(body: dict[str, Any]) -> Any:
        answer = server.complete(**body)
        assert answer.status == 200, answer.body
        return answer.json["choices"]

    serial = [ask(body) for body in bodies]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, bodies))
    assert together == serial


def test_seeds(server: Server) -> None:
    hot: dict[str, Any] = {"prompt": "x", "max_tokens": 30, "temperature": 1.5}
    assert server.text(**hot, seed=7) == server.text(**hot, seed=7) != server.text(**hot, seed=8)
    assert server.text(**hot) != server.text(**hot)
    assert server.text(**hot, seed=(1 << 63) - 1)


def test_metrics_count(server: Server) -> None:
    before = server.metric("gristmill_generated_tokens_total")
    server.text(prompt="x", max_tokens=7, seed=1)
    assert server.metric("gristmill_generated_tokens_total") == before + 7
    text = server.get("/metrics").body.decode()
    for name in ("requests_total", "time_to_first_token_seconds_bucket", "requests_queued"):
        assert f"gristmill_{name}" in text
    assert 'gristmill_model_info{digest="f00dface' in text
    server.get("/" + "x" * 50)
    assert "xxxx" not in server.get("/metrics").body.decode()


def logged(server: Server, answer: Answer) -> dict[str, Any]:
    """The line of one request, which is written when its answer may already be here."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for line in server.log.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n") and json.loads(line)["id"] == answer.headers["x-request-id"]:
                return dict(json.loads(line))
        time.sleep(0.01)
    raise AssertionError(f"no line for {answer.headers['x-request-id']} in {server.log}")


def test_the_log_has_a_line_per_request(server: Server) -> None:
    answer = server.complete(prompt="log\nthis\u2028", max_tokens=3, seed=12, user="u")
    entry = logged(server, answer)
    assert (entry["status"], entry["outcome"]) == (200, "whole")
    assert entry["id"] == answer.json["id"]
    assert entry["usage"]["completion_tokens"] == 3
    refused = logged(server, server.complete(prompt="x", max_tokens=-1))
    assert refused["error"].startswith("invalid_value: field 'max_tokens'")


def test_openapi_lists_the_routes(server: Server) -> None:
    paths = server.get("/openapi.json").json["paths"]
    assert {"/v1/completions", "/infill", "/v1/models", "/health"} <= set(paths)


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/nope"])
def test_common_headers(server: Server, path: str) -> None:
    headers = server.get(path).headers
    assert re.fullmatch("req-[0-9a-f]{32}", headers["x-request-id"])
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers
