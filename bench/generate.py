"""Reading a prompt and writing tokens from a GGUF, beside llama.cpp (xllamacpp) on the same file.

    python bench/generate.py runs/latest/11_deploy/model.gguf [--prompt 128] [--tokens 64]

Both use an f32 cache, the same threads and prompt; first their greedy tokens must agree (up
to a near tie), then they take turns. The ceiling of writing is the memory's: every weight is read
once per token, at the bandwidth a large copy reaches in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp

from gristmill.backend import _C


@dataclass(frozen=True)
class Speed:
    """Tokens per second of one round."""

    read: float
    write: float


class Ours:
    """The runtime of gristmill."""

    def __init__(self, path: Path) -> None:
        self.model = _C.Model(str(path), True)

    def run(self, ids: list[int], tokens: int) -> tuple[Speed, list[int], list[float]]:
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
        return Speed(len(ids) / (middle - start), tokens / (end - middle)), out, gaps


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

    def run(self, ids: list[int], tokens: int) -> tuple[Speed, bytes]:
        """Speed and the text as bytes: token ids are withheld within a character."""
        request: dict[str, Any] = {"prompt": ids, "n_predict": tokens, "temperature": 0}
        request |= {"ignore_eos": True, "cache_prompt": False, "return_tokens": True}
        answer = self.server.handle_completions(request | {"n_probs": 1})
        timings = answer["timings"]
        pieces = answer["choices"][0]["logprobs"]["content"]
        written = b"".join(bytes(piece["bytes"]) for piece in pieces)
        return Speed(timings["prompt_per_second"], timings["predicted_per_second"]), written


def bandwidth() -> float:
    """Bytes per second of reading, from the sum of 256 MB by our own reduce on all threads."""
    array = _C.from_numpy(np.ones((64, 1 << 20), np.float32))
    out = _C.empty((64,))
    best = 1e9
    for _ in range(5):
        start = time.perf_counter()
        _C.reduce(out, array, "sum")
        best = min(best, time.perf_counter() - start)
    return array.nbytes / best


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


def main() -> None:
    """Verify, take turns, print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompt", type=int, default=128, help="tokens read")
    parser.add_argument("--tokens", type=int, default=64, help="tokens written")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    text = Path(__file__).read_bytes() * 8
    ours = Ours(args.model)
    ids = ours.model.tokenize(text, False)[: args.prompt]
    peer = Peer(args.model, args.prompt + args.tokens + 8)
    _, mine, gaps = ours.run(ids, args.tokens)
    _, theirs = peer.run(ids, args.tokens)
    equal = verify(ours.model, mine, theirs, gaps)
    rounds: dict[str, list[Speed]] = {"gristmill": [], "llama.cpp": []}
    for _ in range(args.rounds):
        rounds["gristmill"].append(ours.run(ids, args.tokens)[0])
        rounds["llama.cpp"].append(peer.run(ids, args.tokens)[0])
    print(f"{args.model.name}, {_C.threads()} threads, {equal} greedy tokens equal")
    for what in ("read", "write"):
        speeds = {name: [getattr(s, what) for s in r] for name, r in rounds.items()}
        a, b = (statistics.median(v) for v in speeds.values())
        spread = [f"{min(v):.0f}..{max(v):.0f}" for v in speeds.values()]
        line = (
            f"{what}: {a:.0f} tokens/s ({spread[0]}), llama.cpp {b:.0f} ({spread[1]}): {a / b:.2f}x"
        )
        if what == "write":
            limit = bandwidth() / args.model.stat().st_size
            line += f", {100 * a / limit:.0f} % of {limit:.0f} by bandwidth"
        print(line)


if __name__ == "__main__":
    main()
