"""How often a document of too small a source is trained on: what collect asks and split does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gristmill.artifacts import read_json
from gristmill.data.document import Document

MIXTURE = "mixture.json"


def repeats_in(folder: Path | None) -> Callable[[Document], int]:
    """Return how often to train on a document, by the mixture in a folder of collect, if any."""
    file = folder and folder / MIXTURE
    repeats = read_json(file)["repeats"] if file and file.is_file() else {}
    return lambda document: int(repeats.get(document.source, {}).get(document.path, 1))
