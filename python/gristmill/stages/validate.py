"""Stage 8: which checkpoint goes on, how sure that is, and whether the model overfits.

Gate: the chosen checkpoint needs fewer bits per byte than the n-gram, on the same files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.artifacts import Gate, Result, StageContext, read_json, write_json
from gristmill.data.holes import KINDS
from gristmill.data.table import read_table, write_table
from gristmill.data.tokenizer import Tokenizer
from gristmill.evaluation import overfit, scores
from gristmill.evaluation.bits import Bits, bits_per_byte
from gristmill.evaluation.bootstrap import Interval, interval
from gristmill.evaluation.candidates import Choice, choose
from gristmill.evaluation.chosen import choose_bytes, choose_documents, choose_holes
from gristmill.evaluation.corpus import Corpus, byte_lengths, open_corpus, texts
from gristmill.evaluation.gain import Gain, gain

BITS = {"id": "VARCHAR", "bytes": "BIGINT", "bits": "DOUBLE"}
TRAIN_BYTES = 250_000  # of training files that are measured beside the validation files


def run(ctx: StageContext) -> Result:
    """Write verdict.json (the choice), bits.parquet (of its files) and metrics.json."""
    split, c = ctx.input("split"), ctx.config.validate
    tokenizer = Tokenizer.load(split)
    val = open_corpus(split / "val")
    chosen = choose_documents([d.id for d in val.documents], c.documents, ctx.seed)
    measured = {
        name: _bits(ctx, ctx.input("train") / name, val, chosen, tokenizer)
        for name in _distinct(ctx.input("train"))
    }
    choice = choose(measured, resamples=c.bootstrap, confidence=c.confidence, seed=ctx.seed)
    ngram = _ngram(ctx, [val.documents[i].id for i in chosen])
    verdict = _overfitting(ctx, choice, tokenizer)
    holes, passed = _holes(ctx, choice.name, val, chosen, tokenizer)
    change = _gain(ctx, val, chosen, tokenizer, measured[choice.name])
    bits = choice.bits[choice.name]
    found = measured[choice.name]
    ids = (val.documents[i].id for i in chosen)
    rows = zip(ids, found.bytes.tolist(), found.bits.tolist(), strict=True)
    write_table(ctx.out / "bits.parquet", BITS, rows)
    write_json(ctx.out / "verdict.json", choice.plain() | {"overfitting": verdict.plain()})
    write_json(
        ctx.out / "metrics.json",
        {
            "bits_per_byte": bits.plain(),
            "documents": len(chosen),
            "bytes": int(measured[choice.name].bytes.sum()),
            "baselines": {"ngram": ngram.plain()},
            "holes": holes,
            "holes_passed_over": passed,
            **({"given": change.plain()} if change else {}),
        },
    )
    gate = Gate(
        "bits per byte, validation files", bits.value, ngram.value, bits.value < ngram.value,
        "metrics.json",
    )  # fmt: skip
    summary = f"{choice.name}, {bits.value:.3f} b/B (n-gram {ngram.value:.3f}), {verdict.kind}"
    report = _report(choice, ngram, verdict, holes, passed)
    if change:
        report["tables"].insert(0, change.table())
    return Result(summary, [gate], report)


def _distinct(train: Path) -> list[str]:
    """Return the checkpoints that differ: best, and last where it is a later step."""
    steps = {n: read_json(train / n / "training" / "state.json")["step"] for n in ("best", "last")}
    return ["best"] if steps["best"] == steps["last"] else ["best", "last"]


def _gain(
    ctx: StageContext, val: Corpus, positions: Sequence[int], tokenizer: Tokenizer, after: Bits
) -> Gain | None:
    """Return what training changed of given weights; None where they were drawn."""
    if ctx.config.initialize.from_ is None:
        return None
    c = ctx.config.validate
    before = _bits(ctx, ctx.input("initialize") / "model", val, positions, tokenizer)
    return gain(before, after, resamples=c.bootstrap, confidence=c.confidence, seed=ctx.seed)


def _bits(
    ctx: StageContext, folder: Path, corpus: Corpus, positions: Sequence[int], tokenizer: Tokenizer
) -> Bits:
    from gristmill.models import from_pretrained

    model = from_pretrained(folder)
    context = model.config.max_position_embeddings
    return bits_per_byte(
        model,
        corpus.ids(positions),
        byte_lengths(tokenizer),
        context=context,
        stride=min(ctx.config.validate.stride, context),
        counts=corpus.counts(positions),
        progress=lambda share: ctx.progress(f"bits per byte of {folder.name}: {share:.0%}"),
    )


def _ngram(ctx: StageContext, ids: Sequence[str]) -> Interval:
    """Return the n-gram's figure of stage design on the same documents."""
    c = ctx.config.validate
    rows = read_table(ctx.input("design") / "baselines.parquet", ["id", "bytes", "ngram"])
    by_id = {id: (size, bits) for id, size, bits in rows}
    size, bits = np.array([by_id[id] for id in ids]).T
    return interval(bits, size, resamples=c.bootstrap, confidence=c.confidence, seed=ctx.seed)


def _overfitting(ctx: StageContext, choice: Choice, tokenizer: Tokenizer) -> overfit.Overfitting:
    """Measure some training files too, and follow the looks of training."""
    c = ctx.config.validate
    train = open_corpus(ctx.input("split") / "train")
    sizes = [len(d.text.encode("utf-8")) for d in train.documents]
    few = choose_bytes([d.id for d in train.documents], sizes, TRAIN_BYTES, ctx.seed)
    bits = _bits(ctx, ctx.input("train") / choice.name, train, few, tokenizer)
    seen = interval(
        bits.bits, bits.bytes, resamples=c.bootstrap, confidence=c.confidence, seed=ctx.seed
    )
    lines = (ctx.input("train") / "metrics.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    looks = [(row["step"], row["val_loss"]) for row in rows if "val_loss" in row]
    return overfit.judge(seen, choice.bits[choice.name], looks, len(rows), c.overfit)


def _holes(
    ctx: StageContext, name: str, val: Corpus, positions: Sequence[int], tokenizer: Tokenizer
) -> tuple[dict[str, Any], int]:
    """Return the figures of the holes, and how many holes were passed over."""
    from gristmill.evaluation.complete import ModelCompleter, complete
    from gristmill.models import from_pretrained

    c = ctx.config.validate
    documents = val.some(positions)
    if val.shard.mask is not None:  # conversations have no holes
        return {}, 0
    holes, passed = choose_holes(documents, KINDS, c.holes, ctx.seed)
    model = from_pretrained(ctx.input("train") / name)
    done = complete(
        ModelCompleter(model, tokenizer, c.max_tokens, ctx.config.train.suffix_first),
        holes,
        texts(documents),
        max_tokens=c.max_tokens,
        progress=lambda share: ctx.progress(f"holes: {share:.0%}"),
    )
    found = scores.by_kind(done, resamples=c.bootstrap, confidence=c.confidence, seed=ctx.seed)
    return found, passed


def _report(
    choice: Choice,
    ngram: Interval,
    verdict: overfit.Overfitting,
    holes: dict[str, Any],
    passed: int,
) -> dict[str, Any]:
    names = [*choice.bits, "n-gram", "training files"]
    figures = [*choice.bits.values(), ngram, verdict.train]
    rows = [[n, i.value, i.low, i.high] for n, i in zip(names, figures, strict=True)]
    paired = [
        [name, d.value, d.low, d.high, choice.verdicts()[name]]
        for name, d in choice.differences.items()
    ]
    columns = ["", "bits per byte", "low", "high"]
    tables = [{"title": "Validation files, and a sample of training files", "columns": columns,
               "rows": rows}, scores.table("Holes", {choice.name: holes})]  # fmt: skip
    if paired:
        title = f"Compared with {choice.name}, on the same files"
        tables.append({"title": title, "columns": [*columns, "verdict"], "rows": paired})
    return {
        "what": "The checkpoints are measured on the validation files: bits per byte, and holes "
        "they have to fill; intervals by drawing files again and again.",
        "why": "Files that the model was not trained on say which checkpoint goes on, and the "
        f"intervals how sure that is. Verdict: {verdict.text}.",
        "numbers": {
            "chosen": choice.name,
            "bits per byte": choice.bits[choice.name].value,
            "n-gram": ngram.value,
            "training files": verdict.train.value,
            "verdict": verdict.kind,
            "holes passed over, their end is ambiguous": passed,
        },
        "plots": [],
        "tables": tables,
    }
