"""The packages installed beside this Python: which of them may be read, and their .py files."""

from __future__ import annotations

import importlib.metadata
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath

from gristmill.data import licences
from gristmill.data.collect_settings import EnvironmentSource
from gristmill.data.licences import Licence
from gristmill.data.patterns import matcher

TEST_FOLDERS = {"test", "tests", "idle_test"}
# code of others, whose licence the metadata of the package need not say
VENDORED = re.compile(r"_?vendor(?:ed)?|_?third_?party|_?externals?|_?extern|_distutils|_ext")
_LICENCE_FILE = re.compile(r"(?:licen[cs]e|copying)(?:[._-].*)?", re.IGNORECASE)
_CODE = (".py", ".pyc", ".pyi", ".so")  # licenses.py is a module, not a licence
_LONGEST = 200_000  # bytes read of a licence file


@dataclass
class Package:
    """One installed package whose licence is allowed."""

    name: str
    version: str
    licence: Licence
    root: Path
    files: list[tuple[str, Path, os.stat_result]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)  # path, reason


def packages(source: EnvironmentSource) -> tuple[list[Package], list[tuple[str, str]]]:
    """Return the packages to read, by name, and (name, reason) of those left out.

    Raises ValueError for a pattern that is none.
    """
    take, leave = matcher(source.include), matcher(source.exclude)
    found, refused = [], []
    for name, distribution in sorted(_installed().items()):
        try:
            if not take(name) or leave(name):
                raise _LeftOut("not in include" if not take(name) else "in exclude")
            found.append(_package(name, distribution, source))
        except _LeftOut as reason:
            refused.append((f"{name}-{distribution.version}", str(reason)))
    return found, refused


class _LeftOut(Exception):
    """Says why a package is not read."""


def _installed() -> dict[str, Distribution]:
    """Return the packages by normalised name; the first on the path is the one Python imports."""
    found: dict[str, Distribution] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution)
    return found


def _package(name: str, distribution: Distribution, source: EnvironmentSource) -> Package:
    try:
        licence = licences.of_metadata(distribution.metadata)
    except ValueError as error:
        raise _LeftOut(str(error)) from None
    refusal = licences.refusal(licence.name, source.allow, source.deny)
    if refusal:
        raise _LeftOut(f"{refusal} (read from {licence.read_from})")
    record = distribution.files
    if record is None:
        raise _LeftOut("no RECORD of its files")
    root = Path(str(distribution.locate_file("")))
    package = Package(name, distribution.version, licence, root)
    paths = sorted({path.as_posix() for path in record})
    foreign = _foreign(root, paths, licence.name)
    for path in paths:
        if path.endswith(".py"):
            _take(package, path, _reason(path, foreign, source.tests))
    if not package.files:
        why = "; an editable one is read as files" if not package.left_out else " to read"
        raise _LeftOut(f"no .py file in its RECORD{why}")
    return package


def _take(package: Package, path: str, reason: str) -> None:
    file = package.root / path
    try:
        status = os.lstat(file)
    except OSError:
        package.left_out.append((path, "in RECORD, but not there"))
        return
    if not reason and not stat.S_ISREG(status.st_mode):
        reason = "not a regular file"
    if reason:
        package.left_out.append((path, reason))
    else:
        package.files.append((path, file, status))


def _reason(path: str, foreign: dict[str, str], tests: bool) -> str:
    """Say why a file of RECORD is not read, or ""."""
    parts = PurePosixPath(path).parts
    if parts[0] in ("/", "..") or ".." in parts:
        return "outside the folder of packages"
    folders = parts[:-1]
    if any(VENDORED.fullmatch(folder) for folder in folders):
        return "vendored code, whose licence the metadata need not say"
    for depth in range(len(folders), 0, -1):
        reason = foreign.get("/".join(folders[:depth]))
        if reason:
            return reason
    if not tests and TEST_FOLDERS & set(folders):
        return "tests of the package (tests = true takes them)"
    return ""


def _foreign(root: Path, paths: list[str], licence: str) -> dict[str, str]:
    """Return {folder: reason} of the folders whose own licence file disagrees with the package."""
    own: dict[str, list[str]] = defaultdict(list)
    for path in _licence_files(paths):
        own[PurePosixPath(path).parent.as_posix()].append(path)
    found = {}
    for folder, files in own.items():
        for path in files:
            named = licences.of_text(_text(root / path))
            if not licences.agrees(named, licence):
                found[folder] = f"{path} is {named or 'not recognised'}, the package {licence}"
                break
    return found


def _licence_files(paths: list[str]) -> Iterator[str]:
    """Yield the licence files of sub-folders; those of .dist-info belong to the package."""
    for path in paths:
        pure = PurePosixPath(path)
        named = _LICENCE_FILE.fullmatch(pure.name) and pure.suffix not in _CODE
        inside = len(pure.parts) > 1 and ".." not in pure.parts
        if named and inside and not pure.parts[0].endswith((".dist-info", ".egg-info")):
            yield path


def _text(file: Path) -> str:
    try:
        with open(file, "rb") as stream:
            return stream.read(_LONGEST).decode("utf-8", "replace")
    except OSError:
        return ""
