"""What is wrong now: to a file, to a program of the user's, to /alerts and /metrics."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gristmill.errors import ConfigError

from .request_log import RequestLog

NAME = "alerts.jsonl"
SECONDS = 30.0  # that the program may take


class Alerts:
    """Alerts by name: each is firing or resolved, and every change is told once.

    `path` gets a line for each change; `command` is run for each, with that line on its standard
    input; `on_fire` is called when one begins.
    """

    def __init__(
        self,
        path: Path | None = None,
        command: str | None = None,
        on_fire: Callable[[], None] | None = None,
    ) -> None:
        """Raises ConfigError where the file cannot be written or the command not be read."""
        self._log = RequestLog(path, most_bytes=None, sync=True) if path is not None else None
        self._command = words(command) if command is not None else None
        self._on_fire = on_fire
        self._firing: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def set(self, name: str, firing: bool, **facts: Any) -> None:
        """Say how it stands; `facts` (value, bar, text ...) are told with a change.

        A number that JSON does not have (NaN of broken weights) is told as null.
        """
        facts = {k: None if _no_number(v) else v for k, v in facts.items()}
        with self._lock:
            if firing and name in self._firing:
                self._firing[name] |= facts
                return
            if not firing and name not in self._firing:
                return
            line = {"time": round(time.time(), 3), "alert": name,
                    "state": "firing" if firing else "resolved", **facts}  # fmt: skip
            if firing:
                self._firing[name] = line
            else:
                del self._firing[name]
            if self._log is not None:
                self._log.write(line)
        if self._command is not None:
            threading.Thread(target=self._tell, args=(self._command, line), daemon=True).start()
        if firing and self._on_fire is not None:
            self._on_fire()

    def firing(self) -> list[dict[str, Any]]:
        """The alerts that fire now, by name."""
        with self._lock:
            return [dict(self._firing[name]) for name in sorted(self._firing)]

    def close(self) -> None:
        """Close the file."""
        if self._log is not None:
            self._log.close()

    def _tell(self, command: list[str], line: dict[str, Any]) -> None:
        """Run the user's program; what goes wrong stands in the file, the server goes on."""
        try:
            done = subprocess.run(
                command, input=json.dumps(line).encode(), timeout=SECONDS, check=False,
                capture_output=True,
            )  # fmt: skip
            problem = f"exit code {done.returncode}" if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem and self._log is not None:
            self._log.write({"time": round(time.time(), 3), "alert": line["alert"],
                             "state": "hook failed", "text": problem[:500]})  # fmt: skip


def _no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def words(command: str) -> list[str]:
    """The words of a command line. Raises ConfigError for an empty or unfinished one."""
    try:
        found = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"--on-alert {command!r}: {error}") from None
    if not found:
        raise ConfigError("--on-alert is empty; give a program, such as 'notify-send gristmill'")
    return found
