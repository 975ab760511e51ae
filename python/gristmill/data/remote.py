"""A source by HTTP: its files downloaded into the cache and listed like files on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from gristmill.data.collect_settings import HttpSource
from gristmill.data.download import Cache, Fetched, Limits, cache_folder, fetch
from gristmill.data.rows import format_of
from gristmill.data.sources import Candidate, Listing, downloads_of


def listed(source: HttpSource, progress: Callable[[str], None]) -> Listing:
    """Return the files of a source, downloaded where the cache has them not.

    Raises DataError where one cannot be had or has other bytes than asked; StorageError.
    """
    cache, urls = Cache(cache_folder()), source.expanded()
    limits = Limits(source.timeout, source.retries, source.max_file_bytes)
    listing = downloads_of(source)
    listing.root = cache.objects.folder
    wanted = source.sha256 or [""] * len(urls)
    for url, path, digest in zip(urls, _paths(urls), wanted, strict=True):
        fetched = fetch(url, digest, source.version, cache, limits, progress)
        form = format_of(path) if source.format == "auto" else source.format
        form = "" if form == "text" else form
        file, time = cache.path(fetched), fetched.last_modified * 10**9
        listing.candidates.append(Candidate(path, file, fetched.bytes, time, form, fetched.sha256))
        listing.origins.append(_origin(fetched, bool(digest)))
    return listing


def _origin(fetched: Fetched, checked: bool) -> dict[str, str | int | bool]:
    return {
        "url": fetched.url,
        "sha256": fetched.sha256,
        "bytes": fetched.bytes,
        "etag": fetched.etag or "none",
        "last_modified": fetched.last_modified,
        "checked": checked,  # against a sha256 that was known before
    }


def _paths(urls: Sequence[str]) -> list[str]:
    """Return a path for each file: its name, with as many folders as make the names differ."""
    parts = [
        [part for part in _path(url).split("/") if part not in ("", ".", "..")] or ["index"]
        for url in urls
    ]
    longest = max(map(len, parts))
    for count in range(1, longest + 1):
        names = ["/".join(own[-count:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{number}/{PurePosixPath(*own)}" for number, own in enumerate(parts)]


def _path(url: str) -> str:
    split = urlsplit(url)
    plain = unquote(split.path, errors="replace")
    return "".join("_" if c < " " or c in "#\x7f" else c for c in plain)
