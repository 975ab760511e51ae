"""Reading a prompt and writing tokens from a GGUF, beside llama.cpp (xllamacpp) on the same file.

    python -m bench.generate runs/latest/11_deploy/model.gguf [--prompt 128] [--tokens 64]

Both use an f32 cache, the same threads and prompt; first their greedy tokens must agree (up to a
near tie), then they take turns with the machine's ceiling. Of writing that is to read every weight
once per token, a stream over an array of that size; of reading the prompt it is the fused
multiply-adds of its products, from registers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import xllamacpp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for python bench/generate.py

from bench.measure import compute_ceiling, interleave, stream_ceiling, summary
from bench.receipt import Receipt

from gristmill.backend import _C


@dataclass(frozen=True)
class Times:
    """Seconds of one run."""

    read: float
    write: float


class Ours:
    """The runtime of gristmill."""

    def __init__(self, path: Path) -> None:
        self.model = _C.Model(str(path), True)

    def run(self, ids: list[int], tokens: int) -> tuple[Times, list[int], list[float]]:
        """Greedy tokens, the gap of the best two logits before each."""
        session = _C.Session(self.model, len(ids) + tokens)
        start = time.perf_counter()
        logits = session.eval(ids)
        middle = time.perf_counter()
        out, gaps = [], []
        for _ in range(tokens):
            out.append(int(np.argmax(logits)))
            second, first = np.partition(logits, -2)[-2:]
            gaps.append(float(first - second))
            logits = session.eval(out[-1:])
        end = time.perf_counter()
        return Times(middle - start, end - middle), out, gaps


class Peer:
    """llama.cpp by its own timings, which leave its HTTP and JSON out."""

    def __init__(self, path: Path, context: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.fit_params = context, 1, False
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _C.threads()
        params.verbosity = 0
        self.server = xllamacpp.Server(params)

    def run(self, ids: list[int], tokens: int) -> tuple[Times, bytes]:
        """Seconds and the text as bytes: token ids are withheld within a character."""
        request: dict[str, Any] = {"prompt": ids, "n_predict": tokens, "temperature": 0}
        request |= {"ignore_eos": True, "cache_prompt": False, "return_tokens": True}
        answer = self.server.handle_completions(request | {"n_probs": 1})
        timings = answer["timings"]
        pieces = answer["choices"][0]["logprobs"]["content"]
        written = b"".join(bytes(piece["bytes"]) for piece in pieces)
        return Times(timings["prompt_ms"] / 1e3, timings["predicted_ms"] / 1e3), written


def ceilings(path: Path, prompt: int, tokens: int) -> dict[str, Callable[[], float]]:
    """Seconds to read `prompt` ids and to write `tokens`: the products' FLOPs (the head's for the
    last id only), and every weight once per token (of an embedding that is not the head, nothing).
    """
    sizes = {t.name: (int(t.n_elements), int(t.n_bytes)) for t in gguf.GGUFReader(path).tensors}
    embedding = sizes.pop("token_embd.weight")
    head = sizes.pop("output.weight", embedding)
    rest = [sum(size[i] for size in sizes.values()) for i in range(2)]
    stream = stream_ceiling(1, 0, (rest[1] + head[1]) / 4)
    return {
        "read": compute_ceiling(2.0 * (rest[0] * prompt + head[0])),
        "write": lambda: tokens * stream(),
    }


def verify(model: Any, ours: list[int], theirs: bytes, gaps: list[float]) -> int:
    """Number of equal tokens; ends the benchmark where they part without a near tie."""
    at = 0
    for i, token in enumerate(ours):
        piece = model.detokenize([token])
        if not theirs[at:].startswith(piece) and len(theirs) >= at + len(piece):
            if gaps[i] > 1e-3:
                raise SystemExit(
                    f"token {i} is {piece!r}, llama.cpp goes on {theirs[at : at + 16]!r}"
                )
            return i
        at += len(piece)
    return len(ours)


def together(model: Any, ids: list[int], count: int, tokens: int) -> Callable[[], float]:
    """Seconds of `tokens` steps that write one token of each of `count` sequences; every last
    logit is first compared, byte by byte, with that of the sequence alone."""
    sessions = [_C.Session(model, len(ids) + tokens) for _ in range(count)]
    for session in sessions:
        session.eval(ids)

    def run() -> float:
        start = time.perf_counter()
        for step in range(tokens):
            _C.eval_batch(sessions, [[ids[(step + i) % len(ids)]] for i in range(count)])
        seconds = time.perf_counter() - start
        for session in sessions:
            session.truncate(len(ids))
        return seconds

    logits = _C.eval_batch(sessions, [[ids[i % len(ids)]] for i in range(count)])
    for i, session in enumerate(sessions):
        session.truncate(len(ids))
        if session.eval([ids[i % len(ids)]]).tobytes() != logits[i].tobytes():
            raise SystemExit(f"sequence {i} of {count} has other logits than alone")
        session.truncate(len(ids))
    return run


def main() -> None:
    """Verify, take turns, print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompt", type=int, default=128, help="tokens read")
    parser.add_argument("--tokens", type=int, default=64, help="tokens written")
    parser.add_argument("--sequences", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write a receipt (bench/results/README.md)")
    args = parser.parse_args()
    text = Path(__file__).read_bytes() * 8
    ours = Ours(args.model)
    ids = ours.model.tokenize(text, False)[: args.prompt]
    peer = Peer(args.model, args.prompt + args.tokens + 8)
    _, mine, gaps = ours.run(ids, args.tokens)
    _, theirs = peer.run(ids, args.tokens)
    equal = verify(ours.model, mine, theirs, gaps)
    beside = version("xllamacpp")
    print(f"{args.model.name}, {args.model.stat().st_size / 1e6:.0f} MB, {_C.threads()} threads, "
          f"beside llama.cpp (xllamacpp {beside}), {equal} greedy tokens equal")  # fmt: skip
    receipt = Receipt(args.json, "generate", vars(args), {"xllamacpp": beside})
    limits = ceilings(args.model, len(ids), args.tokens)

    def take_turns(what: str, tokens: int, amount: int) -> None:
        def timed(side: Ours | Peer) -> Callable[[], float]:
            return lambda: getattr(side.run(ids, tokens)[0], what)

        sides = {"ours": timed(ours), "peer": timed(peer), "ceiling": limits[what]}
        taken = interleave(sides, args.rounds)
        row = summary(f"{what} {amount} tokens", taken, amount, "tokens")
        print(row, flush=True)
        receipt.add({"op": "generate", **asdict(row), "model_bytes": args.model.stat().st_size})

    take_turns("read", 1, len(ids))
    take_turns("write", args.tokens, args.tokens)
    sides = {str(n): together(ours.model, ids, n, args.tokens) for n in args.sequences}
    for n, seconds in interleave(sides, args.rounds).items() if sides else ():
        rate = int(n) * args.tokens / statistics.median(seconds)
        print(f"{n} sequences in a step: {rate:.0f} tokens/s", flush=True)
        receipt.add({"op": "generate", "sequences": int(n), "tokens_per_second": rate})


if __name__ == "__main__":
    main()
