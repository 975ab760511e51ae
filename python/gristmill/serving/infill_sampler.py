"""llama.cpp's sampler `infill`: end the gap when unsure, merge tokens that begin alike.

A completion in an editor is better short than wrong, so a token must be clearly likely:
1. where ending is likely (3 n p_end > p_text over n candidates), only the ends stay;
2. a candidate that begins another one is merged with it into the likelier of the two;
3. text below p = 0.2 goes, and then below 1 / (candidates of text + 1);
4. where no text is left, the gap ends.
"""

from __future__ import annotations

from collections.abc import Callable, Set

import numpy as np

from gristmill.checkpoint.reference import log_softmax

from .runtime import Logits
from .scores import largest

MOST = 128  # candidates compared with each other; llama.cpp's clients ask for 40
LIKELY = 0.2


def infill_logits(
    logits: Logits,
    top_k: int,
    top_p: float,
    ends: Set[int],
    token_bytes: Callable[[int], bytes],
) -> Logits:
    """Logits (V,) with log p for the tokens that may be drawn and -inf for all others."""
    row = np.exp(log_softmax(logits))
    ids = largest(row, min(top_k or MOST, MOST))
    wanted, reached = [], 0.0
    whole = float(row[ids].sum())
    for token in ids:
        wanted.append(token)
        reached += float(row[token]) / whole
        if reached >= top_p:
            break
    p = {token: float(row[token]) / whole / reached for token in wanted}
    stop = {token: value for token, value in p.items() if token in ends}
    text = {token: value for token, value in p.items() if token not in ends}
    if 3 * sum(stop.values()) * len(p) > sum(text.values()):
        return _only(logits.size, stop)
    text = {token: v for token, v in _merged(text, token_bytes).items() if v >= LIKELY}
    if not text:
        # nothing is likely enough: the likeliest end, or where none was asked for the likeliest
        last = max(ends, key=lambda token: (row[token], -token)) if ends else ids[0]
        return _only(logits.size, {last: 1.0})
    total = sum(text.values()) + sum(stop.values())
    bar = 1 / (len(text) + 1)
    likely = {token: value for token, value in text.items() if value / total >= bar}
    return _only(logits.size, {**likely, **stop})


def _merged(text: dict[int, float], token_bytes: Callable[[int], bytes]) -> dict[int, float]:
    """Probabilities after step 2, likeliest first as given."""
    p = dict(text)
    names = {token: token_bytes(token) for token in p}
    for one in text:
        for other in text:
            if one not in p:
                break
            if one == other or other not in p or not names[one]:
                continue
            if names[other].startswith(names[one]):
                kept, gone = (other, one) if p[other] > p[one] else (one, other)
                p[kept] += p.pop(gone)
    return p


def _only(size: int, p: dict[int, float]) -> Logits:
    result = np.full(size, -np.inf, np.float32)
    for token, value in p.items():
        if value > 0:
            result[token] = np.float32(np.log(value))
    return result
