"""Clients that leave, wait or come too often, and a server that stops: every slot is freed."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from serving_process import Server, wait_until


def stream(server: Server, **fields: Any) -> tuple[http.client.HTTPConnection, Any]:
    """An open stream of which the first frame was read."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    body = {"prompt": "x", "max_tokens": 250, "stream": True, "seed": 1, **fields}
    body["logit_bias"] = {"263": -100}  # no early end
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    response = connection.getresponse()
    assert response.status == 200
    response.readline()
    return connection, response


def test_leaving_frees_the_slot(start: Callable[..., Server]) -> None:
    server = start("--seconds", "0.02", "--limit", "slots=1", "--limit", "queue=8")
    before = server.metric("gristmill_requests_cancelled_total")
    connection, response = stream(server)
    response.close()
    connection.close()
    wait_until(lambda: server.metric("gristmill_requests_running") == 0)
    assert server.metric("gristmill_requests_cancelled_total") == before + 1
    generated = server.metric("gristmill_generated_tokens_total")
    assert generated < 200
    # the same without streaming, and while waiting in the queue
    body = json.dumps({"prompt": "x", "max_tokens": 250}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
    for one in sockets:
        one.sendall(head + body)
    wait_until(lambda: server.metric("gristmill_requests_queued") == 2)
    for one in sockets:
        one.close()
    wait_until(
        lambda: (
            server.metric("gristmill_requests_queued")
            == server.metric("gristmill_requests_running")
            == 0
        )
    )
    assert server.metric("gristmill_requests_cancelled_total") == before + 4
    assert server.complete(prompt="x", max_tokens=2).status == 200


def test_full_queue_says_when_to_come_back(start: Callable[..., Server]) -> None:
    server = start("--seconds", "0.02", "--limit", "slots=1", "--limit", "queue=0")
    connection, response = stream(server)
    answer = server.complete(prompt="x", max_tokens=1)
    assert (answer.status, answer.error["code"]) == (429, "queue_full")
    assert answer.error["type"] == "rate_limit_error"
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["x-should-retry"] == "true"
    assert 'reason="queue_full"} 1.0' in server.get("/metrics").body.decode()
    response.close()
    connection.close()
    wait_until(lambda: server.metric("gristmill_requests_running") == 0)
    assert server.complete(prompt="x", max_tokens=1).status == 200


def test_requests_per_address(start: Callable[..., Server]) -> None:
    server = start("--seconds", "0.02", "--limit", "per_address=2")
    open_streams = [stream(server) for _ in range(2)]
    answer = server.get("/v1/models")
    assert (answer.status, answer.error["code"]) == (429, "too_many_requests")
    for connection, response in open_streams:
        response.close()
        connection.close()
    wait_until(lambda: server.get("/health").status == 200)


def test_deadlines(start: Callable[..., Server]) -> None:
    options = ("header_seconds=1", "body_seconds=0.3", "request_seconds=0.4")
    server = start("--seconds", "0.02", *(x for o in options for x in ("--limit", o)))
    head = b"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    slow = server.raw(head + b"Content-Length: 50\r\n\r\n{", seconds=5)
    assert b" 408 " in slow.partition(b"\r\n")[0]
    assert b"body_timeout" in slow
    began = time.monotonic()
    server.raw(head, seconds=10)  # headers that never end: closed, whatever is answered
    assert time.monotonic() - began < 8
    endless = {"prompt": "x", "max_tokens": 200, "logit_bias": {"263": -100}}
    answer = server.complete(**endless)
    assert (answer.status, answer.error["code"]) == (503, "request_timeout")
    assert answer.headers["x-should-retry"] == "false"
    frames = server.complete(**endless, stream=True)
    assert frames.status == 200
    assert frames.frames[-1]["error"]["code"] == "request_timeout"
    assert frames.body.endswith(b"data: [DONE]\n\n")


def test_stopping_finishes_open_streams(start: Callable[..., Server]) -> None:
    server = start("--seconds", "0.005")
    connection, response = stream(server, max_tokens=100)
    result: list[bytes] = []
    reader = threading.Thread(target=lambda: result.append(response.read()))
    reader.start()
    assert server.stop() == 0
    reader.join(10)
    connection.close()
    assert result[0].endswith(b"data: [DONE]\n\n")
    assert b'"finish_reason":"length"' in result[0]


def test_stopping_cuts_what_takes_too_long(start: Callable[..., Server]) -> None:
    server = start("--seconds", "0.1", "--limit", "drain_seconds=0.2")
    connection, response = stream(server)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 8
    assert b'"code":"unavailable"' in response.read().replace(b" ", b"")
    connection.close()
