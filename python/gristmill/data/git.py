"""What git knows of a working tree: tracked files and the time of each one's last commit.

Reads only, through the git program, with the user's own configuration switched off where it could
run something (hooks, file system monitors, external diffs).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

_OFF = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "log.showSignature=false")
_SAFE = tuple(word for setting in _OFF for word in ("-c", setting))
_BLOCK = 1 << 16
_TIME = b"\x01"  # marks the line of a commit's time; no path in git holds a control character first


class GitError(Exception):
    """git is not installed, or it refuses this working tree; the text is git's own reason."""


def _command(folder: Path, *words: str) -> list[str]:
    return ["git", *_SAFE, "-C", str(folder), *words]


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


def _run(folder: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(
            _command(folder, *words), capture_output=True, check=False, env=_environment()
        )
    except OSError as error:
        raise GitError(f"git does not run ({error.strerror or error})") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise GitError(said[0])
    return done.stdout


def in_tree(folder: Path) -> bool:
    """Say whether `folder` lies in a git working tree, by the files alone (git is not asked)."""
    resolved = folder.resolve()
    return any((parent / ".git").exists() for parent in (resolved, *resolved.parents))


def head(folder: Path) -> str:
    """Return the commit that is checked out, or "" before the first one. Raises GitError."""
    try:
        return _run(folder, "rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
    except GitError as error:
        if str(error) == "no reason given":
            return ""
        raise


def tracked(folder: Path) -> list[str]:
    """Return the tracked paths below `folder`, relative to it, sorted. Raises GitError.

    A path that is not UTF-8 holds surrogate escapes, as Python's file functions want it.
    """
    listed = _run(folder, "ls-files", "-z", "--cached").split(b"\0")
    return sorted({os.fsdecode(path) for path in listed if path})


def changed(folder: Path) -> set[str]:
    """Return the tracked paths below `folder` that differ from HEAD. Raises GitError."""
    if not head(folder):
        return set()
    words = ("diff", "--name-only", "--relative", "--no-ext-diff", "-z", "HEAD", "--", ".")
    return {os.fsdecode(path) for path in _run(folder, *words).split(b"\0") if path}


def commit_times(folder: Path, paths: Collection[str]) -> dict[str, int]:
    """Return {path: unix seconds of the last commit that touched it}, for those that have one.

    Reads the history once, newest first, and stops when every path has its time. Merges are
    compared with their first parent only. Raises GitError.
    """
    wanted = set(paths)
    found: dict[str, int] = {}
    words = ("log", "-m", "--first-parent", "--no-renames", "--name-only", "--relative", "-z")
    command = _command(folder, *words, f"--format=format:%x{_TIME.hex()}%ct", "HEAD", "--", ".")
    if not wanted or not head(folder):
        return found
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
    ) as process:
        assert process.stdout is not None
        time = 0
        for record in _records(process.stdout):
            if record.startswith(_TIME):
                stamp, _, record = record[1:].partition(b"\n")
                time = int(stamp)
            path = os.fsdecode(record)
            if path in wanted and path not in found:
                found[path] = time
                if len(found) == len(wanted):
                    break
        process.kill()
    return found


def _records(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the parts between zero bytes."""
    rest = b""
    while block := stream.read(_BLOCK):
        *whole, rest = (rest + block).split(b"\0")
        yield from whole
    yield rest
