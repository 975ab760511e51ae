"""Time until a validation bits per byte, here and in PyTorch: same model, tokens and seeds.

The standard library of this Python, every 20th file for validation, byte-level BPE learned on the
rest; windows at random places, a pure function of seed and step. Both sides begin with the same
weights and train in turns, so that a busy neighbour meets both; validation is not timed. The same
number of steps on both sides gives two curves per seed: their distance is held against that of
seeds.
"""

from __future__ import annotations

import math
import statistics
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bench.figures import interval
from bench.step.shapes import Batch, Shape, Step, ours

Ids = npt.NDArray[np.int32]
EVERY, LOOKS, MOST = 25, 8, 2000  # steps between two looks, batches of a look, steps at most


@dataclass(frozen=True)
class Corpus:
    """Token ids of both parts, and how many bytes a token of validation stands for."""

    train: Ids
    validation: Ids
    bytes_per_token: float

    def batch(self, shape: Shape, seed: int, step: int) -> Batch:
        """Windows at random places of the training part."""
        return _windows(self.train, shape, np.random.default_rng([seed, step]))

    def looks(self, shape: Shape) -> list[Batch]:
        """The same windows of the validation part at every look."""
        rng = np.random.default_rng(0)
        return [_windows(self.validation, shape, rng) for _ in range(LOOKS)]


def _windows(ids: Ids, shape: Shape, rng: np.random.Generator) -> Batch:
    starts = rng.integers(0, len(ids) - shape.context - 1, shape.batch)
    rows = np.stack([ids[s : s + shape.context + 1] for s in starts])
    return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])


def corpus(vocab: int) -> Corpus:
    """Read, split, learn a tokenizer, encode."""
    from gristmill.data.tokenizer import train_tokenizer

    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(p for p in root.glob("**/*.py") if not {"site-packages", "test"} & {*p.parts})
    texts = [p.read_text("utf-8", errors="replace") for p in files]
    parts = [t for i, t in enumerate(texts) if i % 20], texts[::20]
    tokenizer = train_tokenizer(parts[0], vocab)
    train, validation = (
        np.array([i for row in tokenizer.encode_batch(part) for i in row], np.int32)
        for part in parts
    )
    size = sum(len(text.encode()) for text in parts[1])
    return Corpus(train, validation, size / len(validation))


@dataclass
class Side:
    """One trainer: seconds it has trained, the curve of its looks in bits per byte."""

    step: Step
    look: Callable[[list[Batch]], float]
    seconds: float = 0.0
    curve: list[float] = field(default_factory=list)
    reached: float | None = None  # seconds until the goal

    def advance(self, batches: list[Batch]) -> None:
        """Train on these."""
        start = time.perf_counter()
        for batch in batches:
            self.step(*batch)
        self.seconds += time.perf_counter() - start


def our_side(shape: Shape, dtype: str, seed: int) -> Side:
    """gristmill, from the first weights of the seed."""
    model = shape.build(seed)

    def look(batches: list[Batch]) -> float:
        return float(np.mean([model.token_losses(*batch).mean() for batch in batches]))

    return Side(ours(model, dtype), look)


def their_side(shape: Shape, dtype: str, seed: int, mode: str) -> Side:
    """PyTorch, from the same weights."""
    import torch
    from bench.step.torch_models import peer, theirs

    model = peer(shape.build(seed))

    def look(batches: list[Batch]) -> float:
        on = dtype == "bfloat16"
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=on):
            pairs = [[torch.from_numpy(x).long() for x in batch] for batch in batches]
            return float(np.mean([float(model(*pair)) for pair in pairs]))

    return Side(theirs(model, dtype, mode == "torch-compile"), look)


def best_mode(shape: Shape, dtype: str, text: Corpus, modes: list[str]) -> str:
    """The mode of PyTorch whose step is fastest, by the median of seven."""
    took = {}
    for mode in modes:
        side = their_side(shape, dtype, 0, mode)
        batch = text.batch(shape, 0, 0)
        side.advance([batch] * 2)  # compiles
        seconds = []
        for _ in range(7):
            before = side.seconds
            side.advance([batch])
            seconds.append(side.seconds - before)
        took[mode] = statistics.median(seconds)
    return min(took, key=lambda mode: took[mode])


def race(shape: Shape, dtype: str, text: Corpus, seed: int, mode: str, goal: float) -> list[Side]:
    """Both sides in turns until both have reached the goal; ours first."""
    sides = [our_side(shape, dtype, seed), their_side(shape, dtype, seed, mode)]
    looks, to_bits = text.looks(shape), 1 / (math.log(2) * text.bytes_per_token)
    for first in range(0, MOST, EVERY):
        batches = [text.batch(shape, seed, step) for step in range(first, first + EVERY)]
        for side in sides:
            side.advance(batches)
            side.curve.append(side.look(looks) * to_bits)
            if side.reached is None and side.curve[-1] <= goal:
                side.reached = side.seconds
        if all(side.reached is not None for side in sides):
            return sides
    last = [side.curve[-1] for side in sides]
    raise RuntimeError(f"{goal} bits per byte not reached in {MOST} steps: {last}")


def to_quality(
    shape: Shape, dtype: str, modes: list[str], goal: float, seeds: int
) -> dict[str, Any]:
    """Print a line a seed; return times, their ratio and how far the curves lie apart."""
    text = corpus(shape.vocab)
    mode = best_mode(shape, dtype, text, modes)
    print(f"{dtype}: {len(text.train)} tokens, {text.bytes_per_token:.2f} bytes each; "
          f"PyTorch's fastest here is {mode}")  # fmt: skip
    runs = []
    for seed in range(seeds):
        mine, other = race(shape, dtype, text, seed, mode, goal)
        runs.append((mine, other))
        assert mine.reached and other.reached
        print(f"seed {seed}: {EVERY * len(mine.curve)} steps, until {goal} bits per byte "
              f"{mine.reached:.1f} s, {mode} {other.reached:.1f} s, "
              f"{other.reached / mine.reached:.2f}x", flush=True)  # fmt: skip
    ratios = [other.reached / mine.reached for mine, other in runs]  # type: ignore[operator]
    low, high = interval(ratios)
    shortest = min(len(side.curve) for pair in runs for side in pair)
    curves = np.array([[side.curve[:shortest] for side in pair] for pair in runs])
    # of the same seed, ours against theirs; and of ours, one seed against another
    sides_apart = float(np.abs(curves[:, 0] - curves[:, 1]).mean())
    seeds_apart = float(np.abs(curves[:, None, 0] - curves[None, :, 0]).sum())
    seeds_apart /= max(1, seeds * (seeds - 1)) * shortest
    # fmt: off
    print(f"{statistics.median(ratios):.2f}x ({low:.2f} to {high:.2f}) less time; curves of one "
          f"seed lie {sides_apart:.4f} bits per byte apart, of two seeds {seeds_apart:.4f}")
    # fmt: on
    return {
        "dtype": dtype,
        "mode": mode,
        "goal": goal,
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
        "sides_apart": sides_apart,
        "seeds_apart": seeds_apart,
        "curves": curves.tolist(),
        "seconds": [[side.reached for side in pair] for pair in runs],
    }  # fmt: skip
