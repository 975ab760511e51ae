"""What the stages of a run measured, as the cards ask for it; what is missing says why."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from gristmill import energy
from gristmill.artifacts import MANIFEST, read_json
from gristmill.data.document import suffix_of
from gristmill.data.table import read_table
from gristmill.errors import ArtifactError, DataError

CODE = {
    ".py", ".pyi", ".pyw", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".java", ".js",
    ".ts", ".rb", ".php", ".cs", ".swift", ".kt", ".scala", ".lua", ".sh", ".pl", ".r", ".jl",
    ".sql", ".html", ".css", ".cmake", ".hs", ".ml", ".asm", ".s",
}  # fmt: skip


# what reading an artefact that is damaged, or of another version, may raise
UNREADABLE = (
    ArtifactError, DataError, KeyError, TypeError, ValueError, IndexError, AttributeError,
)  # fmt: skip


class Unknown(Exception):
    """A field that is not known; the text is the reason."""


class Facts:
    """The finished stages of a run by name. Whatever is not there raises Unknown with a reason."""

    def __init__(self, name: str, folders: Mapping[str, Path]) -> None:
        self.name, self.folders = name, dict(folders)

    def json(self, stage: str, file: str) -> Any:
        """Return the content of a file of a stage."""
        if stage not in self.folders:
            raise Unknown(f"stage {stage} is not part of this run")
        path = self.folders[stage] / file
        if not path.is_file():
            raise Unknown(f"stage {stage} of this run has no {file}")
        return read_json(path)

    def table(self, stage: str, file: str, columns: list[str]) -> list[tuple[Any, ...]]:
        """Return columns of a table of a stage."""
        if stage not in self.folders or not (self.folders[stage] / file).is_file():
            raise Unknown(f"stage {stage} of this run has no {file}")
        return read_table(self.folders[stage] / file, columns)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every table of the configuration that a stage's key holds, the last stage's first."""
        found: dict[str, Any] = {}
        for folder in self.folders.values():
            if (folder / MANIFEST).is_file():
                found |= read_json(folder / MANIFEST).get("depends", {}).get("config", {})
        return found

    def setting(self, section: str, key: str) -> Any:
        """Return one value of the configuration."""
        try:
            return self.config[section][key]
        except KeyError:
            raise Unknown(f"no finished stage of this run holds {section}.{key}") from None

    # ----------------------------------------------------------------------------- the data

    @property
    def sources(self) -> list[dict[str, Any]]:
        return list(self.json("collect", "sources.json"))

    @cached_property
    def trained(self) -> list[tuple[str, str, str]]:
        """(source, path, licence) of the training split."""
        rows = self.table("split", "train/documents.parquet", ["source", "path", "licence"])
        return [(str(s), str(p), str(x)) for s, p, x in rows]

    @property
    def licences(self) -> list[str]:
        """Licences of the training split, most files first."""
        return [name for name, _ in Counter(row[2] for row in self.trained).most_common()]

    def tokens(self, split: str) -> int:
        return int(self.json("split", f"{split}/shard.json")["tokens"])

    def documents(self, split: str) -> int:
        return int(self.json("split", f"{split}/shard.json")["documents"])

    @property
    def code_share(self) -> float:
        """Share of the training files that are code by their suffix."""
        suffixes = [suffix_of(path.partition("#")[0]) for _, path, _ in self.trained]
        return sum(suffix in CODE for suffix in suffixes) / max(1, len(suffixes))

    @property
    def languages(self) -> tuple[list[str], str]:
        """Language tags and how they are known."""
        for step in self.config.get("clean", {}).get("step", []):
            if step["use"] == "language":
                return list(step["languages"]), "the clean step `language` keeps no others"
        share = self.code_share
        if share >= 0.5:
            why = f"{share:.0%} of the training files are code by their suffix; the language of "
            return ["code"], why + "comments was not measured"
        return ["und"], "no clean step `language` was configured, so nothing measured it"

    # --------------------------------------------------------------------------- the model

    @property
    def shape(self) -> dict[str, Any]:
        return dict(self.json("save", "model/config.json"))

    @property
    def weights(self) -> str:
        """sha256 of the saved weights."""
        return str(self.json("save", "reload.json")["sha256"])

    @property
    def begun(self) -> str:
        """When the first stage began, UTC."""
        times = [read_json(f / MANIFEST).get("begun") for f in self._finished()]
        known = sorted(str(one) for one in times if one)
        if not known:
            raise Unknown("the manifests of these stages hold no times")
        return known[0]

    @property
    def machine(self) -> dict[str, Any]:
        return dict(self.json("train", MANIFEST)["machine"])

    def energy(self, stages: Iterable[str] | None = None) -> str:
        """Energy of some stages, or of all that are finished, with the method."""
        spent = None
        for name, folder in self.folders.items():
            path = folder / MANIFEST
            if (stages is None or name in stages) and path.is_file():
                one = read_json(path).get("energy")
                if one is None:
                    raise Unknown(f"the manifest of stage {name} holds no energy")
                spent = one if spent is None else energy.total(spent, one)
        if spent is None:
            raise Unknown("no stage that would say it is finished")
        return energy.shown(spent)

    @property
    def seconds(self) -> float:
        """Time of all finished stages together."""
        return float(sum(read_json(f / MANIFEST).get("seconds", 0.0) for f in self._finished()))

    def _finished(self) -> list[Path]:
        return [f for f in self.folders.values() if (f / MANIFEST).is_file()]


def told(say: Callable[[Facts], str], facts: Facts) -> str:
    """Return what `say` says of the facts, or why it is not known."""
    try:
        text = say(facts).strip()
    except Unknown as error:
        return f"Not known: {error}."
    except UNREADABLE as error:
        return f"Not known: the artefact that says it cannot be read ({error!r})."
    return text or "Not known: the artefact that says it is empty."


def date(seconds: float | None) -> str:
    """Return unix seconds as a date."""
    if seconds is None:
        raise Unknown("the source records no time")
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def between(figure: Mapping[str, Any], form: str = ".3f") -> str:
    """Return a value with its interval, or why there is none."""
    if figure.get("low") is None:
        return f"{figure['value']:{form}} (too few for an interval)"
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table in Markdown; a bar inside a cell is escaped."""
    lines = [list(map(str, columns)), ["---"] * len(list(columns))]
    lines += [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
