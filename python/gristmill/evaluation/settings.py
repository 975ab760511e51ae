"""Table `evaluate` of the configuration: how the sealed test split is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gristmill.settings import Section


class EvaluateConfig(Section):
    """Figures, slices and bars of stage 10."""

    documents: int = Field(default=0, ge=0, description="test files to measure; 0: all")
    stride: int = Field(
        default=128, ge=1, description="new tokens per sliding window; every byte counts"
    )
    holes: int = Field(default=100, ge=0, le=100_000, description="held-out holes per kind")
    answers: int = Field(
        default=200, ge=1, le=100_000, description="held-out questions of conversations to answer"
    )
    kinds: list[Literal["line", "argument", "body"]] = Field(
        default=["line", "argument", "body"], min_length=1, description="kinds of holes"
    )
    max_tokens: int = Field(
        default=64, ge=1, le=4096, description="longest completion of a hole, longest answer"
    )
    bootstrap: int = Field(default=1000, ge=100, le=1_000_000, description="resamples per interval")
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0, description="coverage of the intervals")
    slices: list[Literal["area", "length", "difficulty"]] = Field(
        default=["area", "length", "difficulty"], description="groups reported one by one"
    )
    samples: int = Field(
        default=30, ge=3, le=10_000, description="completions kept beside the truth"
    )
    max_bits_per_byte: float | None = Field(
        default=None, gt=0.0, description="bar of the gate; left out: the byte n-gram of stage 5"
    )
