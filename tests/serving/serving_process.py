"""A real server process with the stand-in model, and a plain HTTP client for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass
class Answer:
    """Status, headers and body of a response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body parsed."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of OpenAI's shape; fails on any other."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    @property
    def frames(self) -> list[Any]:
        """Objects of a stream that ended as it should."""
        assert self.headers["content-type"].startswith("text/event-stream")
        parts = self.body.decode().split("\n\n")
        assert parts.pop() == ""
        assert all(part.startswith("data: ") for part in parts)
        if parts[-1] == "data: [DONE]":
            parts.pop()
        return [json.loads(part.removeprefix("data: ")) for part in parts]


class Server:
    """A running server process."""

    def __init__(self, log: Path, *options: str, model: Path | None = None) -> None:
        self.port, self.log = free_port(), log
        fake = [str(HERE / "serving_fake_server.py")]
        verb = fake if model is None else ["-m", "gristmill", "serve", str(model)]
        self.process = subprocess.Popen(
            [sys.executable, *verb, "--port", str(self.port), "--log-file", str(log), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("ready"):
                break
        else:
            raise AssertionError("".join(lines))
        wait_until(self._reachable)

    def _reachable(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own; a body that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"content-type": "application/json"} if data is not None else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, data, {**sent, **(headers or {})})
            response = connection.getresponse()
            pairs = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, pairs, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        """GET."""
        return self.request("GET", path, None, headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        """POST."""
        return self.request("POST", path, body, headers)

    def complete(self, **fields: Any) -> Answer:
        """POST /v1/completions."""
        return self.post("/v1/completions", fields)

    def text(self, **fields: Any) -> str:
        """Text of the first choice."""
        answer = self.complete(**fields)
        assert answer.status == 200, answer.body
        return str(answer.json["choices"][0]["text"])

    def metric(self, name: str) -> float:
        """Value of a metric without labels."""
        lines = self.get("/metrics").body.decode().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(name + " ")))

    def metric_of(self, name: str, **labels: str) -> float:
        """Value of a metric with these labels; 0 where it is not there yet."""
        inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
        start = f"gristmill_{name}{{{inside}}} "
        lines = self.get("/metrics").body.decode().splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(start)), 0.0)

    def raw(self, data: bytes, *, seconds: float = 5) -> bytes:
        """Send bytes as they are and read until the server closes or `seconds` pass."""
        received = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(data)
            with contextlib.suppress(OSError):
                while chunk := connection.recv(65536):
                    received += chunk
        return received

    def stop(self) -> int:
        """Ask it to end; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float = 15) -> None:
    """Poll; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
