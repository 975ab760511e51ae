"""Table `collect` of the configuration: sources of every kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gristmill.data.licences import PERMISSIVE
from gristmill.settings import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[\w.-]{0,40}$")]
MaxBytes = Annotated[int, Field(ge=1, le=2**30)]


class FilesSource(Section):
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


class StdlibSource(Section):
    """The library of the Python that runs gristmill."""

    use: Literal["stdlib"] = Field(description="kind of source")
    licence: Text = Field(description="licence of these files, PSF-2.0")
    why: Text = Field(description="why they are collected")
    tests: bool = Field(default=False, description="with the library's own tests")
    max_bytes: MaxBytes = Field(
        default=1_000_000, description="larger files are skipped and listed"
    )


class EnvironmentSource(Section):
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


Source = Annotated[FilesSource | StdlibSource | EnvironmentSource, Field(discriminator="use")]


class CollectConfig(Section):
    """What is read, and how much of it may be faulty."""

    limit: int = Field(default=0, ge=0, description="files, a seeded sample; 0: all")
    max_faulty: Share = Field(
        default=0.05, description="largest share of files that cannot be read or decoded"
    )
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
