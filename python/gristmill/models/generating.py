"""Generation of a live model: the runtime's session reads the weights where they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gristmill.backend import _C
from gristmill.models.causal import CausalLM, eos_ids


def generate(
    model: CausalLM, ids: Sequence[int] | npt.NDArray[np.integer], max_new_tokens: int,
    temperature: float, top_k: int, top_p: float, seed: int,
) -> list[int]:  # fmt: skip
    """Prompt and continuation; stops after eos or when the context is full."""
    tokens = [int(i) for i in np.asarray(ids).reshape(-1)]
    c, ends = model.config, eos_ids(model.config)
    if not tokens or min(tokens) < 0 or max(tokens) >= c.vocab_size:
        raise ValueError(
            f"generate: prompt ids must be 1 or more, each from 0 to {c.vocab_size - 1}"
        )
    room = c.max_position_embeddings - len(tokens)
    if room < 1:
        raise ValueError(f"generate: {len(tokens)} ids fill the context of {room + len(tokens)}")
    live = _C.Model.from_tensors(c.to_dict(), dict(model.tensors()))
    session = _C.Session(live, min(c.max_position_embeddings, len(tokens) + max_new_tokens))
    logits = session.eval(tokens)
    end = len(tokens) + min(max_new_tokens, room)
    while len(tokens) < end:  # drawn by the position in the text, as every other interface does
        token = _C.sample(logits, temperature, top_k, top_p, 0.0, seed, session.length)
        tokens.append(token)
        if token in ends or len(tokens) == end:
            break
        logits = session.eval([token])
    return tokens
