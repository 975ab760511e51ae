"""A saved model read back by a process that knows nothing of the one that wrote it.

`python -m gristmill.checkpoint.reload FOLDER IDS.npy LOGITS.npy` writes the logits of some ids.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gristmill.errors import ArtifactError, GristmillError


def logits(folder: Path, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Return the logits (B, T, V) that the model in `folder` gives ids (B, T), in f32."""
    import gristmill as gm
    from gristmill.models import from_pretrained

    model = from_pretrained(folder)
    with gm.no_grad():
        out: npt.NDArray[np.float32] = model(ids).numpy().copy()
    return out


def logits_in_fresh_process(folder: Path, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """The same from a new interpreter; raises ArtifactError with what it said."""
    with tempfile.TemporaryDirectory(prefix="gristmill-reload-") as place:
        given, got = Path(place) / "ids.npy", Path(place) / "logits.npy"
        np.save(given, np.asarray(ids, np.int32), allow_pickle=False)
        command = [sys.executable, "-m", "gristmill.checkpoint.reload"]
        command += [str(folder), str(given), str(got)]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode != 0:
            said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise ArtifactError(f"{folder} does not load in a fresh process: {said}")
        out: npt.NDArray[np.float32] = np.load(got, allow_pickle=False)
    return out


def main(arguments: list[str]) -> int:
    """Write the logits; exit code 1 and a message where the folder cannot be read."""
    if len(arguments) != 3:
        print("usage: python -m gristmill.checkpoint.reload FOLDER IDS LOGITS", file=sys.stderr)
        return 2
    folder, given, got = (Path(argument) for argument in arguments)
    try:
        np.save(got, logits(folder, np.load(given, allow_pickle=False)), allow_pickle=False)
    except GristmillError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
