"""Table `collect` of the configuration: sources of every kind."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, model_validator

from gristmill.data.licences import PERMISSIVE
from gristmill.settings import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[\w.-]{0,40}$")]
MaxBytes = Annotated[int, Field(ge=1, le=2**30)]
_KEY = re.compile(  # names in a query whose value lets somebody in
    r"(?i)(.*[-_])?(token|key|apikey|secret|password|passwd|pwd|sig|signature|credential|auth)"
)


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


class DocstringsSource(RowColumns):
    """The documentation in the library of the Python that runs gristmill.

    content "text": docstrings by module, and pydoc's topics; "messages": questions and answers.
    """

    use: Literal["docstrings"] = Field(description="kind of source")
    licence: Text = Field(description="licence of these files, PSF-2.0")
    why: Text = Field(description="why they are collected")
    tests: bool = Field(default=False, description="with the library's own tests")
    id_column: str = Field(default="name", description="stands in the row's path")
    suffix: str = Field(
        default=".txt", pattern=r"^(\.\w{1,12})?$", description="ending of rows of text"
    )


class HttpSource(RowColumns):
    """Files by HTTP, downloaded once into a cache; each is read by its ending."""

    use: Literal["http"] = Field(description="kind of source")
    urls: list[Text] = Field(
        min_length=1, description="addresses; {000..013} in one stands for all these numbers"
    )
    sha256: list[Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]] = Field(
        default=[], description="of each file in order, empty where it is not known"
    )
    licence: Text = Field(description="licence of the files, such as ODC-By-1.0")
    why: Text = Field(description="why they are collected")
    name: Name = Field(default="", description="of the source; empty: the host")
    format: Literal["auto", "jsonl", "csv", "parquet", "text"] = Field(
        default="auto", description="auto: by the ending, text where it says nothing"
    )
    version: str = Field(default="", description="any text; another one downloads again")
    timeout: float = Field(default=30.0, gt=0.0, le=3600.0, description="seconds without a byte")
    retries: int = Field(default=6, ge=0, le=100, description="tries without progress")
    max_file_bytes: int = Field(default=16 * 2**30, ge=1, description="a larger file is an error")

    @model_validator(mode="after")
    def _addresses(self) -> HttpSource:
        expanded = self.expanded()
        for url in expanded:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{url!r} given; allowed: http://... and https://...")
            if parts.username or parts.password:
                raise ValueError(f"a password in the address of {parts.hostname}; it would be kept")
            if any(_KEY.fullmatch(name) for name, _ in parse_qsl(parts.query, True)):
                raise ValueError(
                    f"a key in the address of {parts.hostname}; it would be kept: download such a "
                    "file by other means and give it as a file"
                )
            if re.search(r"[^\x21-\x7e]", url):
                raise ValueError(
                    f"{url!r} holds a space or a letter beyond ASCII; write it as %20 and the like"
                )
        if len(set(expanded)) != len(expanded):
            raise ValueError("an address is given twice")
        if self.sha256 and len(self.sha256) != len(expanded):
            raise ValueError(
                f"{len(self.sha256)} values in sha256 for {len(expanded)} files; give one for "
                "each, empty where it is not known"
            )
        return self

    def expanded(self) -> list[str]:
        """Return every address, patterns written out; raises ValueError for an empty range."""
        found = [url for pattern in self.urls for url in expand(pattern)]
        if len(found) > 100_000:
            raise ValueError(f"{len(found)} addresses; allowed: 100000")
        return found


def expand(pattern: str) -> list[str]:
    """Return the addresses of a pattern: x-{00..02}.gz is x-00.gz, x-01.gz, x-02.gz."""
    found = re.search(r"\{(\d{1,9})\.\.(\d{1,9})\}", pattern)
    if found is None:
        return [pattern]
    low, high = found.groups()
    if not 0 <= int(high) - int(low) <= 100_000:
        raise ValueError(f"{found[0]} is no range of at most 100000 numbers")
    width = len(low) if low.startswith("0") else 0
    heads = [f"{pattern[: found.start()]}{n:0{width}d}" for n in range(int(low), int(high) + 1)]
    tails = expand(pattern[found.end() :])
    return [head + tail for head in heads for tail in tails]


Source = Annotated[
    FilesSource | StdlibSource | EnvironmentSource | RowsSource | HttpSource | DocstringsSource,
    Field(discriminator="use"),
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
