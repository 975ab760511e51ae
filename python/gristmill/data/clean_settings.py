"""The steps of `[[clean.step]]`: one class per step, in the order in which they are best used."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from gristmill.data.prose_settings import (
    ContaminationStep,
    LanguageStep,
    PairsStep,
    ProseStep,
    RepetitionStep,
    WebStep,
)
from gristmill.settings import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
PrivateRule = Literal["email", "ip", "phone", "card", "iban", "url_password", "key", "private_key"]
ALL_RULES: list[PrivateRule] = [
    "private_key",
    "key",
    "url_password",
    "email",
    "iban",
    "card",
    "phone",
    "ip",
]


class UnicodeStep(Section):
    """Repair text: line ends, byte order marks, control characters, twice-encoded UTF-8."""

    use: Literal["unicode"] = Field(description="kind of step")
    form: Literal["none", "NFC"] = Field(default="NFC", description="normal form of the text")
    mojibake: bool = Field(default=True, description="undo UTF-8 that was read as cp1252")
    max_bad: Share = Field(
        default=0.01, description="largest share of characters lost before (U+FFFD)"
    )


class CodeStep(Section):
    """Take out what is no source written by people; a bar of 0 (or 1.0) switches a rule off."""

    use: Literal["code"] = Field(description="kind of step")
    parses: bool = Field(default=True, description="Python must parse")
    generated: bool = Field(default=True, description="no file that says it is generated")
    minified: bool = Field(default=True, description="no minified file")
    min_characters: int = Field(default=20, ge=0, description="shorter files go")
    max_characters: int = Field(default=0, ge=0, description="longer files go; 0: no bar")
    max_line: int = Field(default=2000, ge=0, description="longest line, characters; 0: no bar")
    max_mean_line: float = Field(
        default=150.0, ge=0.0, description="mean line, characters; 0: no bar"
    )
    max_comment: Share = Field(default=0.9, description="largest share of comment in Python")
    max_data: Share = Field(
        default=0.6, description="largest share of digits and \\x escapes: tables, not code"
    )


class ExactStep(Section):
    """One of several files with the same text stays."""

    use: Literal["exact"] = Field(description="kind of step")
    keep: Literal["first", "newest"] = Field(default="first", description="which one stays")


class NearStep(Section):
    """Near-duplicates by MinHash, every pair confirmed by its exact Jaccard similarity."""

    use: Literal["near"] = Field(description="kind of step")
    threshold: float = Field(
        default=0.8, ge=0.3, le=1.0, description="Jaccard similarity from which one is removed"
    )
    group: float = Field(
        default=0.5, ge=0.3, le=1.0, description="similarity from which files share a cluster"
    )
    keep: Literal["first", "longest", "newest", "all"] = Field(
        default="longest", description="which one stays; all: only mark the clusters"
    )
    compare: Literal["text", "prompt"] = Field(
        default="text", description="prompt: what is asked in conversations, not the answers"
    )
    words: int = Field(default=5, ge=1, le=20, description="words in a shingle")
    permutations: int = Field(default=128, ge=16, le=1024, description="of a MinHash signature")

    @field_validator("permutations")
    @classmethod
    def _bands(cls, value: int) -> int:
        if value % 16:
            raise ValueError("a multiple of 16")
        return value


class PrivateStep(Section):
    """Personal data and secrets become keyed tokens; the audit never holds the value."""

    use: Literal["private"] = Field(description="kind of step")
    rules: list[PrivateRule] = Field(
        default=ALL_RULES, min_length=1, description="what is looked for, first match wins"
    )


class QuantileStep(Section):
    """Declare quantile thresholds of a column; split fits them on train only."""

    use: Literal["quantile"] = Field(description="kind of step")
    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$", description="of the transform")
    column: Literal["characters", "bytes", "lines"] = Field(description="what is measured")
    at: list[Annotated[float, Field(gt=0.0, lt=1.0)]] = Field(
        default=[0.25, 0.5, 0.75], min_length=1, description="quantiles"
    )


CleanStep = Annotated[
    UnicodeStep
    | CodeStep
    | ProseStep
    | RepetitionStep
    | WebStep
    | LanguageStep
    | PairsStep
    | ContaminationStep
    | ExactStep
    | NearStep
    | PrivateStep
    | QuantileStep,
    Field(discriminator="use"),
]


def default_steps() -> list[CleanStep]:
    """Return the steps of the recipe `code`."""
    return [
        UnicodeStep(use="unicode"),
        CodeStep(use="code"),
        ExactStep(use="exact"),
        NearStep(use="near"),
        PrivateStep(use="private"),
        QuantileStep(use="quantile", name="length", column="characters"),
    ]
