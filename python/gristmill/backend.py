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
fused = _C.fused

__all__ = ["_C", "Array", "fused"]
