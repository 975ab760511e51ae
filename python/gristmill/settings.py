"""The base of every table of the configuration: no unknown key, no silent conversion."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One table of the TOML file; strict: a string is never taken for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)
