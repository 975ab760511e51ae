"""Content-addressed store: a file is named by the sha256 of its bytes, so equal bytes lie once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

from gristmill.artifacts import TEMPORARY, storage_errors
from gristmill.errors import ArtifactError


class Store:
    """Raw bytes below one folder, as ab/<sha256>, where ab are the first two digits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Return where the bytes of a digest lie, present or not."""
        return self.folder / digest[:2] / digest

    def put(self, data: bytes) -> str:
        """Keep `data` and return its sha256. Raises StorageError when the disk refuses.

        Renamed into place: a name that is there has all its bytes. Not fsynced: a stage's whole
        folder is made durable at once when it is finished.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self.path(digest)
        if not path.exists():
            unfinished = path.with_name(f".{digest}{TEMPORARY}")
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    unfinished.write_bytes(data)
                    os.replace(unfinished, path)
                except OSError:
                    unfinished.unlink(missing_ok=True)
                    raise
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes of a digest; raises ArtifactError when they are absent or changed."""
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"{path}: {error.strerror or error}; run collect again") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise ArtifactError(f"{path} has other bytes than its name says; run collect again")
        return data

    def keep(self, digests: Collection[str]) -> None:
        """Remove everything but these."""
        for digest in self.digests():
            if digest not in digests:
                self.path(digest).unlink()

    def digests(self) -> list[str]:
        """Return the digests of everything here, sorted."""
        return sorted(path.name for path in self.folder.glob("??/[!.]*"))
