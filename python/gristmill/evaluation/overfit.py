"""Does the model know the training files better than others, and which keys would change that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gristmill.evaluation.bootstrap import Interval

Kind = Literal["overfitting", "past its best", "still improving", "in balance"]
TURNED = 0.005  # share of the best validation loss by which a later one must be worse to count
MOST_DROPOUT, MOST_DECAY = 0.3, 0.4  # beyond them a small model learns too little
MOVING = 0.01  # share by which the last tenth of training must have lowered it to go on


@dataclass(frozen=True)
class Overfitting:
    """The verdict in one sentence, its figures (bits per byte) and the keys that change it."""

    kind: Kind
    text: str
    keys: list[str]
    gap: float
    bar: float
    train: Interval
    val: Interval

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def judge(
    train: Interval, val: Interval, looks: Sequence[tuple[int, float]], steps: int, bar: float
) -> Overfitting:
    """Compare bits per byte on training and validation files, and follow the looks in between.

    looks: (step, validation loss) in order. bar: the gap from which it counts as overfitting, and
    only if the two intervals do not overlap, since other files are also just harder or easier.
    """
    gap = val.value - train.value
    kind = _kind(gap > bar and val.excludes(train), looks, steps)
    text, keys = _ADVICE[kind]
    figures = f"validation files cost {gap:+.3f} bits per byte against training files"
    return Overfitting(kind, f"{text}: {figures} (bar {bar:g})", keys, gap, bar, train, val)


def remedy(
    kind: Kind, dropout: float, weight_decay: float, best_step: int, steps: int
) -> dict[str, Any]:
    """Return the keys to change, with new values, so that less is learned by heart.

    Overfitting: more dropout and twice the weight decay. Past its best: as many steps as the best
    look had seen. Empty where the verdict asks for neither, or where there is nothing left to turn.
    """
    if kind == "past its best":
        return {"design.steps": best_step} if 0 < best_step < steps else {}
    if kind != "overfitting":
        return {}
    changes: dict[str, Any] = {}
    if dropout < MOST_DROPOUT:
        changes["train.dropout"] = round(min(MOST_DROPOUT, dropout + 0.1), 3)
    if weight_decay < MOST_DECAY:
        changes["train.weight_decay"] = round(min(MOST_DECAY, max(0.1, 2.0 * weight_decay)), 3)
    return changes


def _kind(apart: bool, looks: Sequence[tuple[int, float]], steps: int) -> Kind:
    if apart:
        return "overfitting"
    losses = [loss for _, loss in looks]
    if losses and losses[-1] > min(losses) * (1.0 + TURNED):
        return "past its best"
    early = [loss for step, loss in looks if step < 0.9 * steps]
    if early and losses[-1] < early[-1] * (1.0 - MOVING):
        return "still improving"
    return "in balance"


_ADVICE: dict[Kind, tuple[str, list[str]]] = {
    "overfitting": (
        "the model learns files by heart; give it more text (collect.source), a smaller model "
        "(design.depth), fewer steps (design.minutes) or a higher train.weight_decay",
        ["collect.source", "design.depth", "design.minutes", "train.weight_decay"],
    ),
    "past its best": (
        "validation was better earlier; stop there (train.patience), train shorter "
        "(design.minutes) or more gently (train.lr)",
        ["train.patience", "design.minutes", "train.lr"],
    ),
    "still improving": (
        "no overfitting, and the loss still fell at the end; train longer (design.minutes), then "
        "larger (design.depth)",
        ["design.minutes", "design.depth"],
    ),
    "in balance": (
        "no overfitting, and the loss hardly fell at the end; a larger model (design.depth) or "
        "more text (collect.source) is the next step",
        ["design.depth", "collect.source"],
    ),
}
