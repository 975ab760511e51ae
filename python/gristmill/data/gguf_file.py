"""A GGUF file opened through the package `gguf`: what is wrong with it is a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.errors import ArtifactError, MissingExtraError


def open_gguf(path: Path) -> Any:
    """Return a gguf.GGUFReader; raises ArtifactError where the file is missing or damaged."""
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError(
            "reading GGUF needs the gguf package: pip install 'gristmill[run]'"
        ) from error
    try:
        return gguf.GGUFReader(path)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # of a damaged file the reader raises whatever NumPy does
        raise ArtifactError(
            f"{path} is damaged or no GGUF ({error}); copy it again from where it came from"
        ) from None


def value(reader: Any, key: str, default: Any = None) -> Any:
    """Return the value of a key: number, text, or list of them; raises ArtifactError."""
    field = reader.fields.get(key)
    try:
        return default if field is None else field.contents()
    except UnicodeDecodeError as error:
        raise ArtifactError(
            f"{reader.data.filename}: {key} is damaged, a text in it is not UTF-8 ({error}); copy "
            "the file again from where it came from"
        ) from None
