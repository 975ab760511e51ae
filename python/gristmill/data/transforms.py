"""Transforms that learn: declared by clean, fitted here on the training split and on nothing else.

Now quantile thresholds of a column; the fitted values are what later stages and serving use, so
that a file is put into the same class everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gristmill.data.document import Document
from gristmill.errors import ArtifactError

COLUMNS: dict[str, Callable[[Document], int]] = {
    "characters": lambda document: len(document.text),
    "bytes": lambda document: len(document.text.encode("utf-8", "surrogatepass")),
    "lines": lambda document: document.text.count("\n") + 1,
}


def fit_transforms(
    declared: Sequence[Mapping[str, Any]], train: Sequence[Document]
) -> list[dict[str, Any]]:
    """Return each declared transform with its fitted `values` and the number of files behind them.

    quantile: `values[i]` is the smallest value of the column that at least the share `at[i]` of the
    files do not exceed (no interpolation, so it is a value that occurs). Raises ArtifactError for a
    transform that this version does not know.
    """
    fitted = []
    for transform in declared:
        kind, column = transform.get("kind"), transform.get("column")
        if kind != "quantile" or column not in COLUMNS:
            raise ArtifactError(
                f"transforms.json declares {kind!r} of {column!r}; this version fits quantile of "
                f"{', '.join(COLUMNS)}: run clean again"
            )
        values = np.array([COLUMNS[column](document) for document in train], np.int64)
        cuts = np.quantile(values, transform["at"], method="inverted_cdf").tolist()
        fitted.append({**transform, "values": cuts, "split": "train", "documents": len(train)})
    return fitted
