"""Self-test vectors of a deployed file: prompts, and the tokens its most probable choices must be.

They travel inside the GGUF, so that a server, the C library and a device can each find out whether
this file on this machine says what it said when it was deployed. In a process of its own:
`python -m gristmill.checkpoint.selftest FILE`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.errors import ArtifactError

PROMPTS_KEY, IDS_KEY = "gristmill.selftest.prompts", "gristmill.selftest.ids"
CLOSE = {
    "f32": 1e-3,
    "bf16": 5e-2,
}  # gap of the two largest logits below which another machine may differ


@dataclass(frozen=True)
class Vector:
    """A prompt, the greedy ids after it, and the smallest gap between first and second choice."""

    prompt: str
    ids: list[int]
    gap: float


def make_vectors(model: Any, prompts: Iterable[str], tokens: int, close: float) -> list[Vector]:
    """Greedy continuations of at most `tokens` ids, each cut before a choice closer than `close`.

    model: a `_C.Model` with a tokenizer. Prompts whose first choice is close are left out.
    """
    from gristmill import _C

    session = _C.Session(model, model.n_ctx)
    vectors = []
    for prompt in prompts:
        ids = model.tokenize(prompt.encode("utf-8"), True)
        if not ids or len(ids) + tokens > model.n_ctx:
            continue
        session.truncate(0)
        vector = _continue(session, prompt, ids, tokens, close)
        if vector.ids:
            vectors.append(vector)
    return vectors


def _continue(session: Any, prompt: str, ids: list[int], tokens: int, close: float) -> Vector:
    out: list[int] = []
    smallest = float("inf")
    logits = session.eval(ids)
    for _ in range(tokens):
        second, first = np.partition(logits, -2)[-2:]
        gap = float(first) - float(second)
        if not gap >= close:  # also where a logit is not a number
            break
        smallest = min(smallest, gap)
        out.append(int(np.argmax(logits)))
        if len(out) < tokens:
            logits = session.eval(out[-1:])
    return Vector(prompt, out, smallest)


def metadata(vectors: Iterable[Vector]) -> dict[str, list[str]]:
    """The vectors as GGUF arrays: prompts, and ids as JSON lists."""
    vectors = list(vectors)
    return {PROMPTS_KEY: [v.prompt for v in vectors], IDS_KEY: [json.dumps(v.ids) for v in vectors]}


def check(path: Path) -> int:
    """`compare` of a file, loaded with every check."""
    from gristmill import _C

    try:
        model = _C.Model(str(path), True)
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from None
    return compare(model, path)


def compare(model: Any, path: Path) -> int:
    """Compare every stored vector that fits the context of `model`; returns their number.

    Raises ArtifactError naming the first token that differs, or what is wrong with the file.
    """
    try:
        return int(model.selftest())
    except ValueError as error:
        raise ArtifactError(f"{path}: self-test: {error}") from None


def check_in_fresh_process(path: Path) -> tuple[int, str]:
    """The same in a new interpreter: (vectors compared, "") or (0, what it said)."""
    command = [sys.executable, "-m", "gristmill.checkpoint.selftest", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        return 0, (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    return int(done.stdout.split()[0]), ""


def main(arguments: list[str]) -> int:
    """Print the number of vectors that agree; exit code 1 and a message where one does not."""
    if len(arguments) != 1:
        print("usage: python -m gristmill.checkpoint.selftest MODEL.gguf", file=sys.stderr)
        return 2
    try:
        print(check(Path(arguments[0])), "prompts give the stored tokens")
    except ArtifactError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
