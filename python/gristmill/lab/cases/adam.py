"""Cases of adam: those of adamw, with the decay in the gradient."""

from __future__ import annotations

from collections.abc import Iterator

from gristmill.lab.case import Case
from gristmill.lab.cases.adamw import cases_of


def cases() -> Iterator[Case]:
    yield from cases_of("adam")
