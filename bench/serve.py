"""Latency and throughput of a running `gristmill serve`, beside its engine without HTTP.

    python -m bench.serve --model FILE --url http://127.0.0.1:8080 [--clients 1 4 16] [--json FILE]

Each client sends streaming completions one after the other over raw sockets, so the client costs
little beside the server it shares the machine with. Before anything is timed, every request is sent
once alone; a timed answer that differs from it by one byte ends the benchmark. In turns with the
server, the engine in this process gets the same requests from as many clients: what it generates is
the ceiling of the server, and must be the same bytes. With --prompt-tokens N every request has a
prompt of N ids of its own: nothing of it is cached, and ttft is the time to read it.

  ttft   arrival of the first text, from sending the request
  itl    time between two further frames of a stream
  e2e    the whole request
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import queue
import statistics
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for python bench/serve.py

from bench.receipt import Receipt

from gristmill.errors import GristmillError
from gristmill.serving.decode import Finish, Piece, Task
from gristmill.serving.engine import Engine, Failure
from gristmill.serving.fim import with_bos
from gristmill.serving.model import choose_context, find_model, load_runtime
from gristmill.serving.runtime import ModelLike

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
    prompts: tuple[str | list[int], ...] = PROMPTS

    def body(self, number: int) -> dict[str, Any]:
        """Request number `number`: a prompt in turn, its own seed."""
        return {
            "prompt": self.prompts[number % len(self.prompts)],
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


class Direct:
    """The server's engine in this process, without HTTP."""

    def __init__(self, model: Path, target: Target, slots: int) -> None:
        self.runtime, self.target = load_runtime(model), target
        n_ctx = choose_context(self.runtime, None)
        self.engine = Engine(self.runtime, n_ctx=n_ctx, slots=slots, queue=64, seconds=600)

    def ask(self, number: int, expected: str) -> int:
        """Generate request `number`; its tokens. Raises RuntimeError for another text."""
        body, model = self.target.body(number), self.runtime.model
        ids = body["prompt"]
        if isinstance(ids, str):
            ids = with_bos(model, model.tokenize(ids.encode(), True))
        task = Task(
            tuple(ids), body["max_tokens"], temperature=body["temperature"], seed=body["seed"]
        )
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.engine.submit([task], lambda _: events.put)
        text = ""
        while not isinstance(event := events.get(), Finish):
            if isinstance(event, Failure):
                raise RuntimeError(event.message)
            if isinstance(event, Piece):
                text += event.text
        if text != expected:
            raise RuntimeError(f"request {number}: server and engine differ; is --model its file?")
        return event.completion_tokens

    def speed(self, clients: int, expected: list[str]) -> float:
        """Tokens per second of all requests by `clients` threads."""
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            tokens = sum(pool.map(self.ask, range(len(expected)), expected))
        return tokens / (time.perf_counter() - began)


async def load(target: Target, clients: int, expected: list[str]) -> tuple[list[Answer], float]:
    """All requests by `clients` clients at once; the answers and the seconds together."""
    numbers = iter(range(len(expected)))
    answers: list[Answer] = []

    async def client() -> None:
        for number in numbers:
            answer = await ask(target, number)
            if answer.text != expected[number]:
                raise RuntimeError(f"request {number} under load differs from the one sent alone")
            answers.append(answer)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return answers, time.perf_counter() - began


async def measure(
    target: Target, direct: Direct, clients: int, rounds: int, expected: list[str]
) -> dict[str, Any]:
    """Server and engine in turns; latencies over all answers, speeds as medians of the rounds."""
    answers: list[Answer] = []
    speeds, ceilings = [], []
    for _ in range(rounds):
        some, seconds = await load(target, clients, expected)
        speeds.append(sum(answer.tokens for answer in some) / seconds)
        ceilings.append(direct.speed(clients, expected))
        answers += some
    share = statistics.median(a / b for a, b in zip(speeds, ceilings, strict=True))
    tokens = sum(answer.tokens for answer in answers) / len(answers)
    return {
        "clients": clients,
        "requests": len(answers),
        "requests_per_second": statistics.median(speeds) / tokens,
        "tokens_per_second": statistics.median(speeds),
        "engine_tokens_per_second": statistics.median(ceilings),
        "of_ceiling": share,
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


def long_prompts(model: ModelLike, length: int, count: int) -> tuple[list[int], ...]:
    """`count` prompts of `length` ids of this file, each begun by another id."""
    ids = model.tokenize(Path(__file__).read_bytes(), False)
    ids = (ids * (length // len(ids) + 1))[: length - 1]
    return tuple([number % model.vocab_size, *ids] for number in range(count))


def served_digest(args: argparse.Namespace) -> str:
    """Digest of the model behind the URL."""
    headers = {"Authorization": f"Bearer {args.key}"} if args.key else {}
    request = urllib.request.Request(f"{args.url}/v1/models", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["data"][0]["meta"]["digest"])


async def run(args: argparse.Namespace, receipt: Receipt) -> None:
    """Check, then measure and print every number of clients."""
    place = urlsplit(args.url)
    target = Target(place.hostname or "127.0.0.1", place.port or 80, args.key, args.tokens)
    model = find_model(args.model)
    if args.prompt_tokens:
        of = load_runtime(model).model
        target = replace(target, prompts=long_prompts(of, args.prompt_tokens, args.requests))
    direct = Direct(model, target, args.slots)
    if direct.runtime.model.digest != served_digest(args):
        raise RuntimeError(f"{model} is not the file it serves; give that one with --model")
    expected = [(await ask(target, number)).text for number in range(args.requests)]
    print(HEAD)
    for clients in args.clients:
        row = await measure(target, direct, clients, args.rounds, expected)
        print(line(row), flush=True)
        receipt.add({"op": "serve", **row})
    direct.engine.stop()


HEAD = "clients  req/s  tok/s of engine's   ttft p50/p95 ms    itl p50/p95 ms    e2e p50/p95 ms"


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    cells = []
    for name in ("ttft_ms", "itl_ms", "e2e_ms"):
        values = row[name]
        text = f"{values['p50']:.1f} / {values['p95']:.1f}" if values else "-"
        cells.append(f"{text:>17}")
    share = f"{100 * row['of_ceiling']:3.0f} % of {row['engine_tokens_per_second']:.0f}"
    rates = f"{row['requests_per_second']:6.1f} {row['tokens_per_second']:6.0f}"
    return f"{row['clients']:7d} {rates} {share:>12} {' '.join(cells)}"


def main() -> int:
    """Print the table; with --json also write a receipt."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--model", help="the file it serves, or a run folder (runs/latest)")
    parser.add_argument("--key", default=os.environ.get("GRISTMILL_API_KEY"))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=40, help="of all clients in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=4, help="as the server's --limit slots=N")
    parser.add_argument("--tokens", type=int, default=32, help="max_tokens of each request")
    parser.add_argument("--prompt-tokens", type=int, help="ids of each prompt (short texts)")
    parser.add_argument("--json", type=Path, help="write a receipt (bench/results/README.md)")
    args = parser.parse_args()
    settings = {k: v for k, v in vars(args).items() if k not in ("key", "model", "url")}
    try:
        asyncio.run(run(args, Receipt(args.json, "serve", settings, {})))
    except (OSError, RuntimeError, GristmillError) as error:
        print(f"{args.url}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
