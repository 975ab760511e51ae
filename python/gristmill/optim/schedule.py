"""Learning rate as a function of the step, so that a resumed run needs no state for it."""

from __future__ import annotations

import math

KINDS = ("constant", "linear", "cosine", "wsd")


def learning_rate(
    step: int, steps: int, peak: float, kind: str = "constant",
    warmup: float = 0.0, decay: float = 0.3, final: float = 0.0,
) -> float:  # fmt: skip
    """Rate of step 0 <= step < steps. Shares: warmup rises from 0, wsd falls over the last `decay`
    (Hu et al., "MiniCPM", 2024), cosine and linear fall over all that follows the warm-up, to
    final * peak.
    """
    if kind not in KINDS:
        raise ValueError(f"schedule '{kind}' is not one of {', '.join(KINDS)}")
    rising = round(warmup * steps)
    if step < rising:
        return peak * (step + 1) / rising
    low = peak * final
    if kind == "constant":
        return peak
    falling = round(decay * steps) if kind == "wsd" else steps - rising
    left = steps - step
    if left > falling or falling == 0:
        return peak
    share = left / falling
    if kind == "cosine":
        share = 0.5 * (1.0 - math.cos(math.pi * share))
    return low + (peak - low) * share
