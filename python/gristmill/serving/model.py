"""Find, load and check a deployed model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from gristmill.errors import ArtifactError, DataError

from .decode import Finish, Piece, Task, decode
from .runtime import Runtime, Slot

DEFAULT = Path("runs/latest")
IN_FOLDER = ("11_deploy/model.gguf", "model.gguf")
NEXT_STEP = "run `gristmill run` to make one, or name a GGUF file or a run folder"


def find_model(given: str | None) -> Path:
    """Path of the GGUF for what the user gave: a file, a run folder, or None for runs/latest.

    Raises DataError naming what was looked for.
    """
    path = Path(given) if given is not None else DEFAULT
    if path.is_dir():
        for name in IN_FOLDER:
            if (path / name).is_file():
                return path / name
        raise DataError(f"{path} holds none of {', '.join(IN_FOLDER)}: {NEXT_STEP}")
    if not path.is_file():
        raise DataError(f"no model at {path}: {NEXT_STEP}")
    return path


def load_runtime(path: Path) -> Runtime:
    """Load a GGUF with every check of the file. Raises ArtifactError with the reader's reason."""
    from gristmill import _C

    try:
        model = _C.Model(str(path), True)
    except (ValueError, OSError, RuntimeError) as error:
        raise ArtifactError(f"cannot load {path}: {error}") from None
    if model.vocab_size <= 0 or not model.metadata.get("tokenizer.ggml.model"):
        raise ArtifactError(f"{path} has no tokenizer: export it again with `gristmill deploy`")
    return Runtime(model, lambda n_ctx: _C.Session(model, n_ctx), _C.sample)


def choose_context(runtime: Runtime, given: int | None, most: int = 4096) -> int:
    """Context length in tokens: `given`, or the model's own up to `most`.

    Raises DataError where `given` is above the model's.
    """
    trained = runtime.model.n_ctx
    if given is None:
        return min(trained, most)
    if not 16 <= given <= trained:
        raise DataError(f"context of {given} tokens given; this model allows 16 to {trained}")
    return given


def selftest_vectors(metadata: Mapping[str, Any]) -> list[tuple[str, list[int]]]:
    """The (prompt, greedy ids) pairs stored in the file; empty where there are none.

    Raises ArtifactError where the two arrays do not belong together.
    """
    prompts = metadata.get("gristmill.selftest.prompts")
    answers = metadata.get("gristmill.selftest.ids")
    if prompts is None and answers is None:
        return []
    if not (_is_array(prompts) and _is_array(answers)) or len(prompts) != len(answers):
        raise ArtifactError("the model's self-test vectors are damaged: deploy it again")
    return [(str(p), _ids(a)) for p, a in zip(prompts, answers, strict=True)]


def _is_array(value: Any) -> TypeGuard[Sequence[Any]]:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes)


def _ids(value: Any) -> list[int]:
    if isinstance(value, str):  # GGUF has no arrays of arrays: "1 2 3" or "[1, 2, 3]"
        value = value.strip("[] ").replace(",", " ").split()
    try:
        return [int(i) for i in value]
    except (TypeError, ValueError):
        raise ArtifactError(f"a self-test answer is no list of ids: {str(value)[:80]}") from None


def selftest(runtime: Runtime, n_ctx: int) -> int:
    """Generate the stored prompts greedily and compare with the stored ids.

    Returns the number of vectors compared: those that fit `n_ctx`. Raises ArtifactError
    on a difference: a model that does not say what it said when it was deployed is not served.
    """
    vectors = selftest_vectors(runtime.model.metadata)
    if not vectors:
        return 0
    slot = Slot(runtime.new_session(n_ctx), [])
    compared = 0
    for number, (prompt, expected) in enumerate(vectors):
        ids = runtime.model.tokenize(prompt.encode("utf-8"), True)
        if not ids or len(ids) + len(expected) > n_ctx:
            continue  # --ctx is shorter than this vector needs; the caller prints the count
        compared += 1
        task = Task(tuple(ids), len(expected), temperature=0.0, ignore_eos=True)
        got: list[int] = []
        for event in decode(runtime, slot, task):
            if isinstance(event, Piece):
                got.extend(event.ids)
            elif isinstance(event, Finish) and got != expected:
                raise ArtifactError(_difference(number, prompt, expected, got))
    return compared


def _difference(number: int, prompt: str, expected: list[int], got: list[int]) -> str:
    at = next(
        (i for i, pair in enumerate(zip(expected, got, strict=False)) if pair[0] != pair[1]), 0
    )
    return (
        f"self-test {number} fails: after {prompt[-40:]!r} token {at} is {got[at : at + 1]}, "
        f"stored {expected[at : at + 1]}. The file or this build is damaged: deploy the model again"
    )
