"""Find, load and check a deployed model."""

from __future__ import annotations

from pathlib import Path

from gristmill import registry
from gristmill.errors import ArtifactError, DataError

from .runtime import Runtime

RUNS = Path("runs")
IN_FOLDER = ("11_deploy/model.gguf", "model.gguf")
NEXT_STEP = "run `gristmill run` to make one, or name a GGUF file or a run folder"


def find_model(given: str | None) -> Path:
    """Path of the GGUF for what the user gave: a file, a run folder, or None for the promoted model
    of runs/, else its latest run.

    Raises DataError naming what was looked for, ArtifactError where the promoted file has changed.
    """
    promoted = registry.current(RUNS) if given is None else None
    if promoted is not None:
        return registry.checked_model(RUNS, promoted)
    path = Path(given) if given is not None else RUNS / "latest"
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
    return Runtime(model, lambda n_ctx: _C.Session(model, n_ctx), _C.sample, _C.eval_batch)


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
