"""Tables as TOML text: the library reads TOML (tomllib) but does not write it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def value_text(value: Any) -> str:
    """Return one value as TOML; raises TypeError for what TOML cannot hold."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)  # 1e-05, inf and nan are TOML too
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(value_text(item) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(k)} = {value_text(v)}" for k, v in value.items() if v is not None)
        return f"{{ {', '.join(pairs)} }}"
    raise TypeError(f"{value!r} ({type(value).__name__}) has no form in TOML")


def toml_text(tables: Mapping[str, Any], name: str = "") -> str:
    """Return nested tables as TOML; keys that are None are left out."""
    given = {key: value for key, value in tables.items() if value is not None}
    nested = {key: value for key, value in given.items() if _is_table(value) or _is_list(value)}
    plain = [f"{_key(k)} = {value_text(v)}\n" for k, v in given.items() if k not in nested]
    text = "".join(plain)
    for key, value in nested.items():
        path = f"{name}.{_key(key)}" if name else _key(key)
        for item in value if _is_list(value) else [value]:
            head = f"[[{path}]]" if _is_list(value) else f"[{path}]"
            text += f"\n{head}\n{toml_text(item, path)}"
    return text


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_table(item) for item in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)
