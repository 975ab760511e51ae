"""Run folders: outputs once under `.stages`, runs as links to them, one lock per folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gristmill import energy
from gristmill.artifacts import (
    MANIFEST,
    TEMPORARY,
    check_files,
    fsync_folder,
    fsync_tree,
    read_json,
    storage_errors,
    sweep,
    write_json,
)
from gristmill.errors import ArtifactError, LockedError, StorageError

STAGES = ".stages"
LATEST = "latest"
SAVE_SECONDS = 10.0  # a file of 300 bytes, made durable


class Store:
    """The folder `runs/`: finished stages, unfinished ones, runs, the lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages = root / STAGES

    def create(self) -> None:
        """Make the folders; raises StorageError where that is not allowed."""
        with storage_errors(self.stages):
            self.stages.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; the kernel frees it even after kill -9."""
        path = self.root / ".lock"
        with storage_errors(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(fd, 64).decode(errors="replace").strip() or "unknown"
                raise LockedError(
                    f"another gristmill run (process {holder}) works in {self.root}; "
                    "wait for it, or use another folder with --runs"
                ) from None
            with storage_errors(path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(fd)

    # ------------------------------------------------------------------------- finished

    def folder(self, stage: str, key: str) -> Path:
        """Return where the output of a stage lies once it is finished."""
        return self.stages / f"{stage}-{key}"

    def finished(self, stage: str, key: str, full: bool = False) -> dict[str, Any] | None:
        """Return the manifest of a finished stage after checking its files, or None.

        Raises ArtifactError if a file was changed, added or lost since it was written.
        """
        folder = self.folder(stage, key)
        if not folder.is_dir():
            return None
        manifest: dict[str, Any] = read_json(folder / MANIFEST)
        problems = check_files(folder, manifest, full)
        if problems:
            more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
            raise ArtifactError(
                f"{folder} is not as it was written: {problems[0]}{more}; "
                "restore it, or delete that folder and run again"
            )
        return manifest

    # ----------------------------------------------------------------------- unfinished

    def begin(self, stage: str, key: str, resumable: bool) -> Path:
        """Return the folder to write to: empty, or as it was left if the stage is resumable."""
        partial = self.stages / f"{stage}-{key}.{'partial' if resumable else 'tmp'}"
        with storage_errors(partial):
            if partial.exists() and not resumable:
                shutil.rmtree(partial)
            if not partial.exists():
                _spent(partial).unlink(missing_ok=True)
            partial.mkdir(exist_ok=True)
            sweep(partial)
            for left in self.stages.glob(f".*{TEMPORARY}"):  # not recursive: all else is finished
                left.unlink()
        return partial

    def finish(self, partial: Path, stage: str, key: str, manifest: dict[str, Any]) -> Path:
        """Write the manifest, make all durable, rename into place: finished, or not there."""
        write_json(partial / MANIFEST, manifest)
        fsync_tree(partial)
        target = self.folder(stage, key)
        with storage_errors(target):
            os.rename(partial, target)
            _spent(partial).unlink(missing_ok=True)
            fsync_folder(self.stages)
        return target

    # ----------------------------------------------------------------------------- runs

    def run_folder(self, name: str, digest: str, links: dict[str, Path]) -> Path:
        """Return the folder of a run whose links agree with `links`; a new one if none does.

        A run is never overwritten: if an old run of that name links to other outputs that still
        exist, the new one gets the next free number.
        """
        number = 1
        while True:
            suffix = "" if number == 1 else f"-{number}"
            folder = self.root / f"{name}-{digest[:8]}{suffix}"
            if not _conflicts(folder, links):
                break
            number += 1
        with storage_errors(folder):
            folder.mkdir(exist_ok=True)
            for left in folder.glob(f".*{TEMPORARY}"):  # not recursive: the links stay untouched
                left.unlink()
            for label, target in links.items():
                _link(folder / label, Path("..") / STAGES / target.name)
            _link(self.root / LATEST, Path(folder.name))
            fsync_folder(folder)
            fsync_folder(self.root)
        return folder

    def runs(self) -> list[Path]:
        """Return all run folders, oldest first."""
        if not self.root.is_dir():
            return []
        found = [p.parent for p in self.root.glob("*/run.json") if not p.parent.is_symlink()]
        return sorted(found, key=lambda path: ((path / "run.json").stat().st_mtime, path.name))


class Work:
    """Machine, begin, seconds and energy of a stage, over all the processes that worked on it.

    What earlier ones spent stands beside the unfinished folder, because a file in it would become
    part of the stage's output.
    """

    def __init__(self, partial: Path, here: dict[str, Any]) -> None:
        self.here, self._path = here, _spent(partial)
        self.before: dict[str, Any] = read_json(self._path) if self._path.is_file() else {}
        self._begun = datetime.now(UTC).isoformat(timespec="seconds")
        self._meter, self._started = energy.Meter(), time.monotonic()
        self._saved = self._started

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        seconds = time.monotonic() - self._started + self.before.get("seconds", 0.0)
        spent = self._meter.stop()
        return {
            "machine": self.here,
            "begun": self.before.get("begun", self._begun),
            "seconds": round(seconds, 3),
            "energy": energy.total(self.before["energy"], spent) if self.before else spent,
        }

    @contextlib.contextmanager
    def saved(self) -> Iterator[None]:
        """Save before the body and where it fails, so that the next process can go on."""
        write_json(self._path, self.facts())
        try:
            yield
        except BaseException:
            with contextlib.suppress(StorageError):  # the cause matters more
                write_json(self._path, self.facts())
            raise

    def save_at_times(self) -> None:
        """Save if that was long ago: a kill loses no more than SAVE_SECONDS of the count."""
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            write_json(self._path, self.facts())
            self._saved = time.monotonic()


def _spent(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _conflicts(folder: Path, links: dict[str, Path]) -> bool:
    for label, target in links.items():
        link = folder / label
        if link.exists() and link.resolve() != target.resolve():
            return True
    return False


def _link(link: Path, target: Path) -> None:
    """Make a relative symbolic link, replacing a link that points elsewhere, atomically."""
    if link.is_symlink() and os.readlink(link) == str(target):
        return
    temporary = link.with_name(f".{link.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    os.replace(temporary, link)


def share_stages(folder: Path, root: Path) -> None:
    """Make a folder of runs below `root` whose stages are those of `root`."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / STAGES
        if not link.is_symlink():
            link.symlink_to(Path(os.path.relpath(root / STAGES, folder)))


def resolve_run(root: Path, name: str | None) -> Path:
    """Return a run folder by path or name, or the latest; raises ArtifactError with the choice."""
    candidates = [Path(name), root / name] if name else [root / LATEST]
    for candidate in candidates:
        if (candidate / "run.json").is_file():
            return candidate
    have = ", ".join(path.name for path in Store(root).runs()[-5:]) or "none yet"
    wanted = name or f"{root}/{LATEST}"
    raise ArtifactError(f"no run at {wanted}; runs in {root}: {have}; `gristmill run` makes one")
