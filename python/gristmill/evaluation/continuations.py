"""How a model goes on with held-out texts: for people to read, beside what really followed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from gristmill.data.tokenizer import Tokenizer
from gristmill.evaluation.answers import Writer
from gristmill.evaluation.corpus import Corpus

SHORTEST = 16  # ids; of a shorter text nothing is left to continue


def continuations(
    writer: Writer, corpus: Corpus, positions: Sequence[int], tokenizer: Tokenizer,
    n: int, context: int, max_tokens: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return samples of the first texts, each gone on with from its middle or half the context."""
    ends = {*tokenizer.marks.values(), *tokenizer.special.values()}
    found: list[dict[str, Any]] = []
    for position in positions:
        ids = corpus.shard.doc(position)[:-1].tolist()
        if len(ids) < SHORTEST or len(found) == n:
            continue
        begin = min(len(ids) // 2, context // 2)
        written = []
        for id in islice(writer.after(ids[:begin]), max_tokens):
            if id in ends:
                break
            written.append(id)
        truth = tokenizer.decode(ids[begin : begin + max_tokens])
        text = tokenizer.decode(written)
        found.append(
            {
                "kind": "continuation",
                "path": corpus.documents[position].path,
                "prefix": tokenizer.decode(ids[:begin]),
                "suffix": "",
                "completion": text,
                "truth": truth,
                "exact": text == truth,
            }
        )
    return found
