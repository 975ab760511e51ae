"""Tables `deploy` and `serve` of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gristmill.settings import Section


class DeployConfig(Section):
    """The deployed file."""

    dtype: Literal["f32", "bf16"] = Field(
        default="f32", description="type of the weights in the GGUF"
    )
    selftest: int = Field(
        default=4, ge=1, le=64, description="prompts whose tokens are kept in the file"
    )
    selftest_tokens: int = Field(default=16, ge=1, le=256, description="greedy tokens per prompt")
    name: str | None = Field(
        default=None, description="name in the file; the project's when left out"
    )


class ServeConfig(Section):
    """Where `run --serve` listens; `gristmill serve` has the same as options."""

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=8080, ge=1, le=65535, description="TCP port")
    ctx: int | None = Field(
        default=None, ge=16, description="context in tokens; the model's by default"
    )
