"""A space of settings to search: a TOML file with a key of the configuration per range.

"train.lr" = { low = 1e-4, high = 1e-2, log = true }
"design.depth" = { low = 1, high = 4 }                 # whole numbers; step = 1
"train.schedule" = { values = ["wsd", "cosine"] }
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.config import Config, read_toml
from gristmill.errors import ConfigError
from gristmill.selection.comparing import flatten
from gristmill.selection.toml import value_text

RANGE, VALUES = ("low", "high", "log", "step"), ("values",)
SHAPES = "allowed: { low = , high = , log = , step = } or { values = [...] }"
SPLIT = ("split.vocab_size", "split.min_frequency")  # the same validation files in other tokens
_OTHER_FILES = (
    "it decides which files trials are validated on, so that their figures would not compare"
)
_TOO_LATE = "it is read after validation, so that no trial would differ"
REFUSED = {
    "project": "it is no part of the model (another seed validates on other files)",
    "collect": _OTHER_FILES,
    "clean": _OTHER_FILES,
    "annotate": _OTHER_FILES,
    "split": _OTHER_FILES,
    "validate": "it decides how trials are measured, so that their figures would not compare",
    **dict.fromkeys(("save", "evaluate", "deploy", "serve", "update", "monitor"), _TOO_LATE),
}


@dataclass(frozen=True)
class Range:
    """One key and what it may be: `values`, or from `low` to `high`."""

    key: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return not self.values and isinstance(self.low, int) and isinstance(self.high, int)

    def ends(self) -> tuple[Any, ...]:
        """Return the values that must be allowed for the range to be."""
        return self.values or (self.low, self.high)

    def points(self) -> list[Any]:
        """Return all values for a grid; raises ConfigError where there is no end of them."""
        if self.values:
            return list(self.values)
        if self.step is None or self.log:
            raise ConfigError(
                f"{self.key}: a grid needs points, given a range without step; allowed: "
                "{ values = [...] } or { low = , high = , step = }"
            )
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return [self.low + i * self.step for i in range(count)]

    def plain(self) -> dict[str, Any]:
        """Return it as in the file."""
        if self.values:
            return {"values": list(self.values)}
        step = {} if self.step is None else {"step": self.step}
        return {"low": self.low, "high": self.high, "log": self.log, **step}


def read_space(source: str, make: Callable[[Sequence[str]], Config]) -> list[Range]:
    """Return the ranges of a file, in its order, each checked against the configuration.

    make: the configuration with some "key=value" applied. Raises ConfigError naming the key, what
    was given and what is allowed.
    """
    if not source.endswith(".toml"):
        raise ConfigError(f"--space {source}: a file of ranges needs the ending .toml")
    if not Path(source).is_file():
        raise ConfigError(f"--space {source}: no such file; a line per key, {SHAPES}")
    ranges = [_range(source, key, given) for key, given in _leaves(read_toml(source)).items()]
    if not ranges:
        raise ConfigError(f"{source} is empty; {SHAPES} per key, such as train.lr")
    for one in ranges:
        _check_key(source, one)
        for value in one.ends():
            _check_value(source, one, value, make)
    return ranges


def _leaves(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"train.lr": range}, whether it was written with quotes, dots or tables."""
    found: dict[str, Any] = {}
    for name, value in tables.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and not set(value) & {*RANGE, *VALUES}:
            found |= _leaves(value, f"{key}.") if value else {key: value}
        else:
            found[key] = value
    return found


def _range(source: str, key: str, given: Any) -> Range:
    where = f"{source}: {key}"
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: given {given!r}; {SHAPES}")
    for name in given:
        if name not in (*RANGE, *VALUES):
            close = difflib.get_close_matches(name, (*RANGE, *VALUES), n=1)
            guess = f", did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{where}: unknown {name!r}{guess}; {SHAPES}")
    if "values" in given:
        return _values(where, key, given)
    low: Any = given.get("low")
    high: Any = given.get("high")
    log, step = given.get("log", False), given.get("step")
    numbers = (low, high) if step is None else (low, high, step)
    if not all(_is_number(number) for number in numbers) or not isinstance(log, bool):
        raise ConfigError(
            f"{where}: given {dict(given)}; allowed: numbers for low, high and step, and log = true"
        )
    whole = all(isinstance(number, int) for number in numbers)
    if not low < high:
        raise ConfigError(f"{where}: low {low} and high {high} given; allowed: low below high")
    if log and (low <= 0 or step is not None):
        raise ConfigError(f"{where}: log needs low above 0 and no step, given {dict(given)}")
    if step is not None and step <= 0:
        raise ConfigError(f"{where}: step {step} given; allowed: above 0")
    if whole and step is None and not log:
        step = 1
    if not whole:
        low, high, step = float(low), float(high), None if step is None else float(step)
    return Range(key, low=low, high=high, log=log, step=step)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _values(where: str, key: str, given: Mapping[str, Any]) -> Range:
    values = given["values"]
    if len(given) > 1 or not isinstance(values, list) or not values:
        raise ConfigError(f"{where}: given {dict(given)}; values is a list and stands alone")
    texts = [value_text(value) for value in values]
    if len(set(texts)) < len(texts):
        raise ConfigError(f"{where}: a value stands twice in {values}")
    return Range(key, values=tuple(values))


def _check_key(source: str, one: Range) -> None:
    table = one.key.partition(".")[0]
    if table in REFUSED and one.key not in SPLIT:
        free = [name for name in Config.model_fields if name not in REFUSED]
        raise ConfigError(
            f"{source}: {one.key} cannot be searched: {REFUSED[table]}; allowed: keys of the "
            f"tables {', '.join(free)}, and {', '.join(SPLIT)}"
        )


def _check_value(
    source: str, one: Range, value: Any, make: Callable[[Sequence[str]], Config]
) -> None:
    """Raise ConfigError where the key does not exist or may not have that value.

    What goes wrong only together with other keys is left to the trial.
    """
    try:
        config = make([override(one.key, value)])
    except ConfigError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        own = [line for line in lines if _about(line, one.key)]
        if own:
            raise ConfigError(f"{source}: {'; '.join(own)}") from None
        return
    tables = config.model_dump(mode="json", by_alias=True)
    if one.key not in flatten(tables):  # a table of its own, not a value
        raise ConfigError(f"{source}: {one.key} is a table; name a key in it")


def _about(line: str, key: str) -> bool:
    """Say whether a line of an error is about the key or a table it is in."""
    named = line.partition(": ")[0]
    return key == named or (key.startswith(f"{named}.") and "unknown key" in line)


def override(key: str, value: Any) -> str:
    """Return "key=value" as --set takes it."""
    return f"{key}={value_text(value)}"


def grid(ranges: Sequence[Range]) -> list[dict[str, Any]]:
    """Return all points, the last key changing fastest."""
    keys = [one.key for one in ranges]
    listed = itertools.product(*(one.points() for one in ranges))
    return [dict(zip(keys, values, strict=True)) for values in listed]
