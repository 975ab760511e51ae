"""The training rows nearest to a served answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.data.shards import Shard
from gristmill.data.tokenizer import Tokenizer
from gristmill.evaluation.nearest import GRAM, nearest
from gristmill.ledger.records import RunRecord, select
from gristmill.ledger.trace import Block

TITLE = (
    "nearest training text, by the longest common run of tokens: which text is like the answer, "
    "not what caused it (every answer comes from all weights)"
)


def nearest_block(choices: Sequence[Mapping[str, Any]], run: RunRecord) -> Block:
    """Return the documents of the run's training split that are nearest to the first choice."""
    split = run.stages["04_split"]
    tokenizer, shard = Tokenizer.load(split), Shard.open(split / "train")
    block = Block(TITLE)
    if not choices:
        block.add("none", "the answer has no text")
        return block
    ids = choices[0].get("tokens") or tokenizer.encode(str(choices[0]["text"]))
    found = nearest(ids, shard.tokens, shard.offsets)
    if not found:
        block.add("none", f"{len(ids)} tokens; no {GRAM} in a row stand in the training split")
        return block
    rows = select([split / "train" / "documents.parquet"], ("id", "source", "path", "licence"))
    for near in found:
        _, id, source, path, licence = rows[near.document]
        text = tokenizer.decode_bytes(shard.tokens[near.place : near.place + near.run].tolist())
        shown = text.decode("utf-8", "replace").replace("\n", "⏎")
        revision = run.sources.get(source, {}).get("revision") or "without revision"
        block.add(
            f"{source}/{path}",
            f"{near.run} of {len(ids)} tokens in a row, {near.share:.0%} of its {GRAM}-grams; "
            f"{licence}, {revision[:16]}, id {id[:16]}: {shown[:120]!r}",
        )
    return block
