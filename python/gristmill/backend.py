"""The extension and its table: found once, with a message that helps where it is missing."""

from __future__ import annotations

from gristmill.errors import ConfigError

try:
    from gristmill import _C
except ImportError as error:
    if str(error).startswith("GRISTMILL_"):  # a variable that cannot be obeyed
        raise ConfigError(str(error)) from None
    raise ImportError(
        f"gristmill's compiled part does not load ({error}). Install from the repository with "
        "`pip install .`; that needs a C++20 compiler (Debian: apt install g++)."
    ) from error

Array = _C.Array

_contains = {e["name"]: e["contains"].split() for e in _C.entries()}


def fused(entry: str) -> bool:
    """Whether a fused entry may be used: it exists and no plain entry in it was replaced."""
    state = {e["name"]: e for e in _C.entries()}
    parts = _contains[entry]
    return state[entry]["present"] and not any(state[p]["replaced"] for p in parts)


__all__ = ["_C", "Array", "fused"]
