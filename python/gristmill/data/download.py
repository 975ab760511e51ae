"""Files by HTTP, each downloaded once: resumed where it broke off, checked, kept by its sha256.

The cache is `$GRISTMILL_CACHE`, else `$XDG_CACHE_HOME/gristmill`, else `~/.cache/gristmill`:
`objects/ab/SHA256` holds the bytes, `http/KEY.json` says what a URL gave, `http/KEY.part` is what
has come so far. What it holds is used without asking the server again; so it works offline.
Resuming follows RFC 9110, sections 13.1.5 (If-Range) and 14 (Range).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from gristmill.artifacts import (
    locked,
    read_json,
    sha256_bytes,
    sha256_file,
    storage_errors,
    write_json,
)
from gristmill.data.store import Store
from gristmill.data.web import Answer, Gone, NotNow, connect
from gristmill.errors import ArtifactError, DataError, StorageError

_BLOCK = 1 << 18  # bytes read at a time
_PROGRESS = 1 << 20  # bytes that count as progress: after them tries are counted anew
_LONGEST_WAIT = 600  # seconds; a server that asks for more is not waited for
_sleep = time.sleep  # replaced in tests
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Limits:
    """When to give up."""

    timeout: float  # seconds without a byte
    retries: int  # without progress in between
    max_bytes: int


@dataclass(frozen=True)
class Fetched:
    """A file in the cache, and what the server said of it."""

    url: str
    sha256: str
    bytes: int
    etag: str
    last_modified: int  # unix seconds; when it was fetched, where the server does not say


def cache_folder() -> Path:
    """Return where downloads are kept."""
    own, shared = os.environ.get("GRISTMILL_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else Path(shared or Path.home() / ".cache") / "gristmill"


class Cache:
    """What was downloaded, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.objects = Store(folder / "objects")
        self.http = folder / "http"

    def path(self, fetched: Fetched) -> Path:
        """Return where the bytes of a file lie."""
        return self.objects.path(fetched.sha256)

    def find(self, key: str, wanted: str = "") -> Fetched | None:
        """Return what a key gave, if its bytes are whole and, where given, of the sha256 wanted."""
        try:
            fetched = Fetched(**read_json(self.http / f"{key}.json"))
            whole = sha256_file(self.path(fetched)) == fetched.sha256
        except (ArtifactError, TypeError):
            return None
        return fetched if whole and wanted in ("", fetched.sha256) else None


def fetch(
    url: str, wanted: str, version: str, cache: Cache, limits: Limits, progress: Progress
) -> Fetched:
    """Return a file from the cache, downloaded first where it is not there.

    wanted: its sha256, or "". Raises DataError (no file, no answer, other bytes), StorageError.
    """
    key = sha256_bytes(f"{version}\n{url}".encode())[:32]
    with locked(cache.http / f"{key}.lock"):  # one process at a time downloads a key
        found = cache.find(key, wanted)
        if found:
            return found
        return _Download(url, cache.http / f"{key}.part", limits, progress).into(cache, key, wanted)


def name_of(url: str) -> str:
    """Return the last part of a URL's path."""
    return PurePosixPath(unquote(urlsplit(url).path)).name or "index"


class _Download:
    """One file on its way: the part that has come, and what it is a part of."""

    def __init__(self, url: str, part: Path, limits: Limits, progress: Progress) -> None:
        self.url, self.part, self.limits, self.progress = url, part, limits, progress
        self.facts_file = part.with_suffix(".part.json")
        self.name = name_of(url)

    def into(self, cache: Cache, key: str, wanted: str) -> Fetched:
        """Download and move into the cache; raises DataError for other bytes than wanted."""
        self._whole()
        facts, digest = self._facts(), sha256_file(self.part)
        if wanted and digest != wanted:
            aside = self.part.with_name(f"{key}.wrong-{digest[:12]}")
            os.replace(self.part, aside)
            raise DataError(
                f"{self.url}: sha256 {digest}, expected {wanted}; it is kept as {aside}; see "
                "whether the server has a new version, then correct sha256"
            )
        size = self.part.stat().st_size
        modified = int(facts.get("modified") or time.time())
        fetched = Fetched(self.url, digest, size, str(facts.get("etag", "")), modified)
        place = cache.path(fetched)
        with storage_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(self.part, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(self.part, place)
        write_json(cache.http / f"{key}.json", asdict(fetched))
        self.facts_file.unlink(missing_ok=True)
        return fetched

    def _whole(self) -> None:
        """Ask until the part is the whole file; tries again where that helps."""
        tries, since = 0, self._have()
        while True:
            try:
                self._try()
                return
            except NotNow as error:
                have = self._have()
                since = min(since, have)  # where it began again
                tries, since = (1, have) if have - since >= _PROGRESS else (tries + 1, since)
                wait = 2.0 ** min(tries - 1, 6) if error.wait is None else error.wait
                if tries > self.limits.retries or wait > _LONGEST_WAIT or error.hopeless:
                    raise DataError(self._given_up(error, tries, wait)) from error
                self.progress(f"{self.name}: {error}; again in {wait:g} s")
                _sleep(wait)
            except Gone as error:
                raise DataError(f"{self.url}: {error}; correct urls") from error

    def _given_up(self, error: NotNow, tries: int, wait: float) -> str:
        asked = f", the server asks to wait {wait:g} s" if wait > _LONGEST_WAIT else ""
        have = self._have()
        kept = f"; {have:,} bytes are kept, the same command goes on from there" if have else ""
        return (
            f"cannot download {self.url}: {error} ({tries} {'try' if tries == 1 else 'tries'}"
            f"{asked}){kept}"
        )

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _try(self) -> None:
        """Ask once, for the rest where a part is there, and write what comes."""
        have, before = self._have(), self._facts()
        validator, total = before.get("validator", ""), before.get("total")
        if not (have and validator):
            self._begin_again()
            have = 0
        with connect(self.url, have, validator, self.limits.timeout) as answer:
            if have and answer.complete(have) and total in (None, have):
                return
            if have and answer.start != have:
                self._begin_again()  # changed since, or a server without ranges
                if answer.start != 0:
                    raise NotNow(f"not the bytes from {have:,} on that were asked for")
                have = 0
            if have and not answer.continues(validator, total):
                self._begin_again()
                raise NotNow("changed while it was downloaded")
            self._check_size(answer, have)
            if not have:
                facts = {"etag": answer.etag, "modified": answer.modified}
                facts |= {"validator": answer.validator, "total": answer.total}
                write_json(self.facts_file, facts)
            self._write(answer, have)

    def _check_size(self, answer: Answer, have: int) -> None:
        if answer.total is None:
            return
        if answer.total > self.limits.max_bytes:
            raise DataError(self._too_large(answer.total))
        free = shutil.disk_usage(self.part.parent).free
        if answer.total - have > free:
            raise StorageError(
                f"cannot write {self.part}: {self.name} needs {answer.total - have:,} more bytes, "
                f"free are {free:,}; free some space, or set GRISTMILL_CACHE to another folder, "
                "and run the same command again"
            )

    def _too_large(self, size: int) -> str:
        return (
            f"{self.url} has {size:,} bytes, allowed are {self.limits.max_bytes:,}; "
            "raise max_file_bytes of the source"
        )

    def _write(self, answer: Answer, have: int) -> None:
        size, of = have, "" if answer.total is None else f" of {answer.total / 1e6:,.1f}"
        for block in answer.blocks(_BLOCK):
            size += len(block)
            if size > self.limits.max_bytes:
                self._begin_again()
                raise DataError(self._too_large(size))
            with storage_errors(self.part), open(self.part, "ab") as stream:
                stream.write(block)
            self.progress(f"downloading {self.name}: {size / 1e6:,.1f}{of} MB")
        if answer.total is not None and size != answer.total:
            if size > answer.total:
                self._begin_again()
            raise NotNow(f"broke off after {size:,} of {answer.total:,} bytes")

    def _facts(self) -> dict[str, Any]:
        try:
            facts = read_json(self.facts_file)
        except ArtifactError:
            return {}
        return facts if isinstance(facts, dict) else {}

    def _begin_again(self) -> None:
        self.part.unlink(missing_ok=True)
        self.facts_file.unlink(missing_ok=True)
