"""The request log: one JSON object per line, appended whole, rotated by size."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gristmill.errors import ConfigError


class RequestLog:
    """Appends lines to `path`; past `most_bytes` it becomes path.1, path.1 becomes path.2, ...

    A line is one write to a file opened for appending, so lines of two servers do not mix, and one
    that finds the log renamed by the other goes on in the new file. When writing fails later (disk
    full) the server goes on and `dropped` counts the lost lines. Half a line that a crash left at
    the end stays a line of its own, which readers skip.
    """

    def __init__(
        self, path: Path, *, most_bytes: int | None = 16 << 20, keep: int = 4, sync: bool = False
    ) -> None:
        """Opens the file. Raises ConfigError where it cannot be written.

        `most_bytes` None never rotates; `sync` waits for the disk at every line.
        """
        self.path, self._most, self._keep, self._sync = path, most_bytes, keep, sync
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
        self._torn = not _ends_whole(path)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._file).st_size

    def write(self, entry: dict[str, Any]) -> bool:
        """Append one entry; returns whether it was written whole."""
        # ASCII: control characters and line separators in prompts cannot break a line
        line = json.dumps(entry, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"
        with self._lock:
            try:
                if self._most and 0 < self.size > self._most - len(line):
                    self._rotate()
                if self._torn:
                    line = b"\n" + line  # the torn line stays alone
                written = os.write(self._file, line)
                self._torn = written < len(line)
                if self._torn:  # the disk is full
                    raise OSError("short write")
                if self._sync:
                    os.fsync(self._file)
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
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _rotate(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)  # until it is closed
        if self._is_current():
            names = [self.path, *(Path(f"{self.path}.{i}") for i in range(1, self._keep + 1))]
            for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
                if newer.exists():
                    os.replace(newer, older)
        fresh = self._open()
        os.close(self._file)
        self._file = fresh

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except FileNotFoundError:
            return False


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def files(path: Path) -> list[Path]:
    """The log and its older parts, newest first."""
    older = path.parent.glob(f"{path.name}.*")
    numbered = sorted((int(p.suffix[1:]), p) for p in older if p.suffix[1:].isdecimal())
    return [p for p in (path, *(p for _, p in numbered)) if p.is_file()]


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of the log and its older parts, oldest first; torn ones are skipped."""
    for part in reversed(files(path)):
        with part.open("rb") as file:
            for line in file:
                if (entry := _parsed(line)) is not None:
                    yield entry


def damaged(path: Path) -> int:
    """How many lines of the log and its older parts `entries` skips."""
    found = 0
    for part in files(path):
        with part.open("rb") as file:
            found += sum(bool(line.strip()) and _parsed(line) is None for line in file)
    return found


def find(path: Path, id: str) -> dict[str, Any] | None:
    """The last line with this id, which stands first in its line; None where there is none."""
    start = json.dumps({"id": id}).encode("ascii")[:-1]
    for part in files(path):
        with part.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                continue
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                at = data.rfind(b"\n" + start) + 1  # inside a line every quote is escaped
                if at or data[: len(start)] == start:
                    end = data.find(b"\n", at)
                    return _parsed(data[at : end if end >= 0 else len(data)])
    return None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
