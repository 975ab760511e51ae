"""What a client can do wrong, over real connections: a 4xx of OpenAI's shape, nothing breaks."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_fake import fake_runtime
from serving_process import HERE, Server, free_port, wait_until

from gristmill.errors import GristmillError
from gristmill.serving import cli

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": 1 << 80}, "max_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 9}, "n"),
    ({"best_of": 2}, "best_of"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": -1}, "logprobs"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": "x" * 65}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"seed": -2}, "seed"),
    ({"seed": 1 << 63}, "seed"),
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [268]}, "prompt"),
    ({"prompt": [True]}, "prompt"),
    ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": ["x"] * 65}, "prompt"),
    ({"prompt": [1, 2], "suffix": "x"}, "suffix"),
    ({"suffix": "x", "echo": True}, "echo"),
    ({"logit_bias": {"268": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": {"00000000000099999999": 1}}, "logit_bias"),
    ({"logit_bias": {"0" * 4301: 1}}, "logit_bias"),  # more digits than int() takes
    ({"prompt": ["x"] * 64, "n": 2}, "prompt"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"stream_options": {"other": True}}, "stream_options"),
    ({"unknown_field": 1}, "unknown_field"),
    ({"stream": "yes"}, "stream"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[str(w[0])[:40] for w in WRONG])
def test_wrong_values_name_the_field(server: Server, fields: dict[str, Any], param: str) -> None:
    answer = server.post("/v1/completions", {"prompt": "x", "max_tokens": 1, **fields})
    assert answer.status == 400
    assert (answer.error["type"], answer.error["param"]) == ("invalid_request_error", param)
    streamed = server.post("/v1/completions", {"prompt": "x", "stream": True, **fields})
    assert streamed.status == 400


AT_THE_LIMIT: list[dict[str, Any]] = [
    {"n": 8},
    {"logprobs": 20},
    {"stop": ["a", "b", "c", "d"]},
    {"stop": "x" * 64},
    {"seed": (1 << 63) - 1},
    {"prompt": ["x"] * 64},
    {"prompt": [0, 267]},
    {"temperature": 100},
    {"top_p": 0},
    {"presence_penalty": 2, "frequency_penalty": -2},
    {"logit_bias": {"267": -100}},
]


@pytest.mark.parametrize("fields", AT_THE_LIMIT, ids=[str(w)[:40] for w in AT_THE_LIMIT])
def test_values_at_the_limit_pass(server: Server, fields: dict[str, Any]) -> None:
    answer = server.post("/v1/completions", {"prompt": "x", "max_tokens": 1, **fields})
    assert answer.status == 200, answer.body


def test_a_request_that_never_fits_is_told_with_both_numbers(server: Server) -> None:
    """Slots 4 and queue 64: 68 sequences fit an idle server, and more fit none at any time."""
    body = {"max_tokens": 1, "prompt": ["x"] * 17}
    wait_until(lambda: server.complete(n=4, **body).status == 200)  # once others have left
    answer = server.complete(n=5, **body)
    assert answer.status == 400
    assert "85 sequences" in answer.error["message"]
    assert "68" in answer.error["message"]
    assert "retry-after" not in answer.headers


def test_context_is_told_with_both_numbers(server: Server) -> None:
    answer = server.complete(prompt="x" * 250, max_tokens=7)
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert "250 tokens" in answer.error["message"]
    assert "256" in answer.error["message"]
    assert server.complete(prompt="x" * 250, max_tokens=6).status == 200


def test_unknown_model_route_and_method(server: Server) -> None:
    assert server.complete(model="gpt-4", prompt="x").error["code"] == "model_not_found"
    for method, path, status in (
        ("GET", "/nope", 404),
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/health", 405),
        ("GET", "/../etc/passwd", 404),
        ("OPTIONS", "/v1/completions", 405),
    ):
        body = {} if method == "POST" else None
        answer = server.request(method, path, body)
        assert (answer.status, bool(answer.error["message"])) == (status, True)


@pytest.mark.parametrize("path", ["/v1/completions", "/infill", "/tokenize", "/detokenize"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"x"',
        b"\xff",
        b'{"prompt": NaN}',
        b"[" * 9999,
        b'{"a":1}}',
    ],
)
def test_malformed_bodies(server: Server, path: str, body: bytes) -> None:
    answer = server.post(path, body)
    assert answer.status == 400
    assert answer.error["code"] in ("invalid_json", "invalid_value")


def test_lone_surrogates_are_no_text(server: Server) -> None:
    for path, field in (("/v1/completions", "prompt"), ("/infill", "input_prefix")):
        for value in (b'"\\ud800"', b'["\\udfff"]'):
            body = b'{"%s": %s}' % (field.encode(), value)
            assert server.post(path, body).status == 400
    body = b'{"prompt": "x", "max_tokens": 1, "stop": "\\ud800"}'
    assert server.post("/v1/completions", body).status == 400


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
FIELDS = st.sampled_from(
    [
        *("prompt", "suffix", "max_tokens", "n", "logprobs", "stop", "seed", "temperature"),
        *("top_p", "stream", "echo", "logit_bias", "input_prefix", "input_suffix"),
        *("input_extra", "n_predict", "samplers", "n_indent", "top_k", "other"),
    ]
)


@given(
    st.sampled_from(["/v1/completions", "/infill", "/tokenize", "/detokenize"]),
    st.dictionaries(
        FIELDS,
        VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(st.text(max_size=3), VALUES),
        max_size=4,
    ),
)
@settings(max_examples=250)
def test_no_body_makes_a_500(server: Server, path: str, body: dict[str, Any]) -> None:
    answer = server.post(path, json.dumps(body).encode())
    assert answer.status in (200, 400), (answer.status, answer.body)


def test_body_size_at_and_above_the_limit(start: Callable[..., Server]) -> None:
    server = start("--limit", "body_bytes=2000")
    body = json.dumps({"prompt": "x", "max_tokens": 1}).encode()
    assert server.post("/v1/completions", body.ljust(2000)).status == 200
    answer = server.post("/v1/completions", body.ljust(2001))
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")
    head = b"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024 + b"\r\n"
    assert b" 413 " in server.raw(chunked + b"400\r\n" + b"x" * 1024 + b"\r\n" * 2, seconds=1)
    assert b" 413 " in server.raw(head + b"Content-Length: 999999999999\r\n\r\n{", seconds=1)


def test_media_types(server: Server) -> None:
    body = json.dumps({"prompt": "x"}).encode()
    form = "application/x-www-form-urlencoded"
    for headers in ({"content-type": form}, {"content-type": "text/plain"}):
        answer = server.post("/v1/completions", body, **headers)
        assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")
    zipped = {"content-encoding": "gzip"}
    assert server.post("/v1/completions", body, **zipped).status == 415
    full = {"content-type": "Application/JSON; charset=utf-8"}
    assert server.post("/v1/completions", body, **full).status == 200


def test_header_limits(server: Server) -> None:
    def many(count: int) -> bytes:
        lines = [b"GET /health HTTP/1.1", b"Host: localhost", b"Connection: close"]
        lines += [b"X-%d: 1" % i for i in range(count - 2)]
        return server.raw(b"\r\n".join(lines) + b"\r\n\r\n")

    assert b" 200 " in many(64).partition(b"\r\n")[0]
    assert b" 431 " in many(65).partition(b"\r\n")[0]
    big = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n"
    assert b" 431 " in server.raw(big).partition(b"\r\n")[0]
    assert server.get("/" + "a" * 8191).status == 404
    assert server.get("/" + "a" * 8192).status == 414


def test_hosts_and_origins(server: Server) -> None:
    def ask(*lines: bytes) -> bytes:
        sent = [b"GET /v1/models HTTP/1.1", b"Connection: close", *lines, b"", b""]
        return server.raw(b"\r\n".join(sent)).partition(b"\r\n")[0]

    port = b"%d" % server.port
    assert b" 200 " in ask(b"Host: 127.0.0.1:" + port)
    assert b" 200 " in ask(b"Host: LOCALHOST")
    assert b" 403 " in ask(b"Host: evil.example")
    assert b" 403 " in ask(b"Host: 127.0.0.1.evil.example")
    assert b" 400 " in ask(b"Host: localhost", b"Host: localhost")
    assert b" 403 " in ask()  # granian passes a missing one on as an empty one
    own = b"Host: localhost:" + port
    assert b" 200 " in ask(own, b"Origin: http://localhost:" + port)
    assert b" 403 " in ask(own, b"Origin: http://evil.example")
    assert b" 403 " in ask(own, b"Origin: null")


def test_broken_http_does_not_hurt(server: Server) -> None:
    for data in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /infill HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n-2\r\nxx\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ):
        status = server.raw(data, seconds=0.3).partition(b"\r\n")[0]
        assert b" 2" not in status
        assert b" 5" not in status, (data, status)
    assert server.get("/health").status == 200


def test_key(start: Callable[..., Server]) -> None:
    server = start("--api-key", "secret-key-1")
    right = {"authorization": "Bearer secret-key-1"}
    routes = [("GET", p) for p in ("/v1/models", "/metrics", "/alerts", "/openapi.json", "/nope")]
    paths = ("/v1/completions", "/v1/chat/completions", "/v1/feedback", "/infill", "/tokenize")
    routes += [("POST", path) for path in (*paths, "/detokenize")]
    for method, path in routes:
        body = {"prompt": "x", "max_tokens": 1} if method == "POST" else None
        for wrong in ("", "Bearer", "Bearer secret-key-2", "Basic secret-key-1", "secret-key-1"):
            headers = {"authorization": wrong} if wrong else {}
            answer = server.request(method, path, body, headers)
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key"), (path, wrong)
            assert answer.error["type"] == "authentication_error"
        assert server.request(method, path, body, right).status in (200, 400, 404)
    assert server.get("/").status == server.get("/health").status == 200
    assert b"secret-key-1" not in server.log.read_bytes()


def test_a_port_in_use_is_told_with_the_next_step(server: Server) -> None:
    command = [sys.executable, str(HERE / "serving_fake_server.py"), "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert f"port {server.port} of 127.0.0.1 is in use; choose another" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--port", "70000"), "allowed are 1 to 65535"),
        (("--host", "0.0.0.0"), "set a key with --api-key"),
        (("--api-key", "short"), "8 to 512"),
        (("--limit", "nothing=1"), "no limit 'nothing'"),
        (("--ctx", "1000"), "16 to 256"),
        (("--log-file", "{}/file/log"), "cannot write the request log"),
    ],
)
def test_bad_starts(
    run_servers: None, tmp_path: Path, options: tuple[str, str], message: str
) -> None:
    (tmp_path / "file").write_text("")
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    given = ["--port", str(free_port()), options[0], options[1].format(tmp_path)]
    with pytest.raises(GristmillError, match=message) as caught:
        cli.serve_runtime(fake_runtime(), Path("fake.gguf"), parser.parse_args(given))
    assert caught.value.exit_code == 2
