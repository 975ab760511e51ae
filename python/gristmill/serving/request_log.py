"""The request log: one JSON object per line, appended whole, rotated by size."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from gristmill.errors import ConfigError


class RequestLog:
    """Appends lines to `path`; past `most_bytes` it becomes path.1, path.1 becomes path.2, ...

    A line is one write to a file opened for appending, so lines of two processes do not mix. When
    writing fails later (disk full) the server goes on and `dropped` counts the lost lines.
    """

    def __init__(self, path: Path, *, most_bytes: int = 16 << 20, keep: int = 4) -> None:
        """Opens the file. Raises ConfigError where it cannot be written."""
        self._path, self._most, self._keep = path, most_bytes, keep
        self._lock = threading.Lock()
        self.dropped = 0
        self._torn = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise ConfigError(
                f"cannot write the request log {path}: {error.strerror}; "
                "name another with --log-file or turn it off with --no-log"
            ) from None
        self._size = os.fstat(self._file).st_size

    def write(self, entry: dict[str, Any]) -> bool:
        """Append one entry; returns whether it was written whole."""
        # ASCII: control characters and line separators in prompts cannot break a line
        line = json.dumps(entry, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"
        with self._lock:
            try:
                if self._size and self._size + len(line) > self._most:
                    self._rotate()
                if self._torn:
                    line = b"\n" + line  # the torn line stays alone
                written = os.write(self._file, line)
                self._size += written
                self._torn = written < len(line)
                if self._torn:  # the disk is full
                    raise OSError("short write")
            except OSError:
                self.dropped += 1
                return False
        return True

    def close(self) -> None:
        """Flush to disk and close."""
        with self._lock:
            if self._file >= 0:
                try:
                    os.fsync(self._file)
                finally:
                    os.close(self._file)
                    self._file = -1

    def _open(self) -> int:
        # prompts may be private: readable by the owner only
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _rotate(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{i}") for i in range(1, self._keep + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if newer.exists():
                os.replace(newer, older)
        fresh = self._open()
        os.close(self._file)
        self._file, self._size = fresh, 0
