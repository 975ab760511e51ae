"""What a source holds: the files to read, in order, and those left out with the reason."""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gristmill.data import environment, git
from gristmill.data.collect_settings import (
    DocstringsSource,
    EnvironmentSource,
    FilesSource,
    HttpSource,
    RowsSource,
    Source,
    StdlibSource,
)
from gristmill.data.environment import TEST_FOLDERS, Package
from gristmill.data.patterns import has_magic, matcher, split_glob
from gristmill.data.rows import format_of
from gristmill.errors import ConfigError, DataError

CACHES = {"__pycache__", "node_modules", "site-packages", "dist-packages"}
STDLIB_SKIPS = ("config-*", "lib-dynload")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may become a document, or many: `path` in the source, `file` on disk."""

    path: str
    file: Path
    size: int
    modified_ns: int
    form: str = ""  # jsonl, csv, parquet: every row may become a document
    sha256: str = ""  # where it is known before the file is read


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder (ending in '/') that gives no document. `fault`: it should have."""

    source: str
    path: str
    reason: str
    fault: bool = False
    count: int = 1  # of rows: how many of a file


@dataclass
class Listing:
    """One source as it lies on disk."""

    name: str
    kind: str  # git, folder, file, glob, stdlib, package
    root: Path
    source: Source
    licence: str
    licence_from: str = "configuration"  # or the field of a package's metadata
    candidates: list[Candidate] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    revision: str = ""  # commit, version of Python or of the package
    times: str = "disk"  # where the files' times are from: git, disk, http
    origins: list[dict[str, Any]] = field(default_factory=list)  # what was downloaded

    def skip(self, path: str, reason: str, fault: bool = False) -> None:
        """Record a file or folder that is left out."""
        self.skipped.append(Skipped(self.name, path, reason, fault))

    def rename(self, name: str) -> None:
        """Take another name, in the rows too."""
        old, self.name = self.name, name
        self.skipped = [
            replace(row, source=name) if row.source == old else row for row in self.skipped
        ]


Fetch = Callable[[HttpSource], Listing]


def list_sources(sources: list[Source], fetch: Fetch | None = None) -> list[Listing]:
    """List every source, in order, under names that differ; an environment is one per package.

    fetch: downloads a source; without it, what is not on this machine is listed without files.
    Raises DataError when a source is missing, unreadable or without files; ConfigError.
    """
    listings: list[Listing] = []
    taken: set[str] = set()
    for source in sources:
        if isinstance(source, EnvironmentSource):
            found = _packages(source)
        elif isinstance(source, HttpSource):
            found = [fetch(source) if fetch else downloads_of(source)]
        else:
            found = [_one(source)]
        for listing in found:
            name = _free(listing.name, taken)
            if name != listing.name:
                listing.rename(name)
            listing.candidates.sort(key=lambda candidate: candidate.path)
            taken.add(name)
            listings.append(listing)
    return listings


def downloads_of(source: HttpSource) -> Listing:
    """Return the listing of a source by HTTP before anything is downloaded."""
    name = source.name or urlsplit(source.urls[0]).hostname or "http"
    listing = Listing(name, "http", Path(), source, source.licence, revision=source.version)
    listing.times = "http"
    return listing


def _free(base: str, taken: set[str]) -> str:
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name


def _one(source: FilesSource | StdlibSource | RowsSource | DocstringsSource) -> Listing:
    if isinstance(source, StdlibSource):
        listing = _stdlib(source)
    elif isinstance(source, DocstringsSource):
        listing = _docstrings(source)
    elif isinstance(source, RowsSource):
        listing = _tables(source)
    else:
        listing = _files(source, _name(source))
    if not listing.candidates:
        raise DataError(_nothing(source, listing))
    return listing


def _name(source: FilesSource | RowsSource) -> str:
    folder = split_glob(source.path)[0] if has_magic(source.path) else source.path
    return source.name or Path(folder).expanduser().resolve().name or "files"


def _nothing(
    source: FilesSource | StdlibSource | RowsSource | DocstringsSource, listing: Listing
) -> str:
    """Say why a source gave no file to read and what to do."""
    where = source.path if isinstance(source, FilesSource | RowsSource) else str(listing.root)
    text = f"source {listing.name}: no file to read in {where}"
    if listing.kind == "git" and not listing.skipped:
        return (
            f"{text}: git tracks none there; `git add` them, or read the folder itself with "
            "git = false (--set collect.source.0.git=false)"
        )
    reasons = sorted({skipped.reason for skipped in listing.skipped})
    return text + (f"; left out: {', '.join(reasons[:5])}" if reasons else "; it is empty")


# ---------------------------------------------------------------------------------- stdlib


def _stdlib(source: StdlibSource) -> Listing:
    root = Path(sysconfig.get_path("stdlib"))
    if not root.is_dir():
        raise DataError(
            f"source stdlib: {root} is no folder (a Python in a zip file?); give your own files "
            "with --source PATH"
        )
    version = sys.version.split()[0]
    listing = Listing("stdlib", "stdlib", root, source, source.licence, revision=version)
    unwanted = matcher(STDLIB_SKIPS)

    def prune(path: str, folder: str) -> str:
        if folder in TEST_FOLDERS and not source.tests:
            return "tests of the library (tests = true takes them)"
        return "no source of the library" if unwanted(path) else ""

    take = matcher(["*.py"])
    for candidate in _walk(listing, root, prune):
        if take(candidate.path):
            listing.candidates.append(candidate)
        else:
            listing.skip(candidate.path, "not a .py file")
    return listing


# ----------------------------------------------------------------------------- environment


def _packages(source: EnvironmentSource) -> list[Listing]:
    """List the allowed packages; the others are skipped rows, with the reason, of the first."""
    try:
        found, refused = environment.packages(source)
    except ValueError as error:
        raise ConfigError(f"source environment: {error}") from None
    if not found:
        shown = "; ".join(f"{name} ({reason})" for name, reason in refused[:3])
        raise DataError(
            f"source environment: no package to read among {len(refused)}: {shown or 'none'}; "
            "change include, exclude, allow or deny"
        )
    listings = [_package(source, package) for package in found]
    left_out = [Skipped("environment", f"{name}/", reason) for name, reason in refused]
    listings[0].skipped[:0] = left_out
    return listings


def _package(source: EnvironmentSource, package: Package) -> Listing:
    listing = Listing(
        package.name, "package", package.root, source, package.licence.name,
        licence_from=package.licence.read_from, revision=package.version,
    )  # fmt: skip
    for path, file, status in package.files:
        _add(listing, path, file, status)
    for path, reason in package.left_out:
        listing.skip(path, reason)
    return listing


# ----------------------------------------------------------------------------------- files


def _files(source: FilesSource, name: str) -> Listing:
    given = os.path.expanduser(source.path)
    if has_magic(given) and not os.path.lexists(given):
        folder, pattern = split_glob(given)
        return _folder(source, name, Path(folder), pattern)
    path = Path(given)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(
            f"source {name}: cannot read {source.path}: {error.strerror or error}; "
            "give a file, a folder or a glob"
        ) from error
    if stat.S_ISDIR(mode):
        return _folder(source, name, path, "")
    listing = Listing(name, "file", path.parent, source, source.licence)
    _add(listing, path.name, path, path.stat())
    return listing


def _folder(source: FilesSource, name: str, root: Path, pattern: str) -> Listing:
    if not root.is_dir():
        raise DataError(f"source {name}: no such folder: {root} (of {source.path})")
    kind = "glob" if pattern else "folder"
    listing = Listing(name, kind, root, source, source.licence)
    found = _from_git(listing) if source.git and git.in_tree(root) else None
    if found is None:
        found = list(_walk(listing, root, lambda path, folder: ""))
    try:
        tests = matcher([pattern or "**"]), matcher(source.include), matcher(source.exclude)
    except ValueError as error:
        raise ConfigError(f"source {name}: {error}") from None
    for candidate in found:
        reason = _pattern_reason(candidate.path, *tests)
        if reason:
            listing.skip(candidate.path, reason)
        else:
            listing.candidates.append(candidate)
    return listing


def _docstrings(source: DocstringsSource) -> Listing:
    """List the library's files: each gives a row per documented thing, or one of text."""
    plain = StdlibSource(use="stdlib", licence=source.licence, why=source.why, tests=source.tests)
    listing = _stdlib(plain)
    listing.name, listing.kind, listing.source = "docstrings", "docstrings", source
    listing.skipped = [replace(row, source="docstrings") for row in listing.skipped]
    listing.candidates = [replace(c, form="docstrings") for c in listing.candidates]
    return listing


def _tables(source: RowsSource) -> Listing:
    """List the files of a table: a file, all of a glob, those of a folder by their ending."""
    plain = FilesSource(
        use="files", path=source.path, licence=source.licence, why=source.why, git=False
    )
    listing = _files(plain, _name(source))
    found = listing.candidates
    listing.source, listing.candidates = source, []
    for candidate in found:
        if listing.kind == "folder" and format_of(candidate.path) != source.use:
            listing.skip(candidate.path, f"no {source.use} by its name")
        else:
            listing.candidates.append(replace(candidate, form=source.use))
    return listing


_Test = Callable[[str], bool]


def _pattern_reason(path: str, wanted: _Test, include: _Test, exclude: _Test) -> str:
    if not wanted(path):
        return "not in the glob"
    if not include(path):
        return "not in include"
    return "in exclude" if exclude(path) else ""


def _from_git(listing: Listing) -> list[Candidate] | None:
    """Return the tracked files, or None with a note where git does not answer."""
    try:
        paths = git.tracked(listing.root)
        listing.revision = git.head(listing.root)
    except git.GitError as error:
        listing.notes.append(f"{listing.name}: read as a plain folder, git says: {error}")
        return None
    listing.kind = "git"
    found = _empty(listing)
    for path in paths:
        file = listing.root / path
        try:
            status = os.lstat(file)
        except OSError:
            listing.skip(path, "tracked, but not in the working tree")
            continue
        if stat.S_ISDIR(status.st_mode):
            listing.skip(path + "/", "submodule")
        else:
            _add(found, path, file, status)
    listing.skipped += found.skipped
    return found.candidates


def _empty(listing: Listing) -> Listing:
    """Return a listing of the same source without files, to be filled beside it."""
    return replace(listing, candidates=[], skipped=[], notes=[])


def _walk(listing: Listing, root: Path, prune: Callable[[str, str], str]) -> Iterator[Candidate]:
    """Yield the regular files below root in sorted order; links are never followed."""
    found = _empty(listing)

    def unreadable(error: OSError) -> None:
        path = os.path.relpath(error.filename or root, root)
        listing.skip(f"{path}/", f"unreadable: {error.strerror or error}", fault=True)

    for folder, folders, files in os.walk(root, onerror=unreadable):
        below = Path(folder).relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        kept = []
        for child in sorted(folders):
            reason = _prune_reason(Path(folder, child)) or prune(prefix + child, child)
            if reason:
                listing.skip(f"{prefix}{child}/", reason)
            else:
                kept.append(child)
        folders[:] = kept
        for child in sorted(files):
            file = Path(folder, child)
            try:
                _add(found, prefix + child, file, os.lstat(file))
            except OSError as error:
                listing.skip(prefix + child, f"unreadable: {error.strerror or error}", fault=True)
    listing.skipped += found.skipped
    yield from found.candidates


def _prune_reason(folder: Path) -> str:
    """Say why a folder is never walked: what is in there was not written by the user."""
    if folder.is_symlink():
        return "symbolic link"
    if folder.name.startswith("."):
        return "hidden folder"
    if folder.name in CACHES:
        return "folder of installed or compiled files"
    if (folder / "pyvenv.cfg").is_file():
        return "virtual environment"
    return "runs of gristmill" if (folder / ".stages").is_dir() else ""


def _add(listing: Listing, path: str, file: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        listing.skip(path, "symbolic link")
    elif not stat.S_ISREG(status.st_mode):
        listing.skip(path, "not a regular file")
    elif any(c < " " or "\ud800" <= c <= "\udfff" for c in path):
        listing.skip(ascii(path), "name with control characters or not in UTF-8", fault=True)
    else:
        listing.candidates.append(Candidate(path, file, status.st_size, status.st_mtime_ns))
