"""Latency and throughput of a running `gristmill serve`.

    python bench/serve.py --url http://127.0.0.1:8080 [--clients 1 4 16] [--requests 40] [--out DIR]

Each client sends streaming completions one after the other over raw sockets, so the client costs
little beside the server it shares the machine with. Before anything is timed, every request is sent
once alone; a timed answer that differs from it by one byte ends the benchmark.

  ttft   arrival of the first text, from sending the request
  itl    time between two further frames of a stream
  e2e    the whole request
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROMPTS = (
    "def read_json(path):\n    ",
    "class Queue:\n    def __init__(self):\n        ",
    "import os\nimport sys\n\n\ndef main():\n    ",
    "for name in sorted(names):\n    ",
)


@dataclass
class Answer:
    """One timed stream: seconds, and the text to compare."""

    first: float = 0.0
    whole: float = 0.0
    gaps: list[float] = field(default_factory=list)
    text: str = ""
    tokens: int = 0


@dataclass(frozen=True)
class Target:
    """Where to send and how long answers are."""

    host: str
    port: int
    key: str | None
    tokens: int

    def body(self, number: int) -> dict[str, Any]:
        """Request number `number`: a prompt in turn, its own seed."""
        return {
            "prompt": PROMPTS[number % len(PROMPTS)],
            "max_tokens": self.tokens,
            "temperature": 0.8,
            "seed": number,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def encoded(self, body: dict[str, Any]) -> bytes:
        """The whole HTTP request; the server closes the connection after the answer."""
        data = json.dumps(body).encode()
        lines = ["POST /v1/completions HTTP/1.1", f"Host: {self.host}:{self.port}"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        lines += ["Connection: close", *([f"Authorization: Bearer {self.key}"] if self.key else [])]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def ask(target: Target, number: int) -> Answer:
    """One request. Raises RuntimeError for any answer but a finished stream."""
    reader, writer = await asyncio.open_connection(target.host, target.port, limit=1 << 20)
    answer, last, began = Answer(), 0.0, time.perf_counter()
    try:
        writer.write(target.encoded(target.body(number)))
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{status.decode().strip()}: {(await reader.read())[-300:]!r}")
        while line := await reader.readline():
            if not line.startswith(b"data: {"):
                if line.startswith(b"data: [DONE]"):
                    answer.whole = time.perf_counter() - began
                continue
            now = time.perf_counter()
            frame = json.loads(line[6:])
            if "error" in frame:
                raise RuntimeError(frame["error"]["message"])
            if frame["usage"]:
                answer.tokens = frame["usage"]["completion_tokens"]
            elif text := frame["choices"][0]["text"]:
                answer.text += text
                if last:
                    answer.gaps.append(now - last)
                else:
                    answer.first = now - began
                last = now
    finally:
        writer.close()
    if not answer.whole:
        raise RuntimeError("a stream ended without [DONE]")
    return answer


async def measure(
    target: Target, clients: int, requests: int, expected: list[str]
) -> dict[str, Any]:
    """`requests` requests by `clients` clients at once; figures in milliseconds and tokens/s."""
    numbers = iter(range(requests))
    answers: list[Answer] = []

    async def client() -> None:
        for number in numbers:
            answer = await ask(target, number)
            if answer.text != expected[number]:
                raise RuntimeError(f"request {number} under load differs from the one sent alone")
            answers.append(answer)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - began
    tokens = sum(answer.tokens for answer in answers)
    return {
        "clients": clients,
        "requests": requests,
        "seconds": seconds,
        "requests_per_second": requests / seconds,
        "tokens_per_second": tokens / seconds,
        "ttft_ms": spread([1000 * a.first for a in answers if a.first]),
        "itl_ms": spread([1000 * gap for a in answers for gap in a.gaps]),
        "e2e_ms": spread([1000 * a.whole for a in answers]),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile; nothing where nothing was measured."""
    if len(values) < 2:
        return {}
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


async def run(args: argparse.Namespace) -> dict[str, Any]:
    """Check, then measure every number of clients."""
    place = urlsplit(args.url)
    target = Target(place.hostname or "127.0.0.1", place.port or 80, args.key, args.tokens)
    expected = [(await ask(target, number)).text for number in range(args.requests)]
    results = [await measure(target, n, args.requests, expected) for n in args.clients]
    return {
        "benchmark": "serve",
        "url": args.url,
        "max_tokens": args.tokens,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cpus": os.cpu_count(), "kind": platform.machine(), "cpu": cpu_name()},
        "results": results,
    }


def cpu_name() -> str:
    """Model name of the processor where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def table(report: dict[str, Any]) -> str:
    """The figures as lines of text."""
    lines = ["clients  req/s  tok/s   ttft p50/p95 ms    itl p50/p95 ms    e2e p50/p95 ms"]
    for row in report["results"]:
        cells = []
        for name in ("ttft_ms", "itl_ms", "e2e_ms"):
            values = row[name]
            text = f"{values['p50']:.1f} / {values['p95']:.1f}" if values else "-"
            cells.append(f"{text:>17}")
        rates = f"{row['requests_per_second']:6.1f} {row['tokens_per_second']:6.0f}"
        lines.append(f"{row['clients']:7d} {rates} {' '.join(cells)}")
    return "\n".join(lines)


def main() -> int:
    """Print the table; with --out also write it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default=os.environ.get("GRISTMILL_API_KEY"))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=32, help="max_tokens of each request")
    parser.add_argument("--out", type=Path, help="folder for serve-<time>.json")
    args = parser.parse_args()
    try:
        report = asyncio.run(run(args))
    except (OSError, RuntimeError) as error:
        print(f"{args.url}: {error}", file=sys.stderr)
        return 1
    print(table(report))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / f"serve-{report['time'].replace(':', '')}.json"
        path.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
