"""What passes between stages: the stage contract, atomic files, digests and manifests."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.errors import ArtifactError, StorageError

if TYPE_CHECKING:
    from gristmill.config import Config

TEMPORARY = ".gristmill-tmp"  # ending of unfinished files; what a killed process leaves is swept
_BLOCK = 1 << 20  # bytes per read when hashing: large enough that hashing, not reading, is the cost


# ------------------------------------------------------------------------------ the contract


@dataclass(frozen=True)
class Gate:
    """One requirement of a stage: the number, the bar, and the file to look at."""

    name: str
    value: float | str
    bar: float | str
    passed: bool
    file: str  # relative to the stage folder


@dataclass(frozen=True)
class Result:
    """What a stage hands back: a short summary, its gates and its part of the report."""

    summary: str
    gates: list[Gate] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)


def _silent(message: str) -> None:
    del message


@dataclass(frozen=True)
class StageContext:
    """Everything a stage may use; `out` is the only folder it may write to."""

    name: str
    out: Path
    inputs: Mapping[str, Path]
    config: Config
    seed: int
    on_progress: Callable[[str], None] = _silent

    def progress(self, message: str) -> None:
        """Show one line of progress; it is replaced by the next one and kept nowhere."""
        self.on_progress(message)

    def input(self, stage: str) -> Path:
        """Return the finished folder of an earlier stage; raises ArtifactError if there is none."""
        try:
            return self.inputs[stage]
        except KeyError:
            have = ", ".join(self.inputs) or "none"
            raise ArtifactError(
                f"stage {self.name} needs the output of stage {stage}; present: {have}"
            ) from None


# --------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the body into a StorageError that names `path` and what to do."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for whoever else holds the lock file `path`; that of a killed process is free again.

    Raises StorageError where the file cannot be made.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return the StorageError for a failed write at `path`, with advice by errno."""
    advice = {
        errno.ENOSPC: "free some space and run the same command again",
        errno.EFBIG: "raise the limit on file sizes (`ulimit -f`) and run the same command again",
        errno.EDQUOT: "your quota is used up; free some space and run the same command again",
        errno.EACCES: "choose another folder with --runs, or change its permissions",
        errno.EPERM: "choose another folder with --runs, or change its permissions",
        errno.EROFS: "the file system is read-only; choose another folder with --runs",
        0: "see that there is space, then run the same command again",  # NumPy's OSError has none
    }.get(error.errno or 0, "see the cause, then run the same command again")
    return StorageError(f"cannot write {path}: {error.strerror or error}; {advice}")


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (a rename is safe only after this)."""
    _fsync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _fsync(path: Path, flags: int = os.O_RDONLY) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: memoryview) -> None:
    """Write every byte: os.write may take only a part, and on a full disk it does."""
    while data:
        data = data[os.write(fd, data) :]


def atomic_write(path: Path | str, data: bytes | bytearray | memoryview) -> None:
    """Write a file so that a reader sees the old bytes or the new, never a part.

    Raises StorageError (disk full, no permission); the old file, if any, is then untouched.
    """
    target = Path(path)
    with storage_errors(target):
        fd, temporary = tempfile.mkstemp(TEMPORARY, f".{target.name}.", target.parent)
        try:
            try:
                _write_all(fd, memoryview(data).cast("B"))
                os.fchmod(fd, 0o644)  # mkstemp gives 0600; artefacts are for reading
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        fsync_folder(target.parent)


@contextlib.contextmanager
def replacing(*targets: Path) -> Iterator[list[Path]]:
    """Yield a path beside each target (all in one folder) to write to; at the end all are renamed.

    Nothing is renamed before every file is durable, so after a failed write the old files stand and
    the new ones are gone. Raises StorageError.
    """
    unfinished = [path.with_name(f".{path.name}{TEMPORARY}") for path in targets]
    with storage_errors(targets[0]):
        try:
            yield unfinished
            for path in unfinished:
                _fsync(path)
            for path, target in zip(unfinished, targets, strict=True):
                os.replace(path, target)
        except BaseException:
            for path in unfinished:
                with contextlib.suppress(OSError):
                    path.unlink()
            raise
        fsync_folder(targets[0].parent)


def sweep(folder: Path) -> None:
    """Remove what a killed process left of its unfinished files below `folder`."""
    for path in folder.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def json_text(value: Any) -> str:
    """Return `value` as JSON, keys sorted, indent 1; NaN and infinities become null."""
    return json.dumps(_finite(value), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically (sorted keys, indent 1, UTF-8); raises StorageError."""
    atomic_write(path, json_text(value).encode("utf-8", "surrogatepass"))


def read_json(path: Path | str) -> Any:
    """Return the value of a JSON file; raises ArtifactError if it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error}); delete it and run again") from error


def _finite(value: Any) -> Any:
    """Return `value` with what JSON cannot hold made plain (NaN, numpy scalars, paths)."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_finite(item) for item in items]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return _finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# --------------------------------------------------------------------------------- digests


def sha256_bytes(data: bytes | bytearray | memoryview) -> str:
    """Return the hex sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Return the hex sha256 of a file's bytes; raises ArtifactError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Return the hex sha256 of `value` in one canonical JSON form (sorted keys, no spaces)."""
    text = json.dumps(_finite(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))


# ------------------------------------------------------------------------------- manifests

MANIFEST = "manifest.json"


def list_files(folder: Path) -> list[str]:
    """Return the relative POSIX paths of all files below `folder` but the manifest, sorted."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != MANIFEST)


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return {path: {sha256, bytes, mtime_ns}} of all files of a finished stage."""
    described = {}
    for name in list_files(folder):
        status = (folder / name).stat()
        described[name] = {
            "sha256": sha256_file(folder / name),
            "bytes": status.st_size,
            "mtime_ns": status.st_mtime_ns,
        }
    return described


def digest_of(outputs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one digest for a stage's files: names and contents, not times or sizes."""
    return sha256_json({name: entry["sha256"] for name, entry in outputs.items()})


def check_files(folder: Path, manifest: Mapping[str, Any], full: bool = False) -> list[str]:
    """Return what differs from the manifest, one sentence per file; empty means intact.

    Quick: a file is trusted while size and modification time are as recorded, and is hashed
    otherwise (a copied folder has new times but equal bytes). `full` hashes every file.
    """
    problems = []
    outputs: Mapping[str, Mapping[str, Any]] = manifest["outputs"]
    for name, entry in outputs.items():
        try:
            status = (folder / name).stat()
        except OSError:
            problems.append(f"{name} is missing")
            continue
        if status.st_size != entry["bytes"]:
            problems.append(f"{name} has {status.st_size} bytes, recorded {entry['bytes']}")
        elif (full or status.st_mtime_ns != entry["mtime_ns"]) and (
            sha256_file(folder / name) != entry["sha256"]
        ):
            problems.append(f"{name} has other bytes than recorded (sha256 differs)")
    extra = set(list_files(folder)) - set(outputs)
    problems += [f"{name} was added" for name in sorted(extra)]
    return problems


def fsync_tree(folder: Path) -> None:
    """Make every file and name below `folder` durable; raises StorageError."""
    with storage_errors(folder):
        for path in sorted(folder.rglob("*")):
            if path.is_dir():
                fsync_folder(path)
            elif path.is_file():
                _fsync(path)
        fsync_folder(folder)
