"""One trial in a process of its own: what it spoils (memory above all) ends with it.

`python -m gristmill.selection.trial JOB.json` runs the stages up to validate and writes the
outcome. The parent holds the other end of its standard input, so it ends when the parent is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gristmill import errors
from gristmill.artifacts import read_json, write_json
from gristmill.errors import GristmillError, LockedError, MissingExtraError, StorageError

UNTIL = "validate"  # no further: the test split stays closed
ENDS_SEARCH = (StorageError, LockedError, MissingExtraError)  # no other trial would do better
_INTERRUPTED = 130


@dataclass(frozen=True)
class Outcome:
    """A trial: its run, the figure of its chosen checkpoint, or why there is none."""

    run: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    seconds: float = 0.0  # of all its stages, those shared with other trials included
    reason: str = ""


def run_trial(config: dict[str, Any], root: Path) -> Outcome:
    """Run a configuration (plain tables) up to validate in a new process.

    A gate, a loss that is not finite, a killed process: an Outcome with a reason. Raises what ends
    the whole search: StorageError, LockedError, MissingExtraError, KeyboardInterrupt.
    """
    with tempfile.TemporaryDirectory(prefix="gristmill-trial-") as place:
        job, result = Path(place) / "job.json", Path(place) / "outcome.json"
        write_json(job, {"config": config, "root": str(root.absolute()), "outcome": str(result)})
        code, said = _call([sys.executable, "-m", "gristmill.selection.trial", str(job)])
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        if not result.is_file():
            return Outcome(reason=_ended(code, said))
        found: dict[str, Any] = read_json(result)
    kind = getattr(errors, found.pop("error", ""), None)
    if kind in ENDS_SEARCH:
        raise kind(found["reason"])
    return Outcome(**found)


def _call(command: list[str]) -> tuple[int, str]:
    """Run a command whose standard input stays open as long as this process lives."""
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said)
        try:
            code = child.wait()
        except BaseException:
            child.kill()
            child.wait()
            raise
        finally:
            if child.stdin is not None:
                child.stdin.close()
        said.seek(0)
        return code, said.read().decode("utf-8", "replace")


def _ended(code: int, said: str) -> str:
    """Return why a process left no outcome."""
    if code == -signal.SIGKILL:
        return "killed (signal 9): the machine ran out of memory, or somebody ended it"
    if code < 0:
        return f"ended by signal {-code}"
    last = said.strip().splitlines()[-1:] or ["nothing said"]
    return f"exit code {code}: {last[0]}"


# ------------------------------------------------------------------------------- the process


def main(arguments: list[str]) -> int:
    """Run the job and write its outcome; the exit code says whether it was interrupted."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = read_json(arguments[0])
    try:
        outcome = asdict(_run(job["config"], Path(job["root"])))
    except GristmillError as error:
        name, text = type(error).__name__, str(error)
        ends = isinstance(error, ENDS_SEARCH)
        outcome = {"error": name, "reason": text if ends else f"{name}: {_short(text)}"}
    except MemoryError:
        outcome = {"reason": "out of memory"}
    except KeyboardInterrupt:
        return _INTERRUPTED
    write_json(job["outcome"], outcome)
    return 0


def _short(text: str) -> str:
    """Return an error on one line, without the advice at its end."""
    lines = [line.strip() for line in text.splitlines() if not line.strip().startswith("`--set")]
    return ": ".join(lines)


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the other end is closed
    os._exit(_INTERRUPTED)


def _run(tables: dict[str, Any], root: Path) -> Outcome:
    from gristmill.config import check
    from gristmill.console import Console
    from gristmill.pipeline import Options, Pipeline

    console = Console()
    options = Options(until=UNTIL, on_progress=console.progress)
    run = Pipeline(check(tables, "trial"), root, options).run()
    figure = read_json(run.folder / "08_validate" / "metrics.json")["bits_per_byte"]
    seconds = sum(done.manifest["seconds"] for done in run.done)
    return Outcome(run.folder.name, seconds=seconds, **figure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
