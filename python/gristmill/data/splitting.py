"""Who goes where: train, val and test by keyed hash, by strata or by time, in groups never divided.

A group holds what must stay together: near-duplicate clusters, equal files, and with `by` the same
path in every source ("file") or the same package. By hash, a group's place is a function of
(seed, name of the group) alone: documents that are added move nobody.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from gristmill.data.counter import string_uniform
from gristmill.data.dedup import Pair, clusters
from gristmill.data.document import Document
from gristmill.data.settings import SplitConfig
from gristmill.errors import DataError

TRAIN, VAL, TEST = SPLITS = ("train", "val", "test")
LEFT_OUT = "left out"  # by time: in a gap, or in one group with a later file
DAY = 86_400  # seconds
_Place = tuple[str, str]  # split, reason


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where one document goes and why."""

    split: str  # one of SPLITS or LEFT_OUT
    reason: str
    group: str


def assign(
    documents: Sequence[Document], config: SplitConfig, seed: int, strata: Sequence[str] = ()
) -> list[Assignment]:
    """Return the place of every document, in their order.

    strata: one label per document, used unless config.stratify is "none". Raises DataError when
    there are too few documents, groups or times for three splits.
    """
    groups = group_names(documents, config.by)
    if config.by == "time":
        places = _by_time([d.modified for d in documents], groups, config)
    elif config.stratify == "none":
        by_group = _by_hash(groups, config, seed)
        places = [by_group[group] for group in groups]
    else:
        by_group = _by_strata(groups, strata, config, seed)
        places = [by_group[group] for group in groups]
    assigned = [Assignment(*place, group) for place, group in zip(places, groups, strict=True)]
    _check_sizes(documents, assigned, config)
    return assigned


def group_names(documents: Sequence[Document], by: str) -> list[str]:
    """Return per document the name of its group: the least name of a file (package) in it."""
    first: dict[tuple[str, str | int], int] = {}
    pairs = []
    for index, document in enumerate(documents):
        for key in _keys(document, by):
            pairs.append(Pair(first.setdefault(key, index), index, 1.0))
    roots = clusters(len(documents), pairs)
    names: dict[int, str] = {}
    for root, document in zip(roots, documents, strict=True):
        own = package_of(document) if by == "package" else document.path
        name = f"{document.source}/{own}"
        names[root] = min(names.get(root, name), name)
    return [names[root] for root in roots]


def package_of(document: Document) -> str:
    """Return the area of a document, or its stem where it lies beside the areas."""
    if PurePosixPath(document.area).name in ("", "."):
        return PurePosixPath(document.path).with_suffix("").as_posix()
    return document.area


def _keys(document: Document, by: str) -> list[tuple[str, str | int]]:
    keys: list[tuple[str, str | int]] = [("id", document.id)]
    if document.cluster >= 0:
        keys.append(("cluster", document.cluster))
    if by == "file":
        keys.append(("path", document.path))
    if by == "package":
        keys.append(("package", f"{document.source}/{package_of(document)}"))
    return keys


# ------------------------------------------------------------------------------- strategies


def _by_hash(groups: Sequence[str], config: SplitConfig, seed: int) -> dict[str, _Place]:
    """Place groups by thresholds on their hash; where groups are few, every split gets some."""
    size = Counter(groups)
    order = sorted((string_uniform(seed, group), group) for group in size)
    places, at, least = {}, 0, config.min_documents
    edges = ((TEST, config.test, 2), (VAL, config.test + config.val, 1), (TRAIN, 1.0, 0))
    for split, edge, later in edges:
        count, end = 0, len(order) - later * least  # later splits need groups too
        while at < end and (order[at][0] < edge or count < least):
            draw, group = order[at]
            places[group] = split, f"hash {draw:.6f}, {split} is below {edge:g}"
            count += size[group]
            at += 1
    return places


def _by_strata(
    groups: Sequence[str], strata: Sequence[str], config: SplitConfig, seed: int
) -> dict[str, _Place]:
    """Place groups by quota within the stratum of most of their files, in the order of hashes.

    A group's place is the middle of its files in that order, turned by a seeded angle, so that a
    stratum too small for three splits gives to each of them with the right chance.
    """
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for group, stratum in zip(groups, strata, strict=True):
        labels[group][stratum] += 1
    members: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for group, counts in labels.items():
        stratum = min(counts, key=lambda label: (-counts[label], label))
        members[stratum].append((string_uniform(seed, group), group))
    places = {}
    for stratum, listed in sorted(members.items()):
        total = sum(labels[group].total() for _, group in listed)
        turn, before = string_uniform(seed, f"stratum {stratum}"), 0
        for _, group in sorted(listed):
            size = labels[group].total()
            place = ((before + size / 2) / total + turn) % 1.0
            split = TEST if place < config.test else TRAIN
            split = VAL if config.test <= place < config.test + config.val else split
            places[group] = split, f"{stratum}: {place:.4f} of its quota"
            before += size
    return places


def _by_time(times: Sequence[int], groups: Sequence[str], config: SplitConfig) -> list[_Place]:
    """Place the newest files in test, those before in val; what a gap or a group forbids is out."""
    gap = int(config.gap * DAY)
    test_from = _cut(times, config.test * len(times))
    val_from = _cut([t for t in times if t < test_from - gap], config.val * len(times))
    edges = ((test_from, TEST), (test_from - gap, ""), (val_from, VAL), (val_from - gap, ""))
    latest: dict[str, int] = {}
    for group, time in zip(groups, times, strict=True):
        latest[group] = max(latest.get(group, 0), (time >= val_from) + (time >= test_from))
    places = []
    for group, time in zip(groups, times, strict=True):
        split = next((name for edge, name in edges if time >= edge), TRAIN)
        if not split:
            places.append((LEFT_OUT, f"within {config.gap:g} days before a cut"))
        elif SPLITS.index(split) < latest[group]:
            places.append((LEFT_OUT, f"in one group with a file of {SPLITS[latest[group]]}"))
        else:
            places.append((split, f"time {time}, val from {val_from}, test from {test_from}"))
    return places


def _cut(times: Sequence[int], wanted: float) -> int:
    """Return the time from which on there are about `wanted` files, some being earlier."""
    count, best = 0, None
    counts = Counter(times)
    for time in sorted(counts, reverse=True)[:-1]:
        count += counts[time]
        if best is None or abs(count - wanted) < best[0]:
            best = abs(count - wanted), time
    if best is None:
        raise DataError(
            f'split.by = "time" needs files of at least 3 times, given {len(times)} files of '
            f"{len(counts)} times before a cut; give files of a git tree, a smaller split.gap, or "
            'split.by = "cluster"'
        )
    return best[1]


def _check_sizes(
    documents: Sequence[Document], assigned: Sequence[Assignment], config: SplitConfig
) -> None:
    """Raise DataError where a split is too small to be used."""
    counts = Counter(assignment.split for assignment in assigned)
    groups = len({assignment.group for assignment in assigned})
    given = (
        f"{len(documents)} files in {groups} groups (split.by = {config.by!r}) give "
        + ", ".join(f"{split} {counts[split]}" for split in SPLITS)
        + (f" and leave out {counts[LEFT_OUT]}" if counts[LEFT_OUT] else "")
    )
    if any(counts[split] < config.min_documents for split in SPLITS):
        raise DataError(
            f"too few files to split: {given}; allowed: at least {config.min_documents} each "
            "(split.min_documents). Collect more files, or split by something finer"
        )
    size = sum(
        len(document.text.encode("utf-8", "surrogatepass"))
        for document, assignment in zip(documents, assigned, strict=True)
        if assignment.split == TRAIN
    )
    if size < config.min_bytes:
        raise DataError(
            f"too little text to train on: {given}, {size} bytes in train; allowed: at least "
            f"{config.min_bytes} (split.min_bytes). Collect more files"
        )
