"""Which model is served: `registry.jsonl` in the folder of runs, a line per promotion.

Lines are never edited. One holds time, run, model (path below the folder), sha256 of the file,
reason, facts, `previous` (the sha256 of the line before it, null in the first) and `digest` (of its
own content). So an edited line is found by its digest, and a missing or moved one by the chain;
that the chain was longer is known from .registry.head, which names the last line. Lines are
appended under a lock and made durable; what a killed process left of a line is moved to
registry.torn.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gristmill.artifacts import (
    MANIFEST,
    fsync_folder,
    locked,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_json,
    storage_errors,
    write_json,
)
from gristmill.checkpoint.selftest import check_in_fresh_process
from gristmill.errors import ArtifactError, GateError, LockedError, StorageError

DEPLOYED, MODEL = "11_deploy", "model.gguf"
QUALITY = (  # gates that ask whether a model beats an n-gram, or its own beginning
    "bits per byte, test files (bar: n-gram)",
    "bits per byte, validation files",
    "best validation loss",
)
REGISTRY, TORN = "registry.jsonl", "registry.torn"
LOCK, HEAD = ".registry.lock", ".registry.head"


@dataclass(frozen=True)
class Entry:
    """One promotion."""

    time: str
    run: str
    model: str  # relative to the folder of runs where it lies below it
    sha256: str
    reason: str
    previous: str | None
    facts: dict[str, Any] = field(default_factory=dict)

    def path(self, root: Path) -> Path:
        """Return the promoted file."""
        return root / self.model


@dataclass(frozen=True)
class _Line:
    """A line that was read and checked: its entry and the sha256 that the next one names."""

    entry: Entry
    sha256: str


@dataclass(frozen=True)
class _File:
    """The registry as read: whole lines, and what stands behind the last line break."""

    lines: list[_Line]
    torn: bytes
    unbroken: bool  # the last line is whole but its line break is missing

    @property
    def last(self) -> str | None:
        return self.lines[-1].sha256 if self.lines else None


def entries(root: Path) -> list[Entry]:
    """Return all promotions, oldest first; raises ArtifactError naming a line that was changed."""
    found = _whole(root)
    if found.torn:
        print(
            f"{root / REGISTRY}: the last line is cut off ({len(found.torn)} bytes of a promotion "
            f"that never ended) and is passed over; the next promotion moves it to {TORN}",
            file=sys.stderr,
        )
    return [line.entry for line in found.lines]


def current(root: Path) -> Entry | None:
    """Return the promoted model's entry, None where nothing was promoted; the file is not read."""
    found = entries(root)
    return found[-1] if found else None


def checked_model(root: Path, entry: Entry) -> Path:
    """Return the promoted file after hashing it; raises ArtifactError where it is gone or other."""
    path = entry.path(root)
    advice = "restore it, or promote another: gristmill promote RUN"
    if not path.is_file():
        raise ArtifactError(f"the promoted model {path} (run {entry.run}) is gone; {advice}")
    digest = sha256_file(path)
    if digest != entry.sha256:
        raise ArtifactError(
            f"the promoted model {path} has changed on disk: sha256 {digest[:16]} now, "
            f"{entry.sha256[:16]} when it was promoted ({entry.time}); {advice}"
        )
    return path


def append(
    root: Path,
    *,
    run: str,
    model: Path,
    sha256: str,
    reason: str,
    facts: Mapping[str, Any] | None = None,
    instead_of: Entry | None = None,
) -> Entry:
    """Add a promotion and return it; what was promoted before stays in the file.

    With `instead_of`, raises LockedError where another model was promoted since that entry.
    """
    path = root / REGISTRY
    with locked(root / LOCK):
        found = _whole(root)
        now = found.lines[-1].entry if found.lines else None
        if instead_of is not None and now != instead_of:
            raise LockedError(
                f"{path}: {now.run if now else 'nothing'} was promoted meanwhile, and "
                f"{run} was compared with {instead_of.run}; run the same command again"
            )
        entry = Entry(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            run=run,
            model=_below(root, model),
            sha256=sha256,
            reason=reason,
            previous=found.last,
            facts=dict(facts or {}),
        )
        _write(path, found, _text(entry))
    return entry


def promote(
    root: Path,
    run: Path,
    reason: str,
    *,
    facts: Mapping[str, Any] | None = None,
    instead_of: Entry | None = None,
    compared: bool = False,
) -> Entry:
    """Add a finished run to the registry after its gates, its file and its self-test.

    Raises GateError for a gate or a self-test that failed, ArtifactError for a run that is not
    finished or a file that is not as it was written, LockedError as `append` does. `compared`: it
    was found no worse than the promoted model, which counts in place of the gates of quality.
    """
    manifest = _finished(run)
    if failed := failed_gates(run, quality=not compared):
        lines = "\n  ".join(failed)
        raise GateError(f"{run} is not promoted, it did not pass:\n  {lines}")
    path = run / DEPLOYED / MODEL
    recorded = manifest["outputs"].get(MODEL, {}).get("sha256")
    digest = sha256_file(path)
    if digest != recorded:
        raise ArtifactError(
            f"{path} has changed on disk: sha256 {digest[:16]} now, {_short(recorded)} when it was "
            f"written; it is not promoted. Delete {path.parent.resolve()} and deploy again"
        )
    tested, why = check_in_fresh_process(path)
    if why or not tested:
        raise GateError(
            f"{path} is not promoted, its self-test in a fresh process fails: "
            f"{why or 'no stored prompt fits its context'}"
        )
    measured = read_json(run / "10_test" / "metrics.json")["bits_per_byte"]
    known = {"bits_per_byte": measured, "bytes": path.stat().st_size, "self_tests": tested}
    return append(
        root, run=run.resolve().name, model=run.resolve() / DEPLOYED / MODEL, sha256=digest,
        reason=reason, facts={**known, **(facts or {})}, instead_of=instead_of,
    )  # fmt: skip


def _finished(run: Path) -> dict[str, Any]:
    """Return the manifest of the deployed file."""
    path = run / DEPLOYED / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{run} is not finished: it has no {DEPLOYED}; `gristmill run` with its configuration "
            "does what is missing"
        )
    manifest: dict[str, Any] = read_json(path)
    return manifest


def failed_gates(run: Path, quality: bool = True) -> list[str]:
    """Return a line for every gate of a run that failed, also where the run went on.

    quality: also the gates that compare the model with an n-gram, or with its beginning.
    """
    failed = []
    for label in sorted(read_json(run / "run.json")["stages"]):
        for gate in read_json(run / label / MANIFEST)["gates"]:
            if not gate["passed"] and (quality or not gate["name"].startswith(QUALITY)):
                value, bar, file = gate["value"], gate["bar"], run / label / gate["file"]
                failed.append(f"{label}: {gate['name']}: {value}, bar {bar}; see {file}")
    return failed


def _below(root: Path, model: Path) -> str:
    """Return the path as it stands in the registry: the folder of runs may be moved as a whole."""
    try:
        return model.absolute().relative_to(root.resolve()).as_posix()
    except ValueError:
        return str(model.absolute())


def _text(entry: Entry) -> bytes:
    content = asdict(entry)
    line = {**content, "digest": sha256_json(content)}
    return json.dumps(line, sort_keys=True, ensure_ascii=False).encode("utf-8")


def _write(path: Path, found: _File, line: bytes) -> None:
    """Append a line durably; where the disk refuses, the file is as it was."""
    if found.torn:
        _set_aside(path, found.torn)
    _append(path, b"\n" * found.unbroken + line + b"\n")
    with contextlib.suppress(StorageError):  # an older head is true too: the file may be longer
        head = {"promotions": len(found.lines) + 1, "sha256": sha256_bytes(line)}
        write_json(path.with_name(HEAD), head)


def _append(path: Path, data: bytes) -> None:
    with storage_errors(path), open(path, "ab", buffering=0) as stream:
        before = stream.tell()
        try:
            left = memoryview(data)
            while left:  # on a full disk a write takes a part
                left = left[stream.write(left) :]
            os.fsync(stream.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, before)
            raise
        fsync_folder(path.parent)


def _set_aside(path: Path, torn: bytes) -> None:
    """Move the cut line to registry.torn: there before it is gone from here."""
    aside = path.with_name(TORN)
    _append(aside, torn + b"\n")
    with storage_errors(path):
        os.truncate(path, path.stat().st_size - len(torn))
    print(f"{path}: the cut last line ({len(torn)} bytes) now lies in {aside}", file=sys.stderr)


def _whole(root: Path) -> _File:
    """Read the registry; raises ArtifactError as _read does, and where its end is missing."""
    path, at = root / REGISTRY, root / HEAD
    # the head first: who promotes meanwhile makes the file longer than it says, never shorter
    head = read_json(at) if at.is_file() else None
    found = _read(path)
    if head is not None and head["sha256"] not in {line.sha256 for line in found.lines}:
        raise ArtifactError(
            f"{path} had {head['promotions']} promotions, of which {len(found.lines)} are left: "
            f"lines were cut off the end; restore the file from a copy, or go on with what is left "
            f"by deleting {at}"
        )
    return found


def _read(path: Path) -> _File:
    """Return the lines; raises ArtifactError for one that was changed, or follows a missing one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _File([], b"", False)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    *whole, rest = data.split(b"\n")
    lines: list[_Line] = []
    for number, raw in enumerate(whole, 1):
        lines.append(_checked(path, number, raw, lines[-1].sha256 if lines else None))
    if not rest:
        return _File(lines, b"", False)
    if not _is_json(rest):
        return _File(lines, rest, False)
    last = _checked(path, len(lines) + 1, rest, lines[-1].sha256 if lines else None)
    return _File([*lines, last], b"", True)  # killed between the line and its line break


def _is_json(raw: bytes) -> bool:
    """Say whether a line is whole: the beginning of an object is never one itself."""
    try:
        json.loads(raw)
    except ValueError:
        return False
    return True


def _checked(path: Path, number: int, raw: bytes, previous: str | None) -> _Line:
    where, advice = f"{path}, line {number}", "restore the file from a copy"
    try:
        content = json.loads(raw)
        digest = content.pop("digest")
        entry = Entry(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{where} is no promotion ({error}); {advice}") from None
    if digest != sha256_json(content):
        raise ArtifactError(f"{where} ({entry.run}) was edited: its digest differs; {advice}")
    if entry.previous != previous:
        raise ArtifactError(
            f"{where} ({entry.run}) does not follow the line before it: it names "
            f"{_short(entry.previous)}, before it stands {_short(previous)}; a line was removed, "
            f"added or moved; {advice}"
        )
    return _Line(entry, sha256_bytes(raw))


def _short(digest: str | None) -> str:
    return digest[:16] if digest else "no line"
