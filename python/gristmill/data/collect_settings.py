"""Table `collect` of the configuration: sources of every kind."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gristmill.data.licences import PERMISSIVE
from gristmill.settings import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[\w.-]{0,40}$")]
MaxBytes = Annotated[int, Field(ge=1, le=2**30)]


class Grouped(Section):
    """What every source has."""

    group: Name = Field(default="", description="in collect.mix; empty: the source's name")


class FilesSource(Grouped):
    """A file, a folder, a git working tree or a glob."""

    use: Literal["files"] = Field(description="kind of source")
    path: Text = Field(description="file, folder or glob, such as src/**/*.py")
    licence: Text = Field(description="licence of these files, such as MIT")
    why: Text = Field(description="why they are collected")
    name: Name = Field(default="", description="of the source; empty: from its path")
    git: bool = Field(default=True, description="in a git tree: tracked files, commit times")
    include: list[Text] = Field(default=["**"], min_length=1, description="patterns to take")
    exclude: list[Text] = Field(default=[], description="patterns to leave out")
    encodings: list[Text] = Field(
        default=["utf-8"], min_length=1, description="tried in order where a file names none"
    )
    max_bytes: MaxBytes = Field(
        default=1_000_000, description="larger files are skipped and listed"
    )


class StdlibSource(Grouped):
    """The library of the Python that runs gristmill."""

    use: Literal["stdlib"] = Field(description="kind of source")
    licence: Text = Field(description="licence of these files, PSF-2.0")
    why: Text = Field(description="why they are collected")
    tests: bool = Field(default=False, description="with the library's own tests")
    max_bytes: MaxBytes = Field(
        default=1_000_000, description="larger files are skipped and listed"
    )


class EnvironmentSource(Grouped):
    """The installed packages whose licence, by their metadata, is allowed: one source each."""

    use: Literal["environment"] = Field(description="kind of source")
    why: Text = Field(description="why they are collected")
    include: list[Text] = Field(
        default=["*"], min_length=1, description="patterns of package names to take"
    )
    exclude: list[Text] = Field(default=[], description="patterns of package names to leave out")
    allow: list[Text] = Field(
        default=list(PERMISSIVE), min_length=1, description="SPDX names of allowed licences"
    )
    deny: list[Text] = Field(
        default=[], description="SPDX names that decide against a package, whatever else it says"
    )
    tests: bool = Field(default=False, description="with the packages' own tests")
    max_bytes: MaxBytes = Field(
        default=1_000_000, description="larger files are skipped and listed"
    )


class RowColumns(Grouped):
    """What the columns of a table hold; a row is a document."""

    content: Literal["text", "messages"] = Field(
        default="text", description="text, or conversations (messages, or prompt and response)"
    )
    text_column: Text = Field(default="text", description="holds the text")
    messages_column: Text = Field(default="messages", description="list of role and content")
    prompt_column: str = Field(default="", description="with response_column: a pair to learn")
    response_column: str = Field(default="", description="what is to be answered")
    system_column: str = Field(default="", description="beside a pair, where there is one")
    id_column: str = Field(default="", description="stands in the row's path")
    path_column: str = Field(default="", description="file the row comes from; its ending counts")
    area_column: str = Field(default="", description="what reports group by, such as language")
    time_column: str = Field(default="", description="unix seconds or ISO 8601; no zone: UTC")
    licence_column: str = Field(default="", description="of the row; a row without is left out")
    allow: list[Text] = Field(default=[], description="licences of rows to take; empty: all")
    suffix: str = Field(
        default="", pattern=r"^(\.\w{1,12})?$", description="ending of rows without path: .py"
    )
    delimiter: str = Field(default="", max_length=1, description="csv; empty: comma, tab in .tsv")
    encoding: Text = Field(default="utf-8", description="of csv")
    max_bytes: MaxBytes = Field(
        default=1_000_000, description="of a row's text; larger ones are skipped and listed"
    )

    @model_validator(mode="after")
    def _consistent(self) -> RowColumns:
        if bool(self.prompt_column) != bool(self.response_column):
            raise ValueError("prompt_column and response_column are given together or not at all")
        if self.response_column and self.content != "messages":
            raise ValueError('prompt_column and response_column need content = "messages"')
        if self.allow and not self.licence_column:
            raise ValueError("allow compares licence_column, which is not given")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ValueError(f"no such encoding: {self.encoding}") from None
        return self


class RowsSource(RowColumns):
    """Tables on disk."""

    use: Literal["jsonl", "csv", "parquet"] = Field(description="kind of source")
    path: Text = Field(description="file, folder or glob, such as data/*.jsonl.gz")
    licence: Text = Field(description="licence of the rows, such as CC-BY-4.0")
    why: Text = Field(description="why they are collected")
    name: Name = Field(default="", description="of the source; empty: from its path")


Source = Annotated[
    FilesSource | StdlibSource | EnvironmentSource | RowsSource, Field(discriminator="use")
]


class MixConfig(Section):
    """How much of each group of sources, and in which order."""

    weights: dict[str, Annotated[float, Field(ge=0.0, allow_inf_nan=False)]] = Field(
        default={}, description="share of each group in the text; empty: all as it comes"
    )
    bytes: int = Field(default=0, ge=0, description="text to take, UTF-8; 0: all that fits weights")
    tokens: int = Field(default=0, ge=0, description="instead of bytes, at bytes_per_token each")
    bytes_per_token: float = Field(
        default=4.0, gt=0.0, le=64.0, description="assumed of the tokenizer to come"
    )
    repeats: int = Field(
        default=1, ge=1, le=100, description="times a text of too small a group may be trained on"
    )
    max_short: Share = Field(
        default=0.02, description="gate: share that a group may lack of what is asked"
    )
    sort: Literal["source", "shuffle", "time", "length"] = Field(
        default="source", description="order of the documents; the first of two equal ones stays"
    )

    @model_validator(mode="after")
    def _consistent(self) -> MixConfig:
        if self.bytes and self.tokens:
            raise ValueError(f"bytes {self.bytes} and tokens {self.tokens} given; give one")
        if self.weights and not any(self.weights.values()):
            raise ValueError("weights are all 0; give a group more")
        if self.repeats > 1 and not (self.weights or self.bytes or self.tokens):
            raise ValueError("repeats fill what is asked: give weights, bytes or tokens")
        return self


class CollectConfig(Section):
    """What is read, and how much of it may be faulty."""

    limit: int = Field(default=0, ge=0, description="documents, a seeded sample; 0: all")
    max_faulty: Share = Field(
        default=0.05, description="largest share of files that cannot be read or decoded"
    )
    exclude: list[Text] = Field(
        default=[], description="patterns of SOURCE/PATH to leave out; `gristmill forget` adds some"
    )
    mix: MixConfig = Field(default=MixConfig(), description="how much of each source")
    source: list[Source] = Field(
        default=[
            StdlibSource(
                use="stdlib",
                licence="PSF-2.0",
                why="on every machine that has Python: no download, no account",
            )
        ],
        min_length=1,
        description="sources in order; each has licence and why",
    )
