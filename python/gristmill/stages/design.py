"""Stage 5: the shape of the model, what it takes, how long to train it; the baselines to beat.

Reads the splits but test. Gate: training fits the memory that is free.
"""

from __future__ import annotations

from typing import Any

from gristmill.artifacts import Gate, Result, StageContext, write_json
from gristmill.data.holes import KINDS
from gristmill.data.loader import Loader
from gristmill.data.table import write_table
from gristmill.data.tokenizer import Tokenizer
from gristmill.evaluation import scores
from gristmill.evaluation.baselines import TextBaselines, hole_baselines, text_baselines
from gristmill.evaluation.chosen import choose_holes
from gristmill.evaluation.complete import Completion
from gristmill.evaluation.corpus import Corpus, open_corpus, texts
from gristmill.training.shape import Cost, cost, model_config

HOLES, MAX_TOKENS = 40, 64  # per kind, for the completers without a network
BASELINES = {"id": "VARCHAR", "bytes": "BIGINT", "ngram": "DOUBLE", "bz2": "DOUBLE", "xz": "DOUBLE"}


def run(ctx: StageContext) -> Result:
    """Write design.json, baselines.json and baselines.parquet (bits per document)."""
    from gristmill.training.adapting import adapted_cost, has_new_tokens
    from gristmill.training.estimate import free_memory

    split, design = ctx.input("split"), ctx.config.design
    tokenizer = Tokenizer.load(split)
    model = _model(ctx, tokenizer)
    t = ctx.config.train
    price = cost(model, design.context, design.batch, t.recompute, t.shards)
    price = adapted_cost(price, model, t.lora, has_new_tokens(split))
    train, val = open_corpus(split / "train"), open_corpus(split / "val")
    free = free_memory()
    speed = _speed(ctx, model, price, train) if price.memory_bytes <= free else {}
    facts = _facts(ctx, model, price, speed)
    write_json(ctx.out / "design.json", facts | {"memory_free": free})
    ctx.progress("baselines: n-gram, bz2, xz")
    counts = val.byte_counts(range(len(val.documents)), tokenizer)
    text = text_baselines(train.bytes(), val.bytes(), given_train=False, counts=counts)
    filled, passed = _holes(ctx, train, val, tokenizer)
    holes = _write_baselines(ctx, val, text, filled, passed)
    gate = Gate(
        "memory to train, bytes",
        price.memory_bytes,
        free,
        price.memory_bytes <= free,
        "design.json",
    )
    summary = (
        f"{price.parameters:,} parameters, {facts['steps']:,} steps in "
        f"{facts['train']['dtype']}, "
        f"n-gram {text.ngram.per_byte:.3f} b/B"
    )
    return Result(summary, [gate], _report(facts, text, holes))


def _model(ctx: StageContext, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return config.json's content: by [design], or that of the model the run begins from."""
    design, given = ctx.config.design, ctx.config.initialize.from_
    if given is None:
        return model_config(design, tokenizer.vocab_size) | {"eos_token_id": tokenizer.eos}
    from gristmill.checkpoint.source import open_source
    from gristmill.training.given import config_of

    return config_of(open_source(given), design, tokenizer.vocab_size, tokenizer.eos)


def _speed(ctx: StageContext, model: dict[str, Any], price: Cost, train: Corpus) -> dict[str, Any]:
    """Measure real steps on real batches; returns nothing where there is no room to."""
    from gristmill.models import build, config_from_dict
    from gristmill.training.adapting import adapt, has_new_tokens
    from gristmill.training.estimate import measure_speed, peak_flops, resolve_dtype
    from gristmill.training.trainer import TrainerConfig

    ctx.progress("timing steps")
    design, t = ctx.config.design, ctx.config.train
    loader = Loader(train.shard, design.batch, design.context, ctx.seed)
    dtype = resolve_dtype(t.dtype)
    short = TrainerConfig(
        dtype=dtype, accumulate=t.accumulate, recompute=t.recompute, shards=t.shards,
        dropout=t.dropout,
    )  # fmt: skip
    timed = build(config_from_dict(model))
    adapt(timed, t.lora, has_new_tokens(ctx.input("split")), ctx.seed)
    speed = measure_speed(timed, loader, short)
    peak = peak_flops(dtype)
    return {
        "seconds_per_step": speed.seconds_per_step,
        "tokens_per_second": speed.tokens_per_second,
        "steps_timed": speed.timed,
        "peak_flops": peak,
        "share_of_peak": speed.tokens_per_second * price.flops_per_token / peak,
    }


def _facts(
    ctx: StageContext, model: dict[str, Any], price: Cost, speed: dict[str, Any]
) -> dict[str, Any]:
    """Return the design: given, derived, measured; a model that does not fit gets its 1 step."""
    from gristmill.training.estimate import resolve_dtype, seconds_for, steps_for

    design, train = ctx.config.design, ctx.config.train
    pace = speed.get("seconds_per_step")
    steps = design.steps or (steps_for(design.minutes, pace) if pace else 1)
    return {
        "model": model,
        "steps": steps,
        "steps_from": "design.steps" if design.steps else "design.minutes",
        "batch": design.batch,
        "context": design.context,
        "train": {
            "dtype": resolve_dtype(train.dtype),
            "accumulate": train.accumulate,
            "recompute": train.recompute,
        },
        "tokens": steps * design.batch * design.context * train.accumulate,
        "parameters": price.parameters,
        "flops_per_token": price.flops_per_token,
        "memory_bytes": price.memory_bytes,
        "seconds_predicted": seconds_for(steps, pace) if pace else None,
        **speed,
    }


def _holes(
    ctx: StageContext, train: Corpus, val: Corpus, tokenizer: Tokenizer
) -> tuple[dict[str, list[Completion]], int]:
    """Return what completers without a network write, and how many holes were passed over."""
    if val.shard.mask is not None:  # conversations have no holes
        return {}, 0
    ctx.progress("baselines: completers of holes")
    chosen, passed = choose_holes(val.documents, KINDS, HOLES, ctx.seed)
    tokens, text = train.shard.tokens, texts(val.documents)
    return hole_baselines(tokens, tokenizer, chosen, text, MAX_TOKENS), passed


def _write_baselines(
    ctx: StageContext,
    val: Corpus,
    text: TextBaselines,
    filled: dict[str, list[Completion]],
    passed: int,
) -> dict[str, Any]:
    holes = {
        name: scores.by_kind(done, resamples=200, confidence=0.95, seed=ctx.seed)
        for name, done in filled.items()
    }
    write_json(
        ctx.out / "baselines.json",
        {
            "split": "val",
            "bits_per_byte": text.plain(),
            "ngram_counted_bytes": text.counted,
            "holes": holes,
            "holes_passed_over": passed,
            "max_tokens": MAX_TOKENS,
        },
    )
    rows = zip(
        (document.id for document in val.documents),
        text.ngram.bytes.tolist(),
        text.ngram.bits.tolist(),
        text.per_file["bz2"].bits.tolist(),
        text.per_file["xz"].bits.tolist(),
        strict=True,
    )
    write_table(ctx.out / "baselines.parquet", BASELINES, rows)
    return holes


def _report(facts: dict[str, Any], text: TextBaselines, holes: dict[str, Any]) -> dict[str, Any]:
    bits = text.plain()
    numbers = {
        "parameters": facts["parameters"],
        "memory to train": f"{facts['memory_bytes'] / 1e6:.0f} MB",
        "MFLOP per token": facts["flops_per_token"] / 1e6,
        "steps": facts["steps"],
        "tokens": facts["tokens"],
        "type of the products": facts["train"]["dtype"],
    }
    if "tokens_per_second" in facts:
        numbers["tokens per second, measured"] = facts["tokens_per_second"]
        numbers["share of the measured matmul peak"] = f"{facts['share_of_peak']:.0%}"
        numbers["predicted training"] = f"{facts['seconds_predicted']:.0f} s"
    return {
        "what": "Widths follow from one dial, depth; parameters, work, memory and time are known "
        "before training. The same validation files are given to methods without a network.",
        "why": "A model that does not fit is refused here, not after an hour; a network that does "
        "not beat an n-gram has learnt nothing.",
        "numbers": numbers,
        "plots": [
            {
                "title": "Baselines on the validation files",
                "kind": "bar",
                "x_label": "method",
                "y_label": "bits per byte",
                "series": [{"name": "val", "x": list(bits), "y": list(bits.values())}],
            }
        ],
        "tables": [
            {
                "title": "Shape",
                "columns": ["field", "value"],
                "rows": [[k, v] for k, v in facts["model"].items()],
            },
            scores.table("Holes without a network", holes),
        ],
    }
