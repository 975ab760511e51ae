"""How much of each source: documents in the order of a keyed hash, as many as are asked for.

Every group of sources is a pool that keeps the documents with the smallest keys, so what is taken
is a seeded sample, a larger budget keeps all that a smaller one took, and rows beyond the budget
are never held in memory.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gristmill.data.collect_settings import CollectConfig, EnvironmentSource, MixConfig
from gristmill.data.document import Document
from gristmill.data.sources import Listing
from gristmill.errors import ConfigError

Place = tuple[int, str, int]  # number of the listing, path of the file, row (0 of a whole file)


class Entry(NamedTuple):
    """A document in a pool; entries compare by their negated key, then their place."""

    order: int
    place: Place
    size: int  # bytes of its text in UTF-8
    document: Document


@dataclass
class Pool:
    """The documents of a group with the smallest keys: `limit` of them (0: all), `budget` bytes."""

    group: str
    share: float
    limit: int = 0
    budget: float = math.inf
    entries: list[Entry] = field(default_factory=list)  # a heap, the largest key first
    bytes: int = 0

    def wants(self, key: int) -> bool:
        """Say whether a document of this key would be taken."""
        full = self.bytes >= self.budget or bool(self.limit and len(self.entries) >= self.limit)
        return not full or bool(self.entries and key < -self.entries[0].order)

    def add(self, key: int, place: Place, document: Document) -> None:
        """Take a document, and let go those that it makes superfluous."""
        size = len(document.text.encode("utf-8", "surrogatepass"))
        heapq.heappush(self.entries, Entry(-key, place, size, document))
        self.bytes += size
        self._prune()

    def keep(self, entries: Iterable[Entry], budget: float) -> None:
        """Keep only these of the entries, and of them the first up to `budget` bytes."""
        self.entries = list(entries)
        heapq.heapify(self.entries)
        self.bytes = sum(entry.size for entry in self.entries)
        self.budget = budget
        self._prune()

    def _prune(self) -> None:
        while self.entries and (
            (self.limit and len(self.entries) > self.limit)
            or self.bytes - self.entries[0].size >= self.budget
        ):
            self.bytes -= heapq.heappop(self.entries).size


def group_of(listing: Listing) -> str:
    """Return the group a listing counts to: its source's, else its own name."""
    source = listing.source
    own = "environment" if isinstance(source, EnvironmentSource) else listing.name
    return source.group or own


def pools_of(config: CollectConfig, listings: Sequence[Listing]) -> list[Pool]:
    """Return the pool of each listing; without weights all share one. Raises ConfigError."""
    weights, total = config.mix.weights, asked_bytes(config.mix)
    if not weights:
        pool = Pool("all", 1.0, config.limit, total or math.inf)
        return [pool for _ in listings]
    groups = list(dict.fromkeys(map(group_of, listings)))
    strange, missing = sorted(set(weights) - set(groups)), sorted(set(groups) - set(weights))
    if strange or missing:
        raise ConfigError(
            f"collect.mix.weights names {', '.join(sorted(weights))}; the sources are of the "
            f"groups {', '.join(groups)}; give each group a weight, 0 to leave it out"
        )
    whole = math.fsum(weights.values())
    pools = {}
    for group in groups:
        share = weights[group] / whole
        budget = total * share if total or not share else math.inf
        pools[group] = Pool(group, share, config.limit, budget)
    return [pools[group_of(listing)] for listing in listings]


def asked_bytes(mix: MixConfig) -> int:
    """Return the bytes of text that are asked for, 0 for all there are."""
    return mix.bytes or round(mix.tokens * mix.bytes_per_token)


@dataclass
class Mixture:
    """What was taken, in the order asked for, and the record of asked and got."""

    documents: list[Document]
    facts: dict[str, Any]

    @property
    def shortfall(self) -> float:
        """The largest share that a group lacks of what was asked of it."""
        return max((group["short"] for group in self.facts["groups"]), default=0.0)


def settle(config: CollectConfig, pools: Sequence[Pool], listings: Sequence[Listing]) -> Mixture:
    """Cut every pool to what was asked for and say what came of it; pools: one per listing."""
    groups = list({id(pool): pool for pool in pools}.values())
    if config.limit:
        everything = (entry for pool in groups for entry in pool.entries)
        kept = {e.place for e in heapq.nlargest(config.limit, everything)}  # order is negated
        for pool in groups:
            pool.keep([e for e in pool.entries if e.place in kept], pool.budget)
    mix, total = config.mix, asked_bytes(config.mix)
    if mix.weights and not total:
        total = _largest([pool for pool in groups if pool.share], mix.repeats)
        for pool in groups:
            pool.keep(pool.entries, total * pool.share)
    repeats: dict[Place, int] = {}
    rows = []
    for pool in groups:
        asked = total * pool.share if total else None
        repeats.update(_repeats(pool, asked, mix.repeats))
        rows.append(_group(pool, asked, repeats))
    entries = sorted((e for p in groups for e in p.entries), key=lambda e: e.place)
    facts = {
        "bytes_asked": total or None,
        "tokens_asked": mix.tokens or None,
        "bytes_per_token": mix.bytes_per_token if mix.tokens else None,
        "limit": config.limit,
        "max_repeats": mix.repeats,
        "sort": mix.sort,
        "groups": rows,
        "sources": _sources(listings, pools, entries, repeats),
        "repeats": _named(entries, repeats),
    }
    order = {
        "source": lambda e: e.place,
        "shuffle": lambda e: -e.order,
        "time": lambda e: (e.document.modified, e.place),
        "length": lambda e: (e.size, e.place),
    }[mix.sort]
    return Mixture([e.document for e in sorted(entries, key=order)], facts)


def _largest(pools: Sequence[Pool], repeats: int) -> int:
    """Return the most bytes of which no pool falls short and at least one is not repeated."""
    once = max(pool.bytes / pool.share for pool in pools)
    return int(min(once, *(pool.bytes * repeats / pool.share for pool in pools)))


def _repeats(pool: Pool, asked: float | None, most: int) -> dict[Place, int]:
    """Return how often documents of a pool that is too small are read, where more than once."""
    if asked is None or not pool.bytes or pool.bytes >= asked or most == 1:
        return {}
    whole, rest = divmod(min(asked, pool.bytes * most), pool.bytes)
    found = {}
    for entry in sorted(pool.entries, reverse=True):  # smallest key first
        times = int(whole) + (rest > 0)
        rest -= entry.size
        if times > 1:
            found[entry.place] = times
    return found


def _group(pool: Pool, asked: float | None, repeats: Mapping[Place, int]) -> dict[str, Any]:
    got = sum(e.size * repeats.get(e.place, 1) for e in pool.entries)
    return {
        "group": pool.group,
        "share_asked": pool.share,
        "bytes_asked": None if asked is None else round(asked),
        "documents": len(pool.entries),
        "bytes": pool.bytes,
        "bytes_with_repeats": got,
        "short": 0.0 if not asked else max(0.0, 1.0 - got / asked),
    }


def _sources(
    listings: Sequence[Listing],
    pools: Sequence[Pool],
    entries: Sequence[Entry],
    repeats: Mapping[Place, int],
) -> list[dict[str, Any]]:
    documents: Counter[int] = Counter(entry.place[0] for entry in entries)
    sizes: Counter[int] = Counter()
    with_repeats: Counter[int] = Counter()
    for entry in entries:
        sizes[entry.place[0]] += entry.size
        with_repeats[entry.place[0]] += entry.size * repeats.get(entry.place, 1)
    whole = with_repeats.total()
    return [
        {
            "source": listing.name,
            "group": pool.group,
            "documents": documents[number],
            "bytes": sizes[number],
            "bytes_with_repeats": with_repeats[number],
            "share": with_repeats[number] / whole if whole else 0.0,
        }
        for number, (listing, pool) in enumerate(zip(listings, pools, strict=True))
    ]


def _named(entries: Iterable[Entry], repeats: Mapping[Place, int]) -> dict[str, dict[str, int]]:
    """Return {source: {path: times}} of the documents that are read more than once."""
    found: dict[str, dict[str, int]] = {}
    for entry in entries:
        if entry.place in repeats:
            paths = found.setdefault(entry.document.source, {})
            paths[entry.document.path] = repeats[entry.place]
    return found
