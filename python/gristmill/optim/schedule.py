"""Learning rate as a function of the step, so that a resumed run needs no state for it.

Plateau alone depends on what was measured; its state is in the checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("constant", "linear", "cosine", "wsd", "plateau")


def learning_rate(
    step: int, steps: int, peak: float, kind: str = "constant",
    warmup: float = 0.0, decay: float = 0.3, final: float = 0.0,
) -> float:  # fmt: skip
    """Rate of step 0 <= step < steps. Shares: warmup rises from 0, wsd falls over the last `decay`
    (Hu et al., "MiniCPM", 2024), cosine and linear fall over all that follows the warm-up, to
    final * peak. "plateau" is constant here: what lowers it is a factor, see Plateau.
    """
    if kind not in KINDS:
        raise ValueError(f"schedule '{kind}' is not one of {', '.join(KINDS)}")
    rising = round(warmup * steps)
    if step < rising:
        return peak * (step + 1) / rising
    low = peak * final
    if kind in ("constant", "plateau"):
        return peak
    falling = round(decay * steps) if kind == "wsd" else steps - rising
    left = steps - step
    if left > falling or falling == 0:
        return peak
    share = left / falling
    if kind == "cosine":
        share = 0.5 * (1.0 - math.cos(math.pi * share))
    return low + (peak - low) * share


@dataclass
class Plateau:
    """Lowers the rate when a loss has stopped falling, as torch's ReduceLROnPlateau (mode "min").

    After more than `patience` looks in a row without a loss below (1 - threshold) times the best,
    the factor on the rate is multiplied by `factor`, down to `floor`.
    """

    factor: float = 0.5
    patience: int = 3
    floor: float = 0.0
    threshold: float = 1e-4
    scale: float = 1.0
    best: float = math.inf
    bad: int = 0

    def look(self, loss: float) -> float:
        """Take a loss in; returns the factor on the rate from now on."""
        if loss < self.best * (1.0 - self.threshold):
            self.best, self.bad = loss, 0
        else:
            self.bad += 1
        if self.bad > self.patience:
            self.scale, self.bad = max(self.floor, self.scale * self.factor), 0
        return self.scale

    def state_dict(self) -> dict[str, Any]:
        """JSON values; an infinite best is None."""
        return asdict(self) | {"best": self.best if math.isfinite(self.best) else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The opposite."""
        self.scale, self.bad = state["scale"], state["bad"]
        self.best = math.inf if state["best"] is None else state["best"]
