"""Checks of a JSON body before any of it is believed: encoding, depth, keys, numbers."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from .http_errors import ApiError
from .limits import Limits

# A string (closed or cut off) or a bracket. Possessive, so that a body of quotes stays linear.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def checked_json(body: bytes, limits: Limits) -> Any:
    """Parse `body`. Raises ApiError 400 `invalid_json` saying what is wrong and where."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"the body is not UTF-8: byte {error.start} is wrong") from None
    _check_depth(text, limits["json_depth"])

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(items) > limits["json_keys"]:
            raise _refused(f"an object has {len(items)} keys; at most {limits['json_keys']}")
        if len(result) != len(items):
            raise _refused("an object has a key twice")
        return result

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=_no_constant)
        if _SURROGATE.search(text):  # an escape that may stand for half a character
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise _refused(f"the body is not JSON: {error.msg} at {where}") from None
    except UnicodeEncodeError:
        raise _refused("a string has half of a surrogate pair: no character") from None
    except ValueError as error:  # an integer of thousands of digits
        raise _refused(f"the body is not usable JSON: {error}") from None
    return value


def _check_depth(text: str, most: int) -> None:
    depth = 0
    for match in _TOKEN.finditer(text):
        first = text[match.start()]
        if first in "[{":
            depth += 1
            if depth > most:
                raise _refused(f"the body is nested deeper than {most} levels")
        elif first in "]}":
            depth -= 1


def _no_constant(name: str) -> NoReturn:
    raise _refused(f"{name} is not JSON")


def _refused(message: str) -> ApiError:
    return ApiError(400, "invalid_json", message)
