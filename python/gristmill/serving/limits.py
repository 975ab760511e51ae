"""Every limit of the server in one table: command line, middleware, schema and tests read it here.

A request at the limit passes, one above it is refused with `status` (0: the connection is closed or
the answer ends, because an answer has already begun or none can be given).
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import dataclass

from gristmill.errors import ConfigError


@dataclass(frozen=True)
class Limit:
    """A limit: its default in `unit`, the smallest and largest setting, where it is enforced."""

    default: float
    unit: str
    least: float
    most: float
    where: str
    status: int
    what: str


TABLE = types.MappingProxyType(
    {
        "request_line": Limit(8192, "bytes", 256, 65536, "guard", 414, "path and query"),
        "header_bytes": Limit(16384, "bytes", 8192, 1 << 20, "granian", 431, "all headers"),
        "header_count": Limit(64, "headers", 8, 1000, "guard", 431, "number of headers"),
        "header_seconds": Limit(
            10, "s", 1, 600, "granian", 0, "to send the headers; also closes idle connections"
        ),
        "body_bytes": Limit(1 << 20, "bytes", 1024, 1 << 28, "guard", 413, "request body"),
        "body_seconds": Limit(30, "s", 0.1, 600, "guard", 408, "to send the body"),
        "json_depth": Limit(32, "levels", 4, 200, "guard", 400, "nesting of the JSON body"),
        "json_keys": Limit(1024, "keys", 64, 65536, "guard", 400, "keys of one JSON object"),
        "write_seconds": Limit(30, "s", 0.1, 600, "guard", 0, "a reader may stand still"),
        "unsent_bytes": Limit(1 << 20, "bytes", 4096, 1 << 28, "stream", 0, "waiting per stream"),
        "connections": Limit(256, "", 8, 65536, "granian", 0, "open at one time"),
        "per_address": Limit(64, "requests", 1, 65536, "guard", 429, "at one time per address"),
        "queue": Limit(64, "sequences", 0, 65536, "engine", 429, "waiting for a slot"),
        "slots": Limit(4, "sequences", 1, 256, "engine", 0, "generated in turns"),
        "request_seconds": Limit(600, "s", 0.1, 86400, "engine", 503, "from arrival to answer"),
        "prompts": Limit(64, "prompts", 1, 4096, "schema", 400, "in one request"),
        "messages": Limit(1024, "messages", 1, 65536, "schema", 400, "in one chat"),
        "n": Limit(8, "choices", 1, 128, "schema", 400, "per prompt"),
        "stop": Limit(4, "strings", 1, 64, "schema", 400, "stop strings"),
        "infill_stop": Limit(16, "strings", 1, 64, "schema", 400, "stop strings of /infill"),
        "stop_bytes": Limit(64, "bytes", 1, 4096, "schema", 400, "length of a stop string"),
        "logprobs": Limit(20, "tokens", 0, 100, "schema", 400, "alternatives per token"),
        "scores": Limit(1 << 20, "", 1, 1 << 40, "schema", 400, "log-probabilities of one request"),
        "logit_bias": Limit(1024, "tokens", 0, 65536, "schema", 400, "biased tokens"),
        "extra": Limit(256, "chunks", 0, 4096, "schema", 400, "input_extra of /infill"),
        "feedback_bytes": Limit(1 << 28, "bytes", 4096, 1 << 40, "feedback", 507, "of its file"),
        "drift_window": Limit(
            300, "requests", 50, 100000, "monitor", 0, "compared as one, by kind"
        ),
        "probe_seconds": Limit(60, "s", 1, 86400, "monitor", 0, "between probes of the weights"),
        "drain_seconds": Limit(30, "s", 0, 600, "server", 0, "for open answers at shutdown"),
    }
)


class Limits:
    """Settings of every limit in TABLE; `limits["n"]` is a number in the table's unit."""

    def __init__(self, changes: Iterable[str] = ()) -> None:
        """`changes` are NAME=VALUE. Raises ConfigError naming what is allowed."""
        self._values = {name: limit.default for name, limit in TABLE.items()}
        for change in changes:
            name, _, text = change.partition("=")
            if name not in TABLE:
                raise ConfigError(f"no limit {name!r}; there are: {', '.join(TABLE)}")
            self._values[name] = self._checked(name, text)

    def __getitem__(self, name: str) -> int:
        return int(self._values[name])

    def seconds(self, name: str) -> float:
        """A limit in seconds, with its fraction."""
        return self._values[name]

    @staticmethod
    def _checked(name: str, text: str) -> float:
        limit = TABLE[name]
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not limit.least <= value <= limit.most or (limit.unit != "s" and value % 1):
            whole = "a number" if limit.unit == "s" else "a whole number"
            raise ConfigError(
                f"limit {name} is {text!r}; allowed is {whole} from {limit.least:.15g} to "
                f"{limit.most:.15g} {limit.unit}".rstrip()
            )
        return value


def described() -> str:
    """The table as lines of text for `gristmill serve --limits`."""
    lines = [f"{'limit':16} {'default':>8} {'unit':10} {'above':>6}  what"]
    for name, limit in TABLE.items():
        above = str(limit.status) if limit.status else "closed"
        lines.append(f"{name:16} {limit.default:8.15g} {limit.unit:10} {above:>6}  {limit.what}")
    return "\n".join(lines)
