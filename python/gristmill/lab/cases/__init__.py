"""The cases of every op: a module for each, with `cases()`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from gristmill.lab.case import Case


def of(entry: str) -> Iterator[Case]:
    """Every case of an entry. Its module is that of the longest beginning of its name."""
    names = {m.name for m in pkgutil.iter_modules(__path__)}
    home = {"random": "init", "orthogonal": "init"}.get(entry, entry)
    while home and home not in names:
        home = home.rpartition("_")[0]
    if not home:
        raise KeyError(f"no cases of {entry}; there are those of {', '.join(sorted(names))}")
    for case in importlib.import_module(f"{__name__}.{home}").cases():
        if case.entry == entry:
            yield case
