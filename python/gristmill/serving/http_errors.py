"""Errors of the HTTP interface in OpenAI's shape: {"error": {message, type, param, code}}."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
TYPES |= {429: "rate_limit_error", 500: "server_error", 503: "unavailable_error"}
TYPES |= {507: "server_error"}


class ApiError(Exception):
    """An answer other than 200. `retry_seconds` asks the client to come back, else it must not."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_seconds = retry_seconds
        self._headers = dict(headers or {})

    def body(self) -> dict[str, object]:
        """The JSON object of the answer."""
        kind = TYPES.get(self.status, "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def encoded(self) -> bytes:
        """`body` as UTF-8 JSON; what a client sent may be quoted in it, so it stays ASCII."""
        return json.dumps(self.body()).encode("ascii")

    def headers(self) -> dict[str, str]:
        """Headers beside content type and length.

        OpenAI's clients repeat 408, 409, 429 and 5xx by themselves unless told otherwise.
        """
        headers = dict(self._headers)
        if self.retry_seconds is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_seconds)))
            headers["retry-after-ms"] = str(math.ceil(self.retry_seconds * 1000))
            headers["x-should-retry"] = "true"
        elif self.status in (408, 409, 429) or self.status >= 500:
            headers["x-should-retry"] = "false"
        return headers


def bad_value(param: str, message: str) -> ApiError:
    """400 for a field with a wrong value."""
    return ApiError(400, "invalid_value", message, param=param)
