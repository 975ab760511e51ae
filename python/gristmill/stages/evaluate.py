"""Stage 10, the test: the sealed split is opened here and nowhere else, and that is counted.

Reads the saved model. Gates: fewer bits per byte than the bar (evaluate.max_bits_per_byte, else the
byte n-gram on the same files), and every byte of the files is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.artifacts import Gate, Result, StageContext, read_json, write_json
from gristmill.data.chat_tokens import FACTS
from gristmill.data.table import write_table
from gristmill.data.tokenizer import Tokenizer
from gristmill.evaluation import answers, scores, slices
from gristmill.evaluation.access import open_sealed
from gristmill.evaluation.answers import Answer
from gristmill.evaluation.baselines import TextBaselines, hole_baselines, text_baselines
from gristmill.evaluation.bits import Bits, bits_per_byte
from gristmill.evaluation.bootstrap import Interval, interval
from gristmill.evaluation.chosen import choose_documents, choose_holes
from gristmill.evaluation.complete import Completion
from gristmill.evaluation.contamination import RUN, SHARE, overlaps
from gristmill.evaluation.continuations import continuations
from gristmill.evaluation.corpus import Corpus, byte_lengths, open_corpus, texts
from gristmill.evaluation.gain import Gain, gain
from gristmill.evaluation.hole_baselines import CacheNGram
from gristmill.evaluation.measured import BITS, DOCUMENTS, split_digest, write_measured

MODEL = "model"
CONTEXT_LINES = 20  # kept before and after a sample's hole
COLUMNS = {
    "completer": "VARCHAR", "kind": "VARCHAR", "path": "VARCHAR", "document": "VARCHAR",
    "start": "BIGINT", "end": "BIGINT", "truth": "VARCHAR", "completion": "VARCHAR",
    "exact": "BOOLEAN", "similarity": "DOUBLE", "keystrokes": "BIGINT", "parses": "BOOLEAN",
}  # fmt: skip


@dataclass(frozen=True)
class _Test:
    """The opened split: which documents are measured, and the training split they are new to."""

    train: Corpus
    corpus: Corpus
    positions: list[int]
    tokenizer: Tokenizer

    @property
    def ids(self) -> list[str]:
        return [self.corpus.documents[i].id for i in self.positions]


def run(ctx: StageContext) -> Result:
    """Write metrics.json, slices.json, samples.json, contamination.json, access.json,
    documents.parquet and holes.parquet.
    """
    split = ctx.input("split")
    opened = open_sealed(split, ctx.out, split.parent.glob("evaluate-*"))
    corpus = open_corpus(split / "test")
    positions = choose_documents(
        [d.id for d in corpus.documents], ctx.config.evaluate.documents, ctx.seed
    )
    test = _Test(open_corpus(split / "train"), corpus, positions, Tokenizer.load(split))
    bits = _bits(ctx, test, ctx.input("save") / "model")
    change = _gain(ctx, test, bits)
    ctx.progress("baselines: n-gram, bz2, xz, xz given train")
    counts = corpus.byte_counts(positions, test.tokenizer)
    text = text_baselines(
        test.train.bytes(), corpus.bytes(positions), given_train=True, counts=counts
    )
    filled, passed = _fill(ctx, test)
    answered = _answer(ctx, test)
    measured = {name: scores.by_kind(done, **_options(ctx)) for name, done in filled.items()}
    figure = interval(bits.bits, bits.bytes, **_options(ctx))
    sliced = _slices(ctx, test, bits, text, filled[MODEL])
    contamination = _contamination(test, bits)
    metrics = {
        "bits_per_byte": figure.plain(),
        "documents": len(positions),
        "split": split_digest(corpus.documents),
        "bytes": int(bits.bytes.sum()),
        "baselines": text.plain(),
        "ngram_counted_bytes": text.counted,
        "holes": measured,
        "holes_trained": ctx.config.train.fim_rate > 0,
        "holes_passed_over": passed,
        "contamination": {k: v for k, v in contamination.items() if k != "pairs"},
        "opened": opened,
        **({"given": change.plain()} if change else {}),
        **({"answers": answers.measure(answered, **_options(ctx))} if answered else {}),
    }
    write_json(ctx.out / "metrics.json", metrics)
    write_json(ctx.out / "slices.json", sliced)
    write_json(ctx.out / "contamination.json", contamination)
    write_json(ctx.out / "samples.json", _shown(ctx, test, answered, filled[MODEL]))
    columns = {BITS: bits, "ngram": text.ngram, **text.per_file}
    write_measured(ctx.out / DOCUMENTS, corpus.some(positions), columns)
    _write_holes(ctx, filled)
    gates = _gates(ctx, figure, text, bits)
    summary = f"{figure.value:.3f} b/B (n-gram {text.ngram.per_byte:.3f}){_said(metrics)}"
    report = _report(metrics, sliced, measured, contamination)
    if change:
        report["tables"].insert(0, change.table())
    return Result(summary, gates, report)


def _options(ctx: StageContext) -> dict[str, Any]:
    c = ctx.config.evaluate
    return {"resamples": c.bootstrap, "confidence": c.confidence, "seed": ctx.seed}


def _gain(ctx: StageContext, test: _Test, after: Bits) -> Gain | None:
    """Return what training changed of given weights; None where they were drawn."""
    if ctx.config.initialize.from_ is None:
        return None
    return gain(_bits(ctx, test, ctx.input("initialize") / "model"), after, **_options(ctx))


def _bits(ctx: StageContext, test: _Test, folder: Path) -> Bits:
    from gristmill.models import from_pretrained

    model = from_pretrained(folder)
    context = model.config.max_position_embeddings
    return bits_per_byte(
        model,
        test.corpus.ids(test.positions),
        byte_lengths(test.tokenizer),
        context=context,
        stride=min(ctx.config.evaluate.stride, context),
        counts=test.corpus.counts(test.positions),
        progress=lambda share: ctx.progress(f"bits per byte: {share:.0%}"),
    )


def _fill(ctx: StageContext, test: _Test) -> tuple[dict[str, list[Completion]], int]:
    """Return the completions of the model and of both completers without a network, and how many
    holes were passed over.
    """
    from gristmill.evaluation.complete import ModelCompleter, complete
    from gristmill.models import from_pretrained

    c = ctx.config.evaluate
    documents = test.corpus.some(test.positions)
    holes, passed = choose_holes(documents, c.kinds, c.holes, ctx.seed)
    if test.corpus.shard.mask is not None or not holes:  # conversations have no holes
        return {MODEL: []}, passed
    text = texts(documents)
    model = from_pretrained(ctx.input("save") / "model")
    done = complete(
        ModelCompleter(model, test.tokenizer, c.max_tokens, ctx.config.train.suffix_first),
        holes,
        text,
        max_tokens=c.max_tokens,
        progress=lambda share: ctx.progress(f"holes: {share:.0%}"),
    )
    ctx.progress("holes: completers without a network")
    tokens = test.train.shard.tokens
    others = hole_baselines(tokens, test.tokenizer, holes, text, c.max_tokens)
    return {MODEL: done, **others}, passed


def _answer(ctx: StageContext, test: _Test) -> dict[str, list[Answer]]:
    """Return answers to held-out questions by method; nothing where there are no conversations."""
    from gristmill.evaluation.complete import ModelCompleter
    from gristmill.models import from_pretrained

    if test.corpus.shard.mask is None or ctx.config.split.chat.loss != "answers":
        return {}
    c, tokens = ctx.config.evaluate, test.train.shard.tokens
    asked = answers.questions(test.corpus, test.positions, test.tokenizer, c.answers, ctx.seed)
    every = range(len(test.train.documents))
    known = answers.questions(test.train, every, test.tokenizer)
    model = ModelCompleter(
        from_pretrained(ctx.input("save") / "model"), test.tokenizer, c.max_tokens
    )

    def tell(share: float) -> None:
        ctx.progress(f"answers: {share:.0%}")

    done = {MODEL: answers.answer(model, asked, test.tokenizer, c.max_tokens, tell)}
    ngram = CacheNGram(tokens, test.tokenizer)
    done["n-gram"] = answers.answer(ngram, asked, test.tokenizer, c.max_tokens)
    done[answers.NEAREST] = answers.Nearest(known).answers(asked)
    answers.write(ctx.out / "answers.parquet", done)
    return done


def _said(metrics: dict[str, Any]) -> str:
    """Return what the summary says beside bits per byte."""
    if "answers" in metrics:
        overlap = metrics["answers"][MODEL]["overlap"]["value"]
        nearest = metrics["answers"][answers.NEAREST]["overlap"]["value"]
        return f", overlap {overlap:.2f} ({nearest:.2f})"
    holes = metrics["holes"][MODEL]
    if not holes:
        return ""
    return f", {holes[scores.ALL]['keystrokes_saved']['value']:.1%} keys saved"


def _slices(
    ctx: StageContext, test: _Test, bits: Bits, text: TextBaselines, done: Sequence[Completion]
) -> dict[str, Any]:
    area = [d.area for d in test.corpus.some(test.positions)]
    difficulty = text.ngram.bits / text.ngram.bytes.clip(1)
    labels = slices.label_all(ctx.config.evaluate.slices, area, bits.bytes, difficulty)
    return {
        name: slices.measure(one, test.ids, bits, text.ngram, done, **_options(ctx))
        for name, one in labels.items()
    }


def _contamination(test: _Test, bits: Bits) -> dict[str, Any]:
    """Return what stands in the training split too, and the figure with and without it."""
    shard = test.train.shard
    found = overlaps(shard.tokens, shard.offsets, test.corpus.ids(test.positions))
    clean = [i for i, overlap in enumerate(found) if overlap.share < SHARE]
    pairs = [
        {
            "test": test.corpus.documents[position].path,
            "train": test.train.documents[overlap.source].path,
            "share": overlap.share,
        }
        for position, overlap in zip(test.positions, found, strict=True)
        if overlap.share >= SHARE
    ]
    rest = int(bits.bytes[clean].sum())
    return {
        "run": RUN,
        "share": SHARE,
        "flagged": len(pairs),
        "bits_per_byte_with": bits.per_byte,
        "bits_per_byte_without": float(bits.bits[clean].sum() / rest) if rest else None,
        "pairs": sorted(pairs, key=lambda pair: (-pair["share"], pair["test"])),
    }


def _shown(
    ctx: StageContext,
    test: _Test,
    answered: dict[str, list[Answer]],
    filled: list[Completion],
) -> list[dict[str, Any]]:
    """Return answers to read, or filled holes, or how texts go on where there are neither."""
    from gristmill.evaluation.complete import ModelCompleter
    from gristmill.models import from_pretrained

    c = ctx.config.evaluate
    if answered:
        template = read_json(ctx.input("split") / FACTS)["template"]
        return answers.samples(answered[MODEL], c.samples, template)
    if filled or test.corpus.shard.mask is not None:
        return _samples(ctx, test, filled)
    model = from_pretrained(ctx.input("save") / "model")
    writer = ModelCompleter(model, test.tokenizer, c.max_tokens)
    n, context = min(c.samples, 12), model.config.max_position_embeddings
    return continuations(
        writer, test.corpus, test.positions, test.tokenizer, n, context, c.max_tokens
    )


def _samples(ctx: StageContext, test: _Test, done: Sequence[Completion]) -> list[dict[str, Any]]:
    """Return the first completions of every kind, as many of each; not chosen by quality."""
    text = texts(test.corpus.some(test.positions))
    kinds = list(dict.fromkeys(c.hole.kind for c in done))
    each = -(-ctx.config.evaluate.samples // max(1, len(kinds)))
    by_kind = [[c for c in done if c.hole.kind == kind][:each] for kind in kinds]
    return [
        {
            "kind": c.hole.kind,
            "path": c.hole.path,
            "prefix": _last_lines(text[c.hole.doc_id][: c.hole.start]),
            "suffix": _first_lines(text[c.hole.doc_id][c.hole.end :]),
            "completion": c.text,
            "truth": c.truth,
            "exact": c.exact,
        }
        for few in by_kind
        for c in few
    ]


def _last_lines(text: str) -> str:
    return "\n".join(text.split("\n")[-CONTEXT_LINES:])


def _first_lines(text: str) -> str:
    return "\n".join(text.split("\n")[:CONTEXT_LINES])


def _write_holes(ctx: StageContext, filled: dict[str, list[Completion]]) -> None:
    rows = [
        (
            name, c.hole.kind, c.hole.path, c.hole.doc_id, c.hole.start, c.hole.end,
            c.truth, c.text, c.exact, c.similarity, c.keystrokes, c.parses,
        )
        for name, done in filled.items()
        for c in done
    ]  # fmt: skip
    write_table(ctx.out / "holes.parquet", COLUMNS, rows)


def _gates(ctx: StageContext, figure: Interval, text: TextBaselines, bits: Bits) -> list[Gate]:
    bar = ctx.config.evaluate.max_bits_per_byte
    name = "bits per byte, test files" + (" (bar: n-gram)" if bar is None else "")
    bar = text.ngram.per_byte if bar is None else bar
    counted, there = int(bits.bytes.sum()), int(text.ngram.bytes.sum())
    return [
        Gate(name, figure.value, bar, figure.value < bar, "metrics.json"),
        Gate("bytes counted", counted, there, counted == there, "metrics.json"),
    ]


def _report(
    metrics: dict[str, Any],
    sliced: dict[str, Any],
    measured: dict[str, Any],
    contamination: dict[str, Any],
) -> dict[str, Any]:
    figure = metrics["bits_per_byte"]
    compared = {"this model": figure["value"], **metrics["baselines"]}
    numbers = {
        "bits per byte": figure["value"],
        "interval": scores.between(figure),
        "files": metrics["documents"],
        "bytes, each counted once": metrics["bytes"],
        "times this split was opened": metrics["opened"],
        "files that stand in the training split too": contamination["flagged"],
        "trained to fill holes": metrics["holes_trained"],
        "holes passed over, their end is ambiguous": metrics["holes_passed_over"],
    }
    worst = slices.worst(sliced)
    if worst is not None:
        numbers["worst slice against the n-gram"] = f"{worst[0]}: {worst[1]}"
    plots = [
        {
            "title": "Bits per byte on the test files", "kind": "bar", "x_label": "method",
            "y_label": "bits per byte",
            "series": [{"name": "test", "x": list(compared), "y": list(compared.values())}],
        },
        *([_hole_plot(measured)] if measured[MODEL] else []),
    ]  # fmt: skip
    filled = [scores.table("Holes by kind, with intervals", measured)] if measured[MODEL] else []
    if "answers" in metrics:
        filled.append(answers.table(metrics["answers"]))
    return {
        "what": "Files the model has never seen: bits per byte by a sliding window, and holes it "
        "has to fill, beside methods without a network on the same files.",
        "why": "Only a split that nothing was chosen by says what the model is worth; each "
        "opening makes it worth a little less, so they are counted.",
        "numbers": numbers,
        "plots": plots,
        "tables": [
            *filled,
            *(_slice_table(name, labels) for name, labels in sliced.items()),
            {
                "title": f"In the training split too: {SHARE:.0%} or more in runs of {RUN} tokens",
                "columns": ["test file", "training file", "share"],
                "rows": [[p["test"], p["train"], p["share"]] for p in contamination["pairs"]],
            },
        ],
    }


def _hole_plot(measured: dict[str, Any]) -> dict[str, Any]:
    series = [
        {
            "name": name,
            "x": list(kinds),
            "y": [found["keystrokes_saved"]["value"] for found in kinds.values()],
        }
        for name, kinds in measured.items()
    ]
    return {
        "title": "Keystrokes saved", "kind": "bar", "x_label": "kind of hole",
        "y_label": "share of characters", "series": series,
    }  # fmt: skip


def _slice_table(name: str, labels: dict[str, Any]) -> dict[str, Any]:
    rows = [
        [
            label, f["documents"], f["bytes"], f["bits_per_byte"]["value"],
            f["bits_per_byte"]["low"], f["bits_per_byte"]["high"], f["ngram"], f["holes"],
            f["exact"], f["keystrokes_saved"],
        ]
        for label, f in labels.items()
    ]  # fmt: skip
    return {
        "title": f"By {name}",
        "columns": [
            name, "files", "bytes", "bits per byte", "low", "high", "n-gram", "holes", "exact",
            "keystrokes saved",
        ],
        "rows": rows,
    }  # fmt: skip
